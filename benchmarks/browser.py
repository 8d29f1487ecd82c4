"""How fast the engine in the browser writes: against plain JavaScript, bare kernel calls and Python, in one run.

    python benchmarks/browser.py [--cells rnn lstm gru] [--sizes 256 512] [--turns 5] [--seconds 1] [--json]

Run it on an idle machine. It exits with 1 if one of the limits that it prints is broken. For each cell and size (two
layers, an embedding as wide as a layer, 65 symbols, random weights in bfloat16) it measures in headless Chromium

- ours: microseconds in which `CharLM.stream` of charlm/browser/charlm.js writes a character, as a page gets it:
  computed in the Worker, drawn from all symbols, sent in pieces;
- JavaScript: the same with the kernels in plain JavaScript in place of those in WebAssembly;
- kernels: the calls of the kernels that a step makes, and nothing else: the products and the gates;

and in this process

- Python: microseconds in which `CharLM.stream` of Python writes a character of the same model on the CPU.

And once: the seconds that `CharLM.from` takes until a model is ready whose bytes are there, an LSTM of 2 × 512 of
8.5 MB: the start of its Worker, the SHA-256, the check of all numbers and their new order.

What is compared is measured in turns, so that other work of the machine slows all of it. Times are those of the best
turn.
"""

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from threading import Thread
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when numpy is imported
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from playwright.sync_api import Page
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1]))

from browser import PATIENCE, ROOT, chromium

from charlm.lm import CharLM
from charlm.model.cells import CELLS
from charlm.model.config import ModelConfig
from charlm.model.folder import Model, write_model
from charlm.model.weights import round_to_bfloat16

SYMBOLS = "".join(map(chr, range(ord("A"), ord("A") + 65)))
STRETCH = 16  # characters between two looks at the clock, in Python

# What is demanded of ours
TIMES_JAVASCRIPT = 5
TIMES_KERNELS = 1.25
TIMES_PYTHON = 3
READY_SECONDS = 0.5
LARGE = "lstm", 512  # the model that is to be ready so soon

PAGE = """<!doctype html><title>charlm</title><script type="module">
import { CharLM, Engine, Reader, readConfig, readWeights } from "./charlm.js";

let model = null;

/** Load a model three times: with its kernels in WebAssembly, in JavaScript, and without anything around them. */
window.load = async (folder) => {
  const read = async (name) => new Uint8Array(await (await fetch(`${folder}/${name}`)).arrayBuffer());
  const [config, weights] = await Promise.all(["config.json", "model.safetensors"].map(read));
  const begin = performance.now();
  const ours = await CharLM.from({ config, weights });
  const seconds = (performance.now() - begin) / 1000;
  const javascript = await CharLM.from({ config, weights }, { simd: false });
  const checked = readConfig(config);
  const engine = new Engine(checked, await readWeights(weights, checked));
  const kernels = [ours.kernel, javascript.kernel, engine.kernels.name];
  model = { ours, javascript, calls: callsOfStep(engine) };
  return { seconds, kernels };
};

/** Return the calls of kernels that a step makes, each a function and its arguments. */
function callsOfStep(engine) {
  const reader = new Reader(engine);
  reader.advance(0); // which fills the table for this symbol
  const [calls, kernels] = [[], engine.kernels];
  engine.kernels = new Proxy(kernels, {
    get: (_, name) => (...parameters) => {
      calls.push([kernels[name], ...parameters]);
      kernels[name](...parameters);
    },
  });
  reader.advance(0);
  reader.predict();
  return calls;
}

window.free = () => {
  model.ours.close();
  model.javascript.close();
  model = null;
};

/** Write for that long; return the microseconds of a character. */
window.write = async (kind, seconds) => {
  let [characters, begin, end] = [0, 0, 0];
  for await (const piece of model[kind].stream("A", { length: 1e9, temperature: 1, seed: 0 })) {
    end = performance.now();
    if (begin) characters += piece.length;
    else begin = end; // the first piece is one character, and begins the time
    if (characters && end - begin >= 1000 * seconds) break;
  }
  return (1000 * (end - begin)) / characters;
};

/** Make the calls of a step again and again for that long; return the microseconds of a step. */
window.call = (seconds) => {
  const begin = performance.now();
  let [steps, end] = [0, begin];
  for (; end - begin < 1000 * seconds; end = performance.now(), steps += 16) {
    for (let step = 0; step < 16; step++) {
      for (const [kernel, a, b, c, d, e, f] of model.calls) kernel(a, b, c, d, e, f);
    }
  }
  return (1000 * (end - begin)) / steps;
};

window.isReady = true;
</script>"""


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder and says nothing about it."""

    def log_message(self, format: str, *args: object) -> None:
        """Do not log."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine; give its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:  # also after a failed measurement: the thread would keep the process from ending
            server.shutdown()
            thread.join()


def save_random_model(cell: str, size: int, folder: Path) -> None:
    """Save an untrained model: the time of a step does not depend on the values of the weights."""
    config = ModelConfig(cell, SYMBOLS, embedding_size=size, hidden_size=size, num_layers=2, dropout=0.0)
    random, scale = np.random.default_rng(0), np.float32(size**-0.5)
    weights = {name: scale * random.uniform(-1, 1, shape).astype("f4") for name, shape in config.tensor_shapes.items()}
    write_model(folder, Model(config, round_to_bfloat16(weights), None), card="")


def write_in_python(characters: Iterator[str], seconds: float) -> float:
    """Write for that long; return the microseconds of a character."""
    begin, passed, count = time.perf_counter(), 0.0, 0
    while passed < seconds:
        for _ in islice(characters, STRETCH):
            pass
        count += STRETCH
        passed = time.perf_counter() - begin
    return 1e6 * passed / count


def measure(page: Page, folder: Path, args: argparse.Namespace, bar: "tqdm[Any]") -> dict[str, Any]:
    """Return the figures of a model."""
    cell, size = folder.name.split("-")
    loaded = page.evaluate("(name) => load(name)", folder.name)
    assert loaded["kernels"] == ["wasm-simd", "javascript", "wasm-simd"], loaded
    characters = CharLM.from_pretrained(folder, device="cpu").stream(SYMBOLS[0], 10**9, temperature=1, seed=0)
    works: dict[str, Callable[[], float]] = {
        "ours": lambda: float(page.evaluate("(seconds) => write('ours', seconds)", args.seconds)),
        "javascript": lambda: float(page.evaluate("(seconds) => write('javascript', seconds)", args.seconds)),
        "kernels": lambda: float(page.evaluate("(seconds) => call(seconds)", args.seconds)),
        "python": lambda: write_in_python(characters, args.seconds),
    }
    best = dict.fromkeys(works, math.inf)
    for _ in range(args.turns):
        for name, work in works.items():
            best[name] = min(best[name], work())
            bar.update()
    page.evaluate("free()")
    return {
        "cell": cell,
        "size": int(size),
        **{f"{name}_microseconds": microseconds for name, microseconds in best.items()},
        "times_javascript": best["javascript"] / best["ours"],
        "times_kernels": best["ours"] / best["kernels"],
        "times_python": best["ours"] / best["python"],
    }


def measure_ready(page: Page, folder: Path, turns: int, bar: "tqdm[Any]") -> dict[str, Any]:
    """Return how soon a model is ready whose bytes are there, in the best of some turns."""
    seconds = []
    for _ in range(turns):
        seconds.append(page.evaluate("(name) => load(name)", folder.name)["seconds"])
        page.evaluate("free()")
        bar.update()
    return {"bytes": (folder / "model.safetensors").stat().st_size, "seconds": min(seconds)}


def broken_limits(report: dict[str, Any]) -> list[str]:
    """Return what is slower than demanded, in words."""
    broken = []
    for row in report["rows"]:
        name = f"{row['cell']} 2 × {row['size']}"
        if row["times_javascript"] < TIMES_JAVASCRIPT:
            broken.append(f"{name}: {row['times_javascript']:.2f} times as fast as plain JavaScript")
        if row["times_kernels"] > TIMES_KERNELS:
            broken.append(f"{name}: {row['times_kernels']:.2f} times as long as the bare kernels")
        if row["times_python"] > TIMES_PYTHON:
            broken.append(f"{name}: {row['times_python']:.2f} times as long as Python")
    if report["ready"]["seconds"] > READY_SECONDS:
        broken.append(f"a model is ready after {report['ready']['seconds']:.2f} s")
    return broken


def table(report: dict[str, Any]) -> Table:
    """Return the figures of all models as a table."""
    shown = Table(title="microseconds a character")
    for heading in (
        "model",
        "ours",
        "JavaScript",
        f"≥ {TIMES_JAVASCRIPT}",
        "kernels",
        f"≤ {TIMES_KERNELS}",
        "Python",
        f"≤ {TIMES_PYTHON}",
    ):
        shown.add_column(heading, justify="right" if heading != "model" else "left")
    for row in report["rows"]:
        shown.add_row(
            f"{CELLS[row['cell']].label} 2 × {row['size']}",
            f"{row['ours_microseconds']:.1f}",
            f"{row['javascript_microseconds']:,.0f}",
            f"{row['times_javascript']:.1f}×",
            f"{row['kernels_microseconds']:.1f}",
            f"{row['times_kernels']:.2f}×",
            f"{row['python_microseconds']:.1f}",
            f"{row['times_python']:.2f}×",
        )
    return shown


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure everything."""
    cases = [(cell, size) for size in args.sizes for cell in args.cells]
    total = args.turns * (4 * len(cases) + 1)
    with tempfile.TemporaryDirectory() as name, chromium() as browser:
        folder = Path(name)
        (folder / "index.html").write_text(PAGE, encoding="utf-8")
        (folder / "charlm.js").write_bytes((ROOT / "charlm" / "browser" / "charlm.js").read_bytes())
        for cell, size in {*cases, LARGE}:
            save_random_model(cell, size, folder / f"{cell}-{size}")
        with served(folder) as url, tqdm(total=total, file=sys.stderr, desc="measuring", leave=False) as bar:
            page = browser.new_page()
            page.set_default_timeout(1000 * PATIENCE)
            page.goto(url)
            page.wait_for_function("window.isReady")
            ready = measure_ready(page, folder / "{}-{}".format(*LARGE), args.turns, bar)
            rows = [measure(page, folder / f"{cell}-{size}", args, bar) for cell, size in cases]
            return {"browser": browser.version, "ready": ready, "rows": rows}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="How fast the engine in the browser writes.")
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS), help="by default all")
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 512], help="units of a layer (%(default)s)")
    parser.add_argument("--turns", type=int, default=5, help="how often each is measured (%(default)s)")
    parser.add_argument("--seconds", type=float, default=1, help="of each turn (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser.parse_args()


def main() -> int:
    """Measure what the command line asks for, print it, and return the exit status."""
    args = parse()
    report = run(args)
    broken = broken_limits(report)
    if args.json:
        print(json.dumps(report))
    else:
        ready = report["ready"]
        console = Console(width=120)
        console.print(table(report), f"Chromium {report['browser']}", sep="\n")
        console.print(
            f"a model of {ready['bytes'] / 1e6:.1f} MB is ready after {ready['seconds']:.2f} s (≤ {READY_SECONDS})"
        )
        console.print(*([f"missed: {each}" for each in broken] or ["all limits are kept"]), sep="\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
