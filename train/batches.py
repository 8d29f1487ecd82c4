"""What a step reads: inputs, and as targets the symbols one place further on.

Every batch follows from the seed, the epoch and the step alone, so that a resumed run reads on exactly.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.encode import SmallIds

STEPS_BETWEEN_RELEASES = 64  # a release costs half a millisecond


class Batches(ABC):
    """The steps of an epoch.

    carries_state: whether a step's sequences go on where those of the step before ended.
    """

    carries_state: bool
    steps_per_epoch: int
    chars_per_step: int

    def __init__(self, ids: SmallIds, release: Callable[[], None] = lambda: None) -> None:
        """ids: (N,), perhaps a memory map. release: gives back the memory that reading such a map takes."""
        self._ids = ids
        self._release = release

    def batch(self, epoch: int, step: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
        """Return the inputs (T, B) and the targets (T, B) of a step of an epoch."""
        places = self.places(epoch, step)
        both = self._ids[np.concatenate([places, places[-1:] + 1])].astype(np.int64)  # (T + 1, B)
        if step % STEPS_BETWEEN_RELEASES == 0:
            self._release()
        on_device = torch.from_numpy(both)
        if device == "cuda":
            on_device = on_device.pin_memory()  # or the copy would wait for the GPU
        on_device = on_device.to(device, non_blocking=device == "cuda")
        return on_device[:-1], on_device[1:]

    @abstractmethod
    def places(self, epoch: int, step: int) -> NDArray[np.int64]:
        """Return where in the text the inputs (T, B) of a step stand."""


class Streams(Batches):
    """A text read as B streams side by side, each going on where its last sequence ended.

    Each epoch starts at another random offset, so that the sequences are not cut at the same places.
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
        self._places = np.arange(seq_length)[:, None] + starts  # (T, B)

    def places(self, epoch: int, step: int) -> NDArray[np.int64]:
        """See Batches.places."""
        offset = int(np.random.default_rng([self._seed, epoch]).integers(self._seq_length))
        return self._places + (offset + step * self._seq_length)


class Windows(Batches):
    """Windows of a text, each read from the zero state, all of them in a new order each epoch.

    The last few, too few for a batch, are left out of the epoch; others are in the next.
    """

    carries_state = False

    def __init__(self, ids: SmallIds, starts: NDArray[np.int64], batch_size: int, window: int, seed: int) -> None:
        """starts: where the windows of `window` symbols begin, (M,) with M at least batch_size."""
        super().__init__(ids)
        self._starts = starts
        self._batch_size = batch_size
        self._within = np.arange(window)[:, None]  # (T, 1)
        self._seed = seed
        self._shuffled = (0, starts)  # the epoch, and its order
        self.steps_per_epoch = len(starts) // batch_size
        self.chars_per_step = batch_size * window

    def places(self, epoch: int, step: int) -> NDArray[np.int64]:
        """See Batches.places."""
        if self._shuffled[0] != epoch:
            self._shuffled = (epoch, np.random.default_rng([self._seed, epoch]).permutation(self._starts))
        first = step * self._batch_size
        return self._within + self._shuffled[1][first : first + self._batch_size]
