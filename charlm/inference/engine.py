"""The model in numpy: S texts read side by side, so that each weight is read from memory once for all of them.

With x the input of a layer, h its hidden state and c the LSTM's cell state, and ∘ the product unit by unit, a step is

    RNN     h' = tanh(W x + U h + b)
    LSTM    i, f, o = sigmoid(W x + U h + b), for each gate its own; g = tanh(W x + U h + b)
            c' = f ∘ c + i ∘ g;  h' = o ∘ tanh(c')
    GRU     r, z = sigmoid(W x + U h + b); n = tanh(W x + b + r ∘ (U h + d));  h' = (1 - z) ∘ n + z ∘ h

with the weights of `torch.nn`, and b the sum of its two biases except in n. The logits are a linear map of the last h.

On a CPU a step takes as long as reading the weights takes. So they are rearranged once, when the engine is built:

- Folding: the first layer's W x + b takes only as many values as there are symbols, so it is looked up in a table,
  unless that would have more than LARGEST_TABLE numbers: then x is looked up and multiplied.
  sigmoid(x) = (1 + tanh(x / 2)) / 2, so with the halves folded into the weights every gate is one tanh.
- Blocks: each matrix is cut into blocks of K rows and BLOCK columns. OpenBLAS multiplies by so small a matrix where it
  lies, without packing it first, and takes hardly longer for two texts than for one.
- Padding: blocks need whole vectors and all the same size, so units are added that are always 0.

Because of the blocks, a text's results do not depend on the texts beside it, to the last bit; `rows_are_independent`
and `count_equal_rows` find out what that takes on this machine.

Letters for shapes, besides those of `charlm.model.network`: S texts; R ≥ S rows of a product, those beyond S being
padding; G gates; U padded units of a layer, which are C chunks of K; M matrices, N blocks of W columns in each.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache, cached_property
from time import perf_counter
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from charlm.errors import ModelFileError
from charlm.inference.sampling import MOST_LOGITS, cut
from charlm.model.config import ModelConfig, Weights
from charlm.vocab import Ids

Array = NDArray[np.float32]

# OpenBLAS multiplies without packing as long as rows × columns × terms of the sums is at most 10⁶: here
# (MOST_ROWS + 1) × WIDEST_BLOCK × CHUNK.
BLOCK = 64  # columns; four vectors of AVX-512
WIDEST_BLOCK = 112  # columns, of the head, whose width is the vocabulary's
CHUNK = 512  # terms of a sum, at most
MOST_ROWS = 16
VECTOR = 16  # float32 numbers, a vector of AVX-512 and a line of the cache

ONE, HALF = np.array(1, np.float32), np.array(0.5, np.float32)  # 0-d arrays: a Python float is converted at each call

LARGEST_WEIGHT = 1e15  # its square, times the number of terms in a sum, is a finite float32

# Multiplications of a step that are worth a thread. Threads hand over Python's global lock at each call of numpy, so
# two threads with shorter steps take longer than one thread with all of them.
THREAD_WORK = 12e6

LARGEST_TABLE = 2**23  # numbers, 32 MB; 65 symbols and an LSTM of 512 units have 2**17
PACKED_AT_ONCE = 2**20  # numbers of a matrix that are padded and copied at a time

ROWS_PER_PASS = 128  # symbols that `read` takes through a layer at a time: their arrays, about 1 MB, stay in the cache


class Engine:
    """The weights of a model, rearranged for reading. It never changes, so threads may share one.

    It takes the memory of the model with its units padded to whole chunks, of BLOCK at least: its head has BLOCK × V
    numbers or more, 51 MB for the largest vocabulary. The table of the first layer takes 32 MB at most.
    """

    def __init__(self, config: ModelConfig, weights: Weights) -> None:
        """weights: float32 arrays with the names and shapes of `config.tensor_shapes`.

        Raises ModelFileError if some are so large that a logit might not be finite.
        """
        if any(max(array.max(), -array.min()) > LARGEST_WEIGHT for array in weights.values()):
            raise ModelFileError(
                f"the model has weights over {LARGEST_WEIGHT:.0e}, as after a training that diverged; use another model"
            )
        self.cell = CELL_KERNELS[config.cell]
        self.symbols = len(config.vocab)  # V
        self.units = config.hidden_size  # H
        self.chunks, self.chunk = _chunks(self.units)  # C, K
        self.padded_units = self.chunks * self.chunk  # U
        self.layers = [self._fold(number, weights) for number in range(config.num_layers)]
        # the head's columns are padded too, to N blocks of W columns: one block if that is not too wide
        width = _round_up(self.symbols, VECTOR) if self.symbols <= WIDEST_BLOCK else BLOCK
        self.head = self._pack([weights["head.weight"][None]], width)  # (1, C, 1, N, K, W)
        self.head_bias = np.pad(weights["head.bias"], (0, -self.symbols % width))[None]  # (1, N·W)
        # multiplications of a step of one text
        self._work = self.head.size + sum(layer.matrices.size for layer in self.layers)
        if (inputs := self.layers[0].inputs) is not None:
            self._work += inputs.size

    def units_of(self, state: "State") -> tuple[Array, Array | None]:
        """Return the hidden states (L, S, H) as torch.nn defines them, and the LSTM's cell states (L, S, H)."""
        hidden = state.hidden[..., : self.units] * self.cell.scale
        return hidden, state.cell_state[..., : self.units] if self.cell.has_cell_state else None

    def count_threads(self, texts: int, most: int) -> int:
        """Return over how many threads, at most `most`, to spread texts that are read step by step."""
        return max(1, min(most, texts, int(texts * self._work / THREAD_WORK)))

    def by_chunk(self, hidden: Array) -> Array:
        """Return the hidden states of M layers, (M, R, U), as the rows of a product, (M, C, R, K)."""
        return hidden.reshape(*hidden.shape[:2], self.chunks, self.chunk).transpose(0, 2, 1, 3)

    def _fold(self, number: int, weights: Weights) -> "Layer":
        names = "weight_ih", "weight_hh", "bias_ih", "bias_hh"
        tensors = [weights[f"recurrent.{name}_l{number}"] for name in names]
        folded = self.cell.fold(*(tensor.reshape(self.cell.gates, self.units, -1) for tensor in tensors))
        padding = self.padded_units - self.units
        inputs, recurrent, bias, hidden_bias = (_pad(tensor, [(0, 0), (0, padding), (0, 0)]) for tensor in folded)
        bias, hidden_bias = bias.transpose(0, 2, 1), hidden_bias.transpose(0, 2, 1)
        if number > 0:
            return Layer(self._pack([inputs, recurrent]), bias, hidden_bias)
        matrices, embedding = self._pack([recurrent]), weights["embedding.weight"]
        if len(embedding) * bias.size > LARGEST_TABLE:
            packed = pack([inputs], *_chunks(embedding.shape[1]))
            return Layer(matrices, bias, hidden_bias, embedding=embedding, inputs=packed)
        return Layer(matrices, bias, hidden_bias, table=embedding @ inputs.transpose(0, 2, 1) + bias)

    def _pack(self, matrices: Sequence[Array], width: int = BLOCK) -> Array:
        """Pack matrices (G, rows, H) that multiply hidden states, of which `scale` is folded into them."""
        packed = pack(matrices, self.chunks, self.chunk, width)
        packed *= self.cell.scale
        return packed


@dataclass(frozen=True)
class Layer:
    """The weights of a layer.

    matrices: of the first layer U, (1, C, G, N, K, BLOCK); of a later one W and U, (2, C, G, N, K, BLOCK). N blocks of
        columns are the padded units.
    bias: b, (G, 1, U).
    hidden_bias: of the GRU d, (1, 1, U).
    table: of the first layer W x + b for each symbol, (G, V, U), if it is not too large.
    embedding, inputs: of the first layer, if there is no table, x for each symbol, (V, E), and W, (1, C, G, N, K,
        BLOCK), where C chunks of K are the padded E.
    """

    matrices: Array
    bias: Array
    hidden_bias: Array
    table: Array | None = None
    embedding: Array | None = None
    inputs: Array | None = None


@dataclass(frozen=True)
class State:
    """The recurrent state of S texts.

    hidden: (L, S, U); the LSTM's is kept doubled, see LSTM.
    cell_state: (L, S, U), of the LSTM; the other cells have none, (0, S, U).
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
        """Return for each text, (S,), whether no unit differs by more than `tolerance`."""
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
    """Reads S texts side by side and keeps their state."""

    def __init__(self, engine: Engine, start: State | int = 1, *, alone: bool = False) -> None:
        """start: the state to begin with, or how many texts begin from the zero state.

        alone: pad no rows, which is faster; on some machines the results then depend on how many texts there are.
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
        self._top = by_chunk[-1:]  # (1, C, R, K)
        if isinstance(start, State):
            self._hidden[:, : self.texts] = start.hidden
            for cell, cell_state in zip(self._cells, start.cell_state, strict=False):
                cell.cell_state[...] = cell_state

    @property
    def state(self) -> State:
        """The present state, copied."""
        hidden = self._hidden[:, : self.texts].copy()
        cell_states = [cell.cell_state for cell in self._cells if cell.has_cell_state]
        return State(hidden, np.stack(cell_states) if cell_states else hidden[:0])

    def step(self, ids: Ids | Sequence[int]) -> Array:
        """Read a symbol of each text, ids (S,); return the logits (S, V)."""
        self.advance(ids)
        return self.logits()

    def advance(self, ids: Ids | Sequence[int]) -> None:
        """Read a symbol of each text, ids (S,), without predicting the next."""
        for cell in self._cells:
            cell.step(ids)

    def logits(self) -> Array:
        """Return the logits (S, V) of the present state."""
        return add(self._engine.head_bias, self._head.make())[0, :, : self._engine.symbols]

    def logits_in_parts(self) -> Iterator[tuple[slice, Array]]:
        """Yield the same logits for one part of the texts after another, each with its part.

        A part has at most MOST_LOGITS logits, unless `count_equal_rows` texts and one have more: results must not
        depend on where the texts are cut.
        """
        symbols, rows, equal = self._engine.symbols, self._hidden.shape[1], count_equal_rows()
        size = max(equal, MOST_LOGITS // symbols // equal * equal)
        starts = [*range(0, rows, size)]
        if len(starts) > 1 and rows - starts[-1] == 1:  # BLAS takes another kernel for a single row
            starts.pop()
        for start, stop in zip(starts, [*starts[1:], rows], strict=True):
            part = slice(start, min(stop, self.texts))
            terms = Product(self._top[:, :, start:stop], self._engine.head, part.stop - start).make()
            logits = add(self._engine.head_bias, terms)[0, :, :symbols]
            del terms  # as large as the logits
            yield part, logits
            del logits  # before those of the next part are computed

    def read(self, ids: Ids) -> Array:
        """Read several symbols of each text, ids (T, S), layer by layer; return the logits (T, S, V)."""
        engine, first = self._engine, 0
        logits = np.empty((len(ids), self.texts, engine.symbols), np.float32)
        for part in self._parts(ids, engine.symbols):
            top = self._read_part(part)
            sums = add(engine.head_bias, Product(top, engine.head, part.size).make())
            logits[first : first + len(part)] = sums[0, :, : engine.symbols].reshape(*part.shape, -1)
            first += len(part)
        return logits

    def prefill(self, ids: Ids) -> None:
        """Read symbols as `read` does, without predicting any."""
        for part in self._parts(ids, 0):
            self._read_part(part)

    @cached_property
    def _head(self) -> "Product":
        return Product(self._top, self._engine.head, self.texts)

    def _parts(self, ids: Ids, logits: int) -> Iterator[Ids]:
        """Cut ids (T, S) into parts of about ROWS_PER_PASS symbols, fewer if each has very many logits."""
        rows = max(1, self._hidden.shape[1])
        steps = max(1, ROWS_PER_PASS // rows)
        for part in cut(len(ids), rows * logits):
            for start in range(part.start, part.stop, steps):
                yield ids[start : min(start + steps, part.stop)]

    def _read_part(self, ids: Ids) -> Array:
        """Read ids (T, S); return the outputs of the last layer as rows of a product, (1, C, R, K)."""
        engine = self._engine
        below = aligned(1, count_rows(ids.size, alone=False), engine.padded_units)
        by_chunk = engine.by_chunk(below)
        for layer, cell, hidden in zip(engine.layers, self._cells, self._hidden, strict=True):
            if layer.table is not None:
                before = layer.table.take(ids.ravel(), axis=1)
            elif layer.embedding is not None:
                before = Inputs(layer, below.shape[1], ids.size).look_up(ids.ravel())
            else:
                before = add(layer.bias, Product(by_chunk, layer.matrices[:1], ids.size).make())
            for start in range(0, ids.size, self.texts):
                part = slice(start, start + self.texts)
                cell.advance(before[:, part])
                below[0, part] = hidden[: self.texts]
        return by_chunk


class Product:
    """Hidden states times matrices, computed at each `make` from and into the same arrays."""

    def __init__(self, rows: Array, blocks: Array, wanted: int) -> None:
        """rows: (M, C, R, K). blocks: (M, C, G, N, K, W). wanted: how many rows are not padding, the first S.

        terms: M·C arrays (G, S, N·W); the sum of C of them is the product with one of the M matrices.
        """
        count, (layers, chunks, gates, many, _, width) = rows.shape[2], blocks.shape
        out = aligned(layers, chunks, gates, count, many, width)
        self._chunks = chunks
        self.terms = list(out.reshape(layers * chunks, gates, count, many * width)[:, :, :wanted])
        # equal parts in one call, since threads hand over Python's global lock at each call; then the rest, which is
        # never a single row, because BLAS takes another kernel for that
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
        """Return the product with the last matrix alone, in the same arrays."""
        last = copy(self)
        last._calls = [(rows[-1:], blocks[-1:], out[-1:]) for rows, blocks, out in self._calls]
        last.terms = self.terms[-self._chunks :]
        return last

    def make(self) -> list[Array]:
        """Compute the terms and return them."""
        for rows, blocks, out in self._calls:
            np.matmul(rows, blocks, out)
        return self.terms


class Inputs:
    """W x + b of the first layer for S symbols at a time, where there is no table of it."""

    def __init__(self, layer: Layer, rows: int, wanted: int) -> None:
        """rows, wanted: as in Product, R and S."""
        assert layer.embedding is not None and layer.inputs is not None, "it is the first layer, without a table"
        chunks, chunk = layer.inputs.shape[1], layer.inputs.shape[4]
        self._embedding, self._bias = layer.embedding, layer.bias
        padded = aligned(rows, chunks, chunk)
        self._rows = padded.reshape(rows, chunks * chunk)[:wanted, : self._embedding.shape[1]]
        self._product = Product(padded.transpose(1, 0, 2)[None], layer.inputs, wanted)

    def look_up(self, ids: Ids | Sequence[int], out: Array | None = None) -> Array:
        """Return W x + b of ids (S,), (G, S, U)."""
        self._rows[...] = self._embedding.take(ids, 0)
        return add(self._bias, self._product.make(), out)


class Cell:
    """One layer of a Reader: the state of its S texts, its step, and the arrays that the step works in.

    cell_state: (S, U), if `has_cell_state`.
    """

    gates: ClassVar[int]
    scale: ClassVar = 1.0  # h divided by the hidden state that is kept
    has_cell_state: ClassVar = False

    def __init__(self, layer: Layer, rows: Array, hidden: Array) -> None:
        """rows: the hidden states of the layer below, if there is one, and of this one, (1 or 2, C, R, K).

        hidden: those of this layer again, without padded rows, (S, U).
        """
        texts, units = hidden.shape
        self._layer, self._hidden = layer, hidden
        self._both = Product(rows, layer.matrices, texts)
        self._own = self._both.of_last_matrix()
        self._from_below, self._terms = self._both.terms[: -rows.shape[1]], self._own.terms
        self._before = aligned(self.gates, texts, units)
        self._inputs = Inputs(layer, rows.shape[2], texts) if layer.embedding is not None else None
        # the gates and the cell state lie side by side, so that one call multiplies both products of f c + i g
        self._gates_and_cell_state = aligned(self.gates + 1, texts, units)
        self._gates, self.cell_state = self._gates_and_cell_state[:-1], self._gates_and_cell_state[-1]

    def step(self, ids: Ids | Sequence[int]) -> None:
        """Read a symbol of each text: ids (S,) in the first layer, in others the hidden state of the layer below."""
        self._both.make()
        if self._layer.table is not None:
            self._layer.table.take(ids, 1, self._before, "clip")  # copies less than "raise"; all ids are valid
        elif self._inputs is not None:
            self._inputs.look_up(ids, self._before)
        else:
            add(self._layer.bias, self._from_below, self._before)
        self._combine(self._before)

    def advance(self, before: Array) -> None:
        """Read a symbol of each text. before: W x + b of each gate, (G, S, U)."""
        self._own.make()
        self._combine(before)

    @staticmethod
    def fold(inputs: Array, recurrent: Array, bias: Array, hidden_bias: Array) -> tuple[Array, Array, Array, Array]:
        """Scale and order a layer's W, U and biases, (G, H, columns) each, as `advance` needs them."""
        raise NotImplementedError

    def _combine(self, before: Array) -> None:
        """Compute the next state from `before` = W x + b and the terms of U h."""
        raise NotImplementedError


class RNN(Cell):
    """h' = tanh(W x + U h + b)."""

    gates = 1

    @staticmethod
    def fold(inputs: Array, recurrent: Array, bias: Array, hidden_bias: Array) -> tuple[Array, Array, Array, Array]:
        """See Cell."""
        return inputs, recurrent, bias + hidden_bias, hidden_bias

    def _combine(self, before: Array) -> None:
        """See Cell."""
        np.tanh(add(before, self._terms, self._gates)[0], self._hidden)


class LSTM(Cell):
    """c' = f c + i g, h' = o tanh(c').

    Each sigmoid is computed as 1 + tanh(x / 2), which is twice it. So c' is halved after the sum; what would halve h'
    is folded into the weights that multiply it, and 2 h' is kept.
    """

    gates = 4
    scale = 0.5
    has_cell_state = True

    def __init__(self, layer: Layer, rows: Array, hidden: Array) -> None:
        """See Cell."""
        super().__init__(layer, rows, hidden)
        # in the order i, f, o, g, c: the sigmoids side by side, and (i, f) times (g, c) in one call
        parts = self._gates_and_cell_state
        self._i_f_o, self._i_f, self._g_c = parts[:3], parts[:2], parts[3:]
        self._o, self._g = parts[2:4]

    @staticmethod
    def fold(inputs: Array, recurrent: Array, bias: Array, hidden_bias: Array) -> tuple[Array, Array, Array, Array]:
        """See Cell. torch stacks the gates in the order i, f, g, o."""
        folded = [tensor[[0, 1, 3, 2]] for tensor in (inputs, recurrent, bias + hidden_bias)]
        for tensor in folded:
            tensor[:3] *= 0.5
        return folded[0], folded[1], folded[2], hidden_bias

    def _combine(self, before: Array) -> None:
        """See Cell."""
        g, c = self._g, self.cell_state
        add(before, self._terms, self._gates)
        np.tanh(self._gates, self._gates)
        np.add(self._i_f_o, ONE, self._i_f_o)
        # c' = i g + f c
        np.multiply(self._i_f, self._g_c, self._g_c)
        np.add(g, c, c)
        np.multiply(c, HALF, c)
        # h' = o tanh c'
        np.tanh(c, g)
        np.multiply(g, self._o, self._hidden)


class GRU(Cell):
    """n = tanh(W x + b + r (U h + d)), h' = n + z (h - n): r multiplies after the product, as in torch and cuDNN.

    Each sigmoid is computed as 1 + tanh(x / 2), which is twice it. The half that r lacks is folded into U and d of n;
    z (h - n) is halved.
    """

    gates = 3

    def __init__(self, layer: Layer, rows: Array, hidden: Array) -> None:
        """See Cell."""
        super().__init__(layer, rows, hidden)
        self._r_z = self._gates[:2]
        self._r, self._z, self._n = self._gates
        self._r_z_terms, self._n_terms = [term[:2] for term in self._terms], [term[2] for term in self._terms]
        self._hidden_bias = layer.hidden_bias[0]

    @staticmethod
    def fold(inputs: Array, recurrent: Array, bias: Array, hidden_bias: Array) -> tuple[Array, Array, Array, Array]:
        """See Cell. torch stacks the gates in the order r, z, n."""
        inputs, bias, half = inputs.copy(), bias.copy(), np.float32(0.5)
        bias[:2] += hidden_bias[:2]
        inputs[:2] *= half
        bias[:2] *= half
        return inputs, recurrent * half, bias, hidden_bias[2:] * half

    def _combine(self, before: Array) -> None:
        """See Cell."""
        n, h = self._n, self._hidden
        add(before[:2], self._r_z_terms, self._r_z)
        np.tanh(self._r_z, self._r_z)
        np.add(self._r_z, ONE, self._r_z)
        # n = tanh(before + r (U h + d))
        add(self._hidden_bias, self._n_terms, n)
        np.multiply(n, self._r, n)
        np.add(n, before[2], n)
        np.tanh(n, n)
        # h' = n + z (h - n)
        np.subtract(h, n, h)
        np.multiply(h, self._z, h)
        np.multiply(h, HALF, h)
        np.add(h, n, h)


CELL_KERNELS = {"rnn": RNN, "lstm": LSTM, "gru": GRU}


def add(before: Array, terms: Iterable[Array], out: Array | None = None) -> Array:
    """Return before + terms[0] + terms[1] + …, summed in this order."""
    for term in terms:
        before = out = np.add(before, term, out)
    return before


def count_rows(texts: int, alone: bool) -> int:
    """Return how many rows a product for that many texts needs, so that none depends on how many there are."""
    if rows_are_independent():
        return max(2, texts)
    return texts if alone else _round_up(texts, count_equal_rows())


@cache
def rows_are_independent() -> bool:
    """Return whether a row of a product is the same to the last bit beside any other rows, and two as fast as one.

    That holds where OpenBLAS has kernels for small matrices (with AVX-512). Elsewhere the kernel, and with it the order
    of summing, depends on the number of rows.
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
    """Return how many rows, MOST_ROWS at most, a product may have so that a row is the same in any place among them.

    The AVX2 kernels of OpenBLAS take twelve of sixteen rows six at a time, and sum the other four in another order.
    """
    random = np.random.default_rng(0)
    for count in (MOST_ROWS, MOST_ROWS // 2, MOST_ROWS // 4, MOST_ROWS // 8):
        shapes = [(terms, width) for terms in (BLOCK, CHUNK // 2, CHUNK) for width in (VECTOR, BLOCK, WIDEST_BLOCK)]
        if all(_are_equal(_multiply(random, count, *shape)) for shape in shapes):
            return count
    return 1


def _multiply(random: np.random.Generator, count: int, terms: int, width: int) -> Array:
    """Multiply several copies of a row by a block."""
    rows = np.repeat(random.standard_normal((1, terms), np.float32), count, axis=0)
    products: Array = np.matmul(rows, random.standard_normal((terms, width), np.float32))
    return products


def _are_equal(rows: Array) -> bool:
    return bool((rows == rows[0]).all())


def _time(product: Product) -> float:
    begin = perf_counter()
    product.make()
    return perf_counter() - begin


def _chunks(units: int) -> tuple[int, int]:
    """Return into how many chunks C to pad so many units, and the size K of each."""
    count = -(-units // CHUNK)
    return count, _round_up(-(-units // count), BLOCK)


def pack(matrices: Sequence[Array], chunks: int, chunk: int, width: int = BLOCK) -> Array:
    """Pad M matrices (G, rows, columns) to C·K columns and cut them into blocks, (M, C, G, N, K, width)."""
    gates, rows, columns = matrices[0].shape
    blocks = -(-rows // width)
    packed = aligned(len(matrices), chunks, gates, blocks, chunk, width)
    step = max(1, PACKED_AT_ONCE // (gates * width * chunks * chunk))  # blocks
    for place, matrix in enumerate(matrices):
        for first in range(0, blocks, step):
            part = matrix[:, first * width : (first + step) * width]
            widths = [(0, 0), (0, -part.shape[1] % width), (0, chunks * chunk - columns)]
            by_block = _pad(part, widths).reshape(gates, -1, width, chunks, chunk)
            packed[place, :, :, first : first + step] = by_block.transpose(3, 0, 1, 4, 2)
    return packed


def _pad(array: Array, widths: list[tuple[int, int]]) -> Array:
    """Return the array padded with zeros; itself if no padding is asked for."""
    return np.pad(array, widths) if np.any(widths) else array


def aligned(*shape: int) -> Array:
    """Return zeros aligned to a line of the cache: loading a vector that crosses two takes twice the time."""
    size = math.prod(shape)
    array = np.zeros(size + VECTOR, np.float32)
    start = -array.ctypes.data // array.itemsize % VECTOR
    return array[start : start + size].reshape(shape)


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
