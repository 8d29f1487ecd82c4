"""The nearest of the names that exist, to suggest in the message about a name that does not."""

import os
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

# Shares of equal characters (difflib's ratio). Words of a command are few and known; a folder may hold anything.
WORD_CUTOFF, PATH_CUTOFF = 0.6, 0.75
MOST_NAMES = 1000  # of a folder that are looked at


def nearest(word: str, words: Iterable[str], cutoff: float = WORD_CUTOFF) -> str | None:
    """Return the word most like a mistyped one, in whatever case it is written; None if none is like it."""
    by_lower_case = {each.lower(): each for each in words}
    close = get_close_matches(word.lower(), by_lower_case, n=1, cutoff=cutoff)
    return by_lower_case[close[0]] if close else None


def nearest_path(path: Path, is_wanted: Callable[[Path], bool]) -> Path | None:
    """Return the path most like one that does not exist, where any of its parts may be mistyped; None if none is.

    is_wanted: tells whether a path that exists is of the kind that was asked for.
    """
    found = Path(path.anchor)
    parts = path.parts[1:] if path.anchor else path.parts
    for place, part in enumerate(parts):
        kind = is_wanted if place == len(parts) - 1 else Path.is_dir
        if _is_of(kind, found / part):
            found /= part
        elif similar := nearest(part, _names(found, kind), PATH_CUTOFF):
            found /= similar
        else:
            return None
    return found


def path_in_subfolder(name: str, is_wanted: Callable[[Path], bool]) -> Path | None:
    """Return the path of that name in one of the current folder's subfolders; None if no subfolder has it."""
    candidates = (Path(folder, name) for folder in sorted(_names(Path(), Path.is_dir)))
    return next((path for path in candidates if _is_of(is_wanted, path)), None)


def _names(folder: Path, kind: Callable[[Path], bool]) -> list[str]:
    """Return the names in a folder that are of a kind, among its first MOST_NAMES; none if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in islice(entries, MOST_NAMES) if _is_of(kind, folder / entry.name)]
    except (OSError, ValueError):
        return []


def _is_of(kind: Callable[[Path], bool], path: Path) -> bool:
    try:
        return kind(path)
    except (OSError, ValueError):  # no permission; a name too long or with a zero byte
        return False
