"""How surprised a model is by a text of any length: in constant memory, on all cores.

A recurrent network reads one symbol after another, which uses a small part of what a machine can compute. But it
forgets: two readers of the same text that began in different states stand in the same one after some hundred symbols.
So a text is cut into stretches that are read side by side, each from the zero state. Then each is read again from
where the one before it ended, until that reader stands where the first stood; from there on the first was right. Where
a model does not forget, its stretches are read to their ends, one after another. State that differ by less than SAME
count as one: a model that made more of so little later on would be scored wrong by that.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from charlm.device import count_cores
from charlm.inference.engine import Engine, Reader, State
from charlm.inference.sampling import surprisals_of
from charlm.vocab import Ids

Surprisals = NDArray[np.float64]

LONGEST_STRETCH = 4096  # symbols
UNITS_AT_ONCE = 16_384  # of all stretches that a thread reads side by side: of a small model more stretches
MOST_AT_ONCE = 64  # stretches
SHORTEST_STRETCH = 1024  # long against the some hundred symbols that are read twice
AT_ONCE = 64  # symbols of each stretch in a pass; after each, states are compared
LAST_CHECK = 2048  # symbols; a stretch that has not forgotten until then is read to its end
MOST_WORKERS = 8
# The units lie between -1 and 1. Rounding alone keeps readers some 1e-6 apart that began together.
SAME = 5e-5


def surprisals(engine: Engine, pieces: Iterable[Ids]) -> Iterator[Surprisals]:
    """Yield the surprisals of all symbols but the first, in nats, of a text that comes in pieces (N,) of any size."""
    most = LONGEST_STRETCH * _count_stretches(engine)
    states, unread, waiting = Reader(engine).state, np.zeros(0, np.int64), []
    with ThreadPoolExecutor(count_workers()) as threads:
        for piece in pieces:
            waiting.append(piece)  # joined at once when they are enough, since they may be tiny
            if len(unread) + sum(map(len, waiting)) <= most:
                continue
            unread, waiting = np.concatenate([unread, *waiting]), []
            while len(unread) > most:
                block = _Block(engine, threads, states, unread[: most + 1])
                yield block.scores
                states, unread = block.end, unread[most:]
        unread = np.concatenate([unread, *waiting])
        if len(unread) > 1:
            yield _Block(engine, threads, states, unread).scores


class _Block:
    """A part of a text, read in stretches side by side.

    scores: the surprisal of each symbol but the first, (N,).
    end: where the text stands after all but the last.
    """

    def __init__(self, engine: Engine, threads: ThreadPoolExecutor, start: State, ids: Ids) -> None:
        """start: where the text stands before the block. ids: (N + 1,)."""
        self._engine, self._threads = engine, threads
        stretches = min(max(1, (len(ids) - 1) // SHORTEST_STRETCH), _count_stretches(engine))
        length = (len(ids) - 1) // stretches
        self._ids = ids[np.arange(length + 1)[:, None] + np.arange(stretches) * length]  # neighbours share a symbol
        self._scores = np.empty((length, stretches))
        zero = Reader(engine).state
        self._ends = [start] * stretches
        nowhere = State(np.full_like(zero.hidden, math.nan), np.full_like(zero.cell_state, math.nan))
        checks = min(length, LAST_CHECK) // AT_ONCE
        # where the stretches stood at each check; nothing is the same as NaN, so the first reading goes to the end
        self._trail = [State.join([nowhere] * stretches) for _ in range(checks)]

        self._read_all(range(stretches), [start] + [zero] * (stretches - 1))
        wrong = self._read_all(range(1, stretches), self._ends[:-1])
        while wrong:
            first = min(wrong)
            wrong = (wrong - {first}) | self._read_all([first], [self._ends[first - 1]])

        rest = ids[stretches * length :]
        reader = Reader(engine, self._ends[-1])
        scores = _score(reader, rest[:, None])[:, 0]
        self.scores, self.end = np.concatenate([self._scores.T.ravel(), scores]), reader.state

    def _read_all(self, stretches: Sequence[int], starts: Sequence[State]) -> set[int]:
        """Read stretches from new starts, on all cores that they keep busy; return those whose start has changed."""
        threads = self._engine.count_threads(len(stretches), count_workers())
        places = [part for part in np.array_split(np.arange(len(stretches)), threads) if len(part)]
        parts = [([stretches[place] for place in part], [starts[place] for place in part]) for part in places]
        changed = [stretch for part in self._threads.map(lambda part: self._read(*part), parts) for stretch in part]
        return {stretch + 1 for stretch in changed if stretch + 1 < len(self._ends)}

    def _read(self, stretches: list[int], starts: list[State]) -> list[int]:
        """Read stretches, each until it stands where it stood the last time; return those that never did."""
        reader = Reader(self._engine, State.join(starts))
        for check in range(-(-len(self._scores) // AT_ONCE)):
            first = check * AT_ONCE
            self._scores[first : first + AT_ONCE, stretches] = _score(
                reader, self._ids[first : first + AT_ONCE + 1, stretches]
            )
            if check < len(self._trail):
                states, trail = reader.state, self._trail[check]
                going_on = np.flatnonzero(~states.same(trail.take(stretches), SAME)).tolist()
                trail.put(stretches, states)
                if len(going_on) < len(stretches):
                    stretches = [stretches[place] for place in going_on]
                    if not stretches:
                        return []
                    reader = Reader(self._engine, states.take(going_on))
        for place, stretch in enumerate(stretches):
            self._ends[stretch] = reader.state.take([place])
        return stretches


def count_workers() -> int:
    """Return how many threads read; more would only need more memory."""
    return min(count_cores(), MOST_WORKERS)


def _count_stretches(engine: Engine) -> int:
    """Return how many stretches all threads can read."""
    return count_workers() * min(MOST_AT_ONCE, max(1, UNITS_AT_ONCE // engine.padded_units))


def _score(reader: Reader, ids: Ids) -> Surprisals:
    """Read all but the last of ids (T + 1, S); return the surprisals (T, S) of all but the first."""
    return surprisals_of(ids[1:], reader.read(ids[:-1]))
