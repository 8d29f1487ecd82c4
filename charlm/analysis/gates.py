"""The gates of the cells, step by step, and the derivatives of a step: as torch's documentation names and defines them.

A step is written out in `charlm.inference.engine`. The hidden states that a text brings about are known when gates are
asked for, so those of all its steps are products of whole matrices; nothing is carried from one step to the next.

A new cell takes an entry in GATES. Letters for shapes, besides those of `charlm.model.network`: N steps; G gates; K of
the H units of a layer.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from charlm.inference.engine import Array
from charlm.inference.numpy_model import sigmoid
from charlm.model.config import LAYER_TENSORS, Weights
from charlm.vocab import Ids

GatesByName = dict[str, Array]  # (N, K) each

SATURATED = 0.1  # a gate is left-saturated below it, and right-saturated above 1 minus it (Karpathy et al., 2015)


@dataclass(frozen=True)
class Slopes:
    """The derivatives of N steps of a layer, with a the G sums of a step, h' and c' what it computes from h and c.

    hidden: of h' with respect to those sums that do not act through c', (N, D, H): the last D of the G.
    cell: of c' with respect to the sums before them, (N, G - D, H); None if the cell has no c.
    into_cell: of c' with respect to h', (N, H); None if the cell has no c.
    kept: how much of the gradient at h', or at c' if the cell has one, comes to the state before it directly, (N, H).
    recurrent: what each of the sums' gradients is multiplied by on its way to h, (N, G, H); None if by 1.
    """

    hidden: Array
    cell: Array | None = None
    into_cell: Array | None = None
    kept: Array | None = None
    recurrent: Array | None = None


@dataclass(frozen=True)
class Gates:
    """How a kind of cell computes its gates from W x + b and U h + d, (N, G, K) each.

    read: returns the gates by name. slopes: the derivatives; takes the sums, c and c' before and after each step.
    squashed: the gates that are between 0 and 1, of which it can be said that they are saturated.
    """

    read: Callable[[Array, Array], GatesByName]
    slopes: Callable[[Array, Array, Array, Array, Array], Slopes]
    squashed: tuple[str, ...] = ()


def read_gates(
    cell: str,
    weights: Weights,
    layer: int,
    ids: Ids,
    hidden: Array,
    units: slice = slice(None),
) -> GatesByName:
    """Return the gates of some units of a layer at each of ids (N,), (N, K) each, without h and c.

    cell: a key of GATES. hidden: the hidden states after each symbol, (N, L, H), the first of them read from zero.
    """
    return GATES[cell].read(*sums(weights, layer, ids, hidden, units=units))


def sums(
    weights: Weights,
    layer: int,
    ids: Ids,
    hidden: Array,
    first: Array | None = None,
    units: slice = slice(None),
    out: Array | None = None,
) -> Array:
    """Return W x + b and U h + d of some units of a layer, (2, N, G, K); arguments as of `read_gates`.

    first: the hidden states before the first symbol, (L, H); None if they are zero.
    out: memory of that shape to write them to, such as those of another layer, which are not needed any more: the first
        write to each 4 KB of new memory takes microseconds.
    """
    w, u, b, d = (weights[f"recurrent.{name}_l{layer}"] for name in LAYER_TENSORS)
    w, u = (matrix.reshape(-1, u.shape[1], matrix.shape[1])[:, units] for matrix in (w, u))  # (G, K, columns)
    b, d = (bias.reshape(-1, len(bias) // len(w))[:, units].ravel() for bias in (b, d))
    both = np.empty((2, len(ids), *w.shape[:2]), np.float32) if out is None else out
    from_input, from_hidden = both.reshape(2, len(ids), w.shape[0] * w.shape[1])  # also where there are no ids

    def multiply(vectors: Array, rows: Array, bias: Array, product: Array) -> None:
        np.matmul(vectors, rows.reshape(-1, rows.shape[2]).T, out=product)
        product += bias

    if layer == 0:  # each symbol's product once
        symbols, places = np.unique(ids, return_inverse=True)
        products = np.empty((len(symbols), from_input.shape[1]), np.float32)
        multiply(weights["embedding.weight"][symbols], w, b, products)
        np.take(products, places, axis=0, out=from_input, mode="clip")  # other modes write to a copy first
    else:
        multiply(hidden[:, layer - 1], w, b, from_input)
    multiply(before(hidden[:, layer], 0.0 if first is None else first[layer]), u, d, from_hidden)
    return both


def before(states: Array, first: Array | float = 0.0) -> Array:
    """Return the states before each step, (N, …), of those after it; `first` is that before the first."""
    shifted = np.empty_like(states)
    shifted[:1], shifted[1:] = first, states[:-1]
    return shifted


def saturation(cell: str, gates: GatesByName) -> dict[str, tuple[float, float]]:
    """Return for each gate between 0 and 1 in which shares of the steps it is left- and right-saturated.

    Karpathy, Johnson and Fei-Fei ("Visualizing and Understanding Recurrent Networks", 2015) plot the one against the
    other. gates: (N,) each. A cell without such gates has none.
    """
    shares = {}
    for name in GATES[cell].squashed:
        values = gates[name]
        shares[name] = float((values < SATURATED).mean()), float((values > 1 - SATURATED).mean())
    return shares


def _slope_of_tanh(x: Array) -> Array:
    """Return 1 - tanh(x)², precise also where that is small, which a difference from 1 is not."""
    return np.float32(4) * _slope_of_sigmoid(x + x)


def _slope_of_sigmoid(x: Array) -> Array:
    """Return the derivative of the sigmoid, precise also where it is small."""
    e: Array = np.exp(-np.abs(x))
    slope: Array = e / (1 + e) ** 2
    return slope


def _read_rnn(wx: Array, uh: Array) -> GatesByName:
    """Return the sum before the tanh."""
    return {"sum": (wx + uh)[:, 0]}


def _read_lstm(wx: Array, uh: Array) -> GatesByName:
    return _lstm_gates(wx + uh)


def _lstm_gates(a: Array) -> GatesByName:
    return {"i": sigmoid(a[:, 0]), "f": sigmoid(a[:, 1]), "g": np.tanh(a[:, 2]), "o": sigmoid(a[:, 3])}


def _read_gru(wx: Array, uh: Array) -> GatesByName:
    r, z = sigmoid(wx[:, 0] + uh[:, 0]), sigmoid(wx[:, 1] + uh[:, 1])
    return {"r": r, "z": z, "n": np.tanh(wx[:, 2] + r * uh[:, 2])}


def _rnn_slopes(wx: Array, uh: Array, h: Array, c: Array, new_c: Array) -> Slopes:
    """Of h' = tanh(a)."""
    return Slopes(hidden=_slope_of_tanh(wx + uh))


def _lstm_slopes(wx: Array, uh: Array, h: Array, c: Array, new_c: Array) -> Slopes:
    """Of c' = f ∘ c + i ∘ g;  h' = o ∘ tanh(c')."""
    a = wx + uh
    gate = _lstm_gates(a)
    hidden = np.tanh(new_c) * _slope_of_sigmoid(a[:, 3])
    cell = np.empty_like(a[:, :3])
    np.multiply(gate["g"], _slope_of_sigmoid(a[:, 0]), out=cell[:, 0])
    np.multiply(c, _slope_of_sigmoid(a[:, 1]), out=cell[:, 1])
    np.multiply(gate["i"], _slope_of_tanh(a[:, 2]), out=cell[:, 2])
    return Slopes(hidden[:, None], cell, into_cell=gate["o"] * _slope_of_tanh(new_c), kept=gate["f"])


def _gru_slopes(wx: Array, uh: Array, h: Array, c: Array, new_c: Array) -> Slopes:
    """Of h' = (1 - z) ∘ n + z ∘ h, where U h + d reaches n through r."""
    gate = _read_gru(wx, uh)
    hidden, recurrent = np.empty_like(wx), np.ones_like(wx)
    n_sum = wx[:, 2] + gate["r"] * uh[:, 2]
    hidden[:, 2] = sigmoid(-(wx[:, 1] + uh[:, 1])) * _slope_of_tanh(n_sum)
    hidden[:, 0] = hidden[:, 2] * uh[:, 2] * _slope_of_sigmoid(wx[:, 0] + uh[:, 0])
    hidden[:, 1] = (h - gate["n"]) * _slope_of_sigmoid(wx[:, 1] + uh[:, 1])
    recurrent[:, 2] = gate["r"]
    return Slopes(hidden, kept=gate["z"], recurrent=recurrent)


GATES = {
    "rnn": Gates(_read_rnn, _rnn_slopes),
    "lstm": Gates(_read_lstm, _lstm_slopes, squashed=("i", "f", "o")),
    "gru": Gates(_read_gru, _gru_slopes, squashed=("r", "z")),
}
