"""Which units are on in a stretch of text and off around it, and where else the same units are on.

This is the question of LSTMVis (Strobelt, Gehrmann, Pfister and Rush, 2018): a person selects a stretch, such as a
quotation, and sees by the other places what the units that are on there may stand for.
"""

import math
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm.analysis.inspection import read_around
from charlm.checks import check_number, check_whole
from charlm.errors import RequestError
from charlm.inference.engine import Array, Engine, Reader, State
from charlm.vocab import Ids

THRESHOLD = 0.3  # of a hidden state, which is between -1 and 1; the one that LSTMVis begins with
LONGEST_PATTERN = 200  # characters
MOST_PLACES = 20
SMALLEST_SHARE = 0.5  # of the units, that are on in a place that is returned
READ_ALONE = 5_000  # symbols that are read one after another from the zero state
STRETCHES = 16  # of a longer text, read side by side
# read before each of them but the first, so that its states do not depend on beginning at zero
WARM_UP_SYMBOLS = 256
STEPS_BETWEEN_LOOKS = 64  # at the clock

Places = list[tuple[int, int, float]]  # start, end and share of the units


@dataclass(frozen=True)
class Pattern:
    """Units that are on together, and places where they are.

    units: layer and unit, from 0, in this order.
    places: start, end, and the share of the units that are on in all of it; the largest share first, no two overlap.
    searched: how many characters were searched for them, fewer than the text has if there was no time for more.
    """

    units: list[tuple[int, int]]
    places: Places
    searched: int


def units_on(hidden: Array, start: int, end: int, threshold: float) -> list[tuple[int, int]]:
    """Return the units whose hidden state is above the threshold in all of a stretch and not just before and after it.

    hidden: after each symbol, (N, L, H). start, end: of the stretch, from 0, the end not included. Before the text and
    after it no unit is on. Raises RequestError for a stretch outside of the text or too long, or a threshold that no
    hidden state is above.
    """
    if not len(hidden):
        raise RequestError("the text is empty, so no stretch of it can be selected; inspect a text first")
    start = check_whole("start", start, 0, len(hidden) - 1)
    end = check_whole("end", end, start + 1, len(hidden))
    threshold = check_number("threshold", threshold, -1, 1)
    if end - start > LONGEST_PATTERN:
        raise RequestError(f"the stretch has {end - start:,} characters; select at most {LONGEST_PATTERN}")
    on = (hidden[start:end] > threshold).all(axis=0)
    for outside in (start - 1, end):
        if 0 <= outside < len(hidden):
            on &= hidden[outside] <= threshold
    return [(int(layer), int(unit)) for layer, unit in np.argwhere(on)]


def find_places(
    engine: Engine,
    ids: Ids,
    units: list[tuple[int, int]],
    length: int,
    threshold: float,
    besides: tuple[int, int] = (0, 0),
    seconds: float = math.inf,
) -> tuple[Places, int]:
    """Return the places of `length` symbols in ids (N,) where most of the units are on, and how many were searched.

    besides: start and end of a stretch of ids that is not to be found. seconds: after which the search ends. Raises
    RequestError if that is no number from 0.

    The memory that this takes is some numbers for each symbol and unit of a step, however long the text is. A text of
    over READ_ALONE symbols is cut into stretches that are read side by side.
    """
    seconds = check_number("seconds", seconds, 0, math.inf, finite=False)
    if not units or len(ids) < length:
        return [], 0
    shares = _shares_on(engine, ids, units, length, threshold, time.monotonic() + seconds)
    is_searched = ~np.isnan(shares)
    searched = int(is_searched.sum()) + length - 1 if is_searched.any() else 0
    is_taken = np.zeros(len(ids), bool)
    is_taken[besides[0] : besides[1]] = True
    shares = np.nan_to_num(shares)
    places: Places = []
    for start in np.argsort(-shares, kind="stable").tolist():
        if len(places) == MOST_PLACES or shares[start] < SMALLEST_SHARE:
            break
        if not is_taken[start : start + length].any():
            places.append((start, start + length, float(shares[start])))
            is_taken[start : start + length] = True
    return places, searched


def _shares_on(
    engine: Engine, ids: Ids, units: list[tuple[int, int]], length: int, threshold: float, deadline: float
) -> NDArray[np.float64]:
    """Return which share of the units is on in all of the `length` symbols from each one on; NaN if not searched.

    The result is (N - length + 1,).
    """
    # 1) cut the text into stretches of as many places, each read on to where its last place ends
    stretches = 1 if len(ids) <= READ_ALONE else STRETCHES
    step = -(-(len(ids) - length + 1) // stretches)
    begins = np.arange(stretches) * step
    warmed_up = read_around(engine, ids, begins[1:], WARM_UP_SYMBOLS)
    reader = Reader(engine, State.join([engine.zero_state(1), warmed_up]))
    # 2) read them side by side; count for each unit for how many symbols it has been on
    layers, numbers = np.array(units).T
    shares, runs = np.full(len(ids) - length + 1, np.nan), np.zeros((stretches, len(units)), np.int64)
    for offset in range(step + length - 1):
        if offset % STEPS_BETWEEN_LOOKS == 0 and time.monotonic() >= deadline:
            break
        reader.advance(ids[np.minimum(begins + offset, len(ids) - 1)])  # what is read beyond the text is not looked at
        states = engine.units_of(reader.state)[0][layers, :, numbers]  # (units, S)
        runs = (runs + 1) * (threshold < states.T)
        starts = begins + offset + 1 - length
        is_place = (starts >= begins) & (starts < len(shares))
        shares[starts[is_place]] = (runs[is_place] >= length).mean(axis=1)
    return shares
