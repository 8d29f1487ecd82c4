"""How good a model is after some minutes of training: `fit --minutes`, against nanoGPT's preset for a CPU."""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from rich.console import Console
from rich.table import Table

from charlm import cli
from charlm.model.cells import CELLS
from charlm.model.history import EpochRecord
from train.budget import Budget
from train.config import TrainConfig
from train.data import TINYSHAKESPEARE, Text, load_text
from train.encode import encode_pieces
from train.loop import fit
from train.recipes import LONG
from train.report import Report
from train.schedule import TimeLimit

# The options that the README of nanoGPT gives for a CPU: 4 layers of 128 units and a context of 64, 0.8 million
# parameters. The number of steps is that for which there is time.
NANOGPT = [
    "config/train_shakespeare_char.py",
    "--device=cpu",
    "--compile=False",
    "--log_interval=1",
    "--block_size=64",
    "--batch_size=12",
    "--n_layer=4",
    "--n_head=4",
    "--n_embd=128",
    "--dropout=0.0",
]
NANOGPT_DATA = Path("data", "shakespeare_char", "val.bin")
EVALUATED = 200  # batches of 12 × 64 characters, drawn at random, by which nanoGPT measures its loss
TRIAL_STEPS = 50  # that tell how fast nanoGPT trains here
ITERATION = re.compile(r"^iter \d+: loss .*, time ([\d.]+)ms", re.MULTILINE)
VALIDATION = re.compile(r"^step \d+: .*val loss ([\d.]+)", re.MULTILINE)
COLUMNS = (
    "characters",
    "minutes",
    "model",
    "parameters",
    "passes",
    "rate, dropout, batches",
    "best epoch",
    "took",
    "loss",
)
WIDTH = 140  # of the table, in characters


def first_part(text: Text, chars: int | None) -> Text:
    """Return the first `chars` characters of a text as a text of their own; the whole text if that is None."""
    if chars is None:
        return text
    symbols = text.encoded.symbols
    return Text(text.name, encode_pieces(["".join(symbols[index] for index in text.encoded.ids[:chars])], text.name))


def chars_of_epoch(epoch: EpochRecord) -> float:
    """Return how many characters were read in an epoch."""
    return epoch["seconds"] * epoch["chars_per_second"]


def train_ours(text: Text, minutes: float, cell: str) -> dict[str, Any]:
    """Train for a time as `fit --minutes` does; return what was chosen, the seconds that it took, and the loss."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        history = fit(
            text, Path(folder, "out"), TrainConfig(cell), Report(), budget=Budget(minutes, TimeLimit(60 * minutes))
        )
    run, best = history["run"], history["best"]
    return {
        "model": f"{cell} {run['num_layers']}×{run['hidden_size']}",
        "parameters": run["parameters"],
        "passes": sum(map(chars_of_epoch, history["epochs"])) / run["split"]["train_chars"],
        **{name: run[name] for name in asdict(LONG[cell])},
        "best": f"{best['epoch']} of {run['epochs']}",
        "seconds": time.monotonic() - begun,
        "val_loss": best["val_loss"],
    }


def run_nanogpt(checkout: Path, out: str, steps: int, evaluated: int) -> str:
    """Return what nanoGPT prints in so many steps. Raises SystemExit with its last line if it fails."""
    ends = [f"--max_iters={steps}", f"--lr_decay_iters={steps}", f"--eval_interval={steps}"]
    command = [sys.executable, "train.py", *NANOGPT, *ends, f"--eval_iters={evaluated}", f"--out_dir={out}"]
    ended = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(f"nanoGPT in {checkout} failed: {(ended.stderr.splitlines() or ['it says nothing'])[-1]}")
    return ended.stdout


def train_nanogpt(checkout: Path, minutes: float) -> dict[str, Any]:
    """Train nanoGPT's preset for as many steps as fit into the time; return the seconds that it took, and the loss.

    The loss is the one that it prints, of random places of the last tenth with a context of 64 characters.
    """
    with tempfile.TemporaryDirectory() as out:
        times = sorted(map(float, ITERATION.findall(run_nanogpt(checkout, out, TRIAL_STEPS, 1))))
        steps = max(int(60_000 * minutes / times[len(times) // 2]), 1)
        begun = time.monotonic()
        printed = run_nanogpt(checkout, out, steps, EVALUATED)
    return {
        "steps": steps,
        "seconds": time.monotonic() - begun,
        "val_loss": float(VALIDATION.findall(printed)[-1]),
    }


def measure(text: Text, minutes: Sequence[float], cells: Sequence[str], nanogpt: Path | None) -> list[dict[str, Any]]:
    """Return a row for each time, with the models of each cell and nanoGPT's, if there is a checkout of it."""
    rows = []
    for each in minutes:
        ours = [train_ours(text, each, cell) for cell in cells]
        row: dict[str, Any] = {"characters": len(text), "minutes": each, "ours": ours}
        rows.append(row | ({} if nanogpt is None else {"nanogpt": train_nanogpt(nanogpt, each)}))
    return rows


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the figures as a table."""
    result = Table(title="Validation loss after a time, in nats per character")
    for column in (*COLUMNS, "below nanoGPT") if any("nanogpt" in row for row in rows) else COLUMNS:
        result.add_column(column, justify="left" if column == "model" else "right")
    for row in rows:
        theirs, asked = row.get("nanogpt"), (f"{row['characters']:,}", f"{row['minutes']:g}")
        for ours in row["ours"]:
            result.add_row(
                *asked,
                ours["model"],
                f"{ours['parameters']:,}",
                f"{ours['passes']:.3g}",
                f"{ours['lr']:g}, {ours['dropout']:g}, {ours['batch_size']} × {ours['seq_length']}",
                ours["best"],
                f"{ours['seconds']:.0f} s",
                f"{ours['val_loss']:.4f}",
                *([f"{theirs['val_loss'] - ours['val_loss']:.4f}"] if theirs else []),
            )
        if theirs:
            took, loss = f"{theirs['seconds']:.0f} s", f"{theirs['val_loss']:.4f}"
            result.add_row(*asked, f"nanoGPT, {theirs['steps']:,} steps", "", "", "", "", took, loss)
    return result


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure how good a model is after some minutes of training.")
    parser.add_argument("--minutes", nargs="+", type=float, default=[3, 10], help="(%(default)s)")
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=["lstm"], help="(%(default)s)")
    parser.add_argument("--text", nargs="+", default=[TINYSHAKESPEARE], help="as for fit (%(default)s)")
    parser.add_argument("--chars", type=int, help="train on the first so many characters of the text alone")
    parser.add_argument("--nanogpt", type=Path, metavar="PATH", help="a checkout of nanoGPT, to compare with")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    args = parser.parse_args(arguments)
    if args.nanogpt is not None and (args.text != [TINYSHAKESPEARE] or args.chars is not None):
        parser.error(f"--nanogpt trains on {TINYSHAKESPEARE}: leave out --text and --chars")
    if args.nanogpt is not None and not (args.nanogpt / NANOGPT_DATA).exists():
        parser.error(
            f"{args.nanogpt} has no {NANOGPT_DATA}: give a checkout of nanoGPT, and run there "
            "python data/shakespeare_char/prepare.py"
        )
    return args


def main() -> None:
    """Measure and print what the command line asks for."""
    args = parse()
    rows = measure(first_part(load_text(*args.text), args.chars), args.minutes, args.cells, args.nanogpt)
    if args.json:
        print(json.dumps({"rows": rows}))
    else:
        Console(width=WIDTH).print(table(rows))


if __name__ == "__main__":
    sys.exit(cli.run(main))
