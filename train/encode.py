"""Encode a text as ids in one streamed pass, in memory that does not grow with the text."""

import hashlib
import mmap
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from charlm.errors import RequestError

SmallIds: TypeAlias = NDArray[np.unsignedinteger]
_IdType: TypeAlias = np.dtype[np.unsignedinteger]
_Codes: TypeAlias = NDArray[np.intp]  # code points
_File: TypeAlias = "tempfile.SpooledTemporaryFile[bytes]"

IN_MEMORY_BYTES = 64 << 20  # of ids; more of them go to a temporary file
IDS_PER_REWRITE = 1 << 20
CODE_POINTS = 0x110000
UNSEEN = -1
REPLACEMENT = "\ufffd"  # Unicode's replacement character


@dataclass(frozen=True)
class Folding:
    """Which symbols of a text are replaced.

    lowercase: capitals by their lower case, where that is one symbol.
    min_count: symbols that occur less often, by REPLACEMENT.
    """

    lowercase: bool = False
    min_count: int = 1


NO_FOLDING = Folding()


@dataclass(frozen=True, eq=False)
class EncodedText:
    """The symbols of a text, and the text as ids of them.

    symbols: every symbol once, ordered by code point.
    ids: (N,) of the smallest unsigned type that holds them all; of a large text, the memory map of an unnamed
        temporary file, which is deleted with the array.
    counts: (V,) how often each symbol occurs.
    sha256: of the text as UTF-8, in hex, before symbols were replaced.
    replaced: how many symbols, and how many characters, were too rare and are REPLACEMENT.
    """

    symbols: str
    ids: SmallIds
    counts: NDArray[np.int64]
    sha256: str
    replaced: tuple[int, int] = (0, 0)
    _map: mmap.mmap | None = field(default=None, repr=False)

    def release(self) -> None:
        """Drop the pages of a memory map that have been read; they are read from the file again when needed.

        Otherwise the process keeps every page that it ever read for as long as the machine has memory.
        """
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def encode_pieces(
    pieces: Iterable[str],
    name: object,
    workspace: Path | None = None,
    folding: Folding = NO_FOLDING,
    known: str = "",
) -> EncodedText:
    """Encode a text that comes in pieces of any size.

    name: what an error calls the text.
    workspace: an existing folder for the ids of a text too large for memory, by default the system's temporary folder.
        The file there has no name, so nothing is left even if the process is killed.
    known: symbols that get an id even if they do not occur, and that are not too rare.
    Raises RequestError if the ids do not fit into the workspace, and what `pieces` raises.
    """
    try:
        with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES, dir=str(workspace) if workspace else None) as file:
            return _encode(pieces, file, folding, _code_points(known))
    except OSError as error:
        instead = "choose another --out" if workspace else "set TMPDIR to another folder"
        raise RequestError(
            f"cannot keep the ids of {name} in {workspace or tempfile.gettempdir()}: {error.strerror or error}; "
            f"free space there or {instead}"
        ) from None


def _encode(pieces: Iterable[str], file: _File, folding: Folding, known: _Codes) -> EncodedText:
    """Give ids in order of first occurrence, and at the end replace them by those in order of code point.

    known: code points of symbols that get an id even if they do not occur.
    """
    digest = hashlib.sha256()
    first_seen = _FirstSeen()
    counts = np.zeros(0, np.int64)  # by id
    dtype = smallest_type(0)
    for piece in filter(None, pieces):
        content = piece.encode()
        digest.update(content)
        ascii_only = len(content) == len(piece)
        codes = np.frombuffer(content, np.uint8) if ascii_only else np.frombuffer(piece.encode("utf-32-le"), "<u4")
        ids = first_seen.look_up(codes)
        counts = np.bincount(ids, minlength=len(first_seen)) + np.pad(counts, (0, len(first_seen) - len(counts)))
        if (wider := smallest_type(len(first_seen))) != dtype:
            _rewrite(file, dtype, np.arange(np.iinfo(dtype).max + 1, dtype=wider))
            dtype = wider
        file.write(ids.astype(dtype).data)
    kept, replaced = _fold(first_seen.codes(), counts, folding, known)  # by id: the code point of its symbol
    codes = np.union1d(kept, known)
    final = smallest_type(len(codes))
    new_ids = np.searchsorted(codes, kept)
    _rewrite(file, dtype, new_ids.astype(final))
    ids_map = _map(file)
    final_counts = np.bincount(new_ids, counts, minlength=len(codes)).astype(np.int64)
    final_ids = np.frombuffer(ids_map or _content(file), final)
    return EncodedText(_symbols(codes), final_ids, final_counts, digest.hexdigest(), replaced, ids_map)


def _fold(codes: _Codes, counts: NDArray[np.int64], folding: Folding, known: _Codes) -> tuple[_Codes, tuple[int, int]]:
    """Return for each symbol the code point of what replaces it; and how many symbols and characters were too rare.

    codes, counts: (S,) the code points of the symbols, and how often they occur. known: those that are never rare.
    """
    folded = codes
    if folding.lowercase:
        lower = [chr(code).lower() for code in codes.tolist()]
        folded = np.array(
            [ord(low) if len(low) == 1 else code for low, code in zip(lower, codes, strict=True)], np.intp
        )
    if folding.min_count == 1:
        return folded, (0, 0)
    distinct, places = np.unique(folded, return_inverse=True)
    totals = np.bincount(places, counts, minlength=len(distinct))
    rare = (totals < folding.min_count) & ~np.isin(distinct, known)
    replaced = int(rare.sum()), int(totals[rare].sum())
    return np.where(rare[places], ord(REPLACEMENT), folded), replaced


class _FirstSeen:
    """Ids for symbols, given in the order in which they first occur."""

    def __init__(self) -> None:
        self._ids = np.full(CODE_POINTS, UNSEEN, np.int32)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def look_up(self, codes: NDArray[np.unsignedinteger]) -> NDArray[np.int32]:
        """Return the ids (N,) of code points (N,), N > 0; new code points get the next ids."""
        ids: NDArray[np.int32] = self._ids[codes]
        if ids.min() != UNSEEN:
            return ids
        new = np.unique(codes[ids == UNSEEN])
        self._ids[new] = np.arange(self._count, self._count + len(new))
        self._count += len(new)
        ids[:] = self._ids[codes]
        return ids

    def codes(self) -> _Codes:
        """Return the code points (S,) in the order of their ids."""
        codes = np.flatnonzero(self._ids != UNSEEN)
        return codes[np.argsort(self._ids[codes])]


def _rewrite(file: _File, dtype: _IdType, new_ids: SmallIds) -> None:
    """Replace each id in a file by `new_ids[id]`, in place; its type may be wider than before, or narrower."""
    byte_table = np.resize(new_ids, 256).tobytes() if dtype.itemsize == new_ids.itemsize == 1 and len(new_ids) else None
    count = file.seek(0, os.SEEK_END) // dtype.itemsize
    starts = range(0, count, IDS_PER_REWRITE)
    # wider ones backwards: they are written over bytes further back in the file, which have been read by then
    for start in reversed(starts) if new_ids.itemsize > dtype.itemsize else starts:
        file.seek(start * dtype.itemsize)
        raw = file.read(min(IDS_PER_REWRITE, count - start) * dtype.itemsize)
        file.seek(start * new_ids.itemsize)
        # for bytes, translate does the same as indexing, three times as fast
        file.write(raw.translate(byte_table) if byte_table else new_ids[np.frombuffer(raw, dtype)].data)
    file.truncate(count * new_ids.itemsize)
    file.seek(0, os.SEEK_END)


def _map(file: _File) -> mmap.mmap | None:
    """Return the memory map of a file, valid after the file is closed; None if its content is still in memory."""
    size = file.seek(0, os.SEEK_END)
    if size <= IN_MEMORY_BYTES:
        return None
    file.flush()
    return mmap.mmap(file.fileno(), size)


def _content(file: _File) -> bytearray:
    file.seek(0)
    return bytearray(file.read())  # not bytes: torch warns about read-only arrays


def smallest_type(symbols: int) -> _IdType:
    """Return the smallest unsigned type that holds the ids of so many symbols."""
    return np.min_scalar_type(max(symbols - 1, 0))


def _code_points(symbols: str) -> _Codes:
    return np.frombuffer(symbols.encode("utf-32-le"), "<u4").astype(np.intp)


def _symbols(codes: NDArray[np.integer]) -> str:
    return "".join(map(chr, codes))
