"""What the commands of charlm, train and the app share: one-line errors and exit statuses."""

import argparse
import io
import os
import re
import shutil
import sys
import textwrap
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, TextIO

from charlm.errors import CharLMError
from charlm.faulty_variable import explain_by_environment
from charlm.installation import optional_packages
from charlm.messages import escape_controls
from charlm.nearest import nearest

LESS_MEMORY = "use a smaller model"


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, with the nearest name in place of a mistyped one.

    Options are written out: `--epoch`, which other commands have, would stand for the `--epochs` of `fit`.
    A command without any argument that needs some shows its examples after that line. They stand in its help too.
    """

    def __init__(self, *args: Any, examples: Sequence[tuple[str, str]] = (), **options: Any) -> None:
        """examples: what each does, and the arguments for it."""
        super().__init__(*args, **{"allow_abbrev": False} | options)
        self.formatter_class = argparse.RawDescriptionHelpFormatter  # the examples keep their lines
        if self.description:
            self.description = textwrap.fill(self.description, shutil.get_terminal_size().columns - 2)
        self._arguments: list[str] | None = None  # None before they are parsed
        if examples:
            commands = (f"  # {what}\n  {self.prog} {arguments}" for what, arguments in examples)
            self.epilog = "examples:\n" + "\n".join(commands)

    def parse_known_args(  # type: ignore[override]  # one signature for the three that the stubs have
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        """See ArgumentParser. The parser of a command gets its arguments through this method, too."""
        self._arguments = list(sys.argv[1:] if args is None else args)
        self._check_options(self._arguments)
        return super().parse_known_args(self._arguments, namespace)

    def error(self, message: str) -> NoReturn:
        """End the process with status 2 and one line."""
        if message.endswith("expected one argument"):
            message += "; write --option=VALUE if the value begins with a dash"
        message += self._missing_option(message)
        if self._arguments == [] and self.epilog:
            say(f"{self.prog}: {message}\n\n{self.epilog}\n\n{self.prog} --help shows everything that is allowed")
        else:
            say(f"{self.prog}: {message}" + ("" if message.endswith("?") else "; --help shows what is allowed"))
        raise SystemExit(2)

    def _missing_option(self, message: str) -> str:
        """Return a hint for a value that was given without the only option that is required."""
        required = re.fullmatch("the following arguments are required: (--[a-z-]+)", message)
        takes_values = any(not action.option_strings for action in self._actions)
        if required is None or takes_values or not self._arguments or self._arguments[0].startswith("-"):
            return ""
        return f"; did you mean {required[1]} {self._arguments[0]}?"

    def _check_options(self, arguments: list[str]) -> None:
        """Refuse an unknown option, before argparse misses another that is required or takes -hidden for -h."""
        known = self._option_string_actions
        for argument in arguments:
            name = argument.partition("=")[0]
            if name == "--" or (self._subparsers is not None and not name.startswith("-")):
                return  # what follows are no options, or those of a command
            if not name.startswith("-") or " " in name or name in known:
                continue
            words = [option.removeprefix("--") for option in known if option.startswith("--")]
            begun = [word for word in words if f"--{word}".startswith(name)]
            similar = begun[0] if len(begun) == 1 else nearest(name.lstrip("-"), words)
            similar = similar if re.match(r"--?[^\W\d]{2}", name) else None
            if similar or name.startswith("--"):
                self.error(f"no option {name}" + (f"; did you mean --{similar}?" if similar else ""))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse what is not among the choices; argparse's own message has no nearest one."""
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            similar = nearest(str(value), choices)
            hint = f"; did you mean {similar}?" if similar else ""
            raise argparse.ArgumentError(action, f"invalid choice: {value!r} (choose from {', '.join(choices)}){hint}")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """End the process after `--help`, with status 1 if that cannot be written."""
        super().exit(run(lambda: None) or status, message)


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names a model, and the option that names an epoch of its training."""
    parser.add_argument("model", metavar="FOLDER_OR_REPO", help="a model folder, or USER/NAME on the Hub")
    parser.add_argument(
        "--epoch", type=int, metavar="N", help="the model after that epoch, of those that `fit --keep-epochs` kept"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option that prints figures for programs."""
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def folder(path: str) -> Path:
    """Return the path of a folder on the command line, where ~ is the home folder.

    An empty one, as an unset variable leaves it, is an error.
    """
    if not path:
        raise argparse.ArgumentTypeError("the folder's name is empty; . is the current folder")
    return Path(os.path.expanduser(path))  # a shell leaves the ~ in --out=~/model


def file(path: str) -> Path:
    """Return the path of a file on the command line, where ~ is the home folder.

    An empty one, as an unset variable leaves it, is an error.
    """
    if not path:
        raise argparse.ArgumentTypeError("the file's name is empty")
    return Path(os.path.expanduser(path))


def run(command: Callable[[], None], less_memory: str = LESS_MEMORY) -> int:
    """Run a command and return its exit status: 0 done, 2 a wrong request, 130 after Ctrl-C, 1 anything else.

    Errors that users can cause, and warnings, become one line on standard error. What is written to a standard stream
    that is closed is discarded. less_memory: what the user of this command can do when it runs out of memory.
    """
    _open_closed_streams()
    _use_default_warnings()
    # no command opens a window, and matplotlib, imported after the first epoch, would refuse a backend that is not here
    os.environ["MPLBACKEND"] = "agg"
    warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # not every terminal's encoding has every symbol
        with optional_packages():
            command()
        sys.stdout.flush()  # here, where a failure becomes one line, not at exit
    except CharLMError as error:
        say(f"error: {error}")
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the process that reads our output, for example `head`, has ended
        drop_unwritable_output()
        return 1
    except OSError as error:  # for example a full disk
        say(f"error: {error}")
        drop_unwritable_output()
        return 1
    except Exception as error:
        if is_out_of_memory(error):
            say(f"error: out of memory; close other programs, or {less_memory}")
            return 1
        if explanation := explain_by_environment(error):
            say(f"error: {explanation}")
            return 2
        raise
    return 0


def _use_default_warnings() -> None:
    """Undo `PYTHONWARNINGS` and `python -W`, which can turn warnings of the libraries, and ours, into tracebacks."""
    if sys.warnoptions:
        warnings.resetwarnings()
        for hidden in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", hidden)


def _open_closed_streams() -> None:
    """Open the null device in place of standard streams that were closed when the process began.

    Otherwise the next file that is opened gets the number of standard output or error, and what is printed goes there.
    """
    for number, (name, mode) in enumerate([("stdin", "r"), ("stdout", "w"), ("stderr", "w")]):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  # open until the process ends


def say(line: str) -> None:
    """Print a line on standard error; if it cannot be written, discard standard error from now on.

    Control characters are escaped: the name of a file, or what a message quotes, could change the terminal with them.
    """
    if sys.stderr is None:  # closed
        return
    try:
        print(escape_controls(line), file=sys.stderr, flush=True)
    except OSError:
        discard(sys.stderr)


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether Python, numpy or torch could not allocate memory; torch's CPU allocator raises a RuntimeError."""
    torch = sys.modules.get("torch")  # importing it takes a second, and if it is not imported it did not fail
    return (
        isinstance(error, MemoryError)
        or (torch is not None and isinstance(error, torch.OutOfMemoryError))
        or "DefaultCPUAllocator: " in str(error)
        or "out of memory" in str(error)  # CUDA's and MPS's drivers
    )


def drop_unwritable_output() -> None:
    """Discard what standard output still buffers if it cannot be written: Python would print an error at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        discard(sys.stdout)


def discard(stream: TextIO) -> None:
    """Send what is written to a standard stream to the null device from now on, since it cannot be written."""
    with suppress(OSError):  # a stream of Python's own has no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _hide_interrupt(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)


# Ctrl-C while the commands' modules are still being imported, before `run` can catch it: the process ends by that
# signal all the same, only the traceback is not printed
sys.excepthook = _hide_interrupt
