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
_File: TypeAlias = "tempfile.SpooledTemporaryFile[bytes]"

IN_MEMORY_BYTES = 64 << 20  # of ids; more of them go to a temporary file
IDS_PER_REWRITE = 1 << 20
CODE_POINTS = 0x110000
UNSEEN = -1


@dataclass(frozen=True, eq=False)
class EncodedText:
    """The symbols of a text, and the text as ids of them.

    symbols: every symbol once, ordered by code point, as `Vocab.from_text` has them.
    ids: (N,) of the smallest unsigned type that holds them all; of a large text, the memory map of an unnamed
        temporary file, which is deleted with the array.
    counts: (V,) how often each symbol occurs.
    sha256: of the text as UTF-8, in hex.
    """

    symbols: str
    ids: SmallIds
    counts: NDArray[np.int64]
    sha256: str
    _map: mmap.mmap | None = field(default=None, repr=False)

    def release(self) -> None:
        """Drop the pages of a memory map that have been read; they are read from the file again when needed.

        Otherwise the process keeps every page that it ever read for as long as the machine has memory.
        """
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def encode_text(content: str) -> EncodedText:
    """Encode a text in memory, every character as it is."""
    characters = np.frombuffer(content.encode("utf-32-le"), "<u4")
    codes, ids, counts = np.unique(characters, return_inverse=True, return_counts=True)
    sha256 = hashlib.sha256(content.encode()).hexdigest()
    return EncodedText(_symbols(codes), ids.astype(_smallest_type(len(codes))), counts, sha256)


def encode_pieces(pieces: Iterable[str], name: object, workspace: Path | None = None) -> EncodedText:
    """Encode a text that comes in pieces of any size.

    name: what an error calls the text.
    workspace: an existing folder for the ids of a text too large for memory, by default the system's temporary folder.
        The file there has no name, so nothing is left even if the process is killed.
    Raises RequestError if the ids do not fit into the workspace, and what `pieces` raises.
    """
    try:
        with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES, dir=str(workspace) if workspace else None) as file:
            return _encode(pieces, file)
    except OSError as error:
        instead = "choose another --out" if workspace else "set TMPDIR to another folder"
        raise RequestError(
            f"cannot keep the ids of {name} in {workspace or tempfile.gettempdir()}: {error.strerror or error}; "
            f"free space there or {instead}"
        ) from None


def _encode(pieces: Iterable[str], file: _File) -> EncodedText:
    """Give ids in order of first occurrence, and at the end replace them by those in order of code point."""
    digest = hashlib.sha256()
    first_seen = _FirstSeen()
    counts = np.zeros(0, np.int64)  # by id
    dtype = _smallest_type(0)
    for piece in filter(None, pieces):
        content = piece.encode()
        digest.update(content)
        ascii_only = len(content) == len(piece)
        codes = np.frombuffer(content, np.uint8) if ascii_only else np.frombuffer(piece.encode("utf-32-le"), "<u4")
        ids = first_seen.look_up(codes)
        counts = np.bincount(ids, minlength=len(first_seen)) + np.pad(counts, (0, len(first_seen) - len(counts)))
        if (wider := _smallest_type(len(first_seen))) != dtype:
            _rewrite(file, dtype, np.arange(np.iinfo(dtype).max + 1, dtype=wider))
            dtype = wider
        file.write(ids.astype(dtype).data)
    codes, new_ids = first_seen.by_code_point()
    _rewrite(file, dtype, new_ids.astype(dtype))
    ids_map = _map(file)
    counts = counts[np.argsort(new_ids)]  # in the order of the new ids
    ids_by_code_point = np.frombuffer(ids_map or _content(file), dtype)
    return EncodedText(_symbols(codes), ids_by_code_point, counts, digest.hexdigest(), ids_map)


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

    def by_code_point(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the sorted code points (V,), and for each id (V,) the index of its code point among them."""
        codes = np.flatnonzero(self._ids != UNSEEN)
        return codes, np.argsort(self._ids[codes])


def _rewrite(file: _File, dtype: _IdType, new_ids: SmallIds) -> None:
    """Replace each id in a file by `new_ids[id]`, in place; its type may be wider than before."""
    byte_table = np.resize(new_ids, 256).tobytes() if new_ids.itemsize == 1 else None
    count = file.seek(0, os.SEEK_END) // dtype.itemsize
    # backwards: wider ids are written over bytes further back in the file, which have been read by then
    for start in reversed(range(0, count, IDS_PER_REWRITE)):
        file.seek(start * dtype.itemsize)
        raw = file.read(min(IDS_PER_REWRITE, count - start) * dtype.itemsize)
        file.seek(start * new_ids.itemsize)
        # for bytes, translate does the same as indexing, three times as fast
        file.write(raw.translate(byte_table) if byte_table else new_ids[np.frombuffer(raw, dtype)].data)
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


def _smallest_type(symbols: int) -> _IdType:
    return np.min_scalar_type(max(symbols - 1, 0))


def _symbols(codes: NDArray[np.integer]) -> str:
    return "".join(map(chr, codes))
