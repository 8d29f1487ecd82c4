"""The model in numpy: texts read side by side, every weight read once for all of them.

On a CPU a step takes as long as reading the weights, so they lie as the products want them. `Engine` folds the
embedding and the biases into a table in which the first layer looks its inputs up, scales the weights so that every
gate is a tanh, and cuts each matrix into blocks. A product with a block that small is computed by BLAS right where it
lies, without packing it first, and costs hardly more for two texts than for one. That is also why a text does not
depend on those beside it, to the last bit: see `rows_are_independent`.

Letters for shapes, besides those of `charlm.network`: S texts side by side; R rows of a product, one for each text and
sometimes some more; G gates of a cell. A layer's units, padded with such that stay 0, are C chunks of K = B·BLOCK.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from time import perf_counter
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from charlm.config import ModelConfig, Weights
from charlm.errors import ModelFileError
from charlm.vocab import Ids

Array = NDArray[np.float32]

# OpenBLAS multiplies without packing as long as rows × columns × terms is at most 10⁶: here
# (MOST_ROWS + 1) × WIDEST_BLOCK × CHUNK.
BLOCK = 64  # columns; four vectors of AVX-512
WIDEST_BLOCK = 112
CHUNK = 512  # terms, at most
MOST_ROWS = 16
VECTOR = 16

ONE, HALF = np.array(1, np.float32), np.array(0.5, np.float32)  # numpy takes arrays faster than numbers

LARGEST_WEIGHT = 1e15  # the square of it, times all terms of a sum, is a float32 still

ROWS_AT_ONCE = 128  # that `read` takes through a layer: what they need, some 1 MB, stays in the cache


class Engine:
    """The weights of a model, ready to read with. Nothing in it changes, so threads may share one."""

    def __init__(self, config: ModelConfig, weights: Weights) -> None:
        """weights: float32 arrays with the names and shapes of `config.tensor_shapes`.

        Raises ModelFileError if some are so large that a logit might be no finite number.
        """
        if any(max(array.max(), -array.min()) > LARGEST_WEIGHT for array in weights.values()):
            raise ModelFileError(
                f"the model has weights over {LARGEST_WEIGHT:.0e}, as after a training that diverged; use another model"
            )
        self.cell = CELLS[config.cell]
        self.symbols = len(config.vocab)  # V
        self.units = config.hidden_size  # H
        self.chunks = -(-self.units // CHUNK)  # C
        self.chunk = _round_up(-(-self.units // self.chunks), BLOCK)  # K
        self._padding = self.chunks * self.chunk - self.units  # units that stay 0
        self.layers = [self._fold(number, weights) for number in range(config.num_layers)]
        # logits are more than V too, in N blocks of W columns: one block if that is not too wide
        width = _round_up(self.symbols, VECTOR) if self.symbols <= WIDEST_BLOCK else BLOCK
        self.head = self._pack([weights["head.weight"]], width)  # (C, N, K, W)
        self.head_bias = np.pad(weights["head.bias"], (0, -self.symbols % width)).reshape(-1, 1, width)  # (N, 1, W)

    def units_of(self, states: "States") -> tuple[Array, Array | None]:
        """Return the hidden states (L, S, H) as torch.nn has them, and the LSTM's cell states (L, S, H)."""

        def by_text(state: Array) -> Array:
            layers, _, texts, _ = state.shape
            return state.transpose(0, 2, 1, 3).reshape(layers, texts, -1)[..., : self.units]

        hidden = by_text(states.hidden) * self.cell.scale
        return hidden, by_text(states.memory) if self.cell.keeps_memory else None

    def _fold(self, number: int, weights: Weights) -> "Layer":
        names = "weight_ih", "weight_hh", "bias_ih", "bias_hh"
        tensors = [weights[f"recurrent.{name}_l{number}"] for name in names]
        folded = self.cell.fold(*(tensor.reshape(self.cell.gates, self.units, -1) for tensor in tensors))
        inputs, recurrent, bias, hidden_bias = map(self._pad_units, folded)
        biases = bias.reshape(-1, 1, BLOCK), hidden_bias.reshape(-1, 1, BLOCK)
        if number > 0:
            return Layer(self._pack([inputs, recurrent]), *biases)
        table = inputs @ weights["embedding.weight"].T + bias  # (G·C·K, V)
        by_block = np.ascontiguousarray(table.reshape(-1, BLOCK, self.symbols).transpose(0, 2, 1))
        return Layer(self._pack([recurrent]), *biases, by_block)

    def _pad_units(self, by_gate: Array) -> Array:
        """Add the units that stay 0 to a tensor (gates, H, columns); return it as (gates·C·K, columns)."""
        return _pad(by_gate, [(0, 0), (0, self._padding), (0, 0)]).reshape(-1, by_gate.shape[2])

    def _pack(self, matrices: Sequence[Array], block: int = BLOCK) -> Array:
        """Cut matrices (rows, H) that multiply hidden states into blocks, one after another.

        Return them as (matrices · C, rows / block, K, block).
        """
        widths = [(0, -len(matrices[0]) % block), (0, self._padding)]
        shape = (len(matrices) * self.chunks, (len(matrices[0]) + widths[0][1]) // block, self.chunk, block)
        packed = np.empty(shape, np.float32)
        for place, matrix in enumerate(matrices):
            blocks = _pad(matrix, widths).reshape(-1, block, self.chunks, self.chunk)
            packed[place * self.chunks : (place + 1) * self.chunks] = blocks.transpose(2, 0, 3, 1)
        packed *= self.cell.scale
        return packed


@dataclass(frozen=True)
class Layer:
    """The weights of a layer.

    matrices: of the first layer, what multiplies its own hidden state, (C, G·C·B, K, BLOCK); of a later one, what
        multiplies the hidden state below and its own, (2·C, G·C·B, K, BLOCK).
    bias: (G·C·B, 1 or R, BLOCK).
    hidden_bias: of the GRU, what stands beside the product that its reset gate multiplies, (C·B, 1 or R, BLOCK).
    table: of the first layer, what its inputs and `bias` give for each symbol, (G·C·B, V, BLOCK).
    """

    matrices: Array
    bias: Array
    hidden_bias: Array
    table: Array | None = None

    def for_rows(self, rows: int) -> "Layer":
        """Return the layer with its biases repeated for R rows, which is faster to add."""
        repeated = {name: np.repeat(getattr(self, name), rows, axis=1) for name in ("bias", "hidden_bias")}
        return replace(self, **repeated)

    def before(self, ids: Ids, below: Array) -> Array:
        """Return what does not depend on the layer's own state, (G·C·B, R, BLOCK).

        ids (R,) is read by the first layer, below (C, R, K), the hidden state of the layer before, by any other.
        """
        if self.table is not None:
            return self.table.take(ids, axis=1)
        return add(self.bias, Product(below, self.matrices[: len(below)]).make())


@dataclass(frozen=True)
class States:
    """Where S texts stand.

    hidden: (L, C, S, K), of which the LSTM's is twice the real one.
    memory: (L, C·B, S, BLOCK), the LSTM's cell state; of the other cells, none (0, C·B, S, BLOCK).
    """

    hidden: Array
    memory: Array

    def take(self, places: Sequence[int]) -> "States":
        """Return some of the texts, copied."""
        return States(self.hidden.take(places, axis=2), self.memory.take(places, axis=2))

    def put(self, places: Sequence[int], states: "States") -> None:
        """Overwrite some of the texts."""
        self.hidden[:, :, places], self.memory[:, :, places] = states.hidden, states.memory

    def same(self, other: "States", tolerance: float) -> NDArray[np.bool_]:
        """Tell for each text, (S,), whether no unit differs by more than `tolerance`."""
        near = [np.abs(ours - theirs) <= tolerance for ours, theirs in zip(self.parts, other.parts, strict=True)]
        same: NDArray[np.bool_] = near[0].all(axis=(0, 1, 3)) & near[1].all(axis=(0, 1, 3))
        return same

    @property
    def parts(self) -> tuple[Array, Array]:
        """Both arrays."""
        return self.hidden, self.memory

    @classmethod
    def join(cls, parts: Sequence["States"]) -> "States":
        """Put texts side by side."""
        hidden, memory = zip(*(part.parts for part in parts), strict=True)
        return cls(np.concatenate(hidden, axis=2), np.concatenate(memory, axis=2))


class Reader:
    """Texts that are read side by side."""

    def __init__(self, engine: Engine, start: States | int = 1, *, alone: bool = False) -> None:
        """start: where the texts stand, or how many begin from the zero state.

        alone: whether speed matters more than that a text does not depend on how many are beside it.
        """
        self._engine = engine
        self.texts = start if isinstance(start, int) else start.hidden.shape[2]
        rows = count_rows(self.texts, alone)
        self._ids = np.zeros(rows, np.int64)
        self._hidden = np.zeros((len(engine.layers), engine.chunks, rows, engine.chunk), np.float32)
        self._cells = [
            engine.cell(layer.for_rows(rows), self._hidden[max(0, number - 1) : number + 1])
            for number, layer in enumerate(engine.layers)
        ]
        self._head = Product(self._hidden[-1], engine.head)
        self._head_bias = np.repeat(engine.head_bias, rows, axis=1)
        if isinstance(start, States):
            self._hidden[:, :, : self.texts] = start.hidden
            for cell, memory in zip(self._cells, start.memory, strict=False):
                cell.memory[:, : self.texts] = memory

    @property
    def states(self) -> States:
        """Where the texts stand now, copied."""
        memories = [cell.memory for cell in self._cells if cell.keeps_memory]
        memory = np.stack(memories) if memories else np.zeros((0, *self._cells[0].memory.shape), np.float32)
        return States(self._hidden[:, :, : self.texts].copy(), memory[:, :, : self.texts].copy())

    def step(self, ids: Ids | Sequence[int]) -> Array:
        """Read a symbol of each text, ids (S,); return the logits (S, V)."""
        self._ids[: self.texts] = ids
        for cell in self._cells:
            cell.step(self._ids)
        return self._logits(add(self._head_bias, self._head.make()))[: self.texts]

    def read(self, ids: Ids) -> Array:
        """Read several symbols of each text, ids (T, S), layer by layer; return the logits (T, S, V)."""
        padded = np.zeros((len(ids), len(self._ids)), np.int64)
        padded[:, : self.texts] = ids
        at_once = max(1, ROWS_AT_ONCE // max(1, len(self._ids)))
        passes = [self._pass(padded[start : start + at_once]) for start in range(0, len(ids), at_once)]
        nothing = np.empty((0, len(self._ids), self._engine.symbols), np.float32)
        return np.concatenate([nothing, *passes])[:, : self.texts]

    def _pass(self, ids: Ids) -> Array:
        steps, rows = ids.shape
        below = np.empty((self._engine.chunks, ids.size, self._engine.chunk), np.float32)
        for layer, cell, hidden in zip(self._engine.layers, self._cells, self._hidden, strict=True):
            before = layer.before(ids.ravel(), below)
            for step in range(steps):
                part = slice(step * rows, (step + 1) * rows)
                cell.advance(before[:, part])
                below[:, part] = hidden
        logits = self._logits(add(self._engine.head_bias, Product(below, self._engine.head).make()))
        return logits.reshape(steps, rows, -1)

    def _logits(self, blocks: Array) -> Array:
        """Return the logits (R, V) that lie in blocks (N, R, W)."""
        by_row = blocks[0] if len(blocks) == 1 else blocks.transpose(1, 0, 2).reshape(blocks.shape[1], -1)
        return by_row[:, : self._engine.symbols]


class Product:
    """Hidden states times a matrix, made again and again in the same place."""

    def __init__(self, rows: Array, blocks: Array) -> None:
        """rows: (C, R, K). blocks: (C, N, K, W)."""
        count = rows.shape[1]
        out = np.empty((*blocks.shape[:2], count, blocks.shape[3]), np.float32)
        self.terms = list(out)  # (N, R, W) each; their sum is the product
        # never a last part of one row, for which BLAS would take another kernel
        ends = [*range(MOST_ROWS, count - 1, MOST_ROWS), count]
        parts = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
        self._parts = [(rows[:, None, part], blocks, out[:, :, part]) for part in parts]

    def make(self) -> list[Array]:
        """Return the terms, made anew."""
        for rows, blocks, out in self._parts:
            np.matmul(rows, blocks, out)
        return self.terms


class Cell:
    """A layer at work: where its R texts stand, how they go on, and the room that takes.

    Units lie by block here, (C·B, R, BLOCK), as the products have them.
    memory: what is kept besides the hidden state.
    """

    gates: ClassVar[int]
    scale: ClassVar = 1.0  # of the real hidden state to the one that is kept
    keeps_memory: ClassVar = False

    def __init__(self, layer: Layer, hidden: Array) -> None:
        """hidden: where the hidden states of the layer below, if there is one, and of this lie, (1 or 2, C, R, K)."""
        self.layer = layer
        layers, chunks, rows, chunk = hidden.shape
        units = chunks * chunk // BLOCK
        self._both = Product(hidden.reshape(layers * chunks, rows, chunk), layer.matrices)
        self._own = self._both if layers == 1 else Product(hidden[-1], layer.matrices[-chunks:])
        self._chunks = chunks
        self._hidden = hidden[-1].reshape(chunks, rows, chunk // BLOCK, BLOCK).transpose(0, 2, 1, 3)  # (C, B, R, BLOCK)
        # the gates and, beside them, what is combined with them
        self._room = np.zeros((self.gates + 1, units, rows, BLOCK), np.float32)
        self._gates = self._room[:-1].reshape(self.gates * units, rows, BLOCK)
        self.memory = self._room[-1]
        self._memory_as_hidden = self.memory.reshape(self._hidden.shape)

    def step(self, ids: Ids) -> None:
        """Go on by a symbol: by ids (R,) in the first layer, in any other by the state of the layer below."""
        terms = self._both.make()
        if self.layer.table is not None:
            self._combine(self.layer.table.take(ids, axis=1), terms)
        else:
            self._combine(add(self.layer.bias, terms[: self._chunks]), terms[self._chunks :])

    def advance(self, before: Array) -> None:
        """Go on by a symbol. before: all of the gates that the layer's own state has no part in, (G·C·B, R, BLOCK)."""
        self._combine(before, self._own.make())

    @staticmethod
    def fold(inputs: Array, recurrent: Array, bias: Array, hidden_bias: Array) -> tuple[Array, Array, Array, Array]:
        """Take a layer's tensors by gate, (G, H, columns), and scale and order them as `advance` wants them."""
        raise NotImplementedError

    def _combine(self, before: Array, terms: list[Array]) -> None:
        """Write the next state. terms: of the product with the state before, (G·C·B, R, BLOCK) each."""
        raise NotImplementedError


class RNN(Cell):
    """h' = tanh(before + U h)."""

    gates = 1

    @staticmethod
    def fold(inputs: Array, recurrent: Array, bias: Array, hidden_bias: Array) -> tuple[Array, Array, Array, Array]:
        """See Cell."""
        return inputs, recurrent, bias + hidden_bias, hidden_bias

    def _combine(self, before: Array, terms: list[Array]) -> None:
        """See Cell."""
        add(before, terms, self._gates)
        np.tanh(self._gates, self.memory)
        self._hidden[...] = self._memory_as_hidden


class LSTM(Cell):
    """A gate is sigmoid(x) = (1 + tanh(x / 2)) / 2; to save halving the last, what is kept of h is 2 h."""

    gates = 4
    scale = 0.5
    keeps_memory = True

    def __init__(self, layer: Layer, hidden: Array) -> None:
        """See Cell."""
        super().__init__(layer, hidden)
        self._sigmoids = self._room[:3]
        self._enter_and_forget, self._leave, self._new = self._room[:2], self._room[2], self._room[3]
        self._new_and_memory = self._room[3:]
        self._new_as_hidden = self._new.reshape(self._hidden.shape)

    @staticmethod
    def fold(inputs: Array, recurrent: Array, bias: Array, hidden_bias: Array) -> tuple[Array, Array, Array, Array]:
        """See Cell. torch has them in the order enter (i), forget (f), new (g), leave (o)."""
        folded = [tensor[[0, 1, 3, 2]] for tensor in (inputs, recurrent, bias + hidden_bias)]
        for tensor in folded:
            tensor[:3] *= 0.5
        return folded[0], folded[1], folded[2], hidden_bias

    def _combine(self, before: Array, terms: list[Array]) -> None:
        """See Cell."""
        new, memory = self._new, self.memory
        add(before, terms, self._gates)
        np.tanh(self._gates, self._gates)
        np.add(self._sigmoids, ONE, self._sigmoids)
        # c' = i g + f c
        np.multiply(self._enter_and_forget, self._new_and_memory, self._new_and_memory)
        np.add(new, memory, memory)
        np.multiply(memory, HALF, memory)
        # h' = o tanh c'
        np.tanh(memory, new)
        np.multiply(new, self._leave, new)
        self._hidden[...] = self._new_as_hidden


class GRU(Cell):
    """The gates as in the LSTM. The reset gate multiplies after the product, as torch and cuDNN have it."""

    gates = 3

    def __init__(self, layer: Layer, hidden: Array) -> None:
        """See Cell."""
        super().__init__(layer, hidden)
        self._reset, self._keep, self._new, self._old = self._room
        split = 2 * len(self._new)  # between the sigmoids and the new state
        self._of_sigmoids, self._of_new = slice(split), slice(split, None)
        self._sigmoids = self._gates[:split]

    @staticmethod
    def fold(inputs: Array, recurrent: Array, bias: Array, hidden_bias: Array) -> tuple[Array, Array, Array, Array]:
        """See Cell. torch has them in the order reset (r), keep (z), new (n)."""
        inputs, bias, half = inputs.copy(), bias.copy(), np.float32(0.5)
        bias[:2] += hidden_bias[:2]
        inputs[:2] *= half
        bias[:2] *= half
        return inputs, recurrent * half, bias, hidden_bias[2:] * half

    def _combine(self, before: Array, terms: list[Array]) -> None:
        """See Cell."""
        new, old = self._new, self._old
        add(before[self._of_sigmoids], [term[self._of_sigmoids] for term in terms], self._sigmoids)
        np.tanh(self._sigmoids, self._sigmoids)
        np.add(self._sigmoids, ONE, self._sigmoids)
        # n = tanh(before + r (U h + d))
        add(self.layer.hidden_bias, [term[self._of_new] for term in terms], new)
        np.multiply(new, self._reset, new)
        np.add(new, before[self._of_new], new)
        np.tanh(new, new)
        # h' = n + z (h - n)
        self._memory_as_hidden[...] = self._hidden
        np.subtract(old, new, old)
        np.multiply(old, self._keep, old)
        np.multiply(old, HALF, old)
        np.add(old, new, old)
        self._hidden[...] = self._memory_as_hidden


CELLS = {"rnn": RNN, "lstm": LSTM, "gru": GRU}


def add(before: Array, terms: Iterable[Array], out: Array | None = None) -> Array:
    """Return the sum, taken in this order always."""
    for term in terms:
        before = out = np.add(before, term, out)
    return before


def count_rows(texts: int, alone: bool) -> int:
    """Return how many rows a product for that many texts needs, for each text's to be the same in every company."""
    if rows_are_independent():
        return max(2, texts)
    return texts if alone else _round_up(texts, MOST_ROWS)


@cache
def rows_are_independent() -> bool:
    """Tell whether a row of a product is the same to the last bit in any company of rows, and two as fast as one.

    So it is where OpenBLAS has kernels for small matrices (with AVX-512). Elsewhere the kernel, and with it the order
    in which the terms are summed, depends on the number of rows.
    """
    random = np.random.default_rng(0)
    rows = random.standard_normal((1, MOST_ROWS + 1, 256), np.float32)
    blocks = random.standard_normal((1, 8, 256, BLOCK), np.float32)
    (many,) = Product(rows, blocks).make()
    times = {}
    for count in (1, 2, 3, 5, 8, 11, 15, MOST_ROWS):
        product = Product(rows[:, :count], blocks)
        times[count] = min(_time(product) for _ in range(10))
        if count > 1 and not np.array_equal(product.terms[0], many[:, :count]):
            return False
    return times[2] < 2 * times[1]


def _time(product: Product) -> float:
    begin = perf_counter()
    product.make()
    return perf_counter() - begin


def _pad(array: Array, widths: list[tuple[int, int]]) -> Array:
    """Return the array with zeros around it; where none are asked for, not a copy."""
    return np.pad(array, widths) if np.any(widths) else array


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
