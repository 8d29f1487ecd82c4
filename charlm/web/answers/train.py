"""The answers of the view *Train*: a model of the visitor's own text, trained by `python -m train fit`.

One training runs at a time. It is a child process in a folder of its own, so that a crash does not reach the app, with
the lowest priority and one thread, so that it slows the visitors who are writing as little as possible.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic
from typing import IO, Any

from charlm.errors import CharLMError, RequestError
from charlm.installation import training_package
from charlm.lm import CharLM
from charlm.model.cells import CELLS
from charlm.model.config import CONFIG_FILE
from charlm.model.folder import MODEL_FILES
from charlm.model.history import CURVES, EpochRecord

ROOT = Path(__file__).parents[3]  # the folder that Python has to search for charlm and for the training package
TEXT_FILE, RUN_FOLDER = "my-text.txt", "run"  # relative to the training's folder, so that messages show no path of ours

LARGEST_TEXT = 1_000_000  # bytes of UTF-8
SHORTEST_TEXT = 1_000  # characters
MINUTES = 5.0
MOST_WAITING = 8
PROGRESS_SECONDS = 0.5  # between two values of a stream
INTERRUPT_SECONDS = 10.0  # for a training to save its model after an interrupt, before it is killed

# The child gets only these variables of the app's environment; in particular not the owner's token for the Hub.
ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR")


@dataclass(frozen=True)
class Preset:
    """A size of model, and how much text it is trained on.

    characters: to read over all epochs: many epochs of a short text, few of a long one. More helps such a model
        little; reading them takes as long as the label says, on one core of a machine with fast bfloat16.
    """

    label: str
    layers: int
    hidden: int
    characters: int


PRESETS = {
    "small": Preset("small: 1 × 128, about a minute", 1, 128, 2_700_000),
    "medium": Preset("medium: 1 × 256, about two minutes", 1, 256, 3_000_000),
    "large": Preset("large: 2 × 256, about four minutes", 2, 256, 4_000_000),
}
SHORTEST_RUN, LONGEST_RUN = 3, 100  # epochs
# The best of what was tried on short texts: a higher learning rate than the recipe of the long runs, little dropout.
LEARNING_RATE_FACTOR, DROPOUT = 2.0, 0.1


@dataclass
class Progress:
    """The state of a training.

    message: a line about it.
    epochs: the records so far.
    points: how many epochs are done, as a fraction, and the training loss there.
    lm: the finished model, None before.
    package: a zip of its folder, None before; the file exists until the next value of the stream is asked for.
    """

    message: str
    epochs: list[EpochRecord] = field(default_factory=list)
    points: list[tuple[float, float]] = field(default_factory=list)
    lm: CharLM | None = None
    package: Path | None = None

    @property
    def curves(self) -> list[dict[str, Any]]:
        """The losses as rows: epoch, loss, curve."""
        rows = [{"epoch": at, "loss": loss, "curve": CURVES["train_loss"]} for at, loss in self.points]
        return rows + [
            {"epoch": float(epoch["epoch"]), "loss": epoch["val_loss"], "curve": CURVES["val_loss"]}
            for epoch in self.epochs
        ]


class TrainingQueue:
    """Runs one training at a time, in the order of the requests."""

    def __init__(self, minutes: float = MINUTES, most_waiting: int = MOST_WAITING, device: str = "auto") -> None:
        """minutes: the time limit of a training. device: that finished models run on."""
        self.minutes, self._most_waiting, self._device = minutes, most_waiting, device
        self._queue: list[Event] = []  # one event for each training, set when it is its turn; the first one runs
        self._stops: dict[str, Event] = {}  # by visitor
        self._lock = Lock()

    def train(self, text: object, cell: object, size: object, visitor: str) -> Iterator[Progress]:
        """Train a model; yield its progress every PROGRESS_SECONDS and at the end. Closing the iterator kills it.

        visitor: whose `stop` ends the training early. Raises RequestError for a text, cell or size that cannot be
        trained, if the visitor trains already, or if the queue is full.
        """
        text = check_training_text(text)
        arguments = fit_arguments(len(text), cell, size)
        with self._queued(visitor) as (turn, stop):
            while not turn.wait(PROGRESS_SECONDS) and not stop.is_set():
                yield Progress(f"waiting: number {self._queue.index(turn)} in the queue")
            if stop.is_set():
                yield Progress("stopped in the queue, before it began")
                return
            with _training_folder(text) as folder:
                yield from self._run(folder, arguments, stop)

    def stop(self, visitor: str) -> None:
        """End the training of a visitor early; the model of its best epoch so far is kept."""
        with self._lock:
            if visitor in self._stops:
                self._stops[visitor].set()

    @contextmanager
    def _queued(self, visitor: str) -> Iterator[tuple[Event, Event]]:
        """Wait in the queue; give the events that are set when it is this training's turn, and when it is stopped."""
        turn, stop = Event(), Event()
        with self._lock:
            if len(self._queue) > self._most_waiting:
                raise RequestError(f"{len(self._queue)} trainings are ahead of this one: try again in some minutes")
            if visitor in self._stops:
                raise RequestError("your training is still going on: stop it before you begin another")
            self._queue.append(turn)
            self._stops[visitor] = stop
            self._queue[0].set()
        try:
            yield turn, stop
        finally:
            with self._lock:
                self._queue.remove(turn)
                del self._stops[visitor]
                if self._queue:
                    self._queue[0].set()

    def _run(self, folder: Path, arguments: list[str], stop: Event) -> Iterator[Progress]:
        """Train in a folder until it is done, stopped, or out of time."""
        progress = Progress("starting")
        deadline = monotonic() + 60 * self.minutes
        with _training_process(folder, arguments, progress) as process:
            while process.poll() is None and not stop.is_set() and monotonic() < deadline:
                yield progress
                stop.wait(PROGRESS_SECONDS)
            if was_stopped := process.poll() is None:
                progress.message = "stopping"
                yield progress
            _interrupt(process)
        end = "done" if not was_stopped else "stopped" if stop.is_set() else f"the {self.minutes:g} minutes are over"
        yield self._finish(folder, progress, end)

    def _finish(self, folder: Path, progress: Progress, end: str) -> Progress:
        """Return how a training ended, with the model of its best epoch if there is one."""
        run = folder / RUN_FOLDER
        if not (run / CONFIG_FILE).exists():
            said = (folder / "errors.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            reason = f": {said[-1]:.300}" if said and end == "done" else ""
            progress.message = "the training failed" + reason if end == "done" else f"{end}, before its first epoch"
            return progress
        try:
            progress.lm = CharLM.from_pretrained(run, device=self._device)
        except CharLMError:
            progress.message = "the training failed: its model cannot be read"
            return progress
        if progress.lm.history is None:
            progress.message = f"{end}: the model is there, but its training record cannot be read"
        else:
            best = progress.lm.history["best"]
            about = f"epoch {best['epoch']}, validation loss {best['val_loss']:.4f}"
            progress.message = f"{end}: the model is that of {about}"
        try:
            progress.package = pack(run, folder / "my-model.zip")
        except OSError as error:
            progress.message += no_download(error)
        return progress


def no_download(error: OSError) -> str:
    """Say why a model that was trained cannot be downloaded."""
    return f"; its download cannot be written ({error.strerror or type(error).__name__})"


def pack(folder: Path, path: Path) -> Path:
    """Write a zip of a model folder: its five files in one folder, ready for `python -m train push`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        for name in MODEL_FILES:
            package.write(folder / name, f"{path.stem}/{name}")
    return path


def check_training_text(text: object) -> str:
    """Return a text that a model can be trained on. Raises RequestError if it is too short, too large, or no UTF-8."""
    if not isinstance(text, str) or len(text) < SHORTEST_TEXT:
        raise RequestError(f"the text is too short to learn from: give at least {SHORTEST_TEXT:,} characters")
    try:
        too_large = len(text) > LARGEST_TEXT or len(text.encode()) > LARGEST_TEXT
    except UnicodeEncodeError:
        raise RequestError("the text holds half a character (a lone surrogate): save it as UTF-8 first") from None
    if too_large:
        raise RequestError(f"the text is larger than {LARGEST_TEXT / 1e6:g} MB: train on a part of it")
    return text


def fit_arguments(characters: int, cell: object, size: object) -> list[str]:
    """Return the arguments of `python -m train fit` for a text of so many characters.

    Raises RequestError for a cell or a size that does not exist.
    """
    if not isinstance(cell, str) or cell not in CELLS:
        raise RequestError(f"there is no cell {cell!r:.40}; choose one of {', '.join(CELLS)}")
    if not isinstance(size, str) or size not in PRESETS:
        raise RequestError(f"there is no size {size!r:.40}; choose one of {', '.join(PRESETS)}")
    preset = PRESETS[size]
    settings = {
        "cell": cell,
        "epochs": min(max(preset.characters // characters, SHORTEST_RUN), LONGEST_RUN),
        "num-layers": preset.layers,
        "hidden-size": preset.hidden,
        "embedding-size": preset.hidden // 2,
        "dropout": DROPOUT,
        "embedding-dropout": 0,
        "lr": LEARNING_RATE_FACTOR * CELLS[cell].recipe.lr,
        "device": "cpu",
    }
    return [part for name, value in settings.items() for part in (f"--{name}", str(value))]


@contextmanager
def _training_folder(text: str) -> Iterator[Path]:
    """Make a folder with the text. Raises RequestError if it cannot be written."""
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            Path(folder, TEXT_FILE).write_text(text, encoding="utf-8", newline="")
        except OSError as error:
            raise RequestError(
                f"this server cannot write the files of a training ({error.strerror}): tell its owner"
            ) from None
        yield Path(folder)


@contextmanager
def _training_process(folder: Path, arguments: list[str], progress: Progress) -> Iterator["subprocess.Popen[str]"]:
    """Start `python -m train fit` in a folder and update the progress from its output; kill it at the end."""
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    paths = ["--text", TEXT_FILE, "--out", RUN_FOLDER, "--json-lines"]
    with (
        open(folder / "errors.txt", "w", encoding="utf-8") as errors,
        subprocess.Popen(
            [sys.executable, "-m", training_package(), "fit", *paths, *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,  # if the app dies, the broken pipe ends the training
            stderr=errors,
            text=True,
            encoding="utf-8",
        ) as process,
    ):
        assert process.stdout is not None
        reader = Thread(target=_read_events, args=(process.stdout, progress), daemon=True)
        reader.start()
        try:
            if hasattr(os, "setpriority"):
                with suppress(OSError):
                    os.setpriority(os.PRIO_PROCESS, process.pid, 19)
            yield process
        finally:
            process.kill()
            reader.join()


def _read_events(lines: IO[str], progress: Progress) -> None:
    """Update the progress from the JSON lines of a training, until it ends."""
    for line in lines:
        event = json.loads(line)
        match event["event"]:
            case "step":
                done = event["epoch"] - 1 + event["done"]
                progress.points.append((done, event["loss"]))
                progress.message = (
                    f"training: {done:.1f} epochs, loss {event['loss']:.3f}, {max(event['seconds_left'], 0):.0f} s left"
                )
            case "epoch":
                progress.epochs.append(event["record"])


def _interrupt(process: "subprocess.Popen[str]") -> None:
    """Interrupt a training as Ctrl-C does, and give it time to save its model."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(INTERRUPT_SECONDS)
