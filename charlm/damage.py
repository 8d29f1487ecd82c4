"""Ordinary accidents to files, recognised so that an error can name their cause and the remedy.

Files are checked out without git-LFS, saved by editors and browsers, copied in part, renamed. Each function returns
the end of a sentence about the file, or None if it recognises nothing. They are asked after a file was refused: what
they recognise could also stand in a sound file.
"""

import codecs
import os
import re
import unicodedata
from itertools import islice
from pathlib import Path

LFS_POINTER = (
    "it is a pointer of git-LFS, not the file itself; run `git lfs pull` where it was checked out, or download the file"
)
ARCHIVES = {
    b"PK\x03\x04": "a zip archive (or a Word document)",
    b"\x1f\x8b": "a gzip archive",
    b"%PDF-": "a PDF",
    b"PAR1": "a table in Parquet",
}
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
REPLACEMENT = b"\xef\xbf\xbd"  # U+FFFD in UTF-8, which an editor writes for bytes that are no text
FEWEST = 8  # line ends or marks; in random bytes as many of one kind do not happen

# Encodings of texts from before UTF-8, in the order in which they are tried: iconv's name, the language, and which
# share of the symbols beyond ASCII is at least of these kinds. In a text of another encoding fewer of them are.
LEGACY_ENCODINGS = (
    ("SHIFT_JIS", "Japanese", 0.3, "[\u3040-\u30ff]"),
    ("EUC-JP", "Japanese", 0.3, "[\u3040-\u30ff]"),
    ("CP949", "Korean", 0.9, "[\uac00-\ud7a3\u3000-\u303f]"),
    ("GB18030", "Chinese", 0.6, None),
    ("BIG5", "Chinese", 0.6, None),
    ("WINDOWS-1252", "Western European", 0.9, "[¡«°»¿-ÖØ-öø-ÿŒœ–—‘’“”„…]"),
    ("WINDOWS-1251", "Russian or similar", 0.25, "[аеиоу]"),
    ("KOI8-R", "Russian or similar", 0.25, "[аеиоу]"),
    ("ISO-8859-5", "Russian or similar", 0.25, "[аеиоу]"),
    ("WINDOWS-1253", "Greek", 0.3, "[αεηιοντ]"),
)
COMMON_CHINESE = {"GB18030": range(0xB0, 0xD8), "BIG5": range(0xA4, 0xC7)}  # first bytes of common characters
MOST_WESTERN = 0.3  # of the symbols of a Western European text are beyond ASCII, at most
FEWEST_SYMBOLS = 4  # beyond ASCII that tell any other encoding

TYPOGRAPHIC = re.compile("[“”„‟«»‘’‚]")
PARTIAL = (".part", ".partial", ".incomplete", ".crdownload", ".download", ".opdownload", ".tmp", ".filepart")
PACKED = (".zip", ".gz", ".xz", ".zst", ".7z")
MOST_NAMES = 1000  # of a folder that are looked at


def explain_start(start: bytes) -> str | None:
    """Recognise a file that stands for another, or encloses it, by its first bytes."""
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        return LFS_POINTER
    for begin, kind in ARCHIVES.items():
        if start.startswith(begin):
            return f"it is {kind}; unpack it, or save what it holds under this name"
    return None


def explain_utf16(start: bytes) -> str | None:
    """Recognise text in UTF-16 or UTF-32 by the first bytes of a file."""
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        found = ["UTF-32"]
    elif start.startswith(UTF16_MARKS):
        found = ["UTF-16"]
    else:
        found = [name for name in ("UTF-32LE", "UTF-32BE", "UTF-16LE", "UTF-16BE") if _is_plain_text(start, name)]
        # the bytes that tell the script differ less than those that tell the letter
        found.sort(key=lambda name: len(set(start[name.endswith("LE") :: 2])))
    return (
        f"it seems to be text in {found[0]}; convert it to UTF-8 first: iconv -f {found[0]} -t UTF-8" if found else None
    )


def _is_plain_text(content: bytes, encoding: str) -> bool:
    """Tell whether bytes are, in UTF-16 or UTF-32, letters and other symbols of a text, some of ASCII among them."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(content)  # the last symbol may be cut
    except UnicodeDecodeError:
        return False
    if len(content) % 2 or not text:
        return False
    odd = sum(unicodedata.category(symbol)[0] == "C" and symbol not in "\t\n\r" for symbol in text)
    return "\0" not in text and odd <= len(text) / 20 and any(symbol.isascii() for symbol in text)


def explain_not_utf8(rest: bytes) -> str | None:
    """Recognise why bytes are not UTF-8. rest: of the file from the first byte that is not, a thousand or more."""
    if rest[:1] == b"\xed" and b"\xa0" <= rest[1:2] <= b"\xbf":
        if rest[1:2] < b"\xb0" and rest[3:4] == b"\xed" and b"\xb0" <= rest[4:5] <= b"\xbf":
            return (
                "it seems to be text in CESU-8, as some databases export it, with two surrogates in place of one "
                "symbol; export it as UTF-8"
            )
        return "an unpaired surrogate, half of a symbol, stands there; remove it first: iconv -c -f UTF-8 -t UTF-8"
    if len(rest) < 4 and 0xC2 <= rest[0] <= 0xF4 and all(0x80 <= byte < 0xC0 for byte in rest[1:]):
        # of a text whose only accent ends it, too, nothing tells which of the two it is
        return (
            "the file ends within a symbol: if its copy was interrupted, get it again; if it is in another encoding, "
            "convert it, for example iconv -f WINDOWS-1252 -t UTF-8"
        )
    sound = [symbol for symbol in rest.decode("utf-8", "replace") if symbol > "\x7f" and symbol != "\ufffd"]
    if len("".join(sound).encode()) > 0.9 * sum(byte > 0x7F for byte in rest):
        return "nearly all of the text is UTF-8, so this byte is damaged or in another encoding; mend or remove it"
    for encoding, language, least, symbols in LEGACY_ENCODINGS:
        if _share_of_symbols(rest, encoding, symbols) >= least:
            return (
                f"it seems to be {language} text in {encoding}; convert it to UTF-8 first: iconv -f {encoding} -t UTF-8"
            )
    return None


def _share_of_symbols(content: bytes, encoding: str, symbols: str | None) -> float:
    """Return which share of the symbols beyond ASCII are of these kinds, None for common Chinese characters.

    It is 0 if there are too few or too many of them for a text in this encoding, or some that it does not have.
    """
    text = content.decode(encoding, "replace")
    beyond_ascii = re.sub("[\0-\x7f]", "", text)
    is_western = encoding == "WINDOWS-1252"
    if len(beyond_ascii) < (1 if is_western else FEWEST_SYMBOLS):
        return 0
    if is_western and len(beyond_ascii) > MOST_WESTERN * len(text):
        return 0
    if beyond_ascii.count("\ufffd") > 1 + len(beyond_ascii) / 50:  # the last may be cut
        return 0
    if symbols is not None:
        return len(re.findall(symbols, beyond_ascii)) / len(beyond_ascii)
    first_bytes = [symbol.encode(encoding, "replace")[0] for symbol in beyond_ascii]
    return sum(byte in COMMON_CHINESE[encoding] for byte in first_bytes) / len(first_bytes)


def explain_text(content: bytes) -> str | None:
    """Recognise why a file is not the text in UTF-8 that it should be, by all of its content or the beginning."""
    if not content:
        return "it is empty, as after a copy that was interrupted or a full disk; get it again"
    if not content.strip(b"\0"):
        return "it holds zero bytes in place of its content, as after a copy that was interrupted; get it again"
    if cause := explain_start(content):
        return cause
    if content.startswith(UTF16_MARKS) or b"\0" in content:
        return "it is UTF-16 or binary; save it as UTF-8, without a byte-order mark"
    return _explain_web_page(content)


def _explain_web_page(content: bytes) -> str | None:
    start = content[:100].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")):
        return (
            "it is a web page, not the file that the page shows; use the page's link for downloading, and get it again"
        )
    return None


def explain_json(text: str) -> str | None:
    """Recognise why a text is not JSON."""
    if cause := explain_text(text.encode(errors="surrogatepass")):
        return cause
    if text.startswith("\ufeff"):
        return "it begins with a byte-order mark, which an editor wrote; save it as UTF-8 without one"
    if conflict := re.search("^(<{7}|>{7})( |$)", text, re.MULTILINE):
        line = text.count("\n", 0, conflict.start()) + 1
        return (
            f"line {line} is the mark of a conflict that git could not merge; take the file of one side, for example "
            "with `git checkout --theirs`"
        )
    # without escapes, each quotation mark begins or ends a string: every second part is outside of strings
    parts = text.replace("\\\\", "").replace('\\"', "").split('"')
    parts[1::2] = ["\n" * string.count("\n") for string in parts[1::2]]
    bare = "".join(parts)
    if quote := TYPOGRAPHIC.search(bare):
        line = bare.count("\n", 0, quote.start()) + 1
        return (
            f"line {line} has the typographic quotation mark {quote[0]} in place of a straight one, as word processors "
            "write it; replace all of these, or get the file again"
        )
    return None


def explain_weights(start: bytes, size: int, least: int) -> str | None:
    """Recognise why a file is not the weights that it should be.

    start: its first bytes, as many as are at hand. size: of the file. least: bytes that it should have.
    """
    if not start.strip(b"\0"):
        return explain_text(start)
    if cause := explain_start(start) or _explain_web_page(start):
        return cause
    length = start[:8]  # of the header; those of sound files are no text
    if len(length) == 8 and length.isascii() and length.decode().isprintable():
        return f"it begins with the text {start[:40].decode(errors='replace')!r}, not with weights; get it again"
    if start.startswith(UTF16_MARKS):
        return "a program wrote it as UTF-16 text, as > does in PowerShell; get it again as a binary file"
    if start.count(REPLACEMENT) >= FEWEST:
        return "a program opened it and saved it as text; get it again as a binary file"
    if start.count(b"\n") >= FEWEST and start.count(b"\n") == start.count(b"\r\n"):
        return (
            "git or a transfer in text mode wrote CRLF for each LF in it; get it again as a binary file (for git, "
            "`*.safetensors binary` in .gitattributes)"
        )
    if size < least:
        return f"it has {size:,} of {least:,} bytes, as after a download or a copy that did not finish; get it again"
    return None


def explain_missing_file(path: Path) -> str | None:
    """Recognise why a file is missing, by what else is in its folder."""
    if os.path.islink(path):
        return "it is a link to a file that is not there; copy the folder with what its links lead to (cp -rL)"
    folder, name = path.parent, path.name
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in islice(entries, MOST_NAMES))
    except OSError:
        return None
    stem, suffix = os.path.splitext(name)
    copy = re.compile(rf"{re.escape(stem)}[ _-]*(\(\d+\)|\d+|copy|- copy){re.escape(suffix)}", re.IGNORECASE)
    for other in names:
        lower = other.lower()
        if lower.endswith(PARTIAL) and suffix in lower:
            return f"{other} is a download that did not finish; get it again"
        if lower in [name + packed for packed in PACKED]:
            return f"unpack {other}"
        if lower == name or lower in (f"{name}.txt", f"{name}.json") or copy.fullmatch(other):
            return f"rename {other} to {name}"
    inside = [each.parent for pattern in ("*", "snapshots/*") for each in sorted(folder.glob(f"{pattern}/{name}"))]
    if inside:
        return f"there is one in {inside[0]}; name that folder"
    return None
