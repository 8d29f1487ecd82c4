"""Training on the page, for the view *Train*: a visitor's text and `python -m train fit`, one training at a time.

Each training is a process of its own, in a folder of its own, so that one that dies takes nothing with it. It has the
lowest priority and a single thread, so that those who write beside it hardly notice.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic
from typing import IO, Any

from charlm.errors import CharLMError, RequestError
from charlm.lm import CharLM
from charlm.model.cells import CELLS
from charlm.model.folder import CONFIG_FILE, MODEL_FILES
from charlm.model.history import CURVES, EpochRecord

ROOT = Path(__file__).parents[3]  # where `train` lies beside `charlm`
TEXT_FILE, RUN_FOLDER = "my-text.txt", "run"  # in the training's folder: no message can name a path of the machine

LARGEST_TEXT = 1_000_000  # bytes of UTF-8
SHORTEST_TEXT = 1_000  # characters
MINUTES = 5.0
MOST_WAITING = 8
UPDATE_SECONDS = 0.5  # between two values of a stream
PATIENCE = 10.0  # seconds for a training to end in order, before it is killed

# What a training needs of the app's environment. The owner's token for the Hub is nothing that it needs.
ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR")


@dataclass(frozen=True)
class Preset:
    """A size of model, and how much it is trained.

    chars: that are read in all, some epochs of a short text or few of a long one; more than that helps such a model
        little, and takes as long as the label says on one core of a machine with fast bfloat16.
    """

    label: str
    layers: int
    hidden: int
    chars: int


PRESETS = {
    "small": Preset("small: 1 × 128, about a minute", 1, 128, 2_700_000),
    "medium": Preset("medium: 1 × 256, about two minutes", 1, 256, 3_000_000),
    "large": Preset("large: 2 × 256, about four minutes", 2, 256, 4_000_000),
}
FEWEST_EPOCHS, MOST_EPOCHS = 3, 100
# Of what was tried on short texts, the best: a higher rate than that of the long runs, and little dropout.
FASTER, DROPOUT = 2.0, 0.1


@dataclass
class Progress:
    """How a training is going.

    message: a line about it. epochs: the records so far. points: epochs done, as a fraction, and the training loss
    there, along the way. lm, package: once there is one, the model, and a zip of its folder which is there until the
    next value is asked for.
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


class TrainingRoom:
    """The place for one training at a time, and the queue before it."""

    def __init__(self, minutes: float = MINUTES, most_waiting: int = MOST_WAITING, device: str = "auto") -> None:
        """minutes: after which a training ends. device: that finished models run on."""
        self.minutes, self._most_waiting, self._device = minutes, most_waiting, device
        self._queue: list[Event] = []
        self._stops: dict[str, Event] = {}
        self._lock = Lock()

    def train(self, text: object, cell: object, size: object, visitor: str) -> Iterator[Progress]:
        """Train a model; yield how it is going, twice a second and at the end. Closing the iterator ends it at once.

        visitor: whose `stop` ends it in order. Raises RequestError for a text, cell or size that there cannot be, or if
        too many wait already.
        """
        text, command = _check(text, cell, size)
        with self._place(visitor) as (turn, stop):
            while not turn.wait(UPDATE_SECONDS) and not stop.is_set():
                yield Progress(f"waiting: number {self._queue.index(turn)} in the queue")
            if not stop.is_set():
                with tempfile.TemporaryDirectory() as folder:
                    Path(folder, TEXT_FILE).write_text(text, encoding="utf-8", newline="")
                    yield from self._run(Path(folder), command, stop)

    def stop(self, visitor: str) -> None:
        """End the training of a visitor; what was trained so far stays."""
        with self._lock:
            if visitor in self._stops:
                self._stops[visitor].set()

    @contextmanager
    def _place(self, visitor: str) -> Iterator[tuple[Event, Event]]:
        """Stand in the queue; give what is set when it is the visitor's turn, and when the visitor has had enough."""
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
                for first in self._queue[:1]:
                    first.set()

    def _run(self, folder: Path, command: list[str], stop: Event) -> Iterator[Progress]:
        progress = Progress("starting")
        deadline = monotonic() + 60 * self.minutes
        with _child(folder, command, progress) as process:
            while process.poll() is None and not stop.is_set() and monotonic() < deadline:
                yield progress
                stop.wait(UPDATE_SECONDS)
            was_stopped = process.poll() is None
            _end(process)
        end = "done" if not was_stopped else "stopped" if stop.is_set() else f"the {self.minutes:g} minutes are over"
        yield self._finish(folder, progress, end)

    def _finish(self, folder: Path, progress: Progress, end: str) -> Progress:
        """Say how a training ended, with the model of its best epoch if there is one."""
        run = folder / RUN_FOLDER
        if not (run / CONFIG_FILE).exists():
            said = (folder / "errors.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            reason = f": {said[-1]:.300}" if said and end == "done" else ""
            progress.message = "the training failed" + reason if end == "done" else f"{end}, before its first epoch"
            return progress
        try:
            progress.lm = CharLM.from_pretrained(run, device=self._device)
            progress.package = pack(run, folder / "my-model.zip")
        except CharLMError:
            progress.message = "the training failed: its model cannot be read"
            return progress
        assert progress.lm.history is not None
        best = progress.lm.history["best"]
        progress.message = f"{end}: the model is that of epoch {best['epoch']}, validation loss {best['val_loss']:.4f}"
        return progress


def pack(folder: Path, path: Path) -> Path:
    """Write a zip of a model folder: its five files, in a folder of their own, ready for `python -m train push`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        for name in MODEL_FILES:
            package.write(folder / name, f"{path.stem}/{name}")
    return path


def _check(text: object, cell: object, size: object) -> tuple[str, list[str]]:
    """Return the text, and the arguments that train a model of it."""
    if not isinstance(text, str) or len(text) < SHORTEST_TEXT:
        raise RequestError(f"the text is too short to learn from: give at least {SHORTEST_TEXT:,} characters")
    try:
        too_large = len(text) > LARGEST_TEXT or len(text.encode()) > LARGEST_TEXT
    except UnicodeEncodeError:
        raise RequestError("the text holds half a character (a lone surrogate): save it as UTF-8 first") from None
    if too_large:
        raise RequestError(f"the text is larger than {LARGEST_TEXT / 1e6:g} MB: train on a part of it")
    if not isinstance(cell, str) or cell not in CELLS:
        raise RequestError(f"there is no cell {cell!r:.40}; choose one of {', '.join(CELLS)}")
    if not isinstance(size, str) or size not in PRESETS:
        raise RequestError(f"there is no size {size!r:.40}; choose one of {', '.join(PRESETS)}")
    preset = PRESETS[size]
    epochs = min(max(preset.chars // len(text), FEWEST_EPOCHS), MOST_EPOCHS)
    settings = {
        "cell": cell,
        "epochs": epochs,
        "num-layers": preset.layers,
        "hidden-size": preset.hidden,
        "embedding-size": preset.hidden // 2,
        "dropout": DROPOUT,
        "embedding-dropout": 0,
        "lr": FASTER * CELLS[cell].recipe.lr,
        "device": "cpu",
    }
    return text, [part for name, value in settings.items() for part in (f"--{name}", str(value))]


@contextmanager
def _child(folder: Path, command: list[str], progress: Progress) -> Iterator["subprocess.Popen[str]"]:
    """Start a training in a folder, and follow it; whatever happens, it is gone afterwards."""
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    where = ["--text", TEXT_FILE, "--out", RUN_FOLDER, "--json-lines"]
    with (
        open(folder / "errors.txt", "w", encoding="utf-8") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "train", "fit", *where, *command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,  # if the app dies, writing to it ends the training
            stderr=errors,
            text=True,
            encoding="utf-8",
        ) as process,
    ):
        assert process.stdout is not None
        reader = Thread(target=_follow, args=(process.stdout, progress), daemon=True)
        reader.start()
        try:
            if hasattr(os, "setpriority"):
                with suppress(OSError):
                    os.setpriority(os.PRIO_PROCESS, process.pid, 19)
            yield process
        finally:
            process.kill()
            reader.join()


def _follow(lines: IO[str], progress: Progress) -> None:
    """Take in what a training says of itself, line by line, until it ends."""
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


def _end(process: "subprocess.Popen[str]") -> None:
    """Let a training end in order, with what it has."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
