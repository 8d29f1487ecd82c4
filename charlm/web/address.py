"""The page's address: which view it opens, and what a shared link fills in."""

from collections.abc import Callable, Mapping
from typing import Any

from charlm.errors import CharLMError
from charlm.web.answers.write import Run
from charlm.web.models import ModelRegistry

VIEWS = {"write": "Write", "learn": "Learn", "inside": "Look inside", "train": "Train"}

# What a link holds, in the order of the fields on the page, and how to read it.
FIELDS: Mapping[str, Callable[[str], Any]] = {
    "a": str,
    "b": str,
    "prompt": str,
    "length": int,
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "seed": str,
}


def read_address(query: Mapping[str, str], registry: ModelRegistry) -> tuple[str, list[Any], list[str]]:
    """Return the view that an address names, a value for each of FIELDS, and what is wrong with it.

    The values are None where the address is none of a shared text, or one that cannot be had here.
    """
    view = query.get("view", "write")
    nothing: list[Any] = [None] * len(FIELDS)
    if view not in VIEWS:
        view = "write"
    if not all(name in query for name in FIELDS):
        return view, nothing, []
    try:
        values = [read(query[name]) for name, read in FIELDS.items()]
        run = Run.checked(values[:2], *values[2:])
        for name in (run.model_a, run.model_b):
            _ = registry[name]
    except (ValueError, OverflowError):
        return view, nothing, ["The link is damaged: one of its numbers is none."]
    except CharLMError as error:
        return view, nothing, [f"The link cannot be opened here: {error}."]
    return view, values, []
