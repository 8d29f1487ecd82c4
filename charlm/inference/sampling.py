"""From logits to the next symbol: sampling settings, drawing for the streams of a batch, surprisals."""

import math
import secrets
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from charlm.checks import check_number, check_whole
from charlm.errors import ModelFileError
from charlm.inference import DEFAULT_TEMPERATURE
from charlm.vocab import Ids

ANY_COUNT = sys.maxsize  # what top_k = 0 stands for: more symbols than any vocabulary has
LOWEST_TEMPERATURE = 1e-250  # lower ones are raised to this, so that no logit divided by one overflows
LARGEST_EXPONENT = 400.0  # rows whose highest logit exceeds it, or is below its negative, are shifted so that it is 0
RANDOM_NUMBERS_PER_CALL = 64
BELOW_ONE = 1 - 2**-52  # a random number times this, times a sum, is below the sum even when rounded

# Logits (symbols read, or streams, times symbols of the vocabulary) that any operation holds at a time, in each of some
# arrays: 4 MB in float32. Texts are read, and draws made, in parts of so many; a part is at least one row.
MOST_LOGITS = 2**20
FIRST_NUCLEUS, NUCLEUS_GROWTH = 128, 4  # likeliest symbols that top-p sorts first, and by which factor it takes more

Probabilities = NDArray[np.float64]
LogProbabilities = NDArray[np.float64]
Surprisals = NDArray[np.float64]  # -log p, in nats


@dataclass(frozen=True, init=False)
class SamplingSettings:
    """How the next symbol is drawn from the logits, checked when built.

    temperature: divides the logits; 0 takes the likeliest symbol (the first of equals).
    top_k: only the k likeliest symbols can be drawn; 0, or the vocabulary's size and more, means all.
    top_p: of those, only the smallest set of the likeliest whose probabilities reach top_p
        (Holtzman et al., "The Curious Case of Neural Text Degeneration", 2020); 1 means all, 0 the likeliest.
    seed: a whole number from 0, from which the random numbers follow. Built with None, it is drawn.
    """

    temperature: float
    top_k: int
    top_p: float
    seed: int

    def __init__(
        self, temperature: float = DEFAULT_TEMPERATURE, top_k: int = 0, top_p: float = 1.0, seed: int | None = None
    ) -> None:
        """Raises RequestError for a value out of bounds."""
        object.__setattr__(self, "temperature", check_number("temperature", temperature, 0, math.inf))
        object.__setattr__(self, "top_k", check_whole("top_k", top_k, 0))
        object.__setattr__(self, "top_p", check_number("top_p", top_p, 0, 1))
        object.__setattr__(self, "seed", secrets.randbits(32) if seed is None else check_whole("seed", seed, 0))

    @property
    def is_limited(self) -> bool:
        """Whether top_k or top_p may exclude symbols."""
        return self.top_k > 0 or self.top_p < 1


class Sampler:
    """The settings of one stream, and the random numbers that follow from its seed: one for each draw."""

    def __init__(self, settings: SamplingSettings) -> None:
        self.settings = settings
        self.randoms = _random_numbers(settings.seed)

    def skip(self, draws: int) -> None:
        """Skip the random numbers of that many draws."""
        for _ in islice(self.randoms, draws):
            pass


class BatchSampler:
    """Draws for a batch of S streams; each gets the ids that its own sampler would draw.

    scales: 1 / temperature, (S,); 0 takes the likeliest symbol. top_k, top_p: (S,), as in SamplingSettings, but
        ANY_COUNT for all symbols.
    """

    def __init__(self, samplers: Sequence[Sampler]) -> None:
        self._samplers = samplers
        self._randoms = [sampler.randoms for sampler in samplers]
        settings = [sampler.settings for sampler in samplers]
        self.scales = np.array([one.temperature and 1 / max(one.temperature, LOWEST_TEMPERATURE) for one in settings])
        self.top_k = np.array([min(one.top_k or ANY_COUNT, ANY_COUNT) for one in settings], np.int64)
        self.top_p = np.array([one.top_p for one in settings], np.float64)
        self._greedy = np.flatnonzero(self.scales == 0).tolist()
        self._limited = [row for row, one in enumerate(settings) if one.is_limited]

    def part(self, rows: slice) -> "BatchSampler":
        """Return what draws for some of the streams."""
        return self if len(self._samplers[rows]) == len(self._samplers) else BatchSampler(self._samplers[rows])

    def random_numbers(self, draws: int) -> NDArray[np.float64]:
        """Return the next random numbers of each stream, (N, S)."""
        numbers = [list(islice(randoms, draws)) for randoms in self._randoms]
        return np.array(numbers, np.float64).reshape(-1, draws).T.copy()

    def draw(self, logits: NDArray[np.float32]) -> list[int]:
        """Return an id for each row of logits (S, V). Raises ModelFileError if they are not finite.

        Rows of over MOST_LOGITS logits are drawn from one part after another.
        """
        if logits.size > MOST_LOGITS and len(logits) > 1:
            return [id for rows in cut(*logits.shape) for id in self.part(rows).draw(logits[rows])]
        weights = self.weights(logits)
        cumulative = np.add.accumulate(weights, 1, None, weights)
        targets = np.array([*map(next, self._randoms)]) * BELOW_ONE * cumulative[:, -1]
        ids: list[int] = (cumulative > targets[:, None]).argmax(axis=1).tolist()  # the first that exceeds its target
        for row in self._greedy:
            ids[row] = int(logits[row].argmax())
        return ids

    def weights(self, logits: NDArray[np.float32]) -> Probabilities:
        """Return unnormalised probabilities (S, V) for logits (S, V)."""
        scaled = logits.astype(np.float64)
        scaled *= np.where(self.scales, self.scales, 1)[:, None]  # at temperature 0 the weights are not used
        if not np.isfinite(scaled).all():
            check_finite(math.nan)
        for row, top in zip(scaled, scaled.max(axis=1).tolist(), strict=True):
            if not -LARGEST_EXPONENT < top < LARGEST_EXPONENT:
                row -= top
        weights: Probabilities = np.exp(scaled, scaled)
        for row in self._limited:
            kept = _kept(weights[row], int(self.top_k[row]), float(self.top_p[row]))
            left = weights[row, kept]
            weights[row] = 0
            weights[row, kept] = left
        return weights


def cut(rows: int, logits_per_row: int, most: int | None = None) -> Iterator[slice]:
    """Yield slices of so many rows, each of which has at most `most` logits, by default MOST_LOGITS, or one row."""
    size = max(1, (MOST_LOGITS if most is None else most) // max(1, logits_per_row))
    return (slice(first, min(first + size, rows)) for first in range(0, rows, size))


def _kept(weights: Probabilities, top_k: int, top_p: float) -> Ids:
    """Return the ids that top-k and top-p leave of weights (V,), of equals the first."""
    kept = _largest(weights, top_k)
    if top_p >= 1:
        return kept
    total = np.cumsum(weights[kept])[-1]  # one after another, as the kernels do; sum() pairs them
    count = FIRST_NUCLEUS
    while True:
        likeliest = kept[_largest(weights[kept], count)]
        ranked = likeliest[np.argsort(-weights[likeliest], kind="stable")]
        reached = np.cumsum(weights[ranked]) >= top_p * total
        if reached[-1] or len(ranked) == len(kept):
            return ranked[: int(reached.argmax()) + 1 if reached.any() else len(ranked)]
        count *= NUCLEUS_GROWTH


def _largest(weights: Probabilities, count: int) -> Ids:
    """Return the places of the largest of weights (N,), the first of equals, in ascending order."""
    if count >= len(weights):
        return np.arange(len(weights))
    smallest = np.partition(weights, -count)[-count]
    larger, equal = np.flatnonzero(weights > smallest), np.flatnonzero(weights == smallest)
    return np.sort(np.concatenate([larger, equal[: count - len(larger)]]))


def _random_numbers(seed: int) -> Iterator[float]:
    """Yield random numbers from 0 to below 1, drawn many at a time because a call of numpy costs more than a number."""
    random = np.random.Generator(np.random.PCG64(seed)).random
    while True:
        yield from random(RANDOM_NUMBERS_PER_CALL).tolist()


def random_number(seed: int, place: int) -> float:
    """Return the random number with which a Sampler of this seed draws the symbol at `place`, which counts from 0."""
    return float(np.random.Generator(np.random.PCG64(seed).advance(place)).random())


def log_softmax(logits: NDArray[np.float32]) -> LogProbabilities:
    """Return the logarithms of the probabilities (..., V) for logits (..., V).

    Raises ModelFileError if the logits are not finite.
    """
    shifted = logits.astype(np.float64)
    shifted -= _highest(logits)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def surprisals_of(ids: Ids, logits: NDArray[np.float32]) -> Surprisals:
    """Return the surprisals (...) in nats of ids (...), given the logits (..., V) that predicted them.

    That is -log_softmax(logits)[ids], to about 1e-6, in a fraction of the time.
    Raises ModelFileError if the logits are not finite.
    """
    highest = _highest(logits)
    below = logits - highest
    chosen = np.take_along_axis(below, ids[..., None], axis=-1)[..., 0]
    surprisals: Surprisals = np.log(np.exp(below, below).sum(axis=-1), dtype=np.float64) - chosen
    return surprisals


def _highest(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    highest: NDArray[np.float32] = logits.max(axis=-1, keepdims=True)
    if not np.isfinite(highest).all():
        check_finite(math.nan)
    return highest


def check_finite(logit: float) -> float:
    """Return a logit if it is finite. Raises ModelFileError if not."""
    if not math.isfinite(logit):
        raise ModelFileError(
            "the model's outputs are not finite numbers: its weights are too large, as after a training that "
            "diverged; use another model"
        )
    return logit
