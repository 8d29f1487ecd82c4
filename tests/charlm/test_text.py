import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import laws

from charlm import text as text_module
from charlm.errors import RequestError
from charlm.text import printable, read_text, stream_text


@pytest.fixture(autouse=True, params=[1, 2, 3, text_module.CHUNK_BYTES])
def _chunk_bytes(monkeypatch, request):
    """Every test holds wherever the chunks of a file end."""
    monkeypatch.setattr(text_module, "CHUNK_BYTES", request.param)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "text.txt"


def read(path, content):
    path.write_bytes(content)
    return read_text(path)


def refuses(path, *arguments):
    with pytest.raises(RequestError) as caught:
        read_text(path, *arguments)
    assert caught.value.exit_status == 2
    return str(caught.value)


# What is read


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", ""),
        (b"plain\n", "plain\n"),
        (b"\xef\xbb\xbfmark", "mark"),
        (b"\xef\xbb\xbf", ""),
        (b"\xef\xbb\xbf\xef\xbb\xbftwice", "\ufefftwice"),
        (b"in\xef\xbb\xbfside", "in\ufeffside"),
        (b"a\r\nb\r\n", "a\nb\n"),
        (b"\xef\xbb\xbf\r\na", "\na"),
        (b"a\rb", "a\rb"),
        (b"a\r\r\nb", "a\r\nb"),
        (b"a\n\rb", "a\n\rb"),
        (b"a\r", "a\r"),
        (b"a\x0b\x0c\x1a\xc2\x85\xe2\x80\xa8b", "a\x0b\x0c\x1a\x85\u2028b"),
        (b"\xec\x86\x8c\xeb\x82\x98\xea\xb8\xb0 \xf0\x9f\x98\x80", "소나기 😀"),
        (b"e\xcc\x81", "e\u0301"),
    ],
)
def test_bytes_read_as_the_text_they_stand_for(path, content, text):
    assert read(path, content) == text


@laws
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\ufeff")))
def test_a_text_comes_back_symbol_by_symbol_with_or_without_a_mark_and_with_either_line_end(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "law.txt"
    for mark in (b"", codecs.BOM_UTF8):
        assert read(path, mark + text.encode()) == text
        assert read(path, mark + text.replace("\n", "\r\n").encode()) == text


def test_a_stream_gives_what_it_has_before_the_file_ends(path, monkeypatch):
    monkeypatch.setattr(text_module, "CHUNK_BYTES", 4)
    path.write_bytes(b"To be, or\xff")
    pieces = stream_text(path)
    assert [next(pieces), next(pieces)] == ["To b", "e, o"]
    with pytest.raises(RequestError, match="byte 10 is 0xff"):
        next(pieces)


# What is refused


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_utf_16_file_is_refused(path, encoding):
    path.write_bytes("To be, or not to be".encode(encoding))
    assert refuses(path) == f"{path} is a binary or UTF-16 file (it holds a zero byte); give a UTF-8 text file"


@pytest.mark.parametrize("content", [b"\0", b"text\0", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\0\xff"])
def test_a_file_with_a_zero_byte_is_refused(path, content):
    path.write_bytes(content)
    assert "is a binary or UTF-16 file (it holds a zero byte)" in refuses(path)


@pytest.mark.parametrize(
    ("content", "place", "byte"),
    [
        (b"\xff", 1, "ff"),
        (b"na\xefve", 3, "ef"),  # Latin-1
        (b"ab\xed\xa0\xbd", 3, "ed"),  # half of a surrogate pair
        (b"ab\xc0\xaf", 3, "c0"),  # an overlong slash
        (b"cut short \xea\xb8", 11, "ea"),
        (b"\xec\x86\x8c\x80", 4, "80"),
        (b"\xef\xbb\xbfab\xff", 6, "ff"),  # the byte-order mark counts: editors show places in the file
        (b"a\r\nb\xff", 5, "ff"),
    ],
)
def test_a_byte_that_is_no_utf_8_is_named_with_its_place_in_the_file(path, content, place, byte):
    path.write_bytes(content)
    assert content[place - 1] == int(byte, 16)
    assert refuses(path) == f"{path} is not UTF-8 text (byte {place} is 0x{byte}); convert it to UTF-8 first"


def test_a_missing_file_is_refused(path):
    assert refuses(path) == f"cannot read the text {path}: No such file or directory; give a UTF-8 text file"


def test_a_mistyped_file_is_told_with_the_one_that_is_there(path):
    path.with_name("sonnets.txt").write_text("Shall I compare thee")
    (path.parent / "sonnet").mkdir()
    message = refuses(path.with_name("sonets.txt"))
    assert message.endswith(f"sonets.txt: No such file or directory; did you mean {path.with_name('sonnets.txt')}?")


def test_the_message_tells_the_way_out_that_the_caller_knows(path):
    assert refuses(path, "set CHARLM_DATA").endswith("No such file or directory; set CHARLM_DATA")


def test_a_folder_is_refused(tmp_path):
    assert refuses(tmp_path) == f"cannot read the text {tmp_path}: Is a directory; give a UTF-8 text file"


def test_a_file_in_the_place_of_a_folder_is_refused(path):
    path.write_text("text")
    assert "Not a directory; give a UTF-8 text file" in refuses(path / "more.txt")


def test_a_name_too_long_for_any_file_is_refused(tmp_path):
    assert "File name too long; give a UTF-8 text file" in refuses(tmp_path / ("x" * 5000))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Ada, 한국어 😀 é", "Ada, 한국어 😀 é"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\u202egnp.exe\u2066\u200b\x07", "\\u202egnp.exe\\u2066\\u200b\\x07"),
        ("\ue000\U000e0001\ud800", "\\ue000\\U000e0001\\ud800"),
        ("e" + 5 * "\u0301" + "o\u0301", "e" + 3 * "\u0301" + 2 * "\\u0301" + "o\u0301"),
    ],
)
def test_what_would_be_invisible_or_turn_a_text_around_is_shown_as_its_number(text, shown):
    assert printable(text) == shown
