"""From logits to the next symbol."""

import math
import secrets
import sys
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from charlm.checks import check_number, check_whole
from charlm.errors import ModelFileError
from charlm.vocab import Ids

# What generate, stream, the commands and the page take where nothing is said.
DEFAULT_LENGTH = 500
DEFAULT_TEMPERATURE = 0.8


MANY = sys.maxsize  # symbols, more than any vocabulary has
COLDEST = 1e-250  # a temperature below is taken as this one: no quotient by it overflows
LARGEST_EXPONENT = 400.0  # of e; rows of logits that go beyond, or stay below its negative, are shifted to 0 first
RANDOMS_AT_ONCE = 64
BELOW_ONE = 1 - 2**-52  # a random number times this, times a sum, is below the sum even when rounded

Probabilities = NDArray[np.float64]


class Sampler:
    """Draws ids from logits, by temperature, top-k and top-p, from one seeded stream of random numbers.

    temperature: divides the logits; 0 takes the likeliest symbol (the first of equals).
    top_k: only the k likeliest symbols can be drawn; 0, or the vocabulary's size and more, means all.
    top_p: of those, only the smallest set of the likeliest whose probabilities reach top_p
        (Holtzman et al., "The Curious Case of Neural Text Degeneration", 2020); 1 means all, 0 the likeliest.
    seed: a whole number from 0; None draws one, which `seed` then tells.

    Raises RequestError for a value outside these bounds.
    """

    def __init__(
        self, temperature: float = DEFAULT_TEMPERATURE, top_k: int = 0, top_p: float = 1.0, seed: int | None = None
    ) -> None:
        self.temperature = check_number("temperature", temperature, 0, math.inf)
        self.top_k = check_whole("top_k", top_k, 0)
        self.top_p = check_number("top_p", top_p, 0, 1)
        self.seed = secrets.randbits(32) if seed is None else check_whole("seed", seed, 0)
        self.randoms = _randoms(self.seed)

    def skip(self, draws: int) -> None:
        """Go on as after that many draws, without making them."""
        for _ in islice(self.randoms, draws):
            pass

    def draw(self, logits: NDArray[np.float32]) -> int:
        """Return an id drawn from logits (V,). Every draw uses one number of the random stream."""
        return Samplers([self]).draw(logits[None])[0]

    def probabilities(self, logits: NDArray[np.float32]) -> Probabilities:
        """Return the distribution (V,) that `draw` follows for logits (V,) at a temperature above 0."""
        weights = Samplers([self]).weights(logits[None])[0]
        probabilities: Probabilities = weights / weights.sum()
        return probabilities


class Samplers:
    """The samplers of S texts that are written side by side; each draws what it would draw alone."""

    def __init__(self, samplers: Sequence[Sampler]) -> None:
        self._randoms = [sampler.randoms for sampler in samplers]
        self._greedy = [place for place, sampler in enumerate(samplers) if sampler.temperature == 0]
        self._scales = np.array([[1 / max(sampler.temperature, COLDEST)] for sampler in samplers])  # (S, 1)
        limited = [place for place, sampler in enumerate(samplers) if sampler.top_k > 0 or sampler.top_p < 1]
        self._limited = np.array(limited, np.int64)
        self._top_k = np.array([[min(samplers[place].top_k or MANY, MANY)] for place in limited])
        self._top_p = np.array([[samplers[place].top_p] for place in limited])

    def draw(self, logits: NDArray[np.float32]) -> list[int]:
        """Return an id for each row of logits (S, V). Raises ModelFileError if they are no finite numbers."""
        weights = self.weights(logits)
        cumulative = np.add.accumulate(weights, 1, None, weights)
        if len(cumulative) == 1:  # the same, in less time for one row and in more for many
            ids = [int(cumulative[0].searchsorted(next(self._randoms[0]) * BELOW_ONE * cumulative.item(-1), "right"))]
        else:
            targets = np.array([*map(next, self._randoms)]) * BELOW_ONE * cumulative[:, -1]
            ids = (cumulative > targets[:, None]).argmax(axis=1).tolist()  # the first
        for place in self._greedy:
            ids[place] = int(logits[place].argmax())
        return ids

    def weights(self, logits: NDArray[np.float32]) -> Probabilities:
        """Return the probabilities of the symbols for logits (S, V), each row times some number."""
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


def _randoms(seed: int) -> Iterator[float]:
    """Yield the numbers of a random stream, from 0 to below 1; taking many at once costs less."""
    random = np.random.Generator(np.random.PCG64(seed)).random
    while True:
        yield from random(RANDOMS_AT_ONCE).tolist()


def log_softmax(logits: NDArray[np.float32]) -> Probabilities:
    """Return the logarithms of the probabilities (..., V) for logits (..., V).

    Raises ModelFileError if they are no finite numbers.
    """
    shifted = logits.astype(np.float64)
    shifted -= _highest(logits)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def surprisals_of(ids: Ids, logits: NDArray[np.float32]) -> Probabilities:
    """Return how surprising each of ids (...) is, in nats, (...), after which logits (..., V) were had.

    That is the negative of what `log_softmax` gives for them, to some 1e-6, in a fraction of the time.
    Raises ModelFileError if the logits are no finite numbers.
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
    """Return a logit if it is a finite number. Raises ModelFileError if not."""
    if not math.isfinite(logit):
        raise ModelFileError(
            "the model's outputs are no finite numbers: its weights are too large, as after a training that "
            "diverged; use another model"
        )
    return logit
