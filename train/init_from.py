"""Models that a training is given by name; the one that it begins with is widened to the symbols of the text."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from charlm.errors import RequestError
from charlm.inference.sampling import MOST_LOGITS
from charlm.lm import CharLM
from charlm.model.config import ModelConfig, Weights
from charlm.model.history import EarlierRun, measured_by, runs_until_best
from charlm.model.network import Network
from charlm.model_name import HubName, parse_model_name
from charlm.vocab import NO_ID, Vocab

from .config import START_DEFAULTS
from .encode import SmallIds
from .protocols import Protocol

ARCHITECTURE = ("cell", "embedding_size", "hidden_size", "num_layers")
CALIBRATION_CHARS = 4096  # that are read to find the biases of new symbols
BIAS_LIMIT, HALVINGS = 100.0, 60  # nats between which a bias is sought, and how often the interval is halved


@dataclass(frozen=True)
class NamedModel:
    """A model, and what history.json calls it.

    name: the repository, or the folder without the path to it. revision: the commit; None for a folder.
    """

    lm: CharLM
    name: str
    revision: str | None

    def record(self) -> dict[str, Any]:
        """Return how history.json names it."""
        return {"name": self.name, "revision": self.revision, "weights_sha256": self.lm.weights_sha256}


@dataclass(frozen=True)
class StartModel(NamedModel):
    """A model that a training begins with."""

    def at(self, revision: str | None) -> "StartModel":
        """Return the model at a commit of its repository; this one if that is None or its own, or it is a folder."""
        if revision is None or self.revision in (None, revision):
            return self
        return load_start_model(f"hf://{self.name}@{revision}")

    def settings(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of TrainConfig for a training that begins with this model.

        given: those that the user gave. Raises RequestError if one contradicts the model's architecture.
        """
        config = self.lm.config
        architecture = {name: getattr(config, name) for name in ARCHITECTURE}
        for name, value in architecture.items():
            if given.get(name, value) != value:
                raise RequestError(
                    f"--{name.replace('_', '-')} {given[name]} contradicts {self.name}, which has {value}: "
                    "leave it out, or train without --init-from"
                )
        return START_DEFAULTS | {"dropout": config.dropout} | given | architecture

    def new_symbols(self, vocab: Vocab) -> str:
        """Return the symbols of a vocabulary that this model does not have."""
        return "".join(sorted(set(vocab.symbols) - set(self.lm.vocab.symbols)))

    def earlier_runs(self, run: dict[str, Any]) -> list[EarlierRun]:
        """Return `earlier_runs` for the record of a run that begins with this model.

        There are none if their losses cannot be compared with those of that run. run: of history.json.
        """
        history = self.lm.history
        is_alike = history is not None and measured_by(history["run"]) == measured_by(run)
        return runs_until_best(history, self.name) if history is not None and is_alike else []

    def widened(self, protocol: Protocol) -> Weights:
        """Return the weights for the vocabulary of a text, which has all symbols of this model, and perhaps others.

        A new symbol gets the mean row of the embedding and that of the head. Its bias is such that its probability is,
        in the mean over the beginning of the text that trains, what its frequency is there.
        """
        vocab, weights = protocol.vocab.symbols, self.lm.network.export_weights()
        rows = self.lm.vocab.ids_of(vocab)  # (V,): the row in the old weights, or NO_ID, which is -1
        is_new = rows == NO_ID
        for name in ("embedding.weight", "head.weight", "head.bias"):
            mean = weights[name].mean(axis=0, keepdims=True)
            weights[name] = np.concatenate([weights[name], mean])[rows]  # row -1 is the last
        if is_new.any():
            config = replace(self.lm.config, vocab=vocab)
            expected = np.maximum(protocol.training_counts(), 0.5)  # (V,): a symbol that does not occur there may yet
            logits = _read(config, weights, protocol.training_ids())
            weights["head.bias"][is_new] += _biases(logits, is_new, (expected / expected.sum())[is_new])
        return weights


def load_named_model(name: str) -> NamedModel:
    """Load a model, named and refused as `CharLM.from_pretrained` does."""
    found, _ = parse_model_name(name)
    lm = CharLM.from_pretrained(name, device="cpu")
    return NamedModel(lm, found.repo_id if isinstance(found, HubName) else found.resolve().name, lm.revision)


def load_start_model(name: str) -> StartModel:
    """Load the model that a training begins with, as `load_named_model` does."""
    model = load_named_model(name)
    return StartModel(model.lm, model.name, model.revision)


def _read(config: ModelConfig, weights: Weights, ids: SmallIds) -> NDArray[np.float64]:
    """Return the logits (T, V) behind each of the first ids, as many as fit into MOST_LOGITS."""
    most = max(1, min(CALIBRATION_CHARS, MOST_LOGITS // len(config.vocab)))
    network = Network.from_weights(config, weights)
    with torch.no_grad():
        logits, _ = network(torch.from_numpy(ids[:most].astype(np.int64))[:, None])
    read: NDArray[np.float64] = logits[:, 0].double().numpy()  # (T, 1, V) → (T, V)
    return read


def _biases(logits: NDArray[np.float64], is_new: NDArray[np.bool_], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what to add to the logits of the new symbols, (N,), so that they have the mean probabilities `wanted`.

    logits: (T, V); in each row those of all new symbols are equal. is_new: (V,). wanted: (N,), with a sum below 1.
    """
    known = np.logaddexp.reduce(logits[:, ~is_new], axis=1)  # (T, V - N) → (T,)
    new = logits[:, is_new][:, 0] - known  # (T,)
    # with the biases log(wanted) + b, the new symbols have the probability sigmoid(new + log(total) + b) together
    total = wanted.sum()
    low, high = -BIAS_LIMIT, BIAS_LIMIT
    for _ in range(HALVINGS):
        b = (low + high) / 2
        probability = np.mean(1 / (1 + np.exp(-np.clip(new + np.log(total) + b, -BIAS_LIMIT, BIAS_LIMIT))))
        low, high = (b, high) if probability < total else (low, b)
    return np.log(wanted) + b
