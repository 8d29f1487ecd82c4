"""CharLM: a trained model as its users hold it."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from charlm import hub
from charlm.card import model_card
from charlm.config import ModelConfig, Weights
from charlm.errors import ModelFileError, RequestError
from charlm.folder import Model, read_model, write_model
from charlm.history import HistoryRecord
from charlm.network import Network, State, pick_device
from charlm.sampling import DEFAULT_LENGTH, DEFAULT_TEMPERATURE, Sampler, check_whole
from charlm.vocab import Ids, Vocab

# Symbols read in one pass: long enough to batch the input products, short enough that memory stays small.
READ_LENGTH = 4096


class CharLM:
    """A character-level language model: writes text, and tells how surprised it is by one.

    It holds no state between calls, so threads may share one.

    config: the architecture and the vocabulary.
    vocab: the symbols it knows.
    history: the training record (the content of history.json), or None if the model came without one.
    source: where it came from: `hub`, `cache` (the Hub's copy on this disk) or `folder`.
    revision: the commit it came from, or None for a folder.
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: Weights,
        history: HistoryRecord | None = None,
        *,
        device: str = "auto",
        source: str = "folder",
        revision: str | None = None,
    ) -> None:
        """weights: float32 arrays with the names and shapes of `config.tensor_shapes`. device: see from_pretrained."""
        self.config = config
        self.history = history
        self.source = source
        self.revision = revision
        self.vocab = Vocab(config.vocab)
        self._network = Network.from_weights(config, weights, pick_device(device))

    @classmethod
    def from_pretrained(
        cls,
        repo_or_folder: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        device: str = "auto",
    ) -> "CharLM":
        """Load a model from a folder, or from the Hub if no such folder is here.

        repo_or_folder: a model folder, or a repository's name on the Hub, USER/NAME.
        revision: a branch, tag or commit of the repository; its main branch by default.
        token: for private repositories; by default the one that `hf auth login` stored, if the
            repository needs one.
        device: auto (CUDA if there, else MPS, else the CPU), cpu, cuda or mps.

        If the Hub cannot be reached, the copy in its cache is used, with a warning. Raises HubError if
        the Hub refuses, HubUnavailableError if it cannot be reached and nothing is cached, ModelFileError
        if the files are not a sound model, RequestError for a wrong argument.
        """
        if not isinstance(repo_or_folder, str | Path):
            raise RequestError(f"a model is a folder or USER/NAME on the Hub, not {repo_or_folder!r}")
        if os.path.isdir(repo_or_folder):  # unlike Path.is_dir, it does not mind a name too long to be one
            model = read_model(Path(repo_or_folder))
            return cls(model.config, model.weights, model.history, device=device)
        repo_id = str(repo_or_folder)
        if not hub.is_repo_id(repo_id):
            raise ModelFileError(
                f"{repo_id!r} is neither a folder here nor the name of a Hub repository (USER/NAME); check the path"
            )
        found = hub.fetch(repo_id, revision, token)
        model = found.model
        return cls(
            model.config, model.weights, model.history, device=device, source=found.source, revision=found.revision
        )

    def __repr__(self) -> str:
        config = self.config
        return (
            f"<{config.kind.label} {config.num_layers}×{config.hidden_size}, {config.parameters:,} parameters, "
            f"{len(self.vocab)} symbols, on {self.device}>"
        )

    @property
    def device(self) -> str:
        """Where the model runs: cpu, cuda or mps."""
        return self._network.device.type

    @property
    def network(self) -> Network:
        """The model as a torch module, for reading: no dropout, no gradients."""
        return self._network

    def generate(
        self,
        prompt: str = "",
        length: int = DEFAULT_LENGTH,
        temperature: float = DEFAULT_TEMPERATURE,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> str:
        """Return `length` new characters that continue `prompt`, without the prompt itself.

        The same seed gives the same text; None draws a seed. `charlm.sampling.Sampler` says what
        temperature, top_k and top_p do. Symbols of the prompt that the model does not know are left
        out, with a warning; an empty prompt starts a new line.

        Raises RequestError for a value out of bounds.
        """
        return "".join(self.stream(prompt, length, temperature, top_k, top_p, seed))

    def stream(
        self,
        prompt: str = "",
        length: int = DEFAULT_LENGTH,
        temperature: float = DEFAULT_TEMPERATURE,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> Iterator[str]:
        """Yield the text of `generate` a character at a time, as it is written.

        Arguments are checked at the call, before the first character is asked for.
        """
        length = check_whole("length", length, 0)
        sampler = Sampler(temperature, top_k, top_p, seed)
        ids, skipped = self.vocab.encode_known(_check_text("prompt", prompt))
        if skipped:
            symbols = "".join(dict.fromkeys(skipped))
            warnings.warn(f"the prompt's {symbols!r} was skipped: the model does not know it", stacklevel=2)
        return self._write(ids if len(ids) else self._start(), length, sampler)

    def score(self, text: str) -> NDArray[np.float64]:
        """Return the surprisal of each character of `text` but the first, in nats: (N - 1,) for N characters.

        The mean is the text's cross-entropy under the model; exp of it is the perplexity.
        Raises VocabError if the text holds a symbol that the model does not know.
        """
        ids = self.vocab.encode(_check_text("text", text))
        surprisals = [np.zeros(0)]
        for logits, targets in self._read(ids[:-1], ids[1:]):
            log_probs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)  # (T, V)
            surprisals.append(-np.take_along_axis(log_probs, targets[:, None], axis=1)[:, 0])  # (T,)
        return np.concatenate(surprisals)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model folder: all its files or, on failure, none. Files of those names are replaced."""
        write_model(Path(folder), self._model(), model_card(self.config, self.history))

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | bool | None = None) -> str:
        """Publish the model as a repository on the Hub, in one commit; return the commit's address.

        private: whether a repository that has to be created is private. Raises HubError if the Hub refuses.
        """
        return hub.push_model(self._model(), repo_id, private=private, token=token)

    def _model(self) -> Model:
        return Model(self.config, self._network.export_weights(), self.history)

    def _start(self) -> Ids:
        """What an empty prompt stands for: the end of a line, if the model knows lines."""
        return self.vocab.encode("\n" if "\n" in self.vocab else self.vocab.symbols[0])

    def _write(self, prompt_ids: Ids, length: int, sampler: Sampler) -> Iterator[str]:
        state: State = None
        unread = prompt_ids
        for _ in range(length):
            for start in range(0, len(unread), READ_LENGTH):
                logits, state = self._step(unread[start : start + READ_LENGTH], state)
            drawn = sampler.draw(logits[-1])
            yield self.vocab.symbols[drawn]
            unread = np.array([drawn])

    def _read(self, ids: Ids, targets: Ids) -> Iterator[tuple[NDArray[np.float64], Ids]]:
        """Read a text from the zero state; yield the logits (T, V) and the targets (T,) of each stretch of it."""
        state: State = None
        for start in range(0, len(ids), READ_LENGTH):
            part = slice(start, start + READ_LENGTH)
            logits, state = self._step(ids[part], state)
            yield logits.astype(np.float64), targets[part]

    @torch.inference_mode()
    def _step(self, ids: Ids, state: State) -> tuple[NDArray[np.float32], State]:
        """Read ids (T,) from `state`; return the logits (T, V) and the next state."""
        output, state = self._network(torch.from_numpy(ids)[:, None].to(self._network.device), state)
        logits = output[:, 0].cpu().numpy()  # (T, 1, V) → (T, V)
        if not np.isfinite(logits).all():
            raise ModelFileError(
                "the model's outputs are no finite numbers: its weights are too large, as after a training that "
                "diverged; use another model"
            )
        return logits, state


def _check_text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise RequestError(f"{name} is {value!r}; it must be a string")
    return value
