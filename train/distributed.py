"""Data-parallel training in several processes that torchrun starts: each reads its share of every batch."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from charlm.errors import RequestError
from charlm.messages import counted

from .launcher import REMEDY, Launch, read_launch

Value = TypeVar("Value")

# Rank 0 may measure for hours while the others wait; if a process dies, torchrun ends all of them.
TIMEOUT = timedelta(days=7)
MEETING_TIME = timedelta(minutes=10)  # for all processes to be started


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
                f"{counted(batch_size, 'stream')} cannot be divided evenly among {self.world_size} processes; "
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

    def gather(self, value: Value) -> list[Value]:
        """Return the values of all processes, in the order of their ranks."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

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

    Raises RequestError if this machine has fewer GPUs than processes, if the environment is not that of a process which
    torchrun started, or if the processes do not find each other.
    """
    launch = read_launch()
    if launch.world_size == 1:
        yield SINGLE_PROCESS
        return
    if device != "cpu":
        _check_gpus(torch.cuda.device_count() if device == "cuda" else 1, launch.local_world_size)
    if device == "cuda":
        torch.cuda.set_device(launch.local_rank)
    _meet("nccl" if device == "cuda" else "gloo", launch)
    try:
        yield ProcessGroup(launch.rank, launch.world_size)
    finally:
        dist.destroy_process_group()


def _meet(backend: str, launch: Launch) -> None:
    """Wait until all processes are there, and join them in a group.

    As `init_process_group` does by itself, but it would wait for a process that never starts as long as for one that
    measures.
    """
    try:
        store, rank, world_size = next(rendezvous("env://", launch.rank, launch.world_size, timeout=MEETING_TIME))
        store.set_timeout(TIMEOUT)
        store = dist.PrefixStore("charlm", store)  # type: ignore[attr-defined]  # beside what torchrun keeps there
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=TIMEOUT)
    except (RuntimeError, ValueError, OSError) as error:  # DistError is a RuntimeError
        reason = str(error).strip().partition("\n")[0]
        raise RequestError(
            f"the {launch.world_size} processes of WORLD_SIZE do not meet at {os.environ['MASTER_ADDR']}, port "
            f"{os.environ['MASTER_PORT']} ({reason:.200}); {REMEDY}"
        ) from None


def _check_gpus(gpus: int, processes: int) -> None:
    if processes > gpus:
        raise RequestError(
            f"{processes} processes would share {counted(gpus, 'GPU')}; "
            f"give torchrun --nproc-per-node {gpus}, or train with --device cpu"
        )
