"""Texts by built-in name or file, encoded as ids."""

import hashlib
import http.client
import os
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from charlm.errors import RequestError
from charlm.nearest import PATH_CUTOFF, nearest

from .encode import EncodedText, encode_file, encode_text

TINYSHAKESPEARE = "tinyshakespeare"
TINYSHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
TINYSHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
UNIGRAM_CHARS = 10**6
LONGEST_BEGINNING = 12


@dataclass(frozen=True)
class Text:
    """A named text to train on."""

    name: str
    encoded: EncodedText

    def __len__(self) -> int:
        return len(self.encoded.ids)

    def beginning(self) -> str:
        """Return the first word, of at most LONGEST_BEGINNING characters: something that a model can continue."""
        start = "".join(self.encoded.symbols[index] for index in self.encoded.ids[: 4 * LONGEST_BEGINNING])
        return next(iter(start.split()), "")[:LONGEST_BEGINNING]

    def unigram_loss(self) -> float:
        """Return the loss, in nats per character, of guessing each symbol by how often it occurs.

        Of a long text the first UNIGRAM_CHARS are counted: the figure is shown with two digits.
        """
        counts = np.bincount(self.encoded.ids[:UNIGRAM_CHARS])
        shares = counts[counts > 0] / counts.sum()
        return -float((shares * np.log(shares)).sum())


def load_text(name_or_file: str, workspace: Path | None = None) -> Text:
    """Return the built-in text of that name, or the content of that UTF-8 file.

    A byte-order mark is dropped, and CRLF is read as LF. The ids of a text too large for memory are kept in an
    unnamed temporary file in the folder `workspace`, by default the system's temporary folder.
    Raises RequestError if there is no such file, it is not UTF-8 text, or it has fewer than two
    different symbols.
    """
    if name_or_file == TINYSHAKESPEARE:
        return make_text(TINYSHAKESPEARE, encode_text(_tinyshakespeare().decode()))
    path = Path(name_or_file)
    if not os.path.lexists(path) and nearest(name_or_file, [TINYSHAKESPEARE], PATH_CUTOFF):
        raise RequestError(
            f"cannot read the text {path}: No such file or directory; did you mean the built-in name {TINYSHAKESPEARE}?"
        )
    encoded = encode_file(path, workspace, f"give a UTF-8 text file or the built-in name {TINYSHAKESPEARE}")
    # a file of the name tinyshakespeare keeps its ending: the model card gives that text's source and licence
    return make_text(path.name if path.stem == TINYSHAKESPEARE else path.stem, encoded)


def make_text(name: str, encoded: EncodedText) -> Text:
    """Return a text under that name, or under the built-in one if it is that text.

    Raises RequestError if it has fewer than two different symbols.
    """
    if len(encoded.symbols) < 2:
        found = "only one symbol" if encoded.symbols else "nothing in it"
        raise RequestError(f"{name} has {found}; a text to learn from needs at least two different symbols")
    return Text(TINYSHAKESPEARE if encoded.sha256 == TINYSHAKESPEARE_SHA256 else name, encoded)


def _tinyshakespeare() -> bytes:
    """Return the text from CHARLM_DATA if that is set, else from the cache, where it is kept once downloaded."""
    if folder := os.environ.get("CHARLM_DATA"):
        path = Path(folder, f"{TINYSHAKESPEARE}.txt")
        if not os.path.isfile(path):
            raise RequestError(f"CHARLM_DATA has no file {path.name}; put it there or unset CHARLM_DATA")
    else:
        # without a home directory, expanduser returns "~" itself, which would become the name of a folder
        cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
        path = cache / "charlm" / f"{TINYSHAKESPEARE}.txt"
        if not os.path.isfile(path):
            raw = _download(path.name)
            if cache.is_absolute():
                _keep(raw, path)
            return raw
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RequestError(f"cannot read the text {path}: {error.strerror}; delete it and try again") from None
    if hashlib.sha256(raw).hexdigest() != TINYSHAKESPEARE_SHA256:
        raise RequestError(f"{path} is not the text {TINYSHAKESPEARE} (its SHA-256 differs); delete it and try again")
    return raw


def _download(name: str) -> bytes:
    """Return the text from the network. name: of the file that a user without a network needs."""
    try:
        with urllib.request.urlopen(TINYSHAKESPEARE_URL, timeout=20) as response:
            raw: bytes = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise RequestError(
            f"cannot download {TINYSHAKESPEARE} ({error}); put {name} into a folder and name that in CHARLM_DATA"
        ) from None
    if hashlib.sha256(raw).hexdigest() != TINYSHAKESPEARE_SHA256:
        raise RequestError(f"what {TINYSHAKESPEARE_URL} sent is not {TINYSHAKESPEARE} (its SHA-256 differs); try later")
    return raw


def _keep(raw: bytes, path: Path) -> None:
    """Write the text to the cache; if it cannot be written, the text is downloaded again next time."""
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            beside.write_bytes(raw)
            beside.replace(path)
        except OSError:
            beside.unlink(missing_ok=True)
