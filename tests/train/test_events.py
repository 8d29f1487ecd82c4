import json
import time
from pathlib import Path
from threading import Event

import pytest
from commands import run_train

from charlm.lm import CharLM
from train.events import fit_events

VERSE = "the cat sat on the mat, and the dog ran to the man.\n" * 40
SETTINGS = {"cell": "gru", "epochs": 2, "hidden_size": 8, "num_layers": 1, "embedding_size": 4, "device": "cpu"}
ENDLESS = SETTINGS | {"epochs": 5_000}


@pytest.fixture
def text(tmp_path) -> Path:
    path = tmp_path / "my-text.txt"
    path.write_text(VERSE, encoding="utf-8")
    return path


@pytest.mark.slow
def test_the_events_are_those_that_the_command_prints(text, tmp_path, monkeypatch, capsys):
    events = list(fit_events(text, tmp_path / "run", SETTINGS, 600))
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
    run_train(monkeypatch, "fit", "--text", text, "--out", tmp_path / "other", "--json-lines", *arguments)
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    def told(events):
        return [
            (event["event"], event.get("record", {}).get("val_loss")) for event in events if event["event"] != "step"
        ]

    assert told(events) == told(printed)
    assert [name for name, _ in told(events)] == ["start", "epoch", "epoch"]
    assert CharLM.from_pretrained(tmp_path / "run").history["run"]["text"] == "my-text"


@pytest.mark.slow
def test_the_time_limit_leaves_the_best_epoch_so_far(text, tmp_path, monkeypatch):
    late = Event()
    monkeypatch.setattr("train.events.monotonic", lambda: time.monotonic() + (700 if late.is_set() else 0))
    epochs = []
    for event in fit_events(text, tmp_path / "run", ENDLESS, 600):
        if event["event"] == "epoch":
            epochs.append(event["record"]["val_loss"])
            late.set()
    assert event == {"event": "time is over"}
    assert CharLM.from_pretrained(tmp_path / "run").history["best"]["val_loss"] == min(epochs)


@pytest.mark.slow
def test_closing_ends_the_training(text, tmp_path):
    events = fit_events(text, tmp_path / "run", ENDLESS, 600)
    next(event for event in events if event["event"] == "epoch")
    events.close()  # it returns once the training has ended
    assert CharLM.from_pretrained(tmp_path / "run").history["epochs"]


def test_a_text_that_cannot_be_learnt_is_the_last_event(text, tmp_path):
    text.write_text("a" * 100, encoding="utf-8")
    (event,) = fit_events(text, tmp_path / "run", SETTINGS, 600)
    assert event["event"] == "failed" and event["problem"].startswith("my-text has only one symbol")


def test_what_nobody_expects_is_raised(text, tmp_path):
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        list(fit_events(text, tmp_path / "run", SETTINGS | {"colour": "blue"}, 600))


@pytest.mark.slow
def test_a_training_can_begin_with_a_model(text, tmp_path):
    list(fit_events(text, tmp_path / "run", SETTINGS, 600))
    given = {"init_from": str(tmp_path / "run"), "epochs": 1, "device": "cpu"}
    text.write_text(VERSE.replace("cat", "猫"), encoding="utf-8")
    start, *_, last = fit_events(text, tmp_path / "more", given, 600)
    assert (start["run"]["init_from"]["name"], start["run"]["hidden_size"], start["run"]["cell"]) == ("run", 8, "gru")
    assert last["record"]["val_loss"] < start["run"]["before"]["val_loss"]
    vocab = CharLM.from_pretrained(tmp_path / "more").config.vocab
    assert vocab == "".join(sorted({*VERSE, "猫"}))
    (event,) = fit_events(text, tmp_path / "other", given | {"cell": "rnn"}, 600)
    assert event == {
        "event": "failed",
        "problem": "--cell rnn contradicts run, which has gru: leave it out, or train without --init-from",
        "reason": None,
    }
