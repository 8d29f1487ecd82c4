"""Texts by name or file, their split, and the streams that a run reads."""

import hashlib
import http.client
import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from charlm.errors import RequestError
from charlm.text import read_text
from charlm.vocab import Ids

TINYSHAKESPEARE = "tinyshakespeare"
TINYSHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
TINYSHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"


@dataclass(frozen=True)
class Text:
    """A text to train on: its name, its characters, and the SHA-256 (hex) of them as UTF-8."""

    name: str
    content: str
    sha256: str


def load_text(name_or_file: str) -> Text:
    """Return the built-in text of that name, or the content of that UTF-8 file.

    A byte-order mark is dropped and CRLF reads as LF. Raises RequestError if there is no such file,
    it is not UTF-8 text, or it has fewer than two different symbols.
    """
    if name_or_file == TINYSHAKESPEARE:
        return _make_text(TINYSHAKESPEARE, _tinyshakespeare().decode())
    path = Path(name_or_file)
    # another text may not pass for the built-in one, whose licence and source the model card names
    name = path.name if path.stem == TINYSHAKESPEARE else path.stem
    return _make_text(name, read_text(path, f"give a UTF-8 text file or the built-in name {TINYSHAKESPEARE}"))


def _make_text(name: str, content: str) -> Text:
    if len(set(content)) < 2:
        found = "only one symbol" if content else "nothing in it"
        raise RequestError(f"{name} has {found}; a text to learn from needs at least two different symbols")
    sha256 = hashlib.sha256(content.encode()).hexdigest()
    return Text(TINYSHAKESPEARE if sha256 == TINYSHAKESPEARE_SHA256 else name, content, sha256)


def _tinyshakespeare() -> bytes:
    """Find the text in CHARLM_DATA if that is set, else in the cache, else download it there; check what was found."""
    if folder := os.environ.get("CHARLM_DATA"):
        path = Path(folder, f"{TINYSHAKESPEARE}.txt")
        if not path.is_file():
            raise RequestError(f"CHARLM_DATA has no file {path.name}; put it there or unset CHARLM_DATA")
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        path = cache / "charlm" / f"{TINYSHAKESPEARE}.txt"
        if not path.is_file():
            _download(path)
    raw = path.read_bytes()
    if hashlib.sha256(raw).hexdigest() != TINYSHAKESPEARE_SHA256:
        raise RequestError(f"{path} is not the text {TINYSHAKESPEARE} (its SHA-256 differs); delete it and try again")
    return raw


def _download(path: Path) -> None:
    try:
        with urllib.request.urlopen(TINYSHAKESPEARE_URL, timeout=20) as response:
            raw = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise RequestError(
            f"cannot download {TINYSHAKESPEARE} ({error}); put {path.name} into a folder and name that in CHARLM_DATA"
        ) from None
    if hashlib.sha256(raw).hexdigest() != TINYSHAKESPEARE_SHA256:
        raise RequestError(f"what {TINYSHAKESPEARE_URL} sent is not {TINYSHAKESPEARE} (its SHA-256 differs); try later")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_bytes(raw)
    beside.replace(path)


def split_holdout(text: str) -> tuple[str, str]:
    """Split a text into its first nine tenths, which train, and the rest, which validates.

    Raises RequestError if that leaves nothing to predict.
    """
    cut = int(0.9 * len(text))
    if len(text) - cut < 2:
        raise RequestError(f"the text has only {len(text)} characters; it needs at least 11 to be split and measured")
    return text[:cut], text[cut:]


class Streams:
    """A text read as B streams side by side, each going on where its last sequence ended.

    Every batch follows from the seed, the epoch and the step alone, so a resumed run reads on exactly.
    Each epoch starts at another random offset, so that the sequences are not cut at the same places.
    """

    def __init__(self, ids: Ids, batch_size: int, seq_length: int, seed: int, device: torch.device) -> None:
        """ids: (N,), with at least (batch_size + 1) × seq_length of them."""
        self._ids = torch.from_numpy(ids).to(device)
        self._seed = seed
        self._seq_length = seq_length
        self.steps_per_epoch = (len(ids) - seq_length) // (batch_size * seq_length)
        self.chars_per_step = batch_size * seq_length
        stream_starts = torch.arange(batch_size) * self.steps_per_epoch * seq_length  # (B,)
        self._places = (torch.arange(seq_length)[:, None] + stream_starts).to(device)  # (T, B)

    def batch(self, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Return the inputs (T, B) and the targets (T, B), one character later, of a step of an epoch."""
        offset = int(np.random.default_rng([self._seed, epoch]).integers(self._seq_length))
        places = self._places + (offset + step * self._seq_length)
        return self._ids[places], self._ids[places + 1]
