"""Text files, read in pieces, and text made safe to show in a message."""

import codecs
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from charlm.damage import explain_start
from charlm.errors import RequestError
from charlm.nearest import nearest_path

CHUNK_BYTES = 2 << 20
MOST_MARKS = 3  # combining marks on one letter; more would cover the lines above


def read_text(path: Path, way_out: str = "give a UTF-8 text file") -> str:
    """Return the content of a UTF-8 file, without a byte-order mark and with CRLF as LF.

    way_out: the advice in the error if the file cannot be read or is binary.
    Raises RequestError if it cannot be read, or is not UTF-8 text.
    """
    return "".join(stream_text(path, way_out))


def stream_text(path: Path, way_out: str = "give a UTF-8 text file") -> Iterator[str]:
    """Yield what `read_text` returns in pieces of up to CHUNK_BYTES, so that the whole text is never in memory.

    Raises what `read_text` does, possibly after pieces that could be read.
    """
    try:
        with path.open("rb") as file:
            yield from _pieces(file, path, way_out)
    except FileNotFoundError as error:
        similar = nearest_path(path, Path.is_file)
        hint = f"did you mean {similar}?" if similar else way_out
        raise RequestError(f"cannot read the text {path}: {error.strerror}; {hint}") from None
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
        if at_start and (cause := explain_start(chunk)):
            raise RequestError(f"{path} is not a text: {cause}; {way_out}")
        _refuse_zero_byte(chunk, path, way_out)
        try:
            piece = held + decoder.decode(chunk, final=not more)
        except UnicodeDecodeError as error:
            # a zero byte further on makes the better message: the file is binary
            while rest := file.read(CHUNK_BYTES):
                _refuse_zero_byte(rest, path, way_out)
            # error.object begins with the bytes that earlier chunks left undecoded
            place = bytes_read - len(error.object) + error.start
            raise RequestError(
                f"{path} is not UTF-8 text (byte {place + 1} is 0x{error.object[error.start]:02x}); "
                "convert it to UTF-8 first"
            ) from None
        if at_start and piece:
            piece = piece.removeprefix("\ufeff")
            at_start = False
        held = "\r" if more and piece.endswith("\r") else ""  # its LF may be the first byte of the next chunk
        piece = piece.removesuffix(held)
        yield piece.replace("\r\n", "\n") if "\r" in piece else piece  # finding one byte is faster than replacing two


def _refuse_zero_byte(chunk: bytes, path: Path, way_out: str) -> None:
    if b"\0" in chunk:
        raise RequestError(f"{path} is a binary or UTF-16 file (it holds a zero byte); {way_out}")


def printable(text: str) -> str:
    """Return a text as one printable line: other characters are escaped, and so are further marks on one letter."""
    shown, marks = [], 0
    for symbol in text:
        marks = marks + 1 if unicodedata.category(symbol).startswith("M") else 0
        shown.append(symbol if symbol.isprintable() and marks <= MOST_MARKS else ascii(symbol)[1:-1])
    return "".join(shown)
