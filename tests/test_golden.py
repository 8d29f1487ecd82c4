"""The compiled kernels write the same texts whatever compiled them, on each processor and for each number of texts."""

import json
import shutil
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import numpy as np
import pytest
from browser import ROOT
from golden import LENGTH, SEED, SETTINGS, STORED, TEXTS, digests
from models import make_scheduler

from charlm import CharLM
from charlm.errors import RequestError
from charlm.inference import compiled
from charlm.inference.compiled import FLAGS, load_kernels
from charlm.inference.compiled_model import CompiledModel
from charlm.inference.sampling import BatchSampler, Sampler, SamplingSettings
from charlm.installation import bundled_models
from charlm.model.folder import read_usable_model

GOLDEN = json.loads(STORED.read_text())
COMPILERS = list(filter(shutil.which, compiled.COMPILERS))
needs_compiler = pytest.mark.skipif(not COMPILERS, reason="there is no C compiler here")


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("model", GOLDEN)
def test_the_kernels_write_the_golden_texts(model):
    assert digests(model) == GOLDEN[model]


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("word", ["avx512", "avx2", "plain"])
@pytest.mark.parametrize("model", GOLDEN)
def test_each_instruction_set_writes_the_golden_texts(monkeypatch, model, word):
    monkeypatch.setenv(compiled.VARIABLE, word)
    try:
        load_kernels()
    except RequestError as error:
        pytest.skip(str(error))
    some = SETTINGS[-1:]  # the one that uses most of the kernels; each takes seconds
    assert digests(model, some) == {setting: GOLDEN[model][setting] for setting in map(json.dumps, some)}


CROSS, EMULATOR = shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64")


@pytest.fixture(scope="module")
def on_aarch64(tmp_path_factory):
    """Writes with a model, packed as here, on an emulated processor of that kind; returns ids (steps, texts)."""
    if not (CROSS and EMULATOR):
        pytest.skip("gcc-aarch64-linux-gnu and qemu-user are not installed")
    folder = tmp_path_factory.mktemp("aarch64")
    flags = [flag for flag in FLAGS if flag not in ("-shared", "-fPIC")]
    command = [CROSS, *flags, "-static", ROOT / "tests" / "golden.c", "-o", folder / "golden", "-lm"]
    subprocess.run(command, check=True)

    def write(model, steps, sampler):
        (folder / "model").write_bytes(packed(model) + drawn(steps, sampler))
        subprocess.run([EMULATOR, folder / "golden", folder / "model", folder / "ids"], check=True)
        return np.fromfile(folder / "ids", np.int64).reshape(steps, -1)

    return write


def number(value):
    return struct.pack("<q", value)


def array(values):
    return number(0 if values is None else values.nbytes) + (b"" if values is None else values.tobytes())


def packed(model):
    """A model with its arrays as the kernels read them, in the format of golden.c."""
    arrays = {each.ctypes.data: each for each in model.arrays} | {None: None}
    structure = model._model
    parts = [number(getattr(structure, name)) for name, _ in structure._fields_[:6]]
    for layer in structure.layer[: structure.layers]:
        parts.append(number(layer.terms))
        names = ("table", "embedding", "inputs", "recurrent", "bias", "hidden_bias")
        parts.extend(array(arrays[getattr(layer, name)]) for name in names)
    return b"".join([*parts, array(arrays[structure.head]), array(arrays[structure.head_bias])])


def drawn(steps, sampler):
    """How the texts are drawn, in the format of golden.c."""
    random = sampler.random_numbers(steps)
    arrays = (sampler.scales, sampler.top_k, sampler.top_p, random)
    return number(steps) + number(random.shape[1]) + b"".join(map(array, arrays))


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "steps", "scale"),
    [("homework-rnn", 200, 1), ("homework-lstm", 30, 1), ("shakespeare-gru", 10, 1), ("homework-rnn", 50, 1.01)],
)
def test_an_emulated_aarch64_writes_the_same_ids(on_aarch64, name, steps, scale):
    saved = read_usable_model(ROOT / "weights" / name)
    # without a table, so that the sums of the first layer are made there, too
    weights = {tensor: numbers * np.float32(scale) for tensor, numbers in saved.weights.items()}
    model = CompiledModel(load_kernels(), saved.config, weights, largest_table=0)
    assert model.is_bfloat16 == (scale == 1)

    def sampler():
        settings = [SamplingSettings(**each, seed=seed) for seed, each in enumerate(SETTINGS)]
        return BatchSampler([Sampler(each) for each in settings])

    hidden, cell_state = (np.zeros((saved.config.num_layers, len(SETTINGS), model.units), np.float32) for _ in range(2))
    ids, _ = model.write(steps, hidden, cell_state, sampler())
    assert (on_aarch64(model, steps, sampler()) == ids).all()


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("model", GOLDEN)
def test_a_text_among_64_streams_is_the_golden_text(model, workers):
    lm = CharLM.from_pretrained(bundled_models() / model, device="cpu")
    lm._scheduler = make_scheduler(lm, workers)
    with ThreadPoolExecutor(64) as threads:
        prompt = lm.config.vocab[-1]
        others = [threads.submit(lm.generate_many, prompt, 1, 300, seed=seed) for seed in range(61)]
        written = lm.generate_many("", TEXTS, LENGTH, **SETTINGS[-1], seed=SEED)
    assert [sha256(sample.text.encode()).hexdigest() for sample in written] == GOLDEN[model][json.dumps(SETTINGS[-1])]
    assert all(len(other.result()[0].text) == 300 for other in others)
