import errno
import hashlib
import json
import os
import shutil
import socket
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from models import (
    VOCAB,
    assert_refused,
    change_config,
    contents,
    make_model,
    make_record,
    save,
)
from reference import forward_by_hand, load_plain, plain_logits

from charlm.errors import ModelFileError, RequestError
from charlm.model.cells import CELLS
from charlm.model.config import LARGEST_JSON
from charlm.model.folder import (
    MODEL_FILES,
    clear_leftovers,
    read_model,
    replace_files,
    write_model,
)

# What is written


@pytest.mark.parametrize("cell", CELLS)
def test_reading_undoes_writing(tmp_path, cell):
    model = make_model(cell)
    copy = read_model(save(model, tmp_path / "model"))
    assert copy.config == model.config and copy.history == model.history
    assert copy.weights.keys() == model.weights.keys()
    assert all(copy.weights[name].tobytes() == array.tobytes() for name, array in model.weights.items())


def test_a_folder_holds_the_five_files_of_the_contract(folder):
    assert set(contents(folder)) == {"config.json", "model.safetensors", "history.json", "loss.png", "README.md"}


def test_a_model_without_a_record_has_no_record_files(tmp_path):
    assert set(contents(save(make_model(history=False), tmp_path))) == {"config.json", "model.safetensors", "README.md"}
    assert read_model(tmp_path).history is None


def test_config_json_vouches_for_the_weights(folder):
    named = json.loads((folder / "config.json").read_text(encoding="utf-8"))["weights_sha256"]
    assert named == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("exact", [True, False], ids=["bfloat16", "float32"])
def test_plain_torch_loads_the_files_and_computes_the_same(tmp_path, cell, exact):
    model = make_model(cell)
    if not exact:
        model = replace(model, weights={name: array * np.float32(1.1) for name, array in model.weights.items()})
    plain, vocab = load_plain(save(model, tmp_path))
    ids = [0, 3, 8, 9, 9, 1, 5]
    assert vocab == VOCAB
    # both compute in float64, in another order of sums
    np.testing.assert_allclose(plain_logits(plain, ids), forward_by_hand(cell, model.weights, ids), atol=1e-10)


# A write that fails


@pytest.mark.parametrize("failing", range(1, 6))
def test_a_write_that_fails_midway_leaves_the_folder_as_it_was(folder, monkeypatch, failing):
    before, calls, really = contents(folder), [], os.replace

    def replace_until(source, target):
        calls.append(target)
        if len(calls) == failing:
            raise OSError(errno.EIO, "Input/output error")
        really(source, target)

    monkeypatch.setattr(os, "replace", replace_until)
    with pytest.raises(OSError, match="Input/output error"):
        save(make_model("lstm", seed=1), folder)
    assert contents(folder) == before
    assert os.listdir(folder.parent) == ["model"] and len(os.listdir(folder)) == 5
    read_model(folder)


def test_a_first_write_that_fails_midway_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", fail_at(os.replace, 3))
    with pytest.raises(OSError, match="No space left"):
        save(make_model(), tmp_path)
    assert os.listdir(tmp_path) == []


def fail_at(function, number):
    """Return the function such that the call of that number finds the disk full."""
    calls = []

    def call(*args):
        calls.append(args)
        if len(calls) == number:
            raise OSError(errno.ENOSPC, "No space left on device")
        return function(*args)

    return call


@pytest.mark.parametrize("failing", range(1, 6))
def test_a_disk_that_is_full_leaves_the_folder_as_it_was(folder, monkeypatch, failing):
    before = contents(folder)
    monkeypatch.setattr(os, "fsync", fail_at(os.fsync, failing))
    with pytest.raises(OSError, match="No space left"):
        save(make_model("lstm", seed=1), folder)
    assert contents(folder) == before


def test_an_interrupted_write_leaves_the_folder_as_it_was(folder, monkeypatch):
    before, really = contents(folder), os.replace

    def interrupt(source, target):
        really(source, target)
        monkeypatch.setattr(os, "replace", really)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(make_model("lstm", seed=1), folder)
    assert contents(folder) == before


def test_a_failed_write_is_undone_where_there_are_no_hard_links(folder, monkeypatch):
    before = contents(folder)

    def refuse(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "replace", fail_at(os.replace, 4))
    with pytest.raises(OSError, match="No space left"):
        save(make_model("lstm", seed=1), folder)
    assert contents(folder) == before


def test_writing_replaces_the_model_that_was_there_and_nothing_else(folder):
    (folder / "notes.txt").write_text("keep me")
    other = make_model("lstm", seed=1)
    save(other, folder)
    assert read_model(folder).config == other.config
    assert (folder / "notes.txt").read_text() == "keep me"
    assert len(os.listdir(folder)) == 6


def test_a_model_without_a_record_does_not_inherit_one(folder):
    save(make_model("lstm", history=False), folder)
    assert read_model(folder).history is None
    assert not (folder / "loss.png").exists()


@pytest.mark.slow
def test_a_place_that_can_be_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    file = tmp_path / "file"
    for place, reason in ((file, "it is a file"), (file / "model", f"{file} is a file")):
        with pytest.raises(RequestError) as refused:
            save(make_model(), place)
        assert str(refused.value) == f"cannot make the folder {place} ({reason}); choose another place"
    assert contents(tmp_path) == {"file": b"mine"}


def test_what_a_killed_write_left_behind_can_be_cleared(folder):
    before = contents(folder)
    shutil.copytree(folder, folder / ".writing-killed" / "new")
    clear_leftovers(folder)
    assert contents(folder) == before


def test_files_that_shall_not_be_there_go(tmp_path):
    replace_files(tmp_path, {"a": b"1", "b": b"2"})
    replace_files(tmp_path, {"a": None, "b": b"3", "c": None})
    assert contents(tmp_path) == {"b": b"3"}


class Killed(BaseException):
    """What stops a write where it stands, as a kill does: nothing is undone or cleared away."""


def killed_at_move(monkeypatch, number):
    """Let a write stop just before its move of that number, from 1."""
    moves, really = [], os.replace

    def move(source, target):
        moves.append(target)
        if len(moves) >= number:  # what would undo it is stopped too
            raise Killed
        really(source, target)

    monkeypatch.setattr(os, "replace", move)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)


@pytest.mark.parametrize("kept", range(6))
@pytest.mark.parametrize("history", [True, False])
def test_a_killed_write_leaves_the_old_model_or_the_new_or_one_that_is_refused(folder, monkeypatch, kept, history):
    old, new = read_model(folder), make_model("gru", seed=1, history=history)  # of the same shapes
    with monkeypatch.context() as patch:
        killed_at_move(patch, kept + 1)
        with suppress(Killed):
            save(new, folder)
    if 0 < kept < (5 if history else 3):
        assert_refused(folder, "its SHA-256 differs")
        return
    found, expected = read_model(folder), new if kept else old
    assert found.history == expected.history
    assert all(np.array_equal(found.weights[name], array) for name, array in expected.weights.items())


@pytest.mark.slow
def test_a_killed_first_write_leaves_no_model_at_all(tmp_path, monkeypatch):
    for number in range(1, 6):
        with monkeypatch.context() as patch:
            killed_at_move(patch, number)
            with pytest.raises(Killed):
                save(make_model(), tmp_path / str(number))
        assert_refused(tmp_path / str(number), "config.json is missing: this is not a whole model folder")


@pytest.mark.slow
def test_a_folder_that_a_kill_left_mixed_can_be_written_again(folder, tmp_path, monkeypatch):
    new = make_model("gru", seed=1)
    with monkeypatch.context() as patch:
        killed_at_move(patch, 3)
        with pytest.raises(Killed):
            save(new, folder)
    assert_refused(folder, "its SHA-256 differs")
    clear_leftovers(folder)
    assert contents(save(new, folder)) == contents(save(new, tmp_path / "new"))


# A folder that is damaged


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    assert_refused(folder, f"{name} is missing: this is not a whole model folder")


def test_an_empty_folder_is_no_model(tmp_path):
    assert_refused(tmp_path, "config.json is missing: this is not a whole model folder")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "history.json"])
def test_a_folder_in_the_place_of_a_file_is_refused(folder, name):
    (folder / name).unlink()
    (folder / name).mkdir()
    assert_refused(folder, f"{name} cannot be read: Is a directory")


FILES = ["config.json", "model.safetensors", "history.json"]


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_in_the_place_of_a_file_is_refused_without_waiting_for_a_writer(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert_refused(folder, f"{name} cannot be read: it is a pipe or a device, not a file")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/full"])
def test_a_link_to_a_device_is_refused(folder, name, device):
    (folder / name).unlink()
    (folder / name).symlink_to(device)
    assert_refused(folder, f"{name} cannot be read: it is a pipe or a device, not a file")


@pytest.mark.parametrize("name", FILES)
def test_a_socket_in_the_place_of_a_file_is_refused(folder, name, monkeypatch):
    (folder / name).unlink()
    monkeypatch.chdir(folder)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(name)
    assert_refused(folder, f"{name} cannot be read: No such device or address")


@pytest.mark.parametrize("name", FILES)
def test_a_link_that_leads_back_to_itself_is_refused(folder, name):
    (folder / name).unlink()
    (folder / name).symlink_to(folder / "other")
    (folder / "other").symlink_to(folder / name)
    assert_refused(folder, f"{name} cannot be read: Too many levels of symbolic links")


@pytest.mark.parametrize("name", FILES)
def test_a_link_to_nothing_is_a_missing_file(folder, name):
    (folder / name).unlink()
    (folder / name).symlink_to(folder / "nothing")
    assert_refused(folder, f"{name} is missing: this is not a whole model folder")


def test_a_folder_of_links_to_links_to_files_is_read_as_those_of_the_hub_are(folder, tmp_path):
    snapshot, blobs = tmp_path / "snapshots" / "1", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    shutil.copytree(folder, blobs)
    for name in FILES:
        (blobs / f"{name}.link").symlink_to(name)
        (snapshot / name).symlink_to(f"../../blobs/{name}.link")
    sound, linked = read_model(folder), read_model(snapshot)
    assert linked.config == sound.config and linked.history == sound.history
    assert all(np.array_equal(linked.weights[name], array) for name, array in sound.weights.items())


def test_a_file_that_cannot_be_read_is_named(folder, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert_refused(folder, "config.json cannot be read: Permission denied")


@pytest.mark.parametrize("name", ["config.json", "history.json"])
def test_a_json_file_of_a_terabyte_is_not_read(folder, name):
    with open(folder / name, "wb") as file:
        file.truncate(10**12)
    assert_refused(folder, f"{name} is larger than the 4,194,304 bytes that it can need")


@pytest.mark.parametrize("name", ["config.json", "history.json"])
def test_a_json_file_that_is_not_utf_8_is_refused(folder, name):
    (folder / name).write_bytes((folder / name).read_bytes()[:-2] + b"\xff}")
    assert_refused(folder, f"{name} is not UTF-8 text")


def test_a_configuration_that_does_not_fit_the_weights_is_noticed(folder):
    for change in ({"num_layers": 1}, {"num_layers": 3}):
        change_config(folder, **change)
        assert_refused(folder, "model.safetensors holds other tensors than config.json describes")
    change_config(folder, num_layers=2, hidden_size=9)
    assert_refused(folder, "config.json demands")
    change_config(folder, hidden_size=8, cell="lstm")
    assert_refused(folder, "config.json demands")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format_version": 1, "run": {}, "epochs": []}'])
def test_a_damaged_record_is_not_taken_for_a_missing_one(folder, text):
    (folder / "history.json").write_text(text)
    assert_refused(folder, "history.json")


def test_a_model_whose_record_is_missing_still_loads(folder):
    (folder / "history.json").unlink()
    assert read_model(folder).history is None


def test_files_of_other_names_are_not_looked_at(folder):
    (folder / "model.py").write_text("raise SystemExit('run')")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    read_model(folder)


@pytest.mark.slow
def test_a_record_that_could_not_be_read_again_is_not_written(folder):
    before = contents(folder)
    for added in ("a" * LARGEST_JSON, ["a"] * 60_001, "\ud800", float("nan")):
        with pytest.raises(ModelFileError, match=r"history\.json"):
            save(replace(make_model("gru"), history=make_record(added=added)), folder)
    assert contents(folder) == before


@pytest.mark.slow
def test_a_model_that_was_read_can_be_written_and_read_again_whatever_its_record_holds(folder, tmp_path):
    record = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    deep = 1
    for _ in range(95):
        deep = [deep]
    record["run"]["added"] = [deep] * 600  # on lines of their own, with that much space before them
    (folder / "history.json").write_text(json.dumps(record))
    model = read_model(folder)
    assert len(json.dumps(record, indent=2)) > 2 * LARGEST_JSON
    assert read_model(save(model, tmp_path / "copy")).history == model.history == record


def test_the_names_of_the_files_are_those_of_the_contract():
    assert MODEL_FILES == ("config.json", "model.safetensors", "history.json", "loss.png", "README.md")


def test_the_card_is_written_as_it_is_given(tmp_path):
    write_model(tmp_path, make_model(), "Grüße\r\n한")
    assert (tmp_path / "README.md").read_bytes() == "Grüße\r\n한".encode()


def test_the_picture_is_written_as_it_is_given_and_none_is_made(folder):
    write_model(folder, make_model(), "a card", b"a picture")
    assert (folder / "loss.png").read_bytes() == b"a picture"
    write_model(folder, make_model(), "a card")
    assert not (folder / "loss.png").exists()
