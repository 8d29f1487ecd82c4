"""The models that come with the app: sound, small, and as good as they say."""

import hashlib
import json
import os
import re
import string
import textwrap
from pathlib import Path

import pytest
import torch
from browser import ROOT
from commands import run_train
from huggingface_hub import metadata_load
from reference import load_plain

from charlm.lm import CharLM
from charlm.model.card import model_card
from charlm.model.folder import MODEL_FILES, read_model
from charlm.text import read_text

FOLDERS = sorted((ROOT / "weights").iterdir())
each_model = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


# What val_loss and its companion may be at most.
AT_MOST = {
    "shakespeare-lstm": {"val_loss": 1.35, "val_loss_reset256": 1.38},
    "shakespeare-gru": {"val_loss": 1.355, "val_loss_reset256": 1.385},
    "shakespeare-rnn": {"val_loss": 1.43, "val_loss_reset256": 1.455},
    "homework-lstm": {"val_loss": 0.6159},
    "homework-rnn": {"val_loss": 1.2271},
    "names-gru": {"val_loss": 1.96},
    "c-lstm": {"val_loss": 1.07, "val_loss_reset256": 1.14},
    "warpeace-lstm": {"val_loss": 1.095, "test_loss": 1.09},
    "hongloumeng-lstm": {"val_loss": 3.75},
}
# Where the text of a model is, in the folder that CHARLM_DATA names; the model's card says how to make names.txt.
TEXTS = dict.fromkeys(AT_MOST, "tinyshakespeare.txt") | {
    "names-gru": "names.txt",
    "c-lstm": "lua.c.txt",
    "warpeace-lstm": "warpeace.txt",
    "hongloumeng-lstm": "hongloumeng.txt",
}
# The beginning of each text's kind, and the symbols of which one is the likeliest after it.
LIKELY_NEXT = {
    "tinyshakespeare.txt": ("ROMEO:\n", string.ascii_uppercase),
    "names.txt": ("Maria\n", string.ascii_uppercase),
    "lua.c.txt": ("#include <stdio.", "h"),
    "warpeace.txt": ("Prince Andre", "w"),
    "hongloumeng.txt": ("宝玉笑", "道"),
}
# To measure the models of novels takes minutes, so the tests read only the first 20,000 symbols of their validation
# texts. These are the losses there, in nats. `evaluate` gave the figures of the whole texts again for the same weights.
BEGINNINGS = {"warpeace-lstm": 0.9453, "hongloumeng-lstm": 3.6775}


def test_the_models_that_the_readme_names_are_there():
    assert {folder.name for folder in FOLDERS} == set(AT_MOST)


@each_model
def test_a_folder_holds_the_files_of_a_model_in_at_most_twenty_megabytes(folder):
    assert {path.name for path in folder.iterdir()} == set(MODEL_FILES)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 20_000_000


@each_model
def test_plain_torch_reads_it(folder):
    model, vocab = load_plain(folder)
    assert sum(tensor.numel() for tensor in model.parameters()) == read_model(folder).history["run"]["parameters"]
    read, expected = LIKELY_NEXT[TEXTS[folder.name]]
    logits, _ = model(torch.tensor([vocab.index(symbol) for symbol in read]))
    assert vocab[int(logits[-1].argmax())] in expected


@each_model
def test_its_card_is_what_the_code_makes_today(folder):
    """CHARLM_CARDS=1 writes the cards anew, after a change of what a card says."""
    card, model = folder / "README.md", read_model(folder)
    if os.environ.get("CHARLM_CARDS"):
        samples = CharLM(model.config, model.weights, device="cpu").write_samples()
        card.write_text(model_card(model.config, model.history, samples), encoding="utf-8")
    written = card.read_text(encoding="utf-8")
    # with the samples that it shows: another processor may round otherwise, and write others
    widget = metadata_load(card)["widget"]
    samples = {entry["parameters"]["temperature"]: entry["output"]["text"] for entry in widget}
    assert list(samples) == [0.5, 1.0, 1.5]
    assert written == model_card(model.config, model.history, samples)


def text_of(model):
    """Return the file with the text that a model learnt from, checked against its record; skip the test without it."""
    text = Path(os.environ.get("CHARLM_DATA", "nowhere"), TEXTS[model.name])
    if not text.is_file():
        pytest.skip(f"CHARLM_DATA names no folder with {text.name} to measure on")
    run = read_model(model).history["run"]
    assert hashlib.sha256(read_text(text).encode()).hexdigest() == run["text_sha256"]
    return text


def make_war_and_peace(source, folder, monkeypatch):
    """What the lines of Python in the card of the model make of its source."""
    card = (ROOT / "weights" / "warpeace-lstm" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^    from pathlib import Path\n(?:    .+\n)+", card, re.MULTILINE)
    (folder / "warpeace_input.txt").write_bytes(source)
    monkeypatch.chdir(folder)
    exec(textwrap.dedent(code), {})
    return (folder / "warpeace.txt").read_bytes(), card


def test_the_card_of_war_and_peace_makes_line_ends_that_are_read_as_such(tmp_path, monkeypatch):
    made, _ = make_war_and_peace(b"\xef\xbb\xbfone\rtwo\r\rthree\r", tmp_path, monkeypatch)
    assert made == b"\xef\xbb\xbfone\r\ntwo\r\n\r\nthree"
    assert read_text(tmp_path / "warpeace.txt") == "one\ntwo\n\nthree"


def test_the_card_of_war_and_peace_makes_the_text_that_the_model_learnt_from(tmp_path, monkeypatch):
    whole = text_of(ROOT / "weights" / "warpeace-lstm").read_bytes()
    made, card = make_war_and_peace(whole.replace(b"\r\n", b"\r") + b"\r", tmp_path, monkeypatch)
    assert made == whole
    assert f"{len(whole):,} bytes" in card and hashlib.sha256(whole).hexdigest() in card


@pytest.mark.parametrize("name", BEGINNINGS)
def test_a_model_of_a_novel_has_the_loss_that_it_had_when_it_was_measured_whole(name):
    folder = ROOT / "weights" / name
    text, history = read_text(text_of(folder)), read_model(folder).history
    start = history["run"]["split"]["train_chars"]
    loss = CharLM.from_pretrained(folder, device="cpu").score(text[start : start + 20_000]).mean()
    assert loss == pytest.approx(BEGINNINGS[name], abs=1e-3)
    for figure, bound in AT_MOST[name].items():
        assert history["best"][figure] <= bound


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in AT_MOST if name not in BEGINNINGS])
def test_its_figures_can_be_had_again_and_are_good_enough_to_ship(name, monkeypatch, capsys):
    folder = ROOT / "weights" / name
    text, model = text_of(folder), read_model(folder)
    protocol, best = model.history["run"]["protocol"], model.history["best"]
    named = text.stem if text.stem == "tinyshakespeare" else text  # as it was in training
    run_train(monkeypatch, "evaluate", folder, "--text", named, "--protocol", protocol, "--json")
    measured = json.loads(capsys.readouterr().out)
    recorded = {figure: loss for figure, loss in best.items() if figure != "epoch"}
    if protocol == "windows":
        recorded["unseen_loss"] = model.history["epochs"][best["epoch"] - 1]["unseen_loss"]
    assert measured == pytest.approx(recorded, abs=1e-3)
    for figure, bound in AT_MOST[name].items():
        assert measured[figure] <= bound


@pytest.mark.parametrize("name", ["homework-lstm", "homework-rnn"])
def test_the_homeworks_curves_show_what_it_hid(name):
    """The loss on windows that overlap with those that train falls while that on unseen text rises."""
    epochs = read_model(ROOT / "weights" / name).history["epochs"]
    assert epochs[-1]["val_loss"] < epochs[0]["val_loss"]
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"]
    assert epochs[-1]["unseen_loss"] > min(epoch["unseen_loss"] for epoch in epochs) + 0.1
    assert epochs[-1]["unseen_loss"] > epochs[-1]["val_loss"] + 0.3


@pytest.mark.parametrize("name", ["homework-lstm", "homework-rnn"])
def test_a_homework_has_the_architecture_and_the_windows_of_the_one_it_repeats(name):
    run = read_model(ROOT / "weights" / name).history["run"]
    sizes = {"num_layers": 2, "hidden_size": 256, "embedding_size": 256, "batch_size": 64, "seq_length": 30}
    assert {setting: run[setting] for setting in sizes} == sizes
    assert run["epochs"] <= 20


def test_the_model_of_names_has_less_than_a_megabyte_of_weights_and_a_card_that_tells_where_the_names_come_from():
    folder = ROOT / "weights" / "names-gru"
    assert (folder / "model.safetensors").stat().st_size < 1_000_000
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert metadata_load(folder / "README.md")["license"] == "mit"
    assert "uv run examples/names_text.py names.txt" in card and "public domain" in card


def test_the_model_of_names_writes_names():
    """Of what it writes, nearly every line is a capital letter and small ones, and few are written twice."""
    lm = CharLM.from_pretrained(ROOT / "weights" / "names-gru", device="cpu")
    lines = lm.generate("", 2000, seed=1).split("\n")[:-1]
    assert sum(re.fullmatch("[A-Z][a-z]{1,14}", line) is not None for line in lines) >= 0.98 * len(lines)
    assert len(set(lines)) >= 0.9 * len(lines)
