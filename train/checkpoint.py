"""Checkpoints: all that a run needs to go on as if it had never stopped, in one safetensors file."""

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from charlm.errors import ModelFileError, TrainingError
from charlm.folder import replace_files

CHECKPOINT_FILE = "checkpoint.safetensors"


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
    packed = safetensors.torch.save(tensors, {"checkpoint": json.dumps(checkpoint.values)})
    try:
        replace_files(folder, {CHECKPOINT_FILE: packed})
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
        with safe_open(path, framework="pt") as file:
            values = json.loads(file.metadata()["checkpoint"])
            # copies: the file is mapped into memory, and the next save replaces it
            return Checkpoint({name: file.get_tensor(name).clone() for name in file.keys()}, values)  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise ModelFileError(f"{path} is no checkpoint to resume from ({error}); delete it to begin anew") from None


def delete_checkpoint(folder: Path) -> None:
    """Remove the checkpoint of a finished run."""
    (folder / CHECKPOINT_FILE).unlink(missing_ok=True)


class Interrupts:
    """Turns Ctrl-C and SIGTERM into KeyboardInterrupt, but never in the middle of what must stay whole.

    `signal` is the number of the last one that came, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._held = False

    def __enter__(self) -> "Interrupts":
        self._before = {}
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Delay an interrupt that comes inside the block to its end."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self.signal is not None:
            raise KeyboardInterrupt

    def _handle(self, number: int, _frame: object) -> None:
        self.signal = number
        if not self._held:
            raise KeyboardInterrupt
