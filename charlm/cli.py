"""What the commands of charlm, train and the app share: how they refuse and how they end."""

import argparse
import io
import os
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

from charlm.errors import CharLMError

LESS_MEMORY = "close other programs, or train with a lower --batch-size, --seq-length or --hidden-size"


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """End the process with status 2 and one line."""
        print(f"{self.prog}: {message}; --help shows what is allowed", file=sys.stderr)
        raise SystemExit(2)


def run(command: Callable[[], None]) -> int:
    """Run a command and return its exit status: 0 done, 2 a wrong request, 130 after Ctrl-C, 1 anything else.

    Errors that users can cause, and warnings, become one line on standard error.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # not every terminal or pipe can show every symbol
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    try:
        command()
        sys.stdout.flush()  # here, where a failure is understood, rather than at exit
    except CharLMError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        print(f"error: out of memory; {LESS_MEMORY}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output, `head` say, has had enough
        _drop_unwritable_output()
        return 1
    except OSError as error:  # a full disk, say
        print(f"error: {error}", file=sys.stderr)
        _drop_unwritable_output()
        return 1
    return 0


def _is_out_of_memory(error: Exception) -> bool:
    """Tell whether Python, numpy or torch got no memory. torch has no one class for it: the CPU's is a RuntimeError."""
    torch = sys.modules.get("torch")  # importing it takes a second; where it was not, it cannot have failed
    return (
        isinstance(error, MemoryError)
        or (torch is not None and isinstance(error, torch.OutOfMemoryError))
        or "DefaultCPUAllocator: " in str(error)
        or "out of memory" in str(error)  # as CUDA's and MPS's drivers put it
    )


def _drop_unwritable_output() -> None:
    """Send what standard output still holds nowhere if it cannot be written, or Python would complain at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
