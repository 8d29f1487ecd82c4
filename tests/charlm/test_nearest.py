import os
import sys
from pathlib import Path

import pytest

from charlm.nearest import MOST_NAMES, nearest, nearest_path, path_in_subfolder


@pytest.mark.parametrize(
    ("word", "words", "found"),
    [
        ("--hiden-size", ["--hidden-size", "--embedding-size", "--epochs"], "--hidden-size"),
        ("fitt", ["fit", "evaluate", "push"], "fit"),
        ("ltsm", ["rnn", "lstm", "gru"], "lstm"),
        ("LSTM", ["rnn", "lstm", "gru"], "lstm"),
        ("lstm", ["RNN", "LSTM", "GRU"], "LSTM"),
        ("gur", ["rnn", "lstm", "gru"], "gru"),
        ("transformer", ["rnn", "lstm", "gru"], None),
        ("", ["rnn", "lstm", "gru"], None),
        ("lstm", [], None),
    ],
)
def test_the_nearest_word_is_the_one_that_was_meant_or_none(word, words, found):
    assert nearest(word, words) == found


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current folder that holds runs/my-text, weights/shakespeare-lstm and notes.txt."""
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/my-text", "weights/shakespeare-lstm"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("notes")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "kind", "found"),
    [
        ("runs/my-txet", Path.is_dir, "runs/my-text"),
        ("run/my-txet", Path.is_dir, "runs/my-text"),
        ("weight/shakespeare-lstm", Path.is_dir, "weights/shakespeare-lstm"),
        ("./Runs/my-text", Path.is_dir, "runs/my-text"),
        ("note.txt", Path.is_file, "notes.txt"),
        ("note.txt", Path.is_dir, None),
        ("weights/shakespeare-gru-2", Path.is_dir, None),
        ("elsewhere/my-text", Path.is_dir, None),
        ("runs/" + "x" * 5000, Path.is_dir, None),
        ("runs/my-te\0t", Path.is_dir, "runs/my-text"),
    ],
    ids=lambda value: value.__name__ if callable(value) else str(value)[:30],
)
def test_every_part_of_a_path_may_be_mistyped(here, path, kind, found):
    assert nearest_path(Path(path), kind) == (Path(found) if found else None)
    absolute = nearest_path(here / path, kind)
    assert absolute == (here / found if found else None)


def test_a_name_without_its_folder_is_found_one_level_down(here):
    assert path_in_subfolder("my-text", Path.is_dir) == Path("runs/my-text")
    assert path_in_subfolder("my-txet", Path.is_dir) is None
    assert path_in_subfolder("x" * 5000, Path.is_dir) is None


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_suggests_nothing(here):
    (here / "runs").chmod(0)
    assert nearest_path(Path("runs/my-txet"), Path.is_dir) is None
    (here / "runs").chmod(0o755)


def test_only_the_beginning_of_a_huge_folder_is_looked_at(here, monkeypatch):
    monkeypatch.setattr("charlm.nearest.MOST_NAMES", 0)
    assert MOST_NAMES >= 1000
    assert nearest_path(Path("runs/my-txet"), Path.is_dir) is None
