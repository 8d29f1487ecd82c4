"""The kernels compute what docs/arithmetic.md states, bit by bit: here that is done with numpy, one term at a time."""

import ctypes
import os
import shutil

import numpy as np
import pytest
from models import make_config

from charlm.errors import RequestError
from charlm.inference import compiled
from charlm.inference.compiled import load_kernels
from charlm.inference.compiled_model import PANEL, aligned, pack
from charlm.inference.engine import Engine, Reader
from charlm.model.cells import CELLS
from charlm.model.weights import round_to_bfloat16

INSTRUCTION_SETS = ["avx512", "avx2", "plain"]


@pytest.fixture(params=INSTRUCTION_SETS)
def kernels(request, monkeypatch):
    monkeypatch.setenv(compiled.VARIABLE, request.param)
    try:
        return load_kernels()
    except RequestError as error:
        pytest.skip(str(error))


def elementwise(kernels, name, numbers):
    """What a function of the kernels makes of numbers (N,)."""
    padded = np.zeros(-(-len(numbers) // PANEL) * PANEL, np.float32)
    padded[: len(numbers)] = numbers
    out = np.empty_like(padded)
    pointers = (array.ctypes.data_as(ctypes.c_void_p) for array in (padded, out))
    kernels.function(f"{name}_of")(ctypes.c_int64(len(padded)), *pointers)
    return out[: len(numbers)]


def exp_in_order(x):
    """`exp` of docs/arithmetic.md, in float32."""
    f = np.float32
    x = np.clip(x, f(-105), f(89))
    n = (x * f(1.44269502) + f(12582912)) - f(12582912)
    r = (x - n * f(0.693359375)) - n * f(-2.12194440e-4)
    s = np.full_like(x, f(1 / 5040))
    for c in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 0.5, 1, 1):
        s = s * r + f(c)
    n = n.astype(np.int64)
    return s * np.exp2((n >> 1).astype(f)) * np.exp2((n - (n >> 1)).astype(f))


def tanh_in_order(x):
    f = np.float32
    q, s = x * x, np.full_like(x, f(-0.00570498633))
    for c in (0.0206390866, -0.0537397148, 0.133314422, -0.333332819):
        s = s * q + f(c)
    far = np.copysign(f(1) - f(2) / (exp_in_order(np.abs(x) + np.abs(x)) + f(1)), x)
    return np.where(np.abs(x) < f(0.625), s * q * x + x, far)


def sigmoid_in_order(x):
    return np.float32(1) / (np.float32(1) + exp_in_order(-x))


# CHARLM_EVERY_FLOAT=1 checks all of them, which takes an hour.
STEP = 1 if os.environ.get("CHARLM_EVERY_FLOAT") else 1021


def numbers():
    """Yield every STEP-th float32 that is finite, of both signs, some millions at a time."""
    for first in range(0, 2**32, STEP * 2**22):
        bits = np.arange(first, min(first + STEP * 2**22, 2**32), STEP, dtype=np.uint64).astype(np.uint32)
        floats = bits.view(np.float32)
        yield floats[np.isfinite(floats)]


def units_in_the_last_place(found, true):
    """How far results in float32 are from true ones in float64."""
    with np.errstate(over="ignore", invalid="ignore"):
        nearest = true.astype(np.float32)
        distance = np.abs(found.astype(np.float64) - true) / np.spacing(np.abs(nearest)).astype(np.float64)
    return np.where(found == nearest, 0, distance)  # infinities, too


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid")
@pytest.mark.parametrize(
    ("name", "function", "in_order"), [("exp", np.exp, exp_in_order), ("tanh", np.tanh, tanh_in_order)]
)
def test_exp_and_tanh_are_within_two_units_in_the_last_place_and_made_as_stated(kernels, name, function, in_order):
    for floats in numbers():
        found = elementwise(kernels, name, floats)
        assert units_in_the_last_place(found, function(floats.astype(np.float64))).max(initial=0) <= 2
        assert np.array_equal(found, in_order(floats))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:overflow")
def test_a_compiler_that_is_told_to_change_arithmetic_is_told_not_to(monkeypatch, tmp_path):
    compiler = next(filter(shutil.which, compiled.COMPILERS), None)
    if compiler is None:
        pytest.skip("there is no C compiler here")
    monkeypatch.setenv("CC", f"{compiler} -ffast-math")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiled._find_once.cache_clear()
    kernels = load_kernels()
    compiled._find_once.cache_clear()
    assert kernels is not None
    for floats in numbers():
        assert np.array_equal(elementwise(kernels, "exp", floats), exp_in_order(floats))


@pytest.mark.parametrize("is_bfloat16", [False, True])
@pytest.mark.parametrize(
    ("outputs", "terms", "rows"), [(16, 16, 1), (80, 32, 1), (48, 512, 2), (112, 208, 13), (64, 48, 64), (48, 32, 31)]
)
def test_a_sum_is_made_in_the_order_of_its_terms(kernels, outputs, terms, rows, is_bfloat16):
    random = np.random.default_rng(0)
    matrix = random.standard_normal((outputs, terms), np.float32)
    if is_bfloat16:
        matrix = round_to_bfloat16({"matrix": matrix})["matrix"]
    x, sums = aligned(rows, terms), aligned(rows, outputs)
    x[...] = random.standard_normal(x.shape)
    sums[...] = random.standard_normal(sums.shape)
    expected = sums.copy()
    for k in range(terms):
        expected = expected + x[:, k, None] * matrix[:, k]
    packed = pack(matrix[None], outputs, terms, is_bfloat16)
    sizes = (ctypes.c_int64(number) for number in (outputs // PANEL, terms, rows))
    pointers = (array.ctypes.data_as(ctypes.c_void_p) for array in (x, sums))
    assert (
        kernels.function("add_product")(packed.ctypes.data_as(ctypes.c_void_p), int(is_bfloat16), *sizes, *pointers)
        == 0
    )
    assert np.array_equal(sums, expected)


@pytest.mark.parametrize("is_bfloat16", [False, True])
@pytest.mark.parametrize(("cell", "units"), [("rnn", 5), ("gru", 21), ("lstm", 150)])
def test_a_gradient_goes_back_with_a_partial_sum_for_each_lane(kernels, cell, units, is_bfloat16):
    random, config = np.random.default_rng(2), make_config(cell, hidden_size=units)
    weights = {name: random.standard_normal(shape, np.float32) for name, shape in config.tensor_shapes.items()}
    if is_bfloat16:
        weights = round_to_bfloat16(weights)
    model = Engine(config, weights).model
    assert model.is_bfloat16 == is_bfloat16
    row = random.standard_normal((config.kind.gates, units), np.float32)
    for layer in range(config.num_layers):
        matrix = weights[f"recurrent.weight_hh_l{layer}"].reshape(*row.shape, units)
        sums = np.zeros((units, PANEL), np.float32)
        for gate, unit in np.ndindex(*row.shape):
            sums[:, unit % PANEL] += matrix[gate, unit] * row[gate, unit]
        expected = np.zeros(units, np.float32)
        for lane in range(PANEL):
            expected += sums[:, lane]
        assert np.array_equal(model.multiply_back(layer, row), expected)


def test_states_of_another_number_of_texts_are_refused(kernels):
    config, random = make_config("rnn"), np.random.default_rng(4)
    weights = {name: random.standard_normal(shape, np.float32) for name, shape in config.tensor_shapes.items()}
    model = Engine(config, weights).model
    hidden = aligned(config.num_layers, 1, model.units)
    with pytest.raises(IndexError, match="ids of 2 texts do not fit the states of 1"):
        model.read(np.zeros((3, 2), np.int64), hidden, hidden[:0])
    with pytest.raises(IndexError, match="2 ids do not fit 1 hidden states"):
        model.score(hidden[0], np.zeros(2, np.int64))


def logits_in_order(config, weights, ids):
    """The logits (T, V) of ids (T,) as docs/arithmetic.md states them."""

    def add(sums, matrix, vector):
        for k in range(len(vector)):
            sums = sums + matrix[:, k] * vector[k]
        return sums

    size = config.hidden_size
    h, c = np.zeros((2, config.num_layers, size), np.float32)
    logits = []
    for id in ids:
        x = weights["embedding.weight"][id]
        for layer in range(config.num_layers):
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            w, u, b, d = (weights[f"recurrent.{name}_l{layer}"] for name in names)
            if config.cell == "gru":
                r, z = (
                    sigmoid_in_order(gate)
                    for gate in np.split(
                        add(add(b[: 2 * size] + d[: 2 * size], w[: 2 * size], x), u[: 2 * size], h[layer]), 2
                    )
                )
                before, recurrent = add(b[2 * size :], w[2 * size :], x), add(d[2 * size :], u[2 * size :], h[layer])
                n = tanh_in_order(before + r * recurrent)
                h[layer] = n + z * (h[layer] - n)
            else:
                gates = np.split(add(add(b + d, w, x), u, h[layer]), config.kind.gates)
                if config.cell == "rnn":
                    h[layer] = tanh_in_order(gates[0])
                else:
                    i, f, o = (sigmoid_in_order(gates[place]) for place in (0, 1, 3))
                    c[layer] = f * c[layer] + i * tanh_in_order(gates[2])
                    h[layer] = o * tanh_in_order(c[layer])
            x = h[layer]
        logits.append(add(weights["head.bias"], weights["head.weight"], x))
    return np.array(logits)


@pytest.mark.slow
@pytest.mark.parametrize("is_bfloat16", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_the_logits_have_the_bits_that_are_stated(kernels, cell, is_bfloat16):
    config = make_config(cell, "abcdefghijklmnopqrstu", embedding_size=9, hidden_size=21, num_layers=2)
    random = np.random.default_rng(1)
    weights = {
        name: (0.4 * random.standard_normal(shape)).astype(np.float32) for name, shape in config.tensor_shapes.items()
    }
    if is_bfloat16:
        weights = round_to_bfloat16(weights)
    ids = random.integers(21, size=60)
    found = Reader(Engine(config, weights)).read(ids[:, None])[:, 0]
    assert np.array_equal(found, logits_in_order(config, weights, ids))
