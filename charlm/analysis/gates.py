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
from charlm.model.config import LAYER_TENSORS, Weights
from charlm.vocab import Ids

GatesByName = dict[str, Array]  # (N, K) each

SATURATED = 0.1  # a gate is left-saturated below it, and right-saturated above 1 minus it (Karpathy et al., 2015)


@dataclass(frozen=True)
class Slopes:
    """The derivatives of N steps of a layer, with a the G sums of a step, h' and c' what it computes from h and c.

    hidden: of the sums with respect to a unit's h', where the way is not through c', (N, G, H).
    cell: of the sums with respect to a unit's c', (N, G, H); None if the cell has no c.
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
    first: Array | None = None,
    units: slice = slice(None),
) -> GatesByName:
    """Return the gates of some units of a layer at each of ids (N,), (N, K) each, without h and c.

    cell: a key of GATES. hidden: the hidden states after each symbol, (N, L, H). first: those before the first symbol,
    (L, H); None if they are zero.
    """
    return GATES[cell].read(*sums(weights, layer, ids, hidden, first, units))


def sums(
    weights: Weights, layer: int, ids: Ids, hidden: Array, first: Array | None = None, units: slice = slice(None)
) -> tuple[Array, Array]:
    """Return W x + b and U h + d of some units of a layer, (N, G, K) each; arguments as of `read_gates`."""
    w, u, b, d = (weights[f"recurrent.{name}_l{layer}"] for name in LAYER_TENSORS)

    def multiply(matrix: Array, bias: Array, vectors: Array) -> Array:
        rows = matrix.reshape(-1, u.shape[1], matrix.shape[1])[:, units]  # (G·H, columns) → (G, K, columns)
        product = vectors @ rows.reshape(-1, matrix.shape[1]).T + bias.reshape(-1, u.shape[1])[:, units].ravel()
        return product.reshape(len(vectors), *rows.shape[:2])

    if layer == 0:  # each symbol's product once
        symbols, places = np.unique(ids, return_inverse=True)
        from_input = multiply(w, b, weights["embedding.weight"][symbols])[places]
    else:
        from_input = multiply(w, b, hidden[:, layer - 1])
    return from_input, multiply(u, d, before(hidden[:, layer], 0.0 if first is None else first[layer]))


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


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)), without overflow."""
    value: Array = np.float32(0.5) * np.tanh(np.float32(0.5) * x) + np.float32(0.5)
    return value


def _slope_of_tanh(x: Array) -> Array:
    """Return 1 - tanh(x)², precise also where that is small, which a difference from 1 is not."""
    e: Array = np.exp(np.float32(-2) * np.abs(x))
    return np.float32(4) * e / (1 + e) ** 2


def _slope_of_sigmoid(x: Array) -> Array:
    """Return the derivative of the sigmoid, precise also where it is small."""
    return np.float32(0.25) * _slope_of_tanh(np.float32(0.5) * x)


def _read_rnn(wx: Array, uh: Array) -> GatesByName:
    """Return the sum before the tanh."""
    return {"sum": (wx + uh)[:, 0]}


def _read_lstm(wx: Array, uh: Array) -> GatesByName:
    a = wx + uh
    return {"i": sigmoid(a[:, 0]), "f": sigmoid(a[:, 1]), "g": np.tanh(a[:, 2]), "o": sigmoid(a[:, 3])}


def _read_gru(wx: Array, uh: Array) -> GatesByName:
    r, z = sigmoid(wx[:, 0] + uh[:, 0]), sigmoid(wx[:, 1] + uh[:, 1])
    return {"r": r, "z": z, "n": np.tanh(wx[:, 2] + r * uh[:, 2])}


def _rnn_slopes(wx: Array, uh: Array, h: Array, c: Array, new_c: Array) -> Slopes:
    """Of h' = tanh(a)."""
    return Slopes(hidden=_slope_of_tanh(wx + uh))


def _lstm_slopes(wx: Array, uh: Array, h: Array, c: Array, new_c: Array) -> Slopes:
    """Of c' = f ∘ c + i ∘ g;  h' = o ∘ tanh(c')."""
    a, gate = wx + uh, _read_lstm(wx, uh)
    hidden, cell = np.zeros_like(a), np.zeros_like(a)
    hidden[:, 3] = np.tanh(new_c) * _slope_of_sigmoid(a[:, 3])
    cell[:, 0] = gate["g"] * _slope_of_sigmoid(a[:, 0])
    cell[:, 1] = c * _slope_of_sigmoid(a[:, 1])
    cell[:, 2] = gate["i"] * _slope_of_tanh(a[:, 2])
    return Slopes(hidden, cell, into_cell=gate["o"] * _slope_of_tanh(new_c), kept=gate["f"])


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
