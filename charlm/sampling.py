"""From logits to the next symbol."""

import math
import secrets

import numpy as np
from numpy.typing import NDArray

from charlm.errors import RequestError

# What generate, stream, the commands and the page take where nothing is said.
DEFAULT_LENGTH = 500
DEFAULT_TEMPERATURE = 0.8


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
        self._random = np.random.Generator(np.random.PCG64(self.seed))

    def draw(self, logits: NDArray[np.float32]) -> int:
        """Return an id drawn from logits (V,). Every draw uses one number of the random stream."""
        u = self._random.random()
        if self.temperature == 0:
            return int(np.argmax(logits))
        cumulative = np.cumsum(self.probabilities(logits))
        return int(np.searchsorted(cumulative, u * cumulative[-1], side="right"))

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the distribution (V,) that `draw` follows for logits (V,) at a temperature above 0."""
        shifted = logits.astype(np.float64) - logits.max()
        # A tiny temperature may divide to -inf, which exp turns into the 0 that is meant.
        with np.errstate(over="ignore"):
            weights = np.exp(shifted / self.temperature)
        if 0 < self.top_k < len(weights):
            weights[np.argsort(-shifted, kind="stable")[self.top_k :]] = 0
        if self.top_p < 1:
            order = np.argsort(-weights, kind="stable")
            cumulative = np.cumsum(weights[order])
            kept = 1 + int(np.searchsorted(cumulative, self.top_p * cumulative[-1], side="left"))
            weights[order[kept:]] = 0
        probabilities: NDArray[np.float64] = weights / weights.sum()
        return probabilities


def check_whole(name: str, value: object, low: int, high: int | None = None) -> int:
    """Return `value` if it is a whole number from `low` (to `high`). Raises RequestError if not."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON and sliders send 7.0 for 7
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise RequestError(f"{name} is {value!r}; it must be a whole number")
    number = int(value)
    if number < low or (high is not None and number > high):
        bounds = f"from {low}" if high is None else f"from {low} to {high:,}"
        shown = number if abs(number) < 1e18 else "a huge number"  # Python refuses to print thousands of digits
        raise RequestError(f"{name} is {shown}; it must be {bounds}")
    return number


def check_number(name: str, value: object, low: float, high: float) -> float:
    """Return `value` as a float if it is a finite number from `low` to `high`. Raises RequestError if not."""
    if not isinstance(value, int | float | np.number) or isinstance(value, bool):
        raise RequestError(f"{name} is {value!r}; it must be a number")
    try:
        number = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        number = math.inf
    if not low <= number <= high or not math.isfinite(number):
        bounds = f"a finite number from {low}" if math.isinf(high) else f"from {low} to {high}"
        raise RequestError(f"{name} is {number}; it must be {bounds}")
    return number
