"""The folder of a run: locked against a second training, tried for writing, and searched for a run to resume."""

import errno
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from charlm.errors import CharLMError, ModelFileError, RequestError, TrainingError
from charlm.messages import listed
from charlm.model.config import Weights
from charlm.model.folder import LEFTOVER_PREFIX, MODEL_FILES, clear_leftovers, make_folder, read_model
from charlm.model.history import HISTORY_FILE, HistoryRecord
from charlm.model.kept import EPOCHS_FOLDER
from charlm.nearest import nearest_path

from .checkpoint import CHECKPOINT_FILE, Checkpoint, load_checkpoint
from .split import recorded_split

# What may differ in a resumed run: where it runs and what its text is called, not what it computes.
MAY_DIFFER = {"device", "precision", "torch", "text", "texts", "untrained", "rare", "extensions"}
NOTED = ("before", "lr_edits", "paces")  # during a run
DERIVED = ("text_chars", "vocab_size", "parameters")  # from the text and the settings
SHOWN_SHA256 = 8  # hex digits of a text's SHA-256 in a message


class NothingToResumeError(RequestError):
    """The folder of a run to be resumed holds no run."""


class FolderLock:
    """An exclusive lock on a folder, by flock on the open folder: no file, and released however the process ends.

    Where the system or the file system has no such locks (Windows, some network drives), nothing is locked.
    """

    def __init__(self) -> None:
        self._folder: int | None = None

    def __enter__(self) -> "FolderLock":
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            os.close(self._folder)

    def acquire(self, out: Path, resume: bool = False) -> None:
        """Lock a folder. One that does not exist is made, unless a run is to be resumed.

        Raises RequestError if another training has locked it, it is a file, or it cannot be made or read.
        """
        if os.path.lexists(out) and not os.path.isdir(out):
            raise RequestError(f"{out} is a file; give a folder as --out")
        if resume and not os.path.lexists(out):
            raise nothing_to_resume(out)
        make_folder(out)
        if sys.platform == "win32":
            return
        import fcntl

        try:
            folder = os.open(out, os.O_RDONLY)
        except OSError as error:
            raise RequestError(f"cannot read the folder {out} ({error.strerror}); choose another --out") from None
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(folder)
            raise RequestError(
                f"another training is running in {out}; wait until it has ended, or choose another --out"
            ) from None
        except OSError:
            os.close(folder)
        else:
            self._folder = folder


def prepare_folder(out: Path, *, keeps_epochs: bool = False) -> None:
    """Remove what a killed run left half written, and try to write as `save_checkpoint` will after hours of training.

    Raises RequestError if this user cannot write there, TrainingError if the disk is full.
    """
    clear_leftovers(out)
    clear_leftovers(out / EPOCHS_FOLDER)
    try:
        if keeps_epochs:
            (out / EPOCHS_FOLDER).mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=LEFTOVER_PREFIX, dir=out) as folder:
            Path(folder, "new").write_bytes(b"checkpoint")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TrainingError(
                f"cannot write to {out} ({error.strerror})", "make room and give the same command again", "disk"
            ) from None
        raise RequestError(f"cannot write to {out} ({error.strerror}); choose another --out") from None


def holds_run(out: Path) -> bool:
    """Tell whether a folder holds a checkpoint or a file of a model."""
    return any((out / name).exists() for name in (CHECKPOINT_FILE, *MODEL_FILES))


def nothing_to_resume(out: Path) -> NothingToResumeError:
    """Return the error that tells what is in a folder without a run, and which folder was perhaps meant."""
    similar = nearest_path(out, holds_run)
    advice = f"did you mean {similar}? Else begin" if similar else "begin"
    return NothingToResumeError(f"nothing to resume: {out} {_describe_content(out)}; {advice} without --resume")


def _describe_content(folder: Path) -> str:
    if not os.path.isdir(folder):
        return "does not exist"
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return f"holds only {listed(names)}" if names else "is empty"


@dataclass(frozen=True)
class BegunRun:
    """A run that is in a folder already.

    run: as in history.json. It has a checkpoint to resume from, or else the history and the weights of the model.
    """

    run: dict[str, Any]
    checkpoint: Checkpoint | None = None
    history: HistoryRecord | None = None
    weights: Weights | None = None

    @property
    def is_finished(self) -> bool:
        """Whether it has had all of its epochs."""
        return self.history is not None and len(self.history["epochs"]) == self.run.get("epochs")

    def extension(self) -> dict[str, int]:
        """Return the entry of `extensions` in history.json for a run that goes on with more epochs than planned.

        epoch, step: the first step with the learning rate of the longer run. planned_epochs: those planned before.
        weights_of_epoch: only for a finished run, which has no checkpoint: the epoch whose weights it goes on from,
            with a new optimiser.
        """
        planned = {"planned_epochs": self.run["epochs"]}
        if self.checkpoint is not None:
            return {"epoch": self.checkpoint.values["epoch"], "step": self.checkpoint.values["step"]} | planned
        assert self.history is not None
        best = self.history["best"]["epoch"]
        return {"epoch": len(self.history["epochs"]) + 1, "step": 0, **planned, "weights_of_epoch": best}


def check_folder(out: Path, resume: bool) -> None:
    """Raise RequestError if `fit` would refuse a folder, as far as that shows before a file there is read.

    Nothing is made, and the folder is free again afterwards.
    """
    if not resume and not os.path.lexists(out):
        return
    with FolderLock() as lock:
        lock.acquire(out, resume)
        _check_content(out, resume)


def _check_content(out: Path, resume: bool) -> None:
    """Raise RequestError if a new run would overwrite what is in `out`, or there is nothing to resume."""
    present = [name for name in MODEL_FILES if os.path.exists(out / name)]
    has_checkpoint = os.path.exists(out / CHECKPOINT_FILE)
    if resume and not present and not has_checkpoint:
        raise nothing_to_resume(out)
    if has_checkpoint and not resume:
        raise RequestError(
            f"{out} holds an unfinished run; continue it with --resume or choose another --out, "
            f"such as {free_name(out)}"
        )
    if present and not resume:
        further = ", or train it further with --resume and a higher --epochs, unless it was given --minutes"
        raise RequestError(
            f"{out} already holds {', '.join(present)}, which is not overwritten; choose another --out, "
            f"such as {free_name(out)}{further if HISTORY_FILE in present else ''}"
        )


def find_begun_run(out: Path, resume: bool) -> BegunRun | None:
    """Return the run to resume in `out`, or None to begin anew.

    Raises RequestError if a new run would overwrite what is there, or nothing there can be resumed.
    """
    _check_content(out, resume)
    if not resume:
        return None
    if (checkpoint := load_checkpoint(out)) is not None:
        return BegunRun(checkpoint.values["run"], checkpoint)
    try:
        model = read_model(out)
    except ModelFileError as error:
        raise RequestError(f"{error}; there is no checkpoint to resume from either: choose another --out") from None
    if model.history is None:
        raise RequestError(f"{out} holds a model without a record; choose another --out")
    return BegunRun(model.history["run"], history=model.history, weights=model.weights)


def begun_revision(out: Path) -> str | None:
    """Return the commit of the model that the run in a folder began with; None if there is no such run."""
    try:
        begun = find_begun_run(out, resume=True)
    except CharLMError:  # `fit` says what is wrong
        return None
    start = begun.run.get("init_from") if begun is not None else None
    revision = start.get("revision") if isinstance(start, dict) else None
    return revision if isinstance(revision, str) else None


def free_name(out: Path) -> Path:
    """Return the path of a folder that does not exist: that of `out` with a number behind it."""
    named = out if out.name not in ("", "..") else out.resolve()
    paths = (Path(f"{named}-{number}") for number in count(2))
    return next(path for path in paths if not os.path.lexists(path))


def continue_run(begun: BegunRun, run: dict[str, Any], out: Path) -> dict[str, Any]:
    """Return `run` with the `extensions` of a begun run that goes on, one more if it has more epochs than planned.

    And with the losses that were measured before its first step, the learning rates that were asked for meanwhile, and
    the changes that a time limit demanded, if there are such.

    Raises RequestError if the begun run has another text or setting, more epochs, or neither a checkpoint nor all of
    its epochs.
    """
    is_longer = _is_longer(begun, run)
    for name, verb, describe, again in BEGUN_WITH:
        if begun.run.get(name) != run.get(name):
            raise RequestError(
                f"{out} holds a run {verb}{describe(begun.run)}, not {describe(run)}; resume with {again} that it was "
                "started with, or choose another --out"
            )
    if begun.run.get("text_sha256") != run.get("text_sha256"):
        raise RequestError(
            f"{out} holds a run with another text, called {begun.run.get('text')}; resume with the text that it was "
            "started with, unchanged, or choose another --out"
        )
    for name in sorted(run | begun.run, key=DERIVED.__contains__):  # what the user gave comes first
        may_differ = name in MAY_DIFFER or name in NOTED or (name == "epochs" and is_longer)
        if not may_differ and begun.run.get(name) != run.get(name):
            raise RequestError(
                f"{out} holds a run {_describe_setting(name, begun.run)}, not {_describe_setting(name, run)}; resume "
                "with the settings that it was started with (--epochs may grow), or choose another --out"
            )
    if begun.history is not None and not begun.is_finished:
        raise RequestError(
            f"{out} holds a model of {len(begun.history['epochs'])} of {begun.run['epochs']} epochs, and no checkpoint "
            "to go on from; choose another --out, or delete the model there to begin anew"
        )
    extensions = begun.run.get("extensions") or []
    if is_longer:
        extensions = [*extensions, begun.extension()]
    noted = {name: begun.run[name] for name in NOTED if name in begun.run}
    return run | noted | ({"extensions": extensions} if extensions else {})


def _describe_start(run: dict[str, Any]) -> str:
    """Return what a run began with, for a message: `with random weights`."""
    start = run.get("init_from")
    return f"with {_describe_model(start) if isinstance(start, dict) else 'random weights'}"


def _describe_setting(name: str, run: dict[str, Any]) -> str:
    """Return how a setting of a run is given, for a message: `with --lr 0.01`, or `without --lowercase`.

    Of a text its name is given, and the beginning of its SHA-256, since two texts may have the same name.
    """
    value, option = run.get(name), f"--{name.replace('_', '-')}"
    if value is None or value is False:
        return f"without {option}"
    if value is True:
        return f"with {option}"
    if name == "split":
        return f"with {option} {recorded_split(run)}"
    if isinstance(value, dict):  # also_text
        return f"with {option} {value.get('name')} (SHA-256 {str(value.get('text_sha256'))[:SHOWN_SHA256]}…)"
    return f"with {option} {value}"


def _describe_minutes(run: dict[str, Any]) -> str:
    minutes = run.get("minutes")
    return f"with --minutes {minutes:g}" if isinstance(minutes, int | float) else "without --minutes"


def _describe_teachers(run: dict[str, Any]) -> str:
    """Return the teachers of a run, for a message: `by no model`."""
    teachers = run.get("teachers")
    models = [each for each in teachers if isinstance(each, dict)] if isinstance(teachers, list) else []
    return f"by {' and '.join(map(_describe_model, models)) or 'no model'}"


def _describe_model(record: dict[str, Any]) -> str:
    return f"{record.get('name')} ({record.get('revision') or record.get('weights_sha256')})"


# What a resumed run must have in common with the begun one, besides its text and its settings; for the message, the
# verb before its description, and what has to be given again.
BEGUN_WITH: tuple[tuple[str, str, Callable[[dict[str, Any]], str], str], ...] = (
    ("init_from", "that began ", _describe_start, "the --init-from"),
    ("teachers", "taught ", _describe_teachers, "each --teacher"),
    ("minutes", "", _describe_minutes, "the options"),
)


def _is_longer(begun: BegunRun, run: dict[str, Any]) -> bool:
    planned = begun.run.get("epochs")
    return isinstance(planned, int) and run["epochs"] > planned
