"""The benchmarks measure what they say, at sizes too small for the figures to mean anything."""

import json
import subprocess
import sys

import pytest
from browser import ROOT


@pytest.fixture(scope="module")
def report():
    command = [
        sys.executable,
        "benchmarks/train.py",
        "--json",
        "--sizes",
        "8",
        "40",
        "--seconds",
        "0.01",
        "--threads",
        "1",
    ]
    return json.loads(subprocess.check_output([*command, "--chars", "100000"], cwd=ROOT, text=True))


def test_every_cell_is_measured_in_one_run(report):
    assert [(row["cell"], row["size"], row["precision"]) for row in report["rows"]] == [
        (cell, size, "fp32") for size in (8, 40) for cell in ("rnn", "lstm", "gru")
    ]
    assert set(report["peaks"]) == {"fp32", "bf16"}
    assert report["threads"] == 1


def test_the_ratios_follow_from_the_figures_beside_them(report):
    for row, gates in zip(report["rows"], [1, 4, 3] * 2, strict=True):
        speed, size = row["ours_chars_per_second"], row["size"]
        assert row["times_plain"] == pytest.approx(speed / row["plain_chars_per_second"])
        # for each character, three products with each of four matrices and with the head
        flop = 6 * (4 * gates * size * size + size * 65)
        assert row["useful_share_of_peak"] == pytest.approx(speed * flop / report["peaks"]["fp32"])
        if size == 40:
            # the first layer's input: products for 65 symbols rather than 8,192 characters, and a sum over places;
            # at 8 the vocabulary is too large beside the embedding for that to pay
            flop = 6 * (3 * gates * 40 * 40 + 40 * 65) + 6 * 65 * gates * 40 * 40 / 8192 + 2 * 65 * gates * 40
        assert row["made_share_of_peak"] == pytest.approx(speed * flop / report["peaks"]["fp32"])
        outside = row["outside_seconds"]
        assert set(outside) == {"reading", "sample", "checkpoint", "export"} and min(outside.values()) > 0
        assert row["outside_share_of_epoch"] == pytest.approx(sum(outside.values()) / row["epoch_seconds"])
        assert (
            min(row[name] for name in ("validation_seconds", "faded_share_of_speed", "plain_faded_share_of_speed")) > 0
        )


def test_a_table_is_printed_for_people():
    command = [sys.executable, "benchmarks/train.py", "--cells", "rnn", "--sizes", "8", "--seconds", "0.01"]
    printed = subprocess.check_output([*command, "--chars", "100000"], cwd=ROOT, text=True)
    assert "rnn 2×8" in printed
    assert "ours/plain" in printed
