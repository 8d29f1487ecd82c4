"""A lesson: a plain text file of steps, each with something to do on the page and checks that it was done.

docs/teaching.md describes the format. charlm/browser/components/lesson.js shows a lesson, as text alone, and deeds.js
beside it makes the checks.
"""

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from charlm.browser.scripts import FOLDER
from charlm.errors import RequestError
from charlm.messages import printable
from charlm.nearest import nearest
from charlm.text import read_text

VARIABLE = "CHARLM_LESSON"  # names the file of a lesson that takes the place of the bundled one
BUNDLED = FOLDER / "lesson.txt"
LONGEST, MOST_STEPS, MOST_CHECKS = 50_000, 40, 8  # characters of a file, steps of a lesson, checks of a step
ENTRY = re.compile(r"([a-z]+):(?:[ \t]+(.*))?$")


@dataclass(frozen=True)
class Check:
    """What the page checks: the kind of check, its arguments by name, and the words that the page shows for it."""

    kind: str
    arguments: dict[str, str | float]
    words: str


@dataclass(frozen=True)
class Step:
    """A step: its heading `title`, what to do and why, its checks.

    open: the parameters of the address that shows what the step needs, as they stand behind the `?`; empty if it needs
        nothing certain. done: what is said when all checks are done, such as what the step has shown.
    """

    title: str
    text: str
    checks: tuple[Check, ...]
    open: str = ""
    done: str = ""


@dataclass(frozen=True)
class Lesson:
    """A lesson. models: the names of those that its addresses use."""

    title: str
    models: tuple[str, ...]
    steps: tuple[Step, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the lesson as components/lesson.js reads it."""
        return asdict(self)


def chosen_lesson() -> Lesson:
    """Read the lesson that CHARLM_LESSON names, else the bundled one. Raises RequestError as `read_lesson` does."""
    return read_lesson(lesson_file())


def lesson_file() -> Path:
    """Return the path of the lesson that the page shows."""
    return Path(os.path.expanduser(os.environ.get(VARIABLE) or BUNDLED))


def read_lesson(path: Path) -> Lesson:
    """Read a lesson. Raises RequestError if the file cannot be read, and for the first line that is wrong."""
    text = read_text(path, f"let {VARIABLE} name the text file of a lesson, or unset it")
    if len(text) > LONGEST:
        raise RequestError(f"{path} has {len(text):,} characters, and a lesson at most {LONGEST:,}; make it shorter")
    try:
        return parse_lesson(text)
    except LessonError as error:
        raise RequestError(f"{path}, line {error.line}: {error}") from None


class LessonError(Exception):
    """A line of a lesson that cannot be read. line: its number, from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def parse_lesson(text: str) -> Lesson:
    """Return the lesson that a text describes. Raises LessonError for the first line that is wrong."""
    head: dict[str, str] = {}
    steps: list[dict[str, Any]] = []  # the fields of each Step
    lines: list[int] = []  # the number of the line in which each step begins
    for line, key, value in _entries(text):
        if key not in KEYS:
            raise LessonError(line, f"{key!r} is not one of {', '.join(KEYS)}{_suggest(key, KEYS)}")
        if not value:
            raise LessonError(line, f"nothing stands behind {key!r}; write {key}: {KEYS[key]}")
        if key == "step":
            _check_complete(head, steps, lines, line)
            steps.append({"title": value, "checks": ()})
            lines.append(line)
        elif key in ("title", "models"):
            if steps or key in head:
                raise LessonError(line, f"{key!r} stands once, before the first step")
            head[key] = value
        elif not steps:
            raise LessonError(line, f"{key!r} belongs to a step; begin one with step: {KEYS['step']}")
        else:
            _add(steps[-1], line, key, value)
    end = text.count("\n") + 1
    if not steps:
        raise LessonError(end, f"the lesson has no step; begin one with step: {KEYS['step']}")
    _check_complete(head, steps, lines, end)
    models = tuple(name.strip() for name in head.get("models", "").split(",") if name.strip())
    return Lesson(head["title"], models, tuple(Step(**step) for step in steps))


KEYS = {
    "title": "WORDS",
    "models": "NAME, NAME",
    "step": "WORDS",
    "text": "WHAT TO DO AND WHY",
    "open": "view=write&temperature=1.5",
    "check": "KIND ARGUMENTS WORDS",
    "done": "WHAT IT SHOWED",
}


def _entries(text: str) -> list[tuple[int, str, str]]:
    """Return the entries of a file, (line, key, value). An indented line continues the value of the entry before it."""
    entries: list[tuple[int, str, str]] = []
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip() or content.startswith("#"):
            continue
        if content[0] in " \t":
            if not entries:
                raise LessonError(line, "an indented line goes on with the line before, and there is none")
            start, key, value = entries[-1]
            entries[-1] = start, key, f"{value} {content.strip()}".strip()
        elif match := ENTRY.match(content):
            entries.append((line, match[1], (match[2] or "").strip()))
        else:
            raise LessonError(
                line,
                f"{printable(content)!r:.60} is not an entry; write KEY: VALUE with a key among {', '.join(KEYS)}, "
                "indent what goes on with the line before, begin a comment with #",
            )
    return entries


def _add(step: dict[str, Any], line: int, key: str, value: str) -> None:
    """Add an entry to a step."""
    if key == "check":
        if len(step["checks"]) == MOST_CHECKS:
            raise LessonError(line, f"a step has at most {MOST_CHECKS} checks; make two steps of it")
        step["checks"] += (_read_check(line, value),)
        return
    if key in step:
        raise LessonError(line, f"the step has two entries {key!r}; indent a line that goes on with the one before")
    if key == "open":
        query = re.sub(r"^[^=&#]*\?", "", value)  # a whole address may be pasted
        if not parse_qs(query.partition("#")[0]):
            raise LessonError(
                line, f"{value!r:.60} is not an address; write open: {KEYS['open']}, as after a page's '?'"
            )
        value = query
    step[key] = value


def _check_complete(head: Mapping[str, str], steps: list[dict[str, Any]], lines: list[int], line: int) -> None:
    """Check that what ends before a line is complete: the head and, if there is one, the last step.

    lines: the numbers of the lines in which the steps begin. Raises LessonError.
    """
    if "title" not in head:
        raise LessonError(line, f"the lesson has no title; begin the file with title: {KEYS['title']}")
    if not steps:
        return
    if len(steps) > MOST_STEPS:
        raise LessonError(lines[-1], f"a lesson has at most {MOST_STEPS} steps; make two files of it")
    last = steps[-1]
    if "text" not in last:
        raise LessonError(lines[-1], f"the step {last['title']!r} does not say what to do; add text: {KEYS['text']}")
    if not last["checks"]:
        raise LessonError(lines[-1], f"the step {last['title']!r} has no check; add check: {KEYS['check']}")


# The checks


def _read_check(line: int, value: str) -> Check:
    kind, *rest = value.split()
    if kind not in CHECKS:
        raise LessonError(
            line, f"{kind!r} is not a kind of check; they are {', '.join(CHECKS)}{_suggest(kind, CHECKS)}"
        )
    readers = CHECKS[kind]
    form = " ".join([kind, *(name.upper() for name in readers), "WORDS"])
    if len(rest) <= len(readers):
        raise LessonError(line, f"{value!r:.80} lacks something; write check: {form}")
    arguments: dict[str, str | float] = {}
    for given, (name, read) in zip(rest, readers.items(), strict=False):  # the words come after the arguments
        try:
            arguments[name] = read(given)
        except ValueError as error:
            raise LessonError(line, f"{name.upper()} is {printable(given)!r:.50}; it must be {error}: {form}") from None
    if arguments.get("low", 0) > arguments.get("high", math.inf):  # type: ignore[operator]
        raise LessonError(line, f"LOW {arguments['low']} is above HIGH {arguments['high']}; write check: {form}")
    return Check(kind, arguments, " ".join(rest[len(readers) :]))


def _one_of(*names: str) -> Callable[[str], str]:
    def read(given: str) -> str:
        if given not in names:
            raise ValueError("one of " + ", ".join(names))
        return given

    return read


def _number(given: str) -> float:
    try:
        number = float(given)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("a number")
    return number


def _count(given: str) -> float:
    if not (given.isdecimal() and 1 <= int(given) <= 1000):
        raise ValueError("a whole number from 1 to 1000")
    return int(given)


def _share(given: str) -> float:
    if not 0 < (number := _number(given)) <= 1:
        raise ValueError("a number above 0, at most 1")
    return number


def _elem_id(given: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,40}", given):
        raise ValueError("the id of an element, such as alternatives or model-a")
    return given


def _model(given: str) -> str:
    return given


_SIDE = _one_of("a", "b")

# The kinds of checks: the arguments of each by name, with what reads them. components/deeds.js has a function for each.
CHECKS: dict[str, dict[str, Callable[[str], str | float]]] = {
    "view": {"name": _one_of("write", "learn", "inside", "train", "about")},
    "set": {"id": _elem_id, "low": _number, "high": _number},
    "choose": {"id": _elem_id, "value": _model},
    "use": {"id": _elem_id},
    "written": {
        "setting": _one_of("temperature", "length", "top_k", "top_p"),
        "low": _number,
        "high": _number,
    },
    "force": {"count": _count},
    "predict": {"count": _count},
    "forget": {"side": _SIDE, "count": _count},
    "track": {"score": _share},
    "number": {"value": _number, "tolerance": _number},
    "bits": {"side": _SIDE, "tolerance": _number},
    "loss": {
        "model": _model,
        "curve": _one_of("train_loss", "val_loss", "unseen_loss"),
        "epoch": _count,
        "tolerance": _number,
    },
}


def _suggest(given: str, names: Mapping[str, object]) -> str:
    similar = nearest(given, names)
    return f"; did you mean {similar!r}?" if similar else ""
