"""What the commands of charlm, train and the app share: one-line errors and exit statuses."""

import argparse
import io
import os
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

from charlm.errors import CharLMError

LESS_MEMORY = "use a smaller model"


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """End the process with status 2 and one line."""
        print(f"{self.prog}: {message}; --help shows what is allowed", file=sys.stderr)
        raise SystemExit(2)


def run(command: Callable[[], None], less_memory: str = LESS_MEMORY) -> int:
    """Run a command and return its exit status: 0 done, 2 a wrong request, 130 after Ctrl-C, 1 anything else.

    Errors that users can cause, and warnings, become one line on standard error. less_memory: what the user of this
    command can do when it runs out of memory.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # not every terminal's encoding has every symbol
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    try:
        command()
        sys.stdout.flush()  # here, where a failure becomes one line, not at exit
    except CharLMError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        print(f"error: out of memory; close other programs, or {less_memory}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the process that reads our output, for example `head`, has ended
        _drop_unwritable_output()
        return 1
    except OSError as error:  # for example a full disk
        print(f"error: {error}", file=sys.stderr)
        _drop_unwritable_output()
        return 1
    return 0


def _is_out_of_memory(error: Exception) -> bool:
    """Tell whether Python, numpy or torch could not allocate memory; torch's CPU allocator raises a RuntimeError."""
    torch = sys.modules.get("torch")  # importing it takes a second, and if it is not imported it did not fail
    return (
        isinstance(error, MemoryError)
        or (torch is not None and isinstance(error, torch.OutOfMemoryError))
        or "DefaultCPUAllocator: " in str(error)
        or "out of memory" in str(error)  # CUDA's and MPS's drivers
    )


def _drop_unwritable_output() -> None:
    """Discard what standard output still buffers if it cannot be written: Python would print an error at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
