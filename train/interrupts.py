"""Signals that end a training, such as Ctrl-C: noted at once, acted upon where nothing is left half done."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Ctrl-C; `kill`; the terminal is closed; schedulers warn before the time is up. Windows has the first two.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))


class Interrupts:
    """A context in which SIGNALS only set `received`, except inside `immediate()`.

    received: the number of the last signal, or None. If nothing has raised KeyboardInterrupt for it until the context
    ends, the context does.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._raises = False

    def __enter__(self) -> "Interrupts":
        self._before = {}
        if threading.current_thread() is threading.main_thread():  # Python allows signal handlers in no other thread
            for number in SIGNALS:
                is_nohup = number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) == signal.SIG_IGN
                if not is_nohup:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if error is None and self.received is not None:
            raise KeyboardInterrupt

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Raise KeyboardInterrupt as soon as a signal comes inside the block, or at its start if one came before."""
        self._raises = True
        try:
            if self.received is not None:
                raise KeyboardInterrupt
            yield
        finally:
            self._raises = False

    def _handle(self, number: int, _frame: object) -> None:
        self.received = number
        if self._raises:
            raise KeyboardInterrupt
