import io
import os
import subprocess
import sys

import pytest
from browser import ROOT

from charlm.errors import RequestError
from charlm.model.folder import read_model
from train.report import Report, is_main_process, mute_other_ranks

SMALL = ["--cell=rnn", "--epochs=2", "--hidden-size=4", "--embedding-size=4", "--seq-length=16", "--device=cpu"]


@pytest.mark.slow
def test_a_training_whose_progress_nobody_reads_any_more_goes_on_to_its_end(tmp_path):
    text = tmp_path / "cats.txt"
    text.write_text("the cat sat on the mat; the dog sat on the log.\n" * 40)
    command = [sys.executable, "-m", "train", "fit", "--text", text, "--out", tmp_path / "out", *SMALL]
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as unread:
        ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=unread, check=False)
    assert (ended.returncode, ended.stdout) == (0, b"")
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


def test_only_rank_0_is_the_main_process(monkeypatch):
    assert is_main_process()
    for rank, is_main in [("0", True), ("1", False)]:
        monkeypatch.setenv("RANK", rank)
        assert is_main_process() is is_main


def test_other_ranks_print_no_refusal_but_raise_unexpected_exceptions(monkeypatch, capsys):
    def fail(error):
        with mute_other_ranks():
            sys.stderr.write("progress")
            raise error

    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(SystemExit) as ended:
        fail(RequestError("wrong"))
    assert ended.value.code == RequestError.exit_status
    with pytest.raises(ZeroDivisionError):
        fail(ZeroDivisionError())
    assert capsys.readouterr() == ("", "")
