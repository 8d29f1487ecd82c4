"""The folder of a run: locked against a second training, tried for writing, and searched for a run to resume."""

import errno
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charlm.errors import ModelFileError, RequestError, TrainingError
from charlm.model.folder import LEFTOVER_PREFIX, MODEL_FILES, clear_leftovers, make_folder, read_model
from charlm.model.history import HistoryRecord

from .checkpoint import Checkpoint, load_checkpoint

# What may differ in a resumed run: where it runs and what its text is called, not what it computes.
MAY_DIFFER = {"device", "precision", "torch", "text"}


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

    def acquire(self, out: Path) -> None:
        """Lock a folder, made if need be. Raises RequestError if another training has locked it, or it can be none."""
        if os.path.lexists(out) and not os.path.isdir(out):
            raise RequestError(f"{out} is a file; give a folder as --out")
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


def prepare_folder(out: Path) -> None:
    """Remove what a killed run left half written, and try to write as `save_checkpoint` will after hours of training.

    Raises RequestError if this user cannot write there, TrainingError if the disk is full.
    """
    clear_leftovers(out)
    try:
        with tempfile.TemporaryDirectory(prefix=LEFTOVER_PREFIX, dir=out) as folder:
            Path(folder, "new").write_bytes(b"checkpoint")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TrainingError(f"cannot write to {out} ({error.strerror}); make room and begin again") from None
        raise RequestError(f"cannot write to {out} ({error.strerror}); choose another --out") from None


@dataclass(frozen=True)
class BegunRun:
    """A run that is in a folder already.

    run: as in history.json. Either it has a checkpoint to resume from, or the history of its model: then it has ended.
    """

    run: dict[str, Any]
    checkpoint: Checkpoint | None = None
    history: HistoryRecord | None = None


def find_begun_run(out: Path, resume: bool) -> BegunRun | None:
    """Return the run to resume in `out`, or None to begin anew.

    Raises RequestError if a new run would overwrite what is there, or nothing there can be resumed.
    """
    checkpoint = load_checkpoint(out)
    present = [name for name in MODEL_FILES if (out / name).exists()]
    if checkpoint is not None:
        if not resume:
            raise RequestError(f"{out} holds an unfinished run; continue it with --resume or choose another --out")
        return BegunRun(checkpoint.values["run"], checkpoint)
    if not present:
        return None
    if not resume:
        raise RequestError(f"{out} already holds {', '.join(present)}; choose another --out")
    try:
        history = read_model(out).history
    except ModelFileError as error:
        raise RequestError(f"{error}; there is no checkpoint to resume from either: choose another --out") from None
    if history is None:
        raise RequestError(f"{out} holds a model without a record; choose another --out")
    return BegunRun(history["run"], history=history)


def check_same_run(begun: BegunRun, run: dict[str, Any], out: Path) -> None:
    """Raise RequestError if a begun run has another text or setting than `run`, or has ended before its last epoch."""
    for name in run | begun.run:  # the settings that the user gave come first, then those that follow from them
        if name not in MAY_DIFFER and begun.run.get(name) != run.get(name):
            raise RequestError(
                f"{out} holds a run with {name} {begun.run.get(name)!r}, not {run.get(name)!r}; "
                "resume with the settings it was started with, or choose another --out"
            )
    if begun.history is not None and (measured := len(begun.history["epochs"])) < run["epochs"]:
        raise RequestError(
            f"{out} holds a model of {measured} of {run['epochs']} epochs, and no checkpoint to go on from; "
            "choose another --out, or delete the model there to begin anew"
        )
