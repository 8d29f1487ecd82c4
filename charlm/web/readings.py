"""What models read in texts of the page, kept so that pointing at a character does not read its text again."""

import weakref
from collections import OrderedDict
from threading import Lock

from charlm.analysis.inspection import Inspection
from charlm.lm import CharLM

MOST_BYTES = 96_000_000  # of all that is kept; 5,000 characters in an LSTM of 2 × 512 units take 43 MB


class _Reading:
    """An inspection that one thread makes while the others that ask for it wait."""

    def __init__(self, lm: CharLM) -> None:
        self.lm = weakref.ref(lm)  # a model that was evicted from the registry is not kept for its readings
        self.lock = Lock()
        self.seen: Inspection | None = None
        self.bytes = 0  # that count among those of Readings


class Readings:
    """Keeps the inspections that were asked for last, up to MOST_BYTES. Threads may share one.

    bytes: how much memory the arrays of those that are kept take.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._lock = Lock()
        self.bytes = 0
        self._readings: OrderedDict[tuple[int, str], _Reading] = OrderedDict()  # the last one was asked for last

    def read(self, lm: CharLM, text: str) -> Inspection:
        """Return what `lm.inspect` returns for a text of symbols that the model knows."""
        key = id(lm), text
        with self._lock:
            reading = self._readings.get(key)
            if reading is not None and reading.lm() is not lm:  # the number of a model that is gone
                self._drop(key)
                reading = None
            if reading is None:
                reading = self._readings[key] = _Reading(lm)
            self._readings.move_to_end(key)
        with reading.lock:
            if reading.seen is None:
                try:
                    reading.seen = lm.inspect(text)
                except BaseException:  # nothing is kept, so that there is nothing to make room for
                    with self._lock:
                        if self._readings.get(key) is reading:
                            self._drop(key)
                    raise
            seen = reading.seen
        with self._lock:
            if self._readings.get(key) is reading and not reading.bytes:
                reading.bytes = _bytes_of(seen)
                self.bytes += reading.bytes
            self._evict()
        return seen

    def _evict(self) -> None:
        """Drop those of models that are gone, and those that were asked for longest ago until the rest may be kept."""
        for key in [key for key, reading in self._readings.items() if reading.lm() is None]:
            self._drop(key)
        while self.bytes > self._most_bytes:
            self._drop(next(iter(self._readings)))

    def _drop(self, key: tuple[int, str]) -> None:
        self.bytes -= self._readings.pop(key).bytes


def _bytes_of(seen: Inspection) -> int:
    arrays = (seen.surprisals, seen.likeliest, seen.probabilities, seen.hidden, seen.cell_state)
    return sum(array.nbytes for array in arrays if array is not None)
