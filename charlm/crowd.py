"""Many texts written at once: whoever asks while others are being written joins them, and leaves when done.

All that are written together share each reading of the weights. What a text becomes depends on its own prompt and
seed alone: its rows of the products, and so its symbols, are the same in any company (see `charlm.engine`).
"""

import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from threading import Lock, Thread

import numpy as np

from charlm.device import count_cores
from charlm.engine import Array, Engine, Reader, States
from charlm.sampling import Sampler, Samplers
from charlm.vocab import Ids

Piece = tuple[list[int], list[Array]]  # what was drawn, and the logits (V,) that each was drawn from

DELIVERY_SECONDS = 0.03  # between two deliveries to a reader: each costs time, and nobody reads faster


class Crowd:
    """The texts that are being written with an engine, on as many threads as there are cores."""

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
        text = _Text(sampler, length, reader.states, logits)
        with self._lock:
            min(self._workers, key=len).join(text)
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

    states, logits: where it stood when it joined. left: how many symbols are still to be drawn.
    """

    def __init__(self, sampler: Sampler, length: int, states: States, logits: Array) -> None:
        self.sampler = sampler
        self.states = states
        self.logits = logits
        self.left = length
        self.is_wanted = True
        self._undelivered: Piece = ([], [])
        self._delivered: SimpleQueue[Piece | Exception] = SimpleQueue()
        self._has_begun = False

    @property
    def goes_on(self) -> bool:
        """Whether there is more to write."""
        return self.is_wanted and self.left > 0

    def add(self, drawn: int, logits: Array) -> None:
        """Write a symbol. Whoever waits has the first at once."""
        ids, drawn_from = self._undelivered
        ids.append(drawn)
        drawn_from.append(logits)
        self.left -= 1
        if self.left == 0 or not self._has_begun:
            self._has_begun = True
            self.deliver()

    def deliver(self) -> None:
        """Let the one who waits have what was written since the last time."""
        if self._undelivered[0]:
            self._delivered.put(self._undelivered)
            self._undelivered = ([], [])

    def fail(self, error: Exception) -> None:
        """Let the one who waits have an exception."""
        self._delivered.put(error)

    def receive(self) -> Piece:
        """Wait for a delivery; return it and all that have come besides."""
        received = self._delivered.get()
        ids: list[int] = []
        logits: list[Array] = []
        while True:
            if isinstance(received, Exception):
                raise received
            ids += received[0]
            logits += received[1]
            try:
                received = self._delivered.get_nowait()
            except Empty:
                return ids, logits


class _Worker:
    """Writes texts in step, on a thread that lives as long as there are any."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = Lock()
        self._joining: list[_Text] = []
        self._texts: list[_Text] = []
        self._runs = False

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
                reader = Reader(self._engine, States.join([reader.states, *(text.states for text in joined)]))
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
        delivered = time.perf_counter()
        while self._texts and not self._joining:
            ids = samplers.draw(logits)
            for text, drawn, row in zip(self._texts, ids, logits, strict=True):
                text.add(drawn, row)  # not copied: every step makes new logits
            if time.perf_counter() - delivered > DELIVERY_SECONDS:
                delivered = time.perf_counter()
                for text in self._texts:
                    text.deliver()
            staying = [place for place, text in enumerate(self._texts) if text.goes_on]
            if len(staying) < len(self._texts):
                self._texts = [self._texts[place] for place in staying]
                ids = [ids[place] for place in staying]
                samplers = Samplers([text.sampler for text in self._texts])
                reader = Reader(self._engine, reader.states.take(staying))
            logits = reader.step(ids)
        return reader, logits
