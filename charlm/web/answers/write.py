"""Models that continue the same prompt beside each other, as the view *Write* shows it."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.checks import check_whole
from charlm.errors import RequestError
from charlm.inference.sampling import Sampler
from charlm.model.history import bits_per_char
from charlm.web.heat import MOST_NATS, Heat, shades
from charlm.web.models import ModelRegistry, ServedModel

LONGEST_TEXT = 5_000  # characters written at a request, so that none occupies the machine for long
LONGEST_PROMPT = 20_000
LONGEST_BEFORE = 20_000  # characters of a text that is continued: they are read again
UPDATE_SECONDS = 0.05  # between two values of a stream: a browser draws no more often, and each costs the server
BOARD = (0.5, 1.0, 1.5)  # temperatures
LONGEST_ON_BOARD = 1_000


@dataclass(frozen=True)
class Run:
    """What a visitor asked for: which models, and the settings of generation."""

    model_a: str
    model_b: str
    prompt: str
    length: int
    temperature: float
    top_k: int
    top_p: float
    seed: int

    @classmethod
    def checked(cls, models: Sequence[object], prompt: object, length: object, *settings: Any) -> "Run":
        """Return a run from arguments that nobody has checked, the seed as its digits, or empty to draw one.

        Raises RequestError for one out of bounds.
        """
        temperature, top_k, top_p, seed_text = settings
        sampler = Sampler(temperature, top_k, top_p, read_seed(seed_text))
        names = [check_text("model", name, 200) for name in models]
        prompt = check_text("prompt", prompt, LONGEST_PROMPT)
        length = check_whole("length", length, 1, LONGEST_TEXT)
        model_a, model_b = names
        return cls(model_a, model_b, prompt, length, sampler.temperature, sampler.top_k, sampler.top_p, sampler.seed)

    def settings(self) -> dict[str, Any]:
        """Return it as the browser keeps it: the seed as digits, since its numbers cannot hold every seed."""
        return asdict(self) | {"seed": str(self.seed)}


class Panel:
    """What one model writes, and how that goes."""

    def __init__(self, model: ServedModel, run: Run, before: Heat | None = None) -> None:
        """before: what it has written already. Raises VocabError if that cannot be so."""
        prompt, self._skipped = model.lm.vocab.keep_known(run.prompt)
        before = before or {}
        text, colours = before.get("text", ""), before.get("shades", "")
        self.pieces = model.lm.stream_scored(
            prompt, run.length, run.temperature, run.top_k, run.top_p, run.seed, after=text
        )
        self._model, self._run = model.name, run
        self._before = len(text)
        self.heat: Heat = {
            "prompt": prompt,
            "text": text,
            "shades": colours.ljust(len(text)),
            "kind": "surprisal",
            "name": f"{model.name}-{run.seed}",
            "run": run.settings(),
        }
        self._nats, self._begin = 0.0, time.perf_counter()

    def add(self, piece: str, surprisals: NDArray[np.float64]) -> None:
        """Take in what was written since the last time."""
        self._nats += float(surprisals.sum())
        self.heat = self.heat | {
            "text": self.heat["text"] + piece,
            "shades": self.heat["shades"] + shades(surprisals / MOST_NATS),
        }

    @property
    def line(self) -> str:
        """How it is going."""
        new = len(self.heat["text"]) - self._before
        rate = new / max(time.perf_counter() - self._begin, 1e-9)
        parts = [
            self._model,
            f"{len(self.heat['text']):,} characters, {rate:,.0f} per second",
            f"{bits_per_char(self._nats / max(new, 1)):.2f} bits per character",
            f"seed {self._run.seed}",
        ]
        if self._skipped:
            parts.append(f"skipped in the prompt, as the model does not know it: {self._skipped!r}")
        return " · ".join(parts)


def write_together(panels: Sequence[Panel]) -> Iterator[None]:
    """Let all of them write; come back when there is something new to show, every UPDATE_SECONDS and at the end."""
    shown = -UPDATE_SECONDS  # what comes first is shown at once
    with ExitStack() as ended:  # whoever leaves in the middle wants no more
        for panel in panels:
            ended.callback(panel.pieces.close)
        for pieces in zip_longest(*(panel.pieces for panel in panels)):
            for panel, piece in zip(panels, pieces, strict=True):
                if piece is not None:
                    panel.add(*piece)
            if (now := time.perf_counter()) - shown > UPDATE_SECONDS:
                yield
                shown = now
        yield


class Writer:
    """The answers of the view. All raise RequestError for an argument out of bounds."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    def write(self, model_a: str, model_b: str, *settings: Any) -> Iterator[tuple[Heat, Heat, str, str]]:
        """Let two models continue the same prompt with the same seed; yield what each has, and how it is going.

        settings: prompt, length, temperature, top-k, top-p, and the seed's digits; empty draws one.
        """
        yield from self._both(Run.checked([model_a, model_b], *settings), [{}, {}])

    def carry_on(self, heat_a: object, heat_b: object, length: int) -> Iterator[tuple[Heat, Heat, str, str]]:
        """Go on with both texts from where they stopped, with the settings that they began with."""
        before = [_read_heat(heat) for heat in (heat_a, heat_b)]
        kept = before[0]["run"]
        settings = [kept.get(name) for name in ("temperature", "top_k", "top_p", "seed")]
        run = Run.checked([kept.get("model_a"), kept.get("model_b")], kept.get("prompt"), length, *settings)
        yield from self._both(run, before)

    def board(self, model_a: str, model_b: str, *settings: Any) -> Iterator[list[Heat]]:
        """Let both models write at three temperatures; yield the six texts, those of a temperature side by side."""
        run = Run.checked([model_a, model_b], *settings)
        run = replace(run, length=min(run.length, LONGEST_ON_BOARD))
        panels = [
            Panel(self._registry[name], replace(run, temperature=temperature))
            for temperature in BOARD
            for name in (model_a, model_b)
        ]
        for _ in write_together(panels):
            yield [panel.heat for panel in panels]

    def _both(self, run: Run, before: Sequence[Heat]) -> Iterator[tuple[Heat, Heat, str, str]]:
        names = run.model_a, run.model_b
        panel_a, panel_b = (Panel(self._registry[name], run, heat) for name, heat in zip(names, before, strict=True))
        for _ in write_together([panel_a, panel_b]):
            yield panel_a.heat, panel_b.heat, panel_a.line, panel_b.line


def check_text(name: str, value: object, longest: int) -> str:
    """Return a text of at most so many characters. Raises RequestError if it is none."""
    if not isinstance(value, str) or len(value) > longest:
        raise RequestError(f"the {name} must be a text of at most {longest:,} characters")
    return value


def read_seed(text: object) -> int | None:
    """Return the seed that a visitor typed, or None if the field is empty. Raises RequestError if it is none."""
    if not isinstance(text, str) or not (text.strip() == "" or text.strip().isdecimal()) or len(text) > 40:
        raise RequestError(f"seed is {text!r:.50}; it must be a whole number from 0, or empty for any")
    return int(text) if text.strip() else None


def _read_heat(heat: object) -> Heat:
    """Check a text that a browser has sent back. Raises RequestError if it is none that can go on."""
    fields = heat if isinstance(heat, dict) else {}
    text, colours, run = fields.get("text"), fields.get("shades"), fields.get("run")
    if not isinstance(text, str) or not isinstance(colours, str) or not isinstance(run, dict):
        raise RequestError("there is no text to continue yet: let the models write one first")
    if len(text) > LONGEST_BEFORE:
        raise RequestError(f"a text of over {LONGEST_BEFORE:,} characters is not continued: start a new one")
    return {"text": text, "shades": colours[: len(text)], "run": run}
