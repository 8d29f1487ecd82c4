"""A damaged or hostile model folder causes an error message and nothing else.

Sound folders are damaged at random, with an eye to their structure; CHARLM_MUTATIONS=200000 tries more of it.
"""

import json
import os
import random
import tracemalloc

import numpy as np
import pytest
import safetensors.torch
from models import make_model, save
from mutations import READ_FILES, damage

from charlm.errors import CharLMError
from charlm.lm import CharLM
from charlm.model.cells import CELLS
from charlm.model.folder import read_model
from charlm.model.weights import WEIGHTS_FILE

CASES = int(os.environ.get("CHARLM_MUTATIONS", "5000"))


def check_is_within_the_schema(model):
    config = model.config
    assert config.cell in CELLS and len(set(config.vocab)) == len(config.vocab) > 0
    assert not any("\ud800" <= symbol <= "\udfff" for symbol in config.vocab)
    gates, size, inputs = {"rnn": 1, "lstm": 4, "gru": 3}[config.cell], config.hidden_size, config.embedding_size
    shapes = {"embedding.weight": (len(config.vocab), inputs), "head.weight": (len(config.vocab), size)}
    shapes["head.bias"] = (len(config.vocab),)
    for layer in range(config.num_layers):
        shapes |= {
            f"recurrent.weight_ih_l{layer}": (gates * size, size if layer else inputs),
            f"recurrent.weight_hh_l{layer}": (gates * size, size),
            f"recurrent.bias_ih_l{layer}": (gates * size,),
            f"recurrent.bias_hh_l{layer}": (gates * size,),
        }
    assert {name: array.shape for name, array in model.weights.items()} == shapes
    assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in model.weights.values())
    if model.history is not None:
        assert {"format_version", "run", "epochs", "best"} <= set(model.history)
        json.dumps(model.history, allow_nan=False)


def check_is_what_the_library_reads(weights, packed):
    tensors = safetensors.torch.load(packed)
    assert tensors.keys() == weights.keys()
    assert all(tensor.float().numpy().tobytes() == weights[name].tobytes() for name, tensor in tensors.items())


def read(folder, files):
    """Put files into a folder and read it: return the model, or None if a CharLMError says in one line why not."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    try:
        model = read_model(folder)
    except CharLMError as error:
        message = str(error)
        assert message and "\n" not in message and len(message) < 1000
        return None
    check_is_within_the_schema(model)
    check_is_what_the_library_reads(model.weights, files[WEIGHTS_FILE])
    return model


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """The three files that are read, of a model of every cell."""
    folders = [save(make_model(cell), tmp_path_factory.mktemp(cell)) for cell in CELLS]
    return [{name: (folder / name).read_bytes() for name in READ_FILES} for folder in folders]


@pytest.mark.slow
def test_a_damaged_folder_is_refused_in_one_line_or_a_model_within_the_schema(originals, tmp_path):
    headers = accepted = 0
    for case in range(CASES):
        dice = random.Random(case)
        files = damage(dice.choice(originals), dice)
        model = read(tmp_path, files)
        try:
            safetensors.deserialize(files[WEIGHTS_FILE])
            headers += 1
        except safetensors.SafetensorError:
            pass
        if model is not None:
            accepted += 1
            if accepted % 20 == 0:  # it can be used, too
                try:
                    lm = CharLM(model.config, model.weights, model.history, device="cpu")
                    assert len(lm.generate(length=3, seed=case)) == 3
                except CharLMError:
                    pass
    assert {path.name for path in tmp_path.iterdir()} == set(READ_FILES)
    # the damage is of the kind that is looked for deep inside, and not all of it matters
    assert headers > 0.3 * CASES and 0.01 * CASES < accepted < 0.9 * CASES


@pytest.mark.slow
def test_no_damaged_folder_takes_much_memory(originals, tmp_path):
    tracemalloc.start()
    try:
        for case in range(300):
            dice = random.Random(-1 - case)
            files = damage(dice.choice(originals), dice)
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            read(tmp_path, files)
            assert tracemalloc.get_traced_memory()[1] - before < 64 * 2**20
    finally:
        tracemalloc.stop()
