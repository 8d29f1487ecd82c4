"""A look inside a model, as the view *Look inside* shows it."""

import re

import numpy as np
from numpy.typing import NDArray
from plotly import graph_objects as go

from charlm.analysis.context import FORGOTTEN, ROUNDING, context_length
from charlm.analysis.inspection import Inspection, name_likeliest
from charlm.checks import check_whole
from charlm.errors import RequestError
from charlm.lm import CharLM
from charlm.model.history import bits_per_char
from charlm.web.answers.write import check_text
from charlm.web.heat import MOST_NATS, Heat, shades
from charlm.web.models import ModelRegistry
from charlm.web.plots import draw_memory

LONGEST_SHOWN = 5_000  # characters: the states that are kept of each take up to 16 KB in an LSTM of 2 × 1,024
LONGEST_SEARCHED = 100_000
LONGEST_LOOK_BACK = 300  # characters whose influence is measured
MOST_COMPARED = 8  # models
WRITTEN = 4_000  # characters that a model writes for a look inside
TINY = 1e-12

SURPRISE = "surprise"
UNIT = re.compile(r"(hidden|cell) (\d{1,4}):(\d{1,6})\b")  # layer and unit from 0; what follows describes it


class Insider:
    """The answers of the view. All raise RequestError for an argument out of bounds."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    def look(self, model: str, text: str, colour: str) -> tuple[Heat, str]:
        """Read a text; return it with what the model expected at each place, and a line about the whole.

        colour: `surprise`, or a unit by whose activation the text is coloured, as STATE LAYER:UNIT.
        """
        lm, known, skipped = self._read(model, text, LONGEST_SHOWN)
        inspection = lm.inspect(known)
        heat: Heat = {
            "prompt": "",
            "text": inspection.text,
            "details": name_likeliest(inspection, lm.vocab),
            "name": f"{model}-surprise",
        }
        if colour == SURPRISE:
            heat |= {"kind": "surprisal", "shades": shades(inspection.surprisals / MOST_NATS)}
        else:
            heat |= {"kind": "activation", "shades": shades(_activations(inspection, colour))}
        return heat, _describe(inspection, skipped, len(text))

    def find(self, model: str, text: str) -> list[str]:
        """Return the units that track something in a text, described, the ones that do it best first."""
        lm, known, _ = self._read(model, text, LONGEST_SEARCHED)
        found = lm.find_units(known, 1)
        best = sorted(((units[0], feature) for feature, units in found.items()), key=lambda each: -each[0].score)
        return [f"{unit.state} {unit.layer}:{unit.unit} · {feature} ({unit.score:.2f})" for unit, feature in best]

    def trace(self, model: str, text: str, place: object) -> tuple[Heat, str]:
        """Return how strongly each character before a place of a text moved the prediction of the one there."""
        lm, known, _ = self._read(model, text, LONGEST_SHOWN)
        place = check_whole("place", place, 0, max(len(known) - 1, 0))
        if place == 0:
            raise RequestError("nothing was read before the first character: choose a later one")
        first = max(0, place - LONGEST_LOOK_BACK)
        norms = lm.influence(known[first : place + 1])
        relative = norms / max(float(norms.max()), TINY)
        heat: Heat = {
            "prompt": "",
            "text": known[first:place],
            "kind": "influence",
            "shades": shades(relative),
            "name": f"{model}-influence",
        }
        half = np.searchsorted(np.cumsum(norms[::-1]), norms.sum() / 2) + 1
        return heat, (
            f"What moved the prediction of {known[place]!r} (character {place + 1:,}): "
            f"half of it came from the last {half:,} characters."
        )

    def remember(self, names: object, text: str) -> tuple[go.Figure, list[str]]:
        """Compare how far back a changed character still alters the prediction; say so for each model, too."""
        models = self._registry.choose(names, MOST_COMPARED)
        if not models:
            raise RequestError("choose at least one model")
        curves = []
        for name in (model.name for model in models):
            lm, known, _ = self._read(name, text, LONGEST_SHOWN)
            curves.append((name, lm.effective_context(known)))
        said = [_describe_context(name, curve) for name, curve in curves]
        return draw_memory([(name, curve.tolist()) for name, curve in curves], ROUNDING), said

    def write(self, model: str) -> str:
        """Let a model write a text to look into."""
        return self._registry[model].lm.generate("", WRITTEN)

    def _read(self, model: str, text: str, longest: int) -> tuple[CharLM, str, str]:
        """Return the model, as much of the text as is read, and what it does not know of that."""
        lm = self._registry[model].lm
        begin = check_text("text", text, LONGEST_SEARCHED)[:longest]
        known, skipped = lm.vocab.keep_known(begin)
        if not known:
            raise RequestError("there is nothing to read: enter a text of characters that the model knows")
        return lm, known, skipped


def _activations(inspection: Inspection, unit: object) -> NDArray[np.float64]:
    """Return the activation of a unit at each of N symbols, (N,), from 0 to 1; 0.5 is none."""
    match = UNIT.match(unit) if isinstance(unit, str) else None
    states = inspection.cell if match and match[1] == "cell" else inspection.hidden
    if match is None or states is None or int(match[2]) >= states.shape[1] or int(match[3]) >= states.shape[2]:
        _, layers, units = inspection.hidden.shape
        kinds = "hidden" if inspection.cell is None else "hidden or cell"
        raise RequestError(
            f"{unit!r:.60} is no unit of this model: write {kinds}, a layer from 0 to {layers - 1}, a colon and a "
            f"unit from 0 to {units - 1}, such as hidden 0:0"
        )
    activations = states[:, int(match[2]), int(match[3])].astype(np.float64)
    scaled: NDArray[np.float64] = (activations / max(float(np.abs(activations).max()), TINY) + 1) / 2
    return scaled


def _describe(inspection: Inspection, skipped: str, length: int) -> str:
    read = len(inspection.text)
    parts = [f"{read:,} characters"]
    if read > 1:
        bits = bits_per_char(float(inspection.surprisals[1:].mean()))
        parts.append(f"{bits:.2f} bits per character, 1 of {2**bits:.1f} equally likely ones")
    if length > LONGEST_SHOWN:
        parts.append(f"the first {LONGEST_SHOWN:,} of {length:,} are shown")
    if skipped:
        parts.append(f"skipped, as the model does not know it: {skipped!r:.200}")
    return " · ".join(parts)


def _describe_context(name: str, curve: NDArray[np.float64]) -> str:
    """Say how far back a model remembers."""
    reach = context_length(curve)
    until = f"at least {reach}" if reach == len(curve) else str(reach)
    return (
        f"{name} notices a changed character for {until} characters: until then it alters the prediction by over "
        f"{FORGOTTEN} nats. Right after it, that is {curve[0]:.2f} nats, after 10 more {curve[10]:.4f}."
    )
