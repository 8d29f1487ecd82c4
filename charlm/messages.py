"""Text for a message or a page: made safe to show in one line, values and names cut, and numbers with their nouns."""

import re
import unicodedata
from collections.abc import Sequence

CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and line feed
MOST_MARKS = 3  # combining marks on one letter; more would cover the lines above
LONGEST_SHOWN = 80  # characters of a wrong value
MOST_LISTED = 5  # names


def show(value: object) -> str:
    """Return a wrong value as a message quotes it, cut to LONGEST_SHOWN characters."""
    if isinstance(value, int) and abs(value) >= 10**18:
        return "a huge number"  # Python does not print more than 4300 digits
    shown = repr(value)
    return shown if len(shown) <= LONGEST_SHOWN else shown[: LONGEST_SHOWN - 1] + "…"


def one_line(text: object) -> str:
    """Return a text without line breaks, and with single spaces."""
    return " ".join(str(text).split())


def printable(text: str) -> str:
    """Return a text as one printable line: other characters are escaped, and so are further marks on one letter."""
    shown, marks = [], 0
    for symbol in text:
        marks = marks + 1 if unicodedata.category(symbol).startswith("M") else 0
        shown.append(symbol if symbol.isprintable() and marks <= MOST_MARKS else ascii(symbol)[1:-1])
    return "".join(shown)


def escape_controls(text: str) -> str:
    """Return a text for a terminal: control characters but tab and line feed are escaped, such as those of a colour."""
    return CONTROLS.sub(lambda match: ascii(match[0])[1:-1], text)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 symbol`, `1,200 symbols`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def listed(names: Sequence[str]) -> str:
    """Return the first MOST_LISTED of some names and how many more there are: `a, b, c, d, e and 1,200 more`."""
    more = f" and {len(names) - MOST_LISTED:,} more" if len(names) > MOST_LISTED else ""
    return ", ".join(names[:MOST_LISTED]) + more
