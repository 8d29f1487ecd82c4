import os
import subprocess
import sys

import pytest
from browser import ROOT
from models import contents

from charlm.errors import RequestError
from train.config import TrainConfig
from train.data import Text
from train.encode import encode_text
from train.loop import fit
from train.report import Report
from train.run_folder import FolderLock

TEXT = Text("cats", encode_text("the cat sat on the mat; the dog sat on the log.\n" * 40))
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


@pytest.mark.parametrize("options", [{}, {"resume": True}], ids=str)
def test_a_second_training_in_the_same_folder_is_refused_and_the_first_ends_undisturbed(tmp_path, options):
    report = SecondTraining(tmp_path / "out", **options)
    fit(TEXT, tmp_path / "out", CONFIG, report)
    assert report.refused
    alone = fit(TEXT, tmp_path / "alone", CONFIG, Report())
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("out", "alone")]
    assert weights[0] == weights[1]
    assert fit(TEXT, tmp_path / "out", CONFIG, Report(), resume=True)["best"] == alone["best"]  # it is free again


def test_a_killed_process_leaves_no_lock_behind(tmp_path):
    code = f"""
import sys
from pathlib import Path
from train.run_folder import FolderLock

lock = FolderLock()
lock.acquire(Path({str(tmp_path)!r}))
print("locked", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "locked\n"
        with FolderLock() as lock, pytest.raises(RequestError, match="another training is running"):
            lock.acquire(tmp_path)
        process.kill()
    with FolderLock() as lock:
        lock.acquire(tmp_path)
    assert os.listdir(tmp_path) == []
