"""A training as an iterator of events: those that `fit --json-lines` prints, for a program that trains in process."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from time import monotonic
from typing import Any

from charlm.errors import CharLMError

from .config import TrainConfig
from .control import ControlFile
from .data import load_text
from .init_from import load_start_model
from .loop import fit
from .report import JsonReport, failed_event

CONTROL_FILE = "control.json"  # beside the text, see train/control.py


class InterruptibleReport(JsonReport):
    """A JsonReport that interrupts the run, as Ctrl-C does, once `stop` is set or `deadline` has passed.

    deadline: by `time.monotonic`.
    """

    def __init__(self, events: "SimpleQueue[dict[str, Any] | None]", stop: Event, deadline: float) -> None:
        super().__init__(events.put)
        self._stop, self._deadline = stop, deadline

    def say(self, message: str) -> None:
        """Leave out messages, which are for people."""

    def step(self, chars: int, loss: float, run_seconds_left: float) -> None:
        """See Report.step."""
        super().step(chars, loss, run_seconds_left)
        if self._stop.is_set() or monotonic() > self._deadline:
            raise KeyboardInterrupt


def fit_events(text: Path, out: Path, settings: dict[str, Any], seconds: float) -> Iterator[dict[str, Any]]:
    """Train a model on a file and leave it in the folder `out`; yield the events of JsonReport meanwhile.

    While it runs, a CONTROL_FILE beside the text may change its learning rate. It is not paused, since the machine may
    be lent for `seconds`.
    settings: fields of TrainConfig, and perhaps `init_from`, the model to begin with. seconds: the time limit. After
    it, or if the iterator is closed, the training is interrupted. The folder holds the model of the best epoch so far.
    The last event of a training that did not finish is `time is over`, or `failed`.
    """
    events: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
    stop = Event()
    report = InterruptibleReport(events, stop, monotonic() + seconds)

    def train() -> None:
        try:
            given = {name: value for name, value in settings.items() if name != "init_from"}
            start = load_start_model(settings["init_from"]) if "init_from" in settings else None
            config = TrainConfig(**(given if start is None else start.settings(given)))
            known = "" if start is None else start.lm.vocab.symbols
            content = load_text(str(text), workspace=text.parent, known=known)
            control = ControlFile(text.parent / CONTROL_FILE, may_pause=False)
            fit(content, out, config, report, start=start, control=control)
        except KeyboardInterrupt:
            events.put({"event": "time is over"})
        except CharLMError as error:
            failed = failed_event(error)
            events.put(failed | {"problem": failed["problem"].replace(f"{text.parent}/", "")})
        finally:
            events.put(None)

    with ThreadPoolExecutor(1) as thread:
        training = thread.submit(train)
        try:
            while (event := events.get()) is not None:
                yield event
        finally:
            stop.set()
        training.result()
