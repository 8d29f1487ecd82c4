import json
import os

import pytest

from train.control import LARGEST_FILE, MOST_RATES, ControlFile, ControlRequest


def write(path, content):
    """Replace the file as a whole, as those who use it do."""
    other = path.with_suffix(".new")
    other.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    os.replace(other, path)


def test_it_is_read_anew_when_it_was_replaced_and_only_then(tmp_path, monkeypatch):
    path, said = tmp_path / "control.json", []
    control = ControlFile(path)
    assert control.read(said.append) == ControlRequest()
    write(path, {"paused": True, "learning_rates": [0.001, 1]})
    assert control.read(said.append) == ControlRequest(True, (0.001, 1.0))
    monkeypatch.setattr("train.control._parse", None)  # which would fail
    assert control.read(said.append) == ControlRequest(True, (0.001, 1.0))
    monkeypatch.undo()
    write(path, {})
    assert control.read(said.append) == ControlRequest()
    write(path, {"paused": True})
    assert control.read(said.append).paused
    path.unlink()
    assert control.read(said.append) == ControlRequest()
    assert said == []


def test_where_a_machine_is_lent_for_a_time_a_run_is_not_paused(tmp_path):
    write(tmp_path / "control.json", {"paused": True, "learning_rates": [0.5]})
    assert ControlFile(tmp_path / "control.json", may_pause=False).read(print) == ControlRequest(False, (0.5,))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", f"it must be a JSON object of at most {LARGEST_FILE:,} bytes"),
        ("[]", f"it must be a JSON object of at most {LARGEST_FILE:,} bytes"),
        ("[" * 9_000, f"it must be a JSON object of at most {LARGEST_FILE:,} bytes"),
        ("{}" + " " * LARGEST_FILE, f"it must be a JSON object of at most {LARGEST_FILE:,} bytes"),
        ({"paused": 1}, "paused is 1; it must be true or false"),
        ({"learning_rates": 0.1}, f"learning_rates must be a list of at most {MOST_RATES} numbers"),
        ({"learning_rates": [0.1] * 101}, f"learning_rates must be a list of at most {MOST_RATES} numbers"),
        ({"learning_rates": [None]}, "learning_rates holds null; each must be a number"),
        ({"learning_rates": [0.1, 0]}, "a rate in learning_rates is 0.0; it must be from 1e-09 to 10"),
        ({"learning_rates": ["0.1"]}, "a rate in learning_rates is '0.1'; it must be a number"),
        ('{"learning_rates": [NaN]}', "a rate in learning_rates is nan; it must be from 1e-09 to 10"),
        ('{"learning_rates": [1e999]}', "a rate in learning_rates is inf; it must be from 1e-09 to 10"),
    ],
)
def test_a_file_that_makes_no_sense_changes_nothing_and_is_said_once(tmp_path, content, reason):
    path, said = tmp_path / "control.json", []
    control = ControlFile(path)
    write(path, {"learning_rates": [0.25]})
    before = control.read(said.append)
    write(path, content)
    assert control.read(said.append) == control.read(said.append) == before
    assert said == [f"{path} is left out: {reason}"]


def test_a_file_that_cannot_be_read_is_said_once_and_what_was_read_before_holds(tmp_path):
    path, said = tmp_path / "control.json", []
    control = ControlFile(path)
    write(path, {"learning_rates": [0.25]})
    before = control.read(said.append)
    path.unlink()
    path.mkdir()
    assert control.read(said.append) == control.read(said.append) == before
    assert said == [f"{path} cannot be read (Is a directory): what it asked for before holds until it can"]
    path.rmdir()
    write(path, {"paused": True})
    assert control.read(said.append) == ControlRequest(True)
    assert len(said) == 1
