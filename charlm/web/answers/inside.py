"""The answers of the view *Look inside*: what models expected in a text, what their units did, how far back they look.

All functions raise RequestError for an argument out of bounds.
"""

import re
from functools import partial
from threading import BoundedSemaphore
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.analysis.context import FORGOTTEN, ROUNDING, context_length
from charlm.analysis.inspection import Inspection, UnitGates, name_likeliest
from charlm.checks import check_text, check_whole
from charlm.errors import RequestError
from charlm.lm import CharLM
from charlm.messages import counted, show
from charlm.model.history import bits_per_char
from charlm.web.answers.write import SIDES
from charlm.web.heat import MOST_DIFFERENCE, MOST_NATS, Heat, shades
from charlm.web.models import ModelRegistry
from charlm.web.plots import draw_context
from charlm.web.readings import Readings

LONGEST_INSPECTED = 5_000  # characters: the states kept for each take up to 16 KB in an LSTM of 2 × 1,024
LONGEST_SEARCHED = 100_000  # characters in which units are searched
LONGEST_TRACED = 300  # characters before a prediction whose influence on it is measured
MOST_COMPARED = 8  # models
WRITTEN = 4_000  # characters that `write_text` returns
SEARCH_SECONDS = 5.0  # for the other places of a pattern
TRACES_AT_ONCE, SEARCHES_AT_ONCE = 4, 2  # each takes a core; a trace in an LSTM of 512 units takes 10 MB
TINY = 1e-12  # avoids a division by zero

SURPRISAL, DIFFERENCE = "surprisal", "difference"
# the model, A if it is left out, the colour: a state or a gate, or of the whole text, layer and unit from 0; what
# follows describes the unit
UNIT = re.compile(r"(?:([AB]) )?(hidden|cell|i|f|g|o|r|z|n|sum|surprisal|difference) (\d{1,4}):(\d{1,6})\b")
STATES = {"hidden": "h", "cell": "c"}  # as they are called among the gates


class Inspector:
    """Answers about the models of a registry. It keeps what they read, so that each text is read once."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry
        self._readings = Readings()
        self._traces, self._searches = BoundedSemaphore(TRACES_AT_ONCE), BoundedSemaphore(SEARCHES_AT_ONCE)

    def look(self, model_a: str, model_b: str, text: str, colour: str) -> dict[str, Any]:
        """Return what both models expected in the characters of a text that both know.

        colour: `surprisal`; `difference`, that of A minus that of B; or a unit whose activations colour the text of its
            model, as [B ]STATE LAYER:UNIT or [B ]GATE LAYER:UNIT. The other text is then coloured by surprisal. The
            first two may name the unit that is shown, too, as in `surprisal 1:17` or `B difference 1:17`.

        The value has `a` and `b`: of each model its name, how many `units` it has, the heat and a line about the whole;
        b is None if it is the same model. `unit` is that of the colour, or the one of model A that varies most: its
        `side`, a or b, and its gates. `longer` is the whole text if only its beginning is shown.
        """
        names = [model_a] if model_a == model_b else [model_a, model_b]
        lms, known, skipped = self._known_text(names, text, LONGEST_INSPECTED)
        seen = [self._readings.read(lm, known) for lm in lms]
        # 1) the colours of both texts
        unit, side, kind = _most_varying(lms[0], seen[0]), 0, colour
        if colour not in (SURPRISAL, DIFFERENCE):
            side = int(isinstance(colour, str) and colour.startswith("B ") and len(seen) > 1)
            unit, kind = _read_unit(lms[side], seen[side], colour)
        colours = [_surprisal(one) for one in seen]
        if kind == DIFFERENCE:
            colours = [_difference(seen[0], seen[-1])] * len(seen)
        elif kind != SURPRISAL:
            colours[side] = _activation(unit, kind)
        # 2) what is known of each character
        run = {"model_a": model_a, "model_b": model_b, "text": text, "colour": colour}
        line = partial(_describe, skipped=skipped, length=len(text))
        sides = [
            {
                "model": name,
                "units": lm.config.num_layers * lm.config.hidden_size,
                "heat": _details(name, lm, one, run) | coloured,
                "line": line(one),
            }
            for name, lm, one, coloured in zip(names, lms, seen, colours, strict=True)
        ]
        is_longer = len(text) > LONGEST_INSPECTED
        return {
            "a": sides[0],
            "b": sides[1] if sides[1:] else None,
            "unit": {"side": SIDES[side], **_show_unit(names[side], unit)},
            "longer": self._known_text(names, text, LONGEST_SEARCHED)[1] if is_longer else "",
        }

    def find_units(self, model: str, text: str) -> list[str]:
        """Return for each feature of the text the unit that tracks it best, with a description, best first."""
        (lm,), known, _ = self._known_text([model], text, LONGEST_SEARCHED)
        found = lm.find_units(known, 1)
        best = sorted(((units[0], feature) for feature, units in found.items()), key=lambda each: -each[0].score)
        return [f"{unit.state} {unit.layer}:{unit.unit} · {feature} ({unit.score:.2f})" for unit, feature in best]

    def trace_influence(self, model: str, text: str, place: object) -> dict[str, Any]:
        """Return how strongly each earlier character influenced the prediction at a place, from 0, and a line about it.

        first: the place of the first of the characters that have `shades`, one for each up to the place.
        """
        (lm,), known, _ = self._known_text([model], text, LONGEST_INSPECTED)
        place = check_whole("place", place, 0, max(len(known) - 1, 0))
        with self._traces:
            norms = lm.influence_at(self._readings.read(lm, known), place, LONGEST_TRACED)
        half = int(np.searchsorted(np.cumsum(norms[::-1]), norms.sum() / 2)) + 1
        last = "character" if half == 1 else f"{half:,} characters"
        return {
            "first": place - len(norms),
            "shades": shades(norms / max(float(norms.max()), TINY)),
            "line": f"Half of the influence on this prediction came from the last {last}; the underline shows how much "
            "from each.",
        }

    def find_pattern(
        self, model: str, text: str, longer: object, start: object, end: object, threshold: object
    ) -> dict[str, Any]:
        """Return the units that are on in a stretch of a text and off around it, and other places where they are on.

        longer: the text to search for those; empty for the same text. Symbols that the model does not know are left out
            of both. places: start, end, and share of the units. searched: the characters that were searched, fewer than
            there are if it took too long.
        """
        (lm,), known, _ = self._known_text([model], text, LONGEST_INSPECTED)
        within = lm.vocab.keep_known(check_text("text", longer, LONGEST_SEARCHED))[0] if longer else known
        with self._searches:
            seen = self._readings.read(lm, known)
            stretch: Any = start, end, threshold  # which are checked there
            found = lm.find_pattern(seen, *stretch, within=within, seconds=SEARCH_SECONDS)
        return {"units": found.units, "places": found.places, "searched": found.searched}

    def compare_contexts(self, names: object, text: str) -> tuple[dict[str, Any], list[str]]:
        """Measure the effective context of some models on a text; return the curves, and a sentence for each model."""
        models = self._registry.choose(names, MOST_COMPARED)
        if not models:
            raise RequestError("choose at least one model")
        curves = []
        for name in (model.name for model in models):
            (lm,), known, _ = self._known_text([name], text, LONGEST_INSPECTED)
            curves.append((name, lm.effective_context(known)))
        sentences = [_describe_context(name, curve) for name, curve in curves]
        return draw_context([(name, curve.tolist()) for name, curve in curves], ROUNDING), sentences

    def write_text(self, model: str) -> str:
        """Let a model write a text that can then be inspected."""
        return self._registry[model].lm.generate("", WRITTEN)

    def _known_text(self, names: list[str], text: object, longest: int) -> tuple[list[CharLM], str, dict[str, str]]:
        """Return the models, the beginning of the text as all of them can read it, and what was left out of it.

        The symbols that were left out are given by the name of the model that does not know them.
        """
        lms = [self._registry[name].lm for name in names]
        beginning = check_text("text", text, LONGEST_SEARCHED)[:longest]
        skipped = {name: lm.vocab.keep_known(beginning)[1] for name, lm in zip(names, lms, strict=True)}
        known = beginning.translate(dict.fromkeys(map(ord, "".join(skipped.values()))))
        if not known:
            raise RequestError("there is nothing to read: enter a text of characters that the model knows")
        return lms, known, skipped


def _details(model: str, lm: CharLM, seen: Inspection, run: dict[str, Any]) -> Heat:
    """Return a text with the likeliest symbols in each place, without colours."""
    likeliest = name_likeliest(seen, lm.vocab)
    # rounded to the tenths of a percent that the page shows: rounded twice, 7.5503 % would be 7.55 and then 7.5
    details = [[(symbol, round(probability, 3)) for symbol, probability in place] for place in likeliest]
    return {"prompt": "", "text": seen.text, "details": details, "name": f"{model}-inside", "run": run}


def _difference(one: Inspection, other: Inspection) -> Heat:
    """Return kind and shades of a text by how much more surprising each character was to one model than to another."""
    nats = one.surprisals - other.surprisals
    return {"kind": DIFFERENCE, "shades": shades((nats / MOST_DIFFERENCE + 1) / 2)}


def _surprisal(seen: Inspection) -> Heat:
    return {"kind": SURPRISAL, "shades": shades(seen.surprisals / MOST_NATS)}


def _activation(found: UnitGates, name: str) -> Heat:
    """Return kind and shades of a text by a state or a gate of a unit: of a gate between 0 and 1, its values."""
    values = found.gates[name].astype(np.float64)
    if name in found.saturation:
        return {"kind": "gate", "shades": shades(values)}
    return {"kind": "activation", "shades": shades((values / max(float(np.abs(values).max()), TINY) + 1) / 2)}


def _read_unit(lm: CharLM, seen: Inspection, colour: object) -> tuple[UnitGates, str]:
    """Return the unit that a colour names, and by which of its gates, or by what else, the text is coloured.

    Raises RequestError if the model has no such unit or gate.
    """
    match, config = UNIT.match(colour) if isinstance(colour, str) else None, lm.config
    if match and int(match[3]) < config.num_layers and int(match[4]) < config.hidden_size:
        found, name = lm.unit_gates(seen, int(match[3]), int(match[4])), STATES.get(match[2], match[2])
        if name in found.gates or name in (SURPRISAL, DIFFERENCE):
            return found, name
    kinds = "hidden" if seen.cell_state is None else "hidden or cell"
    raise RequestError(
        f"{show(colour)} is not a unit of this model: write {kinds}, or the name of a gate, then a layer from 0 to "
        f"{config.num_layers - 1}, a colon and a unit from 0 to {config.hidden_size - 1}, for example hidden 0:0"
    )


def _most_varying(lm: CharLM, seen: Inspection) -> UnitGates:
    """Return the unit of the last layer whose hidden state varies most over a text."""
    return lm.unit_gates(seen, lm.config.num_layers - 1, int(seen.hidden[:, -1].var(axis=0).argmax()))


def _show_unit(model: str, found: UnitGates) -> dict[str, Any]:
    """Return the numbers of a unit as the page's component `cell` takes them."""
    gates = {name: np.round(values.astype(np.float64), 4).tolist() for name, values in found.gates.items()}
    return {"title": f"Unit {found.layer}:{found.unit} of {model}", "cell": found.cell, "gates": gates}


def _describe(inspection: Inspection, skipped: dict[str, str], length: int) -> str:
    """Say in a line how well a model read a text of that length. skipped: by model, what it does not know."""
    read = len(inspection.text)
    parts = [counted(read, "character")]
    if read > 1:
        bits = bits_per_char(float(inspection.surprisals[1:].mean()))
        parts.append(f"{bits:.2f} bits per character, perplexity {2**bits:.1f}")
    if length > LONGEST_INSPECTED:
        parts.append(f"the first {LONGEST_INSPECTED:,} of {length:,} are shown")
    parts += [f"skipped, as {name} does not know it: {unknown!r:.200}" for name, unknown in skipped.items() if unknown]
    return " · ".join(parts)


def _describe_context(name: str, curve: NDArray[np.float64]) -> str:
    """Say how far back a changed character matters, and how much."""
    length = context_length(curve)
    reach = f"{'at least ' if length == len(curve) else ''}{counted(length, 'character')}"
    return (
        f"{name} has an effective context of {reach}: for that long a changed character alters the "
        f"prediction by over {FORGOTTEN} nats. Right after the change it is {curve[0]:.2f} nats, 10 characters later "
        f"{curve[10]:.4f}."
    )
