"""The effective context of a model: what a changed symbol does to later predictions."""

import sys

import numpy as np
from numpy.typing import NDArray

from charlm.analysis.inspection import read_around
from charlm.checks import check_whole
from charlm.errors import RequestError
from charlm.inference.engine import Engine, Reader, State
from charlm.inference.sampling import cut, log_softmax
from charlm.messages import counted
from charlm.vocab import Ids

Curve = NDArray[np.float64]

LONGEST_DISTANCE = 256  # symbols
CHANGES = 64  # places of the text where a symbol is changed
WARM_UP_SYMBOLS = 64  # read before the first change, so that the state no longer depends on beginning at zero
DISTANCES_PER_PASS = 32  # distances for which predictions are compared at a time
# Nats below which the curve is noise. The divergence of logits that differ by rounding is half the variance of the
# differences: up to 5e-5 in a logit against double precision, that is 1e-12 to 5e-12 on average.
ROUNDING = 1e-10
FORGOTTEN = 0.01  # nats below which a change makes no difference that a reader would see


def measure_effective_context(
    engine: Engine, ids: Ids, longest: int = LONGEST_DISTANCE, places: int = CHANGES, seed: int = 0
) -> Curve:
    """Return how much a changed symbol alters the prediction d symbols later, in nats, for d = 1 … longest, (longest,).

    The curve is the mean, over some places of the text, ids (T,), of the Kullback-Leibler divergence of the prediction
    after the changed text from that after the true one; d = 1 is the prediction right after the change. The new symbols
    are drawn from the text. Values below ROUNDING are noise. Of a long text, only the surroundings of the places are
    read. Predictions are compared in passes of at most `sampling.MOST_LOGITS` logits, or one prediction.

    Raises RequestError if the text is too short, or of one symbol only, or for a number out of bounds.
    """
    longest, places = check_whole("longest", longest, 1, sys.maxsize), check_whole("places", places, 1)
    random = np.random.default_rng(check_whole("seed", seed, 0))
    around = WARM_UP_SYMBOLS + longest
    if len(ids) < around + places:
        raise RequestError(
            f"the text has {counted(len(ids), 'character')} that the model knows; to look {longest:,} back takes at "
            f"least {around + places:,}"
        )
    # 1) choose the places, and the symbols that are put there
    changed_at = np.linspace(WARM_UP_SYMBOLS, len(ids) - longest, places).astype(np.int64)
    changed, curve = _draw_others(ids, changed_at, random), np.zeros(longest)
    # 2) read up to each place: what lies around it, or if that would overlap with others, the whole text once
    read_once = None if len(ids) > places * around else _read_once(engine, ids, changed_at)
    for group in cut(places, engine.symbols):
        if read_once is None:
            start = read_around(engine, ids, changed_at[group], WARM_UP_SYMBOLS)
        else:
            start = read_once.take(range(group.start, group.stop))
        # 3) from there read the true text and the changed one side by side, and compare the predictions
        true, altered = Reader(engine, start), Reader(engine, start)
        for part in cut(longest, true.texts * engine.symbols):
            for first in range(part.start, part.stop, DISTANCES_PER_PASS):
                distances = np.arange(first, min(first + DISTANCES_PER_PASS, part.stop))
                read = ids[changed_at[group] + distances[:, None]]  # (distances, places)
                expected = log_softmax(true.read(read))
                if first == 0:
                    read[0] = changed[group]
                found = log_softmax(altered.read(read))
                curve[distances] += (np.exp(found) * (found - expected)).sum(axis=-1).sum(axis=1) / places
    return np.maximum(curve, 0)  # rounding can make a divergence about -1e-16


def context_length(curve: Curve, threshold: float = FORGOTTEN) -> int:
    """Return the largest distance at which the curve is above a threshold in nats; 0 if it is nowhere."""
    above = np.flatnonzero(curve > threshold)
    return int(above[-1]) + 1 if len(above) else 0


def _draw_others(ids: Ids, places: Ids, random: np.random.Generator) -> Ids:
    """Draw for each place another symbol of the text than the one there."""
    symbols = np.unique(ids)
    if len(symbols) < 2:
        raise RequestError("the text has only one distinct character, so none can be replaced by another")
    drawn = symbols[random.integers(len(symbols) - 1, size=len(places))]
    return np.where(drawn == ids[places], symbols[-1], drawn)  # all others are equally likely


def _read_once(engine: Engine, ids: Ids, places: Ids) -> State:
    """Return the states before places of a text, ids (T,), read from its beginning. The places ascend, from 1."""
    reader, states, last = Reader(engine), [], 0
    for place in places.tolist():
        if place > last:
            reader.prefill(ids[last:place, None])
        states.append(reader.state)
        last = place
    return State.join(states)
