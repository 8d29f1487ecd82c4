"""What moved one prediction: the gradient of its log-probability with respect to each symbol that was read before it.

The backward pass goes through the layers from the last to the first. In a layer, the gradient goes from step to step
through the recurrent matrix; what it leaves at the layer's inputs is then one product for all steps.

It is computed in single precision, with a power of 2 apart for each step: a gradient fades by many orders of magnitude
over some hundred symbols, an RNN's beyond what a float32 can hold.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from charlm.analysis.gates import GATES, Slopes, before, sums
from charlm.checks import check_whole
from charlm.errors import RequestError
from charlm.inference.engine import Array, Engine
from charlm.inference.sampling import check_finite, log_softmax
from charlm.model.config import Weights
from charlm.vocab import Ids

# gradients are scaled anew when they are farther from 1 than 2 to this
FARTHEST_FROM_1 = 20
SMALLEST_EXPONENT = 126  # of a float32
STEPS_AT_ONCE = 32  # whose slopes are computed at a time: those of an LSTM of 512 units then stay in the cache
NOTHING = -(2**40)  # the exponent of 0, below all others

Multiply = Callable[[Array], Array]


def trace_influence(
    engine: Engine,
    cell: str,
    weights: Weights,
    ids: Ids,
    hidden: Array,
    cell_state: Array | None,
    place: int,
    farthest: int,
) -> NDArray[np.float64]:
    """Return how strongly each of the `farthest` symbols before a place moved its prediction, or all before it.

    That is the norm of the gradient of its log-probability with respect to the embedding of each of them (Madsen,
    "Visualizing memorization in RNNs", Distill, 2019, takes the logit's).

    hidden, cell_state: the states after each of ids (T,), (T, L, H). Raises RequestError if nothing was read before the
    place, or there is no such place, ModelFileError if a gradient is not finite.
    """
    if len(ids) < 2:
        raise RequestError(
            "no character precedes the first one, so nothing influenced its prediction; give a text of two or more "
            "characters"
        )
    place = check_whole("place", place, 1, len(ids) - 1)
    first = max(0, place - check_whole("farthest", farthest, 1))
    cells = None if cell_state is None else cell_state[first:place]
    first_hidden = hidden[first - 1] if first else None
    first_cell = cell_state[first - 1] if first and cell_state is not None else None
    return _trace(engine, cell, weights, ids[first : place + 1], hidden[first:place], cells, first_hidden, first_cell)


def _trace(
    engine: Engine,
    cell: str,
    weights: Weights,
    ids: Ids,
    hidden: Array,
    cell_state: Array | None,
    first_hidden: Array | None,
    first_cell: Array | None,
) -> NDArray[np.float64]:
    """Return how strongly each symbol moved the prediction of the last of ids (T,), (T - 1,).

    hidden, cell_state: after each symbol but the last, (T - 1, L, H). first_hidden, first_cell: before the first one,
    (L, H); None if they are zero.
    """
    # 1) from the log-probability to the last hidden state
    head = weights["head.weight"]
    slope = -np.exp(log_softmax(head @ hidden[-1, -1] + weights["head.bias"]))
    slope[ids[-1]] += 1
    at_hidden, exponents = np.zeros_like(hidden[:, -1]), np.zeros(len(hidden), np.int64)
    at_hidden[-1] = slope @ head
    # 2) through the layers
    both_sums = None
    for layer in reversed(range(hidden.shape[1])):
        both_sums = sums(weights, layer, ids[:-1], hidden, first_hidden, out=both_sums)
        at_sums = both_sums[1]  # (N, G, H): the gradients take the place of the sums
        states = before(hidden[:, layer], 0.0 if first_hidden is None else first_hidden[layer])
        new_cells = hidden[:0, 0] if cell_state is None else cell_state[:, layer]
        cells = before(new_cells, 0.0 if first_cell is None else first_cell[layer])

        def slopes(part: slice, steps: tuple[Array, ...] = (*both_sums, states, cells, new_cells)) -> Slopes:
            return GATES[cell].slopes(*(each[part] for each in steps))

        exponents = _through_time(slopes, partial(engine.model.multiply_back, layer), at_hidden, exponents, at_sums)
        at_hidden = at_sums.reshape(len(at_sums), -1) @ weights[f"recurrent.weight_ih_l{layer}"]
    # 3) the norms
    with np.errstate(over="ignore"):  # what has become infinite is refused
        norms: NDArray[np.float64] = np.ldexp(np.linalg.norm(at_hidden.astype(np.float64), axis=1), exponents)
    check_finite(float(norms.max()))  # NaN if any of them is
    return norms


def _through_time(
    slopes: Callable[[slice], Slopes], multiply: Multiply, above: Array, exponents: NDArray[np.int64], at_sums: Array
) -> NDArray[np.int64]:
    """Write the gradients at the sums of a layer to at_sums, (N, G, H).

    slopes: returns those of some steps. It is asked for the last first, before at_sums is overwritten there.
    multiply: multiplies a row, (G, H), by U, (G·H, H).
    above: the gradients that come to its hidden states from above, (N, H).
    exponents: of the powers of 2 by which the gradients of each step, given and returned, are to be multiplied, (N,).
    """
    steps, units = above.shape
    scales = np.zeros(steps, np.int64)
    sizes = [_size(row) for row in above]
    sizes = [NOTHING if size == NOTHING else size + int(more) for size, more in zip(sizes, exponents, strict=True)]
    h, c, scale = np.zeros(units, np.float32), np.zeros(units, np.float32), max(sizes)  # the gradients at the states
    for step in reversed(range(steps)):
        if step == steps - 1 or step % STEPS_AT_ONCE == STEPS_AT_ONCE - 1:
            first = step // STEPS_AT_ONCE * STEPS_AT_ONCE
            some = slopes(slice(first, step + 1))
        # 1) what comes from the step after, and from above, on the same scale
        largest = max(sizes[step], scale + max(_size(h), _size(c)))
        if abs(largest - scale) > FARTHEST_FROM_1 and largest > NOTHING // 2:
            h, c, scale = _times_2_to(h, scale - largest), _times_2_to(c, scale - largest), largest
        if sizes[step] > scale - SMALLEST_EXPONENT:
            h += _times_2_to(above[step], int(exponents[step]) - scale)
        scales[step] = scale
        # 2) through the step
        h, c = _through_step(some, step - first, multiply, h, c, at_sums[step])
    return scales


def _through_step(
    slopes: Slopes, step: int, multiply: Multiply, h: Array, c: Array, at_sums: Array
) -> tuple[Array, Array]:
    """Return the gradients at h and c before a step, (H,), of those after it, which change; write at_sums (G, H)."""
    through_c = 0  # sums
    if slopes.cell is not None and slopes.into_cell is not None:
        c += h * slopes.into_cell[step]
        through_c = slopes.cell.shape[1]
        np.multiply(slopes.cell[step], c, out=at_sums[:through_c])
    np.multiply(slopes.hidden[step], h, out=at_sums[through_c:])
    back = at_sums if slopes.recurrent is None else at_sums * slopes.recurrent[step]
    below = multiply(back)
    if slopes.kept is not None and slopes.cell is not None:
        c *= slopes.kept[step]
    elif slopes.kept is not None:
        h *= slopes.kept[step]
        below += h
    return below, c


def _size(values: Array) -> int:
    """Return the exponent of a power of 2 that is about the size of a vector; NOTHING if it is 0."""
    square = float(values @ values)
    if 0 < square < np.inf:
        return int(math.frexp(square)[1] // 2)
    largest = float(np.abs(values).max())
    return int(math.frexp(largest)[1]) if largest > 0 else NOTHING


def _times_2_to(values: Array, exponent: int) -> Array:
    """Return values times a power of 2, which may be one that a float32 does not hold."""
    if abs(exponent) <= SMALLEST_EXPONENT:
        return values * np.float32(math.ldexp(1, exponent))  # several times as fast
    scaled: Array = np.ldexp(values, min(max(exponent, -(2**20)), 2**20))
    return scaled
