"""The weights of single epochs that a training kept beside its model: which epochs, where, and by which SHA-256.

They stand in `epochs/NNNN.safetensors`, laid out as model.safetensors, in bfloat16. history.json names the SHA-256 of
each in its epoch. The files are optional: a model is whole without them.
"""

import re
from collections.abc import Collection, Iterable
from itertools import islice
from typing import cast

from charlm.errors import RequestError
from charlm.model.history import HistoryRecord

EPOCHS_FOLDER = "epochs"
MOST_LISTED = 30  # epochs in a sentence: a run keeps fewer, but the record may be anybody's
KEPT_FILE = re.compile(rf"{EPOCHS_FOLDER}/[0-9]{{4}}\.safetensors")


def is_kept(epoch: int, last: int) -> bool:
    """Tell whether `fit --keep-epochs` keeps an epoch: a number of Fibonacci's (1, 2, 3, 5, 8 …), or the last."""
    before, number = 1, 1
    while number < epoch:
        before, number = number, before + number
    return epoch in (number, last)


def kept_file(epoch: int) -> str:
    """Return the path of the weights of an epoch in a model folder, as it is on the Hub."""
    return f"{EPOCHS_FOLDER}/{epoch:04d}.safetensors"


def kept_epochs(history: HistoryRecord | None) -> dict[int, str]:
    """Return the SHA-256 of the weights of each epoch whose weights were kept."""
    epochs = history["epochs"] if history is not None else []
    return {epoch["epoch"]: epoch["weights_sha256"] for epoch in epochs if "weights_sha256" in epoch}


def kept_sha256(history: HistoryRecord | None, epoch: int, name: object) -> str:
    """Return the SHA-256 of the weights of an epoch. name: of the model, for the message.

    Raises RequestError, which names the epochs that there are, if those weights were not kept.
    """
    kept = kept_epochs(history)
    if epoch not in kept:
        there = (
            f"choose one of {list_epochs(kept)}"
            if kept
            else "leave the epoch out, or train with --keep-epochs: none was kept"
        )
        raise RequestError(f"{name} has not kept the weights of epoch {epoch}; {there}")
    return kept[epoch]


def restrict_kept(history: HistoryRecord | None, kept: Collection[int]) -> HistoryRecord | None:
    """Return a record that names the weights of these epochs and no others."""
    if history is None:
        return None
    epochs = [
        {name: value for name, value in epoch.items() if name != "weights_sha256" or epoch["epoch"] in kept}
        for epoch in history["epochs"]
    ]
    return cast(HistoryRecord, {**history, "epochs": epochs})


def list_epochs(epochs: Iterable[int]) -> str:
    """Return epochs as a sentence names them, up to MOST_LISTED."""
    named = [str(epoch) for epoch in islice(epochs, MOST_LISTED + 1)]
    return ", ".join([*named[:MOST_LISTED], "…"] if len(named) > MOST_LISTED else named)


def history_until(history: HistoryRecord, epoch: int) -> HistoryRecord:
    """Return the record of a run up to an epoch, as that of the model which has the weights of that epoch."""
    epochs = history["epochs"][:epoch]
    return {**history, "epochs": epochs, "best": {"epoch": epoch, "val_loss": epochs[-1]["val_loss"]}}
