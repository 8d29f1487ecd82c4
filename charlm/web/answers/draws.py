"""How a character of a written text was drawn: what its model predicted there, and the random number of the draw."""

from typing import Any

import numpy as np

from charlm.checks import check_whole
from charlm.errors import RequestError
from charlm.inference.sampling import random_number
from charlm.web.answers.write import SIDES, WriteSettings, check_heat
from charlm.web.models import ModelRegistry

MOST_SYMBOLS = 256  # of a vocabulary whose logits are told; of a larger one those with the highest

Json = dict[str, Any]


def look_at(registry: ModelRegistry, side: object, place: object, heat: object) -> Json:
    """Return what the character at a place of a text was drawn from, as components/sampling.js describes it.

    side: of SIDES, whose model wrote the text. place: from 0. heat: the text, up to that character at least, with its
        `run`.

    `logits` are those before the character, for `symbols` in the order of their ids. If the vocabulary has more than
    MOST_SYMBOLS, `others` counts the symbols that are left out, and `rest` is the logarithm of the sum of the
    exponentials of their logits. `random` is the number that drew the character, or would have if it was not chosen.
    Raises RequestError if there is no such character, VocabError if the model cannot have written the text.
    """
    if side not in SIDES:
        raise RequestError("side must be a or b")
    written = check_heat(heat)
    text = written["text"]
    if not text:
        raise RequestError("there is no text yet: let the models write one first")
    at = check_whole("place", place, 0, len(text) - 1)
    run = written["run"]
    settings = WriteSettings.from_fields(run | {f"forced_{side}": run.get("forced")})
    number = SIDES.index(side)
    lm = registry[settings.models[number]].lm
    logits = lm.logits(lm.vocab.keep_known(settings.prompt)[0], text[:at]).astype(np.float64)
    listed = np.arange(len(logits))
    others: Json = {}
    if len(logits) > MOST_SYMBOLS:
        ranked = np.argsort(-logits, kind="stable")
        listed, left_out = np.sort(ranked[:MOST_SYMBOLS]), logits[ranked[MOST_SYMBOLS:]]
        others = {"others": len(left_out), "rest": float(np.logaddexp.reduce(left_out))}
    return {
        "place": at,
        "symbol": text[at],
        "symbols": [lm.vocab.symbols[id] for id in listed.tolist()],
        "logits": logits[listed].tolist(),
        "forced": at in dict(settings.forced[number]),
        "random": random_number(settings.sampling.seed, at),
        **others,
    }


def symbols_of(registry: ModelRegistry, name: object) -> str:
    """Return the symbols that a model knows. Raises RequestError if there is no such model."""
    return registry[name].lm.vocab.symbols
