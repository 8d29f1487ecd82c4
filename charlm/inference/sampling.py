"""From logits to the next symbol: sampling settings, drawing for one stream and for a batch, surprisals."""

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
from charlm.vocab import Ids

# The defaults of generate, stream, the commands and the page.
DEFAULT_LENGTH = 500
DEFAULT_TEMPERATURE = 0.8


ANY_COUNT = sys.maxsize  # what top_k = 0 stands for: more symbols than any vocabulary has
LOWEST_TEMPERATURE = 1e-250  # lower ones are raised to this, so that no logit divided by one overflows
LARGEST_EXPONENT = 400.0  # rows whose highest logit exceeds it, or is below its negative, are shifted so that it is 0
RANDOM_NUMBERS_PER_CALL = 64
BELOW_ONE = 1 - 2**-52  # a random number times this, times a sum, is below the sum even when rounded

Probabilities = NDArray[np.float64]


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
    """Draws the ids of one stream: its settings and the random numbers that follow from its seed."""

    def __init__(self, settings: SamplingSettings) -> None:
        self.settings = settings
        self.randoms = _random_numbers(settings.seed)

    def skip(self, draws: int) -> None:
        """Skip the random numbers of that many draws."""
        for _ in islice(self.randoms, draws):
            pass

    def draw(self, logits: NDArray[np.float32]) -> int:
        """Return an id drawn from logits (V,). Every draw uses one random number."""
        return BatchSampler([self]).draw(logits[None])[0]

    def probabilities(self, logits: NDArray[np.float32]) -> Probabilities:
        """Return the distribution (V,) that `draw` follows for logits (V,) at a temperature above 0."""
        weights = BatchSampler([self]).weights(logits[None])[0]
        probabilities: Probabilities = weights / weights.sum()
        return probabilities


class BatchSampler:
    """Draws for a batch of S streams; each gets the ids that its own sampler would draw."""

    def __init__(self, samplers: Sequence[Sampler]) -> None:
        self._randoms = [sampler.randoms for sampler in samplers]
        settings = [sampler.settings for sampler in samplers]
        self._greedy = [row for row, one in enumerate(settings) if one.temperature == 0]
        self._scales = np.array([[1 / max(one.temperature, LOWEST_TEMPERATURE)] for one in settings])  # (S, 1)
        limited = [row for row, one in enumerate(settings) if one.is_limited]
        self._limited = np.array(limited, np.int64)
        self._top_k = np.array([[min(settings[row].top_k or ANY_COUNT, ANY_COUNT)] for row in limited])
        self._top_p = np.array([[settings[row].top_p] for row in limited])

    def draw(self, logits: NDArray[np.float32]) -> list[int]:
        """Return an id for each row of logits (S, V). Raises ModelFileError if they are not finite."""
        weights = self.weights(logits)
        cumulative = np.add.accumulate(weights, 1, None, weights)
        if len(cumulative) == 1:  # the same result; faster for one row and slower for many
            ids = [int(cumulative[0].searchsorted(next(self._randoms[0]) * BELOW_ONE * cumulative.item(-1), "right"))]
        else:
            targets = np.array([*map(next, self._randoms)]) * BELOW_ONE * cumulative[:, -1]
            ids = (cumulative > targets[:, None]).argmax(axis=1).tolist()  # the first that exceeds its target
        for row in self._greedy:
            ids[row] = int(logits[row].argmax())
        return ids

    def weights(self, logits: NDArray[np.float32]) -> Probabilities:
        """Return unnormalised probabilities (S, V) for logits (S, V)."""
        scaled = logits.astype(np.float64)
        scaled *= self._scales
        lowest, highest = scaled.item(scaled.argmin()), scaled.item(scaled.argmax())
        if not (lowest > -LARGEST_EXPONENT and highest < LARGEST_EXPONENT):  # NaN goes this way too
            for row, top in zip(scaled, scaled.max(axis=1).tolist(), strict=True):
                if not -LARGEST_EXPONENT < top < LARGEST_EXPONENT:
                    row -= check_finite(top)
        weights: Probabilities = np.exp(scaled, scaled)
        if len(self._limited):
            weights[self._limited] = self._limit(weights[self._limited])
        return weights

    def _limit(self, weights: Probabilities) -> Probabilities:
        """Set to 0 what top-k and top-p exclude."""
        order = np.argsort(-weights, axis=1, kind="stable")
        ranked = np.take_along_axis(weights, order, 1)
        ranked[np.arange(ranked.shape[1]) >= self._top_k] = 0
        cumulative = np.cumsum(ranked, axis=1)
        reached = (cumulative >= self._top_p * cumulative[:, -1:]) & (self._top_p < 1)
        ranked[:, 1:][reached[:, :-1]] = 0
        limited = np.empty_like(weights)
        np.put_along_axis(limited, order, ranked, 1)
        return limited


def _random_numbers(seed: int) -> Iterator[float]:
    """Yield random numbers from 0 to below 1, drawn many at a time because a call of numpy costs more than a number."""
    random = np.random.Generator(np.random.PCG64(seed)).random
    while True:
        yield from random(RANDOM_NUMBERS_PER_CALL).tolist()


def log_softmax(logits: NDArray[np.float32]) -> Probabilities:
    """Return the logarithms of the probabilities (..., V) for logits (..., V).

    Raises ModelFileError if the logits are not finite.
    """
    shifted = logits.astype(np.float64)
    shifted -= _highest(logits)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def surprisals_of(ids: Ids, logits: NDArray[np.float32]) -> Probabilities:
    """Return the surprisals (...) in nats of ids (...), given the logits (..., V) that predicted them.

    That is -log_softmax(logits)[ids], to about 1e-6, in a fraction of the time.
    Raises ModelFileError if the logits are not finite.
    """
    highest = _highest(logits)
    below = logits - highest
    chosen = np.take_along_axis(below, ids[..., None], axis=-1)[..., 0]
    surprisals: Probabilities = np.log(np.exp(below, below).sum(axis=-1), dtype=np.float64) - chosen
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
