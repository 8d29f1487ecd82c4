"""Knowledge distillation: a model learns what other models, its teachers, predict, beside what the text says.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015), at temperature 1. The predictions of
several teachers are averaged: this ensemble predicts better than each of its members, and the student learns most of
that.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from charlm.checks import check_number
from charlm.errors import RequestError
from charlm.inference.engine import Array, Reader
from charlm.inference.sampling import MOST_LOGITS, log_softmax
from charlm.vocab import Ids, Vocab

from .encode import SmallIds
from .init_from import NamedModel, load_named_model
from .interrupts import Interrupts
from .protocols import Holdout, Protocol

DEFAULT_WEIGHT = 0.5
STREAMS = 16  # parts of the text that a teacher reads side by side, each from the zero state
SHOWN_SYMBOLS = 8  # in a message


@dataclass(frozen=True)
class TaughtTargets:
    """The targets of a training with teachers.

    probabilities: of each symbol to follow each of the N ids that train, (N, V) float16, in a file.
    weight: the teachers' share of the targets, from 0 to 1; the rest is the text's.
    """

    probabilities: NDArray[np.float16]
    weight: float

    def at(self, positions: NDArray[np.int64], targets: Tensor) -> Tensor:
        """Return the distributions (T, B, V) that a step learns, for its positions in the text and its targets (T, B).

        Each is the mean, by `weight`, of what the teachers predict and of the symbol that stands there.
        """
        taught = torch.from_numpy(self.probabilities[positions]).to(targets.device, torch.float32)  # (T, B, V)
        return taught.mul_(self.weight).add_(one_hot(targets, taught.shape[2]), alpha=1 - self.weight)


@dataclass(frozen=True)
class Teachers:
    """The models whose predictions a training learns, and the share of these predictions in its targets.

    Raises RequestError when built with a weight that is not between 0 and 1.
    """

    models: Sequence[NamedModel]
    weight: float = DEFAULT_WEIGHT

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", check_number("teacher_weight", self.weight, 0, 1))

    def record(self) -> dict[str, Any]:
        """Return what `run` of history.json says about them."""
        return {"teachers": [model.record() for model in self.models], "teacher_weight": self.weight}

    def read(
        self, protocol: Protocol, folder: Path, say: Callable[[str], None], interrupts: Interrupts
    ) -> TaughtTargets:
        """Let the teachers read the text that trains; return the mean of their predictions, in a file in `folder`.

        The file has no name, so it is gone when the training ends, however it ends. say: takes lines for the user.

        Raises RequestError for a protocol whose sequences are not read in order, a symbol that a teacher does not know,
        or a disk that has no room for the file; KeyboardInterrupt when a signal comes.
        """
        if not isinstance(protocol, Holdout):
            raise RequestError("--teacher needs the protocol holdout, which reads the text in its order")
        ids, symbols = protocol.training_ids(), len(protocol.vocab)
        columns = [_columns(model, protocol.vocab) for model in self.models]
        say(f"{' and '.join(model.name for model in self.models)} read the text first: {len(ids):,} characters")
        try:
            with interrupts.immediate(), tempfile.TemporaryFile(dir=folder) as file:
                file.truncate(2 * len(ids) * symbols)
                probabilities: NDArray[np.float16] = np.memmap(file, np.float16, "r+", shape=(len(ids), symbols))
                for model, known in zip(self.models, columns, strict=True):
                    _add_predictions(model, known, ids, probabilities, 1 / len(self.models))
        except OSError as error:
            size = 2e-9 * len(ids) * symbols
            raise RequestError(
                f"what the teachers predict cannot be written to {folder} ({error.strerror}): it takes {size:.1f} GB; "
                "choose an --out on a disk that has them"
            ) from None
        return TaughtTargets(probabilities, self.weight)


def load_teachers(names: Sequence[str], weight: float) -> Teachers:
    """Load the teachers, named and refused as `CharLM.from_pretrained` does."""
    return Teachers([load_named_model(name) for name in names], weight)


def _columns(model: NamedModel, vocab: Vocab) -> Ids:
    """Return the id in a teacher's vocabulary of each symbol of `vocab`, (V,).

    Raises RequestError if the teacher does not know one.
    """
    ids = {symbol: id for id, symbol in enumerate(model.lm.vocab.symbols)}
    missing = [symbol for symbol in vocab.symbols if symbol not in ids]
    if missing:
        shown = ", ".join(repr(symbol) for symbol in missing[:SHOWN_SYMBOLS])
        raise RequestError(
            f"{model.name} does not know {len(missing)} of the {len(vocab)} symbols of the text ({shown}): "
            "choose teachers that were trained on this text, or leave these symbols out of it"
        )
    return np.array([ids[symbol] for symbol in vocab.symbols])


def _add_predictions(
    model: NamedModel, known: Ids, ids: SmallIds, probabilities: NDArray[np.float16], weight: float
) -> None:
    """Add the predictions of a teacher, times `weight`, for the symbols of the text that trains.

    ids: (N,). known: the ids of these symbols in the teacher's vocabulary, (V,). probabilities: (N, V).
    """
    streams = min(STREAMS, len(ids))
    length = -(-len(ids) // streams)
    # all parts have the same length, so the last ones may overlap: there the earlier one's prediction counts
    starts = np.minimum(np.arange(streams) * length, len(ids) - length)  # (S,)
    begins = np.concatenate([[0], starts[:-1] + length])
    reader = Reader(model.lm.engine, streams)
    steps = max(1, MOST_LOGITS // (streams * len(model.lm.vocab)))
    for first in range(0, length, steps):
        offsets = np.arange(first, min(first + steps, length))
        positions = offsets[:, None] + starts  # (T, 1) + (S,) → (T, S)
        predicted = _known_probabilities(reader.read(known[ids[positions]]), known)  # (T, S, V)
        is_new = positions >= begins
        probabilities[positions[is_new]] += (weight * predicted[is_new]).astype(np.float16)


def _known_probabilities(logits: Array, known: Ids) -> Array:
    """Return the probabilities (T, S, V) of the symbols with the ids `known`, (V,), among themselves."""
    return np.exp(log_softmax(logits[..., known])).astype(np.float32)
