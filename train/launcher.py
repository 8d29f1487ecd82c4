"""What torchrun tells each process of a training, in RANK, WORLD_SIZE and so on, and which of them prints.

Job schedulers and notebooks leave some of them behind without starting any further process.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass

from charlm.errors import CharLMError, RequestError
from charlm.messages import show

REMEDY = "start the training with torchrun, or unset WORLD_SIZE to train in one process"


@dataclass(frozen=True)
class Launch:
    """The place of this process among those of a training, `world_size` in all and `local_world_size` on this machine.

    rank, local_rank: its number among them, from 0.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1


def read_launch(environment: Mapping[str, str] = os.environ) -> Launch:
    """Read the variables. Without WORLD_SIZE, or if it is 1, the other ones mean nothing.

    A launcher other than torchrun may leave out LOCAL_RANK and LOCAL_WORLD_SIZE, if it starts one process a machine.
    Raises RequestError if one of them cannot be what torchrun sets.
    """
    world_size = _read(environment, "WORLD_SIZE", 1, 1)
    if world_size == 1:
        return Launch()
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        if not environment.get(name):
            raise RequestError(f"WORLD_SIZE is {world_size}, and {name} is not set; {REMEDY}")
    _read(environment, "MASTER_PORT", 1, 1, 65_535)
    local_world_size = _read(environment, "LOCAL_WORLD_SIZE", 1, 1, world_size)
    return Launch(
        _read(environment, "RANK", 0, 0, world_size - 1),
        world_size,
        _read(environment, "LOCAL_RANK", 0, 0, local_world_size - 1),
        local_world_size,
    )


def is_main_process() -> bool:
    """Tell whether this process has rank 0, also before it has joined the process group."""
    return read_launch().rank == 0


def launch_or_default() -> Launch:
    """Return what `read_launch` reads, or the launch of a single process where it refuses: `fit` says why."""
    try:
        return read_launch()
    except RequestError:
        return Launch()


@contextmanager
def mute_other_ranks() -> Iterator[None]:
    """Let only local rank 0 of each machine print progress and errors: the others would repeat them.

    An unexpected exception is raised in every process.
    """
    if launch_or_default().local_rank == 0:
        yield
        return
    try:
        with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
            yield
    except CharLMError as error:
        raise SystemExit(error.exit_status) from None


def _read(environment: Mapping[str, str], name: str, missing: int, low: int, high: int = 10**6) -> int:
    """Return a variable that is a whole number; `missing` if it is not set or empty."""
    text = environment.get(name, "").strip() or str(missing)
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and low <= int(text) <= high):
        raise RequestError(f"{name} is {show(text)}, and torchrun sets a whole number from {low} to {high:,}; {REMEDY}")
    return int(text)
