import hashlib
import http.client
import io
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import laws

from charlm.errors import RequestError
from train import data
from train.data import TINYSHAKESPEARE, Streams, load_text, split_holdout

STAND_IN = b"To be, or not to be\n"


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
    assert (text.name, text.content) == ("봄", "나는\n🌸")
    assert text.sha256 == hashlib.sha256("나는\n🌸".encode()).hexdigest()


@pytest.mark.parametrize(
    ("content", "found"), [("", "nothing in it"), ("aaaa", "only one symbol"), ("\ufeff", "nothing")]
)
def test_a_text_with_nothing_to_learn_is_refused(tmp_path, content, found):
    path = tmp_path / "short.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(RequestError, match=f"short has {found}.*needs at least two different symbols"):
        load_text(str(path))


def test_a_missing_file_is_told_together_with_the_name_that_needs_none():
    with pytest.raises(
        RequestError, match="cannot read the text tinyshakespear: .*or the built-in name tinyshakespeare"
    ):
        load_text("tinyshakespear")


def test_the_built_in_text_comes_from_the_folder_that_is_named(stand_in, monkeypatch, tmp_path):
    downloads = stand_in(STAND_IN)
    (tmp_path / "tinyshakespeare.txt").write_bytes(STAND_IN)
    monkeypatch.setenv("CHARLM_DATA", str(tmp_path))
    assert load_text(TINYSHAKESPEARE).content == STAND_IN.decode()
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
    assert [load_text(TINYSHAKESPEARE).content for _ in range(2)] == [STAND_IN.decode()] * 2
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


@laws
@given(st.text(min_size=11))
def test_the_first_nine_tenths_train_and_the_rest_validates(text):
    train, val = split_holdout(text)
    assert train + val == text
    assert len(train) == int(0.9 * len(text))


def test_the_split_of_tinyshakespeare_is_that_of_other_projects():
    train, val = split_holdout("x" * 1_115_394)
    assert (len(train), len(val)) == (1_003_854, 111_540)


@pytest.mark.parametrize("length", [0, 2, 9, 10])
def test_a_text_too_short_to_be_measured_is_refused(length):
    with pytest.raises(RequestError, match=f"only {length} characters; it needs at least 11"):
        split_holdout("ab" * (length // 2) + "c" * (length % 2))


def make_streams(length=1000, batch_size=4, seq_length=8, seed=0):
    return Streams(np.arange(length), batch_size, seq_length, seed, torch.device("cpu"))


def epoch_of(streams, epoch):
    return [streams.batch(epoch, step) for step in range(streams.steps_per_epoch)]


@laws
@given(st.integers(1, 7), st.integers(1, 9), st.integers(0, 200), st.integers(0, 5), st.integers(1, 20))
def test_streams_go_on_where_they_stopped_and_no_character_is_read_twice(batch_size, seq_length, more, seed, epoch):
    length = (batch_size + 1) * seq_length + more
    batches = epoch_of(make_streams(length, batch_size, seq_length, seed), epoch)
    read = torch.cat([inputs for inputs, _ in batches])  # the symbols are their own places in the text
    assert (read.diff(dim=0) == 1).all()
    assert len(read.unique()) == read.numel()
    assert read.shape == (len(batches) * seq_length, batch_size)
    assert all((targets == inputs + 1).all() for inputs, targets in batches)
    assert max(targets.max() for _, targets in batches) < length
    # less than a sequence for the offset, and one for what does not fill all streams, is left out
    assert read.numel() > length - seq_length * (batch_size + 1)


def test_the_offset_differs_between_epochs_and_seeds_and_is_the_same_for_the_same():
    offsets = {
        (seed, epoch): int(make_streams(seed=seed).batch(epoch, 0)[0][0, 0]) for seed in (0, 1) for epoch in range(20)
    }
    again = {
        (seed, epoch): int(make_streams(seed=seed).batch(epoch, 0)[0][0, 0]) for seed in (0, 1) for epoch in range(20)
    }
    assert offsets == again
    assert set(offsets.values()) == set(range(8))
    assert [offsets[0, epoch] for epoch in range(20)] != [offsets[1, epoch] for epoch in range(20)]
