"""Batches: the inputs of each step, and as targets the same symbols shifted by one.

A batch depends on the seed, the epoch and the step alone, so that a resumed run reads exactly what it would have read.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .encode import SmallIds

STEPS_BETWEEN_RELEASES = 64  # a release costs half a millisecond


class Batches(ABC):
    """The batches of a run.

    carries_state: whether each sequence continues that of the step before, so that the state is kept between steps.
    """

    carries_state: bool
    steps_per_epoch: int
    chars_per_step: int

    def __init__(self, ids: SmallIds, release: Callable[[], None] = lambda: None) -> None:
        """ids: (N,), in memory or a memory map. release: see EncodedText.release."""
        self._ids = ids
        self._release = release

    def batch(self, epoch: int, step: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
        """Return the inputs (T, B) and the targets (T, B) of a step of an epoch."""
        positions = self.positions(epoch, step)  # (T, B)
        both = self._ids[np.concatenate([positions, positions[-1:] + 1])].astype(np.int64)  # (T, B) → (T + 1, B)
        if step % STEPS_BETWEEN_RELEASES == 0:
            self._release()
        on_device = torch.from_numpy(both)
        if device == "cuda":
            on_device = on_device.pin_memory()  # only a copy from pinned memory is asynchronous
        on_device = on_device.to(device, non_blocking=device == "cuda")
        return on_device[:-1], on_device[1:]

    @abstractmethod
    def positions(self, epoch: int, step: int) -> NDArray[np.int64]:
        """Return the positions in the text of a step's inputs (T, B)."""


class Streams(Batches):
    """The text cut into B parts of equal length, read in parallel; each step takes the next T symbols of each.

    Each epoch starts at another random offset, so that sequences begin at other positions.
    """

    carries_state = True

    def __init__(
        self,
        ids: SmallIds,
        batch_size: int,
        seq_length: int,
        seed: int,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        """ids: (N,), with at least (batch_size + 1) × seq_length of them."""
        super().__init__(ids, release)
        self._seed = seed
        self._seq_length = seq_length
        self.steps_per_epoch = (len(ids) - seq_length) // (batch_size * seq_length)
        self.chars_per_step = batch_size * seq_length
        starts = np.arange(batch_size) * self.steps_per_epoch * seq_length  # (B,)
        self._first_positions = np.arange(seq_length)[:, None] + starts  # (T, 1) + (B,) → (T, B)

    def positions(self, epoch: int, step: int) -> NDArray[np.int64]:
        """See Batches.positions."""
        offset = int(np.random.default_rng([self._seed, epoch]).integers(self._seq_length))
        return self._first_positions + (offset + step * self._seq_length)


class Windows(Batches):
    """Windows of the text, each read from a zero state, shuffled anew in each epoch.

    Those left over at the end of an epoch, too few for a batch, are not read in it.
    """

    carries_state = False

    def __init__(self, ids: SmallIds, starts: NDArray[np.int64], batch_size: int, window: int, seed: int) -> None:
        """starts: where the windows of `window` symbols begin, (M,) with M at least batch_size."""
        super().__init__(ids)
        self._starts = starts
        self._batch_size = batch_size
        self._offsets = np.arange(window)[:, None]  # (T, 1)
        self._seed = seed
        self._shuffled = (0, starts)  # an epoch, and the windows in its order
        self.steps_per_epoch = len(starts) // batch_size
        self.chars_per_step = batch_size * window

    def positions(self, epoch: int, step: int) -> NDArray[np.int64]:
        """See Batches.positions."""
        if self._shuffled[0] != epoch:
            self._shuffled = (epoch, np.random.default_rng([self._seed, epoch]).permutation(self._starts))
        first = step * self._batch_size
        return self._offsets + self._shuffled[1][first : first + self._batch_size]  # (T, 1) + (B,) → (T, B)
