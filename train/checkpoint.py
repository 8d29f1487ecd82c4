"""Checkpoints: all that a run needs to go on as if it had never stopped, in one safetensors file.

The file's metadata hold one entry, `checkpoint`: the SHA-256 of all other bytes of the file, in hex, and then the
values as JSON.
"""

import hashlib
import json
import signal
import threading
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

CHECKPOINT_FILE = "checkpoint.safetensors"

METADATA_KEY = "checkpoint"
NO_SEAL = "0" * 64  # as long as a SHA-256 in hex


@dataclass(frozen=True)
class Checkpoint:
    """Named tensors, and the rest as values that JSON can hold."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint of a run's folder. The one before it stays until this one is whole on disk.

    Raises TrainingError if it cannot be written: the disk is full, say.
    """
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}
    packed = safetensors.torch.save(tensors, {METADATA_KEY: NO_SEAL + json.dumps(checkpoint.values)})
    try:
        replace_files(folder, {CHECKPOINT_FILE: _seal(packed)})
    except OSError as error:
        raise TrainingError(
            f"cannot write a checkpoint to {folder} ({error.strerror}); the one before is kept: "
            "make room and go on from it with --resume"
        ) from None


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """Read the checkpoint of a run's folder; None if there is none. Raises ModelFileError if it is damaged."""
    path = folder / CHECKPOINT_FILE
    if not path.exists():
        return None
    try:
        packed = path.read_bytes()
        if _seal(packed) != packed:
            raise ValueError("its SHA-256 is missing or differs")
        header = json.loads(packed[8 : 8 + int.from_bytes(packed[:8], "little")])
        values = json.loads(header["__metadata__"][METADATA_KEY][len(NO_SEAL) :])
        return Checkpoint(safetensors.torch.load(packed), values)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise ModelFileError(f"{path} is no checkpoint to resume from ({error}); delete it to begin anew") from None


def _seal(packed: bytes) -> bytes:
    """Return a checkpoint's bytes with the SHA-256 of all others in its place.

    So a file is whole if sealing does not change it.
    """
    before, mark, rest = packed.partition(f'"{METADATA_KEY}":"'.encode())
    after = rest[len(NO_SEAL) :]
    seal = hashlib.sha256(before + mark + after).hexdigest().encode()
    return b"".join((before, mark, seal, after))


def delete_checkpoint(folder: Path) -> None:
    """Remove the checkpoint of a finished run."""
    (folder / CHECKPOINT_FILE).unlink(missing_ok=True)


class Interrupts:
    """Notes Ctrl-C and SIGTERM, and raises KeyboardInterrupt for them where nothing has to stay whole: in `raised()`.

    `signal` is the number of the last one that came, or None. One that was raised nowhere is at the end.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._raises = False

    def __enter__(self) -> "Interrupts":
        self._before = {}
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if error is None and self.signal is not None:
            raise KeyboardInterrupt

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Raise an interrupt at once that comes inside the block, and at its start one that came before."""
        self._raises = True
        try:
            if self.signal is not None:
                raise KeyboardInterrupt
            yield
        finally:
            self._raises = False

    def _handle(self, number: int, _frame: object) -> None:
        self.signal = number
        if self._raises:
            raise KeyboardInterrupt
