"""A model whose arithmetic numpy does, where there are no compiled kernels.

Its sums are made in the order in which BLAS makes them, which depends on the processor and on how many texts are read
side by side. So a text that is written alone is the same again on this machine, and nothing more is promised.

Matrices are cut into blocks of BLOCK outputs. BLAS multiplies by so small a matrix where it lies and on one thread;
for a whole one it would wake threads, which takes up to a hundred times as long where other programs run.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from charlm.inference.sampling import BatchSampler, cut, surprisals_of
from charlm.model.config import LAYER_TENSORS, ModelConfig, Weights
from charlm.vocab import Ids

Array = NDArray[np.float32]

BLOCK = 64  # outputs
HALF = np.float32(0.5)
ROWS_PER_PASS = 128  # symbols that are taken through a layer at a time: their arrays, about 1 MB, stay in the cache


class NumpyModel:
    """See CompiledModel, which has the same methods. Its states are not padded: `units` is H."""

    def __init__(self, config: ModelConfig, weights: Weights, largest_table: int) -> None:
        """See CompiledModel."""
        self.units = config.hidden_size
        self._step = STEPS[config.cell]
        self._symbols = len(config.vocab)
        self._head, self._head_bias = _cut(weights["head.weight"]), weights["head.bias"]
        self._embedding = weights["embedding.weight"]
        self._layers = []
        for layer in range(config.num_layers):
            w, u, b, d = (weights[f"recurrent.{name}_l{layer}"] for name in LAYER_TENSORS)
            self._layers.append((_cut(w), b, _cut(u), d))
        # W x + b of the first layer for each symbol, (V, G·H)
        is_small = len(self._embedding) * len(self._layers[0][1]) <= largest_table
        self._table = _multiply(self._embedding, *self._layers[0][:2]) if is_small else None

    def read(self, ids: Ids, hidden: Array, cell_state: Array, top: Array | None = None) -> None:
        """See CompiledModel."""
        steps = max(1, ROWS_PER_PASS // max(1, ids.shape[1]))
        for first in range(0, len(ids), steps):
            part = np.asarray(ids[first : first + steps])
            x = self._embedding[part]
            for number, (w, b, u, d) in enumerate(self._layers):
                before = self._table[part] if self._table is not None and number == 0 else _multiply(x, w, b)
                x = np.empty((*part.shape, self.units), np.float32)
                for step in range(len(part)):
                    from_hidden = _multiply(hidden[number], u, d)
                    self._step(before[step], from_hidden, hidden[number], cell_state[number : number + 1])
                    x[step] = hidden[number]
            if top is not None:
                top[first : first + steps] = x

    def logits(self, hidden: Array) -> Array:
        """See CompiledModel."""
        return _multiply(hidden, self._head, self._head_bias)

    def score(self, hidden: Array, ids: Ids) -> NDArray[np.float64]:
        """See CompiledModel."""
        flat_ids, flat_hidden, surprisals = ids.ravel(), hidden.reshape(-1, self.units), np.empty(ids.size)
        for rows in cut(ids.size, self._symbols):
            surprisals[rows] = surprisals_of(flat_ids[rows], self.logits(flat_hidden[rows]))
        return surprisals.reshape(ids.shape)

    def write(
        self, steps: int, hidden: Array, cell_state: Array, sampler: BatchSampler
    ) -> tuple[Ids, NDArray[np.float64]]:
        """See CompiledModel."""
        texts = hidden.shape[1]
        ids, surprisals = np.empty((steps, texts), np.int64), np.empty((steps, texts))
        for step in range(steps):
            if step > 0:
                self.read(ids[step - 1 : step], hidden, cell_state)
            for rows in cut(texts, self._symbols):
                logits = self.logits(hidden[-1, rows])
                ids[step, rows] = sampler.part(rows).draw(logits)
                surprisals[step, rows] = surprisals_of(ids[step, rows], logits)
        return ids, surprisals

    def multiply_back(self, layer: int, row: Array) -> Array:
        """See CompiledModel."""
        blocks = self._layers[layer][2]  # (N, H, BLOCK)
        padded = np.zeros(len(blocks) * BLOCK, np.float32)
        padded[: row.size] = row.ravel()
        product: Array = np.matmul(blocks, padded.reshape(-1, BLOCK, 1)).sum(axis=(0, 2))
        return product


def _cut(matrix: Array) -> Array:
    """Cut a matrix (rows, columns) into N blocks, (N, columns, BLOCK), the last one padded with zeros."""
    padded = np.pad(matrix, [(0, -len(matrix) % BLOCK), (0, 0)])
    return np.ascontiguousarray(padded.reshape(-1, BLOCK, matrix.shape[1]).transpose(0, 2, 1))


def _multiply(x: Array, blocks: Array, bias: Array) -> Array:
    """Return bias + W x for x (..., columns), (..., rows), with the blocks of W (rows, columns)."""
    rows = x.reshape(-1, x.shape[-1])
    product = np.matmul(rows, blocks).transpose(1, 0, 2).reshape(len(rows), len(blocks) * BLOCK)
    sums: Array = product[:, : len(bias)] + bias
    return sums.reshape(*x.shape[:-1], len(bias))


def _rnn(before: Array, from_hidden: Array, h: Array, c: Array) -> None:
    """Compute h' = tanh(W x + U h + b)."""
    np.tanh(before + from_hidden, out=h)


def _lstm(before: Array, from_hidden: Array, h: Array, c: Array) -> None:
    """Compute c' = f ∘ c + i ∘ g, h' = o ∘ tanh(c')."""
    i, f, g, o = np.split(before + from_hidden, 4, axis=-1)
    c *= sigmoid(f)
    c += sigmoid(i) * np.tanh(g)
    np.multiply(sigmoid(o), np.tanh(c[0]), out=h)


def _gru(before: Array, from_hidden: Array, h: Array, c: Array) -> None:
    """Compute n = tanh(W x + b + r ∘ (U h + d)), h' = n + z ∘ (h - n)."""
    r, z, n = np.split(before, 3, axis=-1)
    ur, uz, un = np.split(from_hidden, 3, axis=-1)
    n = np.tanh(n + sigmoid(r + ur) * un)
    h -= n
    h *= sigmoid(z + uz)
    h += n


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)), without overflow."""
    value: Array = HALF * np.tanh(HALF * x) + HALF
    return value


Step = Callable[[Array, Array, Array, Array], None]  # before, U h + d, h (S, U) and c (1, S, U), both overwritten
STEPS: dict[str, Step] = {"rnn": _rnn, "lstm": _lstm, "gru": _gru}
