import errno
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
import zipfile

import pytest
from commands import run_train

from charlm.errors import RequestError
from charlm.lm import CharLM
from charlm.model.cells import CELLS
from charlm.model.folder import MODEL_FILES
from charlm.web.answers import train as training
from charlm.web.answers.train import LARGEST_TEXT, PRESETS, Preset, TrainingQueue, fit_arguments

SET_PRIORITY = os.setpriority
VERSE = "the cat sat on the mat, and the dog ran to the man.\n" * 40


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Train models that take a second, and look at them more often."""
    monkeypatch.setitem(PRESETS, "small", Preset("tiny", 1, 8, 8_000))
    monkeypatch.setattr(training, "PROGRESS_SECONDS", 0.02)
    # at the lowest priority, a second of training takes minutes on a machine that is busy
    monkeypatch.setattr(os, "setpriority", lambda *_: None)


@pytest.fixture
def children(monkeypatch):
    """The processes that were started."""
    started = []

    class Recorded(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            started.append(self)
            self.environment = kwargs["env"]
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(training.subprocess, "Popen", Recorded)
    return started


def run(queue, text=VERSE, cell="gru", size="small", visitor="ada"):
    return queue.train(text, cell, size, visitor)


def endless(monkeypatch):
    monkeypatch.setitem(PRESETS, "small", Preset("endless", 1, 8, 10**9))
    monkeypatch.setattr(training, "LONGEST_RUN", 5_000)


def until(values, condition):
    """Go on until a value fulfils a condition; return it."""
    return next(value for value in values if condition(value))


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_it_trains_the_model_that_the_command_trains(cell, tmp_path, monkeypatch):
    last = list(run(TrainingQueue(), cell=cell))[-1]
    assert last.message.startswith("done: the model is that of epoch")
    (tmp_path / "my-text.txt").write_text(VERSE, encoding="utf-8")
    arguments = fit_arguments(len(VERSE), cell, "small")
    monkeypatch.chdir(tmp_path)
    run_train(monkeypatch, "fit", "--text", "my-text.txt", "--out", "run", *arguments)
    record = json.loads((tmp_path / "run" / "history.json").read_text(encoding="utf-8"))

    def losses(epochs):
        return [epoch[name] for epoch in epochs for name in ("train_loss", "val_loss")]

    assert losses(last.epochs) == pytest.approx(losses(record["epochs"]), rel=1e-3)
    assert last.lm.config.cell == cell
    assert last.lm.generate("the ", 20, seed=1) == CharLM.from_pretrained(tmp_path / "run").generate("the ", 20, seed=1)


@pytest.mark.slow
def test_curves_and_samples_come_while_it_trains():
    values = run(TrainingQueue())
    seen = [len(value.epochs) for value in values]
    assert seen == sorted(seen)
    assert len(set(seen)) > 2


@pytest.mark.slow
def test_the_package_holds_the_five_files_of_a_model(tmp_path):
    packages = []
    for value in run(TrainingQueue()):
        if value.package:
            packages.append(value.package)
            with zipfile.ZipFile(value.package) as package:
                package.extractall(tmp_path)
    assert sorted(path.name for path in (tmp_path / "my-model").iterdir()) == sorted(MODEL_FILES)
    assert CharLM.from_pretrained(tmp_path / "my-model").history["run"]["text"] == "my-text"
    assert not packages[0].exists()  # nothing stays behind


@pytest.mark.slow
def test_stop_leaves_the_best_epoch_so_far(monkeypatch, children):
    endless(monkeypatch)
    queue = TrainingQueue()
    values = run(queue)
    until(values, lambda value: len(value.epochs) > 1)
    queue.stop("somebody else")
    assert next(values).lm is None
    queue.stop("ada")
    last = list(values)[-1]
    assert last.message.startswith("stopped: the model is that of epoch")
    assert last.lm.generate("the ", 5, seed=0)
    assert children[0].returncode == 130  # as after Ctrl-C


@pytest.mark.slow
def test_the_time_limit_leaves_the_best_epoch_so_far(monkeypatch):
    endless(monkeypatch)
    clock = threading.Event()
    monkeypatch.setattr(training, "monotonic", lambda: time.monotonic() + (1e6 if clock.is_set() else 0))
    values = run(TrainingQueue(minutes=2))
    until(values, lambda value: len(value.epochs) > 1)
    clock.set()
    assert list(values)[-1].message.startswith("the 2 minutes are over: the model is that of epoch")


@pytest.mark.slow
def test_a_visitor_who_leaves_ends_the_process_and_the_next_training_starts(monkeypatch, children):
    endless(monkeypatch)
    queue = TrainingQueue()
    values = run(queue)
    until(values, lambda value: value.epochs)
    values.close()
    assert children[0].returncode == -signal.SIGKILL
    monkeypatch.setitem(PRESETS, "small", Preset("tiny", 1, 8, 8_000))
    assert list(run(queue))[-1].message.startswith("done")


@pytest.mark.slow
def test_trainings_run_one_at_a_time_and_the_others_see_their_place(monkeypatch, children):
    endless(monkeypatch)
    queue = TrainingQueue(most_waiting=2)
    first = run(queue, visitor="first")
    until(first, lambda value: value.epochs)
    second, third = run(queue, visitor="second"), run(queue, visitor="third")
    assert next(second).message == "waiting: number 1 in the queue"
    with pytest.raises(RequestError, match="your training is still going on"):
        next(run(queue, visitor="second"))
    assert next(third).message == "waiting: number 2 in the queue"
    with pytest.raises(RequestError, match="3 trainings are ahead of this one"):
        next(run(queue, visitor="fourth"))
    assert len(children) == 1
    first.close()
    until(second, lambda value: value.epochs)
    assert next(third).message == "waiting: number 1 in the queue"
    second.close()
    queue.stop("third")
    last = list(third)[-1]  # who stops in the queue has nothing, and is told so
    assert (last.message, last.epochs, last.lm) == ("stopped in the queue, before it began", [], None)
    last = run(queue, visitor="fifth")
    assert next(last).message == "starting"  # the queue is empty again
    last.close()


@pytest.mark.slow
def test_a_model_whose_download_cannot_be_written_is_there_all_the_same(monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(training, "pack", refuse)
    last = list(run(TrainingQueue()))[-1]
    assert last.message.startswith("done: the model is that of epoch")
    assert last.message.endswith("; its download cannot be written (No space left on device)")
    assert last.package is None
    assert last.lm.generate("the ", 5, seed=0)


def test_a_folder_that_cannot_be_written_is_said_before_anything_starts(monkeypatch, children):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with pytest.raises(RequestError, match=r"cannot write the files of a training \(No such file or directory\)"):
        list(run(TrainingQueue()))
    assert children == []


@pytest.mark.slow
def test_a_process_that_is_killed_becomes_a_message(monkeypatch, children):
    endless(monkeypatch)
    values = run(TrainingQueue())
    until(values, lambda value: value.message.startswith(("starting", "training")))
    children[0].kill()
    assert list(values)[-1].message == "the training failed"


@pytest.mark.slow
def test_a_training_has_no_token_and_the_lowest_priority(monkeypatch, children):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(os, "setpriority", SET_PRIORITY)
    endless(monkeypatch)
    values = run(TrainingQueue())
    until(values, lambda value: value.epochs)
    assert not any("hf_secret" in value for value in children[0].environment.values())
    assert os.getpriority(os.PRIO_PROCESS, children[0].pid) == 19
    values.close()


@pytest.mark.slow
def test_a_refusal_of_the_trainer_is_shown_without_a_path():
    last = list(run(TrainingQueue(), text="a" * 1200))[-1]
    assert last.lm is None or last.message.startswith("done")  # a text of one symbol may be learnt
    assert "/" not in last.message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": None}, "too short"),
        ({"text": "short"}, "too short"),
        ({"text": "a" * (LARGEST_TEXT + 1)}, "larger than 1 MB"),
        ({"text": "한" * 400_000}, "larger than 1 MB"),
        ({"text": "\ud800" * 2000}, "lone surrogate"),
        ({"cell": "transformer"}, "there is no cell"),
        ({"cell": ["lstm"]}, "there is no cell"),
        ({"size": "huge"}, "there is no size"),
        ({"size": None}, "there is no size"),
    ],
)
def test_an_invalid_request_is_refused_before_anything_starts(arguments, message, children):
    with pytest.raises(RequestError, match=message) as caught:
        next(run(TrainingQueue(), **arguments))
    assert len(str(caught.value)) < 200
    assert children == []


def test_short_texts_are_read_often_and_long_ones_at_least_some_times(monkeypatch):
    monkeypatch.undo()

    def epochs(length):
        arguments = fit_arguments(length, "lstm", "small")
        return int(arguments[arguments.index("--epochs") + 1])

    assert [epochs(length) for length in (1_000, 100_000, 1_000_000)] == [100, 27, 3]
