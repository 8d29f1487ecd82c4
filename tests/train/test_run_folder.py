import errno
import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from browser import ROOT
from forked_programs import Program
from models import contents, make_model, save

from charlm.errors import RequestError, TrainingError
from charlm.model.folder import LEFTOVER_PREFIX
from train.checkpoint import Checkpoint
from train.config import TrainConfig
from train.data import Text, load_text
from train.encode import Folding, encode_pieces
from train.loop import fit
from train.report import Report
from train.run_folder import BegunRun, FolderLock, continue_run, find_begun_run, free_name
from train.trainer import Trainer

TEXT = Text("cats", encode_pieces(["the cat sat on the mat; the dog sat on the log.\n" * 40], "cats"))
CONFIG = TrainConfig("rnn", epochs=1, hidden_size=4, embedding_size=4, batch_size=4, seq_length=16, device="cpu")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")


class SecondTraining(Report):
    """Starts another training in the folder of a run while that runs."""

    def __init__(self, out, **options):
        super().__init__()
        self.out, self.options, self.refused = out, options, False

    def start_epoch(self, *arguments):
        super().start_epoch(*arguments)
        before = contents(self.out)
        with pytest.raises(RequestError, match="another training is running in .*; wait until it has ended, or choose"):
            fit(TEXT, self.out, CONFIG, Report(), **self.options)
        self.refused = contents(self.out) == before


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"resume": True}], ids=str)
def test_a_second_training_in_the_same_folder_is_refused_and_the_first_ends_undisturbed(tmp_path, options):
    report = SecondTraining(tmp_path / "out", **options)
    fit(TEXT, tmp_path / "out", CONFIG, report)
    assert report.refused
    alone = fit(TEXT, tmp_path / "alone", CONFIG, Report())
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("out", "alone")]
    assert weights[0] == weights[1]
    assert fit(TEXT, tmp_path / "out", CONFIG, Report(), resume=True)["best"] == alone["best"]  # it is free again


@pytest.mark.slow
def test_a_killed_process_leaves_no_lock_behind(tmp_path):
    code = f"""
import sys
from pathlib import Path
from train.run_folder import FolderLock, find_begun_run, free_name
from train.trainer import Trainer

lock = FolderLock()
lock.acquire(Path({str(tmp_path)!r}))
print("locked", flush=True)
sys.stdin.read()
"""
    with Program(["-c", code], folder=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == "locked\n"
        with FolderLock() as lock, pytest.raises(RequestError, match="another training is running"):
            lock.acquire(tmp_path)
        process.kill()
    with FolderLock() as lock:
        lock.acquire(tmp_path)
    assert os.listdir(tmp_path) == []


def refuse_to_write(monkeypatch, number):
    """Let writing into a run's folder fail as the system does."""
    mkdir = os.mkdir

    def failing(path, *arguments, **options):
        if LEFTOVER_PREFIX in os.fspath(path):
            raise OSError(number, os.strerror(number))
        mkdir(path, *arguments, **options)

    monkeypatch.setattr(os, "mkdir", failing)


@pytest.mark.parametrize(
    ("number", "error", "status", "message"),
    [
        (errno.EACCES, RequestError, 2, r"cannot write to .*out \(Permission denied\); choose another --out"),
        (errno.EROFS, RequestError, 2, r"cannot write to .*out \(Read-only file system\); choose another --out"),
        (errno.ENOSPC, TrainingError, 1, r"cannot write to .*out \(No space left on device\); make room"),
    ],
)
def test_a_folder_that_cannot_be_written_is_refused_before_the_first_step(
    tmp_path, monkeypatch, number, error, status, message
):
    monkeypatch.setattr(Trainer, "train_step", lambda *_, **__: pytest.fail("it has begun"))
    refuse_to_write(monkeypatch, number)
    with pytest.raises(error, match=message) as refused:
        fit(TEXT, tmp_path / "out", CONFIG, Report())
    assert refused.value.exit_status == status
    assert contents(tmp_path / "out") == {}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_folder_without_permissions_is_refused_before_the_first_step(tmp_path, monkeypatch, mode):
    monkeypatch.setattr(Trainer, "train_step", lambda *_, **__: pytest.fail("it has begun"))
    (tmp_path / "out").mkdir(mode=mode)
    with pytest.raises(RequestError, match="choose another --out"):
        fit(TEXT, tmp_path / "out", CONFIG, Report())


def test_a_free_name_has_the_first_number_that_is_not_there(tmp_path, monkeypatch):
    (tmp_path / "out-2").mkdir()
    assert free_name(tmp_path / "out") == tmp_path / "out-3"
    monkeypatch.chdir(tmp_path)
    assert free_name(Path()) == Path(f"{tmp_path}-2")


def test_a_model_whose_record_is_damaged_is_not_trained_further(tmp_path):
    save(make_model(), tmp_path / "out")
    (tmp_path / "out" / "history.json").write_text("{")
    with pytest.raises(
        RequestError, match=r"history\.json .* no checkpoint to resume from either: choose another --out"
    ):
        find_begun_run(tmp_path / "out", resume=True)


@pytest.mark.slow
def test_a_run_of_a_folded_text_is_not_resumed_with_another_folding(tmp_path):
    (tmp_path / "text.txt").write_text("The Cat sat on The Mat.\n" * 40, encoding="utf-8")
    folded, plain = (load_text(str(tmp_path / "text.txt"), folding=Folding(lowercase=each)) for each in (True, False))
    fit(folded, tmp_path / "out", CONFIG, Report())
    with pytest.raises(RequestError, match="holds a run with --lowercase, not without --lowercase; resume with"):
        fit(plain, tmp_path / "out", replace(CONFIG, epochs=2), Report(), resume=True)


def begun_run(**record):
    """A run that was interrupted, with this in its record."""
    return BegunRun({"epochs": 2} | record, Checkpoint({}, {"epoch": 2, "step": 0}))


def test_a_run_goes_on_only_with_the_split_that_it_was_begun_with(tmp_path):
    parts = {"train_chars": 80, "val_chars": 10, "test_chars": 10}
    begun = begun_run(split=parts | {"shares": "0.8,0.1,0.1"})
    assert continue_run(begun, begun.run, tmp_path) == begun.run
    with pytest.raises(
        RequestError, match=r"holds a run with --split 0\.8,0\.1,0\.1, not with --split 0\.9,0\.1; resume"
    ):
        continue_run(begun, begun.run | {"split": {"train_chars": 90, "val_chars": 10}}, tmp_path)


def test_another_text_to_measure_is_named_with_its_sha256(tmp_path):
    old, new = ({"name": "old", "text_sha256": hashlib.sha256(text).hexdigest()} for text in (b"abc", b""))
    begun = begun_run(also_text=old)
    for asked, given in [
        (begun.run | {"also_text": new}, "with --also-text old (SHA-256 e3b0c442…)"),  # that of no bytes
        ({name: value for name, value in begun.run.items() if name != "also_text"}, "without --also-text"),
    ]:
        with pytest.raises(RequestError) as refused:
            continue_run(begun, asked, tmp_path)
        assert str(refused.value) == (
            # the digits of "abc" are the first example of FIPS 180-4
            f"{tmp_path} holds a run with --also-text old (SHA-256 ba7816bf…), not {given}; resume with the settings "
            "that it was started with (--epochs may grow), or choose another --out"
        )
    assert continue_run(begun, begun.run | {"also_text": dict(old)}, tmp_path) == begun.run


@pytest.mark.parametrize(
    ("begun_with", "asked", "refused", "again"),
    [
        (
            {"init_from": {"name": "ada/poems", "revision": "c0ffee", "weights_sha256": "ba78"}},
            {},
            "that began with ada/poems (c0ffee), not with random weights",
            "the --init-from",
        ),
        (
            {},
            {"teachers": [{"name": name, "revision": None, "weights_sha256": "ba78"} for name in ("big", "bigger")]},
            "taught by no model, not by big (ba78) and bigger (ba78)",
            "each --teacher",
        ),
        ({"minutes": 3.0}, {"minutes": 0.5}, "with --minutes 3, not with --minutes 0.5", "the options"),
        ({"minutes": 3.0}, {}, "with --minutes 3, not without --minutes", "the options"),
    ],
    ids=str,
)
def test_a_run_goes_on_with_what_it_was_begun_with_alone(tmp_path, begun_with, asked, refused, again):
    with pytest.raises(RequestError) as caught:
        continue_run(begun_run(**begun_with), begun_run(**asked).run, tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} holds a run {refused}; resume with {again} that it was started with, or choose another --out"
    )
    run = begun_run(**begun_with).run
    assert continue_run(begun_run(**begun_with), run, tmp_path) == run
