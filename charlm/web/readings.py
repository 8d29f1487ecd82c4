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


class Readings:
    """Keeps the inspections that were asked for last, up to MOST_BYTES. Threads may share one."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._lock = Lock()
        self._readings: OrderedDict[tuple[int, str], _Reading] = OrderedDict()  # the last one was asked for last

    def read(self, lm: CharLM, text: str) -> Inspection:
        """Return what `lm.inspect` returns for a text of symbols that the model knows."""
        key = id(lm), text
        with self._lock:
            reading = self._readings.get(key)
            if reading is None or reading.lm() is not lm:
                reading = _Reading(lm)
            self._readings[key] = reading
            self._readings.move_to_end(key)
        with reading.lock:
            if reading.seen is None:
                reading.seen = lm.inspect(text)
            seen = reading.seen
        self._evict()
        return seen

    def _evict(self) -> None:
        """Drop those that were asked for longest ago, and those of models that are gone, until the rest may be kept."""
        with self._lock:
            for key in [key for key, reading in self._readings.items() if reading.lm() is None]:
                del self._readings[key]
            while self.bytes > self._most_bytes:
                self._readings.popitem(last=False)

    @property
    def bytes(self) -> int:
        """How much memory the arrays of the readings take."""
        return sum(_bytes_of(reading.seen) for reading in self._readings.values() if reading.seen is not None)


def _bytes_of(seen: Inspection) -> int:
    arrays = (seen.surprisals, seen.likeliest, seen.probabilities, seen.hidden, seen.cell)
    return sum(array.nbytes for array in arrays if array is not None)
