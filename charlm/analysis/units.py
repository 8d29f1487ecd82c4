"""Which units of a model keep track of something that a person can see in a text.

Karpathy, Johnson and Li ("Visualizing and Understanding Recurrent Networks", 2015) found such units by looking: one
that counts along a line, one that is on inside quotes. Here every unit is tried on every `Feature`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.analysis.inspection import read_units
from charlm.errors import RequestError
from charlm.inference.engine import Array, Engine
from charlm.vocab import Ids, Vocab

STRETCHES = 16  # of the text, read side by side: half of them show how a unit tells a feature, the others how well
WARM_UP = 64  # symbols at the beginning of a stretch that are read and not counted
LONGEST_STRETCH = 512  # symbols that count; with the warm-up, a model of 2 × 512 units takes some 80 MB
SHORTEST_STRETCH = 64
TINY = 1e-12
FEWEST = 20  # places with a feature, and without it, among those found out with and among those tested

Values = NDArray[np.float64]
Truths = NDArray[np.bool_]


@dataclass(frozen=True)
class Feature:
    """Something that a person can see at each place of a text.

    measure: returns its value at each of N symbols, (N,): 0 or 1, or if `counts`, a number.
    """

    name: str
    measure: Callable[[str], Values]
    counts: bool = False


@dataclass(frozen=True)
class TrackingUnit:
    """A unit, and how well it tells a feature, measured on stretches of the text that were not used to find out how.

    state: `hidden` or `cell`. layer, unit: from 0. rises: whether it is higher where the feature is, or is larger.
    score: of a number, R², the share of its variance that a line explains: 1 is all, 0 no more than the mean. Else the
        area under the ROC curve, how often the unit is right about which of two places has the feature: 1 is always,
        0.5 no more than a coin.
    """

    state: str
    layer: int
    unit: int
    rises: bool
    score: float


def find_units(engine: Engine, vocab: Vocab, text: str, best: int = 5) -> dict[str, list[TrackingUnit]]:
    """Return for each feature that the text has, by name, the units that tell it best, the best first.

    text: one that the model was not trained on, of symbols that it knows. Only as much of it is read as is needed, in
    stretches from all over. Raises RequestError if it is too short.
    """
    stretch = len(text) // STRETCHES
    if stretch < WARM_UP + SHORTEST_STRETCH:
        raise RequestError(
            f"the text has {len(text):,} characters that the model knows; to search its units takes at least "
            f"{STRETCHES * (WARM_UP + SHORTEST_STRETCH):,}"
        )
    places = np.arange(min(stretch, WARM_UP + LONGEST_STRETCH))[:, None] + np.arange(STRETCHES) * stretch  # (T, S)
    states = _read(engine, vocab.encode(text)[places])
    shown, tested = _halves(np.concatenate(list(states.values())))
    ranks = _rank(tested)
    found = {}
    for feature in FEATURES:
        shown_values, tested_values = _halves(feature.measure(text)[places[WARM_UP:]].T)
        if feature.counts:
            rises, scores = _fit(shown, shown_values, tested, tested_values)
        elif all(FEWEST <= values.sum() <= len(values) - FEWEST for values in (shown_values, tested_values)):
            rises, scores = _tell_apart(shown, shown_values, ranks, tested_values)
        else:
            continue
        ranking = np.argsort(-scores, kind="stable")[:best].tolist()
        found[feature.name] = [
            TrackingUnit(*_find(unit, states, engine.units), bool(rises[unit]), float(scores[unit])) for unit in ranking
        ]
    return found


def _read(engine: Engine, ids: Ids) -> dict[str, Array]:
    """Read stretches, ids (T, S); return each kind of state as (L·H, S, T), without the warm-up."""
    _, hidden, cell = read_units(engine, ids)
    states = {"hidden": hidden} if cell is None else {"hidden": hidden, "cell": cell}
    return {
        name: state[WARM_UP:].transpose(1, 3, 2, 0).reshape(-1, STRETCHES, len(ids) - WARM_UP)
        for name, state in states.items()
    }


def _halves(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Split what lies at places (..., S, T) into two halves of the stretches, (..., N) each."""
    first, second = np.array_split(values, 2, axis=-2)
    return first.reshape(*values.shape[:-2], -1), second.reshape(*values.shape[:-2], -1)


def _find(place: int, states: dict[str, Array], units: int) -> tuple[str, int, int]:
    """Return the state, layer and unit at a place in the states one after another."""
    for name, state in states.items():
        if place < len(state):
            return name, *divmod(place, units)
        place -= len(state)
    raise IndexError(place)


def _fit(shown: Array, shown_values: Values, tested: Array, tested_values: Values) -> tuple[Truths, Values]:
    """Fit a line from each unit (U, N) to a number (N,); return whether it rises, and its R² on other places, (U,)."""
    means, mean = shown.mean(axis=1, keepdims=True), shown_values.mean()
    centred = shown - means
    covariances = centred @ (shown_values - mean) / len(shown_values)
    slopes = covariances / np.maximum((centred**2).mean(axis=1), TINY)
    errors = tested_values - mean - slopes[:, None] * (tested - means)
    scores: Values = 1 - (errors**2).mean(axis=1) / max(float(tested_values.var()), TINY)
    return slopes > 0, scores


def _tell_apart(shown: Array, shown_values: Values, ranks: Values, tested_values: Values) -> tuple[Truths, Values]:
    """Return whether units (U, N) are higher where values (N,) are 1, and the area under the ROC curve elsewhere, (U,).

    ranks: of the units at the other places, (U, N).
    """
    has = shown_values == 1
    rises = shown[:, has].mean(axis=1) > shown[:, ~has].mean(axis=1)
    count = tested_values.sum()
    # the sum of ranks counts the pairs in the right order (Mann and Whitney, 1947)
    areas = (ranks @ tested_values - count * (count - 1) / 2) / (count * (len(tested_values) - count))
    return rises, np.where(rises, areas, 1 - areas)


def _rank(units: Array) -> Values:
    """Return the place of each value among those of its unit, from 0, (U, N); equal values in random order."""
    shuffled = np.random.default_rng(0).permutation(units.shape[1])
    order = shuffled[np.argsort(units[:, shuffled], axis=1, kind="stable")]
    ranks = np.empty(units.shape)
    np.put_along_axis(ranks, order, np.arange(units.shape[1], dtype=np.float64)[None], axis=1)
    return ranks


def _mark(pattern: str) -> Callable[[str], Values]:
    """Return a measure that is 1 at each symbol of a match."""
    compiled = re.compile(pattern, re.MULTILINE | re.DOTALL)

    def measure(text: str) -> Values:
        values = np.zeros(len(text))
        for match in compiled.finditer(text):
            values[match.start() : match.end()] = 1
        return values

    return measure


def _count_since(is_start: Callable[[str], bool]) -> Callable[[str], Values]:
    """Return a measure that counts symbols since the last one that fulfils a condition, which itself counts 0."""

    def measure(text: str) -> Values:
        places = np.arange(len(text))
        starts = np.array([is_start(symbol) for symbol in text], bool)
        return (places - np.maximum.accumulate(np.where(starts, places, 0))).astype(np.float64)

    return measure


FEATURES = (
    Feature("position in the line", _count_since(lambda symbol: symbol == "\n"), counts=True),
    Feature("position in the word", _count_since(lambda symbol: not symbol.isalpha()), counts=True),
    Feature("end of a line", _mark(r"\n")),
    Feature("empty line", _mark(r"(?<=\n)\n")),
    Feature("first word of a line", _mark(r"^[^\W\d_]+")),
    Feature("in a speaker's name", _mark(r"(?:(?<=\n\n)|\A)[^\n:]{1,40}(?=:\n)")),
    Feature("in capitals", _mark(r"[A-ZÀ-ÖØ-Þ]{2,}")),
    Feature("capital letter", _mark(r"[A-ZÀ-ÖØ-Þ]")),
    Feature("vowel", _mark(r"[aeiouyAEIOUY]")),
    Feature("space", _mark(r" ")),
    Feature("punctuation", _mark(r"[^\w\s]")),
    Feature("digit", _mark(r"\d")),
    Feature("after the end of a sentence", _mark(r"(?<=[.!?])\s+")),
    Feature("inside quotes", _mark(r"(?<=\")[^\"\n]{1,400}(?=\")|(?<=“)[^”]{1,2000}(?=”)")),
    Feature(
        "inside brackets", _mark(r"(?<=\()[^()]{1,400}(?=\))|(?<=\[)[^\[\]]{1,400}(?=\])|(?<=\{)[^{}]{1,400}(?=\})")
    ),
    Feature("indentation", _mark(r"^[ \t]+")),
    Feature("in a comment", _mark(r"#[^\n]*|//[^\n]*|/\*.*?\*/")),
)
