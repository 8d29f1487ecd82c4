"""Reading a text file."""

from pathlib import Path

from charlm.errors import RequestError


def read_text(path: Path, way_out: str = "give a UTF-8 text file") -> str:
    """Return the content of a UTF-8 file, without a byte-order mark and with CRLF as LF.

    way_out: what the message tells to do if there is no such file.
    Raises RequestError if there is none, or it is not text.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RequestError(f"cannot read the text {path}: {error.strerror}; {way_out}") from None
    if b"\0" in raw:
        raise RequestError(f"{path} is a binary or UTF-16 file (it holds a zero byte); {way_out}")
    try:
        return raw.decode().removeprefix("\ufeff").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise RequestError(
            f"{path} is not UTF-8 text (byte {error.start + 1} is 0x{raw[error.start]:02x}); convert it to UTF-8 first"
        ) from None
