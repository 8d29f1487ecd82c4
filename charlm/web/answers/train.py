"""The answers of the view *Train*: a model of the visitor's own text, trained by `python -m train fit`.

One training runs at a time, in a folder of its own. Only the visitor who started it can stop it, pause it or change its
learning rate; a paused one ends by itself, so that the others do not wait for ever.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event, Lock

from charlm.checks import check_number
from charlm.errors import CharLMError, RequestError
from charlm.web.models import ServedModel
from charlm.web.training.process import (
    RUN_FOLDER,
    TEXT_FILE,
    BorrowedGpu,
    ChildProcess,
    ControlWriter,
    FitOnGpu,
    ended_early,
    training_call,
    training_folder,
    training_process,
)
from charlm.web.training.progress import Progress, TimeLimits
from charlm.web.training.result import finish
from charlm.web.training.settings import (
    DEFAULT_MINUTES,
    Settings,
    check_training_text,
    fit_arguments,
    fit_settings,
    gpu_settings,
    start_settings,
)

MINUTES = 5.0
# A training with a chosen time ends by itself close to it. It is interrupted after LATE times that time, but never
# before MINUTES.
LATE = 1.2
MOST_WAITING = 8
PROGRESS_SECONDS = 0.5  # between two values of a stream
LOWEST_RATE, HIGHEST_RATE = 1e-6, 0.1  # that a visitor may ask for; a higher one only destroys a model


class Training:
    """What a visitor asks of their training while it waits and runs.

    turn: set when it is its turn. stop: set when it shall end. control: what its loop is asked for.
    """

    def __init__(self, *, can_pause: bool) -> None:
        self.turn, self.stop, self.control = Event(), Event(), ControlWriter()
        self.can_pause = can_pause


class TrainingQueue:
    """Runs one training at a time, in the order of the requests."""

    def __init__(
        self,
        minutes: float = MINUTES,
        most_waiting: int = MOST_WAITING,
        device: str = "auto",
        fit_on_gpu: FitOnGpu | None = None,
    ) -> None:
        """minutes: the time limit of a training. device: that finished models run on.

        fit_on_gpu: `train.events.fit_events` in the form that borrows a GPU, on ZeroGPU.
        """
        self.minutes, self._most_waiting, self._device = minutes, most_waiting, device
        self._fit_on_gpu = fit_on_gpu
        self._queue: list[Training] = []  # the first one runs
        self._of_visitors: dict[str, Training] = {}
        self._lock = Lock()

    @property
    def borrows_gpu(self) -> bool:
        """Whether trainings run on a GPU that is borrowed for each."""
        return self._fit_on_gpu is not None

    def train(
        self,
        text: object,
        cell: object,
        size: object,
        visitor: str,
        *,
        on_cpu: bool = False,
        start: ServedModel | None = None,
        minutes: object = DEFAULT_MINUTES,
    ) -> Iterator[Progress]:
        """Train a model; yield its progress every PROGRESS_SECONDS and at the end. Closing the iterator kills it.

        visitor: who alone may `stop`, `pause` or change it. on_cpu: even where a GPU can be borrowed. start: the model
        to begin with, which has a cell and a size of its own; None for random weights. minutes: that a training of the
        size TIMED takes, at most those of the queue.
        Raises RequestError for a text, cell, size or minutes that cannot be trained, if the visitor trains already, or
        if the queue is full.
        """
        text, on_gpu = check_training_text(text), self.borrows_gpu and not on_cpu
        if start is not None:
            settings, seconds = start_settings(len(text), start, on_gpu=on_gpu)
        elif on_gpu:
            settings, seconds = gpu_settings(len(text), cell, size)
        else:
            settings, seconds = fit_settings(len(text), cell, size, minutes, self.minutes), 0
        with self._queued(visitor, can_pause=not on_gpu) as training:
            while not training.turn.wait(PROGRESS_SECONDS) and not training.stop.is_set():
                yield Progress("waiting", f"waiting: number {self._queue.index(training)} in the queue")
            if training.stop.is_set():
                yield Progress("ended", "stopped in the queue, before it began")
                return
            try:
                with training_folder(text, start) as folder, training.control.writing_into(folder):
                    yield from self._run(folder, settings, seconds, training)
            except CharLMError as error:  # the server lacks something for it
                yield Progress("failed", str(error))

    def stop(self, visitor: str) -> None:
        """End the training of a visitor early; the model of its best epoch so far is kept."""
        with self._lock:
            if visitor in self._of_visitors:
                self._of_visitors[visitor].stop.set()

    def pause(self, visitor: str, paused: bool = True) -> None:
        """Let the training of a visitor wait before its next step, or go on.

        Raises RequestError if the visitor has none that runs, or if it runs on a borrowed GPU.
        """
        training = self._running(visitor)
        if not training.can_pause:
            raise RequestError(
                "a training on a borrowed GPU cannot be paused, since the GPU is lent for a time: stop it"
            )
        training.control.pause(paused)

    def set_learning_rate(self, visitor: str, rate: object) -> None:
        """Change the learning rate of the training of a visitor at its next step; the schedule goes on from there.

        rate: a number, or a text that is one. Raises RequestError for any other, and if the visitor has no training
        that runs.
        """
        try:
            number = float(rate) if isinstance(rate, str) else rate
        except ValueError:
            number = rate
        checked = check_number("the learning rate", number, LOWEST_RATE, HIGHEST_RATE)
        self._running(visitor).control.set_learning_rate(checked)

    def _running(self, visitor: str) -> Training:
        """Return the training of a visitor. Raises RequestError if there is none that runs."""
        with self._lock:
            training = self._of_visitors.get(visitor)
        if training is None or not training.control.has_begun:
            raise RequestError("no training of yours runs: start one with Train, and wait for its turn")
        return training

    @contextmanager
    def _queued(self, visitor: str, *, can_pause: bool) -> Iterator[Training]:
        """Wait in the queue with a new training, whose `turn` is set in time."""
        training = Training(can_pause=can_pause)
        with self._lock:
            if len(self._queue) > self._most_waiting:
                raise RequestError(f"{len(self._queue)} trainings are ahead of this one: try again in some minutes")
            if visitor in self._of_visitors:
                raise RequestError("your training is still going on: stop it before you begin another")
            self._queue.append(training)
            self._of_visitors[visitor] = training
            self._queue[0].turn.set()
        try:
            yield training
        finally:
            with self._lock:
                self._queue.remove(training)
                del self._of_visitors[visitor]
                if self._queue:
                    self._queue[0].turn.set()

    def _run(self, folder: Path, settings: Settings, gpu_seconds: int, training: Training) -> Iterator[Progress]:
        """Train in a folder until it is done, stopped, or out of time."""
        begin = "waiting for a GPU" if gpu_seconds else "starting"
        if "minutes" in settings:
            begin = "measuring how fast models of several sizes train here"
        progress = Progress("running", begin, can_pause=training.can_pause)
        longest = max(self.minutes, LATE * settings.get("minutes", 0))
        limits, why_over, stop = TimeLimits(longest), "", training.stop
        with self._start(folder, settings, gpu_seconds, progress) as running:
            while running.is_running() and not stop.is_set() and not why_over:
                yield progress
                stop.wait(PROGRESS_SECONDS)
                paused, others_wait = training.control.is_paused, len(self._queue) > 1
                why_over = limits.why_over(is_paused=paused, others_wait=others_wait)
            if was_stopped := running.is_running():
                progress.message = "stopping"
                yield progress
            running.interrupt()
            if not was_stopped:
                ending = running.ending()
            elif stop.is_set():
                ending = ended_early("stopped")
            else:
                ending = ended_early(why_over, lacked_time=limits.are_used_up)
        result = finish(folder / RUN_FOLDER, ending, self._device)
        has_failed = ending.has_failed or (result.lm is None and not was_stopped)
        message = result.message if result.lm is None else result.message + progress.chosen
        yield replace(progress, state="failed" if has_failed else "ended", message=message, result=result)

    def _start(
        self, folder: Path, settings: Settings, gpu_seconds: int, progress: Progress
    ) -> AbstractContextManager[ChildProcess | BorrowedGpu]:
        if self._fit_on_gpu is None or gpu_seconds == 0:
            return training_process(folder, fit_arguments(settings), progress.take)
        if "init_from" in settings:
            settings = settings | {"init_from": str(folder / settings["init_from"])}
        call = partial(self._fit_on_gpu, folder / TEXT_FILE, folder / RUN_FOLDER, settings, gpu_seconds)
        return training_call(folder, call, gpu_seconds, progress.take)
