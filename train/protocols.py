"""Protocols: how a text is split into what trains and what validates, and how losses are measured on it."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from charlm.errors import ModelFileError, RequestError
from charlm.lm import CharLM
from charlm.messages import counted
from charlm.vocab import NO_ID, Ids, Vocab

from .batches import Batches, Streams, Windows
from .data import Text
from .dynamic import SCALE_SYMBOLS, dynamic_losses
from .encode import SmallIds, smallest_type
from .evaluate import carried_loss, carried_losses_of_halves, fastest_reader, reset_loss, windows_loss
from .network import TrainingNetwork
from .precision import flushed_denormals
from .split import DEFAULT_SHARES, DEFAULT_SPLIT, Shares, check_split, cut_parts, parse_split

WINDOW = 30  # characters
WINDOWS_TEXT = 268_330  # windows are cut from the first characters of the text, at most this many
MIN_WINDOWS = 10
IDS_PER_RECODING = 1 << 24


class Protocol(ABC):
    """A text that is split for training and measuring.

    vocab: of the model that is trained or measured.
    split: the sizes of the parts, for history.json.
    untrained: the symbols that occur only outside the part that trains, with their counts.
    release: gives back the memory that reading a mapped text takes.
    is_in_order: whether each part is one stretch of the text, read from its beginning to its end.
    """

    is_in_order: ClassVar[bool]
    vocab: Vocab
    split: dict[str, int]
    untrained: dict[str, int]
    release: Callable[[], None]

    @abstractmethod
    def seq_length(self, asked: int | None, recipe: int, written_chars: int = 0) -> int:
        """Return the length of a training sequence: the one asked for, or that of the recipe or of the protocol.

        written_chars: that will train besides the text. Raises RequestError if it does not fit.
        """

    @abstractmethod
    def max_batch_size(self, seq_length: int, written_chars: int = 0) -> int:
        """Return the largest batch_size that the text allows. written_chars: that will train besides the text."""

    @abstractmethod
    def batches(self, batch_size: int, seq_length: int, seed: int) -> Batches:
        """Return the batches of a run."""

    @abstractmethod
    def training_ids(self) -> SmallIds:
        """Return the ids (N,) of the text that trains, in order."""

    def training_counts(self) -> NDArray[np.int64]:
        """Return how often each symbol of the vocabulary occurs in the text that trains, (V,)."""
        return _count(self.training_ids(), len(self.vocab), self.release)

    @abstractmethod
    def epoch_losses(self, lm: CharLM) -> dict[str, float | None]:
        """Measure val_loss and unseen_loss, None if the protocol has none: after every epoch.

        If outputs are not finite numbers, the engine raises ModelFileError, and torch returns NaN.
        """

    def best_losses(self, lm: CharLM) -> dict[str, float]:
        """Measure the further losses of the best epoch's model."""
        return {}


class Holdout(Protocol):
    """The first nine tenths train and the rest validates, without overlap; the state is carried through each part.

    Other shares may be given, and a third part, which is read once, at the end.
    """

    is_in_order = True

    def __init__(self, text: Text, vocab: Vocab | None = None, shares: Shares = DEFAULT_SHARES) -> None:
        """vocab: of the model to measure, by default of the text. shares: that train, validate and, if three, test.

        Raises RequestError if nothing is left to predict.
        """
        parts = cut_parts(len(text), shares, text.name)
        chars = [part.stop - part.start for part in parts]
        self.split = dict(zip(("train_chars", "val_chars", "test_chars"), chars, strict=False))
        self.untrained = untrained_symbols(text, chars[0]) if vocab is None else {}
        self.vocab = vocab or Vocab(text.encoded.symbols)
        self.release = text.encoded.release
        self._train = text.encoded.ids[parts[0]]
        self._val, self.unknown_chars = self._known_ids(text, parts[1], "validation")
        self._test = None
        if len(parts) > 2:
            self._test, unknown_chars = self._known_ids(text, parts[2], "test")
            self.unknown_chars += unknown_chars

    def _known_ids(self, text: Text, part: slice, name: str) -> tuple[SmallIds, int]:
        """Return what `ids_in_vocab` does. Raises RequestError if nothing is left to predict."""
        ids, unknown_chars = ids_in_vocab(text, part, self.vocab)
        if len(ids) < 2:
            raise RequestError(
                f"the model knows no more than {counted(len(ids), 'character')} of {text.name}'s {name} part; "
                "give a text in the symbols that it was trained on"
            )
        return ids, unknown_chars

    def seq_length(self, asked: int | None, recipe: int, written_chars: int = 0) -> int:
        """See Protocol.seq_length."""
        length, train_chars = asked or recipe, len(self._train) + written_chars
        if train_chars < 2 * length:  # one sequence, and the random offset of an epoch, up to another
            written = " with what teachers write" if written_chars else ""
            raise RequestError(
                f"the part of the text that trains has {counted(train_chars, 'character')}{written}; sequences of "
                f"{length} need {2 * length:,}: give a longer text or a lower --seq-length"
            )
        return length

    def max_batch_size(self, seq_length: int, written_chars: int = 0) -> int:
        """See Protocol.max_batch_size."""
        return (len(self._train) + written_chars - seq_length) // seq_length

    def batches(self, batch_size: int, seq_length: int, seed: int) -> Batches:
        """See Protocol.batches."""
        return Streams(self._train, batch_size, seq_length, seed, self.release)

    def training_ids(self) -> SmallIds:
        """See Protocol.training_ids."""
        return self._train

    def with_training_ids_before(self, ids: Ids) -> "Holdout":
        """Return this protocol with ids (N,) of the vocabulary in front of the text that trains."""
        longer = copy.copy(self)
        longer._train = np.concatenate([ids.astype(self._train.dtype), self._train])
        return longer

    def epoch_losses(self, lm: CharLM) -> dict[str, float | None]:
        """See Protocol.epoch_losses."""
        return {"val_loss": carried_loss(fastest_reader(lm, self.release), self._val), "unseen_loss": None}

    def best_losses(self, lm: CharLM) -> dict[str, float]:
        """See Protocol.best_losses."""
        reader = fastest_reader(lm, self.release)
        losses = {"val_loss_reset256": reset_loss(reader, self._val)}
        if self._test is not None:
            losses["test_loss"] = carried_loss(reader, self._test)
        return losses

    def half_losses(self, lm: CharLM) -> dict[str, float]:
        """Measure val_loss on each half of the text that validates: one to choose settings by, the other to report.

        Raises RequestError if that text is too short.
        """
        if len(self._val) < 4:
            raise RequestError(
                f"the part that validates has {counted(len(self._val), 'character')}; --halves needs 4: give a longer "
                "text or leave it out"
            )
        first, second = carried_losses_of_halves(fastest_reader(lm, self.release), self._val)
        return {"val_loss_first_half": first, "val_loss_second_half": second}

    def dynamic_chars(self, text: Text) -> int:
        """Return how many characters `dynamic_losses` reads."""
        return len(self._end_of_training(text)) + len(self._val)

    def _end_of_training(self, text: Text) -> SmallIds:
        """Return what the model knows of the end of the text that trains, enough to measure its gradients there."""
        end = self.split["train_chars"]
        return ids_in_vocab(text, slice(max(0, end - SCALE_SYMBOLS), end), self.vocab)[0]

    def dynamic_losses(self, lm: CharLM, text: Text, halves: bool) -> dict[str, float]:
        """Measure val_loss of a copy of the model that learns from what it has read, as train/dynamic.py describes.

        text: the one that this protocol splits. halves: also measure it on each half of the text that validates.

        Raises RequestError if the model knows no symbols at the end of the text that trains.
        """
        if len(trained := self._end_of_training(text)) < 2:
            raise RequestError(f"the model does not know the end of {text.name}'s training part: leave --dynamic out")
        losses = dynamic_losses(TrainingNetwork.from_model(lm, lm.device, torch.float32, 1), trained, self._val)
        measured = {"val_loss_dynamic": losses}
        if halves:
            half = len(self._val) // 2 - 1  # the first symbol is not predicted
            measured |= {
                "val_loss_dynamic_first_half": losses[:half],
                "val_loss_dynamic_second_half": losses[half:],
            }
        return {name: float(part.mean()) for name, part in measured.items()}


class OverlappingWindows(Protocol):
    """All windows of WINDOW characters of the first WINDOWS_TEXT; a random 80 % train and the others validate.

    Almost every character of a validation window is in training windows too, so the validation loss leaks. The text
    after WINDOWS_TEXT is unseen: the loss there, with the state carried, shows what was learnt.
    """

    is_in_order = False

    def __init__(self, text: Text, vocab: Vocab | None = None) -> None:
        """vocab: of the model to measure, by default of the windows. Raises RequestError if the text is too short."""
        seen = slice(min(len(text), WINDOWS_TEXT))
        if seen.stop < WINDOW + MIN_WINDOWS:
            raise RequestError(
                f"{text.name} has only {counted(len(text), 'character')}; the protocol windows needs "
                f"{WINDOW + MIN_WINDOWS}; give a longer text, or leave --protocol out"
            )
        present = np.unique(text.encoded.ids[seen])
        seen_symbols = (text.encoded.symbols[place] for place in present)
        self.vocab = vocab or Vocab("".join(sorted({*seen_symbols, *text.known})))
        self.untrained = {}  # nearly every character of a window that validates is in one that trains, too
        self._seen, unknown_seen = ids_in_vocab(text, seen, self.vocab)
        if len(self._seen) < WINDOW + MIN_WINDOWS:
            raise RequestError(
                f"the model knows no more than {len(self._seen)} of the characters to measure it on; "
                "give a text in the symbols that it was trained on"
            )
        self._unseen, unknown_unseen = ids_in_vocab(text, slice(seen.stop, None), self.vocab)
        self.unknown_chars = unknown_seen + unknown_unseen
        self.release = text.encoded.release
        # the same split in every run, so that a saved model can be measured again
        starts = np.random.default_rng(0).permutation(len(self._seen) - WINDOW)
        train = int(0.8 * len(starts))
        self._train, self._val = starts[:train], starts[train:]
        self.split = {
            "train_chars": train * WINDOW,
            "val_chars": (len(starts) - train) * WINDOW,
            "train_windows": train,
            "val_windows": len(starts) - train,
            "unseen_chars": len(self._unseen),
        }

    def seq_length(self, asked: int | None, recipe: int, written_chars: int = 0) -> int:
        """See Protocol.seq_length."""
        if asked not in (None, WINDOW):
            raise RequestError(f"the protocol windows reads {WINDOW} characters at a time; leave --seq-length out")
        return WINDOW

    def max_batch_size(self, seq_length: int, written_chars: int = 0) -> int:
        """See Protocol.max_batch_size."""
        return len(self._train)

    def batches(self, batch_size: int, seq_length: int, seed: int) -> Batches:
        """See Protocol.batches."""
        return Windows(self._seen, self._train, batch_size, seq_length, seed)

    def training_ids(self) -> SmallIds:
        """See Protocol.training_ids: those of all windows, since the ones that validate overlap with them."""
        return self._seen

    def epoch_losses(self, lm: CharLM) -> dict[str, float | None]:
        """See Protocol.epoch_losses."""
        reader = fastest_reader(lm, self.release)
        unseen = carried_loss(reader, self._unseen) if len(self._unseen) > 1 else None
        val = windows_loss(reader, self._seen, self._val, WINDOW)
        return {"val_loss": val, "unseen_loss": unseen}


PROTOCOLS: dict[str, type[Holdout] | type[OverlappingWindows]] = {"holdout": Holdout, "windows": OverlappingWindows}


def check_in_order(protocol: Protocol | type[Protocol], options: dict[str, bool]) -> None:
    """Raise RequestError if an option is given that a protocol refuses because it does not read the text in its order.

    options: the names of such options, and whether each is given.
    """
    for option, is_given in options.items():
        if is_given and not protocol.is_in_order:
            raise RequestError(
                f"{option} needs a text that is read in its order, as by the protocol holdout: leave it out"
            )


def split_text(text: Text, protocol: str, split: str, vocab: Vocab | None = None) -> Holdout | OverlappingWindows:
    """Split a text by a protocol. split: the shares of its parts, as `parse_split` reads them.

    vocab: of the model to measure, by default that of the text. Raises RequestError if the text is too short, or the
    protocol has another split.
    """
    check_split(protocol, split)
    shares = {"shares": parse_split(split)} if protocol == "holdout" else {}
    return PROTOCOLS[protocol](text, vocab, **shares)


def untrained_symbols(text: Text, train_chars: int) -> dict[str, int]:
    """Return the symbols that occur only after the first characters of a text, and how often they do.

    Those that are known from another text are left out.
    """
    after = _count(text.encoded.ids[train_chars:], len(text.encoded.symbols), text.encoded.release)
    untrained = np.flatnonzero((after > 0) & (after == text.encoded.counts))
    found = ((text.encoded.symbols[place], int(after[place])) for place in untrained)
    return {symbol: times for symbol, times in found if symbol not in text.known}


def _count(ids: SmallIds, symbols: int, release: Callable[[], None]) -> NDArray[np.int64]:
    """Return how often each of so many ids occurs, (symbols,)."""
    counts = np.zeros(symbols, np.int64)
    for first in range(0, len(ids), IDS_PER_RECODING):  # in pieces: counting takes eight bytes a symbol
        counts += np.bincount(ids[first : first + IDS_PER_RECODING], minlength=symbols)
        release()
    return counts


def evaluate(
    lm: CharLM,
    text: Text,
    protocol: str,
    split: str = DEFAULT_SPLIT,
    halves: bool = False,
    dynamic: bool = False,
    before_dynamic: Callable[[dict[str, float], int], None] = lambda losses, chars: None,
) -> tuple[dict[str, float], int]:
    """Measure a model on a text by a protocol, the text split as `split_text` does.

    halves: also measure each half of the text that validates. dynamic: also let the model learn from what it has read.
    before_dynamic: is given all other losses, and how many characters are read while it learns, which takes minutes.

    Return its losses in nats per character, and the number of characters that were left out because they are not in
    the model's vocabulary. Raises RequestError if too few are left, or the protocol has no such losses;
    ModelFileError if a loss is NaN or infinite.
    """
    check_in_order(PROTOCOLS[protocol], {"--halves": halves, "--dynamic": dynamic})
    parts = split_text(text, protocol, split, lm.vocab)
    with flushed_denormals():
        losses = parts.epoch_losses(lm) | parts.best_losses(lm)
        if halves:
            assert isinstance(parts, Holdout)  # the one that reads in order
            losses |= parts.half_losses(lm)
        measured = _finite_losses(losses)
        if dynamic:
            assert isinstance(parts, Holdout)
            before_dynamic(measured, parts.dynamic_chars(text))
            measured |= _finite_losses(parts.dynamic_losses(lm, text, halves))
    return measured, parts.unknown_chars


def _finite_losses(losses: Mapping[str, float | None]) -> dict[str, float]:
    """Return the losses that a protocol has. Raises ModelFileError if one is NaN or infinite."""
    measured = {name: loss for name, loss in losses.items() if loss is not None}
    if not all(map(math.isfinite, measured.values())):
        raise ModelFileError(
            "the model's losses are not finite numbers, as after a training that diverged: train with a lower --lr"
        )
    return measured


def ids_in_vocab(text: Text, part: slice, vocab: Vocab) -> tuple[SmallIds, int]:
    """Return the ids of a part of a text in another vocabulary, and how many symbols were left out as unknown to it."""
    ids = text.encoded.ids[part]
    if vocab.symbols == text.encoded.symbols:
        return ids, 0
    new_ids = vocab.ids_of(text.encoded.symbols)  # (V,): old id → new id or NO_ID
    dtype = smallest_type(len(vocab))
    pieces = []
    for first in range(0, len(ids), IDS_PER_RECODING):  # in pieces: indexing takes eight bytes a symbol
        piece = new_ids[ids[first : first + IDS_PER_RECODING]]
        pieces.append(piece[piece != NO_ID].astype(dtype))
        text.encoded.release()
    known = np.concatenate([np.zeros(0, dtype), *pieces])
    return known, len(ids) - len(known)
