"""Texts to try in *Train*: generated from the grammars in static/texts/, the same each time.

A grammar has one rule per line, `name: option | option`. `{rule}` in an option stands for an option of that rule, with
a capital letter if it is `{^rule}`. `{label:rule}` also gives the result a name, by which `{label}` repeats it until
the next `text`, the rule that is expanded again and again. `{count}` is the number of the `text`. A `{` that begins
none of these stands for itself.
"""

import random
import re
from functools import lru_cache
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "static" / "texts"
KINDS = ("play", "tales", "rules", "names", "code")  # the grammars, in the order that the page offers them
LENGTH = 24_000  # characters
REFERENCE = re.compile(r"\{(\^?)(?:(\w+):)?(\w+)\}")

Grammar = dict[str, list[str]]  # the options of each rule


@lru_cache
def read_grammar(kind: str) -> Grammar:
    """Return one of the grammars."""
    lines = (FOLDER / f"{kind}.txt").read_text(encoding="utf-8").splitlines()
    rules = (line.split(": ", 1) for line in lines if not line.startswith("#"))
    return {name: [option.replace("\\n", "\n") for option in options.split(" | ")] for name, options in rules}


def title(kind: str) -> str:
    """Return what the page calls a text."""
    return read_grammar(kind)["title"][0]


def make_text(kind: str) -> str:
    """Return a text of LENGTH characters or a few more."""
    grammar, generator = read_grammar(kind), random.Random(kind)
    parts, length = list[str](), 0
    while length < LENGTH:
        parts.append(_expand(grammar, "text", {"count": str(len(parts) + 1)}, generator))
        length += len(parts[-1])
    return "".join(parts)


def _expand(grammar: Grammar, rule: str, known: dict[str, str], generator: random.Random) -> str:
    """Return a text that a rule stands for. known: the texts of the labels; those of this rule are added to it."""

    def fill(reference: re.Match[str]) -> str:
        capital, label, name = reference.groups()
        text = known[name] if name in known else _expand(grammar, name, known, generator)
        if label is not None:
            known[label] = text
        return text[:1].upper() + text[1:] if capital else text

    return REFERENCE.sub(fill, generator.choice(grammar[rule]))
