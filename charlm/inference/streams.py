"""Texts while they are written: ended before a stop string, and read side by side."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from charlm.errors import RequestError
from charlm.messages import show

T = TypeVar("T")


def check_stop(stop: object) -> tuple[str, ...]:
    """Return the stop strings of a request: none for None, one for a string, else those of a list or tuple.

    Raises RequestError if they are of another kind, or one is empty.
    """
    stops = (stop,) if isinstance(stop, str) else () if stop is None else stop
    if not isinstance(stops, list | tuple):
        raise RequestError(f"stop is {show(stop)}; it must be a string or a list of strings")
    for one in stops:
        if not isinstance(one, str) or not one:
            raise RequestError(f"stop has {show(one)}; each stop string must be a string of at least one character")
    return tuple(stops)


class StopFinder:
    """Ends a text, which comes in pieces, before the stop string that is complete first.

    has_found: whether one is complete. What comes after it is not looked at.

    If several are complete at the same character, the text ends before the longest. Each is followed by the algorithm
    of Knuth, Morris and Pratt, "Fast Pattern Matching in Strings" (1977), so that the cost of a character does not
    depend on how long the stop strings are.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """stops: none of them is empty."""
        self._stops = [(stop, _borders(stop)) for stop in stops]
        self._matched = [0] * len(stops)  # how many characters of each stop string the text ends with, at most
        self._held = ""
        self.has_found = False

    def feed(self, piece: str) -> str:
        """Return the text up to the end of a piece that was not returned yet, without what may begin a stop string."""
        if not self._stops:
            return piece
        text = self._held + piece
        for end, symbol in enumerate(piece, len(self._held) + 1):
            for number, (stop, borders) in enumerate(self._stops):
                self._matched[number] = _extend(stop, borders, self._matched[number], symbol)
            found = [
                matched for matched, (stop, _) in zip(self._matched, self._stops, strict=True) if matched == len(stop)
            ]
            if found:
                self._held, self.has_found = "", True
                return text[: end - max(found)]
        shown = len(text) - max(self._matched)
        self._held = text[shown:]
        return text[:shown]

    def rest(self) -> str:
        """Return what `feed` held back, at the end of a text in which no stop string is complete."""
        return self._held


def cut_at_stop(pieces: Iterable[str], stops: Sequence[str]) -> Iterator[str]:
    """Yield a text in pieces, none of them empty, and end before the stop string that is complete first."""
    finder = StopFinder(stops)
    for piece in pieces:
        if shown := finder.feed(piece):
            yield shown
        if finder.has_found:
            return
    if rest := finder.rest():
        yield rest


@contextmanager
def closed_at_end(streams: Iterable[Generator[Any]]) -> Iterator[None]:
    """Close streams when a block ends, also by Ctrl-C: its traceback keeps them, and they would be written on."""
    try:
        yield
    finally:
        for stream in streams:
            stream.close()


def read_in_turns(streams: Sequence[Iterator[T]]) -> Iterator[tuple[int, T | None]]:
    """Yield the pieces of several streams, each with its stream's number, one of each stream in turn.

    After its last piece a stream yields None, once.
    """
    left = dict(enumerate(streams))
    while left:
        for number, stream in list(left.items()):
            piece = next(stream, None)
            yield number, piece
            if piece is None:
                del left[number]


def _borders(stop: str) -> list[int]:
    """Return for each beginning of a stop string its longest proper beginning that is also its end, as lengths."""
    borders = [0]
    for symbol in stop[1:]:
        borders.append(_extend(stop, borders, borders[-1], symbol))
    return borders


def _extend(stop: str, borders: Sequence[int], matched: int, symbol: str) -> int:
    """Return how much of the stop string a text ends with after one more symbol, given how much it ended with before.

    matched: below len(stop).
    """
    while matched and stop[matched] != symbol:
        matched = borders[matched - 1]
    return matched + (stop[matched] == symbol)
