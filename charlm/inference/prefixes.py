"""A prefix cache: what an engine has read before is not read again.

A text that is continued, pointed at or cut and written on is read many times, each time from its beginning. So the
states after each BLOCK symbols of what was read lately are kept, and a text is read on from the last of them that it
has in common with an earlier one. Texts are told apart by a chain of hashes, as vLLM's automatic prefix caching does.
"""

from collections import OrderedDict
from collections.abc import Iterator
from hashlib import blake2b

from charlm.inference.engine import Engine, Reader, State
from charlm.locks import RenewedLock
from charlm.vocab import Ids

BLOCK = 64  # symbols
MOST_BYTES = 8_000_000  # of all states that are kept, unless a single one takes more


class PrefixCache:
    """Reads texts with an engine and keeps states on the way. Threads may share one.

    Blocks begin at multiples of BLOCK, whatever is known already. So what is read does not depend on what was kept,
    even where the arithmetic depends on how many symbols are read in one call (see `charlm.inference.numpy_model`).
    """

    def __init__(self, engine: Engine, most_bytes: int = MOST_BYTES) -> None:
        self._engine = engine
        self._most = max(1, most_bytes // sum(part.nbytes for part in engine.zero_state(1).parts))
        self._states: OrderedDict[bytes, State] = OrderedDict()  # the most recently used last
        self._lock = RenewedLock()

    def __len__(self) -> int:
        """How many states are kept."""
        return len(self._states)

    def read(self, ids: Ids) -> Reader:
        """Return a reader of one text that has read ids (T,) from the zero state."""
        keys = list(_keys(ids))
        known, state = self._longest(keys)
        reader = Reader(self._engine, 1 if state is None else state)
        for number in range(known, len(keys)):
            reader.prefill(ids[number * BLOCK : (number + 1) * BLOCK, None])
            self._keep(keys[number], reader.state)
        if rest := len(ids) % BLOCK:
            reader.prefill(ids[-rest:, None])
        return reader

    def _longest(self, keys: list[bytes]) -> tuple[int, State | None]:
        """Return how many blocks need not be read, and the state after them."""
        with self._lock:
            for number in range(len(keys), 0, -1):
                if state := self._states.get(keys[number - 1]):
                    self._states.move_to_end(keys[number - 1])
                    return number, state
        return 0, None

    def _keep(self, key: bytes, state: State) -> None:
        with self._lock:
            self._states[key] = state
            self._states.move_to_end(key)
            while len(self._states) > self._most:
                self._states.popitem(last=False)


def _keys(ids: Ids) -> Iterator[bytes]:
    """Yield for each whole block of ids (T,) a hash of it and all before it."""
    key = b""
    for first in range(0, len(ids) - BLOCK + 1, BLOCK):
        key = blake2b(key + ids[first : first + BLOCK].tobytes(), digest_size=16).digest()
        yield key
