import errno
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import pytest
from browser import PATIENCE
from commands import run_train
from forked_programs import Program
from models import make_lm, raise_full_disk

from charlm.errors import RequestError
from charlm.lm import CharLM
from charlm.model.cells import CELLS
from charlm.model.folder import MODEL_FILES
from charlm.web.answers import train as training
from charlm.web.answers.train import TrainingQueue
from charlm.web.models import ServedModel
from charlm.web.training import process, progress, result, settings
from charlm.web.training.process import failed
from charlm.web.training.settings import (
    LARGEST_TEXT,
    PRESETS,
    TIMED,
    Preset,
    fit_arguments,
    fit_settings,
    gpu_settings,
)
from train.events import fit_events
from train.recipes import Size, sizes

SET_PRIORITY = os.setpriority
VERSE = "the cat sat on the mat, and the dog ran to the man.\n" * 40


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Train models that take a second, and look at them more often."""
    monkeypatch.setitem(PRESETS, "small", Preset("tiny", 1, 8, 8_000, "a second", 300))
    monkeypatch.setattr(training, "PROGRESS_SECONDS", 0.02)
    for name in ("INTERRUPT_SECONDS", "INTERRUPT_GPU_SECONDS"):  # saving a model takes longer on a busy machine
        monkeypatch.setattr(process, name, 300)
    monkeypatch.setattr(settings, "GPU_EPOCH_SECONDS", 100)  # on a CPU that is busy
    # at the lowest priority, a second of training takes minutes on a machine that is busy
    monkeypatch.setattr(os, "setpriority", lambda *_: None)


class Forked(Program):
    """A Python program as subprocess.Popen starts it, except that it need not import torch."""

    def __init__(self, command, *, cwd, env, text, encoding, **streams):
        assert (command[0], text, encoding) == (sys.executable, True, "utf-8")
        super().__init__(command[1:], folder=cwd, environment=env, **streams)
        self.environment = env


def start_by(monkeypatch, popen):
    monkeypatch.setattr(process, "subprocess", SimpleNamespace(**vars(subprocess) | {"Popen": popen}))


@pytest.fixture(autouse=True)
def children(monkeypatch):
    """The processes that were started."""
    started = []

    def start(*args, **kwargs):
        started.append(Forked(*args, **kwargs))
        return started[-1]

    start_by(monkeypatch, start)
    return started


def run(queue, text=VERSE, cell="gru", size="small", visitor="ada", **options):
    return queue.train(text, cell, size, visitor, **options)


def endless(monkeypatch):
    monkeypatch.setitem(PRESETS, "small", Preset("endless", 1, 8, 10**9, "forever", 10_000))
    monkeypatch.setattr(settings, "LONGEST_RUN", 5_000)


def until(values, condition):
    """Go on until a value fulfils a condition; return it."""
    return next(value for value in values if condition(value))


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_it_trains_the_model_that_the_command_trains(cell, tmp_path, monkeypatch):
    last = list(run(TrainingQueue(), cell=cell))[-1]
    assert last.message.startswith("done: the model is that of epoch")
    (tmp_path / "my-text.txt").write_text(VERSE, encoding="utf-8")
    arguments = fit_arguments(fit_settings(len(VERSE), cell, "small"))
    monkeypatch.chdir(tmp_path)
    run_train(monkeypatch, "fit", "--text", "my-text.txt", "--out", "run", *arguments)
    record = json.loads((tmp_path / "run" / "history.json").read_text(encoding="utf-8"))

    def losses(epochs):
        return [epoch[name] for epoch in epochs for name in ("train_loss", "val_loss")]

    assert losses(last.epochs) == pytest.approx(losses(record["epochs"]), rel=1e-3)
    assert last.result.lm.config.cell == cell
    assert last.result.lm.generate("the ", 20, seed=1) == CharLM.from_pretrained(tmp_path / "run").generate(
        "the ", 20, seed=1
    )


@pytest.mark.slow
def test_a_size_is_found_for_the_minutes_and_said(monkeypatch, tmp_path):
    monkeypatch.setattr(settings, "FEWEST_MINUTES", 0.1)
    values = TrainingQueue(minutes=300).train(VERSE, "gru", TIMED, "ada", minutes=0.1)
    assert next(values).message == "measuring how fast models of several sizes train here"
    last = list(values)[-1]
    run, config = last.result.lm.history["run"], last.result.lm.config
    assert (run["minutes"], run["cell"], run["device"]) == (0.1, "gru", "cpu")
    size = Size(config.num_layers, config.hidden_size, config.embedding_size)
    assert size in sizes(run["split"]["train_chars"])
    assert re.fullmatch(
        rf"done: the model is that of epoch \d+, validation loss [\d.]+; chosen for 0.1 min: {size.num_layers} × "
        rf"{size.hidden_size}, learning rate {run['lr']:g}, dropout {run['dropout']:g}",
        last.message,
    )
    assert len(last.epochs) == run["epochs"]


def test_a_training_for_a_time_is_interrupted_only_after_the_time_of_all_and_its_own(monkeypatch):
    limits = []

    class Limits(progress.TimeLimits):
        def __init__(self, minutes):
            limits.append(minutes)
            super().__init__(minutes)

    @contextmanager
    def process(folder, arguments, take):
        fails = partial(failed, "it does nothing")
        yield SimpleNamespace(is_running=lambda: False, interrupt=lambda: None, ending=fails)

    monkeypatch.setattr(training, "TimeLimits", Limits)
    monkeypatch.setattr(training, "training_process", process)
    for size, minutes in (("small", 5), (TIMED, 2), (TIMED, 5)):
        last = list(TrainingQueue(minutes=5).train(VERSE, "gru", size, "ada", minutes=minutes))[-1]
        assert last.message == "the training failed: it does nothing"
    assert limits == [5, 5, 6]


def test_a_training_that_was_too_slow_for_one_epoch_is_told_what_to_do(monkeypatch):
    @contextmanager
    def process(folder, arguments, take):
        yield SimpleNamespace(is_running=lambda: True, interrupt=lambda: None)

    late = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: late[0])
    monkeypatch.setattr(training, "training_process", process)
    queue = TrainingQueue(minutes=5)
    values = run(queue)
    next(values)
    late[0] = 300
    *_, last = values
    assert (last.state, last.message) == (
        "ended",
        "the 5 minutes are over, before its first epoch: give a shorter text or choose a smaller size",
    )
    values = run(queue)
    next(values)
    queue.pause("ada")
    late[0] += 600
    *_, last = values
    assert last.message == "paused for 10 minutes, before its first epoch"


@pytest.fixture
def poems():
    """A served model from the Hub that knows some of the verse's symbols."""
    return ServedModel("ada/poems@v1", make_lm("gru", vocab="\n aetbc"), "hub")


@pytest.mark.slow
def test_a_training_can_start_from_a_served_model(poems):
    last = list(TrainingQueue().train(VERSE, "lstm", "small", "ada", start=poems))[-1]
    assert last.message.startswith("done: the model is that of epoch"), last.message
    run, config = last.result.lm.history["run"], last.result.lm.config
    assert (config.cell, config.hidden_size, config.num_layers) == ("gru", 8, 2)  # its own, not those that were chosen
    assert set(config.vocab) == set(VERSE) | set("\n aetbc")
    assert run["init_from"]["name"] == "poems"
    validation = last.curves["series"][1]["points"]
    assert validation[0] == [0, run["before"]["val_loss"]] and len(validation) == 1 + len(last.epochs)


@pytest.mark.slow
def test_a_training_on_a_gpu_can_start_from_a_served_model(poems):
    taken = []

    def fit_on_gpu(text, out, settings, seconds):
        taken.append((settings, seconds))
        return fit_events(text, out, settings | {"device": "cpu"}, 600)

    last = list(TrainingQueue(fit_on_gpu=fit_on_gpu).train(VERSE, "lstm", "small", "ada", start=poems))[-1]
    ((settings, seconds),) = taken
    assert last.result.lm.config.cell == "gru" and last.result.lm.history["run"]["init_from"]["name"] == "poems"
    assert settings["device"] == "auto" and os.path.isabs(settings["init_from"])
    assert seconds <= PRESETS["large"].gpu_seconds


@pytest.mark.slow
def test_curves_and_samples_come_while_it_trains():
    seen = []
    for value in run(TrainingQueue()):
        seen.append(len(value.epochs))
        training, validation = (series["points"] for series in value.curves["series"])
        assert len(training) == len(value.points) and len(validation) == len(value.epochs)
    assert seen == sorted(seen)
    assert len(set(seen)) > 2
    assert [place for place, _ in training] == sorted(place for place, _ in training)
    assert validation == [[epoch["epoch"], epoch["val_loss"]] for epoch in value.epochs]


@pytest.mark.slow
def test_the_package_holds_the_five_files_of_a_model(tmp_path):
    packages = []
    for value in run(TrainingQueue()):
        if value.result:
            packages.append(value.result.package)
            with zipfile.ZipFile(value.result.package) as package:
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
    assert next(values).result is None
    queue.stop("ada")
    last = list(values)[-1]
    assert last.message.startswith("stopped: the model is that of epoch")
    assert last.result.lm.generate("the ", 5, seed=0)
    assert children[0].returncode == 130  # as after Ctrl-C


@pytest.mark.slow
def test_the_time_limit_leaves_the_best_epoch_so_far(monkeypatch):
    endless(monkeypatch)
    clock = threading.Event()
    monkeypatch.setattr(progress, "monotonic", lambda: time.monotonic() + (1e6 if clock.is_set() else 0))
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
    monkeypatch.setitem(PRESETS, "small", Preset("tiny", 1, 8, 8_000, "a second", 300))
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
    assert (last.message, last.epochs, last.result) == ("stopped in the queue, before it began", [], None)
    last = run(queue, visitor="fifth")
    assert next(last).message == "starting"  # the queue is empty again
    last.close()


@pytest.mark.slow
def test_a_visitor_alone_pauses_their_training_and_changes_its_rate_which_is_recorded(monkeypatch):
    endless(monkeypatch)
    queue = TrainingQueue()
    values = run(queue)
    until(values, lambda value: value.epochs)
    for refused in (lambda: queue.pause("eve"), lambda: queue.set_learning_rate("eve", "0.1")):
        with pytest.raises(
            RequestError, match="no training of yours runs: start one with Train, and wait for its turn"
        ):
            refused()
    queue.pause("ada")
    paused = until(values, lambda value: value.state == "paused")
    points, epochs = len(paused.points), len(paused.epochs)
    queue.set_learning_rate("ada", " 0.0625 ")
    for _, value in zip(range(10), values, strict=False):
        assert (len(value.points), len(value.epochs), value.rates) == (points, epochs, [])
    queue.pause("ada", paused=False)
    changed = until(values, lambda value: value.rates)
    assert changed.state == "running" and changed.rates[0][0] == 0.0625
    until(values, lambda value: len(value.epochs) > epochs)
    queue.stop("ada")
    last = list(values)[-1]
    assert last.state == "ended"
    history = last.result.lm.history
    (edit,) = history["run"]["lr_edits"]
    assert edit["lr"] == 0.0625
    if len(history["epochs"]) > edit["epoch"]:  # the best epoch, whose record this is, may be one before
        assert history["epochs"][edit["epoch"]]["learning_rate"] < 0.0625


@pytest.mark.slow
def test_a_paused_training_ends_while_others_wait_and_its_model_is_kept(monkeypatch):
    endless(monkeypatch)
    late = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: time.monotonic() + late[0])
    queue = TrainingQueue()
    first, second = run(queue, visitor="first"), run(queue, visitor="second")
    until(first, lambda value: value.epochs)
    queue.pause("first")
    until(first, lambda value: value.state == "paused")
    late[0] = 121
    assert next(first).state == "paused"  # nobody waits
    assert next(second).message == "waiting: number 1 in the queue"
    late[0] += 121
    *_, last = first
    assert last.message.startswith("paused for 2 minutes while others waited: the model is that of epoch")
    assert last.state == "ended" and last.result.lm.generate("the ", 5, seed=0)
    until(second, lambda value: value.epochs)
    second.close()


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        ("", "the learning rate is ''; it must be a number"),
        ("fast", "the learning rate is 'fast'; it must be a number"),
        ("0", "the learning rate is 0.0; it must be from 1e-06 to 0.1"),
        ("nan", "the learning rate is nan; it must be from 1e-06 to 0.1"),
        ("1e400", "the learning rate is inf; it must be from 1e-06 to 0.1"),
        (None, "the learning rate is None; it must be a number"),
        ([0.1], "the learning rate is [0.1]; it must be a number"),
        ("0.01", "no training of yours runs: start one with Train, and wait for its turn"),
    ],
)
def test_a_learning_rate_that_makes_no_sense_is_refused(rate, message):
    with pytest.raises(RequestError) as refused:
        TrainingQueue().set_learning_rate("ada", rate)
    assert str(refused.value) == message


@pytest.mark.slow
def test_a_model_whose_download_cannot_be_written_is_there_all_the_same(monkeypatch):
    monkeypatch.setattr(result, "pack", raise_full_disk)
    last = list(run(TrainingQueue()))[-1]
    assert last.message.startswith("done: the model is that of epoch")
    assert last.message.endswith("; its download cannot be written (No space left on device)")
    assert last.result.package is None
    assert last.result.lm.generate("the ", 5, seed=0)


def test_a_folder_that_cannot_be_written_and_a_process_that_cannot_be_started_end_a_training(monkeypatch, children):
    def refuse(*_, **__):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    queue = TrainingQueue()
    start_by(monkeypatch, refuse)
    (only,) = run(queue)
    assert (only.state, only.message) == (
        "failed",
        f"this server cannot start a training ({os.strerror(errno.EAGAIN)}): try again in some minutes, or tell its "
        "owner",
    )
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    (only,) = run(queue)
    assert only.state == "failed"
    assert only.message.startswith("this server cannot write the files of a training (No such file or directory)")
    assert children == []


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [0, 1])
def test_a_process_that_is_killed_becomes_a_message_and_leaves_the_model_that_it_has_saved(
    epochs, monkeypatch, children
):
    endless(monkeypatch)
    values = run(TrainingQueue())
    until(values, lambda value: len(value.epochs) >= epochs)
    children[0].kill()
    last = list(values)[-1]
    killed = "the training failed: its process was killed, perhaps for lack of memory; choose a smaller size"
    assert last.state == "failed" and last.message.startswith(
        f"{killed}: the model is that of epoch" if epochs else killed
    )
    assert (last.result.lm is not None) == (epochs > 0)


@pytest.mark.slow
@pytest.mark.parametrize("popen", [Forked, subprocess.Popen])
def test_a_training_has_no_token_the_lowest_priority_and_the_kernels_of_the_app(monkeypatch, popen):
    children = []

    def start(*args, **kwargs):
        children.append(popen(*args, **kwargs))
        children[0].environment = kwargs["env"]
        return children[0]

    start_by(monkeypatch, start)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("CHARLM_KERNELS", "plain")
    monkeypatch.setattr(os, "setpriority", SET_PRIORITY)
    endless(monkeypatch)
    values = run(TrainingQueue())
    until(values, lambda value: value.epochs)
    assert not any("hf_secret" in value for value in children[0].environment.values())
    assert children[0].environment["CHARLM_KERNELS"] == "plain"
    assert os.getpriority(os.PRIO_PROCESS, children[0].pid) == 19
    values.close()


@pytest.mark.slow
def test_a_refusal_of_the_trainer_is_shown_without_a_path():
    last = list(run(TrainingQueue(), text="a" * 1200))[-1]
    assert last.message.startswith("the training failed: my-text has only one symbol")
    assert "/" not in last.message and "error: " not in last.message


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
        ({"size": None}, "there is no size None; choose one of time, small, medium, large"),
        ({"size": TIMED, "minutes": 6}, "the number of minutes is 6.0; it must be from 1.0 to 5.0"),
    ],
)
def test_an_invalid_request_is_refused_before_anything_starts(arguments, message, children):
    with pytest.raises(RequestError, match=message) as caught:
        next(run(TrainingQueue(), **arguments))
    assert len(str(caught.value)) < 200
    assert children == []


# On ZeroGPU


class QuotaSpentError(Exception):
    """As the package `spaces` raises gr.Error: with a title and a message."""

    title, message = (
        "ZeroGPU quota exceeded",
        "You have exceeded your quota (42s requested vs. 3s left). Try again in 9:00.",
    )


def refuse(*_):
    raise QuotaSpentError
    yield


@pytest.mark.slow
def test_on_zero_gpu_a_borrowed_gpu_trains_and_no_process_is_started(children):
    asked = []

    def fit_on_gpu(text, out, settings, seconds):
        asked.append((settings, seconds))
        yield from fit_events(text, out, settings, seconds)

    values = run(TrainingQueue(fit_on_gpu=fit_on_gpu))
    assert next(values).message == "waiting for a GPU"
    *_, last = values
    assert last.message.startswith("done: the model is that of epoch")
    assert last.result.lm.generate("the ", 5, seed=0) and last.result.lm.device == "cpu"
    settings, seconds = gpu_settings(len(VERSE), "gru", "small")
    assert asked == [(settings, seconds)]
    assert len(last.epochs) == settings["epochs"]
    assert children == []


def test_a_spent_quota_is_said_and_the_cpu_is_offered(children):
    last = list(run(TrainingQueue(fit_on_gpu=refuse)))[-1]
    assert last.message == (
        "ZeroGPU quota exceeded: You have exceeded your quota (42s requested vs. 3s left). Try again in 9:00"
    )
    assert last.result.offers_cpu and last.result.lm is None
    assert children == []


@pytest.mark.slow
def test_the_cpu_trains_on_zero_gpu_if_that_is_chosen(children):
    queue = TrainingQueue(fit_on_gpu=refuse)
    last = list(queue.train(VERSE, "gru", "small", "ada", on_cpu=True))[-1]
    assert last.message.startswith("done: the model is that of epoch") and not last.result.offers_cpu
    assert len(children) == 1


@pytest.mark.slow
def test_a_gpu_that_is_taken_away_leaves_the_best_epoch_so_far():
    def fit_on_gpu(*arguments):
        for event in fit_events(*arguments):
            yield event
            if event["event"] == "epoch":
                raise QuotaSpentError

    last = list(run(TrainingQueue(fit_on_gpu=fit_on_gpu)))[-1]
    assert last.state == "failed"
    assert last.message.startswith("ZeroGPU quota exceeded: You have exceeded your quota")
    assert "the model is that of epoch 1" in last.message
    assert not last.result.offers_cpu and last.result.lm.generate("the ", 5, seed=0)


@pytest.mark.slow
def test_the_time_on_a_gpu_leaves_the_best_epoch_so_far(monkeypatch):
    endless(monkeypatch)

    late = threading.Event()
    monkeypatch.setattr("train.events.monotonic", lambda: time.monotonic() + (1e6 if late.is_set() else 0))

    def fit_on_gpu(text, out, settings, seconds):
        assert seconds > 5
        for event in fit_events(text, out, settings, seconds):
            yield event
            if event["event"] == "epoch":
                late.set()

    last = list(run(TrainingQueue(fit_on_gpu=fit_on_gpu)))[-1]
    assert "s of GPU time are over" in last.message


@pytest.mark.slow
def test_a_training_on_a_borrowed_gpu_is_not_paused_but_takes_a_learning_rate(monkeypatch):
    endless(monkeypatch)
    queue = TrainingQueue(fit_on_gpu=fit_events)
    values = run(queue)
    assert not until(values, lambda value: value.epochs).can_pause
    with pytest.raises(RequestError) as refused:
        queue.pause("ada")
    message = "a training on a borrowed GPU cannot be paused, since the GPU is lent for a time: stop it"
    assert str(refused.value) == message
    queue.set_learning_rate("ada", 0.0625)
    changed = until(values, lambda value: value.rates)
    assert changed.state == "running" and changed.rates[0][0] == 0.0625
    values.close()


@pytest.mark.slow
def test_stop_ends_a_training_on_a_gpu(monkeypatch):
    endless(monkeypatch)
    ended = threading.Event()

    def fit_on_gpu(*arguments):
        try:
            yield from fit_events(*arguments)
        finally:
            ended.set()

    queue = TrainingQueue(fit_on_gpu=fit_on_gpu)
    values = run(queue)
    until(values, lambda value: len(value.epochs) > 1)
    queue.stop("ada")
    last = list(values)[-1]
    assert last.message.startswith("stopped: the model is that of epoch")
    assert ended.is_set() and not last.result.offers_cpu
    values = run(queue, visitor="eve")
    until(values, lambda value: value.epochs)
    ended.clear()
    values.close()  # a visitor who leaves
    assert ended.wait(PATIENCE)


def test_a_visitor_who_leaves_while_a_gpu_is_awaited_holds_up_nobody_and_no_folder_stays(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    free, threads = threading.Event(), []

    def fit_on_gpu(text, out, settings, seconds):
        threads.append(threading.current_thread())
        free.wait(PATIENCE)
        out.mkdir(parents=True)  # as a training that saves its model just then
        yield {"event": "failed", "problem": "nobody reads it", "reason": None}

    queue = TrainingQueue(fit_on_gpu=fit_on_gpu)
    values = run(queue)
    assert next(values).message == "waiting for a GPU"
    queue.stop("ada")
    *_, last = values
    assert last.message == "stopped, before its first epoch"
    values = run(queue)
    next(values)
    values.close()
    assert all(thread.is_alive() for thread in threads) and len(threads) == 2
    free.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_training_that_fails_after_an_epoch_says_so_and_keeps_its_model():
    def fit_on_gpu(*arguments):
        for event in fit_events(*arguments):
            yield event
            if event["event"] == "epoch":
                break
        yield {"event": "failed", "problem": "the loss is no longer a number (epoch 2, step 3)", "reason": "diverged"}

    last = list(run(TrainingQueue(fit_on_gpu=fit_on_gpu)))[-1]
    assert last.state == "failed" and last.result.lm.generate("the ", 5, seed=0)
    assert last.message.startswith(
        "the training failed: the loss is no longer a number (epoch 2, step 3); choose a smaller size or a lower "
        "learning rate: the model is that of epoch 1"
    )


def test_a_refusal_of_the_trainer_on_a_gpu_is_shown_without_a_path():
    last = list(run(TrainingQueue(fit_on_gpu=fit_events), text="a" * 1200))[-1]
    assert last.message.startswith("the training failed: my-text has only one symbol")
    assert "/" not in last.message and not last.result.offers_cpu
