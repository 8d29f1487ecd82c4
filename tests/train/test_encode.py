import codecs
import hashlib
import os
import random
import sys
import tempfile
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import laws, raise_full_disk

from charlm import text as text_module
from charlm.errors import RequestError
from charlm.text import stream_text
from charlm.vocab import Vocab
from train import encode
from train.encode import Folding, encode_pieces

IN_MEMORY, IN_A_FILE = 64 << 20, 1


@pytest.fixture
def cut_work(monkeypatch):
    """A function that sets after how many bytes and ids the work is cut, and from which size on it goes to a file."""

    def cut(chunk_bytes=text_module.CHUNK_BYTES, rewrite_ids=encode.IDS_PER_REWRITE, in_memory_bytes=IN_MEMORY):
        monkeypatch.setattr(text_module, "CHUNK_BYTES", chunk_bytes)
        monkeypatch.setattr(encode, "IDS_PER_REWRITE", rewrite_ids)
        monkeypatch.setattr(encode, "IN_MEMORY_BYTES", in_memory_bytes)

    return cut


@pytest.fixture
def path(tmp_path):
    return tmp_path / "text.txt"


@pytest.fixture
def workspace(tmp_path):
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


def encode_bytes(path, content, workspace=None):
    path.write_bytes(content)
    return encode_pieces(stream_text(path), path, workspace)


def assert_encodes(encoded, text):
    """Check against Python's own strings, without numpy's look-ups."""
    assert encoded.symbols == "".join(sorted(set(text)))
    assert "".join(encoded.symbols[index] for index in encoded.ids.tolist()) == text
    assert dict(zip(encoded.symbols, encoded.counts, strict=True)) == Counter(text)
    assert encoded.sha256 == hashlib.sha256(text.encode()).hexdigest()
    bits = 8 if len(set(text)) <= 2**8 else 16 if len(set(text)) <= 2**16 else 32
    assert encoded.ids.dtype == f"uint{bits}"


def many_symbols(count):
    """A text of so many different symbols, none in its place, that begins and ends with ASCII."""
    symbols = [chr(code) for code in range(0x20, 0x20000) if not 0xD800 <= code < 0xE000][:count]
    random.Random(count).shuffle(symbols)
    return "To be\u0020" * 3 + "".join(symbols) + "or not"


# What is encoded

awkward = st.sampled_from("\r\n\ufeffaé한😀")
symbols = st.characters(exclude_categories=["Cs"], exclude_characters="\0")


@laws
@given(st.text(awkward | symbols), st.integers(1, 9), st.integers(1, 9), st.sampled_from([IN_MEMORY, IN_A_FILE]))
def test_ids_stand_for_the_text_wherever_the_work_is_cut(
    tmp_path_factory, text, chunk_bytes, rewrite_ids, in_memory_bytes
):
    folder = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(text_module, "CHUNK_BYTES", chunk_bytes)
        monkeypatch.setattr(encode, "IDS_PER_REWRITE", rewrite_ids)
        monkeypatch.setattr(encode, "IN_MEMORY_BYTES", in_memory_bytes)
        encoded = encode_bytes(folder / "law.txt", text.encode(), folder)
    assert_encodes(encoded, text.removeprefix("\ufeff").replace("\r\n", "\n"))


@laws
@given(st.text(awkward | symbols | st.just("\0")))
def test_a_text_in_memory_is_encoded_as_it_stands(text):
    assert_encodes(encode_pieces([text], "a text"), text)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 255, 256, 257, 65_535, 65_536, 65_537, 70_000])
@pytest.mark.parametrize("in_memory_bytes", [IN_MEMORY, IN_A_FILE])
def test_ids_take_the_smallest_type_that_holds_the_vocabulary(path, workspace, cut_work, count, in_memory_bytes):
    cut_work(chunk_bytes=1000, rewrite_ids=777, in_memory_bytes=in_memory_bytes)
    text = "a" * 2000 if count == 1 else many_symbols(count)
    assert len(set(text)) == count
    assert_encodes(encode_bytes(path, text.encode(), workspace), text)


@pytest.mark.parametrize("in_memory_bytes", [IN_MEMORY, IN_A_FILE])
def test_ids_are_those_of_the_vocabulary_of_the_text(path, workspace, cut_work, in_memory_bytes):
    cut_work(chunk_bytes=50, in_memory_bytes=in_memory_bytes)
    text = many_symbols(300)
    vocab = Vocab("".join(sorted(set(text))))
    encoded = encode_bytes(path, text.encode(), workspace)
    assert encoded.symbols == vocab.symbols
    np.testing.assert_array_equal(encoded.ids, vocab.encode(text))


@pytest.mark.parametrize("chunk_bytes", range(1, 8))
@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", ""),
        (codecs.BOM_UTF8, ""),
        (codecs.BOM_UTF8 * 2 + b"ab", "\ufeffab"),
        (b"ab\r\ncd\r\n", "ab\ncd\n"),
        (b"a\rb\r\r\nc\r", "a\rb\r\nc\r"),
        ("é한😀".encode() * 3, "é한😀" * 3),
    ],
)
def test_what_a_chunk_cuts_in_two_is_read_as_one(path, cut_work, chunk_bytes, content, text):
    cut_work(chunk_bytes)
    assert_encodes(encode_bytes(path, content), text)


# Symbols that are replaced, or known before


def fold(text, lowercase, min_count, known=""):
    """What the characters of a text become, by Python's own strings."""
    if lowercase:
        text = "".join(symbol.lower() if len(symbol.lower()) == 1 else symbol for symbol in text)
    rare = {symbol for symbol, times in Counter(text).items() if times < min_count} - set(known)
    return "".join("\ufffd" if symbol in rare else symbol for symbol in text), rare


@laws
@given(
    st.text(st.sampled_from("aAbBéÉßẞσΣςİıǅ한\ufffd😀") | symbols),
    st.booleans(),
    st.integers(1, 4),
    st.text(st.sampled_from("aAzZ\ufffd😀"), max_size=4),
    st.integers(1, 9),
    st.sampled_from([IN_MEMORY, IN_A_FILE]),
)
def test_symbols_are_replaced_as_pythons_strings_would_and_known_ones_have_ids(
    tmp_path_factory, text, lowercase, min_count, known, rewrite_ids, in_memory_bytes
):
    expected, rare = fold(text, lowercase, min_count, known)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(encode, "IDS_PER_REWRITE", rewrite_ids)
        monkeypatch.setattr(encode, "IN_MEMORY_BYTES", in_memory_bytes)
        folding = Folding(lowercase, min_count)
        pieces = [text[:3], text[3:4], "", text[4:]]
        encoded = encode_pieces(pieces, "a text", tmp_path_factory.getbasetemp(), folding, known)
    assert encoded.symbols == "".join(sorted(set(expected) | set(known)))
    assert "".join(encoded.symbols[index] for index in encoded.ids.tolist()) == expected
    counted = zip(encoded.symbols, encoded.counts.tolist(), strict=True)
    assert {symbol: times for symbol, times in counted if times} == Counter(expected)
    lower, _ = fold(text, lowercase, 1)
    assert encoded.replaced == (len(rare), sum(map(lower.count, rare)))
    assert encoded.sha256 == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("in_memory_bytes", [IN_MEMORY, IN_A_FILE])
@pytest.mark.parametrize(
    ("count", "min_count", "known", "bits"),
    [(300, 1, "", 16), (300, 2, "", 8), (70_000, 2, "", 8), (70_000, 1, "", 32), (200, 1, many_symbols(300), 16)],
)
def test_ids_take_the_smallest_type_for_what_is_left_of_the_symbols(
    workspace, cut_work, in_memory_bytes, count, min_count, known, bits
):
    cut_work(rewrite_ids=777, in_memory_bytes=in_memory_bytes)
    text = many_symbols(count)
    encoded = encode_pieces([text[:400], text[400:]], "a text", workspace, Folding(min_count=min_count), known)
    expected, _ = fold(text, False, min_count, known)
    assert "".join(encoded.symbols[index] for index in encoded.ids.tolist()) == expected
    assert encoded.ids.dtype == f"uint{bits}" and len(encoded.ids) == len(text)


# What is refused

CUT = (
    ": the file ends within a symbol: if its copy was interrupted, get it again; if it is in another encoding, "
    "convert it, for example iconv -f WINDOWS-1252 -t UTF-8"
)


@pytest.mark.parametrize("chunk_bytes", [1, 4, 1000])
@pytest.mark.parametrize(
    ("content", "place", "byte", "seems"),
    [
        (b"na\xefve", 3, "ef", "; convert it to UTF-8 first"),
        (b"cut short \xf0\x9f\x98", 11, "f0", CUT),
        (codecs.BOM_UTF8 + b"a\r\nb\xff", 8, "ff", "; convert it to UTF-8 first"),
        (codecs.BOM_UTF8[:2], 1, "ef", CUT),
        ("한".encode() * 100 + b"\x80", 301, "80", "; convert it to UTF-8 first"),
    ],
)
def test_a_byte_that_is_no_utf_8_is_named_with_its_place_in_the_file(
    path, cut_work, chunk_bytes, content, place, byte, seems
):
    cut_work(chunk_bytes)
    with pytest.raises(RequestError) as caught:
        encode_bytes(path, content)
    assert str(caught.value) == f"{path} is not UTF-8 text (byte {place} is 0x{byte}){seems}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("To be".encode("utf-16"), "is not UTF-8 text: it seems to be text in UTF-16; convert it"),
        (b"text, then\0", "is a binary or a damaged file, not a text (byte 11 is zero); give a UTF-8 text"),
        (b"\x89PNG\r\n\x1a\n\0\0", "is a binary or a damaged file, not a text (byte 9 is zero); give a UTF-8 text"),
    ],
)
def test_a_file_with_a_zero_byte_is_refused(path, cut_work, content, message):
    cut_work(chunk_bytes=2)
    with pytest.raises(RequestError) as caught:
        encode_bytes(path, content)
    assert message in str(caught.value)


def test_a_missing_file_is_told_with_the_way_out_that_the_caller_knows(path):
    with pytest.raises(RequestError) as caught:
        encode_pieces(stream_text(path, "give the built-in name"), path)
    assert str(caught.value) == f"cannot read the text {path}: No such file or directory; give the built-in name"


# Texts larger than memory


def test_a_large_text_leaves_nothing_in_the_workspace_at_any_time(path, workspace, cut_work, monkeypatch):
    cut_work(chunk_bytes=100, in_memory_bytes=IN_A_FILE)
    seen = []
    write = tempfile.SpooledTemporaryFile.write

    def write_and_look(file, content):
        written = write(file, content)
        seen.append(os.listdir(workspace))
        return written

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "write", write_and_look)
    encoded = encode_bytes(path, b"To be, or not to be\n" * 100, workspace)
    assert os.listdir(workspace) == []
    assert len(seen) >= 20 and not any(seen)
    assert_encodes(encoded, "To be, or not to be\n" * 100)


def test_a_large_text_is_never_in_memory_whole(path, workspace, cut_work):
    cut_work(chunk_bytes=1 << 16, rewrite_ids=1 << 16, in_memory_bytes=1 << 20)
    path.write_bytes("To be, or not to be — that\r\n".encode() * 1_000_000)
    tracemalloc.start()
    try:
        encoded = encode_pieces(stream_text(path), path, workspace)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(encoded.ids) == 27_000_000
    assert peak_bytes < 12_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is resident in /proc")
def test_released_pages_leave_memory_and_can_be_read_again(path, workspace, cut_work):
    def resident_bytes():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    cut_work(in_memory_bytes=IN_A_FILE)
    encoded = encode_bytes(path, b"ab" * 16_000_000, workspace)
    assert encoded.ids.sum(dtype=np.int64) == 16_000_000
    before = resident_bytes()
    encoded.release()
    assert before - resident_bytes() > 30_000_000
    assert encoded.ids.sum(dtype=np.int64) == 16_000_000


def test_releasing_a_text_in_memory_changes_nothing(path):
    encoded = encode_bytes(path, b"abba")
    encoded.release()
    assert_encodes(encoded, "abba")


@pytest.mark.parametrize("in_memory_bytes", [IN_MEMORY, IN_A_FILE])
def test_ids_can_be_handed_to_torch(path, workspace, cut_work, in_memory_bytes):
    torch = pytest.importorskip("torch")
    cut_work(in_memory_bytes=in_memory_bytes)
    encoded = encode_bytes(path, b"abba", workspace)
    assert torch.from_numpy(encoded.ids).tolist() == [0, 1, 1, 0]  # and no warning


@pytest.fixture
def full_disk(monkeypatch, cut_work):
    cut_work(in_memory_bytes=IN_A_FILE)
    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "write", raise_full_disk)


def test_a_full_disk_is_told_with_what_to_do(path, workspace, full_disk):
    with pytest.raises(RequestError) as caught:
        encode_bytes(path, b"To be", workspace)
    assert str(caught.value) == (
        f"cannot keep the ids of {path} in {workspace}: No space left on device; "
        "free space there or choose another --out"
    )


def test_a_full_folder_of_the_system_is_told_with_how_to_choose_another(path, full_disk):
    with pytest.raises(RequestError) as caught:
        encode_bytes(path, b"To be")
    assert str(caught.value).endswith(
        f"in {tempfile.gettempdir()}: No space left on device; free space there or set TMPDIR to another folder"
    )


def test_a_workspace_that_is_not_there_is_refused(path, workspace, cut_work):
    cut_work(in_memory_bytes=IN_A_FILE)
    with pytest.raises(RequestError, match="cannot keep the ids of .*none: No such file or directory; free space"):
        encode_bytes(path, b"To be", workspace / "none")
