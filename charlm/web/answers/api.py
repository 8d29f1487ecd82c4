"""The API: its endpoints, which take arguments that nobody has checked yet."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from charlm.analysis.inspection import name_likeliest
from charlm.checks import check_text, check_whole
from charlm.errors import RequestError
from charlm.inference import DEFAULT_LENGTH, DEFAULT_TEMPERATURE
from charlm.inference.sampling import SamplingSettings
from charlm.web.answers.inside import LONGEST_INSPECTED
from charlm.web.answers.write import (
    LONGEST_PROMPT,
    LONGEST_TEXT,
    MOST_SAMPLES,
    WriteSettings,
    check_stops,
    gather_updates,
)
from charlm.web.models import ModelRegistry


class Api:
    """The endpoints, bound to a registry: Gradio makes the arguments of a method those of the endpoint, and its
    docstring the description that MCP clients read.

    All raise RequestError for an argument out of bounds.
    """

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    def models(self) -> list[dict[str, Any]]:
        """List the models: name, source, commit, cell, parameters and validation loss (nats per character)."""
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
        """Continue a prompt; yield the text so far, at last the whole continuation, without the prompt.

        The same seed gives the same text.

        Args:
            model: one of the names that `models` lists.
            prompt: the text to continue; symbols that the model does not know are skipped.
            length: how many new characters, up to 5,000.
            temperature: 0 takes always the likeliest character, 1 draws from the model's own probabilities; up to 2.
            top_k: draw only from the k likeliest characters, up to 100; 0 means from all.
            top_p: draw only from the likeliest characters that together reach this probability; 1 means from all.
            seed: a whole number from 0; without one, a seed is drawn.
        """
        lm = self._registry[model].lm
        settings = WriteSettings((model,), prompt, length, SamplingSettings(temperature, top_k, top_p, seed))
        known, _ = lm.vocab.keep_known(settings.prompt)
        pieces = (piece for piece, _ in lm.stream_scored(known, settings.length, settings.sampling))
        text = ""
        for update in gather_updates(pieces):
            text += "".join(update)
            yield text

    def generate_many(
        self,
        model: str,
        prompt: str = "",
        num_samples: int = 1,
        length: int = DEFAULT_LENGTH,
        temperature: float = DEFAULT_TEMPERATURE,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: list[str] | None = None,
    ) -> list[dict[str, Any]]:
        """Continue a prompt several times, in one batch, and end each text before a stop string.

        Each text is `{text, seed, bits_per_char}`. The seeds are seed, seed + 1 and so on; `generate` writes the same
        text for its seed. The bits are the mean surprisal of its characters, null for an empty text.

        Args:
            model: one of the names that `models` lists.
            prompt: the text to continue; symbols that the model does not know are skipped.
            num_samples: how many texts, up to 16. Together they may have 5,000 characters, and read 20,000.
            length: how many new characters each.
            temperature: 0 takes always the likeliest character, 1 draws from the model's own probabilities; up to 2.
            top_k: draw only from the k likeliest characters, up to 100; 0 means from all.
            top_p: draw only from the likeliest characters that together reach this probability; 1 means from all.
            seed: a whole number from 0; without one, a seed is drawn.
            stop: up to 16 strings before which a text ends.
        """
        lm = self._registry[model].lm
        settings = WriteSettings((model,), prompt, length, SamplingSettings(temperature, top_k, top_p, seed))
        samples = check_whole("num_samples", num_samples, 1, MOST_SAMPLES)
        for name, size, most in (("length", settings.length, LONGEST_TEXT), ("prompt", len(prompt), LONGEST_PROMPT)):
            if samples * size > most:
                raise RequestError(
                    f"num_samples × {name} is {samples * size:,} characters; at most {most:,} are allowed"
                )
        known, _ = lm.vocab.keep_known(prompt)
        possible = [each for each in check_stops(stop) if not lm.vocab.encode_known(each)[1]]
        sampling = settings.sampling
        texts = lm.generate_many(
            *(known, samples, settings.length, sampling.temperature, sampling.top_k, sampling.top_p, sampling.seed),
            stop=possible,
        )
        return [asdict(text) for text in texts]

    def history(self, model: str) -> dict[str, Any]:
        """Return the training record of a model, the content of its history.json: settings, losses, samples.

        Args:
            model: one of the names that `models` lists.
        """
        lm = self._registry[model].lm
        record = lm.history
        if lm.record_problem:
            raise RequestError(f"the training record of the model {model} is damaged: {lm.record_problem}")
        if record is None:
            raise RequestError(f"the model {model} came without a training record")
        return dict(record)

    def inspect(self, model: str, text: str) -> list[dict[str, Any]]:
        """Tell for each character of a text its surprisal and what the model held likeliest in its place.

        Each is `{symbol, surprisal, likeliest}`: the surprisal in nats and up to five `{symbol, probability}`, the
        likeliest first. The first character, which nothing precedes, has no surprisal (null) and an empty list.

        Args:
            model: one of the names that `models` lists.
            text: up to 5,000 characters; symbols that the model does not know are skipped.
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
