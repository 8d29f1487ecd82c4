"""A training that is killed, or whose disk is full, goes on to the same model: see crashes.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from browser import ROOT

KILLS = int(os.environ.get("CHARLM_KILLS", "25"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
]


def crash(folder, how, number):
    """Run crashes.py in a process of its own: torch must not have been used yet where it forks."""
    command = [sys.executable, Path(__file__).with_name("crashes.py"), how, folder, str(number)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_runs_killed_at_random_instants_end_as_if_nothing_had_happened(tmp_path):
    assert crash(tmp_path, "random", KILLS)["kills"] == KILLS


def test_a_run_killed_before_each_change_to_the_file_system_ends_as_if_nothing_had_happened(tmp_path):
    # two checkpoints and three exports make, link and move seventeen files
    assert crash(tmp_path, "kill", 1)["crashes"] >= 3 * 17


def test_a_disk_that_is_full_from_some_change_on_is_told_in_one_line_and_loses_nothing(tmp_path):
    assert crash(tmp_path, "full", 7)["crashes"] >= 3 * 17 // 7
