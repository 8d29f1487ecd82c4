"""The surprisals of a text of any length, in constant memory: for the engine and for a torch network.

A recurrent network reads one symbol after another, which uses a small part of what a machine can compute. But it
forgets: two readings of the same text that begin in different states agree after some hundred symbols. So a text is
cut into stretches that are read side by side, each from the zero state. Then each is read again from the state in
which the stretch before it ended, until the states agree with those of the first reading; from there on the first
reading was right. Stretches whose states never agree are read to their ends. States agree if no unit differs by more
than STATE_TOLERANCE: a model that later made more of so small a difference would be scored wrong by that much.

Some models take tens of thousands of symbols to forget, as GRUs do after a short training with a high learning rate.
The engine would then read many stretches three times. So it first tries out on the beginning of a long text whether the
model forgets, and reads one stretch in each thread if it does not.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from charlm.device import count_cores
from charlm.inference.engine import Engine, Reader, State
from charlm.inference.sampling import MOST_LOGITS, Surprisals
from charlm.vocab import Ids

SHORTEST_STRETCH = 1024  # symbols, long against the some hundred that are read twice by most models
# Between states. Hidden states lie between -1 and 1, cell states may be larger; rounding alone keeps two readings that
# began in the same state apart by about 1e-6.
STATE_TOLERANCE = 5e-5
LAST_CHECK = 4096  # symbols; a stretch that does not agree until then is read to its end
PROBE = 1024  # symbols that are read before it is tried out whether the model forgets them

# Of the engine
# Symbols of a stretch from which on it saves time to read many of them in a thread: the first ones of each are read
# twice, as many as the model remembers, which for a large one are 1,000 to 3,000.
LONG_ENGINE_STRETCH = 4096
FEWEST_STRETCHES = 8  # in a thread: fewer take longer side by side than one after another
LONGEST_ENGINE_STRETCH = 8192  # symbols
UNITS_PER_THREAD = 8192  # of all stretches that a thread reads side by side: more stretches of a small model
MOST_STRETCHES_PER_THREAD = 32
ENGINE_CHECK_INTERVAL = 64  # symbols of each stretch between two comparisons of states
MOST_SCORING_THREADS = 8  # more would only take more memory


class ScoringState(Protocol):
    """The state of S stretches that are read side by side."""

    def take(self: "S", places: Sequence[int], /) -> "S":
        """Return some of the stretches, copied."""

    def put(self: "S", places: Sequence[int], state: "S", /) -> None:
        """Overwrite some of the stretches."""

    def same(self: "S", other: "S", tolerance: float, /) -> NDArray[np.bool_]:
        """Return for each stretch, (S,), whether no unit differs by more than `tolerance`."""


S = TypeVar("S", bound=ScoringState)


class BlockReader(Protocol[S]):
    """What reads for the scorer: the engine, or a torch network.

    symbols: of the vocabulary.
    stretches: the most that it reads side by side.
    first_stretches: how many a text is cut into once each has SHORTEST_STRETCH symbols.
    many_stretches: the fewest that are faster than those; taken if each has long_stretch symbols and the model forgets.
    longest_stretch: in symbols.
    check_interval: symbols between two comparisons of states.
    in_order: whether stretches that never agreed are read again one after another, each once; side by side they may be
        read more often, which is faster where one costs as much as all.
    """

    symbols: int
    stretches: int
    first_stretches: int
    many_stretches: int
    long_stretch: int
    longest_stretch: int
    check_interval: int
    in_order: bool

    def zero_state(self) -> S:
        """Return the state before the first symbol of one stretch."""

    def join(self, states: Sequence[S]) -> S:
        """Put states side by side."""

    def read(self, ids: Ids, state: S) -> tuple[Surprisals, S]:
        """Read all but the last of ids (T + 1, S); return the surprisals (T, S) of all but the first, and the state."""

    def count_threads(self, stretches: int) -> int:
        """Return on how many threads to read so many stretches."""


def surprisals(reader: BlockReader[S], pieces: Iterable[Ids]) -> Iterator[Surprisals]:
    """Yield the surprisals of all symbols but the first, in nats, of a text that comes in pieces (N,) of any size."""
    most = reader.longest_stretch * reader.stretches
    choice = _StretchChoice(reader)
    state, unread = reader.zero_state(), np.zeros(0, np.int64)
    waiting, waiting_symbols = list[Ids](), 0  # pieces, joined once there are enough, since they may be tiny
    with ThreadPoolExecutor(count_scoring_threads()) as threads:
        for piece in pieces:
            waiting.append(piece)
            waiting_symbols += len(piece)
            if len(unread) + waiting_symbols <= most:
                continue
            unread, waiting, waiting_symbols = np.concatenate([unread, *waiting]), [], 0
            while len(unread) > most:
                ids = unread[: most + 1]
                block = _Block(reader, threads, state, ids, choice.stretches(ids))
                yield block.surprisals
                state, unread = block.end, unread[most:]
        unread = np.concatenate([unread, *waiting])
        if len(unread) > 1:
            yield _Block(reader, threads, state, unread, choice.stretches(unread)).surprisals


def count_scoring_threads() -> int:
    """Return on how many threads the engine reads."""
    return min(count_cores(), MOST_SCORING_THREADS)


class _StretchChoice(Generic[S]):
    """Chooses how many stretches each block of a text is cut into."""

    def __init__(self, reader: BlockReader[S]) -> None:
        self._reader = reader
        self._forgets: bool | None = None  # until a block is so long that it matters

    def stretches(self, ids: Ids) -> int:
        """Return into how many stretches to cut a block (N + 1,), N ≥ 1."""
        reader, symbols = self._reader, len(ids) - 1
        first = min(max(1, symbols // SHORTEST_STRETCH), reader.first_stretches)
        many = min(symbols // reader.long_stretch, reader.stretches)
        if many <= first or many < reader.many_stretches:
            return first
        if self._forgets is None:
            self._forgets = self._try_out(ids)
        return many if self._forgets else first

    def _try_out(self, ids: Ids) -> bool:
        """Tell whether the model forgets the beginning of a block (N + 1,) by the last check."""
        reader = self._reader
        zero, beginning = reader.zero_state(), min(PROBE, len(ids) - 1)
        _, remembers = reader.read(ids[: beginning + 1, None], zero)
        state = reader.join([zero, remembers])
        for first in range(beginning, min(beginning + LAST_CHECK, len(ids) - 1), reader.check_interval):
            piece = ids[first : first + reader.check_interval + 1]
            _, state = reader.read(np.stack([piece, piece], axis=1), state)
            if state.take([0]).same(state.take([1]), STATE_TOLERANCE).all():
                return True
        return False


class _Block(Generic[S]):
    """A part of a text, read in stretches side by side.

    surprisals: of each symbol but the first, (N,).
    end: the state after all symbols but the last.
    """

    def __init__(self, reader: BlockReader[S], threads: ThreadPoolExecutor, start: S, ids: Ids, stretches: int) -> None:
        """start: the state before the block. ids: (N + 1,). stretches: how many, at most N."""
        self._reader, self._threads, self._stops = reader, threads, False
        # 1) cut the block into stretches of equal length; neighbours share a symbol
        length = (len(ids) - 1) // stretches
        self._ids = ids[np.arange(length + 1)[:, None] + np.arange(stretches) * length]
        self._surprisals = np.empty((length, stretches))
        zero = reader.zero_state()
        self._ends = [start] * stretches
        # the states of the stretches at each check
        self._checkpoints = [
            reader.join([zero] * stretches) for _ in range(min(length, LAST_CHECK) // reader.check_interval)
        ]
        # 2) read all from the zero state, 3) again from where the one before ended, until they agree
        self._read_all(range(stretches), [start] + [zero] * (stretches - 1), compares=False)
        if np.isfinite(self._surprisals).all():  # else no reading is right, and no states agree
            wrong = self._read_all(range(1, stretches), self._ends[:-1])
            # 4) a stretch that never agreed has a new end, so the next one is read again
            while wrong:
                again = [min(wrong)] if reader.in_order else sorted(wrong)
                wrong = (wrong - set(again)) | self._read_all(again, [self._ends[place - 1] for place in again])
        # 5) read what is left over by the equal lengths
        rest, self.end = reader.read(ids[stretches * length :, None], self._ends[-1])
        self.surprisals = np.concatenate([self._surprisals.T.ravel(), rest[:, 0]])

    def _read_all(self, stretches: Sequence[int], starts: Sequence[S], *, compares: bool = True) -> set[int]:
        """Read stretches from new starts; return those whose start has changed by that.

        compares: whether to stop where the states agree with those of the last reading.
        """
        if not stretches:
            return set()
        threads = self._reader.count_threads(len(stretches))
        parts = [part for part in np.array_split(np.arange(len(stretches)), threads) if len(part)]

        def read(part: NDArray[np.int64]) -> list[int]:
            return self._read([stretches[place] for place in part], [starts[place] for place in part], compares)

        try:  # a single part is read on this thread
            changed = self._threads.map(read, parts) if len(parts) > 1 else map(read, parts)
            return {stretch + 1 for part in changed for stretch in part if stretch + 1 < len(self._ends)}
        except BaseException:  # such as Ctrl-C, which would wait until the other threads have read their parts
            self._stops = True
            raise

    def _read(self, stretches: list[int], starts: list[S], compares: bool) -> list[int]:
        """Read stretches, each until its state agrees with that of the last reading; return those that never did."""
        state, interval = self._reader.join(starts), self._reader.check_interval
        for check, first in enumerate(range(0, len(self._surprisals), interval)):
            if self._stops:
                return []
            ids = self._ids[first : first + interval + 1, stretches]
            self._surprisals[first : first + interval, stretches], state = self._reader.read(ids, state)
            if check < len(self._checkpoints):
                before = self._checkpoints[check].take(stretches)
                self._checkpoints[check].put(stretches, state)
                if compares:
                    differing = np.flatnonzero(~state.same(before, STATE_TOLERANCE)).tolist()
                    if not differing:
                        return []
                    if len(differing) < len(stretches):
                        stretches = [stretches[place] for place in differing]
                        state = state.take(differing)
        for place, stretch in enumerate(stretches):
            self._ends[stretch] = state.take([place])
        return stretches


class EngineReader:
    """The engine as a BlockReader.

    first_stretches: one for each thread. Many side by side in a thread take less time for each symbol: a sixth less
    with weights in bfloat16, two thirds less in float32. But short stretches are read twice for the most part, which
    takes longer than that saves.
    """

    long_stretch = LONG_ENGINE_STRETCH
    longest_stretch = LONGEST_ENGINE_STRETCH
    check_interval = ENGINE_CHECK_INTERVAL
    in_order = True

    def __init__(self, engine: Engine, release: Callable[[], None] = lambda: None, threads: int | None = None) -> None:
        """release: called after each pass, to give back the memory of a text that is mapped from a file.

        threads: on how many to read, by default `count_scoring_threads()`, which are the most.
        """
        self._engine, self._release, self.symbols = engine, release, engine.symbols
        most = min(UNITS_PER_THREAD // engine.units, MOST_LOGITS // engine.symbols)
        per_thread = min(MOST_STRETCHES_PER_THREAD, max(1, most))
        self.first_stretches = threads or count_scoring_threads()
        self.many_stretches = self.first_stretches * FEWEST_STRETCHES
        self.stretches = self.first_stretches * per_thread

    def zero_state(self) -> State:
        """See BlockReader."""
        return self._engine.zero_state(1)

    def join(self, states: Sequence[State]) -> State:
        """See BlockReader."""
        return State.join(states)

    def read(self, ids: Ids, state: State) -> tuple[Surprisals, State]:
        """See BlockReader."""
        reader = Reader(self._engine, state)
        scores = reader.score(ids)
        self._release()
        return scores, reader.state

    def count_threads(self, stretches: int) -> int:
        """See BlockReader."""
        return self._engine.count_threads(stretches, self.first_stretches)
