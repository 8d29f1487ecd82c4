"""The protocols: how a text is split, what of it trains, and what of it measures."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from charlm.errors import ModelFileError, RequestError
from charlm.lm import CharLM
from charlm.model.network import Network
from charlm.vocab import Vocab
from train.batches import Batches, Streams, Windows
from train.data import Text
from train.encode import SmallIds
from train.evaluate import carried_loss, reset_loss, windows_loss
from train.precision import flushed_denormals

SEQ_LENGTH = 128  # characters, unless a run says otherwise
WINDOW = 30  # characters
WINDOWS_TEXT = 268_330  # characters of the text that windows are cut from, at most
FEWEST_WINDOWS = 10
RECODE_AT_ONCE = 1 << 24


class Protocol(ABC):
    """A text, split.

    vocab: the symbols that a model trained on it knows.
    split: what history.json says of the split.
    """

    vocab: Vocab
    split: dict[str, int]

    @abstractmethod
    def seq_length(self, asked: int | None) -> int:
        """Return the length of the sequences that train. Raises RequestError if it cannot be the one asked for."""

    @abstractmethod
    def max_batch_size(self, seq_length: int) -> int:
        """Return the largest batch_size that the text allows."""

    @abstractmethod
    def batches(self, batch_size: int, seq_length: int, seed: int) -> Batches:
        """Return what a run reads."""

    @abstractmethod
    def epoch_losses(self, network: Network) -> dict[str, float | None]:
        """Measure val_loss and unseen_loss (None if the protocol has none)."""

    def best_losses(self, network: Network) -> dict[str, float]:
        """Measure what is only measured of the best epoch."""
        return {}


class Holdout(Protocol):
    """The first nine tenths train, the rest validates; nothing overlaps. The state is carried from batch to batch."""

    def __init__(self, text: Text, vocab: Vocab | None = None) -> None:
        """vocab: of a model to measure, else that of the text. Raises RequestError if nothing is left to predict."""
        cut = int(0.9 * len(text))
        if len(text) - cut < 2:
            raise RequestError(
                f"the text has only {len(text)} characters; it needs at least 11 to be split and measured"
            )
        self.vocab = vocab or Vocab(text.encoded.symbols)
        self.split = {"train_chars": cut, "val_chars": len(text) - cut}
        self._release = text.encoded.release
        self._train = text.encoded.ids[:cut]
        self._val, self.skipped = known_ids(text, slice(cut, None), self.vocab)
        if len(self._val) < 2:
            raise RequestError(
                f"the model knows no more than {len(self._val)} characters of {text.name}'s validation part"
            )

    def seq_length(self, asked: int | None) -> int:
        """See Protocol.seq_length."""
        length, train_chars = asked or SEQ_LENGTH, len(self._train)
        if train_chars < 2 * length:  # an epoch may start as much as a sequence into the text
            raise RequestError(
                f"the part of the text that trains has {train_chars:,} characters; sequences of {length} "
                f"need {2 * length:,}: give a longer text or a lower --seq-length"
            )
        return length

    def max_batch_size(self, seq_length: int) -> int:
        """See Protocol.max_batch_size."""
        return (len(self._train) - seq_length) // seq_length

    def batches(self, batch_size: int, seq_length: int, seed: int) -> Batches:
        """See Protocol.batches."""
        return Streams(self._train, batch_size, seq_length, seed, self._release)

    def epoch_losses(self, network: Network) -> dict[str, float | None]:
        """See Protocol.epoch_losses."""
        return {"val_loss": carried_loss(network, self._val, self._release), "unseen_loss": None}

    def best_losses(self, network: Network) -> dict[str, float]:
        """See Protocol.best_losses."""
        return {"val_loss_reset256": reset_loss(network, self._val, self._release)}


class OverlappingWindows(Protocol):
    """Windows of WINDOW characters that start at every one of the first WINDOWS_TEXT; at random, 80 % train.

    Almost every character of a validation window also stands in windows that train, so the validation loss
    measures memory. The text after that is unseen: its loss, state carried, tells what was learnt.
    """

    def __init__(self, text: Text, vocab: Vocab | None = None) -> None:
        """vocab: of a model to measure, else that of the windows. Raises RequestError if the text is too short."""
        seen = slice(min(len(text), WINDOWS_TEXT))
        if seen.stop < WINDOW + FEWEST_WINDOWS:
            raise RequestError(
                f"the text has only {len(text)} characters; the protocol windows needs {WINDOW + FEWEST_WINDOWS}"
            )
        present = np.unique(text.encoded.ids[seen])
        self.vocab = vocab or Vocab("".join(text.encoded.symbols[place] for place in present))
        self._seen, skipped = known_ids(text, seen, self.vocab)
        if len(self._seen) < WINDOW + FEWEST_WINDOWS:
            raise RequestError(f"the model knows no more than {len(self._seen)} of the characters to measure it on")
        self._unseen, unseen_skipped = known_ids(text, slice(seen.stop, None), self.vocab)
        self.skipped = skipped + unseen_skipped
        self._release = text.encoded.release
        # one split for all runs, so that a model can be measured again
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

    def seq_length(self, asked: int | None) -> int:
        """See Protocol.seq_length."""
        if asked not in (None, WINDOW):
            raise RequestError(f"the protocol windows reads {WINDOW} characters at a time; leave --seq-length out")
        return WINDOW

    def max_batch_size(self, seq_length: int) -> int:
        """See Protocol.max_batch_size."""
        return len(self._train)

    def batches(self, batch_size: int, seq_length: int, seed: int) -> Batches:
        """See Protocol.batches."""
        return Windows(self._seen, self._train, batch_size, seq_length, seed)

    def epoch_losses(self, network: Network) -> dict[str, float | None]:
        """See Protocol.epoch_losses."""
        unseen = carried_loss(network, self._unseen, self._release) if len(self._unseen) > 1 else None
        return {"val_loss": windows_loss(network, self._seen, self._val, WINDOW), "unseen_loss": unseen}


PROTOCOLS: dict[str, Callable[..., Holdout | OverlappingWindows]] = {"holdout": Holdout, "windows": OverlappingWindows}


def evaluate(lm: CharLM, text: Text, protocol: str) -> tuple[dict[str, float], int]:
    """Measure a model on a text by a protocol.

    Return its losses in nats per character, and how many characters of the text were left out because the
    model does not know them. Raises RequestError if hardly any is left, ModelFileError if the model's
    outputs are no finite numbers.
    """
    split = PROTOCOLS[protocol](text, lm.vocab)
    with flushed_denormals():
        losses = split.epoch_losses(lm.network) | split.best_losses(lm.network)
    measured = {name: loss for name, loss in losses.items() if loss is not None}
    if not all(map(math.isfinite, measured.values())):
        raise ModelFileError("the model's losses are no finite numbers, as after a training that diverged")
    return measured, split.skipped


def known_ids(text: Text, part: slice, vocab: Vocab) -> tuple[SmallIds, int]:
    """Return the ids that `vocab` gives to a part of a text, and how many symbols were left out for having none."""
    ids = text.encoded.ids[part]
    if vocab.symbols == text.encoded.symbols:
        return ids, 0
    places = {symbol: place for place, symbol in enumerate(vocab.symbols)}
    new_ids = np.array([places.get(symbol, -1) for symbol in text.encoded.symbols])
    dtype = np.min_scalar_type(max(len(vocab) - 1, 0))
    pieces = []
    for first in range(0, len(ids), RECODE_AT_ONCE):  # at once it would take eight bytes a symbol
        piece = new_ids[ids[first : first + RECODE_AT_ONCE]]
        pieces.append(piece[piece >= 0].astype(dtype))
        text.encoded.release()
    known = np.concatenate([np.zeros(0, dtype), *pieces])
    return known, len(ids) - len(known)
