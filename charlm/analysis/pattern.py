"""Which units are on in a stretch of text and off around it, and where else the same units are on.

This is the question of LSTMVis (Strobelt, Gehrmann, Pfister and Rush, 2018): a person selects a stretch, such as a
quotation, and sees by the other places what the units that are on there may stand for.
"""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm.checks import check_number, check_whole
from charlm.inference.engine import Array, Engine, Reader, State
from charlm.vocab import Ids

THRESHOLD = 0.3  # of a hidden state, which is between -1 and 1; the one that LSTMVis begins with
LEAST_SHARE = 0.5  # of the units, that are on at each symbol of a place
MOST_PLACES = 50
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
    places: start, end and share of stretches in which at least half of the units are on at each character; the share is
        the mean over the stretch. They lie outside the stretch that was selected and are at least half as long. The
        largest share comes first; there are 50 at most.
    searched: how many characters were searched for them, fewer than the text has if there was no time for more.
    """

    units: list[tuple[int, int]]
    places: Places
    searched: int


def units_on(hidden: Array, start: int, end: int, threshold: float) -> list[tuple[int, int]]:
    """Return the units whose hidden state is above the threshold in all of a stretch and not just before and after it.

    hidden: after each symbol, (N, L, H). start, end: of the stretch, from 0, the end not included. Before the text and
    after it no unit is on. Raises RequestError for a stretch outside of the text, or a threshold out of bounds.
    """
    start = check_whole("start", start, 0, max(len(hidden) - 1, 0))
    end = check_whole("end", end, start + 1, max(len(hidden), start + 1))
    threshold = check_number("threshold", threshold, -1, 1)
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
    seconds: float = float("inf"),
) -> tuple[Places, int]:
    """Return the `Pattern.places` of units in ids (N,), and how many symbols were searched.

    length: of the stretch that was selected. besides: start and end of it if it is one of ids.
    seconds: after which the search ends.

    The memory that this takes is a number for each symbol, however many units the model has. A text of over READ_ALONE
    symbols is cut into stretches that are read side by side.
    """
    if not units:
        return [], 0
    shares = _shares_on(engine, ids, units, threshold, time.monotonic() + seconds)
    is_in = np.zeros(len(ids) + 2, bool)
    is_in[1:-1] = shares >= LEAST_SHARE  # not where a share is NaN
    edges = np.flatnonzero(is_in[1:] != is_in[:-1]).reshape(-1, 2).tolist()  # starts and ends, alternately
    places = [
        (start, end, float(shares[start:end].mean()))
        for start, end in edges
        if (end <= besides[0] or start >= besides[1]) and 2 * (end - start) >= length
    ]
    places.sort(key=lambda place: (-place[2], place[0]))
    return places[:MOST_PLACES], int((~np.isnan(shares)).sum())


def _shares_on(
    engine: Engine, ids: Ids, units: list[tuple[int, int]], threshold: float, deadline: float
) -> NDArray[np.float64]:
    """Return which share of the units is on after each symbol, (N,); NaN where there was no time to read."""
    # 1) cut the text into stretches of equal length
    stretches = 1 if len(ids) <= READ_ALONE else STRETCHES
    steps = -(-len(ids) // stretches)
    begins = np.arange(stretches) * steps
    reader = Reader(engine, State.join([engine.zero_state(1), *_warm_up(engine, ids, begins[1:])]))
    # 2) read them side by side
    layers, numbers = np.array(units).T
    shares = np.full(len(ids), np.nan)
    for step in range(steps):
        if step % STEPS_BETWEEN_LOOKS == 0 and time.monotonic() > deadline:
            break
        places = begins + step
        reader.advance(ids[np.minimum(places, len(ids) - 1)])  # beyond the text something is read and not looked at
        on = engine.units_of(reader.state)[0][layers, :, numbers] > threshold  # (units, S)
        is_place = places < len(ids)
        shares[places[is_place]] = on.mean(axis=0)[is_place]
    return shares


def _warm_up(engine: Engine, ids: Ids, begins: Ids) -> list[State]:
    """Return the states before some places of a text, (N,), each read from WARM_UP_SYMBOLS before it, side by side."""
    if not len(begins):
        return []
    reader = Reader(engine, len(begins))
    reader.prefill(ids[begins - WARM_UP_SYMBOLS + np.arange(WARM_UP_SYMBOLS)[:, None]])
    return [reader.state]
