"""A text of any size as ids: one streamed pass, in memory that does not grow with the text."""

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
from charlm.text import stream_text

SmallIds: TypeAlias = NDArray[np.unsignedinteger]
_IdType: TypeAlias = np.dtype[np.unsignedinteger]
_File: TypeAlias = "tempfile.SpooledTemporaryFile[bytes]"

IN_MEMORY_BYTES = 64 << 20
REWRITE_IDS = 1 << 20
CODE_POINTS = 0x110000
UNSEEN = -1


@dataclass(frozen=True, eq=False)
class EncodedText:
    """The symbols of a text, and the text as ids of them.

    symbols: every symbol once, ordered by code point, as `Vocab.from_text` has them.
    ids: (N,) of the smallest unsigned type that holds them all; of a large text a map of a file that has no name
        and goes with the array.
    sha256: of the characters as UTF-8, in hex.
    """

    symbols: str
    ids: SmallIds
    sha256: str
    _map: mmap.mmap | None = field(default=None, repr=False)

    def release(self) -> None:
        """Give back the memory that reading `ids` has taken so far; reading on is as before.

        Without it the process comes to hold every page that it ever read, as long as the machine has room.
        """
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def encode_text(content: str) -> EncodedText:
    """Encode a text that is in memory, every character as it stands."""
    codes, ids = np.unique(np.frombuffer(content.encode("utf-32-le"), "<u4"), return_inverse=True)
    sha256 = hashlib.sha256(content.encode()).hexdigest()
    return EncodedText(_symbols(codes), ids.astype(_smallest_type(len(codes))), sha256)


def encode_file(path: Path, workspace: Path | None = None, way_out: str = "give a UTF-8 text file") -> EncodedText:
    """Encode a UTF-8 file, without a byte-order mark and with CRLF as LF, as `read_text` reads it.

    workspace: an existing folder with room for the ids of a text too large for memory, else the system's for
        temporary files. Nothing of them is left there, however the process ends.
    way_out: what the message tells to do if there is no such file.
    Raises RequestError if there is none, it is not text, or the ids do not fit into the workspace.
    """
    try:
        with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES, dir=str(workspace) if workspace else None) as file:
            return _encode(stream_text(path, way_out), file)
    except OSError as error:
        instead = "choose another --out" if workspace else "set TMPDIR to another folder"
        raise RequestError(
            f"cannot keep the ids of {path} in {workspace or tempfile.gettempdir()}: {error.strerror or error}; "
            f"free space there or {instead}"
        ) from None


def _encode(pieces: Iterable[str], file: _File) -> EncodedText:
    """Number symbols as they come, since only the whole text tells their order by code point; then renumber."""
    digest = hashlib.sha256()
    first_seen = _FirstSeen()
    dtype = _smallest_type(0)
    for piece in filter(None, pieces):
        content = piece.encode()
        digest.update(content)
        ascii_only = len(content) == len(piece)
        codes = np.frombuffer(content, np.uint8) if ascii_only else np.frombuffer(piece.encode("utf-32-le"), "<u4")
        ids = first_seen.look_up(codes)
        if (wider := _smallest_type(len(first_seen))) != dtype:
            _rewrite(file, dtype, np.arange(np.iinfo(dtype).max + 1, dtype=wider))
            dtype = wider
        file.write(ids.astype(dtype).data)
    codes, new_ids = first_seen.by_code_point()
    _rewrite(file, dtype, new_ids.astype(dtype))
    ids_map = _map(file)
    return EncodedText(_symbols(codes), np.frombuffer(ids_map or _content(file), dtype), digest.hexdigest(), ids_map)


class _FirstSeen:
    """Symbols numbered in the order in which they are first looked up."""

    def __init__(self) -> None:
        self._ids = np.full(CODE_POINTS, UNSEEN, np.int32)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def look_up(self, codes: NDArray[np.unsignedinteger]) -> NDArray[np.int32]:
        """Return the ids (N,) of code points (N,), N > 0, and number those not seen before."""
        ids: NDArray[np.int32] = self._ids[codes]
        if ids.min() != UNSEEN:
            return ids
        new = np.unique(codes[ids == UNSEEN])
        self._ids[new] = np.arange(self._count, self._count + len(new))
        self._count += len(new)
        ids[:] = self._ids[codes]
        return ids

    def by_code_point(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the code points (V,) in their own order, and for each id so far (V,) its place among them."""
        codes = np.flatnonzero(self._ids != UNSEEN)
        return codes, np.argsort(self._ids[codes])


def _rewrite(file: _File, dtype: _IdType, new_ids: SmallIds) -> None:
    """Replace, in place, each id of a file by `new_ids[id]`, of the same type or a wider one."""
    byte_table = np.resize(new_ids, 256).tobytes() if new_ids.itemsize == 1 else None
    count = file.seek(0, os.SEEK_END) // dtype.itemsize
    # from the end on: wider ids spread over what stands behind them, which has been read then
    for start in reversed(range(0, count, REWRITE_IDS)):
        file.seek(start * dtype.itemsize)
        raw = file.read(min(REWRITE_IDS, count - start) * dtype.itemsize)
        file.seek(start * new_ids.itemsize)
        # bytes.translate does what indexing does, three times as fast
        file.write(raw.translate(byte_table) if byte_table else new_ids[np.frombuffer(raw, dtype)].data)
    file.seek(0, os.SEEK_END)


def _map(file: _File) -> mmap.mmap | None:
    """Map a file into memory, unless it is there already. The map outlives the closed file."""
    size = file.seek(0, os.SEEK_END)
    if size <= IN_MEMORY_BYTES:
        return None
    file.flush()
    return mmap.mmap(file.fileno(), size)


def _content(file: _File) -> bytearray:
    file.seek(0)
    return bytearray(file.read())  # torch warns of an array that cannot be written to


def _smallest_type(symbols: int) -> _IdType:
    return np.min_scalar_type(max(symbols - 1, 0))


def _symbols(codes: NDArray[np.integer]) -> str:
    return "".join(map(chr, codes))
