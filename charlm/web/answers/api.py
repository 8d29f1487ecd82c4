"""What the API answers: from arguments that nobody has checked to values. No page is needed to call it."""

import time
from collections.abc import Iterable, Iterator
from typing import Any

from charlm.analysis.inspection import name_likeliest
from charlm.checks import check_whole
from charlm.errors import RequestError
from charlm.inference.sampling import DEFAULT_LENGTH, DEFAULT_TEMPERATURE
from charlm.web.answers.write import LONGEST_PROMPT, LONGEST_TEXT, UPDATE_SECONDS, check_text
from charlm.web.models import ModelRegistry

LONGEST_INSPECTED = 5_000  # characters: the states that are kept of each take up to 16 KB in an LSTM of 2 × 1,024


class Api:
    """The answers for a registry of models. Everything here raises RequestError for an argument out of bounds."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

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
            for model in self._registry
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
        """Write new characters after a prompt; yield the text so far, at last the whole.

        The same seed gives the same text.

        Args:
            model: one of the names that `models` lists.
            prompt: where the text goes on from; what the model does not know of it is left out.
            length: how many new characters, up to 5,000.
            temperature: from 0, always the likeliest character, over 1, as it learnt, to any number.
            top_k: only the k likeliest characters can come; 0 means all.
            top_p: only the likeliest characters can come, until their probabilities reach this; 1 means all.
            seed: a whole number from 0; none draws one.
        """
        lm = self._registry[model].lm
        known, _ = lm.vocab.keep_known(check_text("prompt", prompt, LONGEST_PROMPT))
        length = check_whole("length", length, 1, LONGEST_TEXT)
        yield from _texts_so_far(lm.stream(known, length, temperature, top_k, top_p, seed, shared=True))

    def history(self, model: str) -> dict[str, Any]:
        """Return the training record of a model, the content of its history.json: settings, losses, samples.

        Args:
            model: one of the names that `models` lists.
        """
        record = self._registry[model].lm.history
        if record is None:
            raise RequestError(f"the model {model} came without a training record")
        return dict(record)

    def inspect(self, model: str, text: str) -> list[dict[str, Any]]:
        """Tell for each character of a text how surprised the model was by it and what it held likeliest.

        Each is `{symbol, surprisal, likeliest}`: the surprisal in nats and up to five `{symbol, probability}`, the
        likeliest first; for the first character, before which nothing was read, null and none.

        Args:
            model: one of the names that `models` lists.
            text: up to 5,000 characters; what the model does not know of it is left out.
        """
        lm = self._registry[model].lm
        known, _ = lm.vocab.keep_known(check_text("text", text, LONGEST_INSPECTED))
        inspection = lm.inspect(known)
        return [
            {
                "symbol": symbol,
                "surprisal": surprisal if likeliest else None,
                "likeliest": [{"symbol": other, "probability": probability} for other, probability in likeliest],
            }
            for symbol, surprisal, likeliest in zip(
                inspection.text, inspection.surprisals.tolist(), name_likeliest(inspection, lm.vocab), strict=True
            )
        ]


def _texts_so_far(pieces: Iterable[str]) -> Iterator[str]:
    """Yield what a stream has given so far, every UPDATE_SECONDS and at the end."""
    text, shown = "", time.perf_counter()
    for piece in pieces:
        text += piece
        if (now := time.perf_counter()) - shown > UPDATE_SECONDS:
            yield text
            shown = now
    yield text
