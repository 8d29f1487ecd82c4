import os
import signal

import pytest
import torch

from charlm.errors import ModelFileError, TrainingError
from train.checkpoint import (
    CHECKPOINT_FILE,
    Checkpoint,
    Interrupts,
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
    with pytest.raises(ModelFileError, match="is no checkpoint to resume from.*delete it to begin anew"):
        load_checkpoint(tmp_path)
    assert path.exists()


def test_when_the_disk_is_full_the_checkpoint_before_stays(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, Checkpoint(TENSORS, VALUES))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainingError, match="No space left on device.*make room and go on from it with --resume"):
        save_checkpoint(tmp_path, Checkpoint(TENSORS, VALUES | {"epoch": 4}))
    assert load_checkpoint(tmp_path).values["epoch"] == 3
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT_FILE]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_inside_a_held_block_comes_at_its_end(number):
    done = []

    def work(interrupts):
        with interrupts.held():
            signal.raise_signal(number)
            done.append("the rest of the block")

    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            work(interrupts)
        assert done
        assert interrupts.signal == number


def test_an_interrupt_outside_a_held_block_comes_at_once():
    with Interrupts() as interrupts:
        with interrupts.held():
            pass
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_the_handlers_from_before_are_back_afterwards():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interrupts():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
