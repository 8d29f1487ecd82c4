"""Many texts written at once: whoever asks while others are being written joins them, and leaves when done.

All that are written together share each reading of the weights. What a text becomes depends on its own prompt and
seed alone: its rows of the products, and so its symbols, are the same in any company (see `charlm.inference.engine`).
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from copy import copy
from itertools import chain
from queue import Empty, SimpleQueue
from threading import Lock, Thread

import numpy as np
from numpy.typing import NDArray

from charlm.device import count_cores
from charlm.inference.engine import Array, Engine, Reader, State
from charlm.inference.sampling import Sampler, Samplers, surprisals_of
from charlm.vocab import Ids

Piece = tuple[list[int], NDArray[np.float64]]  # N ids that were drawn, and their surprisals (N,) in nats

DELIVERY_SECONDS = 0.03  # between two deliveries to a reader: each costs time, and nobody reads faster


class BatchScheduler:
    """The texts that are being written with an engine, on as many threads as they keep busy, but no more than cores."""

    def __init__(self, engine: Engine, workers: int | None = None) -> None:
        self._engine = engine
        self._workers = [_Worker(engine) for _ in range(workers or count_cores())]
        self._lock = Lock()

    def write(self, prompt: Ids, length: int, sampler: Sampler) -> Iterator[Piece]:
        """Read a prompt (T,), then yield what is drawn, `length` ids in all, the first at once, then a few at a time.

        Any thread may call this. Closing the iterator ends the writing.
        """
        reader = Reader(self._engine)
        logits = reader.read(prompt[:, None])[-1]
        text = _Text(sampler, length, reader.state, logits)
        with self._lock:
            texts = sum(map(len, self._workers)) + 1
            needed = self._workers[: self._engine.count_threads(texts, len(self._workers))]
            min(needed, key=len).join(text)
        try:
            left = length
            while left:
                piece = text.receive()
                left -= len(piece[0])
                yield piece
        finally:
            text.is_wanted = False


class _Text:
    """A text that is being written.

    state, logits: where it stood when it joined. left: how many symbols are still to be drawn.
    """

    def __init__(self, sampler: Sampler, length: int, state: State, logits: Array) -> None:
        self.sampler = sampler
        self.state = state
        self.logits = logits
        self.left = length
        self.is_wanted = True
        self.has_begun = False
        self._undelivered: list[Piece] = []
        self._delivered: SimpleQueue[list[Piece] | Exception] = SimpleQueue()

    @property
    def goes_on(self) -> bool:
        """Whether there is more to write."""
        return self.is_wanted and self.left > 0

    def add(self, piece: Piece, *, is_due: bool) -> None:
        """Write some symbols. Whoever waits has the first and the last at once, the others when a delivery is due."""
        self._undelivered.append(piece)
        self.left -= len(piece[0])
        if is_due or self.left == 0 or not self.has_begun:
            self.has_begun = True
            self._delivered.put(self._undelivered)
            self._undelivered = []

    def fail(self, error: Exception) -> None:
        """Let the one who waits have an exception."""
        self._delivered.put(error)

    def receive(self) -> Piece:
        """Wait for a delivery; return it and all that have come besides."""
        deliveries = [self._delivered.get()]
        with suppress(Empty):
            while True:
                deliveries.append(self._delivered.get_nowait())
        pieces: list[Piece] = []
        for delivery in deliveries:
            if isinstance(delivery, Exception):
                # each has one of its own: in a shared one, the traces of all who raise it would gather
                raise copy(delivery) from delivery
            pieces += delivery
        ids, surprisals = zip(*pieces, strict=True)
        return list(chain.from_iterable(ids)), np.concatenate(surprisals)


class _Worker:
    """Writes texts in step, on a thread that lives as long as there are any."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = Lock()
        self._joining: list[_Text] = []
        self._texts: list[_Text] = []
        self._runs = False
        self._next_delivery = 0.0

    def __len__(self) -> int:
        return len(self._texts) + len(self._joining)

    def join(self, text: _Text) -> None:
        """Write one more text."""
        with self._lock:
            if not self._runs:
                Thread(target=self._run, daemon=True).start()  # it waits for the lock
                self._runs = True
            self._joining.append(text)

    def _run(self) -> None:
        reader, logits = Reader(self._engine, 0), np.empty((0, self._engine.symbols), np.float32)
        try:
            while joined := self._welcome():
                reader = Reader(self._engine, State.join([reader.state, *(text.state for text in joined)]))
                logits = np.concatenate([logits, *(text.logits for text in joined)])
                reader, logits = self._write(reader, logits)
        except Exception as error:  # whatever it is, those who wait must hear of it
            for text in self._give_up():
                text.fail(error)

    def _welcome(self) -> list[_Text]:
        """Take in those who have asked to join; if nobody is there at all, the thread ends."""
        with self._lock:
            joined, self._joining = self._joining, []
            self._texts += joined
            self._runs = bool(self._texts)
        return joined

    def _give_up(self) -> list[_Text]:
        with self._lock:
            waiting, self._texts, self._joining = self._texts + self._joining, [], []
            self._runs = False
        return waiting

    def _write(self, reader: Reader, logits: Array) -> tuple[Reader, Array]:
        """Write until another text joins, or nobody is left; return where the texts stand then."""
        samplers = Samplers([text.sampler for text in self._texts])
        while self._texts and not self._joining:
            ids = self._write_passage(reader, samplers, logits)
            staying = [place for place, text in enumerate(self._texts) if text.goes_on]
            if len(staying) < len(self._texts):
                self._texts = [self._texts[place] for place in staying]
                ids = [ids[place] for place in staying]
                samplers = Samplers([text.sampler for text in self._texts])
                reader = Reader(self._engine, reader.state.take(staying))
            logits = reader.step(ids)
        return reader, logits

    def _write_passage(self, reader: Reader, samplers: Samplers, logits: Array) -> list[int]:
        """Write until a delivery is due or somebody waits for nothing else; return the last ids, still to be read."""
        most = min(text.left if text.has_begun else 1 for text in self._texts)
        drawn, drawn_from = [samplers.draw(logits)], [logits]
        while len(drawn) < most and not self._joining and time.perf_counter() < self._next_delivery:
            logits = reader.step(drawn[-1])
            drawn.append(samplers.draw(logits))
            drawn_from.append(logits)
        is_due = time.perf_counter() >= self._next_delivery
        if is_due:
            self._next_delivery = time.perf_counter() + DELIVERY_SECONDS
        ids = np.array(drawn)
        surprisals = surprisals_of(ids, np.stack(drawn_from))
        for text, written, scores in zip(self._texts, ids.T.tolist(), surprisals.T, strict=True):
            text.add((written, scores), is_due=is_due)
        return drawn[-1]
