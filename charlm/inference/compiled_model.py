"""A model whose arithmetic the compiled kernels do: its weights in their layout, and the calls of kernels.c."""

import math
from ctypes import POINTER, Structure, byref, c_int, c_int32, c_int64, c_void_p
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.inference.compiled import Kernels
from charlm.inference.sampling import BatchSampler, check_finite
from charlm.model.config import LAYER_TENSORS, ModelConfig, Weights
from charlm.model.weights import fits_bfloat16
from charlm.vocab import Ids

Array = NDArray[np.float32]

PANEL = 16  # outputs that lie side by side, as in kernels.c
CACHE_LINE = 64  # bytes
CELL_NUMBERS = {"rnn": 0, "lstm": 1, "gru": 2}  # in kernels.c
NO_MEMORY, NOT_FINITE = -1, -2  # what a function returns that failed
PACKED_AT_ONCE = 2**20  # numbers of a matrix that are padded and copied at a time


class _Layer(Structure):
    _fields_ = (
        ("table", c_void_p),
        ("embedding", c_void_p),
        ("terms", c_int64),
        ("inputs", c_void_p),
        ("recurrent", c_void_p),
        ("bias", c_void_p),
        ("hidden_bias", c_void_p),
    )


class _Model(Structure):
    _fields_ = (
        ("cell", c_int32),
        ("is_bfloat16", c_int32),
        ("layers", c_int64),
        ("units", c_int64),
        ("symbols", c_int64),
        ("padded_symbols", c_int64),
        ("layer", POINTER(_Layer)),
        ("head", c_void_p),
        ("head_bias", c_void_p),
    )


class _Draws(Structure):
    _fields_ = (
        ("scale", c_void_p),
        ("top_k", c_void_p),
        ("top_p", c_void_p),
        ("random", c_void_p),
        ("ids", c_void_p),
        ("surprisals", c_void_p),
    )


_ARGUMENTS = {
    "read": [c_void_p, c_int64, c_int64, c_void_p, c_void_p, c_void_p, c_void_p],
    "logits": [c_void_p, c_int64, c_void_p, c_void_p],
    "score": [c_void_p, c_int64, c_void_p, c_void_p, c_void_p],
    "write": [c_void_p, c_int64, c_int64, c_void_p, c_void_p, c_void_p],
    "multiply_back": [c_void_p, c_int64, c_void_p, c_void_p],
    "add_product": [c_void_p, c_int, c_int64, c_int64, c_int64, c_void_p, c_void_p],
}


class CompiledModel:
    """The weights of a model in the layout of the kernels. It never changes, so threads may share one.

    units: of a layer's states, H padded with units that are always 0 to whole panels, U.
    is_bfloat16: whether the matrices are kept in bfloat16, which takes that every number of them fits exactly.
    """

    def __init__(self, kernels: Kernels, config: ModelConfig, weights: Weights, largest_table: int) -> None:
        """largest_table: numbers that the table of the first layer may have; beyond, it is not built."""
        self._functions = {name: kernels.function(name) for name in _ARGUMENTS}
        for name, function in self._functions.items():
            function.argtypes, function.restype = _ARGUMENTS[name], None if name == "multiply_back" else c_int
        self.units = _round_up(config.hidden_size)
        self._config = config
        self._symbols = len(config.vocab)
        self.is_bfloat16 = all(fits_bfloat16(array) for array in weights.values() if array.ndim == 2)
        self.arrays: list[NDArray[np.generic]] = []  # what the structures point to
        layers = (_Layer * config.num_layers)(
            *(self._layer(number, weights, largest_table) for number in range(config.num_layers))
        )
        head = pack(weights["head.weight"][None], _round_up(self._symbols), self.units, self.is_bfloat16)
        self._model = _Model(
            cell=CELL_NUMBERS[config.cell],
            is_bfloat16=self.is_bfloat16,
            layers=config.num_layers,
            units=self.units,
            symbols=self._symbols,
            padded_symbols=_round_up(self._symbols),
            layer=layers,
            head=self._keep(head),
            head_bias=self._keep(_pad(weights["head.bias"], _round_up(self._symbols))),
        )
        self._pointer = byref(self._model)

    def read(self, ids: Ids, hidden: Array, cell_state: Array, top: Array | None = None) -> None:
        """Read ids (T, S) from the states (L, S, U), which change.

        cell_state: of cells without one, an array without numbers. top: takes the last layer's outputs, (T, S, U).
        """
        ids = self._checked(ids)
        steps, texts = ids.shape
        if hidden.shape[1] != texts:
            raise IndexError(f"ids of {texts} texts do not fit the states of {hidden.shape[1]}")
        self._call("read", steps, texts, _address(ids), _address(hidden), _address(cell_state), _address(top))

    def logits(self, hidden: Array) -> Array:
        """Return the logits (..., V) of hidden states (..., U) of the last layer."""
        logits = aligned(*hidden.shape[:-1], _round_up(self._symbols))
        self._call("logits", hidden.size // self.units, _address(hidden), _address(logits))
        return logits[..., : self._symbols]

    def score(self, hidden: Array, ids: Ids) -> NDArray[np.float64]:
        """Return the surprisals (...) in nats of ids (...), predicted by hidden states (..., U) of the last layer.

        Raises ModelFileError if a logit is not finite.
        """
        ids, surprisals = self._checked(ids), np.empty(ids.shape)
        if hidden.size != ids.size * self.units:
            raise IndexError(f"{ids.size} ids do not fit {hidden.size / self.units:g} hidden states")
        self._call("score", ids.size, _address(hidden), _address(ids), _address(surprisals))
        if not np.isfinite(surprisals).all():
            check_finite(math.nan)
        return surprisals

    def write(
        self, steps: int, hidden: Array, cell_state: Array, sampler: BatchSampler
    ) -> tuple[Ids, NDArray[np.float64]]:
        """Draw N = `steps` symbols of each text, the first from the present states (L, S, U); read all but the last.

        Return their ids (N, S) and surprisals (N, S) in nats. Raises ModelFileError if a logit is not finite.
        """
        random = sampler.random_numbers(steps)
        ids, surprisals = np.empty(random.shape, np.int64), np.empty(random.shape)
        draws = _Draws(
            _address(sampler.scales),
            _address(sampler.top_k),
            _address(sampler.top_p),
            _address(random),
            _address(ids),
            _address(surprisals),
        )
        self._call("write", steps, random.shape[1], _address(hidden), _address(cell_state), byref(draws))
        return ids, surprisals

    def multiply_back(self, layer: int, row: Array) -> Array:
        """Return row (G, H) times U (G·H, H) of a layer, (H,): the gradient at h that a gradient at U h brings."""
        units = row.shape[1]
        padded = row if units == self.units else _pad(row, self.units)
        product = np.empty(self.units, np.float32)
        self._functions["multiply_back"](self._pointer, layer, _address(padded), _address(product))
        return product[:units]

    def _checked(self, ids: Ids) -> Ids:
        """Return ids as the kernels take them. Raises IndexError for those with which they would read other memory."""
        ids = np.ascontiguousarray(ids, np.int64)
        if ids.size and not 0 <= ids.min() <= ids.max() < self._symbols:
            raise IndexError(f"ids are from 0 to {self._symbols - 1}, not from {ids.min()} to {ids.max()}")
        return ids

    def _call(self, name: str, *arguments: object) -> None:
        """Call a function about this model. Raises MemoryError or ModelFileError if it fails."""
        self._check(self._functions[name](self._pointer, *arguments))

    @staticmethod
    def _check(failure: int) -> None:
        if failure == NO_MEMORY:
            raise MemoryError("there is no memory left for the arrays of a step")
        if failure == NOT_FINITE:
            check_finite(math.nan)

    def _layer(self, number: int, weights: Weights, largest_table: int) -> _Layer:
        w, u, b, d = (weights[f"recurrent.{name}_l{number}"] for name in LAYER_TENSORS)
        gates = self._config.kind.gates
        w, u, b, d = (tensor.reshape(gates, self._config.hidden_size, -1) for tensor in (w, u, b, d))
        bias = b + d
        if self._config.cell == "gru":  # n = tanh(W x + b + r (U h + d)): the biases of n are added apart
            bias[2] = b[2]
        bias, hidden_bias = _pad(bias[..., 0], self.units), _pad(d[-1, :, 0], self.units)
        recurrent = self._keep(pack(u, self.units, self.units, self.is_bfloat16))
        layer = _Layer(recurrent=recurrent, bias=self._keep(bias), hidden_bias=self._keep(hidden_bias))
        layer.terms = self.units if number else _round_up(w.shape[2])
        inputs = pack(w, self.units, layer.terms, self.is_bfloat16)
        if number > 0:
            layer.inputs = self._keep(inputs)
            return layer
        embedding = _pad(weights["embedding.weight"], layer.terms)
        if len(embedding) * bias.size > largest_table:
            layer.inputs, layer.embedding = self._keep(inputs), self._keep(embedding)
        else:
            layer.table = self._keep(self._add_product(inputs, embedding, bias))
        return layer

    def _add_product(self, packed: NDArray[np.generic], rows: Array, bias: Array) -> Array:
        """Return bias + a packed matrix times rows (R, terms), in the order of the kernels."""
        sums = aligned(len(rows), bias.size)
        sums[...] = bias.ravel()
        panels = bias.size // PANEL
        sizes = panels, rows.shape[1], len(rows)
        add_product = self._functions["add_product"]
        self._check(add_product(_address(packed), self.is_bfloat16, *sizes, _address(rows), _address(sums)))
        return sums

    def _keep(self, array: NDArray[np.generic]) -> int | None:
        """Keep an array that a structure points to; return its address."""
        self.arrays.append(array)
        return _address(array)


def _address(array: NDArray[np.generic] | None) -> int | None:
    """Return where the numbers of an array are; None if there are none."""
    return array.ctypes.data if array is not None and array.size else None


def pack(matrix: Array, rows: int, columns: int, is_bfloat16: bool) -> NDArray[np.generic]:
    """Pad each gate of a matrix, (G, rows, columns), and lay it out in panels: (G·rows / PANEL, columns, PANEL).

    In bfloat16 the terms k and k + 1 of an output lie side by side: (G·rows / PANEL, columns / 2, PANEL, 2).
    """
    gates, panels = len(matrix), rows // PANEL
    packed = aligned(gates, panels, columns, PANEL, dtype=np.uint16 if is_bfloat16 else np.float32)
    step = max(1, PACKED_AT_ONCE // (PANEL * columns))  # panels
    for gate in range(gates):
        for first in range(0, panels, step):
            part = matrix[gate, first * PANEL : (first + step) * PANEL]
            part = np.pad(part, [(0, -len(part) % PANEL), (0, columns - part.shape[1])]).reshape(-1, PANEL, columns)
            out = packed[gate, first : first + len(part)]
            if is_bfloat16:
                pairs = (part.view(np.uint32) >> 16).reshape(-1, PANEL, columns // 2, 2)
                out.reshape(-1, columns // 2, PANEL, 2)[...] = pairs.transpose(0, 2, 1, 3)
            else:
                out[...] = part.transpose(0, 2, 1)
    return packed


def _pad(array: Array, columns: int) -> Array:
    """Return an array (R, C) or (C) with zeros up to so many columns."""
    padded = aligned(*array.shape[:-1], columns)
    padded[..., : array.shape[-1]] = array
    return padded


def aligned(*shape: int, dtype: type[np.generic] = np.float32) -> NDArray[Any]:
    """Return zeros aligned to a line of the cache: loading a vector that crosses two takes twice the time."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    return memory[start : start + size].view(dtype).reshape(shape)


def _round_up(number: int) -> int:
    return -(-number // PANEL) * PANEL
