"""The answers of the view *Write*: two models continue the same prompt side by side."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from charlm.checks import check_number, check_text, check_whole
from charlm.errors import RequestError, VocabError
from charlm.inference.sampling import SamplingSettings
from charlm.inference.streams import check_stop
from charlm.messages import counted, show
from charlm.model.history import bits_per_char
from charlm.web.heat import MOST_NATS, Heat, fractions, shades
from charlm.web.models import ModelRegistry, ServedModel

# The bounds of what can be asked for: on the page (its sliders end there), in a share link and over the API.
LONGEST_TEXT = 5_000  # characters written per request, so that no request occupies the machine for long
LONGEST_PROMPT = 20_000
LONGEST_MODEL_NAME = 200
HIGHEST_TEMPERATURE = 2
LARGEST_TOP_K = 100
SEED_DIGITS = 40
MOST_SAMPLES = 16  # texts of a request, which together may be as long as one: they have the bounds above in common
MOST_STOPS, LONGEST_STOP = 16, 200

LONGEST_CONTINUED = 20_000  # characters of a text that can be continued: the model has to read them again
UPDATE_SECONDS = 0.05  # between two values of a stream: browsers draw hardly more often, and each costs the server
TEMPERATURES = (0.5, 1.0, 1.5)  # that `write_at_temperatures` compares
LONGEST_AT_TEMPERATURES = 1_000  # characters of each of its six texts

# The fields of the page that a text depends on, in their order there.
FIELDS = ("model_a", "model_b", "prompt", "length", "temperature", "top_k", "top_p", "seed")

MOST_CHOICES = 64  # of one text
SIDES = ("a", "b")  # model A and model B

T = TypeVar("T")
Forced = tuple[tuple[int, str], ...]  # the symbols of a text that a visitor chose, by place, in the order of places
BothTexts = tuple[Heat, Heat, str, str]  # of model A and model B: their texts, and a line about each


@dataclass(frozen=True)
class WriteSettings:
    """What is to be written: by which models, after which prompt, how many characters, how drawn.

    forced: for each model, the symbols that stand in its text whatever is drawn; without them, none for each.
    Raises RequestError for a value out of the bounds above.
    """

    models: tuple[str, ...]
    prompt: str
    length: int
    sampling: SamplingSettings
    forced: tuple[Forced, ...] = ()

    def __post_init__(self) -> None:
        for name in self.models:
            check_text("model", name, LONGEST_MODEL_NAME)
        check_text("prompt", self.prompt, LONGEST_PROMPT)
        object.__setattr__(self, "length", check_whole("length", self.length, 1, LONGEST_TEXT))
        check_number("temperature", self.sampling.temperature, 0, HIGHEST_TEMPERATURE)
        check_whole("top_k", self.sampling.top_k, 0, LARGEST_TOP_K)
        check_whole("seed", self.sampling.seed, 0, 10**SEED_DIGITS - 1)
        object.__setattr__(self, "forced", self.forced or ((),) * len(self.models))

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> "WriteSettings":
        """Build the settings from the fields of the page, by name, as `to_fields` gives them; nothing is trusted.

        The seed may be empty: then one is drawn. `forced_a` and `forced_b` may be there besides, as JSON has them.
        """
        given: dict[str, Any] = dict.fromkeys(FIELDS) | dict(fields)
        sampling = SamplingSettings(given["temperature"], given["top_k"], given["top_p"], read_seed(given["seed"]))
        forced = tuple(check_forced(given.get(f"forced_{side}")) for side in SIDES)
        return cls((given["model_a"], given["model_b"]), given["prompt"], given["length"], sampling, forced)

    def to_fields(self) -> dict[str, Any]:
        """Return the settings of two models as the fields of the page, in their order there.

        The seed is its digits: a number of JavaScript cannot hold every seed.
        """
        sampling = self.sampling
        values = *self.models, self.prompt, self.length, sampling.temperature, sampling.top_k, sampling.top_p
        return dict(zip(FIELDS, (*values, str(sampling.seed)), strict=True))


def write(registry: ModelRegistry, settings: WriteSettings) -> Iterator[BothTexts]:
    """Let both models continue the prompt with the same seed; yield what each has written so far."""
    yield from _write_both(registry, [settings, settings], [{}, {}])


def continue_texts(registry: ModelRegistry, heat_a: object, heat_b: object, length: int) -> Iterator[BothTexts]:
    """Continue both texts, as a browser sent them back, each with the settings that it began with.

    Raises RequestError if there is nothing that could be continued, VocabError if a model cannot have written it.
    """
    written = [check_heat(heat) for heat in (heat_a, heat_b)]
    settings = [
        WriteSettings.from_fields(heat["run"] | {f"forced_{side}": heat["run"].get("forced"), "length": length})
        for side, heat in zip(SIDES, written, strict=True)
    ]
    yield from _write_both(registry, settings, written)


def branch(registry: ModelRegistry, side: str, heat: object, forced: object) -> Iterator[tuple[Heat, str]]:
    """Write the rest of a text that a visitor has cut, with choices behind the cut; yield text and line.

    side: of SIDES, whose model wrote it. heat: what stays of it, as a browser sends it. forced: the choices of the
        whole text, [[place, symbol], …] as JSON has them.

    The text gets the length that its settings say, and at least one more character. Raises RequestError if the choices
    are not in the order of their places, VocabError if the model does not know one.
    """
    before = check_heat(heat)
    settings = WriteSettings.from_fields(before["run"])
    length = max(settings.length - len(before["text"]), 1)
    model = registry[settings.models[SIDES.index(side)]]
    whole = max(settings.length, min(len(before["text"]) + 1, LONGEST_TEXT))
    panel = Panel(model, replace(settings, length=length), before, whole, check_forced(forced))
    for _ in _write_together([panel]):
        yield panel.heat, panel.line


def write_at_temperatures(registry: ModelRegistry, settings: WriteSettings) -> Iterator[list[Heat]]:
    """Let both models write at each of TEMPERATURES; yield the six texts, those of a temperature side by side."""
    settings = replace(settings, length=min(settings.length, LONGEST_AT_TEMPERATURES))
    panels = [
        Panel(registry[name], replace(settings, sampling=replace(settings.sampling, temperature=temperature)))
        for temperature in TEMPERATURES
        for name in settings.models
    ]
    for _ in _write_together(panels):
        yield [panel.heat for panel in panels]


class Panel:
    """The text that one model writes, and the line about it."""

    def __init__(
        self,
        model: ServedModel,
        settings: WriteSettings,
        written: Heat | None = None,
        whole: int | None = None,
        forced: Forced = (),
    ) -> None:
        """written: the text that is continued. whole: the length that, asked for at once, gives the continued text too.

        Raises VocabError if the model cannot have written the text, or does not know one of the choices.
        """
        sampling = settings.sampling
        prompt, self._skipped = model.lm.vocab.keep_known(settings.prompt)
        written = written or {}
        text = written.get("text", "")
        check_known(model, forced)
        self.pieces = model.lm.stream_scored(prompt, settings.length, sampling, after=text, forced=dict(forced))
        self._model, self._seed = model.name, sampling.seed
        self._written = len(text)
        self.heat: Heat = {
            "prompt": prompt,
            "text": text,
            "shades": written.get("shades", "").ljust(len(text)),
            "kind": "surprisal",
            "name": f"{model.name}-{sampling.seed}",
            "run": replace(settings, length=whole or settings.length).to_fields() | {"forced": list(map(list, forced))},
        }
        self._forced = forced
        self._nats, self._begin = 0.0, time.perf_counter()
        self._nats_before = MOST_NATS * float(np.nansum(fractions(self.heat["shades"])))

    def add(self, piece: str, surprisals: NDArray[np.float64]) -> None:
        """Append a piece of N symbols with their surprisals, (N,) nats."""
        self._nats += float(surprisals.sum())
        text = self.heat["text"] + piece
        self.heat = self.heat | {
            "text": text,
            "shades": self.heat["shades"] + shades(surprisals / MOST_NATS),
            "bits": (bits_per_char((self._nats_before + self._nats) / len(text)), len(text)),
        }

    @property
    def line(self) -> str:
        """Model, length, speed, bits per character, seed, and which symbols of the prompt were skipped."""
        new = len(self.heat["text"]) - self._written
        rate = new / max(time.perf_counter() - self._begin, 1e-9)
        parts = [
            self._model,
            f"{counted(len(self.heat['text']), 'character')}, {rate:,.0f} per second",
            f"{self.heat.get('bits', (0, 0))[0]:.2f} bits per character",
            f"seed {self._seed}",
        ]
        if self._forced:
            parts.append(f"{len(self._forced)} chosen by you")
        if self._skipped:
            parts.append(f"skipped in the prompt, as the model does not know it: {self._skipped!r:.200}")
        return " · ".join(parts)


def _write_both(
    registry: ModelRegistry, settings: Sequence[WriteSettings], written: Sequence[Heat]
) -> Iterator[BothTexts]:
    """Continue both texts, each with settings of its own: those of the other model in them are not used."""
    longest = max(len(heat.get("text", "")) for heat in written)
    panel_a, panel_b = (
        Panel(registry[own.models[side]], own, heat, min(own.length + longest, LONGEST_TEXT), own.forced[side])
        for side, (own, heat) in enumerate(zip(settings, written, strict=True))
    )
    for _ in _write_together([panel_a, panel_b]):
        yield panel_a.heat, panel_b.heat, panel_a.line, panel_b.line


def _write_together(panels: Sequence[Panel]) -> Iterator[None]:
    """Add to all panels what their models write; yield whenever there is something new to show."""
    with ExitStack() as closing:  # a visitor who leaves in the middle ends all streams
        for panel in panels:
            closing.callback(panel.pieces.close)
        for updates in gather_updates(zip_longest(*(panel.pieces for panel in panels))):
            for pieces in updates:
                for panel, piece in zip(panels, pieces, strict=True):
                    if piece is not None:
                        panel.add(*piece)
            yield


def gather_updates(pieces: Iterable[T]) -> Iterator[list[T]]:
    """Gather the pieces of a stream into updates: the first piece at once, then one update every UPDATE_SECONDS.

    The last update, which may be empty, comes at the end of the stream.
    """
    update: list[T] = []
    sent = -math.inf
    for piece in pieces:
        update.append(piece)
        if (now := time.perf_counter()) - sent > UPDATE_SECONDS:
            yield update
            update, sent = [], now
    yield update


def link_label(*heats: object) -> str:
    """Return what a link to texts, as a browser sent them, is called: it opens LONGEST_TEXT characters at most."""
    texts = [heat.get("text") for heat in heats if isinstance(heat, dict)]
    is_cut = any(isinstance(text, str) and len(text) > LONGEST_TEXT for text in texts)
    return "A link to these texts" + (f" (their first {LONGEST_TEXT:,} characters)" if is_cut else "")


def check_stops(stop: object) -> tuple[str, ...]:
    """Return the stop strings of a request as `check_stop` does. Raises RequestError if they are too many, too."""
    stops = check_stop(stop)
    if len(stops) > MOST_STOPS or max(map(len, stops), default=0) > LONGEST_STOP:
        raise RequestError(f"stop must be at most {MOST_STOPS} strings of at most {LONGEST_STOP} characters")
    return stops


def read_seed(text: object) -> int | None:
    """Return the seed that a visitor typed, None for an empty field. Raises RequestError if it is no whole number."""
    if not isinstance(text, str) or not (text.strip() == "" or text.strip().isdecimal()) or len(text) > SEED_DIGITS:
        raise RequestError(f"seed is {show(text)}; it must be a whole number from 0, or empty for any")
    return int(text) if text.strip() else None


def check_forced(forced: object) -> Forced:
    """Return the choices of a text, which JSON has as [[place, symbol], …] or null for none.

    Raises RequestError if they are anything else, more than MOST_CHOICES, or not in the order of their places.
    """
    if forced is None:
        return ()
    if not isinstance(forced, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in forced):
        raise RequestError(f"the choices are {show(forced)}; they must be a list of pairs, a place and a symbol")
    if len(forced) > MOST_CHOICES:
        raise RequestError(f"these are {len(forced)} choices; a text has at most {MOST_CHOICES}: start a new one")
    checked = tuple(_check_choice(place, symbol) for place, symbol in forced)
    places = [place for place, _ in checked]
    if places != sorted(set(places)):
        raise RequestError(f"the choices are at {show(places)}; their places must ascend")
    return checked


def _check_choice(place: object, symbol: object) -> tuple[int, str]:
    if not isinstance(symbol, str) or len(symbol) != 1:
        raise RequestError(f"a choice is {show(symbol)}; it must be one character")
    return check_whole("the place of a choice", place, 0, LONGEST_CONTINUED - 1), symbol


def check_known(model: ServedModel, forced: Forced) -> None:
    """Raise VocabError if a model does not know one of the choices."""
    for place, symbol in forced:
        if symbol not in model.lm.vocab:
            raise VocabError(
                f"{symbol!r}, chosen for character {place + 1}, is not among the {len(model.lm.vocab)} symbols of "
                f"{model.name}; choose one that it knows, or the model that the text was made with"
            )


def check_heat(heat: object) -> Heat:
    """Return a text that a browser sent back. Raises RequestError if it cannot be continued."""
    fields = heat if isinstance(heat, dict) else {}
    text, encoded, run = fields.get("text"), fields.get("shades"), fields.get("run")
    if not isinstance(text, str) or not isinstance(encoded, str) or not isinstance(run, dict):
        raise RequestError("there is no text to continue yet: let the models write one first")
    if len(text) > LONGEST_CONTINUED:
        raise RequestError(f"a text of over {LONGEST_CONTINUED:,} characters is not continued: start a new one")
    return {"text": text, "shades": encoded[: len(text)], "run": run}
