"""The model in numpy: texts read side by side, every weight read once for all of them.

On a CPU a step takes as long as reading the weights, so they lie as the products want them. `Engine` folds the
embedding and the biases into a table in which the first layer looks its inputs up, scales the weights so that every
gate is a tanh, and cuts each matrix into blocks. A product with a block that small is computed by BLAS right where it
lies, without packing it first, and costs hardly more for two texts than for one. That is also why a text does not
depend on those beside it, to the last bit: see `rows_are_independent` and `count_equal_rows`.

Letters for shapes, besides those of `charlm.model.network`: S texts side by side; R ≥ S rows of a product, of which
some may belong to no text; G gates of a cell; U units of a layer, padded with such that stay 0 to C chunks of K.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache
from time import perf_counter
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from charlm.errors import ModelFileError
from charlm.model.config import ModelConfig, Weights
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

# Multiplications of a step that are worth a thread. Threads pass Python's lock on at each call of numpy, so shorter
# steps on two of them take longer than all on one.
THREAD_WORK = 12e6

ROWS_PER_PASS = 128  # symbols that `read` takes through a layer at a time: their arrays, about 1 MB, stay in the cache


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
        self.cell = CELL_KERNELS[config.cell]
        self.symbols = len(config.vocab)  # V
        self.units = config.hidden_size  # H
        self.chunks = -(-self.units // CHUNK)  # C
        self.chunk = _round_up(-(-self.units // self.chunks), BLOCK)  # K
        self.padded_units = self.chunks * self.chunk  # U
        self.layers = [self._fold(number, weights) for number in range(config.num_layers)]
        # logits are more than V too, in N blocks of W columns: one block if that is not too wide
        width = _round_up(self.symbols, VECTOR) if self.symbols <= WIDEST_BLOCK else BLOCK
        self.head = self._pack([weights["head.weight"][None]], width)  # (1, C, 1, N, K, W)
        self.head_bias = np.pad(weights["head.bias"], (0, -self.symbols % width))[None]  # (1, N·W)
        self._work = self.head.size + sum(layer.matrices.size for layer in self.layers)  # multiplications for a text

    def units_of(self, state: "State") -> tuple[Array, Array | None]:
        """Return the hidden states (L, S, H) as torch.nn has them, and the LSTM's cell states (L, S, H)."""
        hidden = state.hidden[..., : self.units] * self.cell.scale
        return hidden, state.cell_state[..., : self.units] if self.cell.has_cell_state else None

    def count_threads(self, texts: int, most: int) -> int:
        """Return among how many threads, `most` at most, to share out texts that go on side by side."""
        return max(1, min(most, texts, int(texts * self._work / THREAD_WORK)))

    def by_chunk(self, hidden: Array) -> Array:
        """Return hidden states (M, R, U), of M layers, as a product has its rows, (M, C, R, K)."""
        return hidden.reshape(*hidden.shape[:2], self.chunks, self.chunk).transpose(0, 2, 1, 3)

    def _fold(self, number: int, weights: Weights) -> "Layer":
        names = "weight_ih", "weight_hh", "bias_ih", "bias_hh"
        tensors = [weights[f"recurrent.{name}_l{number}"] for name in names]
        folded = self.cell.fold(*(tensor.reshape(self.cell.gates, self.units, -1) for tensor in tensors))
        padding = self.padded_units - self.units
        inputs, recurrent, bias, hidden_bias = (_pad(tensor, [(0, 0), (0, padding), (0, 0)]) for tensor in folded)
        biases = bias.transpose(0, 2, 1), hidden_bias.transpose(0, 2, 1)
        if number > 0:
            return Layer(self._pack([inputs, recurrent]), *biases)
        return Layer(
            self._pack([recurrent]), *biases, weights["embedding.weight"] @ inputs.transpose(0, 2, 1) + biases[0]
        )

    def _pack(self, matrices: Sequence[Array], width: int = BLOCK) -> Array:
        """Cut M matrices (G, rows, H) that multiply hidden states into N blocks each, (M, C, G, N, K, width)."""
        gates, rows, units = matrices[0].shape
        widths = [(0, 0), (0, -rows % width), (0, self.padded_units - units)]
        packed = aligned(len(matrices), self.chunks, gates, -(-rows // width), self.chunk, width)
        for place, matrix in enumerate(matrices):
            by_block = _pad(matrix, widths).reshape(gates, -1, width, self.chunks, self.chunk)
            packed[place] = by_block.transpose(3, 0, 1, 4, 2)
        packed *= self.cell.scale
        return packed


@dataclass(frozen=True)
class Layer:
    """The weights of a layer.

    matrices: of the first layer, what multiplies its own hidden state, (1, C, G, N, K, BLOCK); of a later one, what
        multiplies the hidden state below and its own, (2, C, G, N, K, BLOCK). N blocks are U columns.
    bias: (G, 1, U).
    hidden_bias: of the GRU, what stands beside the product that its reset gate multiplies, (1, 1, U).
    table: of the first layer, what its inputs and `bias` give for each symbol, (G, V, U).
    """

    matrices: Array
    bias: Array
    hidden_bias: Array
    table: Array | None = None


@dataclass(frozen=True)
class State:
    """Where S texts stand.

    hidden: (L, S, U), of which the LSTM's is twice the real one.
    cell_state: (L, S, U), the LSTM's; of the other cells, none (0, S, U).
    """

    hidden: Array
    cell_state: Array

    def take(self, places: Sequence[int]) -> "State":
        """Return some of the texts, copied."""
        return State(self.hidden.take(places, axis=1), self.cell_state.take(places, axis=1))

    def put(self, places: Sequence[int], state: "State") -> None:
        """Overwrite some of the texts."""
        self.hidden[:, places], self.cell_state[:, places] = state.hidden, state.cell_state

    def same(self, other: "State", tolerance: float) -> NDArray[np.bool_]:
        """Tell for each text, (S,), whether no unit differs by more than `tolerance`."""
        near = [np.abs(ours - theirs) <= tolerance for ours, theirs in zip(self.parts, other.parts, strict=True)]
        return np.array(np.concatenate(near).all(axis=(0, 2)))

    @property
    def parts(self) -> tuple[Array, Array]:
        """Both arrays."""
        return self.hidden, self.cell_state

    @classmethod
    def join(cls, parts: Sequence["State"]) -> "State":
        """Put texts side by side."""
        hidden, cell_state = zip(*(part.parts for part in parts), strict=True)
        return cls(np.concatenate(hidden, axis=1), np.concatenate(cell_state, axis=1))


class Reader:
    """Texts that are read side by side."""

    def __init__(self, engine: Engine, start: State | int = 1, *, alone: bool = False) -> None:
        """start: where the texts stand, or how many begin from the zero state.

        alone: whether speed matters more than that a text does not depend on how many are beside it.
        """
        self._engine = engine
        self.texts = start if isinstance(start, int) else start.hidden.shape[1]
        rows = count_rows(self.texts, alone)
        self._hidden = aligned(len(engine.layers), rows, engine.padded_units)
        by_chunk = engine.by_chunk(self._hidden)
        self._cells = [
            engine.cell(layer, by_chunk[max(0, number - 1) : number + 1], self._hidden[number, : self.texts])
            for number, layer in enumerate(engine.layers)
        ]
        self._head, self._head_bias = Product(by_chunk[-1:], engine.head, self.texts), engine.head_bias
        if isinstance(start, State):
            self._hidden[:, : self.texts] = start.hidden
            for cell, cell_state in zip(self._cells, start.cell_state, strict=False):
                cell.cell_state[...] = cell_state

    @property
    def state(self) -> State:
        """Where the texts stand now, copied."""
        hidden = self._hidden[:, : self.texts].copy()
        cell_states = [cell.cell_state for cell in self._cells if cell.has_cell_state]
        return State(hidden, np.stack(cell_states) if cell_states else hidden[:0])

    def step(self, ids: Ids | Sequence[int]) -> Array:
        """Read a symbol of each text, ids (S,); return the logits (S, V)."""
        for cell in self._cells:
            cell.step(ids)
        return self._logits()

    def read(self, ids: Ids) -> Array:
        """Read several symbols of each text, ids (T, S), layer by layer; return the logits (T, S, V)."""
        engine, logits = self._engine, [np.empty((0, self.texts, self._engine.symbols), np.float32)]
        for part in self._parts(ids):
            top = self._read_part(part)
            sums = add(engine.head_bias, Product(top, engine.head, part.size).make())
            logits.append(sums[0, :, : engine.symbols].reshape(*part.shape, -1))
        return np.concatenate(logits)

    def prefill(self, ids: Ids) -> Array:
        """Read symbols as `read` does, at least one; return the logits after the last alone, (S, V)."""
        for part in self._parts(ids):
            self._read_part(part)
        return self._logits()

    def _logits(self) -> Array:
        """Return the logits (S, V) of the present state."""
        return add(self._head_bias, self._head.make())[0, :, : self._engine.symbols]

    def _parts(self, ids: Ids) -> Iterator[Ids]:
        """Cut ids (T, S) into parts of about ROWS_PER_PASS symbols."""
        steps = max(1, ROWS_PER_PASS // max(1, self._hidden.shape[1]))
        return (ids[start : start + steps] for start in range(0, len(ids), steps))

    def _read_part(self, ids: Ids) -> Array:
        """Read ids (T, S); return the outputs of the last layer as rows of a product, (1, C, R, K)."""
        engine = self._engine
        below = aligned(1, count_rows(ids.size, alone=False), engine.padded_units)
        by_chunk = engine.by_chunk(below)
        for layer, cell, hidden in zip(engine.layers, self._cells, self._hidden, strict=True):
            if layer.table is not None:
                before = layer.table.take(ids.ravel(), axis=1)
            else:
                before = add(layer.bias, Product(by_chunk, layer.matrices[:1], ids.size).make())
            for start in range(0, ids.size, self.texts):
                part = slice(start, start + self.texts)
                cell.advance(before[:, part])
                below[0, part] = hidden[: self.texts]
        return by_chunk


class Product:
    """Hidden states times matrices, made again and again in the same place."""

    def __init__(self, rows: Array, blocks: Array, wanted: int) -> None:
        """rows: (M, C, R, K). blocks: (M, C, G, N, K, W). wanted: how many of the rows anybody wants, S from the first.

        terms: M·C arrays (G, S, N·W), of which C add up to the product with each of the M matrices.
        """
        count, (layers, chunks, gates, many, _, width) = rows.shape[2], blocks.shape
        out = aligned(layers, chunks, gates, count, many, width)
        self._chunks = chunks
        self.terms = list(out.reshape(layers * chunks, gates, count, many * width)[:, :, :wanted])
        # equal parts in one call, since threads that share Python's lock pass it on at each; then what is left, which
        # is never one row, for which BLAS would take another kernel
        most = count_equal_rows()
        left = count % most
        whole = max(0, count - left - (most if left == 1 else 0))
        self._calls = []
        for start, end, part in ((0, whole, most), (whole, count, count - whole)):
            if start < end:
                ours = rows[:, :, start:end].reshape(layers, chunks, 1, 1, -1, part, rows.shape[3])
                of_out = out[:, :, :, start:end].reshape(layers, chunks, gates, -1, part, many, width)
                self._calls.append((ours, blocks[:, :, :, :, None], of_out.transpose(0, 1, 2, 5, 3, 4, 6)))

    def of_last_matrix(self) -> "Product":
        """Return what makes the terms of the last of the matrices alone, in the same place."""
        last = copy(self)
        last._calls = [(rows[-1:], blocks[-1:], out[-1:]) for rows, blocks, out in self._calls]
        last.terms = self.terms[-self._chunks :]
        return last

    def make(self) -> list[Array]:
        """Return the terms, made anew."""
        for rows, blocks, out in self._calls:
            np.matmul(rows, blocks, out)
        return self.terms


class Cell:
    """A layer at work: where its S texts stand, how they go on, and the room that takes.

    cell_state: what is kept besides the hidden state, (S, U), if `has_cell_state`.
    """

    gates: ClassVar[int]
    scale: ClassVar = 1.0  # of the real hidden state to the one that is kept
    has_cell_state: ClassVar = False

    def __init__(self, layer: Layer, rows: Array, hidden: Array) -> None:
        """rows: the hidden states of the layer below, if there is one, and of this, (1 or 2, C, R, K).

        hidden: the last of these again, of the texts alone, (S, U).
        """
        texts, units = hidden.shape
        self._layer, self._hidden = layer, hidden
        self._both = Product(rows, layer.matrices, texts)
        self._own = self._both.of_last_matrix()
        self._from_below, self._terms = self._both.terms[: -rows.shape[1]], self._own.terms
        self._before = aligned(self.gates, texts, units)
        # the gates and, beside them, what is combined with them
        self._room = aligned(self.gates + 1, texts, units)
        self._gates, self.cell_state = self._room[:-1], self._room[-1]

    def step(self, ids: Ids | Sequence[int]) -> None:
        """Go on by a symbol: by ids (S,) in the first layer, in any other by the state of the layer below."""
        self._both.make()
        if self._layer.table is not None:
            self._layer.table.take(ids, 1, self._before, "clip")  # which copies less often; all ids are symbols
        else:
            add(self._layer.bias, self._from_below, self._before)
        self._combine(self._before)

    def advance(self, before: Array) -> None:
        """Go on by a symbol. before: all of the gates that the layer's own state has no part in, (G, S, U)."""
        self._own.make()
        self._combine(before)

    @staticmethod
    def fold(inputs: Array, recurrent: Array, bias: Array, hidden_bias: Array) -> tuple[Array, Array, Array, Array]:
        """Take a layer's tensors by gate, (G, H, columns), and scale and order them as `advance` wants them."""
        raise NotImplementedError

    def _combine(self, before: Array) -> None:
        """Write the next state from `before` and the terms of the product with the last one."""
        raise NotImplementedError


class RNN(Cell):
    """h' = tanh(before + U h)."""

    gates = 1

    @staticmethod
    def fold(inputs: Array, recurrent: Array, bias: Array, hidden_bias: Array) -> tuple[Array, Array, Array, Array]:
        """See Cell."""
        return inputs, recurrent, bias + hidden_bias, hidden_bias

    def _combine(self, before: Array) -> None:
        """See Cell."""
        np.tanh(add(before, self._terms, self._gates)[0], self._hidden)


class LSTM(Cell):
    """A gate is sigmoid(x) = (1 + tanh(x / 2)) / 2; to save halving the last, what is kept of h is 2 h."""

    gates = 4
    scale = 0.5
    has_cell_state = True

    def __init__(self, layer: Layer, rows: Array, hidden: Array) -> None:
        """See Cell."""
        super().__init__(layer, rows, hidden)
        self._sigmoids, self._enter_and_forget, self._new_and_cell_state = (
            self._room[:3],
            self._room[:2],
            self._room[3:],
        )
        self._leave, self._new = self._room[2:4]

    @staticmethod
    def fold(inputs: Array, recurrent: Array, bias: Array, hidden_bias: Array) -> tuple[Array, Array, Array, Array]:
        """See Cell. torch has them in the order enter (i), forget (f), new (g), leave (o)."""
        folded = [tensor[[0, 1, 3, 2]] for tensor in (inputs, recurrent, bias + hidden_bias)]
        for tensor in folded:
            tensor[:3] *= 0.5
        return folded[0], folded[1], folded[2], hidden_bias

    def _combine(self, before: Array) -> None:
        """See Cell."""
        new, cell_state = self._new, self.cell_state
        add(before, self._terms, self._gates)
        np.tanh(self._gates, self._gates)
        np.add(self._sigmoids, ONE, self._sigmoids)
        # c' = i g + f c
        np.multiply(self._enter_and_forget, self._new_and_cell_state, self._new_and_cell_state)
        np.add(new, cell_state, cell_state)
        np.multiply(cell_state, HALF, cell_state)
        # h' = o tanh c'
        np.tanh(cell_state, new)
        np.multiply(new, self._leave, self._hidden)


class GRU(Cell):
    """The gates as in the LSTM. The reset gate multiplies after the product, as torch and cuDNN have it."""

    gates = 3

    def __init__(self, layer: Layer, rows: Array, hidden: Array) -> None:
        """See Cell."""
        super().__init__(layer, rows, hidden)
        self._sigmoids = self._room[:2]
        self._reset, self._keep, self._new = self._gates
        self._of_sigmoids, self._of_new = [term[:2] for term in self._terms], [term[2] for term in self._terms]
        self._hidden_bias = layer.hidden_bias[0]

    @staticmethod
    def fold(inputs: Array, recurrent: Array, bias: Array, hidden_bias: Array) -> tuple[Array, Array, Array, Array]:
        """See Cell. torch has them in the order reset (r), keep (z), new (n)."""
        inputs, bias, half = inputs.copy(), bias.copy(), np.float32(0.5)
        bias[:2] += hidden_bias[:2]
        inputs[:2] *= half
        bias[:2] *= half
        return inputs, recurrent * half, bias, hidden_bias[2:] * half

    def _combine(self, before: Array) -> None:
        """See Cell."""
        new, hidden = self._new, self._hidden
        add(before[:2], self._of_sigmoids, self._sigmoids)
        np.tanh(self._sigmoids, self._sigmoids)
        np.add(self._sigmoids, ONE, self._sigmoids)
        # n = tanh(before + r (U h + d))
        add(self._hidden_bias, self._of_new, new)
        np.multiply(new, self._reset, new)
        np.add(new, before[2], new)
        np.tanh(new, new)
        # h' = n + z (h - n)
        np.subtract(hidden, new, hidden)
        np.multiply(hidden, self._keep, hidden)
        np.multiply(hidden, HALF, hidden)
        np.add(hidden, new, hidden)


CELL_KERNELS = {"rnn": RNN, "lstm": LSTM, "gru": GRU}


def add(before: Array, terms: Iterable[Array], out: Array | None = None) -> Array:
    """Return the sum, taken in this order always."""
    for term in terms:
        before = out = np.add(before, term, out)
    return before


def count_rows(texts: int, alone: bool) -> int:
    """Return how many rows a product for that many texts needs, for each text's to be the same in every company."""
    if rows_are_independent():
        return max(2, texts)
    return texts if alone else _round_up(texts, count_equal_rows())


@cache
def rows_are_independent() -> bool:
    """Tell whether a row of a product is the same to the last bit in any company of rows, and two as fast as one.

    So it is where OpenBLAS has kernels for small matrices (with AVX-512). Elsewhere the kernel, and with it the order
    in which the terms are summed, depends on the number of rows.
    """
    random = np.random.default_rng(0)
    rows = random.standard_normal((1, 1, MOST_ROWS + 1, 256), np.float32)
    blocks = random.standard_normal((1, 1, 1, 8, 256, BLOCK), np.float32)
    (many,) = Product(rows, blocks, MOST_ROWS + 1).make()
    times = {}
    for count in (1, 2, 3, 5, 8, 11, 15, MOST_ROWS):
        product = Product(rows[:, :, :count], blocks, count)
        times[count] = min(_time(product) for _ in range(10))
        if count > 1 and not np.array_equal(product.terms[0], many[:, :count]):
            return False
    return times[2] < 2 * times[1]


@cache
def count_equal_rows() -> int:
    """Return how many rows, MOST_ROWS at most, a product may have for each to be the same in any of their places.

    The kernels of OpenBLAS for AVX2 take twelve of sixteen rows by sixes and sum what is left in another order.
    """
    random = np.random.default_rng(0)
    for count in (MOST_ROWS, MOST_ROWS // 2, MOST_ROWS // 4, MOST_ROWS // 8):
        shapes = [(terms, width) for terms in (BLOCK, CHUNK // 2, CHUNK) for width in (VECTOR, BLOCK, WIDEST_BLOCK)]
        if all(_are_equal(_multiply(random, count, *shape)) for shape in shapes):
            return count
    return 1


def _multiply(random: np.random.Generator, count: int, terms: int, width: int) -> Array:
    """Multiply a row, given so many times, with a block; return what each gives."""
    rows = np.repeat(random.standard_normal((1, terms), np.float32), count, axis=0)
    products: Array = np.matmul(rows, random.standard_normal((terms, width), np.float32))
    return products


def _are_equal(rows: Array) -> bool:
    return bool((rows == rows[0]).all())


def _time(product: Product) -> float:
    begin = perf_counter()
    product.make()
    return perf_counter() - begin


def _pad(array: Array, widths: list[tuple[int, int]]) -> Array:
    """Return the array with zeros around it; where none are asked for, not a copy."""
    return np.pad(array, widths) if np.any(widths) else array


def aligned(*shape: int) -> Array:
    """Return zeros that begin with a line of the cache: a vector that lies across two takes twice the time."""
    size = math.prod(shape)
    room = np.zeros(size + VECTOR, np.float32)
    start = -room.ctypes.data // room.itemsize % VECTOR
    return room[start : start + size].reshape(shape)


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
