"""A cache of values that take long to make, each made once however many threads ask for it at the same time."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LoadOnce(Generic[K, V]):
    """Keeps the values that were asked for last. Threads may share it.

    size: of all values that are kept together.
    """

    def __init__(self, most: int, size_of: Callable[[V], int] = lambda _: 1) -> None:
        """most: the largest size of all together, by default how many they are."""
        self._most, self._size_of = most, size_of
        self._lock = Lock()
        self._entries: OrderedDict[K, _Entry[V]] = OrderedDict()  # the last one was asked for last
        self.size = 0

    def get(self, key: K, make: Callable[[], V]) -> V:
        """Return the value of a key; `make` makes it if it is not kept, while other threads that ask for it wait.

        If `make` raises, nothing is kept, and the next thread that asks or waits tries again.
        """
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
        with entry.lock:
            if entry.value is None:
                try:
                    entry.value = make()
                except BaseException:
                    with self._lock:
                        if self._entries.get(key) is entry:
                            del self._entries[key]
                    raise
                self._keep(key, entry, self._size_of(entry.value))
            return entry.value

    def drop(self, is_over: Callable[[K], bool]) -> None:
        """Drop the values of the keys for which `is_over` is true."""
        with self._lock:
            for key in filter(is_over, list(self._entries)):
                self.size -= self._entries.pop(key).size or 0

    def _keep(self, key: K, entry: "_Entry[V]", size: int) -> None:
        """Keep a value, and drop those that were asked for longest ago until there is room for the rest."""
        with self._lock:
            # after an error the entry is not there any more, and another thread may make the value as well
            if self._entries.setdefault(key, entry) is entry:
                entry.size = size
                self.size += size
            while self.size > self._most:
                oldest = next(key for key, each in self._entries.items() if each.size)
                self.size -= self._entries.pop(oldest).size or 0


class _Entry(Generic[V]):
    """A value that one thread makes while the others that ask for it wait for its lock; None until it is made.

    size: None until the value is among those that are kept.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self.value: V | None = None
        self.size: int | None = None
