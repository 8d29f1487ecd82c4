"""What models read in texts of the page, kept so that pointing at a character does not read its text again."""

import weakref
from functools import partial

from charlm.analysis.inspection import Inspection
from charlm.lm import CharLM
from charlm.web.load_once import LoadOnce

MOST_BYTES = 96_000_000  # of all that is kept; 5,000 characters in an LSTM of 2 × 512 units take 43 MB


class Readings:
    """Keeps the inspections that were asked for last, up to MOST_BYTES. Threads may share one."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        # a model that was evicted from the registry is not kept for its readings
        self._kept: LoadOnce[tuple[weakref.ref[CharLM], str], Inspection] = LoadOnce(most_bytes, _bytes_of)

    @property
    def bytes(self) -> int:
        """How much memory the arrays of those that are kept take."""
        return self._kept.size

    def read(self, lm: CharLM, text: str) -> Inspection:
        """Return what `lm.inspect` returns for a text of symbols that the model knows."""
        self._kept.drop(lambda key: key[0]() is None)
        return self._kept.get((weakref.ref(lm), text), partial(lm.inspect, text))


def _bytes_of(seen: Inspection) -> int:
    arrays = (seen.surprisals, seen.likeliest, seen.probabilities, seen.hidden, seen.cell_state)
    return sum(array.nbytes for array in arrays if array is not None)
