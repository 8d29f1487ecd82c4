"""How fast training is: our step against a plain PyTorch loop, and against the machine's speed in matrix products.

    python benchmarks/train.py [--cells rnn lstm gru] [--sizes 256 512] [--symbols 65 5000] [--seconds 10] [--threads N]
        [--precision auto]

Run it on an idle machine. For each cell, size and number of symbols (two layers, an embedding as wide as a layer, the
batches that `fit` takes by default: 32 streams of 64 characters) it measures

- ours: characters per second of a step of `python -m train fit`, including reading the text, clipping and the
  optimiser, in the precision that `auto` picks;
- plain: the same model in nn.LSTM (or RNN, GRU), float32, with shuffled windows of 64 from a DataLoader, and Adam;
- the share of the machine's matrix peak, the speed of a product of up to 2048³ in the same precision: for the
  operations that a plain step needs (`useful`), and for those that ours computes (`computed`: the first layer's input
  product is computed for each symbol of the vocabulary rather than for each character);
- outside: the time that an epoch on a text of tinyshakespeare's size spends outside the network, as a share of the
  epoch: reading the text, the sample, the checkpoint and saving the model, but not measuring the validation loss;
- denormal: the speed when gradients are denormal floats, as a share of the usual speed, ours and plain's. Many CPUs
  are slow with denormals unless told to flush them; where plain's share is about 1 too, this one is not.

Ours and plain take turns, so that other programs on the machine slow both. Times are medians.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))

from charlm.model.cells import CELLS
from train.checkpoint import save_checkpoint
from train.config import TrainConfig
from train.data import Text, make_text
from train.distributed import SINGLE_PROCESS
from train.encode import encode_pieces
from train.interrupts import Interrupts
from train.loop import describe_run
from train.precision import computes_bf16, flushed_denormals, pick_precision
from train.protocols import Holdout
from train.recipes import LONG
from train.report import Report
from train.trainer import SAMPLE_LENGTH, Trainer

SYMBOLS = 65, 5000
STREAMS, LENGTH = LONG["lstm"].batch_size, LONG["lstm"].seq_length  # the defaults of `fit` for all cells
TURNS = 5
WIDTH = 132  # of the printed table, in characters
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
MIN_TIMES_PLAIN = {"bf16": 2.0, "fp32": 1.1}  # our goal, by the precision of our step
MIN_SHARE_OF_PEAK = 0.6  # our goal for an LSTM of 512: the operations that it computes
SMALLEST_PRODUCT, LARGEST_PRODUCT = 64, 2048  # rows and columns of the products that measure the matrix peak
REPETITIONS, PEAK_SECONDS = 10, 4.0  # of each size, and how long they may take together


def synthetic_text(chars: int, symbols: int) -> Text:
    """Return a text of random symbols: the time of a step does not depend on the text."""
    drawn = np.random.default_rng(0).integers(symbols, size=chars, dtype=np.uint32) + ord("A")
    return make_text("random symbols", encode_pieces([drawn.tobytes().decode("utf-32-le")], "random symbols"))


class Ours:
    """A training step of `fit`."""

    def __init__(self, cell: str, size: int, precision: str, text: Text) -> None:
        self.protocol = protocol = Holdout(text)
        config = TrainConfig(
            cell, hidden_size=size, embedding_size=size, batch_size=STREAMS, seq_length=LENGTH, precision=precision
        ).resolve(protocol)
        torch.manual_seed(0)
        self.trainer = Trainer(config, protocol, describe_run(text, protocol, config), Report(), SINGLE_PROCESS)
        self.batches = protocol.batches(STREAMS, LENGTH, 0)

    def step(self) -> None:
        """Make one; after the last of the epoch, begin it again."""
        with flushed_denormals():
            self.trainer.step %= self.batches.steps_per_epoch
            self.trainer.train_step()

    def denormal_step(self) -> None:
        """Make one with denormal gradients."""
        make_gradients_denormal(self.trainer.network.head)
        self.step()


class Plain:
    """The same model and batch in plain PyTorch, as most people would write them."""

    def __init__(self, cell: str, size: int, text: Text) -> None:
        kind, self._symbols = CELLS[cell], len(text.encoded.symbols)
        self._embedding = nn.Embedding(self._symbols, size)
        self._recurrent = getattr(nn, kind.torch_class)(size, size, 2, dropout=kind.recipe.dropout, batch_first=True)
        self._head = nn.Linear(size, self._symbols)
        self._drop_embedding, self._drop = nn.Dropout(kind.recipe.embedding_dropout), nn.Dropout(kind.recipe.dropout)
        self._model = nn.ModuleList([self._embedding, self._recurrent, self._head])
        self._optimizer = torch.optim.Adam(self._model.parameters(), lr=0.002)
        self._criterion = nn.CrossEntropyLoss()
        self._loader = DataLoader(PlainWindows(text), batch_size=STREAMS, shuffle=True)
        self._batches = chain.from_iterable(repeat(self._loader))  # epoch after epoch

    def step(self) -> None:
        """Make one."""
        inputs, targets = next(self._batches)
        self._optimizer.zero_grad()
        outputs, _ = self._recurrent(self._drop_embedding(self._embedding(inputs)))
        loss = self._criterion(self._head(self._drop(outputs)).reshape(-1, self._symbols), targets.reshape(-1))
        loss.backward()
        self._optimizer.step()
        loss.item()

    def denormal_step(self) -> None:
        """Make one with denormal gradients."""
        make_gradients_denormal(self._head)
        self.step()


def make_gradients_denormal(head: nn.Linear) -> None:
    """Scale the head's weights so that the gradients of the layers below are denormal in the next step.

    The update of that step undoes it, whatever the learning rate.
    """
    with torch.no_grad():
        head.weight.normal_(std=1e-34)


class PlainWindows(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """All windows of LENGTH characters of a text."""

    def __init__(self, text: Text) -> None:
        self._ids = text.encoded.ids.tolist()

    def __len__(self) -> int:
        return len(self._ids) - LENGTH

    def __getitem__(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor(self._ids[place : place + LENGTH]), torch.tensor(self._ids[place + 1 : place + LENGTH + 1])


def matrix_peak(precision: str, largest: int = LARGEST_PRODUCT) -> float:
    """Return the floating-point operations per second of the machine in a large matrix product.

    The product is of `largest`³, or smaller where that would take longer than PEAK_SECONDS: the size is doubled,
    which takes eight times the operations, only while the time so far shows that this is affordable.
    """
    size = SMALLEST_PRODUCT
    while True:
        left, right = (torch.ones(size, size, dtype=DTYPES[precision]) for _ in range(2))
        seconds = min(seconds_of(lambda left=left, right=right: torch.mm(left, right)) for _ in range(REPETITIONS))
        if size >= largest or 8 * seconds * REPETITIONS > PEAK_SECONDS:
            return 2 * size**3 / seconds
        size *= 2


def seconds_of(work: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def step_seconds(steps: Sequence[Callable[[], object]], turns: int, seconds: float, bar: "tqdm[Any]") -> list[float]:
    """Return the median time of each kind of step; the kinds take turns."""
    times: list[list[float]] = [[] for _ in steps]
    for step in steps:
        step()  # the first one allocates memory
    for _ in range(turns):
        for place, step in enumerate(steps):
            end = time.perf_counter() + seconds / turns
            while not times[place] or time.perf_counter() < end:
                times[place].append(seconds_of(step))
            bar.update()
    return [statistics.median(each) for each in times]


def step_flop(cell: str, size: int, symbols: int) -> tuple[int, int]:
    """Return the operations in the matrix products of a plain step, and of one of ours.

    Each weight matrix is multiplied three times: forward, and backward for the inputs and for the weights.
    """
    chars, gates = STREAMS * LENGTH, CELLS[cell].gates
    matrix = 6 * chars * gates * size * size
    head = 6 * chars * size * symbols
    # by symbol: three products, and the sum of the gradients over the positions of each symbol
    by_symbol = 6 * symbols * gates * size * size + 2 * symbols * chars * gates * size
    first_input = by_symbol if 2 * size >= symbols else matrix  # ours too reads characters if the embedding is small
    return 4 * matrix + head, 3 * matrix + head + first_input


def outside_seconds(ours: Ours) -> dict[str, float]:
    """Measure the parts of an epoch that are not training steps; `validation` is the time of its validation loss."""
    trainer, steps = ours.trainer, ours.batches.steps_per_epoch
    reading = statistics.median(seconds_of(partial(ours.batches.batch, 1, step)) for step in range(steps))
    trainer.step = steps - 1
    trainer.train_epoch(interrupts := Interrupts())
    trainer.end_epoch(trainer.measure(interrupts))
    lm = trainer.best_model()
    with tempfile.TemporaryDirectory() as folder:
        sample = seconds_of(lambda: lm.generate("", SAMPLE_LENGTH, seed=0))
        checkpoint = seconds_of(lambda: save_checkpoint(Path(folder), trainer.checkpoint()))
        export = min(seconds_of(lambda: lm.save_pretrained(folder)) for _ in range(2))  # the first imports matplotlib
    with flushed_denormals():
        validation = seconds_of(lambda: ours.protocol.epoch_losses(lm))
    return {
        "reading": steps * reading,
        "sample": sample,
        "checkpoint": checkpoint,
        "export": export,
        "validation": validation,
    }


def measure(
    case: tuple[str, int, int], args: argparse.Namespace, peaks: dict[str, float], text: Text, bar: "tqdm[Any]"
) -> dict[str, Any]:
    """Return the figures of a cell, a size and a number of symbols. peaks: operations per second in each precision."""
    cell, size, symbols = case
    precision = pick_precision(args.precision, torch.device("cpu"), size)
    ours, plain = Ours(cell, size, precision, text), Plain(cell, size, text)
    steps = [ours.step, plain.step, ours.denormal_step, plain.denormal_step]
    ours_seconds, plain_seconds, ours_denormal, plain_denormal = step_seconds(steps, args.turns, args.seconds, bar)
    useful, computed = step_flop(*case)
    epoch_seconds = ours.batches.steps_per_epoch * ours_seconds
    outside = outside_seconds(ours)
    validation = outside.pop("validation")
    chars = STREAMS * LENGTH
    return {
        "cell": cell,
        "size": size,
        "symbols": symbols,
        "precision": precision,
        "ours_chars_per_second": chars / ours_seconds,
        "plain_chars_per_second": chars / plain_seconds,
        "times_plain": plain_seconds / ours_seconds,
        "useful_share_of_peak": useful / ours_seconds / peaks[precision],
        "computed_share_of_peak": computed / ours_seconds / peaks[precision],
        "epoch_seconds": epoch_seconds,
        "outside_seconds": outside,
        "outside_share_of_epoch": sum(outside.values()) / epoch_seconds,
        "validation_seconds": validation,
        "denormal_share_of_speed": ours_seconds / ours_denormal,
        "plain_denormal_share_of_speed": plain_seconds / plain_denormal,
    }


def table(report: dict[str, Any]) -> Table:
    """Return the figures as a table; those that miss our goals are red."""
    peaks = ", ".join(f"{peak / 1e9:.0f} GFLOP/s in {precision}" for precision, peak in report["peaks"].items())
    result = Table(title=f"A training step, {report['threads']} threads; matrix peak {peaks}")
    for name in (
        "cell",
        "precision",
        "ours, chars/s",
        "plain",
        "ours/plain",
        "useful",
        "computed",
        "outside",
        "denormal",
        "plain denormal",
    ):
        result.add_column(name, justify="left" if name in ("cell", "precision") else "right", no_wrap=name == "cell")
    for row in report["rows"]:
        too_slow = row["times_plain"] < MIN_TIMES_PLAIN[row["precision"]]
        below_peak = row["cell"] == "lstm" and row["size"] == 512 and row["computed_share_of_peak"] < MIN_SHARE_OF_PEAK
        result.add_row(
            f"{row['cell']} 2×{row['size']}"
            + (f", {row['symbols']:,} symbols" if row["symbols"] != SYMBOLS[0] else ""),
            row["precision"],
            f"{row['ours_chars_per_second']:,.0f}",
            f"{row['plain_chars_per_second']:,.0f}",
            f"[{'red' if too_slow else 'green'}]{row['times_plain']:.2f}×",
            f"{row['useful_share_of_peak']:.1%}",
            f"[{'red' if below_peak else 'default'}]{row['computed_share_of_peak']:.1%}",
            f"{row['outside_share_of_epoch']:.1%}",
            f"{row['denormal_share_of_speed']:.2f}×",
            f"{row['plain_denormal_share_of_speed']:.2f}×",
        )
    return result


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure how fast training is.")
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 512], help="units in a layer (%(default)s)")
    parser.add_argument("--symbols", nargs="+", type=int, default=SYMBOLS, help="in the text (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10, help="seconds for each figure (%(default)s)")
    parser.add_argument("--turns", type=int, default=TURNS, help="into which these seconds are cut (%(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="(%(default)s)")
    parser.add_argument(
        "--product",
        type=int,
        default=LARGEST_PRODUCT,
        help="rows and columns of the largest product that measures the peak (%(default)s)",
    )
    parser.add_argument("--precision", choices=["auto", *DTYPES], default="auto")
    parser.add_argument(
        "--chars", type=int, default=1_115_394, help="length of the text, of which an epoch is timed (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    args = parser.parse_args()
    if args.precision == "bf16" and not computes_bf16():
        parser.error(
            "this CPU emulates bf16, which is a hundred times slower than fp32; choose --precision fp32 or auto"
        )
    return args


def main() -> None:
    """Measure and print what the command line asks for."""
    args = parse()
    torch.set_num_threads(args.threads)
    precisions = [precision for precision in DTYPES if precision != "bf16" or computes_bf16()]
    peaks = {precision: matrix_peak(precision, args.product) for precision in precisions}
    texts = {symbols: synthetic_text(args.chars, symbols) for symbols in args.symbols}
    cases = [(cell, size, symbols) for symbols in texts for size in args.sizes for cell in args.cells]
    with tqdm(total=len(cases) * 4 * args.turns, file=sys.stderr, desc="measuring", leave=False) as bar:
        rows = [measure(case, args, peaks, texts[case[2]], bar) for case in cases]
    report = {"threads": args.threads, "peaks": peaks, "rows": rows}
    if args.json:
        print(json.dumps(report))
    else:
        Console(width=WIDTH).print(table(report))


if __name__ == "__main__":
    main()
