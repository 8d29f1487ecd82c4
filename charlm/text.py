"""Text files, read in pieces."""

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from charlm.damage import explain_not_utf8, explain_start, explain_text, explain_utf16
from charlm.errors import RequestError
from charlm.nearest import nearest_path

CHUNK_BYTES = 2 << 20
EXPLAINED_BYTES = 64 << 10  # of a file that is not UTF-8 text, by which an error says what it seems to be


def read_text(path: Path, way_out: str = "give a UTF-8 text file") -> str:
    """Return the content of a UTF-8 file, without a byte-order mark and with CRLF as LF.

    way_out: the advice in the error if the file cannot be read or is binary.
    Raises RequestError if it cannot be read, or is not UTF-8 text.
    """
    return "".join(stream_text(path, way_out))


def stream_text(path: Path, way_out: str = "give a UTF-8 text file", name: str | None = None) -> Iterator[str]:
    """Yield what `read_text` returns in pieces of up to CHUNK_BYTES, so that the whole text is never in memory.

    name: what an error about the content calls the file, by default its path.
    Raises what `read_text` does, possibly after pieces that could be read.
    """
    try:
        with path.open("rb") as file:
            yield from _pieces(file, name or str(path), way_out)
    except FileNotFoundError as error:
        similar = nearest_path(path, Path.is_file)
        hint = f"did you mean {similar}?" if similar else way_out
        raise RequestError(f"cannot read the text {path}: {error.strerror}; {hint}") from None
    except OSError as error:
        raise RequestError(f"cannot read the text {path}: {error.strerror}; {way_out}") from None


def _pieces(file: BinaryIO, name: str, way_out: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    bytes_read, start = 0, b""  # start: the first bytes of the file, at least EXPLAINED_BYTES of them if it has as many
    held = ""
    at_start, more = True, True
    while more:
        chunk = file.read(CHUNK_BYTES)
        more = bool(chunk)
        bytes_read += len(chunk)
        if len(start) < EXPLAINED_BYTES:
            start += chunk
        if at_start and (cause := explain_start(chunk)):
            raise RequestError(f"{name} is not a text: {cause}; {way_out}")
        if b"\0" in chunk:
            place = bytes_read - len(chunk) + chunk.index(0)
            raise _zero_byte(name, start + file.read(EXPLAINED_BYTES), place, way_out)
        try:
            piece = held + decoder.decode(chunk, final=not more)
        except UnicodeDecodeError as error:
            # error.object begins with the bytes that earlier chunks left undecoded
            raise _not_utf8(file, name, start, error.object[error.start :], bytes_read, way_out) from None
        if at_start and piece:
            piece = piece.removeprefix("\ufeff")
            at_start = False
        held = "\r" if more and piece.endswith("\r") else ""  # its LF may be the first byte of the next chunk
        piece = piece.removesuffix(held)
        yield piece.replace("\r\n", "\n") if "\r" in piece else piece  # finding one byte is faster than replacing two


def _zero_byte(name: str, start: bytes, place: int, way_out: str) -> RequestError:
    """Return the error about a file with a zero byte. start: its first bytes. place: of the zero byte, from 0."""
    if start and not start.strip(b"\0") and (cause := explain_text(start)):
        return RequestError(f"{name} is not a text: {cause}")
    if cause := explain_utf16(start):
        return RequestError(f"{name} is not UTF-8 text: {cause}")
    return RequestError(
        f"{name} is a binary or a damaged file, not a text (byte {place + 1:,} is zero); {way_out}, "
        "or remove the zero bytes if the rest is text: tr -d '\\000'"
    )


def _not_utf8(file: BinaryIO, name: str, start: bytes, wrong: bytes, bytes_read: int, way_out: str) -> RequestError:
    """Return the error about bytes that are not UTF-8.

    start: the first bytes of the file. wrong: those read last, from the first that is not UTF-8 to `bytes_read`.
    """
    place, following = bytes_read - len(wrong), file.read(EXPLAINED_BYTES)
    if cause := explain_utf16(start + following):
        return RequestError(f"{name} is not UTF-8 text: {cause}")
    cause = explain_not_utf8(wrong + following)
    # a zero byte further on makes the better message: the file is binary
    while following:
        if b"\0" in following:
            return _zero_byte(name, b"", bytes_read + following.index(0), way_out)
        bytes_read += len(following)
        following = file.read(CHUNK_BYTES)
    where = f"{name} is not UTF-8 text (byte {place + 1:,} is 0x{wrong[0]:02x})"
    return RequestError(f"{where}: {cause}" if cause else f"{where}; convert it to UTF-8 first")
