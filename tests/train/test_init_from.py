import hashlib
import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from models import contents, make_config, make_model, make_weights, save
from reference import load_plain, mean_loss, plain_logits
from stopping import StopAt

from charlm.errors import RequestError
from charlm.model.cells import CELLS
from charlm.model.folder import Model, read_model
from train import init_from, trainer
from train.checkpoint import load_checkpoint
from train.config import START_DEFAULTS, TrainConfig
from train.data import make_text
from train.encode import encode_pieces
from train.init_from import ARCHITECTURE, load_start_model
from train.loop import fit
from train.protocols import PROTOCOLS
from train.report import Report

pytestmark = pytest.mark.usefixtures("no_pictures")

OLD = "the cat sat on the mat; the dog sat on the log.\n" * 40
NEW = ("Čí je the cat? Můj.\n" * 50)[:997]
GIVEN = {"hidden_size": 12, "embedding_size": 6, "device": "cpu", "seq_length": 16, "batch_size": 4, "seed": 1}


def text_of(content, known="", name="new"):
    return make_text(name, encode_pieces([content], name, known=known))


def with_known(content, start):
    """A text as `fit` needs it to begin with a model."""
    return replace(text_of(content, start.lm.vocab.symbols), known=start.lm.vocab.symbols)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of OLD, as a folder."""
    out = tmp_path_factory.mktemp("trained") / "cats-gru"
    config = TrainConfig("gru", epochs=3, lr=0.03, dropout=0.2, **GIVEN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("charlm.model.card.draw_curves", lambda history, title: b"picture")
        fit(text_of(OLD, name="cats"), out, config, Report())
    return out


def begin(start, content, out, report=None, **given):
    config = TrainConfig(**start.settings({"device": "cpu", "seq_length": 16, "batch_size": 4} | given))
    return fit(with_known(content, start), out, config, report or Report(), start=start)


# The weights


@pytest.mark.parametrize("cell", CELLS)
def test_known_symbols_keep_their_rows_and_new_ones_get_the_mean_and_a_bias_that_fits_their_frequency(tmp_path, cell):
    vocab = "😀hca etn.s"  # in no order
    config = make_config(cell, vocab)
    start = load_start_model(str(save(Model(config, make_weights(config, scale=0.3), None), tmp_path / "start")))
    content = "the cat; Émile, the cat; een 猫\n" * 40
    protocol = PROTOCOLS["holdout"](with_known(content, start))
    old, new, symbols = start.lm.network.export_weights(), start.widened(protocol), protocol.vocab.symbols
    assert symbols == "".join(sorted(set(vocab) | set(content)))
    for name, tensor in new.items():
        if name.startswith("recurrent."):
            np.testing.assert_array_equal(tensor, old[name])
            continue
        for place, symbol in enumerate(symbols):
            if symbol in vocab:
                np.testing.assert_array_equal(tensor[place], old[name][vocab.index(symbol)])
            elif name != "head.bias":
                np.testing.assert_allclose(tensor[place], old[name].mean(axis=0), atol=1e-6)

    # by plain torch: the mean probability of each new symbol is its share of the characters that train
    widened = make_config(cell, symbols)
    plain, _ = load_plain(save(Model(widened, new, None), tmp_path / "widened"))
    train = content[: int(0.9 * len(content))]
    logits = plain_logits(plain, [symbols.index(symbol) for symbol in train])
    probabilities = torch.softmax(torch.from_numpy(logits), 1).mean(0).numpy()
    for symbol in set(content) - set(vocab):
        assert probabilities[symbols.index(symbol)] == pytest.approx(train.count(symbol) / len(train), rel=0.02)


@pytest.mark.parametrize("most_logits", [1, 2**20])
def test_a_text_in_another_script_begins_better_than_by_guessing_any_symbol(tmp_path, monkeypatch, most_logits):
    monkeypatch.setattr(init_from, "MOST_LOGITS", most_logits)  # one position is read, or all
    start = load_start_model(str(save(make_model("lstm", vocab="abc\n"), tmp_path / "start")))
    content = "а б в г д е ж а а а а а а а а а а а б б б б " * 40
    protocol = PROTOCOLS["holdout"](with_known(content, start))
    config = make_config("lstm", protocol.vocab.symbols)
    plain, symbols = load_plain(save(Model(config, start.widened(protocol), None), tmp_path / "widened"))
    val = [symbols.index(symbol) for symbol in content[int(0.9 * len(content)) :]]
    assert mean_loss(plain, val) < 0.8 * np.log(len(symbols))


def test_a_symbol_that_does_not_train_has_half_an_occurrence(tmp_path):
    start = load_start_model(str(save(make_model("rnn", vocab="ab"), tmp_path / "start")))
    content = "ab" * 450 + "abz" * 30
    protocol = PROTOCOLS["holdout"](with_known(content, start))
    assert protocol.untrained == {"z": 30}
    config = make_config("rnn", "abz")
    plain, _ = load_plain(save(Model(config, start.widened(protocol), None), tmp_path / "widened"))
    logits = plain_logits(plain, [0, 1] * 445)
    assert torch.softmax(torch.from_numpy(logits), 1).mean(0)[2] == pytest.approx(0.5 / 891.5, rel=0.05)


def test_windows_have_the_symbols_of_both_texts_too(tmp_path, monkeypatch):
    monkeypatch.setattr("train.protocols.WINDOWS_TEXT", 100)
    start = load_start_model(str(save(make_model("rnn", vocab="abzq"), tmp_path / "start")))
    protocol = PROTOCOLS["windows"](with_known("ab한" * 40 + "xy", start))
    assert protocol.vocab.symbols == "abqz한"
    assert {name: len(start.widened(protocol)[name]) for name in ("embedding.weight", "head.bias")} == {
        "embedding.weight": 5,
        "head.bias": 5,
    }


# The settings


def test_the_architecture_is_that_of_the_model_and_the_defaults_those_for_it(trained):
    start = load_start_model(str(trained))
    assert start.settings({}) == {
        "cell": "gru",
        "hidden_size": 12,
        "embedding_size": 6,
        "num_layers": 2,
        "dropout": 0.2,
        **START_DEFAULTS,
    }
    assert start.settings({"lr": 0.5, "epochs": 9, "dropout": 0.0, "cell": "gru", "num_layers": 2}) | {"seed": 0} == {
        **start.settings({}),
        **{"lr": 0.5, "epochs": 9, "dropout": 0.0, "seed": 0},
    }


@pytest.mark.parametrize(
    ("name", "value", "has"),
    [("cell", "lstm", "gru"), ("hidden_size", 13, 12), ("embedding_size", 512, 6), ("num_layers", 1, 2)],
)
def test_a_setting_that_contradicts_the_architecture_is_refused_by_name(trained, name, value, has):
    assert name in ARCHITECTURE
    with pytest.raises(RequestError) as caught:
        load_start_model(str(trained)).settings({name: value})
    assert str(caught.value) == (
        f"--{name.replace('_', '-')} {value} contradicts cats-gru, which has {has}: leave it out, "
        "or train without --init-from"
    )


# The training


@pytest.mark.slow
def test_the_record_says_what_it_began_with_and_how_good_that_was_on_both_texts(trained, tmp_path, capsys):
    start = load_start_model(str(trained))
    content = OLD.replace("cat", "hog")[:999]
    config = TrainConfig(**start.settings({"device": "cpu", "seq_length": 16, "batch_size": 4}))
    history = fit(
        with_known(content, start), tmp_path / "out", config, Report(), start=start, also_text=text_of(OLD, name="old")
    )
    said = capsys.readouterr().err
    assert history == json.loads((tmp_path / "out" / "history.json").read_text(encoding="utf-8"))
    run, best = history["run"], history["best"]
    sha256 = hashlib.sha256((trained / "model.safetensors").read_bytes()).hexdigest()
    assert run["init_from"] == {"name": "cats-gru", "revision": None, "weights_sha256": sha256}
    also_sha256 = hashlib.sha256(OLD.encode()).hexdigest()
    assert run["also_text"] == {"name": "old", "text_sha256": also_sha256, "val_chars": len(OLD) // 10}
    assert (run["epochs"], run["lr"], run["warm_up"]) == tuple(START_DEFAULTS.values())

    def loss(folder, content):
        plain, vocab = load_plain(folder)
        return mean_loss(plain, [vocab.index(symbol) for symbol in content[int(0.9 * len(content)) :]])

    assert run["before"] == pytest.approx(
        {"val_loss": loss(trained, content), "also_text_loss": loss(trained, OLD)}, abs=1e-5
    )
    assert best["also_text_loss"] == pytest.approx(loss(tmp_path / "out", OLD), abs=1e-5)
    assert best["val_loss"] < run["before"]["val_loss"]
    assert f"begins with cats-gru: validation loss {run['before']['val_loss']:.4f} before the first step\n" in said
    assert f"old: validation loss {run['before']['also_text_loss']:.4f} before the first step" in said
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    before = f"the validation loss of the model that it began with was {run['before']['val_loss']:.4f}."
    assert before in card
    assert "base_model" not in card


@pytest.mark.slow
def test_a_text_like_the_old_one_is_learnt_sooner_than_from_random_weights(trained, tmp_path, capsys):
    start = load_start_model(str(trained))
    begun = begin(start, NEW, tmp_path / "begun", epochs=2, lr=0.01)
    new = len(set(NEW) - set(OLD))
    assert f"before the first step; {new} symbols of the text are new to it\n" in capsys.readouterr().err
    settings = {name: begun["run"][name] for name in (*ARCHITECTURE, "epochs", "dropout", "seq_length", "batch_size")}
    scratch = fit(text_of(NEW), tmp_path / "scratch", TrainConfig(**settings, lr=0.01, device="cpu"), Report())
    assert begun["best"]["val_loss"] < scratch["best"]["val_loss"]
    written = read_model(tmp_path / "begun").config.vocab
    assert set(written) == set(OLD) | set(NEW)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [{"steps": 1}, {"epochs": 1}])
def test_an_interrupted_run_goes_on_to_the_same_model_bit_for_bit(trained, tmp_path, monkeypatch, stop):
    monkeypatch.setattr("train.trainer.SECONDS_BETWEEN_PROGRESS", -1)  # report every step
    start = load_start_model(str(trained))
    straight = begin(start, NEW, tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        begin(start, NEW, tmp_path / "stopped", StopAt(**stop))
    assert load_checkpoint(tmp_path / "stopped").values["run"]["before"] == straight["run"]["before"]
    config = TrainConfig(**start.settings({"device": "cpu", "seq_length": 16, "batch_size": 4}))
    resumed = fit(with_known(NEW, start), tmp_path / "stopped", config, Report(), resume=True, start=start)
    assert resumed["best"] == straight["best"] and resumed["run"] == straight["run"]
    name = "model.safetensors"
    assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


@pytest.mark.slow
def test_the_record_begins_with_the_runs_that_learnt_from_the_same_text(trained, tmp_path, monkeypatch):
    first = load_start_model(str(trained))
    begin(first, OLD, tmp_path / "second", lr=0.01)
    second = load_start_model(str(tmp_path / "second"))
    third = begin(second, OLD, tmp_path / "third", lr=0.001)
    records = {"cats-gru": first.lm.history, "second": second.lm.history}
    assert [run["name"] for run in third["earlier_runs"]] == list(records)
    for run, record in zip(third["earlier_runs"], records.values(), strict=True):
        assert run["epochs"] == record["epochs"][: record["best"]["epoch"]]
    assert read_model(tmp_path / "third").history == third
    card = (tmp_path / "third" / "README.md").read_text(encoding="utf-8")
    count = sum(len(run["epochs"]) for run in third["earlier_runs"])
    assert f"The curves begin with {count} epochs of earlier runs: `cats-gru`, `second`." in card

    assert "earlier_runs" not in begin(second, NEW, tmp_path / "other-text")
    assert "earlier_runs" not in begin(second, OLD, tmp_path / "other-split", split="0.8,0.2")
    monkeypatch.setattr(trainer, "MOST_RECORDED_EPOCHS", 3)  # the two runs and the new one have more
    assert "earlier_runs" not in begin(second, OLD, tmp_path / "too-many-epochs")
    monkeypatch.undo()
    monkeypatch.setattr(trainer, "MOST_EARLIER_RUNS", 1)
    assert "earlier_runs" not in begin(second, OLD, tmp_path / "too-many-runs")


@pytest.mark.slow
def test_a_run_that_was_interrupted_still_knows_the_runs_before_it(trained, tmp_path):
    start = load_start_model(str(trained))
    straight = begin(start, OLD, tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        begin(start, OLD, tmp_path / "stopped", StopAt(epochs=1))
    start.lm.history = None  # the folder that it began with may have lost its record meanwhile
    settings = start.settings({"device": "cpu", "seq_length": 16, "batch_size": 4})

    def resume(**more):
        config = TrainConfig(**settings | more)
        return fit(with_known(OLD, start), tmp_path / "stopped", config, Report(), resume=True, start=start)

    assert resume()["earlier_runs"] == straight["earlier_runs"] != []
    longer = resume(epochs=4)
    assert (len(longer["epochs"]), longer["earlier_runs"]) == (4, straight["earlier_runs"])


@pytest.mark.slow
def test_a_stranger_s_record_does_not_make_the_new_one_too_large(trained, tmp_path):
    start = load_start_model(str(trained))
    start.lm.history["epochs"][0] |= {"sample": "\x01" * 10**6, "added": "x" * 10**6}
    start.lm.history |= {"earlier_runs": [{"name": "n" * 10**6, "epochs": start.lm.history["epochs"][:1]}]}
    history = begin(start, OLD, tmp_path / "out")
    assert len(history["earlier_runs"]) == 2 and read_model(tmp_path / "out").history == history
    start.lm.history |= {"earlier_runs": history["earlier_runs"] * 30}
    assert "earlier_runs" not in begin(start, OLD, tmp_path / "many")


@pytest.mark.slow
def test_a_run_goes_on_only_from_the_model_that_it_began_with(trained, tmp_path):
    start = load_start_model(str(trained))
    begin(start, OLD, tmp_path / "out")
    before = contents(tmp_path / "out")
    other = save(make_model("gru", vocab=start.lm.config.vocab, embedding_size=6, hidden_size=12), tmp_path / "other")
    config = TrainConfig(**start.settings({"device": "cpu", "seq_length": 16, "batch_size": 4}))
    for again, named in [(None, "random weights"), (load_start_model(str(other)), "other (")]:
        text = text_of(OLD) if again is None else with_known(OLD, again)
        with pytest.raises(RequestError) as caught:
            fit(text, tmp_path / "out", config, Report(), resume=True, start=again)
        assert f"holds a run that began with cats-gru ({start.lm.weights_sha256}), not with {named}" in str(
            caught.value
        )
    assert contents(tmp_path / "out") == before


# Names


def test_a_model_of_the_hub_is_recorded_with_its_repository_and_commit(hub, tmp_path):
    files = contents(save(make_model("gru"), tmp_path / "model"))
    repo = hub.add_repo("ada/poems", files)
    first = repo.refs["main"]
    repo.commit(contents(save(make_model("gru", seed=1), tmp_path / "other")))
    start = load_start_model("hf://ada/poems")
    assert (start.name, start.revision) == ("ada/poems", repo.refs["main"])
    pinned = start.at(first)
    assert start.at(None) is start.at(start.revision) is start
    sha256 = hashlib.sha256(files["model.safetensors"]).hexdigest()
    assert pinned.record() == {"name": "ada/poems", "revision": first, "weights_sha256": sha256}


def test_a_folder_is_recorded_without_the_path_to_it(tmp_path, monkeypatch):
    folder = save(make_model("gru"), tmp_path / "ada" / "poems")
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ada/poems could be a repository, too
        assert {load_start_model(name).name for name in (str(folder), "./ada/poems", "ada/poems")} == {"poems"}
    monkeypatch.chdir(folder)
    assert load_start_model(".").record()["name"] == "poems"
