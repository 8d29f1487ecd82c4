"""A damaged or hostile model folder causes an error message and nothing else.

Sound folders are damaged at random, with an eye to their structure; CHARLM_MUTATIONS=200000 tries more of it.
"""

import copy
import hashlib
import json
import os
import random
import tracemalloc

import numpy as np
import pytest
import safetensors.torch
from models import make_model, pack_safetensors, save, unpack_safetensors

from charlm.errors import CharLMError
from charlm.lm import CharLM
from charlm.model.cells import CELLS
from charlm.model.config import CONFIG_FILE
from charlm.model.folder import read_model
from charlm.model.history import HISTORY_FILE
from charlm.model.weights import WEIGHTS_FILE

CASES = int(os.environ.get("CHARLM_MUTATIONS", "5000"))
WRONG = [None, True, False, "", "a", "\ud800", "lstm", "0" * 64, "1" * 4000, [], {}, [1], {"a": 1}]
NUMBERS = [0, -1, 1, 2, 7, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, 1e-320]
ODD_VALUES = WRONG + NUMBERS
DEEP = ["[" * 100_000, '{"a":' * 2000, "1" * 5000]
ODD_JSON = [*DEEP, "NaN", "Infinity", "-Infinity", "1e999", '"\\ud800"', "{}", "null", ""]


def pick_place(value, dice):
    """Return a container inside a JSON value and a key of it, chosen at random."""
    places = []

    def walk(node):
        keys = node.keys() if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        for key in keys:
            places.append((node, key))
            walk(node[key])

    walk(value)
    return dice.choice(places)


def damage_json(text, dice):
    """Change a JSON text: a value, a key, its length, or the text itself."""
    kind = dice.randrange(8)
    if kind == 0:
        return dice.choice(ODD_JSON)
    if kind == 1:
        place = dice.randrange(len(text))
        return text[:place] + chr(dice.randrange(32, 0x2FFF)) + text[place + 1 :]
    value = json.loads(text)
    node, key = pick_place(value, dice)
    if kind == 2:
        del node[key]
    elif kind == 3 and isinstance(node, dict):
        node[dice.choice(["extra", "cell", "vocab", "best", ""])] = copy.deepcopy(node[key])
    elif kind == 4 and isinstance(node[key], str):
        letters = list(node[key])
        dice.shuffle(letters)
        node[key] = "".join(letters) + dice.choice(["", "a", "\ud800", "\x00", "😀"])
    elif kind == 5 and isinstance(node[key], int | float):
        node[key] = node[key] * dice.choice([-1, 2, 1000, 1e-3, 10**20])
    elif kind == 6:  # the same key twice
        return text.replace("{", '{"cell": "rnn", "epoch": 1,', dice.randint(1, 3))
    else:
        node[key] = dice.choice(ODD_VALUES)
    return json.dumps(value)


def damage_tensors(packed, dice):
    """Change model.safetensors tensor by tensor, so that its header still is one."""
    tensors = unpack_safetensors(packed)
    for _ in range(dice.randint(1, 3)):
        name = dice.choice(list(tensors))
        dtype, shape, raw = tensors[name]
        kind = dice.randrange(6)
        if kind == 0:
            tensors[dice.choice(["extra", "recurrent.weight_ih_l9", name.upper(), "😀"])] = tensors.pop(name)
        elif kind == 1 and len(tensors) > 1:
            del tensors[name]
        elif kind == 2:
            dtype = dice.choice(["F16", "I16", "U16", "BF16"])
            tensors[name] = dtype, shape, raw
        elif kind == 3:
            tensors[name] = dtype, dice.choice([shape[::-1], (*shape, 1), (int(np.prod(shape)),), (1, *shape)]), raw
        elif kind == 4:  # NaN, infinities, and very large numbers
            place = 2 * dice.randrange(len(raw) // 2)
            number = dice.choice([b"\x80\x7f", b"\x80\xff", b"\xc0\x7f", b"\x7f\x7f"])
            tensors[name] = dtype, shape, raw[:place] + number + raw[place + 2 :]
        else:
            tensors[name] = "F32", shape, np.zeros(shape, "<f4").tobytes() if dice.random() < 0.5 else raw
    return pack_safetensors(tensors)


def damage_bytes(packed, dice):
    """Change the bytes of a file without a thought for what they mean."""
    changed = bytearray(packed)
    kind = dice.randrange(4)
    if kind == 0:
        for _ in range(dice.randint(1, 8)):
            changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    elif kind == 1:
        del changed[dice.randrange(len(changed)) :]
    elif kind == 2:
        changed += dice.randbytes(dice.randint(1, 64))
    else:
        changed[:8] = dice.choice([0, 1, 2**20 + 1, 2**62, len(packed)]).to_bytes(8, "little")
    return bytes(changed)


def damage(files, dice):
    """Return the files of a folder with one to three changes, and in most cases a SHA-256 that fits the weights."""
    files = dict(files)
    for _ in range(dice.choice([1, 1, 1, 2, 3])):
        kind = dice.randrange(10)
        name = [CONFIG_FILE, CONFIG_FILE, CONFIG_FILE, HISTORY_FILE, HISTORY_FILE][kind] if kind < 5 else WEIGHTS_FILE
        try:
            if kind < 5:
                files[name] = damage_json(files[name].decode(), dice).encode("utf-8", "surrogatepass")
            elif kind < 9:
                files[name] = damage_tensors(files[name], dice)
            else:
                name = dice.choice(list(files))
                files[name] = damage_bytes(files[name], dice)
        except (ValueError, IndexError, UnicodeDecodeError, TypeError, KeyError, AttributeError, RecursionError):
            files[name] = damage_bytes(files[name] or b"\0", dice)  # it was no longer what it should be
    if dice.random() < 0.9:
        try:
            config = json.loads(files[CONFIG_FILE])
            config["weights_sha256"] = hashlib.sha256(files[WEIGHTS_FILE]).hexdigest()
            files[CONFIG_FILE] = json.dumps(config).encode()
        except (ValueError, TypeError, RecursionError):
            pass  # no longer a JSON object
    return files


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
    return [
        {name: (folder / name).read_bytes() for name in (CONFIG_FILE, WEIGHTS_FILE, HISTORY_FILE)} for folder in folders
    ]


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
    assert {path.name for path in tmp_path.iterdir()} == {CONFIG_FILE, WEIGHTS_FILE, HISTORY_FILE}
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
