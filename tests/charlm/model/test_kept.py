import hashlib
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from models import contents, keep_epochs, make_model, make_record, put_weights, read_config, save
from reference import load_plain, log_softmax, plain_logits

from charlm.errors import ModelFileError, RequestError
from charlm.lm import CharLM
from charlm.model.card import model_card
from charlm.model.folder import is_model_file, read_epoch, read_model
from charlm.model.history import read_history, runs_until_best
from charlm.model.kept import is_kept

TEXT = "a bad cab"


@pytest.fixture
def folder(tmp_path):
    return save(make_model(), tmp_path / "model")


def test_the_epochs_that_are_kept_are_fibonaccis_numbers_and_the_last():
    assert [epoch for epoch in range(1, 41) if is_kept(epoch, 40)] == [1, 2, 3, 5, 8, 13, 21, 34, 40]
    assert [epoch for epoch in range(1, 5001) if is_kept(epoch, 5000)][-3:] == [2584, 4181, 5000]
    assert is_kept(1, 1)


def test_a_model_at_an_epoch_predicts_as_plain_torch_with_its_file_does(folder, tmp_path):
    keep_epochs(folder, 1, 2)
    for epoch in (1, 2):
        plain_folder = tmp_path / f"plain-{epoch}"
        shutil.copytree(folder, plain_folder)
        put_weights(plain_folder, (folder / "epochs" / f"000{epoch}.safetensors").read_bytes())
        plain, vocab = load_plain(plain_folder)
        logits = plain_logits(plain, [vocab.index(symbol) for symbol in TEXT])
        expected = [-log_softmax(row)[vocab.index(symbol)] for row, symbol in zip(logits, TEXT[1:], strict=False)]
        lm = CharLM.from_pretrained(folder, epoch=epoch, device="cpu")
        assert lm.score(TEXT) == pytest.approx(expected, abs=1e-4)  # float32 against float64


def test_the_record_of_a_model_at_an_epoch_ends_there_and_it_can_be_saved(folder, tmp_path):
    kept = keep_epochs(folder, 1, 3)
    whole = CharLM.from_pretrained(folder).history
    lm = CharLM.from_pretrained(folder, epoch=3)
    assert lm.history["epochs"] == whole["epochs"]
    assert lm.history["best"] == {"epoch": 3, "val_loss": 1.75}
    assert lm.weights_sha256 == whole["epochs"][2]["weights_sha256"]
    first = CharLM.from_pretrained(folder, epoch=1)
    first.save_pretrained(tmp_path / "first")
    saved = read_model(tmp_path / "first")
    assert all(np.array_equal(array, kept[1][name]) for name, array in saved.weights.items())
    assert saved.history["best"] == {"epoch": 1, "val_loss": 2.0}


def test_a_model_at_an_epoch_still_has_its_earlier_runs_when_it_is_saved(folder, tmp_path):
    keep_epochs(folder, 1)
    path = folder / "history.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["earlier_runs"] = runs_until_best(make_record((3.0, 2.5)), "before")
    path.write_text(json.dumps(record), encoding="utf-8")
    CharLM.from_pretrained(folder, epoch=1).save_pretrained(tmp_path / "first")
    assert read_model(tmp_path / "first").history["earlier_runs"] == record["earlier_runs"]


@pytest.mark.parametrize("kept", [(), (1, 3)])
def test_an_epoch_that_was_not_kept_is_refused_with_those_that_were(folder, kept):
    keep_epochs(folder, *kept)
    with pytest.raises(RequestError) as caught:
        CharLM.from_pretrained(folder, epoch=2)
    assert str(caught.value) == f"{folder} has not kept the weights of epoch 2; " + (
        "choose one of 1, 3" if kept else "leave the epoch out, or train with --keep-epochs: none was kept"
    )


def test_a_model_without_a_record_has_kept_nothing(tmp_path):
    folder = save(make_model(history=False), tmp_path / "model")
    with pytest.raises(RequestError, match="has not kept the weights of epoch 1"):
        CharLM.from_pretrained(folder, epoch=1)


def test_without_a_sound_record_no_epoch_can_be_loaded(folder):
    keep_epochs(folder, 1)
    (folder / "history.json").write_text("{}", "utf-8")
    with pytest.raises(ModelFileError) as caught:
        CharLM.from_pretrained(folder, epoch=1)
    assert str(caught.value) == (
        f"{folder}: history.json says format_version None; it must be a whole number from 1; it names the weights of "
        "epochs: mend it, or leave the epoch out"
    )


def test_a_record_that_names_very_many_epochs_makes_no_long_message(tmp_path):
    record = make_record([2.0] * 1000)
    for epoch in record["epochs"]:
        epoch["weights_sha256"] = "0" * 64
    folder = save(replace(make_model(), history=record), tmp_path / "many")
    with pytest.raises(RequestError) as caught:
        CharLM.from_pretrained(folder, epoch=1001)
    assert str(caught.value).endswith("; choose one of " + ", ".join(map(str, range(1, 31))) + ", …")


def test_the_card_names_the_epochs_that_were_kept(folder):
    assert "epoch=" not in model_card(read_config(folder), read_model(folder).history)
    keep_epochs(folder, 1, 3)
    card = model_card(read_config(folder), read_model(folder).history)
    assert "The weights after epochs 1, 3 are in the folder `epochs`" in card
    assert 'CharLM.from_pretrained("USER/MODEL", epoch=1)' in card


@pytest.mark.parametrize("epoch", [0, -1, 1.5, "1", True])
def test_an_epoch_is_a_whole_number_from_1(folder, epoch):
    with pytest.raises(RequestError, match="epoch"):
        CharLM.from_pretrained(folder, epoch=epoch)


def other_model(folder):
    packed = (save(make_model("gru"), folder / "other") / "model.safetensors").read_bytes()
    record = json.loads((folder / "history.json").read_text("utf-8"))
    record["epochs"][0]["weights_sha256"] = hashlib.sha256(packed).hexdigest()
    (folder / "history.json").write_text(json.dumps(record), "utf-8")
    return packed


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: None, "is missing: get it again, or leave the epoch out"),
        (lambda folder: b"", "is not the file that history.json describes (its SHA-256 differs)"),
        (
            lambda folder: (folder / "model.safetensors").read_bytes(),
            "is not the file that history.json describes (its SHA-256 differs)",
        ),
        (other_model, "has shape [24, 5]; config.json demands [32, 5]"),
        (lambda folder: b"\0" * 10**7, "is larger than the"),
    ],
    ids=["missing", "empty", "of another epoch", "of another model", "too large"],
)
def test_weights_of_an_epoch_that_are_not_sound_are_refused_and_the_model_still_loads(folder, damage, message):
    keep_epochs(folder, 1)
    path = folder / "epochs" / "0001.safetensors"
    content = damage(folder)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(ModelFileError) as caught:
        CharLM.from_pretrained(folder, epoch=1)
    assert str(caught.value).startswith(f"{folder}: epochs/0001.safetensors")
    assert message in str(caught.value)
    assert read_model(folder).config == read_config(folder)


def test_a_pipe_in_place_of_weights_is_not_waited_for(folder):
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no pipes in folders")
    keep_epochs(folder, 1)
    (folder / "epochs" / "0001.safetensors").unlink()
    os.mkfifo(folder / "epochs" / "0001.safetensors")
    with pytest.raises(ModelFileError, match=r"epochs/0001.safetensors cannot be read: it is a pipe"):
        read_epoch(folder, read_model(folder), 1)


@pytest.mark.parametrize("sha256", [5, None, "", "ab", "g" * 64, "../../etc/passwd"])
def test_a_sha256_of_an_epoch_that_is_none_is_named(folder, sha256):
    record = json.loads((folder / "history.json").read_text("utf-8"))
    record["epochs"][1]["weights_sha256"] = sha256
    with pytest.raises(ModelFileError, match=r"epochs\[1\].weights_sha256 must be a string of 64 hexadecimal digits"):
        read_history(json.dumps(record))


@pytest.mark.parametrize(
    ("path", "is_ours"),
    [
        ("config.json", True),
        ("epochs/0001.safetensors", True),
        ("epochs/1.safetensors", False),
        ("epochs/0001.safetensors.bin", False),
        ("epochs/../0001.safetensors", False),
        ("sub/epochs/0001.safetensors", False),
        ("epochs/notes.txt", False),
    ],
)
def test_only_weights_of_epochs_are_files_of_a_model_in_the_folder_epochs(path, is_ours):
    assert is_model_file(path) is is_ours


def test_reading_a_model_leaves_its_folder_as_it_was(folder):
    keep_epochs(folder, 1)
    before = contents(folder)
    CharLM.from_pretrained(folder, epoch=1)
    assert contents(folder) == before
