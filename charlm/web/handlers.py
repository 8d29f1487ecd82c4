"""What the page and the API answer: from arguments that nobody has checked to values. No page is needed to call it."""

import time
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

from plotly import graph_objects as go

from charlm.errors import RequestError
from charlm.history import HistoryRecord
from charlm.sampling import DEFAULT_LENGTH, DEFAULT_TEMPERATURE, Sampler, check_whole
from charlm.web.collection import Collection
from charlm.web.curves import draw_plot

LONGEST_TEXT = 5_000  # characters written at a request, so that none occupies the machine for long
LONGEST_PROMPT = 20_000
LONGEST_INSPECTED = 5_000  # characters: the states that it keeps of each take up to 16 KB in an LSTM of 2 × 1,024
UPDATE_SECONDS = 0.05  # between two values of a stream: a browser draws no more often, and each costs the server


class Handlers:
    """The answers for a collection of models. Everything here raises RequestError for an argument out of bounds."""

    def __init__(self, collection: Collection) -> None:
        self.collection = collection

    def models(self) -> list[dict[str, Any]]:
        """List the models: name, where it came from, commit, cell, parameters and validation loss (nats)."""
        return [
            {
                "name": model.name,
                "source": model.source,
                "revision": model.lm.revision,
                "cell": model.lm.config.cell,
                "parameters": model.lm.config.parameters,
                "val_loss": model.lm.history["best"]["val_loss"] if model.lm.history else None,
            }
            for model in self.collection
        ]

    def generate(
        self,
        model: str,
        prompt: str = "",
        length: int = DEFAULT_LENGTH,
        temperature: float = DEFAULT_TEMPERATURE,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> Iterator[str]:
        """Write `length` new characters after the prompt; yield the text so far, at last the whole.

        Symbols of the prompt that the model does not know are left out. The same seed gives the same text.
        """
        stream, _ = self._start(model, prompt, length, temperature, top_k, top_p, seed)
        for (text,) in _texts_so_far([stream]):
            yield text

    def history(self, model: str) -> dict[str, Any]:
        """Return the model's training record, the content of its history.json."""
        record = self.collection[model].lm.history
        if record is None:
            raise RequestError(f"the model {model} came without a training record")
        return dict(record)

    def inspect(self, model: str, text: str) -> list[dict[str, Any]]:
        """Tell for each character of a text how surprised the model was by it and what it held likeliest.

        Each is `{symbol, surprisal, likeliest}`: the surprisal in nats and up to five `{symbol, probability}`, the
        likeliest first; for the first character, before which nothing was read, null and none. Characters that the
        model does not know are left out.
        """
        lm = self.collection[model].lm
        known, _ = lm.vocab.encode_known(_check_text("text", text, LONGEST_INSPECTED))
        inspection = lm.inspect(lm.vocab.decode(known))
        expected = zip(inspection.likeliest[1:].tolist(), inspection.probabilities[1:].tolist(), strict=True)
        likeliest: list[list[dict[str, Any]]] = [[]] + [
            [{"symbol": lm.vocab.symbols[id], "probability": p} for id, p in zip(ids, probabilities, strict=True)]
            for ids, probabilities in expected
        ]
        surprisals = [None, *inspection.surprisals[1:].tolist()]
        return [
            {"symbol": symbol, "surprisal": surprisal, "likeliest": symbols}
            for symbol, surprisal, symbols in zip(inspection.text, surprisals, likeliest, strict=False)
        ]

    def compare(self, model_a: str, model_b: str) -> tuple[str, str, go.Figure]:
        """Return a line about each of two models, and the plot of their loss curves."""
        chosen = [self.collection[name] for name in (model_a, model_b)]
        records: dict[str, HistoryRecord | None] = {model.name: model.lm.history for model in chosen}
        return str(chosen[0]), str(chosen[1]), draw_plot(list(records.items()))

    def write(
        self,
        model_a: str,
        model_b: str,
        prompt: str,
        length: int,
        temperature: float,
        top_k: int,
        top_p: float,
        seed_text: str,
    ) -> Iterator[tuple[str, str, str, str]]:
        """Let two models continue the same prompt with the same seed, character by character in turn.

        seed_text: the seed's digits; empty draws one. Yield the text of each so far and a line on how each is going.
        """
        seed = Sampler(seed=_read_seed(seed_text)).seed
        names = [model_a, model_b]
        started = [self._start(name, prompt, length, temperature, top_k, top_p, seed) for name in names]
        begin = time.perf_counter()

        def progress(name: str, text: str, skipped: str) -> str:
            rate = len(text) / (time.perf_counter() - begin)
            line = f"{name} · {len(text):,} characters, {rate:,.0f} per second · seed {seed}"
            return f"{line} · skipped in the prompt, as the model does not know it: {skipped!r}" if skipped else line

        for text_a, text_b in _texts_so_far([stream for stream, _ in started]):
            lines = [progress(*each) for each in zip(names, (text_a, text_b), (s for _, s in started), strict=True)]
            yield text_a, text_b, lines[0], lines[1]

    def _start(
        self, model: str, prompt: str, length: int, temperature: float, top_k: int, top_p: float, seed: int | None
    ) -> tuple[Iterator[str], str]:
        """Return the stream of a model's new characters, and the symbols of the prompt that it does not know."""
        lm = self.collection[model].lm
        _check_text("prompt", prompt, LONGEST_PROMPT)
        length = check_whole("length", length, 1, LONGEST_TEXT)
        known, skipped = lm.vocab.encode_known(prompt)
        stream = lm.stream(lm.vocab.decode(known), length, temperature, top_k, top_p, seed, shared=True)
        return stream, "".join(dict.fromkeys(skipped))


def _check_text(name: str, value: object, longest: int) -> str:
    if not isinstance(value, str) or len(value) > longest:
        raise RequestError(f"the {name} must be a text of at most {longest:,} characters")
    return value


def _read_seed(text: str) -> int | None:
    if not isinstance(text, str) or not (text.strip() == "" or text.strip().isdecimal()) or len(text) > 40:
        raise RequestError(f"seed is {text!r:.50}; it must be a whole number from 0, or empty for any")
    return int(text) if text.strip() else None


def _texts_so_far(streams: Sequence[Iterator[str]]) -> Iterator[tuple[str, ...]]:
    """Read streams in turn; yield what each has given, every UPDATE_SECONDS and at the end."""
    texts = [""] * len(streams)
    shown = time.perf_counter()
    for pieces in zip_longest(*streams, fillvalue=""):
        texts = [text + piece for text, piece in zip(texts, pieces, strict=True)]
        if (now := time.perf_counter()) - shown > UPDATE_SECONDS:
            yield tuple(texts)
            shown = now
    yield tuple(texts)
