import io
import os
import subprocess
import sys

import pytest
from browser import ROOT
from forked_programs import Program

from charlm.model.folder import read_model
from train.curve import draw_curves
from train.report import JsonReport, Report, format_time

SMALL = ["--cell=rnn", "--epochs=2", "--hidden-size=4", "--embedding-size=4", "--seq-length=16", "--device=cpu"]


@pytest.mark.slow
def test_a_training_whose_progress_nobody_reads_any_more_goes_on_to_its_end(tmp_path):
    text = tmp_path / "cats.txt"
    text.write_text("the cat sat on the mat; the dog sat on the log.\n" * 40)
    command = ["-m", "train", "fit", "--text", text, "--out", tmp_path / "out", *SMALL]
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as unread:
        process = Program(command, folder=ROOT, stdout=subprocess.PIPE, stderr=unread)
    output, _ = process.communicate()
    assert (process.returncode, output) == (0, "")
    assert len(read_model(tmp_path / "out").history["epochs"]) == 2


class Unwritable(io.StringIO):
    """A stream that fails, and has no descriptor."""

    def write(self, text):
        raise BrokenPipeError


def full_disk():
    if not os.path.exists("/dev/full"):
        pytest.skip("only Linux has a disk that is always full")
    return open("/dev/full", "w", encoding="utf-8")


@pytest.mark.parametrize("stderr", [Unwritable, full_disk])
def test_no_part_of_a_report_fails_where_it_cannot_be_written(monkeypatch, stderr):
    record = {"epoch": 1, "train_loss": 1.0, "val_loss": 1.0, "unseen_loss": None, "learning_rate": 0.1}
    record |= {"seconds": 1.0, "chars_per_second": 10.0, "sample": "a\nb"}
    report = Report()
    with stderr() as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        report.say("begun")
        report.start_epoch(1, 2, 0, 10)
        report.step(10, 1.0, 5.0)
        report.end_epoch()
        report.epoch(record, 2, True)


def test_nothing_that_a_text_or_a_name_holds_changes_the_terminal(capsys):
    sample = {"sample": "a\x1b[2Jb\n\x9b1mc\td"}
    record = {"epoch": 1, "train_loss": 1.0, "val_loss": 1.0, "unseen_loss": None, "seconds": 1.0}
    report = Report()
    report.epoch(record | sample | {"chars_per_second": 10.0}, 2, False)
    assert capsys.readouterr().err.splitlines()[1:] == [r"    │ a\x1b[2Jb", "    │ \\x9b1mc\td"]
    report.start(RUN | {"text": "\x1b]0;title\x07"}, 3.314)
    assert r"\x1b]0;title\x07: " in capsys.readouterr().err


RUN = {"cell": "lstm", "num_layers": 2, "hidden_size": 512, "parameters": 4_269_121, "device": "cpu"}
RUN |= {"precision": "bf16", "text": "cats", "vocab_size": 64, "batch_size": 3, "seq_length": 128}
RUN |= {"split": {"train_chars": 16_200, "val_chars": 1_800}}


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0 s"), (59.4, "59 s"), (200.4, "3 min 20 s"), (599.6, "10 min"), (3599, "59 min"), (7500, "2 h 5 min")],
)
def test_a_duration_is_as_exact_as_anybody_needs(seconds, shown):
    assert format_time(seconds) == shown


def test_a_single_stream_is_called_one(capsys):
    Report().start(RUN | {"batch_size": 1}, 3.314)
    assert "batches of 1 stream × 128 characters" in capsys.readouterr().err
    Report().start(RUN | {"batch_size": 2, "seq_length": 1}, 3.314)
    assert "batches of 2 streams × 1 character\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("new", "said"), [("", ""), ("é", "; 1 symbol of the text is new"), ("éö", "; 2 symbols of the text are new")]
)
def test_new_symbols_are_counted(capsys, new, said):
    Report().start_model({"before": {"val_loss": 1.5}, "init_from": {"name": "ada/one"}}, new)
    line = f"begins with ada/one: validation loss 1.5000 before the first step{said}{' to it' if new else ''}\n"
    assert capsys.readouterr().err == line


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def test_the_start_tells_what_a_loss_is_worth_beside_guessing(capsys):
    Report().start(RUN, 3.314)
    assert capsys.readouterr().err.splitlines()[-1] == (
        "losses are in nats per character, lower is better: guessing any symbol costs 4.16, "
        "guessing by how often each occurs 3.31"
    )


def test_the_start_does_not_leave_out_what_the_teachers_write(capsys):
    Report().start(RUN | {"teachers_write": 50_000}, 3.314)
    assert (
        "cats: 16,200 characters and what the teachers write to train on, 1,800 to validate" in capsys.readouterr().err
    )


def test_in_a_log_file_progress_is_a_line_after_ten_seconds_and_every_thirty(monkeypatch, capsys):
    now = 1000.0
    monkeypatch.setattr("train.report.time.monotonic", lambda: now)
    report = Report()
    report.start(RUN, 3.314)
    begun = capsys.readouterr().err
    for epoch in (1, 2):
        report.start_epoch(epoch, 24, 0, 1000)
        for _ in range(10):
            now += 4
            report.step(100, 2.5134, 200.4)
        report.end_epoch()
    assert begun.count("\n") == 3
    assert capsys.readouterr().err.splitlines() == [
        "epoch 1/24, 30%: loss 2.513, 3 min 20 s left",
        "epoch 2/24, 10%: loss 2.513, 3 min 20 s left",
        "epoch 2/24, 90%: loss 2.513, 3 min 20 s left",
    ]


@pytest.mark.parametrize(
    ("columns", "shown"),
    [(40, ["1/24", "30%", "loss 2.513, 3 min 20 s left"]), (80, ["epoch 1/24:  30%|", "loss 2.513, 3 min 20 s left"])],
)
def test_a_bar_shows_the_loss_and_the_time_left_on_a_narrow_terminal_too(monkeypatch, columns, shown):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_, **__: os.terminal_size((columns, 24)))
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    report = Report()
    report.start_epoch(1, 24, 0, 1000)
    assert report._bar is not None
    report._bar.mininterval = 0
    report.step(100, 3.5134, 20_000)
    report.step(200, 2.5134, 200.4)
    report.end_epoch()
    lines = terminal.getvalue().split("\r")
    last = next(line for line in reversed(lines) if "loss" in line)
    assert all(part in last for part in shown)
    assert " h " not in terminal.getvalue()  # what the warm-up lets one expect
    assert len(last) <= columns


def test_a_pause_and_a_changed_learning_rate_are_said_once_and_a_pause_is_sent_again_and_again(monkeypatch, capsys):
    clock, sent = [100.0], []
    monkeypatch.setattr("train.report.time.monotonic", lambda: clock[0])
    edit = {"epoch": 2, "step": 31, "lr": 0.001}
    for report in (Report(), JsonReport(sent.append)):
        report.start_epoch(2, 9, 0, 10)
        for seconds in (0, 0.25, 0.5, 0.75):
            clock[0] += 0.25
            report.paused(seconds)
        report.edit(edit)
    assert capsys.readouterr().err.splitlines() == [
        "paused in epoch 2/9, as the control file asks",
        "learning rate 0.001 from epoch 2, step 31 on",
    ]
    paused = [
        {"event": "paused", "seconds": seconds} for seconds in (0, 0.5)
    ]  # else nobody notices a reader that is gone
    assert sent == [*paused, {"event": "edit", **edit}]  # a reader that is gone is noticed only by sending


def test_the_share_of_an_epoch_that_gets_another_length_goes_on_rising_to_one(monkeypatch):
    clock, sent = [100.0], []
    monkeypatch.setattr("train.report.time.monotonic", lambda: clock[0])
    report = JsonReport(sent.append)
    report.start_epoch(2, 9, 0, 1000)
    for chars, total in ((880, 1000), (20, 1360), (460, 1360)):  # 12 % are left: one twenty-fourth, and the rest
        report.change_total(total)
        clock[0] += 1
        report.step(chars, 2.5, 30.0)
    report.start_epoch(3, 9, 300, 1200)  # of a run that is resumed
    clock[0] += 1
    report.step(300, 2.5, 30.0)
    assert [step["done"] for step in sent] == pytest.approx([0.88, 0.885, 1, 0.5])


def report_epochs(monkeypatch, terminal, columns=79, last=4, seconds=10.0, **environment):
    """What a report prints about the first epochs of 4 that take some seconds each, on such a standard error."""
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_, **__: os.terminal_size((columns, 24)))
    monkeypatch.setattr(sys, "stderr", terminal)
    now = 0.0
    monkeypatch.setattr("train.report.time.monotonic", lambda: now)
    report = Report()
    for epoch in range(1, last + 1):
        now += seconds
        losses = {"train_loss": 3.0 / epoch, "val_loss": 3.5 / epoch, "unseen_loss": None}
        record = {"epoch": epoch, "learning_rate": 0.1, "seconds": 1.0, "chars_per_second": 10.0, "sample": "a"}
        report.epoch(record | losses, 4, True)
    return terminal.getvalue()


def test_a_terminal_shows_the_curves_after_each_epoch_from_the_second_on(monkeypatch):
    printed = report_epochs(monkeypatch, Terminal(), last=3, NO_COLOR="1")
    assert printed.count(" validation\n") == printed.count(" training\n") == 2
    curves = draw_curves([(epoch, 3.0 / epoch, 3.5 / epoch) for epoch in (1, 2, 3)], 4, 78, coloured=False)
    assert printed.endswith("\n".join(curves) + "\n")
    assert max(map(len, printed.splitlines()[-len(curves) :])) < 79
    assert "\x1b" not in printed


def test_short_epochs_show_the_curves_every_five_seconds_and_after_the_last(monkeypatch):
    printed = report_epochs(monkeypatch, Terminal(), seconds=1.0, NO_COLOR="1")
    assert printed.count(" validation\n") == 2  # after the second epoch and the last
    assert printed.splitlines()[-1].endswith(" training")


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_curves_are_coloured_unless_the_environment_says_no(monkeypatch, environment, coloured):
    assert ("\x1b[" in report_epochs(monkeypatch, Terminal(), **environment)) is coloured


class AsciiTerminal(Terminal):
    encoding = "ascii"


@pytest.mark.parametrize("stream", [io.StringIO, AsciiTerminal])
def test_a_pipe_or_a_terminal_without_such_letters_shows_no_curves(monkeypatch, stream):
    printed = report_epochs(monkeypatch, stream())
    assert "validation loss 0.8750" in printed and "validation\n" not in printed


def test_forty_columns_are_enough_for_the_curves(monkeypatch):
    lines = report_epochs(monkeypatch, Terminal(), columns=40, NO_COLOR="1").splitlines()[-6:]
    assert lines[0].startswith("3.50 │") and lines[-1].startswith("0.75 │")
    assert max(map(len, lines)) < 40
