"""Texts with a number for each character, as the page shows them."""

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

LOWEST, HIGHEST = 48, 126  # symbols for the shades 0 and 1, and in steps between them; all can be printed
MOST_NATS = 7.8  # of surprise, drawn as shade 1: a step is a tenth of a nat


class Heat(TypedDict, total=False):
    """A text whose characters show shades as colours.

    prompt: stands before the text, in grey, and is no part of it.
    text: N symbols.
    shades: one symbol for each of them, as `shades` gives them. A stream appends to it as it does to the text.
    kind: what the shades mean: `surprisal`, from 0 to MOST_NATS; `activation`, from the strongest below 0 to the
        strongest above; `influence`, from none to the strongest.
    details: for each symbol, those that the model held likeliest in its place, with their probabilities.
    name: of the file that the text is saved as, without its ending.
    run: the settings that it was written with.
    """

    prompt: str
    text: str
    shades: str
    kind: str
    details: list[list[tuple[str, float]]]
    name: str
    run: dict[str, Any]


def shades(fractions: NDArray[Any] | Sequence[float]) -> str:
    """Return a symbol for each of N numbers from 0 to 1; what is beyond counts as 0 or 1, and NaN as no number."""
    numbers = np.asarray(fractions, np.float64)
    steps = np.rint(np.clip(np.nan_to_num(numbers), 0, 1) * (HIGHEST - LOWEST))
    return np.where(np.isnan(numbers), ord(" "), LOWEST + steps).astype(np.uint8).tobytes().decode()
