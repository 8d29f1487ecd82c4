"""Continuous batching: the streams that are asked for at the same time are written side by side, one batch a thread.

A stream joins the batch between two steps, as soon as its prompt is read, and leaves when its text is complete or its
reader closes it. The streams of a batch share each reading of the weights. What a stream writes depends on its prompt
and its sampler alone, to the last bit, where the compiled kernels do the arithmetic (see `charlm.inference.engine`);
`charlm.inference.numpy_model` and `charlm.inference.gpu` say what holds elsewhere.
"""

import atexit
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from functools import partial
from itertools import chain
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakSet

import numpy as np

from charlm.device import count_cores
from charlm.errors import RequestError
from charlm.inference.engine import Engine, Reader, State
from charlm.inference.prefixes import PrefixCache
from charlm.inference.sampling import BatchSampler, Sampler, SamplingSettings, Surprisals
from charlm.inference.streams import closed_at_end
from charlm.locks import RenewedLock
from charlm.vocab import Ids

Piece = tuple[list[int], Surprisals]  # N ids of a stream, and their surprisals (N,) in nats

CALL_SECONDS = 0.01  # that a call of the engine takes: in each, many steps share what Python does for a call
ENDING_SECONDS = 5.0  # that the end of the process waits for a thread
DELIVERY_SECONDS = 0.05  # between two deliveries to a reader: each costs time, and people read no faster

# For `measure_chars_per_second`
MEASURED_STREAMS, MEASURED_LENGTH, MEASURED_ROUNDS = 16, 128, 3

P = TypeVar("P")
P_contra = TypeVar("P_contra", contravariant=True)


class Batch(Protocol[P_contra]):
    """S streams that are written side by side, each in a slot. Belongs to one thread.

    P: where a stream stands after its prompt, as `Backend.prefill` returns it.
    """

    def join(self, prefilled: Sequence[P_contra], samplers: Sequence[Sampler]) -> None:
        """Add streams in the slots after the present ones."""

    def write(self, left: Sequence[int], most: int, should_stop: Callable[[], bool]) -> tuple[Ids, Surprisals]:
        """Write N symbols of each stream, at least one; return their ids (N, S) and surprisals (N, S) in nats.

        left: how many symbols each stream needs, (S,). N is at most the largest of them; what a stream has beyond its
            own number means nothing.
        most: the largest N allowed; a stream that needs more symbols goes on with one that is forced.
        should_stop: asked between two symbols; a backend that writes many in one call need not ask.
        """

    def force(self, slot: int, id: int) -> float:
        """Write this id in a slot instead of the one that would be drawn next; return its surprisal in nats.

        The random number of that draw is used up all the same. To be called before `write`.
        """

    def keep(self, slots: Sequence[int]) -> None:
        """Keep the streams in these slots and drop the others. To be called after each `write`."""


class Backend(Protocol[P]):
    """What batches are written with: the engine, or a torch network on a GPU. Threads may share one."""

    def prefill(self, prompt: Ids) -> P:
        """Read a prompt (T,) from the zero state."""

    def start_batch(self) -> Batch[P]:
        """Return a batch without streams."""

    def most_workers(self) -> int:
        """Return how many batches can be written at the same time to any gain."""

    def count_workers(self, streams: int, most: int) -> int:
        """Return over how many batches, at most `most`, to spread so many streams."""


class BatchScheduler(Generic[P]):
    """Assigns streams to worker threads: no more than the streams keep busy, nor than the backend can use."""

    def __init__(self, backend: Backend[P]) -> None:
        self._backend = backend
        self._workers = [_Worker(backend) for _ in range(backend.most_workers())]
        self._lock = RenewedLock()

    def __len__(self) -> int:
        """How many streams are being written."""
        return sum(map(len, self._workers))

    def write(
        self, prompt: Ids, length: int, sampler: Sampler, forced: Mapping[int, int] | None = None
    ) -> Generator[Piece]:
        """Read a prompt (T,), then yield `length` ids in pieces with their surprisals, the first id at once.

        forced: ids by place, from 0, that are written there whatever is drawn.
        Threads may call this at the same time. Closing the iterator ends the stream.
        """
        stream = _Stream(self._backend.prefill(prompt), length, sampler, forced or {})
        with self._lock:
            count = self._backend.count_workers(len(self) + 1, len(self._workers))
            min(self._workers[:count], key=len).join(stream)
        try:
            left = length
            while left:
                piece = stream.receive()
                left -= len(piece[0])
                yield piece
        finally:
            stream.is_wanted = False


def write_alone(backend: Backend[Any], prompt: Ids, length: int, sampler: Sampler) -> Iterator[int]:
    """Yield the ids of a stream in a batch of its own, on the thread that asks for them and no sooner."""
    if length > 0:
        batch = backend.start_batch()
        batch.join([backend.prefill(prompt)], [sampler])
    while length > 0:
        should_stop = iter((False, True)).__next__  # after one call of the engine
        ids, _ = batch.write([length], length, should_stop)
        yield from ids[:length, 0].tolist()
        length -= len(ids)
        if length > 0:
            batch.keep([0])


def measure_chars_per_second(backend: Backend[Any]) -> float:
    """Measure how fast a batch of MEASURED_STREAMS streams is written, in the best of some rounds."""
    scheduler, prompt, best = BatchScheduler(backend), np.zeros(1, np.int64), 0.0
    for _ in range(MEASURED_ROUNDS):  # in the first, a GPU captures its graphs
        begin = time.perf_counter()
        streams = [
            scheduler.write(prompt, MEASURED_LENGTH, Sampler(SamplingSettings(seed=seed)))
            for seed in range(MEASURED_STREAMS)
        ]
        with closed_at_end(streams):
            pieces = [next(stream) for stream in streams]  # which begins them all
            for stream in streams:
                pieces.extend(stream)
        seconds = time.perf_counter() - begin
        best = max(best, sum(len(ids) for ids, _ in pieces) / seconds)
    return best


class _Stream(Generic[P]):
    """A text that is being written, and the queue through which its reader receives it.

    left: how many symbols are still to be written.
    """

    def __init__(self, prefilled: P, length: int, sampler: Sampler, forced: Mapping[int, int]) -> None:
        self.prefilled = prefilled
        self.sampler = sampler
        self.left = length
        # forced ids with how many symbols are left before each; the next one is the last
        self._forced = sorted((length - place, id) for place, id in forced.items() if 0 <= place < length)
        self.is_wanted = True
        self.has_begun = False
        self._undelivered: list[Piece] = []
        self._delivered: SimpleQueue[list[Piece] | Exception] = SimpleQueue()

    @property
    def goes_on(self) -> bool:
        """Whether there is more to write."""
        return self.is_wanted and self.left > 0

    @property
    def before_forced(self) -> int | None:
        """How many symbols are drawn before the next forced one; None if none is forced."""
        return self.left - self._forced[-1][0] if self._forced else None

    def take_forced(self) -> int:
        """Return the next forced id, for which it is time now."""
        return self._forced.pop()[1]

    def add(self, piece: Piece, *, is_due: bool) -> None:
        """Add symbols. The first and the last are delivered at once, the others when a delivery is due."""
        self._undelivered.append(piece)
        left = self.left - len(piece[0])
        if is_due or left == 0 or not self.has_begun:
            self.has_begun = True
            self._delivered.put(self._undelivered)
            self._undelivered = []
        self.left = left  # last: a process that is forked before this fails the stream, one forked later has all of it

    def fail(self, error: Exception) -> None:
        """Have `receive` raise an exception."""
        self._delivered.put(error)

    def receive(self) -> Piece:
        """Wait for a delivery; return it together with all others that are there."""
        deliveries = [self._delivered.get()]
        with suppress(Empty):
            while True:
                deliveries.append(self._delivered.get_nowait())
        pieces: list[Piece] = []
        for delivery in deliveries:
            if isinstance(delivery, Exception):
                raise copy(delivery) from delivery  # a copy: raising a shared one would add to its traceback each time
            pieces += delivery
        ids, surprisals = zip(*pieces, strict=True)
        return list(chain.from_iterable(ids)), np.concatenate(surprisals)


class _Worker(Generic[P]):
    """Writes a batch of streams on a thread, which runs as long as there are any."""

    def __init__(self, backend: Backend[P]) -> None:
        self._backend = backend
        self._lock = RenewedLock()
        self._joining: list[_Stream[P]] = []
        self._streams: list[_Stream[P]] = []  # in the order of their slots
        self._is_running = False
        self._thread: Thread | None = None
        self._next_delivery = 0.0
        _workers.add(self)

    def __len__(self) -> int:
        return len(self._streams) + len(self._joining)

    def join(self, stream: _Stream[P]) -> None:
        """Have one more stream written from the next step on."""
        with self._lock:
            if not self._is_running:
                self._thread = Thread(target=self._run, daemon=True)
                self._thread.start()  # it waits for the lock
                self._is_running = True
            self._joining.append(stream)

    def end(self) -> None:
        """Drop all streams at the next delivery, and wait for the thread."""
        with self._lock:
            for stream in self._streams + self._joining:
                stream.is_wanted = False
        if self._thread is not None:
            self._thread.join(ENDING_SECONDS)

    def begin_in_fork(self) -> None:
        """Begin without streams in a process that was forked, in which the thread does not go on."""
        self._fail_all(
            RequestError(
                "the process was forked while this text was written, and only the one that began it writes on; ask for "
                "the text again"
            )
        )
        self._thread = None

    def _run(self) -> None:
        try:
            batch = self._backend.start_batch()
            while joined := self._admit():
                batch.join([stream.prefilled for stream in joined], [stream.sampler for stream in joined])
                self._write(batch)
        except Exception as error:  # of any kind: the readers wait for symbols or for an exception
            self._fail_all(error)

    def _admit(self) -> list[_Stream[P]]:
        """Return the streams that have joined since the last call; if there are none at all, the thread ends."""
        with self._lock:
            joined = self._joining
            self._streams = self._streams + joined  # first: a process that is forked meanwhile finds each stream
            self._joining = []
            self._is_running = bool(self._streams)
        return joined

    def _fail_all(self, error: Exception) -> None:
        """Make the readers of all unfinished streams raise an exception, and drop the streams."""
        with self._lock:
            for stream in self._streams + self._joining:
                if stream.goes_on:
                    stream.fail(error)
            self._streams, self._joining = [], []
            self._is_running = False

    def _write(self, batch: Batch[P]) -> None:
        """Write until another stream wants to join, or none is left."""
        while self._streams and not self._joining:
            # 1) write what is forced, then draw until a delivery is due, a stream ends or has its next forced symbol;
            # only one symbol if a reader waits for its first
            most = self._force(batch)
            reader_waits = not all(stream.has_begun for stream in self._streams)
            left = [max(1, stream.left) for stream in self._streams]
            ids, surprisals = batch.write(left, most, partial(self._should_stop, reader_waits))
            # 2) deliver
            is_due = time.perf_counter() >= self._next_delivery
            if is_due:
                self._next_delivery = time.perf_counter() + DELIVERY_SECONDS
            for stream, drawn, costs in zip(self._streams, ids.T.tolist(), surprisals.T, strict=True):
                if stream.left:
                    stream.add((drawn[: stream.left], costs[: stream.left]), is_due=is_due)
            # 3) drop the streams that have ended
            staying = [slot for slot, stream in enumerate(self._streams) if stream.goes_on]
            if len(staying) < len(self._streams):
                self._streams = [self._streams[slot] for slot in staying]
            batch.keep(staying)

    def _force(self, batch: Batch[P]) -> int:
        """Write the symbols that are forced now; return how many may be drawn until the next one is."""
        for slot, stream in enumerate(self._streams):
            while stream.before_forced == 0:
                id = stream.take_forced()
                stream.add(([id], np.array([batch.force(slot, id)])), is_due=False)
        return min((stream.before_forced or sys.maxsize for stream in self._streams), default=sys.maxsize)

    def _should_stop(self, reader_waits: bool) -> bool:
        return reader_waits or bool(self._joining) or time.perf_counter() >= self._next_delivery


_workers: "WeakSet[_Worker[Any]]" = WeakSet()


@atexit.register
def _end_workers() -> None:
    """End the threads before the interpreter does: it would abort if one were inside torch then."""
    for worker in list(_workers):
        worker.end()


def _begin_workers_in_fork() -> None:
    for worker in list(_workers):
        worker.begin_in_fork()


if hasattr(os, "register_at_fork"):  # not on Windows. The locks have been renewed: their module is imported first
    os.register_at_fork(after_in_child=_begin_workers_in_fork)


class EngineBackend:
    """The engine as a backend."""

    def __init__(self, engine: Engine, prefixes: PrefixCache | None = None) -> None:
        """prefixes: of the engine, which reads the prompts; by default one of its own."""
        self.engine = engine
        self._prefixes = PrefixCache(engine) if prefixes is None else prefixes  # an empty cache is false

    def prefill(self, prompt: Ids) -> State:
        """See Backend."""
        return self._prefixes.read(prompt).state

    def start_batch(self) -> "_EngineBatch":
        """See Backend."""
        return _EngineBatch(self.engine)

    def most_workers(self) -> int:
        """See Backend."""
        return count_cores()

    def count_workers(self, streams: int, most: int) -> int:
        """See Backend."""
        return self.engine.count_threads(streams, most)


class _EngineBatch:
    """See Batch. The streams keep their states and no logits."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reader = Reader(engine, 0)
        self._samplers: list[Sampler] = []
        self._batch_sampler = BatchSampler([])
        self._last_drawn: list[int] = []  # the ids (S,) that `keep` will read
        self._steps_per_call = 1  # by the speed of the last call

    def join(self, prefilled: Sequence[State], samplers: Sequence[Sampler]) -> None:
        """See Batch."""
        self._reader = Reader(self._engine, State.join([self._reader.state, *prefilled]))
        self._samplers += samplers
        self._batch_sampler = BatchSampler(self._samplers)

    def write(self, left: Sequence[int], most: int, should_stop: Callable[[], bool]) -> tuple[Ids, Surprisals]:
        """See Batch. N is the smallest of `left` at most, so that no symbol is read in vain."""
        most, written = min(most, *left), 0
        steps = 1 if should_stop() else self._steps_per_call
        parts: list[tuple[Ids, Surprisals]] = []
        while not parts or (written < most and not should_stop()):
            if parts:
                self._reader.advance(parts[-1][0][-1])
            begin, steps = time.perf_counter(), min(steps, most - written)
            parts.append(self._reader.write(steps, self._batch_sampler))
            self._steps_per_call = max(1, int(steps * CALL_SECONDS / (time.perf_counter() - begin)))
            written, steps = written + steps, self._steps_per_call
        ids, surprisals = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        self._last_drawn = ids[-1].tolist()
        return ids, surprisals

    def force(self, slot: int, id: int) -> float:
        """See Batch."""
        self._samplers[slot].skip(1)
        state = self._reader.state
        alone = Reader(self._engine, state.take([slot]))
        surprisal = float(alone.surprisals(np.array([id]))[0])
        alone.advance([id])
        state.put([slot], alone.state)
        self._reader = Reader(self._engine, state)
        return surprisal

    def keep(self, slots: Sequence[int]) -> None:
        """See Batch. Then reads the last ids that were drawn, only now because nothing follows in a dropped stream."""
        if len(slots) < len(self._samplers):
            self._reader = Reader(self._engine, self._reader.state.take(slots))
            self._samplers = [self._samplers[slot] for slot in slots]
            self._batch_sampler = BatchSampler(self._samplers)
            self._last_drawn = [self._last_drawn[slot] for slot in slots]
        self._reader.advance(self._last_drawn)
