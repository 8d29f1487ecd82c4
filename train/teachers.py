"""Knowledge distillation: a model learns what other models, its teachers, predict, beside what the text says.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015), at temperature 1. The predictions of
several teachers are averaged: this ensemble predicts better than each of its members, and the student learns most of
that.

Teachers that were trained on the same text know it partly by heart, so what they predict there says little more than
the text itself. On a text that they have written they predict as they would on any other, and it can be as long as one
likes (Buciluă, Caruana and Niculescu-Mizil, "Model Compression", 2006).
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.checks import check_number, check_whole
from charlm.errors import RequestError
from charlm.inference.sampling import MOST_LOGITS
from charlm.vocab import NO_ID, Ids, Vocab

from .config import TrainConfig
from .encode import SmallIds
from .init_from import NamedModel, load_named_model
from .interrupts import Interrupts
from .network import TrainingNetwork
from .precision import product_dtype
from .protocols import Holdout, Protocol, check_in_order

DEFAULT_WEIGHT = 0.5
STREAMS = 64  # parts of the text, at most, that a teacher reads side by side, each from the zero state
SHORTEST_PART = 4096  # characters, since the first ones of a part are predicted without those before them
STEPS = 128  # that are read at a time
WRITTEN_TEXTS = 64  # that a teacher writes side by side
MOST_WRITTEN = 10**9  # characters
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
        # (T, B, V): a copy, in another type, so it may be changed in place
        taught = torch.from_numpy(self.probabilities[positions]).to(targets.device, torch.float32)
        own = taught.new_full((), 1 - self.weight).expand(*targets.shape, 1)
        return taught.mul_(self.weight).scatter_add_(2, targets[..., None], own)


@dataclass(frozen=True)
class Teachers:
    """The models whose predictions a training learns, and the share of these predictions in its targets.

    written_chars: how many characters the teachers write, in equal parts, for the training to learn from as well.

    Raises RequestError when built with a weight that is not between 0 and 1, or a wrong number of characters.
    """

    models: Sequence[NamedModel]
    weight: float = DEFAULT_WEIGHT
    written_chars: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", check_number("teacher_weight", self.weight, 0, 1))
        written_chars = check_whole("teachers_write", self.written_chars, 0, MOST_WRITTEN)
        least = len(self.models) * WRITTEN_TEXTS
        if 0 < written_chars < least:
            raise RequestError(
                f"teachers_write is {written_chars}; it must be at least {least}, since each teacher writes "
                f"{WRITTEN_TEXTS} texts"
            )
        object.__setattr__(self, "written_chars", written_chars)

    def record(self) -> dict[str, Any]:
        """Return what `run` of history.json says about them."""
        about = {"teachers": [model.record() for model in self.models], "teacher_weight": self.weight}
        return about | ({"teachers_write": self.written_chars} if self.written_chars else {})

    def teach(
        self, protocol: Protocol, folder: Path, config: TrainConfig, say: Callable[[str], None], interrupts: Interrupts
    ) -> tuple[Holdout, TaughtTargets]:
        """Return the text with what the teachers write in front of what trains, and what they predict for all of that.

        The mean of their predictions is in a file in `folder`. It has no name, so it is gone when the training
        ends, however it ends. config: of the training, with every choice made; they read on its device and in its
        precision, and write with its seed. say: takes lines for the user.

        Raises RequestError for a protocol whose sequences are not read in order, a symbol that a teacher does not know,
        or a disk that has no room for the file, or if so little of what they write is in the vocabulary that the
        batches of the training do not fit; KeyboardInterrupt when a signal comes.
        """
        check_in_order(protocol, {"--teacher": True})
        assert isinstance(protocol, Holdout)  # the one that reads in order
        all_teacher_ids = [_teacher_ids(model, protocol.vocab) for model in self.models]
        with interrupts.immediate():
            if self.written_chars:
                protocol = protocol.with_training_ids_before(self.write(protocol.vocab, config.seed, say))
                # the batch size was chosen for all that was asked for, of which unknown symbols have been left out
                config.resolve(protocol)
            return protocol, self._read(protocol.training_ids(), all_teacher_ids, folder, config, say)

    def write(self, vocab: Vocab, seed: int, say: Callable[[str], None]) -> Ids:
        """Return the ids (N,) in `vocab` of what the teachers write at temperature 1, one teacher after the other.

        Each writes WRITTEN_TEXTS of equal length, with the seeds from `seed` on: at most `written_chars` in all.
        Symbols that are not in `vocab` are left out.
        """
        length = self.written_chars // (len(self.models) * WRITTEN_TEXTS)
        pieces = []
        for model in self.models:
            say(f"{model.name} writes {length * WRITTEN_TEXTS:,} characters to learn from")
            samples = model.lm.generate_many("", WRITTEN_TEXTS, length, 1.0, seed=seed)
            pieces.append(vocab.encode_known("".join(sample.text for sample in samples))[0])
        return np.concatenate(pieces)

    def _read(
        self, ids: SmallIds, all_teacher_ids: list[Ids], folder: Path, config: TrainConfig, say: Callable[[str], None]
    ) -> TaughtTargets:
        """Return what the teachers predict for ids (N,). all_teacher_ids: what `_teacher_ids` returns for each."""
        symbols = len(all_teacher_ids[0]) if all_teacher_ids else 0
        size = 2 * len(ids) * symbols
        say(f"{' and '.join(model.name for model in self.models)} read the text first: {len(ids):,} characters")
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.truncate(size)
                if hasattr(os, "posix_fallocate"):  # or else a full disk would kill the process while the file fills
                    os.posix_fallocate(file.fileno(), 0, size)
                probabilities: NDArray[np.float16] = np.memmap(file, np.float16, "r+", shape=(len(ids), symbols))
                for model, teacher_ids in zip(self.models, all_teacher_ids, strict=True):
                    _add_predictions(model, teacher_ids, ids, probabilities, 1 / len(self.models), config)
        except OSError as error:
            raise RequestError(
                f"what the teachers predict cannot be written to {folder} ({error.strerror}): it takes "
                f"{size / 1e9:.1f} GB; choose an --out on a disk that has so much room"
            ) from None
        return TaughtTargets(probabilities, self.weight)


def load_teachers(names: Sequence[str], weight: float, written_chars: int = 0) -> Teachers:
    """Load the teachers, named and refused as `CharLM.from_pretrained` does."""
    return Teachers([load_named_model(name) for name in names], weight, written_chars)


def _teacher_ids(model: NamedModel, vocab: Vocab) -> Ids:
    """Return the id in a teacher's vocabulary of each symbol of `vocab`, (V,).

    Raises RequestError if the teacher does not know one.
    """
    ids = model.lm.vocab.ids_of(vocab.symbols)
    missing = np.flatnonzero(ids == NO_ID)
    if len(missing):
        shown = ", ".join(repr(vocab.symbols[place]) for place in missing[:SHOWN_SYMBOLS])
        raise RequestError(
            f"{model.name} does not know {len(missing)} of the {len(vocab)} symbols of the text ({shown}): "
            "choose teachers that were trained on this text, or leave these symbols out of it"
        )
    return ids


@torch.no_grad()
def _add_predictions(
    model: NamedModel,
    teacher_ids: Ids,
    ids: SmallIds,
    probabilities: NDArray[np.float16],
    weight: float,
    config: TrainConfig,
) -> None:
    """Add the predictions of a teacher, times `weight`, for the symbols of the text that trains.

    ids: (N,). teacher_ids: (V,), what `_teacher_ids` returns. probabilities: (N, V).
    """
    streams = min(STREAMS, max(1, len(ids) // SHORTEST_PART))
    length = -(-len(ids) // streams)
    # all parts have the same length, so the last ones may overlap: there the earlier one's prediction counts
    starts = np.minimum(np.arange(streams) * length, len(ids) - length)  # (S,)
    begins = np.concatenate([[0], starts[:-1] + length])
    network = TrainingNetwork.from_model(model.lm, config.device, product_dtype(config.precision), streams)
    states = network.zero_states(streams)
    on_device = torch.from_numpy(teacher_ids).to(config.device)
    steps = max(1, min(STEPS, MOST_LOGITS // (streams * len(model.lm.vocab))))
    for first in range(0, length, steps):
        positions = np.arange(first, min(first + steps, length))[:, None] + starts  # (T, 1) + (S,) → (T, S)
        logits, states = network(torch.from_numpy(teacher_ids[ids[positions]]).to(config.device), states)
        predicted = logits[..., on_device].softmax(2).mul_(weight).half().cpu().numpy()  # (T, S, V)
        is_new = positions >= begins
        probabilities[positions[is_new]] += predicted[is_new]
