import errno
import hashlib
import os
import pickle
import random

import pytest
import safetensors.torch
import torch
from models import contents, raise_full_disk
from test_memory import peak_bytes

from charlm.errors import ModelFileError, TrainingError
from train.checkpoint import (
    CHECKPOINT_FILE,
    Checkpoint,
    delete_checkpoint,
    load_checkpoint,
    save_checkpoint,
)

TENSORS = {
    "network.weight": torch.tensor([[1.5, -2.0], [float("inf"), 1e-40]]),
    "random": torch.arange(5, dtype=torch.uint8),
    "step": torch.tensor(7.0),
}
VALUES = {"epoch": 3, "seconds": 0.1 + 0.2, "run": {"text": "봄", "lr": 0.003}, "epochs": [{"sample": "a\nb"}]}


def test_what_is_loaded_is_what_was_saved_to_the_last_bit(tmp_path):
    save_checkpoint(tmp_path, Checkpoint(TENSORS, VALUES))
    loaded = load_checkpoint(tmp_path)
    assert loaded.values == VALUES
    assert loaded.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in TENSORS.items())
    assert all(loaded.tensors[name].dtype == tensor.dtype for name, tensor in TENSORS.items())


def test_a_loaded_checkpoint_does_not_change_with_the_file(tmp_path):
    save_checkpoint(tmp_path, Checkpoint(TENSORS, VALUES))
    loaded = load_checkpoint(tmp_path)
    with open(tmp_path / CHECKPOINT_FILE, "r+b") as file:
        file.write(b"\0" * (tmp_path / CHECKPOINT_FILE).stat().st_size)
    assert torch.equal(loaded.tensors["network.weight"], TENSORS["network.weight"])


def test_a_folder_without_a_checkpoint_has_none(tmp_path):
    assert load_checkpoint(tmp_path) is None
    delete_checkpoint(tmp_path)
    save_checkpoint(tmp_path, Checkpoint(TENSORS, VALUES))
    delete_checkpoint(tmp_path)
    assert load_checkpoint(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [lambda raw: b"", lambda raw: raw[:-1], lambda raw: b"PK\3\4" + raw[4:]])
def test_a_damaged_checkpoint_is_told_and_left_where_it_is(tmp_path, damage):
    save_checkpoint(tmp_path, Checkpoint(TENSORS, VALUES))
    path = tmp_path / CHECKPOINT_FILE
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelFileError, match="is not a checkpoint to resume from.*delete it to begin anew"):
        load_checkpoint(tmp_path)
    assert path.exists()


def test_a_checkpoint_that_cannot_be_read_is_not_called_damaged(tmp_path):
    (tmp_path / CHECKPOINT_FILE).mkdir()
    with pytest.raises(ModelFileError) as caught:
        load_checkpoint(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / CHECKPOINT_FILE} cannot be read ({os.strerror(errno.EISDIR)}); make it readable, or choose "
        "another --out"
    )


def is_refused(folder):
    try:
        load_checkpoint(folder)
    except ModelFileError as error:
        return str(error).endswith("; delete it to begin anew")
    return False


def test_a_byte_that_changed_is_noticed_wherever_it_is(tmp_path):
    save_checkpoint(tmp_path, Checkpoint(TENSORS, VALUES))
    path = tmp_path / CHECKPOINT_FILE
    sound = path.read_bytes()
    random_bytes = random.Random(0)
    for place in range(len(sound)):  # a header of some 600 bytes, SHA-256 and values in it, and 30 bytes of numbers
        damaged = bytearray(sound)
        damaged[place] ^= random_bytes.randrange(1, 256)
        path.write_bytes(damaged)
        assert is_refused(tmp_path), f"byte {place}"
    path.write_bytes(sound)
    assert load_checkpoint(tmp_path).values == VALUES


def test_every_single_bit_of_the_sha256_counts(tmp_path):
    save_checkpoint(tmp_path, Checkpoint(TENSORS, VALUES))
    path = tmp_path / CHECKPOINT_FILE
    sound = path.read_bytes()
    start = sound.index(b'"checkpoint":"') + len(b'"checkpoint":"')
    for place in range(start, start + 64):
        for bit in range(8):  # one of them makes a small letter a capital, which is another spelling of the same number
            path.write_bytes(sound[:place] + bytes([sound[place] ^ 1 << bit]) + sound[place + 1 :])
            assert is_refused(tmp_path), f"byte {place}, bit {bit}"


@pytest.mark.parametrize("metadata", [None, {"checkpoint": "{}"}, {"checkpoint": "0" * 64 + "{}"}, {"other": "{}"}])
def test_a_file_without_a_sha256_of_its_own_is_no_checkpoint(tmp_path, metadata):
    (tmp_path / CHECKPOINT_FILE).write_bytes(safetensors.torch.save(TENSORS, metadata))
    with pytest.raises(ModelFileError, match=r"\(its SHA-256 (is missing|differs)\)"):
        load_checkpoint(tmp_path)


def test_the_sha256_is_that_of_all_other_bytes(tmp_path):
    save_checkpoint(tmp_path, Checkpoint(TENSORS, VALUES))
    before, mark, after = (tmp_path / CHECKPOINT_FILE).read_bytes().partition(b'"checkpoint":"')
    assert after[:64].decode() == hashlib.sha256(before + mark + after[64:]).hexdigest()


def test_saving_a_checkpoint_takes_twice_its_size_and_so_does_loading_it(tmp_path):
    checkpoint = Checkpoint({str(place): torch.full((1 << 18,), float(place)) for place in range(4)}, VALUES)
    size = 4 * 4 << 18  # the tensors themselves are torch's, which tracemalloc does not see
    assert peak_bytes(lambda: save_checkpoint(tmp_path, checkpoint)) < 2.2 * size
    assert peak_bytes(lambda: load_checkpoint(tmp_path)) < 2.2 * size


def test_parts_of_two_checkpoints_do_not_make_a_third(tmp_path):
    save_checkpoint(tmp_path, Checkpoint(TENSORS, VALUES))
    path = tmp_path / CHECKPOINT_FILE
    one = path.read_bytes()
    save_checkpoint(tmp_path, Checkpoint({name: tensor + 1 for name, tensor in TENSORS.items()}, VALUES))
    other = path.read_bytes()
    assert len(one) == len(other)
    header = 8 + int.from_bytes(one[:8], "little")
    path.write_bytes(one[:header] + other[header:])
    assert is_refused(tmp_path)


def test_text_that_looks_like_the_sha256s_place_is_text(tmp_path):
    values = {"sample": '"checkpoint":"' + "0" * 64, "checkpoint": "0" * 64}
    save_checkpoint(tmp_path, Checkpoint(TENSORS, values))
    assert load_checkpoint(tmp_path).values == values


def open_full(*_):
    return open("/dev/full", "wb")


STEPS_OF_WRITING = {
    "making a folder": ("os.mkdir", raise_full_disk),
    "opening": ("charlm.model.folder.open", raise_full_disk),
    "writing": ("charlm.model.folder.open", open_full),
    "flushing": ("os.fsync", raise_full_disk),
    "moving": ("os.replace", raise_full_disk),
}


@pytest.mark.parametrize("step", STEPS_OF_WRITING)
def test_when_the_disk_is_full_the_checkpoint_before_stays(tmp_path, monkeypatch, step):
    save_checkpoint(tmp_path, Checkpoint(TENSORS, VALUES))
    before = contents(tmp_path)
    name, failing = STEPS_OF_WRITING[step]
    if failing is open_full and not os.path.exists("/dev/full"):
        pytest.skip("only Linux has a disk that is always full")
    with monkeypatch.context() as patch:
        patch.setattr(name, failing, raising=False)
        with pytest.raises(TrainingError, match="No space left on device.*make room and go on from it with --resume"):
            save_checkpoint(tmp_path, Checkpoint(TENSORS, VALUES | {"epoch": 4}))
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT_FILE]
    assert load_checkpoint(tmp_path).values["epoch"] == 3


def test_a_first_checkpoint_that_cannot_be_written_leaves_none_to_go_on_from(tmp_path, monkeypatch):
    monkeypatch.setattr("charlm.model.folder.open", raise_full_disk, raising=False)
    with pytest.raises(TrainingError) as caught:
        save_checkpoint(tmp_path, Checkpoint(TENSORS, VALUES))
    assert str(caught.value) == (
        f"cannot write a checkpoint to {tmp_path} ({os.strerror(errno.ENOSPC)}); make room and begin again"
    )
    assert caught.value.reason == "disk"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # as another process gets it
