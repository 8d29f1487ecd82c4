"""How fast the engine writes and scores, against plain PyTorch and against the limits of the machine, in one run.

    python benchmarks/generate.py [--cells rnn lstm gru] [--sizes 256 512 1024] [--symbols 65 5000] [--seconds 3]

Run it on an idle machine. For each cell, size and number of symbols (two layers, an embedding as wide as a layer,
random weights; of the largest vocabularies only the sizes up to MOST_WITH_SYMBOLS) it measures

- ours: microseconds in which `CharLM.stream` writes a character, drawing it from all symbols included;
- plain: the same model in nn.Embedding, nn.LSTM (or RNN, GRU) and nn.Linear, which keeps its state from one step to the
  next, softmax and torch.multinomial; with as many threads as torch takes by itself or with one, whatever is faster;
- limit: the matrix-vector products of a step and nothing else, by the fastest call at hand: numpy.dot with the weights
  as they are or transposed, or the product of our kernels. Where the first layer's input is looked up in a table, it
  takes no product. `allowed` is how long ours may take in all, given that limit. What a draw needs besides, the
  exponential of each logit and their running sum, is measured with numpy and allowed in full;
- batch: characters per second of 64 streams that as many threads ask for at once, as the app's visitors do, from the
  first request to the end of the last stream; alone: the same streams one after another. Each is as long as
  `--seconds` allows; shorter ones gain less, since joining the batch takes a while;
- scored: characters per second of `CharLM.score`, and the share of the machine's peak in matrix products that it
  reaches. Each product is counted once, although the beginnings of the stretches into which the text is cut are read
  twice: 64 characters here, some hundred with trained weights, whose effective context is longer. The peak is the speed
  of a 2048³ product in float32 by numpy or torch, whatever is faster, on all cores, just before and after;
- GPU: microseconds in which a stream alone gets a character where there is CUDA; GPU, batch: characters per second of
  16 streams there; GPU, plain: microseconds of the plain model there, which waits for every character.

And once: the time and memory that a fresh process takes to load weights/shakespeare-lstm, write 1,000 characters and
end, and those of a process that only imports torch.

BLAS has one thread here, as in the app, except for the peak and the fresh processes. What is compared is measured in
turns, so that other work of the machine slows both. Times are those of the best turn. Held to AVX2:

    CHARLM_KERNELS=avx2 OPENBLAS_CORETYPE=Haswell ATEN_CPU_CAPABILITY=avx2 python benchmarks/generate.py
"""

import argparse
import ctypes
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

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))

from charlm.inference.batching import measure_chars_per_second, write_alone
from charlm.inference.compiled import describe_engine, load_kernels
from charlm.inference.compiled_model import PANEL, pack
from charlm.inference.engine import LARGEST_TABLE, Array
from charlm.inference.gpu import STEPS_PER_CALL, GpuBackend
from charlm.inference.sampling import Sampler, SamplingSettings
from charlm.lm import CharLM
from charlm.model.cells import CELLS
from charlm.model.config import ModelConfig, Weights
from charlm.model.network import Network

ROOT = Path(__file__).parents[1]
FIRST_SYMBOL = "A"
MOST_WITH_SYMBOLS = {65: 1024, 5000: 512}  # units
ENDLESS = 10**9  # characters
STRETCH = 16  # characters between two looks at the clock
STRETCH_WORK = 200_000_000  # multiplications of our stretches: of small models they are longer,
LONGEST_STRETCH = 10_000  # but not than this
TURNS = 5
STREAMS, BATCH_TURNS = 64, 2
ALL_THREADS = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}

# What is demanded of ours
TIMES_PLAIN = {256: 6, 512: 10, 1024: 10}  # for an LSTM, by its size
TIMES_LIMIT, BESIDE_LIMIT = 1.3, 15  # ours takes at most 1.3 × limit + 15 microseconds
TIMES_ALONE = 4
SHARE_OF_PEAK = 0.5
START_SECONDS, START_MEGABYTES = 0.6, 90

# Programs of separate processes. For each number of seconds it reads, this one measures for that long and prints the
# operations per second of the fastest product.
PEAK = """
import sys, time
import numpy, torch
size = int(sys.argv[1])
array = numpy.ones((size, size), numpy.float32)
tensor = torch.ones(size, size)
print(torch.get_num_threads(), flush=True)
for seconds in sys.stdin:
    end, times = time.perf_counter() + float(seconds), []
    while not times or time.perf_counter() < end:
        for multiply, matrix in ((numpy.matmul, array), (torch.mm, tensor)):
            start = time.perf_counter()
            multiply(matrix, matrix)
            times.append(time.perf_counter() - start)
    print(2 * size**3 / min(times), flush=True)
"""
WRITE = """
import sys
from charlm import CharLM
CharLM.from_pretrained("./weights/shakespeare-lstm", device="cpu").generate(length=1000)
print("torch" in sys.modules)
"""
IMPORT_TORCH = "import torch; print(True)"
# A process's peak memory includes that of the process that forked it, so a small one starts it.
LAUNCH = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
printed = subprocess.check_output([sys.executable, "-c", sys.argv[1]], text=True)
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps({"seconds": seconds, "megabytes": peak / 1e6, "imports_torch": printed == "True\\n"}))
"""


def random_model(cell: str, size: int, symbols: int) -> tuple[ModelConfig, Weights]:
    """Return an untrained model: the time of a step does not depend on the values of the weights."""
    vocab = "".join(map(chr, range(ord(FIRST_SYMBOL), ord(FIRST_SYMBOL) + symbols)))
    config = ModelConfig(cell, vocab, embedding_size=size, hidden_size=size, num_layers=2, dropout=0.0)
    random, scale = np.random.default_rng(0), np.float32(size**-0.5)
    return config, {name: scale * random_array(random, *shape) for name, shape in config.tensor_shapes.items()}


def random_array(random: np.random.Generator, *shape: int) -> Array:
    """Return numbers between -1 and 1."""
    return random.uniform(-1, 1, shape).astype(np.float32)


class Ours:
    """The stream of characters that `CharLM` writes.

    length: of a stretch, about as many as the engine writes in a call.
    """

    def __init__(self, lm: CharLM) -> None:
        self.length = min(max(STRETCH, STRETCH_WORK // lm.engine.work), LONGEST_STRETCH)
        self._characters = lm.stream(FIRST_SYMBOL, ENDLESS, temperature=1, seed=0)

    def write(self) -> None:
        """Write a stretch."""
        for _ in islice(self._characters, self.length):
            pass


class Plain(nn.Module):
    """The same model as most people would write it."""

    def __init__(self, config: ModelConfig, weights: Weights, device: str = "cpu") -> None:
        super().__init__()
        size = config.hidden_size
        self.embedding = nn.Embedding(len(config.vocab), size)
        self.recurrent = getattr(nn, config.kind.torch_class)(size, size, config.num_layers, batch_first=True)
        self.head = nn.Linear(size, len(config.vocab))
        self.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
        self.eval().to(device)
        self._vocab = config.vocab
        self._written, self._state = torch.zeros(1, 1, dtype=torch.long, device=device), None

    @torch.inference_mode()
    def write(self, threads: int = 1) -> None:
        """Write a stretch."""
        torch.set_num_threads(threads)
        for _ in range(STRETCH):
            hidden, self._state = self.recurrent(self.embedding(self._written), self._state)
            probabilities = torch.softmax(self.head(hidden[:, -1]), dim=-1)
            self._written = torch.multinomial(probabilities, 1)
            self._vocab[self._written.item()]


def products(weights: Weights) -> dict[str, list[Callable[[], object]]]:
    """Return the calls that compute the products of a step, by what computes them."""
    names = ["recurrent.weight_hh_l0", "recurrent.weight_ih_l1", "recurrent.weight_hh_l1", "head.weight"]
    if weights["embedding.weight"].shape[0] * weights["recurrent.bias_ih_l0"].size > LARGEST_TABLE:
        names.append("recurrent.weight_ih_l0")
    matrices = [weights[name] for name in names]
    random = np.random.default_rng(0)
    vectors = [random_array(random, matrix.shape[1]) for matrix in matrices]
    pairs = list(zip(matrices, vectors, strict=True))
    calls = {
        "BLAS, as they are": [product(np.dot, *pair) for pair in pairs],
        "BLAS, transposed": [product(np.dot, vector, np.ascontiguousarray(matrix.T)) for matrix, vector in pairs],
    }
    return calls | ({} if load_kernels() is None else {"kernels": [kernel_product(*pair) for pair in pairs]})


def product(multiplies: Callable[..., Array], left: Array, right: Array) -> Callable[[], object]:
    """Return a call that computes a product into an array that is there already."""
    return partial(multiplies, left, right, multiplies(left, right))


def kernel_product(matrix: Array, vector: Array) -> Callable[[], object]:
    """Return a call that adds a product to an array by the compiled kernels."""
    kernels = load_kernels()
    assert kernels is not None, "this is called where they are"
    rows = -(-len(matrix) // PANEL) * PANEL
    packed, sums = pack(matrix[None], rows, len(vector), is_bfloat16=False), np.zeros(rows, np.float32)
    arrays = packed, vector, sums  # kept alive by the call
    addresses = [ctypes.c_void_p(array.ctypes.data) for array in arrays]
    sizes = [ctypes.c_int64(number) for number in (rows // PANEL, len(vector), 1)]
    add = kernels.function("add_product")

    def call(_arrays: object = arrays) -> None:
        add(addresses[0], 0, *sizes, *addresses[1:])

    return call


def draw_plainly(symbols: int) -> Callable[[], object]:
    """Return a call that computes what a draw from so many symbols needs: exponentials, and their running sum."""
    logits = np.random.default_rng(0).normal(size=symbols)
    weights = np.empty(symbols)

    def draw() -> None:
        np.add.accumulate(np.exp(logits, weights), out=weights)

    return draw


def make_stretch(step: Sequence[Callable[[], object]]) -> None:
    """Compute the products of a step as often as a stretch has characters."""
    for _ in range(STRETCH):
        for make in step:
            make()


class Requests:
    """Requests for texts, made at the same time or one after another. length: of each text."""

    def __init__(self, lm: CharLM, length: int) -> None:
        self._lm = lm
        self.length = length

    def write_together(self) -> None:
        """Have all texts written, each received by a thread of its own."""
        with ThreadPoolExecutor(STREAMS) as threads:
            list(threads.map(self._write_shared, range(STREAMS)))

    def write(self, seed: int = 0) -> None:
        """Have one text written."""
        for _ in self._lm.stream(FIRST_SYMBOL, self.length, temperature=1, seed=seed):
            pass

    def _write_shared(self, seed: int) -> None:
        for _ in self._lm.stream_scored(FIRST_SYMBOL, self.length, SamplingSettings(1, seed=seed)):
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
        """Measure for that long; return the floating-point operations per second of a large product."""
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


def measure_writing(
    lm: CharLM, weights: Weights, threads: int, turns: int, seconds: float, bar: "tqdm[Any]"
) -> dict[str, Any]:
    """Return the figures of one text."""
    ours, plain = Ours(lm), Plain(lm.config, weights)
    plains = {str(count): partial(plain.write, count) for count in sorted({1, threads})}
    limits = {name: partial(make_stretch, step) for name, step in products(weights).items()}
    draws = partial(make_stretch, [draw_plainly(len(lm.vocab.symbols))])
    works = [ours.write, draws, *plains.values(), *limits.values()]
    ours_seconds, *seconds_of_others = best_seconds(works, turns, seconds / turns, bar)
    ours_time = 1e6 * ours_seconds / ours.length
    draw, *times = (1e6 * best / STRETCH for best in seconds_of_others)
    by_threads = dict(zip(plains, times[: len(plains)], strict=True))
    by_weights = dict(zip(limits, times[len(plains) :], strict=True))
    plain_time, limit = min(by_threads.values()), min(by_weights.values())
    allowed = TIMES_LIMIT * limit + BESIDE_LIMIT + draw
    return {
        "ours_microseconds": ours_time,
        "plain_microseconds": plain_time,
        "plain_microseconds_by_threads": by_threads,
        "times_plain": plain_time / ours_time,
        "limit_microseconds": limit,
        "limit_microseconds_by_weights": by_weights,
        "draw_microseconds": draw,
        "allowed_microseconds": allowed,
        "is_within_allowed": ours_time <= allowed,
    }


def measure_batch(lm: CharLM, ours_microseconds: float, seconds: float, bar: "tqdm[Any]") -> dict[str, Any]:
    """Return the figures of many streams, so long that they take those seconds if they are as fast as demanded."""
    requests = Requests(lm, max(1, round(TIMES_ALONE * 1e6 * seconds / ours_microseconds / STREAMS)))
    requests.write()
    together, alone = best_seconds([requests.write_together, requests.write], BATCH_TURNS, seconds / BATCH_TURNS, bar)
    return {
        "batch_length": requests.length,
        "batch_chars_per_second": STREAMS * requests.length / together,
        "alone_chars_per_second": requests.length / alone,
        "times_alone": STREAMS * alone / together,
    }


def measure_scoring(lm: CharLM, chars: int, peak: Peak, seconds: float, bar: "tqdm[Any]") -> dict[str, Any]:
    """Return the figures of reading."""
    size, gates = lm.config.hidden_size, lm.config.kind.gates
    chars = max(2, int(chars * min(1, 512 / size) ** 2))  # in larger layers a character takes longer
    symbols = len(lm.vocab.symbols)
    text = lm.vocab.decode(np.random.default_rng(0).integers(symbols, size=chars))
    before = peak.measure(seconds / 2)
    speed = chars / mean_seconds(partial(lm.score, text), 0)
    peak_speed = max(before, peak.measure(seconds / 2))
    bar.update()
    flop = 2 * (3 * gates * size * size + size * symbols)
    return {
        "scored_chars": chars,
        "scored_chars_per_second": speed,
        "peak": peak_speed,
        "share_of_peak": speed * flop / peak_speed,
    }


def measure(case: tuple[str, int, int], args: argparse.Namespace, peak: Peak, bar: "tqdm[Any]") -> dict[str, Any]:
    """Return the figures of a cell, a size and a number of symbols."""
    cell, size, symbols = case
    config, weights = random_model(*case)
    lm = CharLM(config, weights, device="cpu")
    writing = measure_writing(lm, weights, peak.threads, args.turns, args.seconds, bar)
    return {
        "cell": cell,
        "size": size,
        "symbols": symbols,
        **writing,
        **measure_batch(lm, writing["ours_microseconds"], args.seconds, bar),
        **measure_scoring(lm, args.chars, peak, args.seconds, bar),
        **(measure_gpu(config, weights, args.turns, args.seconds, bar) if torch.cuda.is_available() else {}),
    }


def measure_gpu(config: ModelConfig, weights: Weights, turns: int, seconds: float, bar: "tqdm[Any]") -> dict[str, Any]:
    """Return the figures of a GPU."""
    backend = GpuBackend(Network.from_weights(config, weights, "cuda"))
    plain = Plain(config, weights, "cuda")
    plain.write()
    stream = write_alone(backend, np.zeros(1, np.int64), ENDLESS, Sampler(SamplingSettings(1.0, seed=0)))
    next(stream)  # which captures the graph

    def write() -> None:
        for _ in islice(stream, STEPS_PER_CALL):
            pass

    ours, plains = best_seconds([write, plain.write], turns, seconds / turns, bar)
    return {
        "gpu_microseconds": 1e6 * ours / STEPS_PER_CALL,
        "gpu_batch_chars_per_second": measure_chars_per_second(backend),
        "gpu_plain_microseconds": 1e6 * plains / STRETCH,
    }


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
    """A figure: what is demanded of it, what was measured, and whether that is enough."""

    figure: str
    asked: str
    reached: str
    met: bool


def demands(report: dict[str, Any]) -> Iterator[Demand]:
    """Yield all demands."""
    rows, start = report["rows"], report["starts"]["write"]
    for row in rows:
        if row["cell"] == "lstm" and row["symbols"] == 65 and (asked := TIMES_PLAIN.get(row["size"])):
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
        "batch/alone",
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
    """Return a demand on every row. margin: at least 1 in a row that meets it. show: formats a row's figure."""
    worst, met = min(rows, key=margin), sum(margin(row) >= 1 for row in rows)
    reached = f"{met} of {len(rows)} do; the worst, {name_of(worst)}: {show(worst)}"
    return Demand(figure, asked, reached, met == len(rows))


def name_of(row: dict[str, Any]) -> str:
    """Return a model's name."""
    return f"{row['cell']} 2×{row['size']}" + (f", {row['symbols']:,} symbols" if row["symbols"] != 65 else "")


def table(report: dict[str, Any]) -> Table:
    """Return the figures as a table."""
    peak = max(row["peak"] for row in report["rows"])
    laid_out = Table(
        title=f"Writing and scoring on {report['threads']} threads, {report['engine']}; "
        f"matrix peak {peak / 1e9:.0f} GFLOP/s"
    )
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "ours, µs": lambda row: f"{row['ours_microseconds']:,.1f}",
        "plain": lambda row: f"{row['plain_microseconds']:,.1f}",
        "plain/ours": lambda row: f"{row['times_plain']:.1f}×",
        "limit": lambda row: f"{row['limit_microseconds']:,.1f}",
        "allowed": lambda row: f"{row['allowed_microseconds']:,.1f}",
        "batch, chars/s": lambda row: f"{row['batch_chars_per_second']:,.0f}",
        "alone": lambda row: f"{row['alone_chars_per_second']:,.0f}",
        "batch/alone": lambda row: f"{row['times_alone']:.1f}×",
        "scored, chars/s": lambda row: f"{row['scored_chars_per_second']:,.0f}",
        "of peak": lambda row: f"{row['share_of_peak']:.1%}",
    }
    if torch.cuda.is_available():
        columns["GPU, µs"] = lambda row: f"{row['gpu_microseconds']:,.1f}"
        columns["GPU, batch"] = lambda row: f"{row['gpu_batch_chars_per_second']:,.0f}"
        columns["GPU, plain"] = lambda row: f"{row['gpu_plain_microseconds']:,.1f}"
    laid_out.add_column("cell")
    for name in columns:
        laid_out.add_column(name, justify="right")
    for row in report["rows"]:
        laid_out.add_row(name_of(row), *(show(row) for show in columns.values()))
    return laid_out


def demand_table(report: dict[str, Any]) -> Table:
    """Return the demands as a table; those that are missed are red."""
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
    parser.add_argument("--symbols", nargs="+", type=int, default=list(MOST_WITH_SYMBOLS), help="in the vocabulary")
    parser.add_argument("--seconds", type=float, default=3, help="for each figure (%(default)s)")
    parser.add_argument("--turns", type=int, default=TURNS, help="into which these seconds are cut (%(default)s)")
    parser.add_argument(
        "--chars",
        type=int,
        default=300_000,
        help="in the text that is scored (%(default)s); fewer in layers of more than 512 units",
    )
    parser.add_argument(
        "--product", type=int, default=2048, help="rows and columns of the product that measures the peak (%(default)s)"
    )
    parser.add_argument("--starts", type=int, default=5, help="of fresh processes of each kind (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser.parse_args()


def main() -> None:
    """Measure what the command line asks for, and print it."""
    args = parse()
    cases = [
        (cell, size, symbols)
        for symbols in args.symbols
        for size in args.sizes
        for cell in args.cells
        if size <= MOST_WITH_SYMBOLS.get(symbols, size)
    ]
    command = [sys.executable, "-c", PEAK, str(args.product)]
    with Popen(command, env=ALL_THREADS, text=True, stdin=PIPE, stdout=PIPE) as process:
        peak = Peak(process)
        works, gpu_turns = len({1, peak.threads}) + 5, 2 * args.turns * torch.cuda.is_available()
        total = len(cases) * (works * args.turns + 2 * BATCH_TURNS + 1 + gpu_turns) + 2 * args.starts
        with tqdm(total=total, file=sys.stderr, desc="measuring", leave=False) as bar:
            starts = measure_starts(args.starts, bar)
            rows = [measure(case, args, peak, bar) for case in cases]
    report = {"threads": peak.threads, "engine": describe_engine(), "starts": starts, "rows": rows}
    if args.json:
        print(json.dumps(report))
        return
    console = Console(width=160)
    console.print(table(report), demand_table(report), describe_starts(starts), sep="\n")


if __name__ == "__main__":
    main()
