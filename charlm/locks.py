"""Locks that are free again in a process that was forked.

Of the threads only the one that forks goes on in the new process. A lock that another thread held at that moment would
never be released there, and whoever asks for it would wait for ever.
"""

import os
from threading import RLock
from weakref import WeakSet


class RenewedLock:
    """A lock to hold by `with`; the thread that holds it may take it again.

    In a process that was forked it is free, unless the thread that forked holds it.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def renew(self) -> None:
        """Make a new lock if another thread held the old one; the thread that forked keeps its own."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
        else:
            self._lock = RLock()


_locks: "WeakSet[RenewedLock]" = WeakSet()


def _renew_all() -> None:
    for lock in list(_locks):
        lock.renew()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_renew_all)
