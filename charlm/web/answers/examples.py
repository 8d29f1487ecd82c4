"""What a visitor can begin with: prompts that two models know, and a text to look into that fits a model.

The page without a server chooses the same, in charlm/browser/examples.js.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from charlm.model.history import best_epoch
from charlm.web.answers.learn import record_fault
from charlm.web.models import ModelRegistry, ServedModel

SCENE = (Path(__file__).parents[1] / "static" / "scene.txt").read_text(encoding="utf-8")  # no model was trained on it
MOST_UNKNOWN = 0.02  # share of the scene's characters that a model may lack, or it begins with another text
PROMPTS = ("ROMEO:\n", "To be, or not to be", "Apple", "University", "Seoul", "Coffee", "Computer")
PLAYS = ("", "tinyshakespeare")  # the text that the scene and the prompts are made for, or an unknown one
MOST_PROMPTS = len(PROMPTS)
FIRST_WORDS, FIRST_SYMBOLS = 3, 3  # of a line that has more words than that; of any other line
SENTENCE_END = re.compile("[.!?。．！？][\"'”’]*")


def prompts_of(model: ServedModel) -> list[str]:
    """Return prompts for a model, of symbols that it knows.

    They are PROMPTS for a model of plays, and the first words of what it wrote itself for a model of another text.
    """
    text, sample = _record(model)
    own = _beginnings(sample)
    choices = (PROMPTS, own) if text in PLAYS else (own, PROMPTS)
    return next(filter(None, (_known_to(model, prompts) for prompts in choices)), [])


def shared_prompts(registry: ModelRegistry, model_a: object, model_b: object) -> list[str]:
    """Return the prompts of model A that model B knows, or if there are none, those of model B that model A knows.

    If there are none either, as for an English and a Chinese text, they are those of model A: B skips what it does not
    know.
    """
    one, other = registry[model_a], registry[model_b]
    own = prompts_of(one)
    return _known_to(other, own) or _known_to(one, prompts_of(other)) or own


def next_prompt(prompt: object, offered: object, prompts: list[str]) -> object:
    """Return the prompt after other models were chosen: one of theirs in place of one that the page had offered.

    offered: the prompts of the models before. prompts: of those that are chosen now. What a visitor typed stays.
    """
    before = offered if isinstance(offered, list) else []
    if prompt not in (before or [""]):
        return prompt
    return prompt if prompt in prompts else (prompts or [""])[0]


def text_to_read(model: ServedModel) -> str:
    """Return a text for a model to look into: the scene for a model of plays, for others what they wrote themselves.

    It is the scene, too, for a model whose record has no sample.
    """
    text, sample = _record(model)
    unknown = sum(symbol not in model.lm.vocab.symbols for symbol in SCENE)
    is_readable = unknown <= MOST_UNKNOWN * len(SCENE)
    return sample if sample and not (text in PLAYS and is_readable) else SCENE


def _known_to(model: ServedModel, prompts: Iterable[str]) -> list[str]:
    """Return the prompts of which a model knows every symbol."""
    return [prompt for prompt in prompts if not model.lm.vocab.encode_known(prompt)[1]]


def _record(model: ServedModel) -> tuple[str, str]:
    """Return the name of the text that a model was trained on, and the sample of its best epoch; "" if unknown."""
    history = model.lm.history
    if history is None or record_fault(model):
        return "", ""
    run: dict[str, Any] = history["run"]
    return str(run.get("text", "")), best_epoch(history)["sample"]


def _beginnings(sample: str) -> list[str]:
    """Return the first words of the lines of a sample, or the first letters where a line has few words.

    Where no line is whole, since they are as long as paragraphs, they are those of its sentences.
    """
    lines, sentences = sample.split("\n")[:-1], SENTENCE_END.split(sample)[:-1]  # the last one was cut
    return _starts(lines) or _starts(sentences)


def _starts(parts: Iterable[str]) -> list[str]:
    """Return how the lines or sentences of a text begin, each once, MOST_PROMPTS at most."""
    found = dict[str, None]()
    for part in parts:
        words = [word for word in part.split(" ") if word]
        whole = " ".join(words)
        start = " ".join(words[:FIRST_WORDS]) if len(words) > FIRST_WORDS else whole[:FIRST_SYMBOLS]
        if len(start) < len(whole):
            found[start] = None
    return list(found)[:MOST_PROMPTS]
