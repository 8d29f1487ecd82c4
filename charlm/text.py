"""Reading a text file."""

import codecs
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from charlm.errors import RequestError

CHUNK_BYTES = 2 << 20
MOST_MARKS = 3  # combining marks on one letter; more would climb over the lines above


def read_text(path: Path, way_out: str = "give a UTF-8 text file") -> str:
    """Return the content of a UTF-8 file, without a byte-order mark and with CRLF as LF.

    way_out: what the message tells to do if there is no such file.
    Raises RequestError if there is none, or it is not text.
    """
    return "".join(stream_text(path, way_out))


def stream_text(path: Path, way_out: str = "give a UTF-8 text file") -> Iterator[str]:
    """Yield what `read_text` returns in pieces of up to CHUNK_BYTES, so that it never lies in memory whole.

    Raises what `read_text` does, but only on the way: pieces of a file that is not text may come before.
    """
    try:
        with path.open("rb") as file:
            yield from _pieces(file, path, way_out)
    except OSError as error:
        raise RequestError(f"cannot read the text {path}: {error.strerror}; {way_out}") from None


def _pieces(file: BinaryIO, path: Path, way_out: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    bytes_read = 0
    at_start = True
    held = ""
    more = True
    while more:
        chunk = file.read(CHUNK_BYTES)
        more = bool(chunk)
        bytes_read += len(chunk)
        _refuse_zero_byte(chunk, path, way_out)
        try:
            piece = held + decoder.decode(chunk, final=not more)
        except UnicodeDecodeError as error:
            # a zero byte further on tells more: it is no text at all
            while rest := file.read(CHUNK_BYTES):
                _refuse_zero_byte(rest, path, way_out)
            place = bytes_read - len(error.object) + error.start  # `object` also has what was left of earlier chunks
            raise RequestError(
                f"{path} is not UTF-8 text (byte {place + 1} is 0x{error.object[error.start]:02x}); "
                "convert it to UTF-8 first"
            ) from None
        if at_start and piece:
            piece = piece.removeprefix("\ufeff")
            at_start = False
        held = "\r" if more and piece.endswith("\r") else ""  # its LF may be the first byte of the next chunk
        piece = piece.removesuffix(held)
        yield piece.replace("\r\n", "\n") if "\r" in piece else piece  # asked first: looking for one byte is faster


def _refuse_zero_byte(chunk: bytes, path: Path, way_out: str) -> None:
    if b"\0" in chunk:
        raise RequestError(f"{path} is a binary or UTF-16 file (it holds a zero byte); {way_out}")


def printable(text: str) -> str:
    """Return a text as one line, with escapes for what would be invisible, or would turn the text around or pile up."""
    shown, marks = [], 0
    for symbol in text:
        marks = marks + 1 if unicodedata.category(symbol).startswith("M") else 0
        shown.append(symbol if symbol.isprintable() and marks <= MOST_MARKS else ascii(symbol)[1:-1])
    return "".join(shown)
