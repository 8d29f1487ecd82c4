"""The folder of a run: one training at a time in it; empty, or with a checkpoint or a model of the same run."""

import errno
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from charlm.errors import ModelFileError, RequestError, TrainingError
from charlm.model.folder import LEFTOVER_PREFIX, MODEL_FILES, clear_leftovers, make_folder, read_model
from charlm.model.history import HistoryRecord
from train.checkpoint import Checkpoint, load_checkpoint

# Settings that a resumed run may change: where it runs, not what it computes.
MAY_DIFFER = {"device", "precision", "torch"}


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


def find_checkpoint(out: Path, resume: bool) -> Checkpoint | None:
    """Return the checkpoint to resume from, or None to begin anew.

    Raises RequestError if a new run would overwrite something in `out`.
    """
    checkpoint = load_checkpoint(out)
    if not resume:
        if checkpoint is not None:
            raise RequestError(f"{out} holds an unfinished run; continue it with --resume or choose another --out")
        if present := [name for name in MODEL_FILES if (out / name).exists()]:
            raise RequestError(f"{out} already holds {', '.join(present)}; choose another --out")
    return checkpoint


def find_history(out: Path) -> HistoryRecord | None:
    """Return the record of the model in `out`, or None if there is no model. Raises RequestError if it has none."""
    if not any((out / name).exists() for name in MODEL_FILES):
        return None
    try:
        history = read_model(out).history
    except ModelFileError as error:
        raise RequestError(f"{error}; there is no checkpoint to resume from either: choose another --out") from None
    if history is None:
        raise RequestError(f"{out} holds a model without a record; choose another --out")
    return history


def check_finished(history: HistoryRecord, out: Path) -> None:
    """Raise RequestError if epochs are missing from the record of a run."""
    if (measured := len(history["epochs"])) < (epochs := history["run"]["epochs"]):
        raise RequestError(
            f"{out} holds a model of {measured} of {epochs} epochs, and no checkpoint to go on from; "
            "choose another --out, or delete the model there to begin anew"
        )


def check_same_run(before: dict[str, Any], now: dict[str, Any], out: Path) -> None:
    """Raise RequestError if the `run` of a history.json names another text or setting than this one."""
    for name in now | before:  # the settings that the user gave come first, then those that follow from them
        if name not in MAY_DIFFER and before.get(name) != now.get(name):
            raise RequestError(
                f"{out} holds a run with {name} {before.get(name)!r}, not {now.get(name)!r}; "
                "resume with the settings it was started with, or choose another --out"
            )
