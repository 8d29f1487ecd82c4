"""Where a training on the page runs: in a process of its own, or in a call that borrows a GPU.

A process has the lowest priority and one thread, so that it slows the visitors who are writing as little as possible,
and its crash does not reach the app. Both kinds are interrupted, and told what their visitor asks for, in the same way.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Lock, Thread
from typing import IO, Any, NamedTuple

from charlm import zero_gpu
from charlm.errors import RequestError
from charlm.installation import PACKAGE, import_training, training_package
from charlm.web.models import ServedModel
from charlm.web.training.settings import GPU_START_SECONDS, Settings, start_folder

ROOT = PACKAGE.parent  # the folder that Python has to search for charlm and for the training package
# relative to the training's folder, so that messages show no path of the server
TEXT_FILE, RUN_FOLDER, CONTROL_FILE = "my-text.txt", "run", "control.json"
MOST_RATES = 50  # that a visitor may ask for

# The time after an interrupt in which a training saves its model, before it is killed: long, since a process of the
# lowest priority hardly computes while visitors write. A training on a GPU needs less.
INTERRUPT_SECONDS, INTERRUPT_GPU_SECONDS = 60.0, 10.0

# The child gets only these variables of the app's environment; in particular not the owner's token for the Hub. With
# those of KERNELS it finds the kernels that the app has compiled.
KERNELS = ("XDG_CACHE_HOME", "CC", "CHARLM_KERNELS")
ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", *KERNELS)

FitEvent = dict[str, Any]  # of train/report.py and train/events.py
FitOnGpu = Callable[[Path, Path, Settings, float], Iterator[FitEvent]]  # the signature of `train.events.fit_events`
Take = Callable[[FitEvent], None]  # what is done with each event


def fit_on_gpu() -> FitOnGpu | None:
    """Return `train.events.fit_events`, marked to borrow a GPU at each call; None where there is no ZeroGPU."""
    if not zero_gpu.on_zero_gpu():
        return None

    def seconds(text: Path, out: Path, settings: Settings, seconds: float) -> float:
        return seconds + GPU_START_SECONDS

    return zero_gpu.mark(import_training("events").fit_events, seconds)


@contextmanager
def training_folder(text: str, start: ServedModel | None = None) -> Iterator[Path]:
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


class ControlWriter:
    """Writes what a visitor asks of a training to the file that its loop reads between steps, see train/control.py.

    Its methods may be called on several threads.
    """

    def __init__(self) -> None:
        self._paused, self._rates = False, list[float]()
        self._path: Path | None = None
        self._lock = Lock()

    @property
    def has_begun(self) -> bool:
        """Whether there is a training that reads the file."""
        return self._path is not None

    @contextmanager
    def writing_into(self, folder: Path) -> Iterator[None]:
        """Write into the folder of a training until the block ends."""
        self._path = folder / CONTROL_FILE
        try:
            yield
        finally:
            with self._lock:
                self._path = None

    @property
    def is_paused(self) -> bool:
        """Whether the training was asked to wait."""
        return self._paused

    def pause(self, paused: bool) -> None:
        """Ask the training to wait, or to go on. Raises RequestError if the file cannot be written."""
        with self._lock:
            self._write(paused, self._rates)
            self._paused = paused

    def set_learning_rate(self, rate: float) -> None:
        """Ask for a learning rate from the next step on.

        Raises RequestError after MOST_RATES of them, or if the file cannot be written.
        """
        with self._lock:
            if len(self._rates) >= MOST_RATES:
                raise RequestError(f"this training was given {MOST_RATES} learning rates: it takes no more")
            self._write(self._paused, [*self._rates, rate])
            self._rates.append(rate)

    def _write(self, paused: bool, rates: list[float]) -> None:
        if self._path is None:
            return
        content = json.dumps({"paused": paused, "learning_rates": rates})
        unfinished = self._path.with_suffix(".new")
        try:
            unfinished.write_text(content, encoding="utf-8")
            os.replace(unfinished, self._path)
        except OSError as error:
            raise RequestError(f"this server cannot write to the training ({error.strerror}): tell its owner") from None


class Ending(NamedTuple):
    """What to say of a training that has ended: with_model if it has left a model, else without_model.

    offers_cpu: whether to offer a training on the CPU if it has left none. has_failed: whether it failed; it
        may have left a model all the same.
    """

    with_model: str
    without_model: str
    offers_cpu: bool = False
    has_failed: bool = False


DONE = Ending("done", "the training failed: it has left no model")

# What a visitor can do about a training that has failed, by the reason in its event: the page has no options of `fit`.
ADVICE = {"diverged": "choose a smaller size or a lower learning rate", "disk": "tell the owner of this server"}


def ended_early(why: str, *, lacked_time: bool = False, offers_cpu: bool = False) -> Ending:
    """Return the ending of a training that was interrupted. lacked_time: whether its time was over."""
    way_out = ": give a shorter text or choose a smaller size" if lacked_time else ""
    return Ending(why, f"{why}, before its first epoch{way_out}", offers_cpu)


def failed(problem: str, reason: str | None = None) -> Ending:
    """Return the ending of a training that failed. problem, reason: as in its event `failed`."""
    advice = f"; {ADVICE[reason]}" if reason in ADVICE else ""
    why = f"the training failed: {problem:.300}{advice}"
    return Ending(why, why, has_failed=True)


class ChildProcess:
    """A training in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]", errors: Path, take: Take) -> None:
        """errors: the file that takes the standard error of the process."""
        self._process, self._errors, self._pass_on = process, errors, take
        self._failure: FitEvent | None = None
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        """Take the events from the JSON lines of the training, until it ends."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            if event["event"] == "failed":
                self._failure = event
            self._pass_on(event)

    def kill(self) -> None:
        """Kill the process, and wait until its last event has been passed on."""
        self._process.kill()
        self._reader.join()

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
        """Return how the training ended by itself."""
        status = self._process.returncode
        if status == 0:
            return DONE
        self._reader.join()
        if self._failure is not None:
            return failed(self._failure["problem"], self._failure["reason"])
        # what is no CharLMError, such as a lack of memory, is told there alone
        said = self._errors.read_text(encoding="utf-8", errors="replace").splitlines()
        errors = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
        if errors:
            return failed(errors[-1])
        if status < 0:
            return failed("its process was killed, perhaps for lack of memory; choose a smaller size")
        return failed(f"its process ended with status {status}; tell the owner of this server")


@contextmanager
def training_process(folder: Path, arguments: list[str], take: Take) -> Iterator[ChildProcess]:
    """Start `python -m train fit` in a folder and take the events that it prints; kill it at the end.

    Raises RequestError if it cannot be started.
    """
    errors = folder / "errors.txt"
    with ExitStack() as stack:
        try:
            said = stack.enter_context(open(errors, "w", encoding="utf-8"))
            process = stack.enter_context(_start_fit(folder, arguments, said))
        except OSError as error:
            raise RequestError(
                f"this server cannot start a training ({error.strerror}): try again in some minutes, or tell its owner"
            ) from None
        training = ChildProcess(process, errors, take)
        try:
            if hasattr(os, "setpriority"):
                with suppress(OSError):
                    os.setpriority(os.PRIO_PROCESS, process.pid, 19)
            yield training
        finally:
            training.kill()


def _start_fit(folder: Path, arguments: list[str], errors: IO[str]) -> "subprocess.Popen[str]":
    """Start the process. errors: takes its standard error. Raises OSError if there can be no further process."""
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    paths = ["--text", TEXT_FILE, "--out", RUN_FOLDER, "--control", CONTROL_FILE, "--json-lines"]
    return subprocess.Popen(
        [sys.executable, "-m", training_package(), "fit", *paths, *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,  # if the app dies, the broken pipe ends the training
        stderr=errors,
        text=True,
        encoding="utf-8",
    )


class BorrowedGpu:
    """A training in a call that borrows a GPU."""

    def __init__(self, call: Callable[[], Iterator[FitEvent]], seconds: int, take: Take) -> None:
        """seconds: that the training may take."""
        self._seconds, self._pass_on = seconds, take
        self._last: FitEvent = {"event": ""}
        self._call = zero_gpu.Call(call, self._take)

    def _take(self, event: FitEvent) -> None:
        self._last = event
        self._pass_on(event)

    def is_running(self) -> bool:
        """Tell whether the training goes on, or waits for a GPU."""
        return self._call.is_running()

    def interrupt(self) -> None:
        """Interrupt the training, and give it time to save its model unless it still waits for a GPU."""
        self._call.stop(INTERRUPT_GPU_SECONDS if self._last["event"] else 0)

    def abandon(self) -> None:
        """Interrupt the training without waiting for its end."""
        self._call.stop(0)

    def ending(self) -> Ending:
        """Return how the training ended, unless a visitor or the server interrupted it."""
        if self._call.problem:
            return Ending(self._call.problem, self._call.problem, offers_cpu=True, has_failed=True)
        if self._last["event"] == "time is over":
            why = f"the {self._seconds:g} s of GPU time are over"
            return ended_early(why, lacked_time=True, offers_cpu=True)
        return failed(self._last["problem"], self._last["reason"]) if self._last["event"] == "failed" else DONE


@contextmanager
def training_call(
    folder: Path, call: Callable[[], Iterator[FitEvent]], seconds: int, take: Take
) -> Iterator[BorrowedGpu]:
    """Start a training on a borrowed GPU; abandon it at the end.

    That does not wait, because Gradio closes the iterator on the server's event loop when a visitor leaves.
    """
    training = BorrowedGpu(partial(_leave_nothing, folder, call), seconds, take)
    try:
        yield training
    finally:
        training.abandon()


def _leave_nothing(folder: Path, call: Callable[[], Iterator[FitEvent]]) -> Iterator[FitEvent]:
    """Yield the events of a call. If its folder was deleted meanwhile, delete what it has written there since."""
    try:
        yield from call()
    finally:
        if not (folder / TEXT_FILE).exists():
            shutil.rmtree(folder, ignore_errors=True)
