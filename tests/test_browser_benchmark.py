"""The benchmark of the engine in the browser measures what it says, in a run too short for its times to matter."""

import importlib.util
import io
import json
import subprocess
import sys
import threading
from urllib.request import urlopen

import pytest
from browser import ROOT
from rich.console import Console

SCRIPT = ROOT / "benchmarks" / "browser.py"


@pytest.fixture(scope="module")
def ran(browser):
    # it starts a browser of its own, but the tests are skipped where there is none
    command = [sys.executable, str(SCRIPT), "--json", "--sizes", "8", "--turns", "1", "--seconds", "0.05"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark_of_the_engine_in_the_browser", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_cells_and_a_model_of_8_megabytes_are_measured(ran, benchmark):
    assert ran.stdout, ran.stderr
    report = json.loads(ran.stdout)
    assert [(row["cell"], row["size"]) for row in report["rows"]] == [("rnn", 8), ("lstm", 8), ("gru", 8)]
    for row in report["rows"]:
        ours = row["ours_microseconds"]
        assert row["times_javascript"] == pytest.approx(row["javascript_microseconds"] / ours)
        assert row["times_kernels"] == pytest.approx(ours / row["kernels_microseconds"])
        assert row["times_python"] == pytest.approx(ours / row["python_microseconds"])
        assert row["kernels_microseconds"] > 0
    assert 8.4e6 < report["ready"]["bytes"] < 8.6e6 and report["ready"]["seconds"] > 0
    assert ran.returncode == bool(benchmark.broken_limits(report))
    console = Console(width=120, file=io.StringIO())
    console.print(benchmark.table(report))
    assert "CharLSTM 2 × 8" in console.file.getvalue()


def test_a_measurement_that_fails_leaves_no_server_behind_which_would_keep_the_process_from_ending(benchmark, tmp_path):
    before = set(threading.enumerate())
    (tmp_path / "index.html").write_text("page")

    def measure():
        with benchmark.served(tmp_path) as url:
            assert urlopen(url).read() == b"page"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measure()
    left = [thread for thread in set(threading.enumerate()) - before if not thread.daemon]
    assert left == []


def test_each_limit_that_is_missed_is_told(benchmark):
    row = {"cell": "gru", "size": 256, "times_javascript": 5, "times_kernels": 1.25, "times_python": 3}
    report = {"rows": [row], "ready": {"seconds": 0.5}}
    assert benchmark.broken_limits(report) == []
    row |= {"times_javascript": 4.9, "times_kernels": 1.3, "times_python": 3.1}
    report["ready"]["seconds"] = 0.6
    assert benchmark.broken_limits(report) == [
        "gru 2 × 256: 4.90 times as fast as plain JavaScript",
        "gru 2 × 256: 1.30 times as long as the bare kernels",
        "gru 2 × 256: 3.10 times as long as Python",
        "a model is ready after 0.60 s",
    ]
