"""Texts by built-in name, file, folder or data set on the Hub, put together and encoded as ids."""

import hashlib
import http.client
import os
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from charlm.errors import RequestError
from charlm.messages import MOST_LISTED, counted, listed
from charlm.model_name import DATASETS, parse_dataset_file
from charlm.nearest import PATH_CUTOFF, nearest
from charlm.text import stream_text

from .encode import NO_FOLDING, EncodedText, Folding, encode_pieces

TINYSHAKESPEARE = "tinyshakespeare"
TINYSHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
TINYSHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
UNIGRAM_CHARS = 10**6
LONGEST_BEGINNING = 12
MOST_NAMED = 3  # sources whose names make that of the text
MOST_SOURCES = 1_000  # of a text; history.json, which has an entry for each, cannot hold 20,000


@dataclass(frozen=True)
class Text:
    """A named text to train on.

    sources: the `texts` of history.json, an entry for each that was put together; empty for a single file.
    folding: which symbols were replaced.
    known: symbols that are in the vocabulary, however rare, because a model has them: the one that is measured, or that
        a training begins with.
    """

    name: str
    encoded: EncodedText
    sources: tuple[dict[str, Any], ...] = ()
    folding: Folding = NO_FOLDING
    known: str = ""

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


def load_text(
    *words: str,
    workspace: Path | None = None,
    folding: Folding = NO_FOLDING,
    known: str = "",
    say: Callable[[str], None] = lambda message: None,
) -> Text:
    """Return the text that these words name together, one behind the other in their order.

    words: each the built-in name, a UTF-8 file, a folder, which stands for its *.txt files in order of name, or a file
        of a data set on the Hub, hf://datasets/USER/NAME[@REVISION]/FILE. Of each file a byte-order mark is dropped,
        and CRLF is read as LF.
    workspace: an existing folder, by default the system's temporary folder. The ids of a text too large for memory are
        kept there in an unnamed temporary file.
    folding, known: see Text.
    say: is told the size of what will be downloaded, which of several files hold the same, and if lines end in carriage
        returns alone.

    Raises RequestError if there is no such file, it is not UTF-8 text, there are fewer than two different symbols, or
    more than MOST_SOURCES words; HubError if the Hub refuses, HubUnavailableError if it gives no usable answer.
    """
    words = _expand(words)
    sources = [_find_source(word, say) for word in words]
    has_several_files = sum(len(source.parts) for source in sources) > 1
    pieces = (piece for source in sources for piece in source.stream(hashed=has_several_files))
    encoded = encode_pieces(pieces, " ".join(words), workspace, folding, known)
    for note in [*_explain_repeats(sources), *_explain_carriage_returns(text_name(words), encoded)]:
        say(note)
    records = [source.record() for source in sources]
    has_parts = len(sources) > 1 or any({"files", "revision"} & record.keys() for record in records)
    return replace(make_text(text_name(words), encoded, records if has_parts else []), folding=folding, known=known)


def _explain_carriage_returns(name: str, encoded: EncodedText) -> list[str]:
    """Return a note about a text with more carriage returns, those of CRLF not counted, than line feeds; else none."""
    counts = dict(zip(encoded.symbols, encoded.counts.tolist(), strict=True))
    returns, feeds = counts.get("\r", 0), counts.get("\n", 0)
    if returns <= feeds:
        return []
    return [
        f"note: {name} has {counted(returns, 'carriage return')} without a line feed, read as a symbol like any other; "
        "if its lines end so, make line feeds of them first: tr '\\r' '\\n' < FILE > NEW_FILE"
    ]


def check_texts(words: Sequence[str]) -> None:
    """Raise what `load_text` does for too many words, and for files that are missing or whose first bytes are not text.

    words: as for `load_text`. What may have to be downloaded is not looked at, nor are pipes, which are read once.
    """
    for word in _expand(words):
        if _is_on_hub(word) or word == TINYSHAKESPEARE:
            continue
        source = _find_source(word, lambda _: None)
        if os.path.isfile(word) or os.path.isdir(word) or not os.path.lexists(word):
            next(source.stream(), None)


def _expand(words: Sequence[str]) -> tuple[str, ...]:
    """Return the words that name a text, with ~ as the home folder. Raises RequestError for more than MOST_SOURCES."""
    if len(words) > MOST_SOURCES:
        raise RequestError(
            f"a text is put together from at most {MOST_SOURCES:,} sources, and these are {len(words):,}: give their "
            "folder"
        )
    return tuple(map(os.path.expanduser, words))  # a shell leaves the ~ in --text=~/my-text.txt


def text_name(words: Sequence[str]) -> str:
    """Return what the text that these words name is called: the names of its sources, or that of the first and more."""
    names = list(dict.fromkeys(map(_source_name, map(os.path.expanduser, words))))
    return "+".join(names) if len(names) <= MOST_NAMED else f"{names[0]}+{len(names) - 1}-more"


def _source_name(word: str) -> str:
    if (dataset := parse_dataset_file(word)) is not None:
        return dataset.repo_id.split("/")[1]
    if os.path.isdir(word):
        return Path(word).resolve().name or "text"
    path = Path(word)
    # a file of the name tinyshakespeare keeps its ending: the model card gives that text's source and licence
    return path.name if path.stem == TINYSHAKESPEARE else path.stem


@dataclass
class Source:
    """One of the sources of a text.

    parts: its files, each by its name and a function that reads it.
    about: what its entry in `texts` of history.json has besides: the `files` of a folder, the `revision` on the Hub.
    chars: how many characters of it `stream` has read. hashes: the name and the SHA-256 of each file, if it was asked
        for them.
    """

    name: str
    parts: Sequence[tuple[str, Callable[[], Iterator[str]]]]
    about: dict[str, Any] = field(default_factory=dict)
    chars: int = 0
    hashes: list[tuple[str, str]] = field(default_factory=list)

    def stream(self, *, hashed: bool = False) -> Iterator[str]:
        """Yield the text in pieces, and count its characters.

        hashed: whether to keep the SHA-256 of its files, but for empty ones, in `hashes`.
        """
        self.chars, self.hashes = 0, []
        for name, read in self.parts:
            begun, digest = self.chars, hashlib.sha256()
            for piece in read():
                self.chars += len(piece)
                if hashed:
                    digest.update(piece.encode())
                yield piece
            if hashed and self.chars > begun:
                self.hashes.append((name, digest.hexdigest()))

    def record(self) -> dict[str, Any]:
        """Return its entry in `texts` of history.json, after it was read."""
        return {"name": self.name, **self.about, "chars": self.chars}


def _explain_repeats(sources: Sequence[Source]) -> list[str]:
    """Return a note for each file that is named more than once, and for each set of files that hold the same."""
    names = defaultdict[str, list[str]](list)
    for name, sha256 in chain.from_iterable(source.hashes for source in sources):
        names[sha256].append(name)
    notes = []
    for found in [found for found in names.values() if len(found) > 1][:MOST_LISTED]:
        first, *others = dict.fromkeys(found)
        times = "twice" if len(found) == 2 else f"{len(found):,} times"
        what = f"{first} and {listed(others)} hold the same" if others else f"{first} is there {times}"
        notes.append(f"note: {what}: what validates may repeat what trains, and its loss is then too low")
    return notes


def _is_on_hub(word: str) -> bool:
    return word.lower().startswith(DATASETS) or ("://" in word and parse_dataset_file(word) is not None)


def _find_source(word: str, say: Callable[[str], None]) -> Source:
    """Return what a word names; download it if it is on the Hub. say: is told its size before.

    Raises RequestError if it is a folder without a text, or no name of one, and what the Hub raises.
    """
    way_out = f"give a UTF-8 text file, a folder of such files or the built-in name {TINYSHAKESPEARE}"
    if not word:
        raise RequestError(f"the name of a text is empty; {way_out}")
    if _is_on_hub(word):
        return _dataset_source(word, say)
    if word == TINYSHAKESPEARE:
        return Source(word, [(word, lambda: iter([_tinyshakespeare().decode()]))])
    if os.path.isdir(word):
        files = _text_files(Path(word))
        return Source(
            _source_name(word), [(str(file), partial(stream_text, file)) for file in files], {"files": len(files)}
        )
    if "://" in word and not os.path.lexists(word):
        raise RequestError(_explain_address(word))
    path = Path(word)
    if not os.path.lexists(path) and nearest(word, [TINYSHAKESPEARE], PATH_CUTOFF):
        raise RequestError(
            f"cannot read the text {path}: No such file or directory; did you mean the built-in name {TINYSHAKESPEARE}?"
        )
    return Source(path.name, [(str(path), lambda: stream_text(path, way_out))])


def _explain_address(word: str) -> str:
    """Return the message about a web address that is not that of a file of a data set."""
    scheme, _, rest = word.partition("://")
    if scheme.lower() == "hf":
        similar = f"{DATASETS}{rest}"
        found = parse_dataset_file(similar)
        hint = f"did you mean {similar}?" if found and found.path else f"write {DATASETS}USER/NAME/FILE"
        return f"{word!r:.200} names no file of a data set; {hint}"
    return (
        f"{word!r:.200} is a web address, from which no text is downloaded: download the file and give its path, or of "
        f"a data set on the Hub write {DATASETS}USER/NAME/FILE"
    )


def _dataset_source(word: str, say: Callable[[str], None]) -> Source:
    """Download a file of a data set. say: is told its size and its commit before."""
    from charlm import hub  # here, because files of one's own need no huggingface_hub

    asked = parse_dataset_file(word)
    if asked is None:
        raise RequestError(f"{word!r:.200} names no file of a data set; write {DATASETS}USER/NAME/FILE")
    described = hub.describe_dataset_file(asked)
    name, commit = str(replace(asked, revision=None)), described.file.revision
    say(f"{name}: {described.size:,} bytes, of commit {commit}")
    path = hub.download_dataset_file(described)
    return Source(name, [(name, lambda: stream_text(path, "name a UTF-8 text file of it", name))], {"revision": commit})


def _text_files(folder: Path) -> list[Path]:
    """Return the *.txt files of a folder in order of name. Raises RequestError if there is none."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise RequestError(f"cannot read the folder {folder} ({error.strerror}); give one that you may read") from None
    # names that begin with a dot are hidden; macOS keeps what is no text in such files beside each file
    files = [folder / name for name in names if name.lower().endswith(".txt") and not name.startswith(".")]
    files = [path for path in files if not path.is_dir()]
    if not files:
        inside = f"it holds {listed(names)}" if names else "it is empty"
        raise RequestError(f"the folder {folder} has no *.txt file ({inside}); name the files of your text")
    return files


def make_text(name: str, encoded: EncodedText, sources: Sequence[dict[str, Any]] = ()) -> Text:
    """Return a text under that name, or under the built-in one if it is that text.

    sources: see Text. Raises RequestError if it has fewer than two different symbols.
    """
    if (symbols := np.count_nonzero(encoded.counts)) < 2:
        found = "only one symbol" if symbols else "nothing in it"
        raise RequestError(f"{name} has {found}; a text to learn from needs at least two different symbols")
    return Text(TINYSHAKESPEARE if encoded.sha256 == TINYSHAKESPEARE_SHA256 else name, encoded, tuple(sources))


def _tinyshakespeare() -> bytes:
    """Return the text from CHARLM_DATA if that is set, else from the cache, where it is kept once downloaded."""
    if folder := os.environ.get("CHARLM_DATA"):
        path = Path(os.path.expanduser(folder), f"{TINYSHAKESPEARE}.txt")
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
