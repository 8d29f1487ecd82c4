"""The folder of a run: empty, or with a checkpoint or a finished model of the same run."""

from pathlib import Path
from typing import Any

from charlm.errors import ModelFileError, RequestError
from charlm.model.folder import MODEL_FILES, clear_leftovers, make_folder, read_model
from charlm.model.history import HistoryRecord
from train.checkpoint import Checkpoint, load_checkpoint

# Settings that a resumed run may change: where it runs, not what it computes.
MAY_DIFFER = {"device", "precision", "torch"}


def prepare_folder(out: Path) -> None:
    """Make the folder of a run, and remove what a killed run left half written. Raises RequestError if it cannot."""
    make_folder(out)
    clear_leftovers(out)


def find_checkpoint(out: Path, resume: bool) -> Checkpoint | None:
    """Return the checkpoint to resume from, or None to begin anew.

    Raises RequestError if a new run would overwrite something in `out`.
    """
    if out.exists() and not out.is_dir():
        raise RequestError(f"{out} is a file; give a folder as --out")
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
