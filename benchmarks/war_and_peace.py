"""The table of Karpathy, Johnson and Fei-Fei, "Visualizing and Understanding Recurrent Networks" (2015), trained again.

    python benchmarks/war_and_peace.py --text FILE [--only lstm-128-1 gru-128 …] [--parts end] [--epochs 20] [--json]

It trains on 80 % of War and Peace, chooses the epoch by 10 % and prints the loss on the other 10 %, which is read once,
beside that of the paper. Each model has a folder under --out: one that is finished is not trained again, one that was
interrupted is resumed, one that was trained for fewer epochs goes on, and one that was begun with more keeps them. So
commands can be stopped and given again, also where several name the same model. The table is printed after each model.

Where the paper's 10 % lie it does not say. char-rnn, which its first author published in the month before, cuts a text
into as many streams as a batch has and splits each of them, so that what validates and what tests comes from every
chapter. By default this is done here, too, with the 100 streams of the paper's batches: FOLDER/streams.txt has the
first eight tenths of all streams, then the ninth tenths, then the last ones. With --parts end the text is split in its
own order. That is harder, since the end of the book, an essay on history, is unlike the rest.

The models of a row and a column have the size of the paper's LSTM in that place, counted as the paper counts it (the
symbols are fed to the first layer one-hot): `--only lstm-128-1` is the LSTM of row 128 with one layer. Ours has an
embedding in place of the one-hot vectors, and other cells more units in a layer, so that all parameters together are
within 5 % of that LSTM's. Row 512 has no RNN in the paper.

The paper counts bytes, ours are symbols: the file begins with a byte-order mark, which is dropped, and each line of it
ends in two bytes, which are read as one line feed, since the second is certain after the first. So the paper's loss per
byte is ours per symbol times the symbols per byte, but for what its models pay for the certain byte.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from charlm import cli
from charlm.model.cells import CELLS
from charlm.model.config import ModelConfig
from charlm.model.history import HistoryRecord
from charlm.text import read_text
from train.config import TrainConfig
from train.data import Text, load_text
from train.loop import fit
from train.report import Report
from train.run_folder import find_begun_run, holds_run
from train.split import cut_parts, parse_split

ROOT = Path(__file__).parents[1]

# Test losses in nats per byte, by cell and row; the columns are 1, 2 and 3 layers.
PAPER = {
    "lstm": {128: (1.277, 1.227, 1.279), 256: (1.189, 1.137, 1.141), 512: (1.161, 1.092, 1.082)},
    "rnn": {128: (1.417, 1.286, 1.277), 256: (1.342, 1.256, 1.239)},
    "gru": {128: (1.230, 1.226, 1.253), 256: (1.198, 1.164, 1.138), 512: (1.170, 1.201, 1.077)},
}
PAPER_SYMBOLS = 87
CLOSE = 0.05  # how far a number of parameters may be from that of the paper's LSTM
EMBEDDING = 32
UNITS_STEP = 4  # vectors of a processor hold 4 floats or a multiple
# Settings for each row. Small models do not learn two million characters by heart, so they need no dropout, and learn
# most in small batches with a high rate; large ones need dropout and decay (docs/log.md).
RECIPES: dict[int, dict[str, Any]] = {
    128: {"dropout": 0.0, "weight_decay": 0.01, "batch_size": 32, "seq_length": 64},
    256: {"dropout": 0.1, "weight_decay": 0.05, "batch_size": 32, "seq_length": 64},
    512: {"dropout": 0.3, "weight_decay": 0.2, "batch_size": 64, "seq_length": 128},
}
LR = {"rnn": 0.003, "lstm": 0.008, "gru": 0.006}  # for row 128
LR_SHARE = {128: 1.0, 256: 0.75, 512: 0.5}
SPLIT = "0.8,0.1,0.1"
STREAMS = 100


@dataclass(frozen=True)
class Place:
    """A model of the table: its cell, the units of the paper's LSTM in a layer of that row, its layers."""

    cell: str
    row: int
    layers: int

    @property
    def name(self) -> str:
        """The name of the model; --only takes it, or its beginning."""
        return f"{self.cell}-{self.row}-{self.layers}"

    @property
    def paper_loss(self) -> float:
        """The test loss of the paper, in nats per byte."""
        return PAPER[self.cell][self.row][self.layers - 1]

    @property
    def paper_parameters(self) -> int:
        """The parameters of the paper's LSTM: one bias for each gate, the symbols fed to the first layer one-hot."""
        inputs = [PAPER_SYMBOLS, *[self.row] * (self.layers - 1)]
        return sum(4 * self.row * (size + self.row + 1) for size in inputs) + (self.row + 1) * PAPER_SYMBOLS

    def units(self, symbols: int) -> int:
        """Return the units in a layer with which our model is as large as the paper's LSTM.

        symbols: that the text has.
        """
        sizes = range(UNITS_STEP, 3 * self.row, UNITS_STEP)
        best = min(sizes, key=lambda units: abs(self.parameters(units, symbols) - self.paper_parameters))
        assert abs(self.parameters(best, symbols) / self.paper_parameters - 1) < CLOSE
        return best

    def parameters(self, units: int, symbols: int) -> int:
        """Return the parameters of our model with so many units in a layer."""
        vocab = "".join(map(chr, range(256, 256 + symbols)))
        return ModelConfig(self.cell, vocab, EMBEDDING, units, self.layers, 0.0).parameters


PLACES = [Place(cell, row, layers) for cell in CELLS for row in PAPER[cell] for layers in (1, 2, 3)]


def split_streams(content: str) -> str:
    """Return the text with the first eight tenths of each of its streams first, then the ninth tenths, then the last.

    Streams are equally long, in tens of symbols, so up to 999 symbols at the end of the text are left out.
    """
    length = len(content) // (10 * STREAMS) * 10
    streams = [content[start : start + length] for start in range(0, length * STREAMS, length)]
    return "".join(stream[part] for part in cut_parts(length, parse_split(SPLIT)) for stream in streams)


def train(place: Place, out: Path, epochs: int, text: Text) -> HistoryRecord:
    """Train a model of the table, go on with it, or find it finished; return its record."""
    folder = out / place.name
    begun = find_begun_run(folder, resume=holds_run(folder))
    config = TrainConfig(
        cell=place.cell,
        hidden_size=place.units(len(text.encoded.symbols)),
        num_layers=place.layers,
        embedding_size=EMBEDDING,
        embedding_dropout=0.0,
        lr=LR[place.cell] * LR_SHARE[place.row],
        epochs=epochs if begun is None else max(epochs, begun.run["epochs"]),
        split=SPLIT,
        **RECIPES[place.row],
    )
    return fit(text, folder, config, Report(), resume=begun is not None)


def measure(place: Place, record: HistoryRecord, symbols_per_byte: float) -> dict[str, Any]:
    """Return the row of a model. Losses are in nats per byte."""
    best, run, epochs = record["best"], record["run"], record["epochs"]
    loss = best["test_loss"] * symbols_per_byte
    return {
        "model": place.name,
        "units": run["hidden_size"],
        "parameters": run["parameters"],
        "paper_parameters": place.paper_parameters,
        "loss": loss,
        "paper_loss": place.paper_loss,
        "difference": loss - place.paper_loss,
        "best_epoch": best["epoch"],
        "epochs": len(epochs),
        "hours": sum(epoch["seconds"] for epoch in epochs) / 3600,
    }


def show(rows: Sequence[dict[str, Any]], symbols_per_byte: float) -> None:
    """Print the table for people."""
    columns = ["", "units", "parameters", "of the paper", "ours", "paper", "difference", "best epoch", "hours"]
    caption = f"Ours is the loss per symbol times {symbols_per_byte:.5f} symbols per byte."
    table = Table(*columns, title="Test loss on War and Peace, nats per byte", caption=caption)
    for row in rows:
        table.add_row(
            row["model"],
            f"{row['units']}",
            f"{row['parameters']:,}",
            f"{row['paper_parameters']:,}",
            f"{row['loss']:.3f}",
            f"{row['paper_loss']:.3f}",
            f"{row['difference']:+.3f}",
            f"{row['best_epoch']} of {row['epochs']}",
            f"{row['hours']:.2f}",
        )
    Console(width=120).print(table)


def main(words: Sequence[str] | None = None) -> None:
    """Train what was asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, metavar="FILE", help="War and Peace, in UTF-8")
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="CELL-ROW-LAYERS, or a beginning of it")
    parser.add_argument("--parts", choices=("streams", "end"), default="streams", help="which 10 %% validate and test")
    parser.add_argument("--epochs", type=int, default=20, help="the paper's models had 50 (default %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="(default runs/war-and-peace-PARTS)")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON, once, at the end")
    args = parser.parse_args(words)
    chosen = [place for place in PLACES if place.name.startswith(tuple(args.only))]
    if not chosen:
        parser.error(f"no model of the table has a name that begins with {' or '.join(args.only)}")
    out = args.out or ROOT / "runs" / f"war-and-peace-{args.parts}"
    content = read_text(args.text)
    symbols_per_byte = len(content) / args.text.stat().st_size
    file = args.text
    if args.parts == "streams":
        file = out / "streams.txt"
        out.mkdir(parents=True, exist_ok=True)
        file.write_text(split_streams(content), encoding="utf-8", newline="")
    text = load_text(str(file))
    rows = []
    for place in sorted(chosen, key=lambda place: place.paper_parameters):
        rows.append(measure(place, train(place, out, args.epochs, text), symbols_per_byte))
        if not args.json:
            show(rows, symbols_per_byte)
    if args.json:
        print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    sys.exit(cli.run(main))
