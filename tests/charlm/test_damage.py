"""Each ordinary kind of damage is done to a sound model folder as people do it; the message names cause and remedy."""

import gzip
import json
import os
import shutil
import time
from zipfile import ZipFile

import pytest
from models import assert_refused, make_model, save

from charlm.damage import explain_json, explain_weights
from charlm.errors import RequestError
from charlm.model.folder import read_model
from charlm.text import read_text

POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)
WEB_PAGE = (
    b'<!DOCTYPE html>\n<html class="">\n<head><meta charset="utf-8" /><title>ada/poems at main</title></head></html>'
)
JSON_FILES = ["config.json", "history.json"]
FILES = [*JSON_FILES, "model.safetensors"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    # large enough for line ends and characters to be found in the weights
    return save(make_model("gru", embedding_size=32, hidden_size=64), tmp_path_factory.mktemp("sound"))


@pytest.fixture
def folder(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "my-model")


def change(path, function):
    path.write_bytes(function(path.read_bytes()))


def retyped(encoding):
    """Open a file of UTF-8 text and save it in another encoding."""
    return lambda content: content.decode().encode(encoding)


# One file holds something else


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER, "it is a pointer of git-LFS, not the file itself; run `git lfs pull`"),
        (POINTER.replace(b"\n", b"\r\n"), "it is a pointer of git-LFS"),
        (WEB_PAGE, "it is a web page, not the file that the page shows; use the page's link for downloading"),
        (b"\r\n  <html><body>Sign in</body></html>", "it is a web page"),
        (b"", "it is empty, as after a copy that was interrupted or a full disk; get it again"),
        (b"\0" * 5000, "it holds zero bytes in place of its content"),
        (gzip.compress(b"{}", mtime=0), "it is a gzip archive; unpack it"),
        (b"PK\x03\x04\x14\0\0\0\x08\0abcdefgh", "it is a zip archive"),
    ],
    ids=["lfs", "lfs with CRLF", "web page", "sign-in page", "empty", "zeros", "gzip", "zip"],
)
def test_a_file_that_holds_something_else_is_told(folder, name, content, message):
    (folder / name).write_bytes(content)
    assert_refused(folder, message)


@pytest.mark.parametrize("name", JSON_FILES)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (retyped("utf-8-sig"), "it begins with a byte-order mark, which an editor wrote; save it as UTF-8 without one"),
        (retyped("utf-16"), "it is UTF-16 or binary; save it as UTF-8"),
        (retyped("utf-16-le"), "it is UTF-16 or binary; save it as UTF-8"),
        (retyped("utf-16-be"), "it is UTF-16 or binary; save it as UTF-8"),
        (lambda content: content.replace(b'"', "“".encode()), "line 2 has the typographic quotation mark “"),
        (lambda content: content.replace(b'":', "”:".encode()), "has the typographic quotation mark ”"),
        (
            lambda content: b"<<<<<<< HEAD\n" + content + b"=======\n" + content + b">>>>>>> theirs\n",
            "line 1 is the mark of a conflict that git could not merge",
        ),
        (
            lambda content: content.replace(b"\n", b"\n<<<<<<< ours\n", 1).replace(b"\n", b"\r\n"),
            "line 2 is the mark of a conflict that git could not merge",
        ),
    ],
    ids=[
        "byte-order mark",
        "UTF-16",
        "UTF-16-LE",
        "UTF-16-BE",
        "quotes",
        "closing quotes",
        "conflict",
        "CRLF conflict",
    ],
)
def test_what_editors_and_git_do_to_json_is_told(folder, name, damage, message):
    change(folder / name, damage)
    assert_refused(folder, message)


def test_json_saved_in_an_old_encoding_is_told(folder):
    change(folder / "config.json", lambda content: content.decode().encode("cp949", errors="ignore"))
    assert_refused(folder, "config.json is not UTF-8 text: an editor may have saved it in another encoding; save it as")


@pytest.mark.parametrize("name", JSON_FILES)
def test_crlf_does_no_harm_to_json(folder, name):
    before = read_model(folder)
    change(folder / name, lambda content: content.replace(b"\n", b"\r\n"))
    after = read_model(folder)
    assert (after.config, after.history) == (before.config, before.history)


def test_quotation_marks_of_the_text_are_not_blamed(folder):
    damaged = '{"vocab": "“”:,‘’", "sample": "he said: “No,” and", "seed": }'
    assert explain_json(damaged) is None
    assert explain_json(damaged.replace('"seed"', "“seed”")).startswith("line 1 has the typographic quotation mark “")


def test_a_large_file_of_escapes_is_explained_in_linear_time():
    begun = time.process_time()
    assert explain_json('{"vocab": "' + '\\"' * 2_000_000) is None
    assert time.process_time() - begun < 2  # some hundredths of a second; with a regular expression, hours


def test_a_damaged_record_can_be_removed(folder):
    change(folder / "history.json", lambda content: content[:500])
    assert_refused(folder, "; the model loads if history.json is mended or removed")
    (folder / "history.json").unlink()
    read_model(folder)


# The weights


def cut_short(content):
    return content[: len(content) * 2 // 3]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_short, " bytes, as after a download or a copy that did not finish; get it again"),
        (lambda content: content[:-1], " bytes, as after a download or a copy that did not finish; get it again"),
        (
            lambda content: content.replace(b"\n", b"\r\n"),
            "git or a transfer in text mode wrote CRLF for each LF in it",
        ),
        (lambda content: content.decode(errors="replace").encode(), "a program opened it and saved it as text"),
        (lambda content: content.decode("cp437").encode("utf-16"), "a program wrote it as UTF-16 text, as > does in"),
        (lambda _: b"Found. Redirecting to https://cdn.example/x", "it begins with the text 'Found. Redirecting to"),
        (lambda _: b'{"error":"Repository not found"}', 'it begins with the text \'{"error"'),
    ],
    ids=["cut short", "cut by a byte", "CRLF", "saved as text", "PowerShell", "redirection", "error message"],
)
def test_what_happens_to_weights_on_their_way_is_told(folder, damage, message):
    change(folder / "model.safetensors", damage)
    assert_refused(folder, "model.safetensors is not the file that config.json describes (its SHA-256 differs): ")
    assert_refused(folder, message)


def test_the_bytes_of_weights_that_were_cut_short_are_counted(folder):
    whole = (folder / "model.safetensors").stat().st_size
    os.truncate(folder / "model.safetensors", 5000)
    assert_refused(folder, f"it has 5,000 of {whole:,} bytes")


def test_sound_weights_are_not_explained(sound):
    content = (sound / "model.safetensors").read_bytes()
    assert explain_weights(content, len(content), len(content)) is None


# A file is elsewhere or has another name


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("{NAME}", "; rename {NAME} to {name}"),
        ("{name}.txt", "; rename {name}.txt to {name}"),
        ("{stem} (1){suffix}", "; rename {stem} (1){suffix} to {name}"),
        ("{stem} - Copy{suffix}", "; rename {stem} - Copy{suffix} to {name}"),
        ("{name}.part", "; {name}.part is a download that did not finish; get it again"),
        ("{name}.crdownload", "; {name}.crdownload is a download that did not finish"),
        ("Xb3f.{name}.part", "; Xb3f.{name}.part is a download that did not finish"),
        ("{name}.0123abcd.incomplete", "; {name}.0123abcd.incomplete is a download that did not finish"),
        ("{name}.gz", "; unpack {name}.gz"),
    ],
)
def test_a_file_of_another_name_is_told(folder, name, other, message):
    stem, suffix = os.path.splitext(name)
    names = {"name": name, "NAME": name.upper(), "stem": stem, "suffix": suffix}
    (folder / name).rename(folder / other.format_map(names))
    assert_refused(folder, f"{name} is missing: this is not a whole model folder" + message.format_map(names))


def test_a_folder_within_the_folder_is_told(folder, tmp_path):
    outer = tmp_path / "unpacked"
    outer.mkdir()
    folder.rename(outer / "my-model")
    assert_refused(outer, f"; there is one in {outer / 'my-model'}; name that folder")


def test_the_folder_of_a_model_in_the_hubs_cache_is_told(folder, tmp_path):
    outer = tmp_path / "models--ada--poems"
    (outer / "snapshots").mkdir(parents=True)
    folder.rename(outer / "snapshots" / "0123abc")
    assert_refused(outer, f"; there is one in {outer / 'snapshots' / '0123abc'}; name that folder")


def test_links_that_were_copied_without_their_files_are_told(folder, tmp_path):
    (folder / "config.json").rename(tmp_path / "blob")
    (folder / "config.json").symlink_to(tmp_path / "blob")
    read_model(folder)
    (tmp_path / "blob").unlink()
    assert_refused(folder, "; it is a link to a file that is not there; copy the folder with what its links lead to")


# A text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER, "is not a text: it is a pointer of git-LFS, not the file itself; run `git lfs pull`"),
        (gzip.compress(b"To be", mtime=0), "is not a text: it is a gzip archive; unpack it"),
        (b"%PDF-1.7\n1 0 obj", "is not a text: it is a PDF"),
    ],
)
def test_a_text_that_is_something_else_is_told(tmp_path, content, message):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(RequestError) as caught:
        read_text(path)
    assert str(caught.value).startswith(f"{path} {message}")


def test_a_word_document_is_told(tmp_path):
    with ZipFile(tmp_path / "text.txt", "w") as document:
        document.writestr("word/document.xml", json.dumps("To be"))
    with pytest.raises(RequestError, match=r"it is a zip archive \(or a Word document\); .*; give a UTF-8 text file"):
        read_text(tmp_path / "text.txt")


def test_a_text_about_web_pages_and_quotes_is_a_text(tmp_path):
    text = WEB_PAGE.decode() + "“To be”"
    (tmp_path / "text.txt").write_bytes(text.encode())
    assert read_text(tmp_path / "text.txt") == text
