"""Trackers, as stand-ins for their packages that keep what they are told."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from commands import run_train

from charlm.errors import MissingPackageError
from train import tracking
from train.report import Report
from train.tracking import SECONDS_BETWEEN_LOSSES, TENSORBOARD_FOLDER, TRACKERS, TrackedReport, tracked

SMALL = ["--cell=rnn", "--epochs=3", "--hidden-size=4", "--embedding-size=4", "--seq-length=16", "--device=cpu"]
TEXT = "the cat sat on the mat; the dog sat on the log.\n" * 40


@pytest.fixture
def told(monkeypatch):
    """What trackio and TensorBoard are told, in order."""
    calls = []

    def init(*, project, name, config, resume, embed):
        sys.stdout.write("* Trackio project initialized\n")  # as the real one does
        calls.append(("init", project, name, config, resume, embed))

    trackio = ModuleType("trackio")
    trackio.init = init
    trackio.log = lambda metrics, step=None: calls.append(("log", metrics, step))
    trackio.finish = lambda: calls.append(("finish",))

    class SummaryWriter:
        def __init__(self, log_dir):
            calls.append(("open", log_dir))

        def add_scalar(self, tag, scalar_value, global_step=None):
            calls.append(("scalar", tag, scalar_value, global_step))

        def add_text(self, tag, text_string, global_step=None):
            calls.append(("text", tag, text_string, global_step))

        def close(self):
            calls.append(("close",))

    monkeypatch.setitem(sys.modules, "trackio", trackio)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=SummaryWriter))
    return calls


@pytest.fixture
def fit(monkeypatch, tmp_path):
    """A function that trains a tiny model with these options; return its record."""
    text, out = tmp_path / "cats.txt", tmp_path / "out"
    text.write_text(TEXT)

    def fit(*options):
        run_train(monkeypatch, "fit", "--text", text, "--out", out, *SMALL, *options)
        return json.loads((out / "history.json").read_text(encoding="utf-8"))

    return fit


@pytest.mark.slow
def test_trackio_is_told_every_epoch_and_nothing_of_it_comes_between_the_json(fit, told, capsys):
    history = fit("--report-to", "trackio", "--json-lines")
    begun, *logged, finished = told
    assert begun == ("init", "charlm", "out", history["run"], "never", False)
    assert finished == ("finish",)
    figures, samples = logged[::2], logged[1::2]
    names = ["train_loss", "val_loss", "learning_rate", "chars_per_second"]
    assert [call[1] for call in figures] == [
        {name: record[name] for name in ["epoch", *names]} for record in history["epochs"]
    ]
    assert [call[1] for call in samples] == [{"sample": record["sample"]} for record in history["epochs"]]
    steps = [call[2] for call in figures]
    assert steps == [steps[0], 2 * steps[0], 3 * steps[0]] == [call[2] for call in samples]
    assert 0.8 * history["run"]["split"]["train_chars"] < steps[0] <= history["run"]["split"]["train_chars"]
    output, messages = capsys.readouterr()
    assert all(json.loads(line)["event"] for line in output.splitlines())
    assert "* Trackio project initialized" in messages
    fit("--report-to", "trackio", "--resume", "--epochs=4")
    assert told[len(logged) + 2][4] == "allow"  # the same run goes on
    assert told[-3][1]["epoch"] == 4 and told[-3][2] == 4 * steps[0]


@pytest.mark.slow
def test_tensorboard_has_every_figure_in_the_folder_of_the_run(fit, told, tmp_path):
    history = fit("--report-to", "tensorboard")
    assert told[0] == ("open", str(tmp_path / "out" / TENSORBOARD_FOLDER)) and told[-1] == ("close",)
    for name in ("train_loss", "val_loss", "learning_rate"):
        logged = [(call[2], call[3]) for call in told if call[:2] == ("scalar", name)]
        assert [value for value, _ in logged] == [record[name] for record in history["epochs"]]
        assert [step / logged[0][1] for _, step in logged] == [1, 2, 3]
    texts = [call for call in told if call[0] == "text"]
    assert [call[1] for call in texts] == ["run", "sample", "sample", "sample"]
    assert f"    seed: {history['run']['seed']}" in texts[0][2].splitlines()


@pytest.mark.slow
def test_without_the_option_no_tracker_is_told_anything(fit, told):
    fit()
    assert told == []


class Recorder(Report):
    """A report that keeps what it says."""

    def __init__(self):
        self.said = []

    def say(self, message):
        self.said.append(message)

    def start(self, run, unigram_loss):
        pass

    def start_epoch(self, epoch, epochs, done, total):
        pass

    def step(self, chars, loss, run_seconds_left):
        pass

    def epoch(self, record, epochs, is_best):
        pass


RECORD = {"epoch": 1, "train_loss": 1.0, "val_loss": 1.5, "unseen_loss": None, "learning_rate": 0.1, "sample": "a"}


def test_a_tracker_that_fails_is_left_and_the_training_goes_on(told, monkeypatch):
    def fail(*_, **__):
        raise OSError("no space left\x1b[31m")

    monkeypatch.setattr(sys.modules["trackio"], "log", fail)
    report = Recorder()
    with tracked(report, "trackio", Path("out"), resumes=False) as both:
        both.start({}, 3.0)
        both.epoch(RECORD, 2, True)
        both.epoch(RECORD, 2, True)
    assert report.said == ["warning: trackio failed (no space left\\x1b[31m); the training goes on without it"]
    assert told == [("init", "charlm", "out", {}, "never", False)]


def test_everything_that_a_report_is_told_is_passed_on():
    public = {name for name, member in vars(Report).items() if callable(member) and not name.startswith("_")}
    assert public <= vars(TrackedReport).keys()


def test_a_training_that_never_began_leaves_nothing(told):
    with pytest.raises(ValueError, match="a wrong setting"), tracked(Recorder(), "trackio", Path("out"), resumes=False):
        raise ValueError("a wrong setting")
    assert told == []


def test_a_training_that_fails_is_stored_as_far_as_it_came(told):
    def train(report):
        report.start({}, 3.0)
        report.epoch(RECORD, 2, True)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), tracked(Recorder(), "trackio", Path("out"), resumes=False) as both:
        train(both)
    assert [call[0] for call in told] == ["init", "log", "log", "finish"]


def test_the_loss_of_an_epoch_is_told_every_ten_seconds(told, monkeypatch):
    clock = SimpleNamespace(monotonic=lambda: now)
    now = 0.0
    monkeypatch.setattr(tracking, "time", clock)
    report = TrackedReport(Recorder(), "trackio", TRACKERS["trackio"](), Path("out"), resumes=False)
    report.start_epoch(3, 5, 40, 1000)
    for now in range(25):
        report.step(10, 2.0 + now, 5.0)
    assert SECONDS_BETWEEN_LOSSES == 10
    assert told == [
        ("log", {"epoch_loss_so_far": 12.0}, 2000 + 40 + 110),
        ("log", {"epoch_loss_so_far": 22.0}, 2000 + 40 + 210),
    ]


def test_characters_are_counted_on_where_the_epochs_differ_in_length(told, monkeypatch):
    clock = SimpleNamespace(monotonic=lambda: now)
    now = 0.0
    monkeypatch.setattr(tracking, "time", clock)
    report = TrackedReport(Recorder(), "trackio", TRACKERS["trackio"](), Path("out"), resumes=False)
    for epoch, total in ((1, 1000), (2, 50)):
        report.start_epoch(epoch, 3, 0, total)
        report.step(total, 2.0, 5.0)
    report.start_epoch(3, 3, 0, 400)
    now = 10.0
    report.step(10, 2.0, 5.0)
    assert told == [("log", {"epoch_loss_so_far": 2.0}, 1000 + 50 + 10)]


@pytest.mark.parametrize(("name", "module"), [("trackio", "trackio"), ("tensorboard", "torch.utils.tensorboard")])
def test_a_tracker_that_is_not_installed_is_refused_with_the_command_to_run(monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not there
    with (
        pytest.raises(MissingPackageError) as caught,
        tracked(Recorder(), name, Path("out"), resumes=False),
    ):
        pytest.fail("the training must not begin")
    assert str(caught.value) == f"--report-to {name} needs {name}, which is not installed: run pip install {name}"
