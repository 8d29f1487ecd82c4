"""How fast ours writes and scores: against plain PyTorch and against what the machine can do, in one run.

    python benchmarks/generate.py [--cells rnn lstm gru] [--sizes 256 512 1024] [--seconds 3] [--chars 300000]

Run it on an idle machine. For each cell and size (two layers, an embedding as wide as a layer, 65 symbols, random
weights) it measures

- ours: microseconds in which `CharLM.stream` writes a character, drawing it from all symbols included;
- plain: the same model in nn.Embedding, nn.LSTM (or RNN, GRU) and nn.Linear, which keeps its state from one step to the
  next, softmax and torch.multinomial; with as many threads as torch takes by itself or with one, whatever is faster;
- limit: the products of a step between its weights and vectors and nothing else, by the fastest BLAS call at hand:
  numpy.dot with the weights as they are or transposed, or the call that ours makes. The first layer's input is looked
  up in a table, so it takes no product. `allowed` is how long ours may take beside that;
- crowd: characters per second of 64 texts that as many threads ask for at once, as the app's visitors do, from the
  first one's asking to the last one's end; alone: the same when they are written one after another. Each is as long as
  `--seconds` allows, and short ones gain less: to let a text join takes a while;
- scored: characters per second of `CharLM.score`, and the share of the machine's matrix peak that these products come
  to. Each is counted once, although the beginnings of the stretches that the text is cut into are read twice: 64
  characters here, some hundred with weights that were trained and so remember for longer. The peak is the speed of a
  2048³ product in float32 by numpy or torch, whatever is faster, on all cores, just before and after;
- GPU: microseconds in which `charlm.inference.gpu.GpuWriter` writes a character, where there is CUDA; GPU, plain: the
  plain model there, whose every character is waited for.

And once: how long it takes, and how much memory, until a fresh process has loaded weights/shakespeare-lstm, written
1,000 characters and ended; beside it one that only imports torch.

BLAS has one thread here, as in the app, except for the peak and the fresh processes, and it picks its kernels for the
machine itself, even where the environment names older ones: with those, all of this is slower. What is compared takes
turns, so that whatever else the machine does slows both. Times are those of the best turn.
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from subprocess import PIPE, Popen, check_output
from typing import Any, NamedTuple

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when numpy is imported
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.pop("OPENBLAS_CORETYPE", None)
os.environ.pop("OPENBLAS_L2_SIZE", None)

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))

from charlm.inference.engine import Array, Engine, Product, count_rows
from charlm.inference.gpu import seconds_per_symbol
from charlm.lm import CharLM
from charlm.model.cells import CELLS
from charlm.model.config import ModelConfig, Weights
from charlm.model.network import Network

ROOT = Path(__file__).parents[1]
SYMBOLS = "".join(map(chr, range(ord("A"), ord("A") + 65)))
ENDLESS = 10**9  # characters
STRETCH = 16  # characters between two looks at the clock
TURNS = 5
CROWD, CROWD_TURNS = 64, 2
ALL_THREADS = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}

# what ours shall reach
TIMES_PLAIN = {256: 6, 512: 10, 1024: 10}  # for an LSTM, by its size
TIMES_LIMIT, BESIDE_LIMIT = 1.3, 15  # beside it: microseconds
TIMES_ALONE = 4
SHARE_OF_PEAK = 0.5
START_SECONDS, START_MEGABYTES = 0.6, 90

# Processes of their own. This one answers seconds with the operations per second of the fastest product in that time.
PEAK = """
import sys, time
import numpy, torch
array = numpy.ones((2048, 2048), numpy.float32)
tensor = torch.ones(2048, 2048)
print(torch.get_num_threads(), flush=True)
for seconds in sys.stdin:
    end, times = time.perf_counter() + float(seconds), []
    while not times or time.perf_counter() < end:
        for multiply, matrix in ((numpy.matmul, array), (torch.mm, tensor)):
            start = time.perf_counter()
            multiply(matrix, matrix)
            times.append(time.perf_counter() - start)
    print(2 * 2048**3 / min(times), flush=True)
"""
WRITE = """
import sys
from charlm import CharLM
CharLM.from_pretrained("weights/shakespeare-lstm", device="cpu").generate(length=1000)
print("torch" in sys.modules)
"""
IMPORT_TORCH = "import torch; print(True)"
# The peak memory of a process counts from that of the one which starts it, so a small one does.
LAUNCH = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
printed = subprocess.check_output([sys.executable, "-c", sys.argv[1]], text=True)
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps({"seconds": seconds, "megabytes": peak / 1e6, "imports_torch": printed == "True\\n"}))
"""


def random_model(cell: str, size: int) -> tuple[ModelConfig, Weights]:
    """Return a model that was never trained: what its weights are does not change how long a step takes."""
    config = ModelConfig(cell, SYMBOLS, embedding_size=size, hidden_size=size, num_layers=2, dropout=0.0)
    random, scale = np.random.default_rng(0), np.float32(size**-0.5)
    return config, {name: scale * random_array(random, *shape) for name, shape in config.tensor_shapes.items()}


def random_array(random: np.random.Generator, *shape: int) -> Array:
    """Return numbers between -1 and 1."""
    return random.uniform(-1, 1, shape).astype(np.float32)


class Ours:
    """The stream of characters that `CharLM` writes."""

    def __init__(self, lm: CharLM) -> None:
        self._characters = lm.stream(SYMBOLS[0], ENDLESS, temperature=1, seed=0)

    def write(self) -> None:
        """Write a stretch."""
        for _ in islice(self._characters, STRETCH):
            pass


class Plain(nn.Module):
    """The same model as most people would write it."""

    def __init__(self, config: ModelConfig, weights: Weights, device: str = "cpu") -> None:
        super().__init__()
        size = config.hidden_size
        self.embedding = nn.Embedding(len(SYMBOLS), size)
        self.recurrent = getattr(nn, config.kind.torch_class)(size, size, config.num_layers, batch_first=True)
        self.head = nn.Linear(size, len(SYMBOLS))
        self.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
        self.eval().to(device)
        self._written, self._state = torch.zeros(1, 1, dtype=torch.long, device=device), None

    @torch.inference_mode()
    def write(self, threads: int = 1) -> None:
        """Write a stretch."""
        torch.set_num_threads(threads)
        for _ in range(STRETCH):
            hidden, self._state = self.recurrent(self.embedding(self._written), self._state)
            probabilities = torch.softmax(self.head(hidden[:, -1]), dim=-1)
            self._written = torch.multinomial(probabilities, 1)
            SYMBOLS[self._written.item()]


def products(weights: Weights, engine: Engine) -> dict[str, list[Callable[[], object]]]:
    """Return what makes the products of a step, by how it has the weights."""
    names = "recurrent.weight_hh_l0", "recurrent.weight_ih_l1", "recurrent.weight_hh_l1", "head.weight"
    matrices = [weights[name] for name in names]
    random = np.random.default_rng(0)
    vectors = [random_array(random, matrix.shape[1]) for matrix in matrices]
    rows = random_array(random, 2, engine.chunks, count_rows(1, alone=True), engine.chunk)
    return {
        "as they are": [product(np.dot, *pair) for pair in zip(matrices, vectors, strict=True)],
        "transposed": [
            product(np.dot, vector, np.ascontiguousarray(matrix.T))
            for matrix, vector in zip(matrices, vectors, strict=True)
        ],
        "ours": [
            Product(rows[: len(blocks)], blocks, wanted=1).make
            for blocks in (*(layer.matrices for layer in engine.layers), engine.head)
        ],
    }


def product(multiplies: Callable[..., Array], left: Array, right: Array) -> Callable[[], object]:
    """Return a call that makes a product, for which there is room already."""
    return partial(multiplies, left, right, multiplies(left, right))


def make_stretch(step: Sequence[Callable[[], object]]) -> None:
    """Make the products of a step as often as a stretch has characters."""
    for _ in range(STRETCH):
        for make in step:
            make()


class Visitors:
    """Those who ask for texts at the same time. length: of each text."""

    def __init__(self, lm: CharLM, length: int) -> None:
        self._lm = lm
        self.length = length

    def ask_together(self) -> None:
        """Have all texts written, each read by a thread of its own."""
        with ThreadPoolExecutor(CROWD) as threads:
            list(threads.map(partial(self.ask, shared=True), range(CROWD)))

    def ask(self, seed: int = 0, *, shared: bool = False) -> None:
        """Have one text written."""
        for _ in self._lm.stream(SYMBOLS[0], self.length, temperature=1, seed=seed, shared=shared):
            pass


class Peak:
    """Measures how fast the machine multiplies with all of its cores, in a process that may use them.

    threads: as many as torch takes there by itself.
    """

    def __init__(self, process: "Popen[str]") -> None:
        """process: runs PEAK."""
        assert process.stdin is not None and process.stdout is not None
        self._questions, self._answers = process.stdin, process.stdout
        self.threads = int(self._answers.readline())

    def measure(self, seconds: float) -> float:
        """Take that long; return how many floating-point operations a second it makes in a large product."""
        print(seconds, file=self._questions, flush=True)
        return float(self._answers.readline())


def mean_seconds(work: Callable[[], object], seconds: float) -> float:
    """Call again and again for that long, and at least once; return how long a call took."""
    start, passed, calls = time.perf_counter(), 0.0, 0
    while not calls or passed < seconds:
        work()
        calls += 1
        passed = time.perf_counter() - start
    return passed / calls


def best_seconds(works: Sequence[Callable[[], object]], turns: int, seconds: float, bar: "tqdm[Any]") -> list[float]:
    """Return how long a call of each of the works takes in the best of its turns, which last that many seconds."""
    best = [math.inf] * len(works)
    for _ in range(turns):
        for place, work in enumerate(works):
            best[place] = min(best[place], mean_seconds(work, seconds))
            bar.update()
    return best


def measure_writing(lm: CharLM, weights: Weights, threads: int, seconds: float, bar: "tqdm[Any]") -> dict[str, Any]:
    """Return the figures of one text."""
    ours, plain = Ours(lm), Plain(lm.config, weights)
    plains = {str(count): partial(plain.write, count) for count in sorted({1, threads})}
    limits = {name: partial(make_stretch, step) for name, step in products(weights, lm.engine).items()}
    works = [ours.write, *plains.values(), *limits.values()]
    ours_time, *times = (1e6 * best / STRETCH for best in best_seconds(works, TURNS, seconds / TURNS, bar))
    by_threads = dict(zip(plains, times[: len(plains)], strict=True))
    by_weights = dict(zip(limits, times[len(plains) :], strict=True))
    plain_time, limit = min(by_threads.values()), min(by_weights.values())
    allowed = TIMES_LIMIT * limit + BESIDE_LIMIT
    return {
        "ours_microseconds": ours_time,
        "plain_microseconds": plain_time,
        "plain_microseconds_by_threads": by_threads,
        "times_plain": plain_time / ours_time,
        "limit_microseconds": limit,
        "limit_microseconds_by_weights": by_weights,
        "allowed_microseconds": allowed,
        "is_within_allowed": ours_time <= allowed,
    }


def measure_crowd(lm: CharLM, ours_microseconds: float, seconds: float, bar: "tqdm[Any]") -> dict[str, Any]:
    """Return the figures of many texts: as long ones as take those seconds if the crowd is as fast as it shall be."""
    visitors = Visitors(lm, max(1, round(TIMES_ALONE * 1e6 * seconds / ours_microseconds / CROWD)))
    visitors.ask()
    together, alone = best_seconds([visitors.ask_together, visitors.ask], CROWD_TURNS, seconds / CROWD_TURNS, bar)
    return {
        "crowd_length": visitors.length,
        "crowd_chars_per_second": CROWD * visitors.length / together,
        "alone_chars_per_second": visitors.length / alone,
        "times_alone": CROWD * alone / together,
    }


def measure_scoring(lm: CharLM, chars: int, peak: Peak, seconds: float, bar: "tqdm[Any]") -> dict[str, Any]:
    """Return the figures of reading."""
    size, gates = lm.config.hidden_size, lm.config.kind.gates
    chars = max(2, int(chars * min(1, 512 / size) ** 2))  # in larger layers a character takes longer
    text = lm.vocab.decode(np.random.default_rng(0).integers(len(SYMBOLS), size=chars))
    before = peak.measure(seconds / 2)
    speed = chars / mean_seconds(partial(lm.score, text), 0)
    peak_speed = max(before, peak.measure(seconds / 2))
    bar.update()
    flop = 2 * (3 * gates * size * size + size * len(SYMBOLS))
    return {
        "scored_chars": chars,
        "scored_chars_per_second": speed,
        "peak": peak_speed,
        "share_of_peak": speed * flop / peak_speed,
    }


def measure(cell: str, size: int, args: argparse.Namespace, peak: Peak, bar: "tqdm[Any]") -> dict[str, Any]:
    """Return the figures of a cell and a size."""
    config, weights = random_model(cell, size)
    lm = CharLM(config, weights, device="cpu")
    writing = measure_writing(lm, weights, peak.threads, args.seconds, bar)
    return {
        "cell": cell,
        "size": size,
        **writing,
        **measure_crowd(lm, writing["ours_microseconds"], args.seconds, bar),
        **measure_scoring(lm, args.chars, peak, args.seconds, bar),
        **(measure_gpu(config, weights, args.seconds) if torch.cuda.is_available() else {}),
    }


def measure_gpu(config: ModelConfig, weights: Weights, seconds: float) -> dict[str, Any]:
    """Return the figures of one text on a GPU."""
    network, plain = Network.from_weights(config, weights, "cuda"), Plain(config, weights, "cuda")
    plain.write()
    turns = [(seconds_per_symbol(network), mean_seconds(plain.write, seconds / TURNS)) for _ in range(TURNS)]
    ours, plains = zip(*turns, strict=True)
    return {"gpu_microseconds": 1e6 * min(ours), "gpu_plain_microseconds": 1e6 * min(plains) / STRETCH}


def measure_starts(times: int, bar: "tqdm[Any]") -> dict[str, Any]:
    """Return the figures of fresh processes, which take turns."""
    runs: dict[str, list[dict[str, Any]]] = {"write": [], "import_torch": []}
    for _ in range(times):
        for name, code in (("write", WRITE), ("import_torch", IMPORT_TORCH)):
            launch = [sys.executable, "-c", LAUNCH, code]
            runs[name].append(json.loads(check_output(launch, cwd=ROOT, env=ALL_THREADS, text=True)))
            bar.update()
    return {name: {figure: min(run[figure] for run in each) for figure in each[0]} for name, each in runs.items()}


class Demand(NamedTuple):
    """What a figure shall be, and what it is."""

    figure: str
    asked: str
    reached: str
    met: bool


def demands(report: dict[str, Any]) -> Iterator[Demand]:
    """Yield what is asked."""
    rows, start = report["rows"], report["starts"]["write"]
    for row in rows:
        if row["cell"] == "lstm" and (asked := TIMES_PLAIN.get(row["size"])):
            times = row["times_plain"]
            yield Demand(f"plain/ours, {name_of(row)}", f"≥ {asked}×", f"{times:.1f}×", times >= asked)
    yield of_all(
        rows,
        "ours",
        f"≤ {TIMES_LIMIT} × limit + {BESIDE_LIMIT} µs",
        lambda row: row["allowed_microseconds"] / row["ours_microseconds"],
        lambda row: f"{row['ours_microseconds']:,.1f} of {row['allowed_microseconds']:,.1f} µs",
    )
    yield of_all(
        rows,
        "crowd/alone",
        f"≥ {TIMES_ALONE}×",
        lambda row: row["times_alone"] / TIMES_ALONE,
        lambda row: f"{row['times_alone']:.2f}×",
    )
    yield of_all(
        rows,
        "scored, of peak",
        f"≥ {SHARE_OF_PEAK:.0%}",
        lambda row: row["share_of_peak"] / SHARE_OF_PEAK,
        lambda row: f"{row['share_of_peak']:.1%}",
    )
    seconds, megabytes = start["seconds"], start["megabytes"]
    yield Demand("fresh process", f"≤ {START_SECONDS} s", f"{seconds:.2f} s", seconds <= START_SECONDS)
    yield Demand("its memory", f"≤ {START_MEGABYTES} MB", f"{megabytes:.0f} MB", megabytes <= START_MEGABYTES)


def of_all(
    rows: list[dict[str, Any]],
    figure: str,
    asked: str,
    margin: Callable[[dict[str, Any]], float],
    show: Callable[[dict[str, Any]], str],
) -> Demand:
    """Return what every row shall meet. margin: at least 1 in one that does. show: puts a row's figure in words."""
    worst, met = min(rows, key=margin), sum(margin(row) >= 1 for row in rows)
    reached = f"{met} of {len(rows)} do; the worst, {name_of(worst)}: {show(worst)}"
    return Demand(figure, asked, reached, met == len(rows))


def name_of(row: dict[str, Any]) -> str:
    """Return a model's name."""
    return f"{row['cell']} 2×{row['size']}"


def table(report: dict[str, Any]) -> Table:
    """Lay the figures out for people."""
    peak = max(row["peak"] for row in report["rows"])
    laid_out = Table(title=f"Writing and scoring on {report['threads']} threads; matrix peak {peak / 1e9:.0f} GFLOP/s")
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "ours, µs": lambda row: f"{row['ours_microseconds']:,.1f}",
        "plain": lambda row: f"{row['plain_microseconds']:,.1f}",
        "plain/ours": lambda row: f"{row['times_plain']:.1f}×",
        "limit": lambda row: f"{row['limit_microseconds']:,.1f}",
        "allowed": lambda row: f"{row['allowed_microseconds']:,.1f}",
        "crowd, chars/s": lambda row: f"{row['crowd_chars_per_second']:,.0f}",
        "alone": lambda row: f"{row['alone_chars_per_second']:,.0f}",
        "crowd/alone": lambda row: f"{row['times_alone']:.1f}×",
        "scored, chars/s": lambda row: f"{row['scored_chars_per_second']:,.0f}",
        "of peak": lambda row: f"{row['share_of_peak']:.1%}",
    }
    if torch.cuda.is_available():
        columns["GPU, µs"] = lambda row: f"{row['gpu_microseconds']:,.1f}"
        columns["GPU, plain"] = lambda row: f"{row['gpu_plain_microseconds']:,.1f}"
    laid_out.add_column("cell")
    for name in columns:
        laid_out.add_column(name, justify="right")
    for row in report["rows"]:
        laid_out.add_row(name_of(row), *(show(row) for show in columns.values()))
    return laid_out


def demand_table(report: dict[str, Any]) -> Table:
    """Lay out what is asked for; what is not reached is red."""
    laid_out = Table("figure", "asked", "reached", "", title="What is asked")
    for figure, asked, reached, met in demands(report):
        laid_out.add_row(figure, asked, reached, "[green]met" if met else "[red]missed")
    return laid_out


def describe_starts(starts: dict[str, dict[str, Any]]) -> str:
    """Say in a sentence what fresh processes take."""
    write, torch_alone = starts["write"], starts["import_torch"]
    return (
        f"A fresh process loads a model, writes 1,000 characters and ends in {write['seconds']:.2f} s and "
        f"{write['megabytes']:.0f} MB, torch {'included' if write['imports_torch'] else 'not imported'}; "
        f"`import torch` alone takes {torch_alone['seconds']:.2f} s and {torch_alone['megabytes']:.0f} MB."
    )


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure how fast a CPU writes and scores.")
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 512, 1024], help="units in a layer")
    parser.add_argument("--seconds", type=float, default=3, help="for each figure (%(default)s)")
    parser.add_argument(
        "--chars",
        type=int,
        default=300_000,
        help="in the text that is scored (%(default)s); fewer in layers of more than 512 units",
    )
    parser.add_argument("--starts", type=int, default=5, help="of fresh processes of each kind (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser.parse_args()


def main() -> None:
    """Measure what the command line asks for, and print it."""
    args = parse()
    cases = [(cell, size) for size in args.sizes for cell in args.cells]
    with Popen([sys.executable, "-c", PEAK], env=ALL_THREADS, text=True, stdin=PIPE, stdout=PIPE) as process:
        peak = Peak(process)
        works = len({1, peak.threads}) + 4
        total = len(cases) * (works * TURNS + 2 * CROWD_TURNS + 1) + 2 * args.starts
        with tqdm(total=total, file=sys.stderr, desc="measuring", leave=False) as bar:
            starts = measure_starts(args.starts, bar)
            rows = [measure(cell, size, args, peak, bar) for cell, size in cases]
    report = {"threads": peak.threads, "starts": starts, "rows": rows}
    if args.json:
        print(json.dumps(report))
        return
    console = Console(width=160)
    console.print(table(report), demand_table(report), describe_starts(starts), sep="\n")


if __name__ == "__main__":
    main()
