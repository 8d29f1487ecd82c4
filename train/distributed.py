"""Data-parallel training in several processes that torchrun starts: each reads its share of every batch."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from charlm.errors import RequestError

Value = TypeVar("Value")

# Rank 0 may measure for hours while the others wait; if a process dies, torchrun ends all of them.
TIMEOUT = timedelta(days=7)


class ProcessGroup:
    """The processes that train one model. Rank 0, the main process, measures and writes files.

    rank: this process's number, from 0. world_size: the number of processes.
    """

    def __init__(self, rank: int = 0, world_size: int = 1) -> None:
        self.rank = rank
        self.world_size = world_size

    @property
    def is_main(self) -> bool:
        """Whether this is the main process."""
        return self.rank == 0

    def share(self, batch_size: int) -> slice:
        """Return which of the streams of a batch this process reads.

        Raises RequestError if they cannot be divided evenly.
        """
        if batch_size % self.world_size:
            raise RequestError(
                f"{batch_size} streams cannot be divided evenly among {self.world_size} processes; "
                f"give a --batch-size that is a multiple of {self.world_size}, or start another number of processes"
            )
        each = batch_size // self.world_size
        return slice(self.rank * each, (self.rank + 1) * each)

    def all_reduce_mean(self, tensors: list[Tensor]) -> None:
        """Replace the tensors of each process by their mean over all processes."""
        if self.world_size == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])  # one message rather than one for each tensor
        dist.all_reduce(flat)
        flat /= self.world_size
        sizes = [tensor.numel() for tensor in tensors]
        for tensor, mean in zip(tensors, torch.split(flat, sizes), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def all_gather(self, part: Tensor) -> Tensor:
        """Return the tensors (B, H) of all processes, concatenated in the order of their ranks."""
        if self.world_size == 1:
            return part
        parts = [torch.empty_like(part) for _ in range(self.world_size)]
        dist.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    def broadcast_from_main(self, make: Callable[[], Value]) -> Value:
        """Call `make` in the main process; return its value, or raise its exception, in every process."""
        if self.world_size == 1:
            return make()
        outcome: list[tuple[Value | None, BaseException | None]] = [_outcome(make) if self.is_main else (None, None)]
        dist.broadcast_object_list(outcome, src=0)
        value, error = outcome[0]
        if error is not None:
            raise error
        return value  # type: ignore[return-value]


def _outcome(make: Callable[[], Value]) -> tuple[Value | None, BaseException | None]:
    try:
        return make(), None
    except BaseException as error:  # KeyboardInterrupt too: the other processes wait for the broadcast
        return None, error


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def join_process_group(device: str) -> Iterator[ProcessGroup]:
    """Join the processes that torchrun started; without torchrun give SINGLE_PROCESS. device: cpu, cuda or mps.

    Raises RequestError if this machine has fewer GPUs than processes.
    """
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    if world_size == 1:
        yield SINGLE_PROCESS
        return
    if device != "cpu":
        _check_gpus(torch.cuda.device_count() if device == "cuda" else 1, int(os.environ["LOCAL_WORLD_SIZE"]))
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield ProcessGroup(dist.get_rank(), world_size)
    finally:
        dist.destroy_process_group()


def _check_gpus(gpus: int, processes: int) -> None:
    if processes > gpus:
        raise RequestError(
            f"{processes} processes would share {gpus} GPU{'s' if gpus > 1 else ''}; "
            f"give torchrun --nproc-per-node {gpus}, or train with --device cpu"
        )
