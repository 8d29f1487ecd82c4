"""Training by several processes at once, as torchrun starts them: each reads its share of every batch."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from charlm.errors import CharLMError, RequestError

Value = TypeVar("Value")

# One may measure for hours while the others wait; torchrun ends all when one has died.
PATIENCE = timedelta(days=7)


class Team:
    """The processes that train one model. The first of them, the leader, measures and writes files.

    rank: this process's number, from 0. size: how many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size

    @property
    def leads(self) -> bool:
        """Whether this process is the leader."""
        return self.rank == 0

    def share(self, streams: int) -> slice:
        """Return which of the streams of a batch are this process's.

        Raises RequestError if they cannot be shared out evenly.
        """
        if streams % self.size:
            raise RequestError(
                f"{streams} streams cannot be shared out evenly among {self.size} processes; "
                f"give a --batch-size that is a multiple of {self.size}"
            )
        each = streams // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def average(self, tensors: list[Tensor]) -> None:
        """Replace the tensors of each process by their mean over all processes."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])  # one message rather than one for each tensor
        dist.all_reduce(flat)
        flat /= self.size
        sizes = [tensor.numel() for tensor in tensors]
        for tensor, mean in zip(tensors, torch.split(flat, sizes), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def gather(self, part: Tensor) -> Tensor:
        """Return the parts (B, H) that the processes hold one below the other."""
        if self.size == 1:
            return part
        parts = [torch.empty_like(part) for _ in range(self.size)]
        dist.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    def from_leader(self, make: Callable[[], Value]) -> Value:
        """Have the leader make a value, and return it in every process. What the leader raises, all raise."""
        if self.size == 1:
            return make()
        outcome: list[tuple[Value | None, BaseException | None]] = [_outcome(make) if self.leads else (None, None)]
        dist.broadcast_object_list(outcome, src=0)
        value, error = outcome[0]
        if error is not None:
            raise error
        return value  # type: ignore[return-value]


def _outcome(make: Callable[[], Value]) -> tuple[Value | None, BaseException | None]:
    try:
        return make(), None
    except BaseException as error:  # KeyboardInterrupt too: the others must not wait for ever
        return None, error


ALONE = Team()


@contextmanager
def join_team(device: str) -> Iterator[Team]:
    """Meet the other processes that torchrun started, if it did. device: cpu, cuda or mps.

    Raises RequestError if this machine has not a GPU for each of its processes.
    """
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        yield ALONE
        return
    if device != "cpu":
        _check_gpus(torch.cuda.device_count() if device == "cuda" else 1, int(os.environ["LOCAL_WORLD_SIZE"]))
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Team(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()


def _check_gpus(gpus: int, processes: int) -> None:
    if processes > gpus:
        raise RequestError(
            f"{processes} processes would share {gpus} GPU{'s' if gpus > 1 else ''}; "
            f"give torchrun --nproc-per-node {gpus}, or train with --device cpu"
        )


def is_leader() -> bool:
    """Tell whether this process leads the team that it is in, or will be."""
    return int(os.environ.get("RANK", 0)) == 0


@contextmanager
def one_voice() -> Iterator[None]:
    """Let one process of each machine tell what goes on and what is wrong: the others would say the same.

    What nobody foresaw they tell too.
    """
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        yield
        return
    try:
        with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
            yield
    except CharLMError as error:
        raise SystemExit(error.exit_status) from None
