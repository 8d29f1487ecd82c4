import errno
import hashlib
import http.client
import io
import json
import math
import os
import re
import tracemalloc
from pathlib import Path

import pytest
from hub_server import Response
from models import contents

from charlm import text as text_module
from charlm.errors import CharLMError, HubError, HubUnavailableError, RequestError
from train import data, encode
from train.data import TINYSHAKESPEARE, load_text, make_text, text_name
from train.encode import Folding, encode_pieces

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


def test_more_files_than_a_record_can_hold_are_refused_before_one_is_read(tmp_path, monkeypatch):
    (tmp_path / "part.txt").write_text("ab", encoding="utf-8")
    part = str(tmp_path / "part.txt")
    most = load_text(*[part] * 1_000)
    assert (len(most), len(most.sources)) == (2_000, 1_000)
    monkeypatch.setattr(data, "_find_source", None)  # nothing is looked for
    for refuse in (lambda words: load_text(*words), data.check_texts):
        with pytest.raises(RequestError) as refused:
            refuse([part] * 1_001)
        assert str(refused.value) == (
            "a text is put together from at most 1,000 sources, and these are 1,001: give their folder"
        )


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


def test_the_folder_that_is_named_may_be_in_the_home_folder(stand_in, monkeypatch, tmp_path):
    downloads = stand_in(STAND_IN)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/tinyshakespeare.txt").write_bytes(STAND_IN)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CHARLM_DATA", "~/texts")
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
    assert content(load_text(str(path), workspace=tmp_path)) == STAND_IN.decode()
    with pytest.raises(RequestError, match=f"cannot keep the ids of {re.escape(str(path))} in .*none"):
        load_text(str(path), workspace=tmp_path / "none")


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


# Several texts


@pytest.fixture
def book(tmp_path):
    """A folder of texts, with other files in it."""
    folder = tmp_path / "my book"
    (folder / "more.txt").mkdir(parents=True)
    (folder / "10 End.TXT").write_bytes(b"\xef\xbb\xbfthe end\r\n")
    (folder / "09 Middle.txt").write_bytes("it rains \u2602\n".encode())
    (folder / "cover.png").write_bytes(b"\0\0")
    (folder / "._10 End.TXT").write_bytes(b"\0\5\x16\7")  # as macOS makes beside each file on other disks
    return folder


def test_several_texts_are_put_together_in_the_order_given(stand_in, monkeypatch, tmp_path, book):
    stand_in(STAND_IN)
    (tmp_path / "tinyshakespeare.txt").write_bytes(STAND_IN)
    monkeypatch.setenv("CHARLM_DATA", str(tmp_path))
    (tmp_path / "one.txt").write_bytes(b"\xef\xbb\xbfone\r")  # its CR does not meet the LF of the next
    (tmp_path / "two.txt").write_bytes(b"\ntwo")
    together = load_text(
        str(tmp_path / "two.txt"), str(book), TINYSHAKESPEARE, str(tmp_path / "one.txt"), str(tmp_path / "two.txt")
    )
    expected = "\ntwo" + "it rains \u2602\nthe end\n" + STAND_IN.decode() + "one\r" + "\ntwo"
    assert content(together) == expected
    assert together.encoded.sha256 == hashlib.sha256(expected.encode()).hexdigest()
    assert together.sources == (
        {"name": "two.txt", "chars": 4},
        {"name": "my book", "files": 2, "chars": 19},
        {"name": "tinyshakespeare", "chars": 20},
        {"name": "one.txt", "chars": 4},
        {"name": "two.txt", "chars": 4},
    )
    assert together.name == "two+3-more"


@pytest.mark.parametrize(
    ("raw", "returns"),
    [(b"one\rtwo\r", "2 carriage returns"), (b"one\rtwo", "1 carriage return"), (b"a\rb\rc\n", "2 ")],
)
def test_a_text_whose_lines_end_in_carriage_returns_alone_is_read_as_it_is_and_said_to_be_one(tmp_path, raw, returns):
    (tmp_path / "old.txt").write_bytes(raw)
    said = []
    assert content(load_text(str(tmp_path / "old.txt"), say=said.append)) == raw.decode()
    (note,) = said
    assert note.startswith(f"note: old has {returns}") and note.endswith(": tr '\\r' '\\n' < FILE > NEW_FILE")


@pytest.mark.parametrize("raw", [b"one\r\ntwo\r\n", b"one\ntwo\n", b"one\rtwo\n", b"one line"])
def test_nothing_is_said_of_a_text_with_other_line_ends(tmp_path, raw):
    (tmp_path / "text.txt").write_bytes(raw)
    said = []
    load_text(str(tmp_path / "text.txt"), say=said.append, known="\r")
    assert said == []


def test_texts_in_the_home_folder_may_be_named_from_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "poems.d").mkdir()
    (tmp_path / "poems.d/one.txt").write_text("one\n")
    (tmp_path / "two.txt").write_text("two\n")
    text = load_text("~/poems.d", "~/two.txt")
    assert (text.name, content(text)) == ("poems.d+two", "one\ntwo\n")
    assert text_name(["~/poems.d"]) == "poems.d"


def test_a_folder_is_a_text_named_after_it(book, monkeypatch):
    assert load_text(str(book)).name == "my book"
    assert load_text(str(book)).sources == ({"name": "my book", "files": 2, "chars": 19},)
    monkeypatch.chdir(book)
    assert load_text(".").name == "my book"


def test_a_single_file_has_no_list_of_sources(book):
    assert load_text(str(book / "10 End.TXT")).sources == ()


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["a.txt"], "a"),
        (["books/a.txt", "b.c.txt", "tinyshakespeare"], "a+b.c+tinyshakespeare"),
        (["a.txt", "other/a.txt"], "a"),
        (["a.txt", "b.txt", "c.txt", "d.txt"], "a+3-more"),
        (["tinyshakespeare.txt", "b"], "tinyshakespeare.txt+b"),
    ],
)
def test_a_text_is_named_after_its_sources(words, name):
    assert text_name(words) == name


def test_symbols_can_be_replaced_and_others_be_known(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("To Be, to be¡", encoding="utf-8")
    text = load_text(str(path), folding=Folding(lowercase=True, min_count=2), known="xT")
    assert content(text) == "to be\ufffd to be\ufffd"
    assert text.encoded.symbols == " Tbeotx\ufffd"
    assert (text.folding, text.known) == (Folding(True, 2), "xT")
    assert text.encoded.replaced == (2, 2)


def test_a_symbol_that_is_only_known_is_none_to_learn_from(tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("aaaa")
    with pytest.raises(RequestError, match="short has only one symbol"):
        load_text(str(path), known="abc")


# Data sets on the Hub

WEB_PAGE = "https://huggingface.co/datasets/ada/poems"


@pytest.fixture
def poems(hub):
    """A data set with two texts and a table, and its commit before the last."""
    repo = hub.add_repo(
        "ada/poems", {"a/spring.txt": "\ufeff봄\r\n".encode(), "train.parquet": b"PAR1\x15"}, kind="dataset"
    )
    before = repo.refs["main"]
    more = {"a/spring.txt": "봄 봄\n", "a/winter.txt": "겨울\n"}
    repo.commit({name: text.encode() for name, text in more.items()} | {"notes.txt": "café".encode("latin-1")})
    return repo, before


@pytest.mark.parametrize("name", ["hf://datasets/ada/poems/a/spring.txt", f"{WEB_PAGE}/blob/main/a/spring.txt"])
def test_a_file_of_a_data_set_is_a_text_whose_size_is_told_before_and_whose_commit_is_recorded(
    poems, hub, tmp_path, name
):
    repo, before = poems
    (tmp_path / "own.txt").write_text("own")
    told = []

    def say(message):
        told.append((message, len(hub.asked("GET .*/resolve/"))))

    text = load_text(name, str(tmp_path / "own.txt"), say=say)
    assert content(text) == "봄 봄\nown" and text.name == "poems+own"
    assert told == [(f"hf://datasets/ada/poems/a/spring.txt: 8 bytes, of commit {repo.refs['main']}", 0)]
    assert text.sources == (
        {"name": "hf://datasets/ada/poems/a/spring.txt", "revision": repo.refs["main"], "chars": 4},
        {"name": "own.txt", "chars": 3},
    )
    old = load_text(f"hf://datasets/ada/poems@{before}/a/spring.txt")
    assert (content(old), old.name, old.sources[0]["revision"]) == ("봄\n", "poems", before)


@pytest.mark.parametrize(
    ("siblings", "message"),
    [
        ([{"rfilename": ["a/spring.txt"]}], "datasets/ada/poems has no file a/spring.txt"),
        (5, "datasets/ada/poems has no file a/spring.txt"),
        ([{"rfilename": "a/spring.txt", "size": "8"}], "the Hub does not tell the size of a/spring.txt"),
    ],
    ids=str,
)
def test_a_description_of_a_data_set_that_is_no_use_is_refused(poems, hub, siblings, message):
    def changed(answer):
        return Response(200, json.dumps(json.loads(answer().body) | {"siblings": siblings}).encode(), {})

    hub.on("GET /api/datasets/", changed)
    with pytest.raises(HubError, match=message):
        load_text("hf://datasets/ada/poems/a/spring.txt")


def test_a_file_of_a_data_set_comes_from_the_cache_when_the_hub_is_gone(poems, hub):
    name = "hf://datasets/ada/poems/a/spring.txt"
    first = load_text(name)
    hub.close()
    with pytest.warns(
        UserWarning, match="the Hub gave no usable answer for datasets/ada/poems .*; using the copy in the"
    ):
        again = load_text(name)
    assert (content(again), again.sources) == (content(first), first.sources)
    with pytest.raises(HubUnavailableError, match="no usable answer for datasets/ada/poems"):
        load_text("hf://datasets/ada/poems/a/winter.txt")


def test_a_private_data_set_opens_to_the_token_of_its_owner(hub, hub_environment):
    hub.add_user("ada", token="hf_ada")
    hub.add_repo("ada/diary", {"diary.txt": b"Dear diary"}, kind="dataset", private=True)
    with pytest.raises(HubError, match="the Hub has no repository datasets/ada/diary, or it is private"):
        load_text("hf://datasets/ada/diary/diary.txt")
    hub_environment(HF_TOKEN="hf_ada")
    assert content(load_text("hf://datasets/ada/diary/diary.txt")) == "Dear diary"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "hf://datasets/ada/poems/a/sprin.txt",
            "datasets/ada/poems has no file a/sprin.txt; did you mean hf://datasets/ada/poems/a/spring.txt?",
        ),
        (
            "hf://datasets/ada/poems/",
            "datasets/ada/poems is a data set, of which one file is the text; "
            "name one of its files: a/spring.txt, a/winter.txt, notes.txt",
        ),
        ("hf://datasets/ada/poems@v9/a/spring.txt", "datasets/ada/poems has no revision 'v9'; name a branch, tag or"),
        ("hf://datasets/ada/none/a.txt", "the Hub has no repository datasets/ada/none, or it is private"),
        (
            "hf://datasets/poems",
            "'hf://datasets/poems' names no file of a data set; write hf://datasets/USER/NAME/FILE",
        ),
        ("hf://datasets/ada/poems/train.parquet", "ada/poems/train.parquet is not a text: it is a table in Parquet"),
        ("hf://datasets/ada/poems/notes.txt", "hf://datasets/ada/poems/notes.txt is not UTF-8 text (byte 4 is 0xe9)"),
    ],
)
def test_what_is_wrong_with_the_name_of_a_data_set_or_its_file_is_told(poems, name, message):
    with pytest.raises(CharLMError) as caught:
        load_text(name)
    assert message in str(caught.value)


def test_parts_that_make_the_built_in_text_are_that_text(stand_in, tmp_path):
    stand_in(STAND_IN)
    for name, part in (("a.txt", STAND_IN[:7]), ("b.txt", STAND_IN[7:])):
        (tmp_path / name).write_bytes(part)
    assert load_text(str(tmp_path / "a.txt"), str(tmp_path / "b.txt")).name == TINYSHAKESPEARE


@pytest.mark.parametrize(
    ("files", "inside"),
    [
        ([], "it is empty"),
        ([f"{number}.md" for number in range(7)], "it holds 0.md, 1.md, 2.md, 3.md, 4.md and 2 more"),
    ],
    ids=str,
)
def test_a_folder_without_a_text_is_told_with_what_it_holds(tmp_path, files, inside):
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(RequestError) as caught:
        load_text(str(tmp_path))
    assert str(caught.value) == f"the folder {tmp_path} has no *.txt file ({inside}); name the files of your text"


def test_the_one_of_several_files_that_is_no_text_is_named(book):
    (book / "09 Middle.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(RequestError, match=f"{re.escape(str(book / '09 Middle.txt'))} is not UTF-8 text"):
        load_text(str(book / "10 End.TXT"), str(book))


def test_it_is_said_which_files_of_a_text_hold_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, raw in {"a.txt": b"to be\r\n", "copy.txt": b"to be\n", "folder/b.txt": b"or not", "c.txt": b""}.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(raw)
    Path("folder/empty.txt").touch()

    def notes(*words):
        said = []
        load_text(*words, say=said.append)
        return [
            note.removesuffix(": what validates may repeat what trains, and its loss is then too low") for note in said
        ]

    inside = os.path.join("folder", "b.txt")
    assert notes("a.txt") == notes("a.txt", "folder", "c.txt") == []
    assert notes("a.txt", "./a.txt") == ["note: a.txt is there twice"]
    assert notes("a.txt", "copy.txt") == ["note: a.txt and copy.txt hold the same"]
    assert notes("folder", "a.txt", inside, inside) == [f"note: {inside} is there 3 times"]
    Path("folder/a.txt").write_bytes(b"or not")
    assert notes("folder") == [f"note: {os.path.join('folder', 'a.txt')} and {inside} hold the same"]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("", "the name of a text is empty; give a UTF-8 text file, a folder of such files or the built-in name"),
        ("https://example.org/a.txt", "'https://example.org/a.txt' is a web address, from which no text is downloaded"),
        ("hf://ada/txt/a.txt", "names no file of a data set; did you mean hf://datasets/ada/txt/a.txt?"),
        ("hf://ada", "'hf://ada' names no file of a data set; write hf://datasets/USER/NAME/FILE"),
    ],
)
def test_what_is_no_path_of_a_text_is_said_as_it_was_written(word, said):
    for refuse in (load_text, lambda word: data.check_texts([word])):
        with pytest.raises(RequestError) as refused:
            refuse(word)
        assert said in str(refused.value)


@pytest.mark.parametrize(("raw", "found"), [("", "nothing in it"), ("aaaa", "only one symbol")])
def test_texts_with_nothing_to_learn_together_are_refused(tmp_path, raw, found):
    paths = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for path in paths:
        path.write_text(raw)
    with pytest.raises(RequestError, match=rf"a\+b has {found}"):
        load_text(*map(str, paths))


@pytest.mark.slow
def test_large_texts_are_never_in_memory_whole(monkeypatch, tmp_path):
    for name, value in {"IN_MEMORY_BYTES": 1 << 20, "IDS_PER_REWRITE": 1 << 16}.items():
        monkeypatch.setattr(encode, name, value)
    monkeypatch.setattr(text_module, "CHUNK_BYTES", 1 << 16)
    (tmp_path / "folder").mkdir()
    paths = [tmp_path / "a.txt", tmp_path / "folder" / "b.txt", tmp_path / "folder" / "c.txt"]
    for path in paths:
        path.write_bytes("To be, or not to be — that\r\n".encode() * 300_000)
    tracemalloc.start()
    try:
        text = load_text(str(paths[0]), str(tmp_path / "folder"), workspace=tmp_path)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(text) == 900_000 * 27
    assert peak_bytes < 12_000_000  # the bound of a single text


def test_the_loss_of_guessing_by_frequency_is_worked_by_hand():
    assert make_text("quarters", encode_pieces(["abcd" * 5], "quarters")).unigram_loss() == pytest.approx(math.log(4))
    uneven = make_text("uneven", encode_pieces(["aaab"], "uneven"))
    assert uneven.unigram_loss() == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * math.log(4))


def test_of_a_long_text_the_beginning_is_counted(monkeypatch):
    monkeypatch.setattr("train.data.UNIGRAM_CHARS", 4)
    assert make_text("long", encode_pieces(["abab" + "c" * 100], "long")).unigram_loss() == pytest.approx(math.log(2))


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
    assert make_text("text", encode_pieces([content + "ab"], "text")).beginning() == beginning
