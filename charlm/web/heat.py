"""Texts with a number for each character, which the page shows as a heat map: a background colour per character."""

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

# A shade, from 0 to 1, travels as one printable symbol: LOWEST for 0, HIGHEST for 1, equal steps between them.
LOWEST, HIGHEST = 48, 126
MOST_NATS = 7.8  # the surprisal that has shade 1, so that a step is a tenth of a nat
MOST_DIFFERENCE = 5.0  # the difference in nats that has shade 1; its negative has shade 0


class Heat(TypedDict, total=False):
    """A text whose characters have shades.

    prompt: shown in grey before the text, without being part of it.
    text: N symbols.
    shades: N symbols, one for each of the text, as `shades` encodes them. A stream appends to both.
    kind: what a shade means: `surprisal`, 0 to MOST_NATS; `difference`, of the surprisal of model A from that of B,
        -MOST_DIFFERENCE to MOST_DIFFERENCE; `activation`, -a to a, where a is the largest absolute activation in the
        text; `gate`, 0 to 1; `influence`, 0 to the largest in the text.
    details: for each symbol of the text, the symbols that the model held likeliest there, with their probabilities.
    name: of the file that the text is saved as, without its ending.
    run: the fields of the page that the text answers to, as they were: of a written text `WriteSettings.to_fields`
        and `forced`, the visitor's choices in it, [[place, symbol], …]; of an inspected one its model, text and colour.
    bits: the mean surprisal of a written text, in bits per character, and of how many characters. What was written
        before it was cut counts by its shades.
    """

    prompt: str
    text: str
    shades: str
    kind: str
    details: list[list[tuple[str, float]]]
    name: str
    run: dict[str, Any]
    bits: tuple[float, int]


def shades(fractions: NDArray[Any] | Sequence[float]) -> str:
    """Encode N numbers from 0 to 1 as N symbols. Numbers outside are clipped; NaN, no number, becomes a space."""
    numbers = np.asarray(fractions, np.float64)
    steps = np.rint(np.clip(np.nan_to_num(numbers), 0, 1) * (HIGHEST - LOWEST))
    return np.where(np.isnan(numbers), ord(" "), LOWEST + steps).astype(np.uint8).tobytes().decode()


def fractions(shades: str) -> NDArray[np.float64]:
    """Return the numbers from 0 to 1, to half a step, that N shades encode, (N,); NaN for any other symbol."""
    codes = np.frombuffer(shades.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.float64)
    return np.where((codes >= LOWEST) & (codes <= HIGHEST), (codes - LOWEST) / (HIGHEST - LOWEST), np.nan)
