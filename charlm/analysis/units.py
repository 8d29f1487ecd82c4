"""Which units of a model track a feature that a person can see in a text.

Karpathy, Johnson and Li ("Visualizing and Understanding Recurrent Networks", 2015) found such units by looking: one
that counts along a line, one that is on inside quotes. Here every unit is tried on every `Feature`.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.analysis.inspection import read_units
from charlm.checks import check_whole
from charlm.errors import RequestError
from charlm.inference.engine import Array, Engine
from charlm.messages import counted
from charlm.vocab import Ids, Vocab

STRETCHES = 16  # of the text, read side by side; probes are fitted on half of them and tested on the others
WARM_UP_STEPS = 64  # symbols at the beginning of a stretch that are read and not counted
LONGEST_PROBED_STRETCH = 512  # counted symbols; with the warm-up, the states of an LSTM of 2 × 512 units take 75 MB
SHORTEST_PROBED_STRETCH = 64
SHORTEST_TEXT = STRETCHES * (WARM_UP_STEPS + SHORTEST_PROBED_STRETCH)  # characters
PROBED_AT_ONCE = 2**20  # activations; what is computed from so many takes some 25 MB, however many units a model has
SMALLEST_VARIANCE = 1e-12  # keeps divisions by a variance of 0 finite
FEWEST_EXAMPLES = 20  # places with a feature, and without it, in either half

Values = NDArray[np.float64]
Truths = NDArray[np.bool_]


@dataclass(frozen=True)
class Feature:
    """A property that every place of a text has.

    measure: returns its value at each of N symbols, (N,): 0 or 1, or if `counts`, a number.
    """

    name: str
    measure: Callable[[str], Values]
    counts: bool = False


@dataclass(frozen=True)
class TrackingUnit:
    """A unit, and how well it predicts a feature on stretches of the text that were not used for fitting.

    state: `hidden` or `cell`. layer, unit: from 0. rises: whether its activation increases with the feature.
    score: for a number, R², the share of its variance that a fitted line explains: 1 is all, 0 none. For 0 or 1, the
        area under the ROC curve, the probability that the unit ranks a place with the feature above one without it:
        1 is always, 0.5 is chance.
    """

    state: str
    layer: int
    unit: int
    rises: bool
    score: float


def find_units(engine: Engine, vocab: Vocab, text: str, best: int = 5) -> dict[str, list[TrackingUnit]]:
    """Return for each feature that occurs in the text, by name, the units that predict it best, the best first.

    text: one that the model was not trained on, of symbols that it knows. Of a long text, evenly spaced stretches are
    read. Raises RequestError if it is too short, or `best` is not a whole number from 1.
    """
    best = check_whole("best", best, 1)
    check_length(len(text), " that the model knows")
    stretch = len(text) // STRETCHES
    steps = np.arange(min(stretch, WARM_UP_STEPS + LONGEST_PROBED_STRETCH))
    places = steps[:, None] + np.arange(STRETCHES) * stretch  # (T, S)
    # 1) the features
    measured = [(feature, *_halves(feature.measure(text)[places[WARM_UP_STEPS:]].T)) for feature in FEATURES]
    probed = [
        (feature, fitted_values, tested_values)
        for feature, fitted_values, tested_values in measured
        if feature.counts or (_has_examples(fitted_values) and _has_examples(tested_values))
    ]
    # 2) what each unit tells of them
    told: dict[str, list[tuple[Truths, Values]]] = {feature.name: [] for feature, *_ in probed}
    states = _read_states(engine, vocab.encode(text)[places])
    for activations in _in_groups(states):
        fitted, tested = _halves(activations)
        ranks = _rank(tested)
        for feature, fitted_values, tested_values in probed:
            told[feature.name].append(
                _fit_line(fitted, fitted_values, tested, tested_values)
                if feature.counts
                else _separate(fitted, fitted_values, ranks, tested_values)
            )
    # 3) the best
    found = {}
    for name, groups in told.items():
        rises, scores = map(np.concatenate, zip(*groups, strict=True))
        ranking = np.argsort(-scores, kind="stable")[:best].tolist()
        found[name] = [
            TrackingUnit(*_locate(place, states), bool(rises[place]), float(scores[place])) for place in ranking
        ]
    return found


def check_length(chars: int, which: str = "") -> None:
    """Raise RequestError if a text of so many characters is too short for `find_units`.

    which: what the message says of the characters that were counted, such as ` that the model knows`.
    """
    if chars < SHORTEST_TEXT:
        raise RequestError(
            f"the text has {counted(chars, 'character')}{which}; finding units takes a text of at least "
            f"{SHORTEST_TEXT:,}"
        )


def _has_examples(values: Values) -> bool:
    """Return whether enough of the values (N,) are 1, and enough 0."""
    return bool(FEWEST_EXAMPLES <= values.sum() <= len(values) - FEWEST_EXAMPLES)


def _read_states(engine: Engine, ids: Ids) -> dict[str, Array]:
    """Read stretches, ids (T, S); return the hidden and the cell states, each (T', L, S, H), without the warm-up."""
    hidden, cell = read_units(engine, ids)
    states = {"hidden": hidden} if cell is None else {"hidden": hidden, "cell": cell}
    return {name: state[WARM_UP_STEPS:] for name, state in states.items()}


def _in_groups(states: dict[str, Array]) -> Iterator[Array]:
    """Yield the activations of all units in groups from one layer each, (K, S, T). states: each (T, L, S, H)."""
    for state in states.values():
        steps, layers, stretches, units = state.shape
        at_once = max(1, PROBED_AT_ONCE // (steps * stretches))
        for layer in range(layers):
            for first in range(0, units, at_once):
                yield np.ascontiguousarray(state[:, layer, :, first : first + at_once].transpose(2, 1, 0))


def _halves(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Split values (..., S, T) into those of one half of the stretches and of the other, (..., N) each."""
    first, second = np.array_split(values, 2, axis=-2)
    return first.reshape(*values.shape[:-2], -1), second.reshape(*values.shape[:-2], -1)


def _locate(place: int, states: dict[str, Array]) -> tuple[str, int, int]:
    """Return the state, layer and unit that comes in a place of all that `_in_groups` yields."""
    for name, state in states.items():
        _, layers, _, units = state.shape
        if place < layers * units:
            return name, *divmod(place, units)
        place -= layers * units
    raise IndexError(place)


def _fit_line(fitted: Array, fitted_values: Values, tested: Array, tested_values: Values) -> tuple[Truths, Values]:
    """Fit a line from each unit (U, N) to values (N,); return whether it rises, and its R² where it is tested, (U,)."""
    means, mean = fitted.mean(axis=1, keepdims=True), fitted_values.mean()
    centred = fitted - means
    covariances = centred @ (fitted_values - mean) / len(fitted_values)
    slopes = covariances / np.maximum((centred**2).mean(axis=1), SMALLEST_VARIANCE)
    errors = tested_values - mean - slopes[:, None] * (tested - means)
    scores: Values = 1 - (errors**2).mean(axis=1) / max(float(tested_values.var()), SMALLEST_VARIANCE)
    return slopes > 0, scores


def _separate(fitted: Array, fitted_values: Values, ranks: Values, tested_values: Values) -> tuple[Truths, Values]:
    """Return whether units (U, N) are higher where values (N,) are 1, and their area under the ROC curve, (U,).

    ranks: of the units at the tested places, (U, N), where the area is measured.
    """
    has = fitted_values == 1
    rises = fitted[:, has].mean(axis=1) > fitted[:, ~has].mean(axis=1)
    count = tested_values.sum()
    # the sum of the ranks counts the pairs that are ranked rightly (Mann and Whitney, 1947)
    areas = (ranks @ tested_values - count * (count - 1) / 2) / (count * (len(tested_values) - count))
    return rises, np.where(rises, areas, 1 - areas)


def _rank(units: Array) -> Values:
    """Return the rank of each value within its unit, from 0, (U, N); equal values are ranked in random order."""
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
    """Return a measure that counts the symbols since the last one that meets a condition, which itself counts 0."""

    def measure(text: str) -> Values:
        places = np.arange(len(text))
        starts = np.array([is_start(symbol) for symbol in text], bool)
        return (places - np.maximum.accumulate(np.where(starts, places, 0))).astype(np.float64)

    return measure


# Each repetition that may lack its end is bounded: searched to the end of the text from each beginning, `/* /* /* …`
# would take time in the square of its length, in which `re` lets no other thread run.
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
    Feature("in a comment", _mark(r"#[^\n]*|//[^\n]*|/\*.{0,2000}?\*/")),
)
