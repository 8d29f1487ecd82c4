"""ZeroGPU, the hardware of a Space that borrows a GPU for the length of a call.

The package `spaces` lends it: a call of a function that it has marked asks for a GPU in the name of the visitor, and
runs in a fork of this process, where CUDA works. Two things follow. Everywhere else CUDA seems to be there, and is not.
And nothing in this process may use torch's autograd: its engine counts the GPUs once, at its first use, and its forks
would go on with that count. Trainings use it, in their forks alone.
"""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from contextvars import copy_context
from threading import Event, Thread
from typing import Generic, ParamSpec, TypeVar

from charlm.errors import RequestError

P = ParamSpec("P")
T = TypeVar("T")


def on_zero_gpu() -> bool:
    """Tell whether this is a Space on ZeroGPU."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")  # as `spaces` reads it


def mark(function: Callable[P, Iterator[T]], seconds: Callable[P, float]) -> Callable[P, Iterator[T]]:
    """Return a generator function in a form that borrows a GPU at each call.

    seconds: for how long, from the arguments of the call. ZeroGPU refuses to start a page that has marked nothing.
    Raises RequestError if the package `spaces` is not there.
    """
    try:
        import spaces
    except ImportError:
        raise RequestError("ZeroGPU needs the package spaces: add spaces>=0.51 to requirements.txt") from None
    marked: Callable[P, Iterator[T]] = spaces.GPU(function, duration=seconds)
    return marked


class Call(Generic[T]):
    """A call of a marked function, read in a thread of its own, because waiting for a GPU may take a minute.

    The thread has the context variables of the caller, in which `spaces` finds the visitor.
    problem: why the call failed, for the visitor to read; empty if it did not.
    """

    def __init__(self, values: Callable[[], Iterator[T]], take: Callable[[T], None]) -> None:
        """values: makes the call. take: is given each of its values."""
        self.problem = ""
        self._stop = Event()
        self._thread = Thread(target=copy_context().run, args=(self._read, values, take), daemon=True)
        self._thread.start()

    def is_running(self) -> bool:
        """Tell whether further values may come."""
        return self._thread.is_alive()

    def stop(self, seconds: float) -> None:
        """End the call at its next value, and wait for that for some seconds at most."""
        self._stop.set()
        self._thread.join(seconds)

    def _read(self, values: Callable[[], Iterator[T]], take: Callable[[T], None]) -> None:
        try:
            with closing(values()) as called:  # type: ignore[type-var]  # a generator
                for value in called:
                    take(value)
                    if self._stop.is_set():
                        return
        except Exception as error:
            self.problem = explain(error)


def explain(error: Exception) -> str:
    """Return what a visitor should read about an error of a call; what `spaces` does not foresee goes to the log, too.

    It raises gr.Error, with a title and a message, when the quota is spent, no GPU is free, or the call was ended.
    """
    message = getattr(error, "message", None)
    if message is None:
        traceback.print_exception(error, file=sys.stderr)
        return f"ZeroGPU gave no GPU ({type(error).__name__})"
    title = getattr(error, "title", "ZeroGPU")
    return f"{title}: {' '.join(str(message).split()).rstrip('.')}"
