"""Control of a run from outside: a file that the training loop reads between steps, to pause it or to change its rate.

Another program replaces the file as a whole, by renaming, while the run goes on. It is a JSON object. `paused` says
whether the run has to wait. `learning_rates` lists all learning rates that were asked for since the run began; at the
next step, those that are new in the list take effect. Both may be missing, and so may the file: a run that is paused
goes on when it is deleted.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from charlm.checks import check_number
from charlm.errors import RequestError
from charlm.messages import show

from .config import LR_BOUNDS

MOST_RATES = 100  # of a run: history.json records each
LARGEST_FILE = 10_000  # bytes


@dataclass(frozen=True)
class ControlRequest:
    """What the control file asks for."""

    paused: bool = False
    learning_rates: tuple[float, ...] = ()


class ControlFile:
    """The control file, which the loop reads before each step.

    A file that is not valid, or cannot be read, changes nothing, and a message says so.
    """

    def __init__(self, path: Path, *, may_pause: bool = True) -> None:
        """may_pause: False on a machine that is lent for a limited time; `paused` is then ignored."""
        self._path, self._may_pause = path, may_pause
        self._seen: tuple[int, int] | None = None  # inode and modification time of the file that was read last
        self._said = set[int | None]()  # the `errno` of each failure that was told
        self._request = ControlRequest()

    def read(self, say: Callable[[str], None]) -> ControlRequest:
        """Return what the file asks for; it is read only if it was replaced since the last call.

        say: is given the message about a file that is not valid, or, once for each reason, cannot be read.
        """
        try:
            status = self._path.stat()
            if (found := (status.st_ino, status.st_mtime_ns)) == self._seen:
                return self._request
            self._request = _parse(self._path.read_bytes()[: LARGEST_FILE + 1], self._may_pause)
            self._seen = found
        except FileNotFoundError:
            self._seen, self._request = None, ControlRequest()
        except OSError as error:  # for example being replaced just now, where the next step reads it
            if error.errno not in self._said:
                self._said.add(error.errno)
                say(f"{self._path} cannot be read ({error.strerror}): what it asked for before holds until it can")
        except RequestError as error:
            self._seen = found
            say(f"{self._path} is left out: {error}")
        return self._request


def _parse(content: bytes, may_pause: bool) -> ControlRequest:
    """Return what the content of a file asks for. Raises RequestError if it is not valid."""
    try:
        values = json.loads(content) if len(content) <= LARGEST_FILE else None
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise RequestError(f"it must be a JSON object of at most {LARGEST_FILE:,} bytes")
    paused, rates = values.get("paused", False), values.get("learning_rates", [])
    if not isinstance(paused, bool):
        raise RequestError(f"paused is {show(paused)}; it must be true or false")
    if not isinstance(rates, list) or len(rates) > MOST_RATES:
        raise RequestError(f"learning_rates must be a list of at most {MOST_RATES} numbers")
    if None in rates:
        raise RequestError("learning_rates holds null; each must be a number")
    return ControlRequest(
        paused and may_pause, tuple(check_number("a rate in learning_rates", rate, *LR_BOUNDS) for rate in rates)
    )
