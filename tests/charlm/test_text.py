import codecs
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import laws

from charlm import text as text_module
from charlm.errors import RequestError
from charlm.text import read_text, stream_text


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


LANGUAGES = {
    "English": "To be, or not to be\n",
    "French": "L’été dernier, nous étions à la forêt, où le cœur s’émeut.\n",
    "Russian": "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему.\n",
    "Greek": "Σ’ αγαπώ γιατί είσαι ωραία, και τα μάτια σου λάμπουν σαν αστέρια.\n",
    "Korean": "나는 봄을 기다린다. 너는 겨울을 보낸다.\n",
    "Japanese": "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。\n",
    "Chinese": "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。\n",
    "Taiwanese": "話說天下大勢，分久必合，合久必分。周末七國分爭，并入於秦。\n",
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
def test_a_file_in_utf_16_or_utf_32_is_refused_with_the_command_that_converts_it(path, language, encoding):
    content = LANGUAGES[language].encode(encoding)
    path.write_bytes(content)
    name = encoding.upper().replace("-LE", "LE").replace("-BE", "BE")
    assert refuses(path) == (
        f"{path} is not UTF-8 text: it seems to be text in {name}; convert it to UTF-8 first: iconv -f {name} -t UTF-8"
    )
    assert content.decode(name) == LANGUAGES[language]  # Python's names of the encodings are iconv's


@pytest.mark.parametrize(
    ("language", "encoding", "named"),
    [
        ("French", "cp1252", "WINDOWS-1252"),
        ("Russian", "cp1251", "WINDOWS-1251"),
        ("Russian", "koi8-r", "KOI8-R"),
        ("Russian", "iso-8859-5", "ISO-8859-5"),
        ("Greek", "cp1253", "WINDOWS-1253"),
        ("Korean", "cp949", "CP949"),
        ("Japanese", "shift_jis", "SHIFT_JIS"),
        ("Japanese", "euc_jp", "EUC-JP"),
        ("Chinese", "gb18030", "GB18030"),
        ("Taiwanese", "big5", "BIG5"),
    ],
)
def test_a_file_in_an_encoding_from_before_utf_8_is_refused_with_the_one_that_it_seems_to_be_in(
    path, language, encoding, named
):
    content = (LANGUAGES[language] * 20).encode(encoding)
    path.write_bytes(b"Title\r\n" + content)
    assert content.decode(named) == LANGUAGES[language] * 20
    message = refuses(path)
    assert re.search(r"is not UTF-8 text \(byte \d+ is 0x[89a-f][0-9a-f]\): it seems to be .* text in ", message)
    assert message.endswith(f" text in {named}; convert it to UTF-8 first: iconv -f {named} -t UTF-8")


@pytest.mark.parametrize(
    ("content", "place"), [(b"\0", 1), (b"text\0", 5), (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 9), (b"\0\xff", 1)]
)
def test_a_file_with_a_zero_byte_is_refused(path, content, place):
    path.write_bytes(content)
    if not content.strip(b"\0"):
        assert "is not a text: it holds zero bytes in place of its content, as after a copy" in refuses(path)
        return
    assert refuses(path) == (
        f"{path} is a binary or a damaged file, not a text (byte {place} is zero); give a UTF-8 text file, "
        "or remove the zero bytes if the rest is text: tr -d '\\000'"
    )


NOT_UTF_8 = "; convert it to UTF-8 first"
CUT = (
    ": the file ends within a symbol: if its copy was interrupted, get it again; if it is in another encoding, "
    "convert it, for example iconv -f WINDOWS-1252 -t UTF-8"
)
SURROGATE = ": an unpaired surrogate, half of a symbol, stands there; remove it first: iconv -c -f UTF-8 -t UTF-8"
CESU_8 = (
    ": it seems to be text in CESU-8, as some databases export it, with two surrogates in place of one symbol; "
    "export it as UTF-8"
)
DAMAGE = ": nearly all of the text is UTF-8, so this byte is damaged or in another encoding; mend or remove it"


@pytest.mark.parametrize(
    ("content", "place", "byte", "seems"),
    [
        (b"\xff", 1, "ff", NOT_UTF_8),
        (b"na\xefve", 3, "ef", NOT_UTF_8),  # Latin-1, but too short to tell
        (b"ab\xed\xa0\xbd", 3, "ed", SURROGATE),
        (b"ab\xed\xb8\x80\xed\xa0\xbdcd", 3, "ed", SURROGATE),  # the halves in the wrong order
        (b"ab\xed\xa0\xbd\xed\xb8\x80", 3, "ed", CESU_8),
        (b"ab\xc0\xaf", 3, "c0", NOT_UTF_8),  # an overlong slash
        (b"cut short \xea\xb8", 11, "ea", CUT),
        (b"cut short \xf0\x9f\x98", 11, "f0", CUT),
        (b"a caf\xe9", 6, "e9", CUT),  # Latin-1 whose only accent is at its end
        (b"\xec\x86\x8c\x80", 4, "80", NOT_UTF_8),
        (b"\xef\xbb\xbfab\xff", 6, "ff", NOT_UTF_8),  # the byte-order mark counts: editors show places in the file
        (b"a\r\nb\xff", 5, "ff", NOT_UTF_8),
        (b"\xff" + "나는 봄을".encode() * 20, 1, "ff", DAMAGE),
    ],
)
def test_a_byte_that_is_no_utf_8_is_named_with_its_place_in_the_file_and_what_it_seems_to_be(
    path, content, place, byte, seems
):
    path.write_bytes(content)
    assert content[place - 1] == int(byte, 16)
    assert refuses(path) == f"{path} is not UTF-8 text (byte {place} is 0x{byte}){seems}"


def test_a_zero_byte_far_behind_a_byte_that_is_no_utf_8_tells_that_the_file_is_binary(path, monkeypatch):
    monkeypatch.setattr(text_module, "EXPLAINED_BYTES", 6)
    path.write_bytes(b"ab\xc0\xaf" + b"c" * 100 + b"\0")
    assert "is a binary or a damaged file, not a text (byte 105 is zero)" in refuses(path)


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
