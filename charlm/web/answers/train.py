"""The answers of the view *Train*: a model of the visitor's own text, trained by `python -m train fit`.

One training runs at a time, in a folder of its own. It is a child process, so that a crash does not reach the app, with
the lowest priority and one thread, so that it slows the visitors who are writing as little as possible. On ZeroGPU it
is a call that borrows a GPU, and a child process only if the visitor chooses the CPU.
"""

import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic
from typing import IO, Any, NamedTuple

from charlm import zero_gpu
from charlm.errors import CharLMError, RequestError
from charlm.installation import PACKAGE, import_training, training_package
from charlm.lm import CharLM
from charlm.model.cells import CELLS
from charlm.model.config import CONFIG_FILE
from charlm.model.folder import MODEL_FILES
from charlm.model.history import CURVES, EpochRecord
from charlm.web.models import ServedModel

ROOT = PACKAGE.parent  # the folder that Python has to search for charlm and for the training package
TEXT_FILE, RUN_FOLDER, START_FOLDER = (
    "my-text.txt",
    "run",
    "start",
)  # relative to the training's folder, so that messages show no path of ours

LARGEST_TEXT = 1_000_000  # bytes of UTF-8
SHORTEST_TEXT = 1_000  # characters
MINUTES = 5.0
MOST_WAITING = 8
PROGRESS_SECONDS = 0.5  # between two values of a stream

# The estimated time of a training on a borrowed GPU; one that takes longer is interrupted before the GPU is taken away.
GPU_START_SECONDS = 12  # until CUDA is ready, and to end
GPU_STEP_SECONDS, STEP_CHARACTERS, FEWEST_STEPS = 0.006, 64 * 128, 32  # of an epoch
GPU_EPOCH_SECONDS = 1.5  # for measuring, a sample and saving
GPU_FACTOR = 4  # as many characters as on the CPU, if there is time for them
# After an interrupt, for a training to save its model before it is killed: long, since a child process of the lowest
# priority hardly computes while visitors write. On a GPU, for the call to end: not long, since it may wait for a GPU.
INTERRUPT_SECONDS, INTERRUPT_GPU_SECONDS = 60.0, 10.0

# The child gets only these variables of the app's environment; in particular not the owner's token for the Hub. With
# those of KERNELS it finds the kernels that the app has compiled.
KERNELS = ("XDG_CACHE_HOME", "CC", "CHARLM_KERNELS")
ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", *KERNELS)


Settings = dict[str, Any]  # fields of TrainConfig
FitEvent = dict[str, Any]  # of train/report.py and train/events.py
FitOnGpu = Callable[[Path, Path, Settings, float], Iterator[FitEvent]]  # the signature of `train.events.fit_events`


@dataclass(frozen=True)
class Preset:
    """A size of model, and how much text it is trained on.

    characters: to read over all epochs: many epochs of a short text, few of a long one. More helps such a model
        little.
    duration: of reading them, on one core of a machine with fast bfloat16.
    gpu_seconds: for which a GPU is borrowed at most. A visitor without an account has two minutes a day.
    """

    label: str
    layers: int
    hidden: int
    characters: int
    duration: str
    gpu_seconds: int

    def describe(self, *, on_gpu: bool) -> str:
        """Return the label with how long a training takes."""
        return f"{self.label}, " + (f"up to {self.gpu_seconds} s of GPU time" if on_gpu else self.duration)


PRESETS = {
    "small": Preset("small: 1 × 128", 1, 128, 2_700_000, "about a minute", 30),
    "medium": Preset("medium: 1 × 256", 1, 256, 3_000_000, "about two minutes", 45),
    "large": Preset("large: 2 × 256", 2, 256, 4_000_000, "about four minutes", 60),
}
SHORTEST_RUN, LONGEST_RUN = 3, 100  # epochs
# A training that begins with a model has few epochs, as many as a core can do in about two minutes, and at least one.
MOST_EPOCHS, START_WORK = 5, 1.6e12  # parameters times characters read
# The best of what was tried on short texts: a higher learning rate than the recipe of the long runs, little dropout.
LEARNING_RATE_FACTOR, DROPOUT = 2.0, 0.1


@dataclass
class Progress:
    """The state of a training.

    message: a line about it.
    epochs: the records so far.
    points: how many epochs are done, as a fraction, and the training loss there.
    before: the validation loss before the first step, of a training that begins with a model.
    lm: the finished model, None before.
    package: a zip of its folder, None before; the file exists until the next value of the stream is asked for.
    offers_cpu: whether no GPU was to be had, and the CPU is left.
    """

    message: str
    epochs: list[EpochRecord] = field(default_factory=list)
    points: list[tuple[float, float]] = field(default_factory=list)
    before: float | None = None
    lm: CharLM | None = None
    package: Path | None = None
    offers_cpu: bool = False

    def take(self, event: FitEvent) -> None:
        """Update it with an event of the training, as train/report.py explains them."""
        match event["event"]:
            case "start":
                self.before = event["run"].get("before", {}).get("val_loss")
            case "step":
                done = event["epoch"] - 1 + event["done"]
                self.points.append((done, event["loss"]))
                left = max(event["seconds_left"], 0)
                self.message = f"training: {done:.1f} epochs, loss {event['loss']:.3f}, {left:.0f} s left"
            case "epoch":
                self.epochs.append(event["record"])

    @property
    def curves(self) -> dict[str, Any]:
        """The losses as a chart: of the training within the epochs, of the validation before them and after each."""
        training = [list(point) for point in self.points]
        validation = [[epoch["epoch"], epoch["val_loss"]] for epoch in self.epochs]
        if self.before is not None:
            validation.insert(0, [0, self.before])
        return {
            "x": {"title": "epoch", "one": "epoch"},
            "y": {"title": "loss (nats per character)"},
            "series": [
                {"name": CURVES["train_loss"], "colour": 1, "points": training},
                {"name": CURVES["val_loss"], "colour": 0, "points": validation},
            ],
        }


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
        self._queue: list[Event] = []  # one event for each training, set when it is its turn; the first one runs
        self._stops: dict[str, Event] = {}  # by visitor
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
    ) -> Iterator[Progress]:
        """Train a model; yield its progress every PROGRESS_SECONDS and at the end. Closing the iterator kills it.

        visitor: whose `stop` ends the training early. on_cpu: even where a GPU can be borrowed. start: the model to
        begin with, which has a cell and a size of its own; None for random weights.
        Raises RequestError for a text, cell or size that cannot be trained, if the visitor trains already, or if the
        queue is full.
        """
        text, on_gpu = check_training_text(text), self.borrows_gpu and not on_cpu
        if start is not None:
            settings, seconds = start_settings(len(text), start, on_gpu=on_gpu)
        elif on_gpu:
            settings, seconds = gpu_settings(len(text), cell, size)
        else:
            settings, seconds = fit_settings(len(text), cell, size), 0
        with self._queued(visitor) as (turn, stop):
            while not turn.wait(PROGRESS_SECONDS) and not stop.is_set():
                yield Progress(f"waiting: number {self._queue.index(turn)} in the queue")
            if stop.is_set():
                yield Progress("stopped in the queue, before it began")
                return
            with _training_folder(text, start) as folder:
                yield from self._run(folder, settings, seconds, stop)

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

    def _run(self, folder: Path, settings: Settings, gpu_seconds: int, stop: Event) -> Iterator[Progress]:
        """Train in a folder until it is done, stopped, or out of time."""
        progress = Progress("waiting for a GPU" if gpu_seconds else "starting")
        deadline = monotonic() + 60 * self.minutes
        with self._start(folder, settings, gpu_seconds, progress) as training:
            while training.is_running() and not stop.is_set() and monotonic() < deadline:
                yield progress
                stop.wait(PROGRESS_SECONDS)
            if was_stopped := training.is_running():
                progress.message = "stopping"
                yield progress
            training.interrupt()
            ending = training.ending()
        if was_stopped:
            ending = ended_early("stopped" if stop.is_set() else f"the {self.minutes:g} minutes are over")
        yield self._finish(folder, progress, ending)

    def _start(
        self, folder: Path, settings: Settings, gpu_seconds: int, progress: Progress
    ) -> AbstractContextManager["ChildProcess | BorrowedGpu"]:
        if self._fit_on_gpu is None or gpu_seconds == 0:
            return _training_process(folder, fit_arguments(settings), progress)
        if "init_from" in settings:
            settings = settings | {"init_from": str(folder / settings["init_from"])}
        call = partial(self._fit_on_gpu, folder / TEXT_FILE, folder / RUN_FOLDER, settings, gpu_seconds)
        return _training_call(call, gpu_seconds, progress)

    def _finish(self, folder: Path, progress: Progress, ending: "Ending") -> Progress:
        """Return how a training ended, with the model of its best epoch if there is one."""
        run = folder / RUN_FOLDER
        if not (run / CONFIG_FILE).exists():
            progress.message, progress.offers_cpu = ending.without_model, ending.offers_cpu
            return progress
        try:
            progress.lm = CharLM.from_pretrained(run, device=self._device)
        except CharLMError:
            progress.message = "the training failed: its model cannot be read"
            return progress
        if progress.lm.history is None:
            progress.message = f"{ending.with_model}: the model is there, but its training record cannot be read"
        else:
            best = progress.lm.history["best"]
            about = f"epoch {best['epoch']}, validation loss {best['val_loss']:.4f}"
            progress.message = f"{ending.with_model}: the model is that of {about}"
        try:
            progress.package = pack(run, folder / "my-model.zip")
        except OSError as error:
            progress.message += no_download(error)
        return progress


def no_download(error: OSError) -> str:
    """Say why a model that was trained cannot be downloaded."""
    return f"; its download cannot be written ({error.strerror or type(error).__name__})"


def pack(folder: Path, path: Path) -> Path:
    """Write a zip of a model folder: its five files in one folder, ready for the command `push`."""
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


def fit_settings(characters: int, cell: object, size: object) -> Settings:
    """Return the settings of a training on the CPU, on a text of so many characters: fields of TrainConfig.

    Raises RequestError for a cell or a size that does not exist.
    """
    if not isinstance(cell, str) or cell not in CELLS:
        raise RequestError(f"there is no cell {cell!r:.40}; choose one of {', '.join(CELLS)}")
    if not isinstance(size, str) or size not in PRESETS:
        raise RequestError(f"there is no size {size!r:.40}; choose one of {', '.join(PRESETS)}")
    preset = PRESETS[size]
    return {
        "cell": cell,
        "epochs": min(max(preset.characters // characters, SHORTEST_RUN), LONGEST_RUN),
        "num_layers": preset.layers,
        "hidden_size": preset.hidden,
        "embedding_size": preset.hidden // 2,
        "dropout": DROPOUT,
        "embedding_dropout": 0,
        "lr": LEARNING_RATE_FACTOR * CELLS[cell].recipe.lr,
        "device": "cpu",
    }


def gpu_settings(characters: int, cell: object, size: object) -> tuple[Settings, int]:
    """Return the settings of a training on a borrowed GPU, and the seconds that it may take there.

    Raises RequestError for a cell or a size that does not exist.
    """
    settings, preset = fit_settings(characters, cell, size), PRESETS[str(size)]
    wanted = min(max(GPU_FACTOR * preset.characters // characters, SHORTEST_RUN), LONGEST_RUN)
    return _on_gpu(settings | {"epochs": wanted}, characters, preset)


def _on_gpu(settings: Settings, characters: int, preset: Preset) -> tuple[Settings, int]:
    """Return settings with no more epochs than there is time for on a borrowed GPU, and the seconds that they take."""
    epoch = GPU_EPOCH_SECONDS + GPU_STEP_SECONDS * max(characters / STEP_CHARACTERS, FEWEST_STEPS)
    most = preset.gpu_seconds - GPU_START_SECONDS
    epochs = max(min(settings["epochs"], int(most / epoch)), 1)
    # in the call CUDA is there, and auto takes it
    return settings | {"epochs": epochs, "device": "auto"}, math.ceil(min(epochs * epoch, most))


def start_settings(characters: int, start: ServedModel, *, on_gpu: bool = False) -> tuple[Settings, int]:
    """Return the settings of a training that begins with a model, and the seconds that it may take on a borrowed GPU.

    Raises RequestError if one epoch takes too long on the CPU.
    """
    settings: Settings = {"init_from": start_folder(start), "epochs": MOST_EPOCHS, "device": "cpu"}
    if on_gpu:
        return _on_gpu(settings, characters, PRESETS["large"])
    parameters = start.lm.config.parameters
    most = int(START_WORK / parameters)
    if characters > most:
        raise RequestError(
            f"this text is too long to go on from {start.name} here, a model of {parameters:,} parameters: "
            f"give at most {most:,} characters, or start from random weights"
        )
    return settings | {"epochs": min(most // characters, MOST_EPOCHS)}, 0


def start_folder(start: ServedModel) -> str:
    """Return where a training finds the model to begin with, relative to its folder; its record has the last name."""
    name = re.sub(r"[^\w.-]", "-", start.name.partition("@")[0].rpartition("/")[2]).strip(".-")
    return f"./{START_FOLDER}/{name or 'model'}"


def fit_on_gpu() -> FitOnGpu | None:
    """Return `train.events.fit_events` in the form that borrows a GPU; None unless this is a Space on ZeroGPU."""
    if not zero_gpu.on_zero_gpu():
        return None

    def seconds(text: Path, out: Path, settings: Settings, seconds: float) -> float:
        return seconds + GPU_START_SECONDS

    return zero_gpu.mark(import_training("events").fit_events, seconds)


def fit_arguments(settings: Settings) -> list[str]:
    """Return the arguments of `python -m train fit` for these settings."""
    return [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]


@contextmanager
def _training_folder(text: str, start: ServedModel | None = None) -> Iterator[Path]:
    """Make a folder with the text and the model to begin with. Raises RequestError if it cannot be written."""
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            Path(folder, TEXT_FILE).write_text(text, encoding="utf-8", newline="")
            if start is not None:
                start.lm.save_pretrained(Path(folder, start_folder(start)), samples={})
        except OSError as error:
            raise RequestError(
                f"this server cannot write the files of a training ({error.strerror}): tell its owner"
            ) from None
        yield Path(folder)


class Ending(NamedTuple):
    """What to say of a training that has ended, with and without a model, and whether to offer the CPU without one."""

    with_model: str
    without_model: str
    offers_cpu: bool = False


def ended_early(why: str, *, offers_cpu: bool = False) -> Ending:
    """Return the ending of a training that was interrupted."""
    return Ending(why, f"{why}, before its first epoch", offers_cpu)


def ended(problem: str) -> Ending:
    """Return the ending of a training that came to its end, or failed with this problem; it may be empty."""
    return Ending("done", "the training failed" + (f": {problem:.300}" if problem else ""))


class ChildProcess:
    """A training in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]", errors: Path) -> None:
        """errors: where the process writes what it says to people."""
        self._process, self._errors = process, errors

    def is_running(self) -> bool:
        """Tell whether the training goes on."""
        return self._process.poll() is None

    def interrupt(self) -> None:
        """Interrupt the training as Ctrl-C does, and give it time to save its model."""
        if self.is_running():
            self._process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(INTERRUPT_SECONDS)

    def ending(self) -> Ending:
        """Return how the training ended unless it was interrupted."""
        said = self._errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return ended(said[-1] if said else "")


@contextmanager
def _training_process(folder: Path, arguments: list[str], progress: Progress) -> Iterator[ChildProcess]:
    """Start `python -m train fit` in a folder and update the progress from its output; kill it at the end."""
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    paths, errors = ["--text", TEXT_FILE, "--out", RUN_FOLDER, "--json-lines"], folder / "errors.txt"
    with (
        open(errors, "w", encoding="utf-8") as said,
        subprocess.Popen(
            [sys.executable, "-m", training_package(), "fit", *paths, *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,  # if the app dies, the broken pipe ends the training
            stderr=said,
            text=True,
            encoding="utf-8",
        ) as process,
    ):
        assert process.stdout is not None
        reader = Thread(target=_read_lines, args=(process.stdout, progress), daemon=True)
        reader.start()
        try:
            if hasattr(os, "setpriority"):
                with suppress(OSError):
                    os.setpriority(os.PRIO_PROCESS, process.pid, 19)
            yield ChildProcess(process, errors)
        finally:
            process.kill()
            reader.join()


def _read_lines(lines: IO[str], progress: Progress) -> None:
    """Update the progress from the JSON lines of a training, until it ends."""
    for line in lines:
        progress.take(json.loads(line))


class BorrowedGpu:
    """A training in a call that borrows a GPU."""

    def __init__(self, call: Callable[[], Iterator[FitEvent]], seconds: int, progress: Progress) -> None:
        """seconds: of the training."""
        self._seconds, self._progress = seconds, progress
        self._last: FitEvent = {"event": ""}
        self._call = zero_gpu.Call(call, self._take)

    def _take(self, event: FitEvent) -> None:
        self._last = event
        self._progress.take(event)

    def is_running(self) -> bool:
        """Tell whether the training goes on, or waits for a GPU."""
        return self._call.is_running()

    def interrupt(self) -> None:
        """Interrupt the training, and give it time to save its model."""
        self._call.stop(INTERRUPT_GPU_SECONDS)

    def ending(self) -> Ending:
        """Return how the training ended unless it was interrupted by a visitor."""
        if self._call.problem:
            return Ending(self._call.problem, self._call.problem, offers_cpu=True)
        if self._last["event"] == "time is over":
            return ended_early(f"the {self._seconds:g} s of GPU time are over", offers_cpu=True)
        return ended(self._last.get("message", ""))


@contextmanager
def _training_call(call: Callable[[], Iterator[FitEvent]], seconds: int, progress: Progress) -> Iterator[BorrowedGpu]:
    """Start a training on a borrowed GPU; interrupt it at the end."""
    training = BorrowedGpu(call, seconds, progress)
    try:
        yield training
    finally:
        training.interrupt()
