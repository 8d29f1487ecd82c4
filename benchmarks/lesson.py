"""The figures of docs/teaching.md: how far back a speaker counts, where words end, how often a guess is right."""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from charlm import CharLM, cli
from charlm.inference import DEFAULT_TEMPERATURE
from charlm.inference.sampling import SamplingSettings
from charlm.model.history import bits_per_char
from charlm.text import read_text
from train.data import load_text

ROOT = Path(__file__).parents[1]
SCENE = ROOT / "charlm" / "web" / "static" / "scene.txt"  # written for the page: no model was trained on it
CELLS = ("rnn", "gru", "lstm")
SPEAKERS = ("KING RICHARD III", "JULIET")
DISTANCES = (0, 10, 20, 30, 40, 80, 160, 320, 640)  # characters of speech between the speaker and the text
COMPARED = 50  # characters of two texts that are the same or not
TEMPERATURES = (0.2, 0.5, 0.8, 1.0, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7)
CHOSEN = 20  # the place of the symbol that is replaced
PROMPT = "ROMEO:\n"
QUESTIONS = ("or the court", "who was last to draw")  # ends of two in the scene
WRITTEN = 2000  # characters at each temperature and seed
WORD = re.compile(r"[A-Za-z']{4,}")  # a shorter one is often a word by chance


def same_texts(lm: CharLM, distance: int, seeds: int) -> float:
    """Return how often a model writes the same after two speakers who say the same.

    distance: characters of the speech, which begins elsewhere in the scene for each seed. seeds: one a text.
    """
    speech = re.sub(r"^[A-Z ]*:?\n", "", read_text(SCENE), flags=re.MULTILINE)
    same = 0
    for seed in range(seeds):
        said = speech[seed * 37 % 300 :][:distance]
        texts = {lm.generate(f"{name}:\n{said}", COMPARED, seed=seed) for name in SPEAKERS}
        same += len(texts) == 1
    return same / seeds


def share_of_words(lm: CharLM, temperature: float, known: set[str], seeds: int) -> float:
    """Return the share of the words that a model writes which are among the known ones."""
    words = [
        word
        for seed in range(seeds)
        for word in WORD.findall(lm.generate(PROMPT, WRITTEN, temperature=temperature, seed=seed))[:-1]
    ]
    return float(np.mean([word.lower() in known for word in words]))


def same_after_choice(lm: CharLM, seeds: int) -> float:
    """Return how often the next symbol is the same although one before it was replaced by the next likeliest one."""
    same = 0
    for seed in range(seeds):
        settings = SamplingSettings(DEFAULT_TEMPERATURE, 0, 1.0, seed)
        text = lm.generate(PROMPT, CHOSEN + 2, seed=seed)
        likeliest = lm.vocab.decode(lm.inspect(PROMPT + text[: CHOSEN + 1]).likeliest[-1])
        forced = text[:CHOSEN] + next(symbol for symbol in likeliest if symbol != text[CHOSEN])
        ((symbol, _),) = lm.stream_scored(PROMPT, 1, settings, after=forced)
        same += symbol == text[CHOSEN + 1]
    return same / seeds


def read_scene(lm: CharLM) -> tuple[float, float, dict[str, float]]:
    """Return how a model reads the scene.

    The share of the places where the symbol that it holds likeliest is the next one; its bits per character; its nats
    for the question mark behind each of QUESTIONS.
    """
    text = read_text(SCENE)
    read = lm.inspect(text)
    right = float(np.mean(read.likeliest[1:, 0] == lm.vocab.encode(text)[1:]))
    marks = {question: float(read.surprisals[text.index(f"{question}?") + len(question)]) for question in QUESTIONS}
    return right, bits_per_char(float(read.surprisals[1:].mean())), marks


def report(seeds: int, text: str) -> Iterator[str]:
    """Yield the lines of four tables. seeds: for each of their figures. text: whose words are known ones."""
    word_seeds = max(seeds // 10, 1)
    encoded = load_text(text).encoded
    whole = "".join(encoded.symbols[index] for index in encoded.ids)
    known = {word.lower() for word in WORD.findall(whole)}
    lms = {cell: CharLM.from_pretrained(ROOT / "weights" / f"shakespeare-{cell}") for cell in CELLS}
    yield f"the same {COMPARED} characters after {' and '.join(SPEAKERS)}, by the characters between"
    for cell, lm in lms.items():
        yield f"{cell:<6}" + "".join(f"{n:>5}: {same_texts(lm, n, seeds):4.0%}" for n in DISTANCES)
    yield f"words of four letters or more that are words of {text}, by temperature"
    for cell, lm in lms.items():
        yield f"{cell:<6}" + "".join(f"{t:>5}: {share_of_words(lm, t, known, word_seeds):4.0%}" for t in TEMPERATURES)
    yield "the same next symbol after a forced one"
    for cell, lm in lms.items():
        yield f"{cell:<6}{same_after_choice(lm, seeds):5.0%}"
    yield "the scene: the likeliest symbol is the next one, bits per character, nats for question marks"
    for cell, lm in lms.items():
        right, bits, marks = read_scene(lm)
        yield f"{cell:<6}{right:5.0%}{bits:7.3f}   " + ", ".join(f"{each}? {nats:.1f}" for each, nats in marks.items())


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    seeds_help = "texts for each figure; for the share of words, which takes longer ones, a tenth as many (%(default)s)"
    parser.add_argument("--seeds", type=int, default=40, help=seeds_help)
    parser.add_argument("--text", default="tinyshakespeare", help="the text whose words count as words (%(default)s)")
    args = parser.parse_args()
    for line in report(args.seeds, args.text):
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(cli.run(main))
