"""Checkpoints: all that a run needs to continue as if it had never stopped, in one safetensors file.

The file's metadata have one entry, `checkpoint`: the SHA-256 of all other bytes of the file, in hex, followed by the
values as JSON.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from charlm.errors import ModelFileError, TrainingError
from charlm.model.folder import replace_files
from charlm.model.kept import kept_file

CHECKPOINT_FILE = "checkpoint.safetensors"

METADATA_KEY = "checkpoint"
SHA256_PLACEHOLDER = "0" * 64


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run: named tensors, and everything else as JSON values."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]


@contextmanager
def explain_failed_write(folder: Path, what: object) -> Iterator[None]:
    """Turn an OSError in the block, such as a full disk, into an error that says how the run in `folder` goes on.

    what: is written in the block. Raises TrainingError.
    """
    try:
        yield
    except OSError as error:
        # before the end of the first epoch there is no checkpoint
        has_checkpoint = (folder / CHECKPOINT_FILE).exists()
        way_out = "the last checkpoint is kept: make room and go on from it with --resume"
        raise TrainingError(
            f"cannot write {what} ({error.strerror})",
            way_out if has_checkpoint else "make room and begin again",
            "disk",
        ) from None


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint into a run's folder. It replaces the previous one once it is completely on disk.

    Raises TrainingError if it cannot be written, for instance because the disk is full.
    """
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}
    packed = safetensors.torch.save(tensors, {METADATA_KEY: SHA256_PLACEHOLDER + json.dumps(checkpoint.values)})
    with explain_failed_write(folder, f"a checkpoint to {folder}"):
        replace_files(folder, {CHECKPOINT_FILE: _with_sha256(packed)})


def save_kept_epoch(folder: Path, epoch: int, packed: bytes) -> None:
    """Write the weights of an epoch into a run's folder, so that they are there completely or not at all.

    Raises TrainingError if they cannot be written.
    """
    path = folder / kept_file(epoch)
    with explain_failed_write(folder, path):
        path.parent.mkdir(exist_ok=True)
        replace_files(path.parent, {path.name: packed})


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """Read the checkpoint of a run's folder; None if there is none.

    Raises ModelFileError if it is damaged or cannot be read.
    """
    path = folder / CHECKPOINT_FILE
    try:
        packed = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelFileError(
            f"{path} cannot be read ({error.strerror}); make it readable, or choose another --out"
        ) from None
    try:
        place = _sha256_place(packed)
        if packed[place] != _sha256_of_others(packed, place):
            raise ValueError("its SHA-256 differs")
        header = json.loads(packed[8 : 8 + int.from_bytes(packed[:8], "little")])
        values = json.loads(header["__metadata__"][METADATA_KEY][len(SHA256_PLACEHOLDER) :])
        return Checkpoint(safetensors.torch.load(packed), values)
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise ModelFileError(f"{path} is not a checkpoint to resume from ({error}); delete it to begin anew") from None


def _with_sha256(packed: bytes) -> bytes:
    """Return the bytes of a checkpoint with its SHA-256 filled in."""
    place, view = _sha256_place(packed), memoryview(packed)  # slices of a view are no copies
    return b"".join((view[: place.start], _sha256_of_others(packed, place), view[place.stop :]))


def _sha256_place(packed: bytes) -> slice:
    """Return where in the bytes of a checkpoint its SHA-256 is. Raises ValueError if there is none."""
    mark = f'"{METADATA_KEY}":"'.encode()
    found = packed.find(mark)
    if found < 0:
        raise ValueError("its SHA-256 is missing")
    start = found + len(mark)
    return slice(start, start + len(SHA256_PLACEHOLDER))


def _sha256_of_others(packed: bytes, place: slice) -> bytes:
    """Return the SHA-256, in hex, of all bytes but those in that place."""
    view = memoryview(packed)
    sha256 = hashlib.sha256(view[: place.start])
    sha256.update(view[place.stop :])
    return sha256.hexdigest().encode()


def delete_checkpoint(folder: Path) -> None:
    """Remove the checkpoint of a finished run."""
    (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
