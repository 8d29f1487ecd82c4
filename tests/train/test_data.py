import errno
import hashlib
import http.client
import io
import math
import os
import re
from pathlib import Path

import pytest
from models import contents

from charlm.errors import RequestError
from train import data, encode
from train.data import TINYSHAKESPEARE, load_text, make_text
from train.encode import encode_text

STAND_IN = b"To be, or not to be\n"


def content(text):
    """The text that the ids of a Text stand for."""
    read = "".join(text.encoded.symbols[index] for index in text.encoded.ids)
    assert len(text) == len(read)
    return read


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """A short text in the place of tinyshakespeare, a cache of the test's own, and a count of the downloads."""
    monkeypatch.setattr(data, "TINYSHAKESPEARE_SHA256", hashlib.sha256(STAND_IN).hexdigest())
    monkeypatch.delenv("CHARLM_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    downloads = []

    def answer_with(raw):
        def urlopen(url, timeout):
            downloads.append(url)
            if isinstance(raw, Exception):
                raise raw
            return io.BytesIO(raw)

        monkeypatch.setattr(data.urllib.request, "urlopen", urlopen)
        return downloads

    return answer_with


def test_a_file_is_a_text_named_after_it(tmp_path):
    path = tmp_path / "봄.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "나는\r\n🌸".encode())
    text = load_text(str(path))
    assert (text.name, content(text)) == ("봄", "나는\n🌸")
    assert text.encoded.sha256 == hashlib.sha256("나는\n🌸".encode()).hexdigest()


@pytest.mark.parametrize(("raw", "found"), [("", "nothing in it"), ("aaaa", "only one symbol"), ("\ufeff", "nothing")])
def test_a_text_with_nothing_to_learn_is_refused(tmp_path, raw, found):
    path = tmp_path / "short.txt"
    path.write_text(raw, encoding="utf-8")
    with pytest.raises(RequestError, match=f"short has {found}.*needs at least two different symbols"):
        load_text(str(path))


def test_a_missing_file_is_told_together_with_the_name_that_needs_none():
    with pytest.raises(RequestError, match=r"cannot read the text sonnets: .*or the built-in name tinyshakespeare"):
        load_text("sonnets")
    with pytest.raises(
        RequestError, match=r"text tinyshakespear: .*; did you mean the built-in name tinyshakespeare\?$"
    ):
        load_text("tinyshakespear")


def test_the_built_in_text_comes_from_the_folder_that_is_named(stand_in, monkeypatch, tmp_path):
    downloads = stand_in(STAND_IN)
    (tmp_path / "tinyshakespeare.txt").write_bytes(STAND_IN)
    monkeypatch.setenv("CHARLM_DATA", str(tmp_path))
    assert content(load_text(TINYSHAKESPEARE)) == STAND_IN.decode()
    assert downloads == []


def test_a_named_folder_without_the_text_is_refused_rather_than_passed_over(stand_in, monkeypatch, tmp_path):
    downloads = stand_in(STAND_IN)
    monkeypatch.setenv("CHARLM_DATA", str(tmp_path))
    with pytest.raises(RequestError, match=r"CHARLM_DATA has no file tinyshakespeare\.txt"):
        load_text(TINYSHAKESPEARE)
    assert downloads == []


def test_another_text_in_its_place_is_refused(stand_in, monkeypatch, tmp_path):
    stand_in(STAND_IN)
    (tmp_path / "tinyshakespeare.txt").write_bytes(STAND_IN + b"!")
    monkeypatch.setenv("CHARLM_DATA", str(tmp_path))
    with pytest.raises(RequestError, match="is not the text tinyshakespeare"):
        load_text(TINYSHAKESPEARE)


def test_the_built_in_text_is_downloaded_once_and_kept(stand_in, tmp_path):
    downloads = stand_in(STAND_IN)
    assert [content(load_text(TINYSHAKESPEARE)) for _ in range(2)] == [STAND_IN.decode()] * 2
    assert downloads == [data.TINYSHAKESPEARE_URL]
    assert [path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file()] == [STAND_IN]


def test_a_download_that_is_not_the_text_is_refused_and_not_kept(stand_in, tmp_path):
    stand_in(b"<html>please log in</html>")
    with pytest.raises(RequestError, match="is not tinyshakespeare"):
        load_text(TINYSHAKESPEARE)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("failure", [OSError("no route to host"), http.client.IncompleteRead(b"To be")], ids=repr)
def test_without_a_network_the_message_tells_where_to_put_the_text(stand_in, failure):
    stand_in(failure)
    with pytest.raises(RequestError, match=f"{re.escape(str(failure))}.*name that in CHARLM_DATA"):
        load_text(TINYSHAKESPEARE)


def test_another_file_cannot_pass_for_the_built_in_text(stand_in, tmp_path):
    stand_in(STAND_IN)
    path = tmp_path / "tinyshakespeare.txt"
    path.write_bytes(b"something else")
    assert load_text(str(path)).name == "tinyshakespeare.txt"
    path.write_bytes(STAND_IN)
    assert load_text(str(path)).name == TINYSHAKESPEARE


def test_a_text_too_large_for_memory_is_kept_in_the_workspace_that_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(encode, "IN_MEMORY_BYTES", 1)
    path = tmp_path / "text.txt"
    path.write_bytes(STAND_IN)
    assert content(load_text(str(path), tmp_path)) == STAND_IN.decode()
    with pytest.raises(RequestError, match=f"cannot keep the ids of {re.escape(str(path))} in .*none"):
        load_text(str(path), tmp_path / "none")


@pytest.mark.parametrize("obstacle", ["a file in the place of the folder", "a full disk", "no home"])
def test_a_cache_that_cannot_be_written_is_done_without(stand_in, monkeypatch, tmp_path, obstacle):
    downloads = stand_in(STAND_IN)
    monkeypatch.chdir(tmp_path)
    if obstacle == "no home":
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does where nothing tells the home
    elif obstacle == "a full disk":
        (tmp_path / "cache" / "charlm").mkdir(parents=True)

        def write_bytes(path, raw):
            path.touch()
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", write_bytes)
    else:
        (tmp_path / "cache").touch()
    before = contents(tmp_path), set(tmp_path.rglob("*"))
    assert [content(load_text(TINYSHAKESPEARE)) for _ in range(2)] == [STAND_IN.decode()] * 2
    assert len(downloads) == 2
    assert (contents(tmp_path), set(tmp_path.rglob("*"))) == before


def test_the_loss_of_guessing_by_frequency_is_worked_by_hand():
    assert make_text("quarters", encode_text("abcd" * 5)).unigram_loss() == pytest.approx(math.log(4))
    uneven = make_text("uneven", encode_text("aaab"))
    assert uneven.unigram_loss() == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * math.log(4))


def test_of_a_long_text_the_beginning_is_counted(monkeypatch):
    monkeypatch.setattr("train.data.UNIGRAM_CHARS", 4)
    assert make_text("long", encode_text("abab" + "c" * 100)).unigram_loss() == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("content", "beginning"),
    [
        ("First Citizen:\nBefore", "First"),
        ("\n\n  나는 봄을", "나는"),
        ("a" * 50, "a" * 12),
        (" \n" * 50 + "word", ""),
    ],
    ids=str,
)
def test_the_beginning_of_a_text_is_its_first_word(content, beginning):
    assert make_text("text", encode_text(content + "ab")).beginning() == beginning
