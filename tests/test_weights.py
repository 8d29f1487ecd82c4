"""The models that come with the app: sound, small, and as good as they say."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from browser import ROOT
from reference import load_plain

from charlm.folder import MODEL_FILES, read_model

FOLDERS = sorted((ROOT / "weights").iterdir())
each_model = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def test_a_recurrent_network_and_an_lstm_are_there():
    assert [folder.name for folder in FOLDERS] == ["shakespeare-lstm", "shakespeare-rnn"]


@each_model
def test_a_folder_holds_the_files_of_a_model_in_at_most_ten_megabytes(folder):
    assert {path.name for path in folder.iterdir()} == set(MODEL_FILES)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 10_000_000


@each_model
def test_plain_torch_reads_it(folder):
    model, vocab = load_plain(folder)
    assert sum(tensor.numel() for tensor in model.parameters()) == read_model(folder).history["run"]["parameters"]
    _, state = model(torch.tensor([vocab.index(symbol) for symbol in "ROMEO:"]))
    assert vocab[int(model(torch.tensor([vocab.index("\n")]), state)[0][-1].argmax())].isupper()


@each_model
def test_its_figures_can_be_had_again_and_are_good_enough_to_ship(folder):
    if not Path(os.environ.get("CHARLM_DATA", "nowhere"), "tinyshakespeare.txt").is_file():
        pytest.skip("CHARLM_DATA names no folder with tinyshakespeare.txt to measure on")
    command = ["-m", "train", "evaluate", str(folder), "--text", "tinyshakespeare", "--json"]
    measured = json.loads(subprocess.check_output([sys.executable, *command], cwd=ROOT, text=True))
    best = read_model(folder).history["best"]
    assert measured["val_loss"] == pytest.approx(best["val_loss"], abs=1e-3)
    assert measured["val_loss_reset256"] == pytest.approx(best["val_loss_reset256"], abs=1e-3)
    assert measured["val_loss"] <= {"lstm": 1.46, "rnn": 1.60}[read_model(folder).config.cell]
