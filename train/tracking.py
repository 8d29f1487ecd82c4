"""Progress of a run for an experiment tracker on this computer: trackio, or TensorBoard's event files."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from charlm.errors import MissingPackageError
from charlm.messages import printable

from .report import Report

if TYPE_CHECKING:
    from charlm.model.history import EpochRecord

SECONDS_BETWEEN_LOSSES = 10.0  # during an epoch
TRACKIO_PROJECT = "charlm"
TENSORBOARD_FOLDER = "tensorboard"  # in that of the run
LOGGED = ("train_loss", "val_loss", "unseen_loss", "learning_rate", "chars_per_second")  # of each epoch


class Tracker(Protocol):
    """What a run is told to. Each method may fail with an exception of any kind."""

    def start(self, folder: Path, run: dict[str, Any], *, resumes: bool) -> None:
        """Begin with a run. folder: that of its model. run: as in history.json. resumes: whether it had been begun."""

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Store figures. step: how many characters were read for training since the beginning of the run."""

    def log_sample(self, text: str, step: int) -> None:
        """Store what the model has written."""

    def finish(self) -> None:
        """Wait until everything is stored."""


class Trackio:
    """A Tracker: a run of the project TRACKIO_PROJECT, named like the folder of the model.

    trackio stores it on this computer, unless its variable TRACKIO_SPACE_ID names a Space.
    """

    def __init__(self) -> None:
        self._trackio = import_module("trackio")

    def start(self, folder: Path, run: dict[str, Any], *, resumes: bool) -> None:
        """See Tracker."""
        resume = "allow" if resumes else "never"
        self._trackio.init(project=TRACKIO_PROJECT, name=folder.resolve().name, config=run, resume=resume, embed=False)

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """See Tracker."""
        self._trackio.log(dict(figures), step=step)

    def log_sample(self, text: str, step: int) -> None:
        """See Tracker."""
        self._trackio.log({"sample": text}, step=step)

    def finish(self) -> None:
        """See Tracker."""
        self._trackio.finish()


class TensorBoard:
    """A Tracker: event files in TENSORBOARD_FOLDER, which `tensorboard --logdir` shows."""

    def __init__(self) -> None:
        self._new_writer = import_module("torch.utils.tensorboard").SummaryWriter

    def start(self, folder: Path, run: dict[str, Any], *, resumes: bool) -> None:
        """See Tracker."""
        self._writer = self._new_writer(str(folder / TENSORBOARD_FOLDER))
        self._writer.add_text("run", "\n".join(f"    {name}: {value}" for name, value in run.items()), 0)

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """See Tracker."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def log_sample(self, text: str, step: int) -> None:
        """See Tracker."""
        self._writer.add_text(
            "sample", "\n".join(f"    {line}" for line in text.splitlines()), step
        )  # as Markdown's code

    def finish(self) -> None:
        """See Tracker."""
        self._writer.close()


TRACKERS: dict[str, Callable[[], Tracker]] = {"trackio": Trackio, "tensorboard": TensorBoard}


@contextmanager
def tracked(report: Report, name: str | None, folder: Path, *, resumes: bool) -> Iterator[Report]:
    """Give a report that tells a tracker, too, until the block ends; the same report if `name` is None.

    name: of TRACKERS. folder, resumes: see Tracker.start.
    Raises MissingPackageError if the tracker is not installed.
    """
    if name is None:
        yield report
        return
    try:
        tracker = TRACKERS[name]()
    except ModuleNotFoundError:
        raise MissingPackageError(
            f"--report-to {name} needs {name}, which is not installed: run pip install {name}"
        ) from None
    both = TrackedReport(report, name, tracker, folder, resumes=resumes)
    try:
        yield both
    finally:
        both.finish()


class TrackedReport(Report):
    """A report that tells a tracker, too. If the tracker fails, the run goes on without it."""

    def __init__(self, report: Report, name: str, tracker: Tracker, folder: Path, *, resumes: bool) -> None:
        self._report, self._name, self._folder, self._resumes = report, name, folder, resumes
        self._tracker: Tracker | None = tracker
        self._has_started = False
        self._read = 0  # characters, see Tracker.log
        self._next_loss_at = time.monotonic() + SECONDS_BETWEEN_LOSSES

    def say(self, message: str) -> None:
        """See Report."""
        self._report.say(message)

    def start(self, run: dict[str, Any], unigram_loss: float) -> None:
        """See Report."""
        self._report.start(run, unigram_loss)
        self._has_started = True
        self._tell(lambda tracker: tracker.start(self._folder, run, resumes=self._resumes))

    def start_model(self, run: dict[str, Any], new_symbols: str) -> None:
        """See Report."""
        self._report.start_model(run, new_symbols)

    def start_epoch(self, epoch: int, epochs: int, done: int, total: int) -> None:
        """See Report."""
        self._report.start_epoch(epoch, epochs, done, total)
        if self._read == 0:  # later it is counted: with a time limit, epochs differ in length
            self._read = (epoch - 1) * total + done

    def step(self, chars: int, loss: float, run_seconds_left: float) -> None:
        """See Report."""
        self._report.step(chars, loss, run_seconds_left)
        self._read += chars
        if time.monotonic() >= self._next_loss_at:
            self._next_loss_at = time.monotonic() + SECONDS_BETWEEN_LOSSES
            self._tell(lambda tracker: tracker.log({"epoch_loss_so_far": loss}, self._read))

    def change_total(self, total: int) -> None:
        """See Report."""
        self._report.change_total(total)

    def paused(self, seconds: float) -> None:
        """See Report."""
        self._report.paused(seconds)

    def edit(self, edit: dict[str, Any]) -> None:
        """See Report."""
        self._report.edit(edit)

    def end_epoch(self) -> None:
        """See Report."""
        self._report.end_epoch()

    def epoch(self, record: "EpochRecord", epochs: int, is_best: bool) -> None:
        """See Report."""
        self._report.epoch(record, epochs, is_best)
        figures = {name: value for name, value in record.items() if name in LOGGED and isinstance(value, float | int)}
        self._tell(lambda tracker: tracker.log({"epoch": record["epoch"], **figures}, self._read))
        self._tell(lambda tracker: tracker.log_sample(record["sample"], self._read))

    def finish(self) -> None:
        """Let the tracker store everything."""
        if self._has_started:
            self._tell(lambda tracker: tracker.finish())

    def _tell(self, action: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            with redirect_stdout(sys.stderr):  # where messages belong: standard output may hold JSON
                action(self._tracker)
        except Exception as error:  # of any kind: a disk that is full, a server that cannot be reached, a defect
            self._tracker = None
            reason = printable(str(error) or type(error).__name__)
            self.say(f"warning: {self._name} failed ({reason}); the training goes on without it")
