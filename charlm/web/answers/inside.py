"""The answers of the view *Look inside*: what a model expected in a text, what its units did, how far back it looks.

All functions raise RequestError for an argument out of bounds.
"""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.analysis.context import FORGOTTEN, ROUNDING, context_length
from charlm.analysis.inspection import Inspection, name_likeliest
from charlm.checks import check_text, check_whole
from charlm.errors import RequestError
from charlm.lm import CharLM
from charlm.model.history import bits_per_char
from charlm.web.heat import MOST_NATS, Heat, shades
from charlm.web.models import ModelRegistry
from charlm.web.plots import draw_context

LONGEST_INSPECTED = 5_000  # characters: the states kept for each take up to 16 KB in an LSTM of 2 × 1,024
LONGEST_SEARCHED = 100_000  # characters in which units are searched
LONGEST_TRACED = 300  # characters before a prediction whose influence on it is measured
MOST_COMPARED = 8  # models
WRITTEN = 4_000  # characters that `write_text` returns
TINY = 1e-12  # avoids a division by zero

SURPRISAL = "surprisal"
UNIT = re.compile(r"(hidden|cell) (\d{1,4}):(\d{1,6})\b")  # layer and unit from 0; what follows describes the unit


def inspect(registry: ModelRegistry, model: str, text: str, colour: str) -> tuple[Heat, str]:
    """Return a text with what the model expected at each place, and a line about the whole.

    colour: `surprisal`, or a unit whose activations colour the text, as STATE LAYER:UNIT.
    """
    lm, known, skipped = _known_text(registry, model, text, LONGEST_INSPECTED)
    inspection = lm.inspect(known)
    heat: Heat = {
        "prompt": "",
        "text": inspection.text,
        "details": name_likeliest(inspection, lm.vocab),
        "name": f"{model}-surprisal",
        "run": {"model": model, "text": text, "colour": colour},
    }
    if colour == SURPRISAL:
        heat |= {"kind": "surprisal", "shades": shades(inspection.surprisals / MOST_NATS)}
    else:
        heat |= {"kind": "activation", "shades": shades(_activations(inspection, colour))}
    return heat, _describe(inspection, skipped, len(text))


def find_units(registry: ModelRegistry, model: str, text: str) -> list[str]:
    """Return for each feature of the text the unit that tracks it best, with a description, best first."""
    lm, known, _ = _known_text(registry, model, text, LONGEST_SEARCHED)
    found = lm.find_units(known, 1)
    best = sorted(((units[0], feature) for feature, units in found.items()), key=lambda each: -each[0].score)
    return [f"{unit.state} {unit.layer}:{unit.unit} · {feature} ({unit.score:.2f})" for unit, feature in best]


def trace_influence(registry: ModelRegistry, model: str, text: str, place: object) -> tuple[Heat, str]:
    """Return how strongly each earlier character influenced the prediction at a place, from 0, and a line about it."""
    lm, known, _ = _known_text(registry, model, text, LONGEST_INSPECTED)
    place = check_whole("place", place, 0, max(len(known) - 1, 0))
    if place == 0:
        raise RequestError("nothing was read before the first character: choose a later one")
    first = max(0, place - LONGEST_TRACED)
    norms = lm.influence(known[first : place + 1])
    heat: Heat = {
        "prompt": "",
        "text": known[first:place],
        "kind": "influence",
        "shades": shades(norms / max(float(norms.max()), TINY)),
        "name": f"{model}-influence",
    }
    half = np.searchsorted(np.cumsum(norms[::-1]), norms.sum() / 2) + 1
    return heat, (
        f"Prediction of {known[place]!r} (character {place + 1:,}): "
        f"half of the influence on it came from the last {half:,} characters."
    )


def compare_contexts(registry: ModelRegistry, names: object, text: str) -> tuple[dict[str, Any], list[str]]:
    """Measure the effective context of some models on a text; return the curves, and a sentence for each model."""
    models = registry.choose(names, MOST_COMPARED)
    if not models:
        raise RequestError("choose at least one model")
    curves = []
    for name in (model.name for model in models):
        lm, known, _ = _known_text(registry, name, text, LONGEST_INSPECTED)
        curves.append((name, lm.effective_context(known)))
    sentences = [_describe_context(name, curve) for name, curve in curves]
    return draw_context([(name, curve.tolist()) for name, curve in curves], ROUNDING), sentences


def write_text(registry: ModelRegistry, model: str) -> str:
    """Let a model write a text that can then be inspected."""
    return registry[model].lm.generate("", WRITTEN)


def _known_text(registry: ModelRegistry, model: str, text: str, longest: int) -> tuple[CharLM, str, str]:
    """Return the model, the beginning of the text without unknown symbols, and those symbols."""
    lm = registry[model].lm
    begin = check_text("text", text, LONGEST_SEARCHED)[:longest]
    known, skipped = lm.vocab.keep_known(begin)
    if not known:
        raise RequestError("there is nothing to read: enter a text of characters that the model knows")
    return lm, known, skipped


def _activations(inspection: Inspection, unit: object) -> NDArray[np.float64]:
    """Return the activations of a unit, (N,), scaled from [-a, a] to [0, 1], where a is the largest absolute one.

    Raises RequestError if the model has no such unit.
    """
    match = UNIT.match(unit) if isinstance(unit, str) else None
    states = inspection.cell if match and match[1] == "cell" else inspection.hidden
    if match is None or states is None or int(match[2]) >= states.shape[1] or int(match[3]) >= states.shape[2]:
        _, layers, units = inspection.hidden.shape
        kinds = "hidden" if inspection.cell is None else "hidden or cell"
        raise RequestError(
            f"{unit!r:.60} is no unit of this model: write {kinds}, a layer from 0 to {layers - 1}, a colon and a "
            f"unit from 0 to {units - 1}, for example hidden 0:0"
        )
    activations = states[:, int(match[2]), int(match[3])].astype(np.float64)  # (N, L, H) → (N,)
    scaled: NDArray[np.float64] = (activations / max(float(np.abs(activations).max()), TINY) + 1) / 2
    return scaled


def _describe(inspection: Inspection, skipped: str, length: int) -> str:
    read = len(inspection.text)
    parts = [f"{read:,} characters"]
    if read > 1:
        bits = bits_per_char(float(inspection.surprisals[1:].mean()))
        parts.append(f"{bits:.2f} bits per character, perplexity {2**bits:.1f}")
    if length > LONGEST_INSPECTED:
        parts.append(f"the first {LONGEST_INSPECTED:,} of {length:,} are shown")
    if skipped:
        parts.append(f"skipped, as the model does not know it: {skipped!r:.200}")
    return " · ".join(parts)


def _describe_context(name: str, curve: NDArray[np.float64]) -> str:
    """Say how far back a changed character matters, and how much."""
    length = context_length(curve)
    reach = f"at least {length}" if length == len(curve) else str(length)
    return (
        f"{name} has an effective context of {reach} characters: for that long a changed character alters the "
        f"prediction by over {FORGOTTEN} nats. Right after the change it is {curve[0]:.2f} nats, 10 characters later "
        f"{curve[10]:.4f}."
    )
