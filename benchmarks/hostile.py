"""What it costs at most to read a model folder that anyone may have made: seconds and memory for the worst known files.

    python benchmarks/hostile.py [--megabytes 200] [--json]

Run it on an idle machine. Each case is a model folder with one file that is at its bounds, or beyond them. A fork
of a process reads it with `charlm.model.folder.read_model`, after the imports and while the files are in the disk
cache. What is measured:

- seconds: how long reading takes. The limit is 1, plus 1 for each GB of the model's size;
- MB: how much the process's peak memory grows meanwhile, beyond the model's size, which is four bytes for each
  parameter that config.json describes, however they are stored. The limit is 64;
- outcome: `read`, or the error message.

The rows that begin with `using` load a model of a large vocabulary and use it; what counts is the memory meanwhile,
beyond the model's size and that of its padded head.

The exit status is 1 if a case exceeds a limit or has another outcome than expected.
"""

import argparse
import hashlib
import json
import os
import shutil
import string
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, product
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when numpy is imported; each thread would take memory

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))

from charlm.model.config import CONFIG_FILE, LARGEST_JSON, MOST_SYMBOLS, MOST_VALUES, ModelConfig, Weights
from charlm.model.folder import Model, write_model
from charlm.model.history import (
    HISTORY_FILE,
    MOST_RECORDED_EPOCHS,
    EpochRecord,
    HistoryRecord,
    longest_sample,
    make_history,
    write_history,
)
from charlm.model.weights import LARGEST_HEADER, WEIGHTS_FILE

ROOT = Path(__file__).parents[1]
MOST_MEGABYTES = 64
MOST_SECONDS, SECONDS_PER_GB = 1, 1
PATIENCE = 60  # seconds
SPARE = 2000  # bytes, and values, left for the rest of a JSON file
EMOJI = "😀"  # makes Python store the whole string with four bytes a character

# The program of the process that reads folders and uses models: each in a fork of its own, since a peak is that of a
# process, and the imports are made once. Each line of its input names a folder and a use, or null to read alone.
MEASURE = """
import gc, json, os, resource, select, signal, sys, time
from pathlib import Path
from charlm import CharLM
from charlm.errors import ModelFileError
from charlm.inference.sampling import SamplingSettings
from charlm.model.folder import read_model

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

def read(folder):
    try:
        read_model(Path(folder))
        return "read"
    except ModelFileError as error:
        return str(error).removeprefix(folder + ": ")

def measure(folder, use):
    if use is not None:
        lm = CharLM.from_pretrained(Path(folder), device="cpu")
        text = lm.config.vocab[:1000]
        limited = SamplingSettings(0.8, 50, 0.9, 0)
    uses = {
        None: lambda: read(folder),
        "engine": lambda: lm.engine and "used",
        "inspect": lambda: lm.inspect(text) and "used",
        "score": lambda: len(lm.score(text)) and "used",
        "effective context": lambda: len(lm.effective_context(text, 16)) and "used",
        "a prompt": lambda: list(lm.stream_scored(text, 20, limited)) and "used",
    }
    before, start = peak(), time.perf_counter()
    outcome = uses[use]()
    return {"seconds": time.perf_counter() - start, "bytes": peak() - before, "outcome": outcome}

patience = float(sys.argv[1])
gc.freeze()
for line in sys.stdin:
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writing, json.dumps(measure(*json.loads(line))).encode())
        os._exit(0)
    os.close(writing)
    in_time = select.select([reading], [], [], patience)[0]
    if not in_time:
        os.kill(child, signal.SIGKILL)
    said = os.read(reading, 1 << 16)
    os.close(reading)
    os.waitpid(child, 0)
    failed = {"seconds": patience, "bytes": 0, "outcome": "failed: it " + ("ended" if in_time else "took too long")}
    print(said.decode() or json.dumps(failed), flush=True)
"""
USES = "engine", "inspect", "score", "effective context", "a prompt"
LARGE_VOCABULARIES = 6_000, MOST_SYMBOLS  # symbols: of a long Chinese novel, and the most
SECONDS_OF_USE = 30
LEAST_HEAD = 4 * 64  # bytes for each symbol: of the head, whose units are padded to 64


@dataclass(frozen=True)
class Case:
    """A model folder with one hostile or damaged file.

    name: the file and what is in it. damage: changes a sound folder. outcome: the beginning of the expected outcome.
    base: the name of the sound folder.
    """

    name: str
    damage: Callable[[Path], object]
    outcome: str = "read"
    base: str = "small"


# Values for an unknown field of a JSON file


def names(count: int) -> Iterator[str]:
    """Yield names, all of them different."""
    return islice(map("".join, product(string.ascii_letters, repeat=4)), count)


def list_of(item: str, count: int) -> str:
    """Return a JSON list that repeats one item."""
    return f"[{','.join([item] * count)}]"


def object_of(count: int, value: str) -> str:
    """Return a JSON object with `count` keys, all with the same value."""
    return "{" + ",".join(f'"{name}":{value}' for name in names(count)) + "}"


def fill(begin: str, item: str, end: str, size: int) -> str:
    """Return a text of at most `size` bytes: an item repeated between `begin` and `end`."""
    return begin + item * ((size - len((begin + end).encode())) // len(item.encode())) + end


def worst_values(size: int) -> dict[str, str]:
    """Return JSON values of up to `size` bytes, each with as many of one kind of token as is allowed."""
    values = min(MOST_VALUES - SPARE, size // 20)
    half, share = values // 2, size // values
    halfway = "2.22507385850720113605740970913197593481954635164564802342610972"  # digits that are slow to round
    return {
        "empty lists": list_of("[]", half),
        "empty objects": list_of("{}", half),
        "objects of one": list_of('{"":1}', half),
        "names": object_of(values, "1"),
        "names of objects": object_of(half, "{}"),
        "fractions": list_of(halfway[: share - 1], values),
        "long numbers": list_of("7" * 4300, size // 4301),
        "strings": list_of(f'"{"a" * (share - 7)}{EMOJI}"', values),
        "one string": fill(f'"\\n{EMOJI}', "a", '"', size),
        "a string, and names": "[" + fill('"' + EMOJI, "a", '"', size - 12 * half) + f",{object_of(half, '1e9')}]",
        "escapes": fill(f'"{EMOJI}', "\\\\", '"', size),
        "lists in lists": list_of("[" * 90 + "]" * 90, values // 91),
    }


def refused_values(size: int) -> dict[str, tuple[str, str]]:
    """Return JSON values of up to `size` bytes that are refused, each with the error."""
    return {
        "lists without end": (fill("[", "[],", "1]", size), "holds more than"),
        "strings without end": (fill("[", '"",', '""]', size), "holds more than"),
        "quotation marks": (fill("", '"', "", size), "holds more than"),
        "escaped quotation marks": (fill('"', '\\"', "", size), "is not valid JSON"),
        "brackets": ("[" * min(MOST_VALUES - SPARE, size), "is not valid JSON"),
        "a name twice": (object_of(min(MOST_VALUES - SPARE, size // 8), "1")[:-1] + ',"aaaa":1}', "is not valid JSON"),
    }


def put(name: str, content: bytes, folder: Path) -> None:
    """Replace a file of a folder."""
    (folder / name).write_bytes(content)


def add(name: str, value: str, folder: Path) -> None:
    """Add a field with a value to a JSON file."""
    text = (folder / name).read_text(encoding="utf-8").rstrip()
    put(name, f'{text[:-1]},"x":{value}}}'.encode(), folder)


def change(folder: Path, fields: dict[str, Any]) -> None:
    """Replace fields of config.json."""
    values = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    put(CONFIG_FILE, json.dumps(values | fields, ensure_ascii=False).encode(), folder)


def update_sha256(folder: Path) -> None:
    """Write the SHA-256 of the present weights into config.json."""
    with open(folder / WEIGHTS_FILE, "rb") as file:
        change(folder, {"weights_sha256": hashlib.file_digest(file, "sha256").hexdigest()})


def json_cases() -> Iterator[Case]:
    """Yield cases of config.json and history.json at their bounds and beyond."""
    for file in (CONFIG_FILE, HISTORY_FILE):
        for name, value in worst_values(LARGEST_JSON - SPARE).items():
            yield Case(f"{file}: {name}", partial(add, file, value))
        for name, (value, outcome) in refused_values(LARGEST_JSON - SPARE).items():
            yield Case(f"{file}: {name}", partial(add, file, value), f"{file} {outcome}")
        yield Case(f"{file}: a hole of 1 TB", partial(make_hole, file), f"{file} is larger than")
    unprintable = fill(EMOJI, "\x7f", "", LARGEST_JSON - SPARE)  # Python shows each as four characters
    for name, field, value in (
        ("a cell that cannot be shown", "cell", unprintable),
        ("a vocabulary without end", "vocab", "a" * len(unprintable)),
        ("a vocabulary that repeats", "vocab", "ab" * (MOST_SYMBOLS // 2)),
    ):
        yield Case(f"{CONFIG_FILE}: {name}", partial(change, fields={field: value}), f"{CONFIG_FILE}: {field}")
    yield Case(f"{CONFIG_FILE} and {HISTORY_FILE}", add_to_both)
    yield Case(f"{CONFIG_FILE}: {MOST_SYMBOLS:,} symbols", write_largest_vocabulary)
    for epochs in (1000, MOST_RECORDED_EPOCHS):
        record = write_history(longest_record(epochs, min(500, longest_sample(epochs)))).encode()
        yield Case(f"{HISTORY_FILE}: {epochs:,} epochs", partial(put, HISTORY_FILE, record))


def add_to_both(folder: Path) -> None:
    """Put one of the worst values into both JSON files."""
    for file in (CONFIG_FILE, HISTORY_FILE):
        add(file, worst_values(LARGEST_JSON - SPARE)["a string, and names"], folder)


def make_hole(name: str, folder: Path) -> None:
    """Replace a file by a sparse one of a terabyte."""
    with open(folder / name, "wb") as file:
        file.truncate(10**12)


def longest_record(epochs: int, sample: int) -> HistoryRecord:
    """Return a large training record. sample: its length, an emoji and control characters of six bytes each."""
    loss = 1.2345678901234567e-100
    last: EpochRecord = {
        "epoch": epochs,
        "train_loss": loss,
        "val_loss": loss,
        "unseen_loss": loss,
        "learning_rate": loss,
        "seconds": loss,
        "chars_per_second": loss,
        "sample": EMOJI + "\x01" * (sample - 1),
    }
    return make_history({}, [{**last, "epoch": number} for number in range(1, epochs + 1)])


def write_largest_vocabulary(folder: Path) -> None:
    """Write a model with the largest vocabulary allowed, of symbols with four bytes each."""
    write_vocabulary(folder, MOST_SYMBOLS)


def write_vocabulary(folder: Path, size: int) -> None:
    """Write a model of one unit and so many symbols, with four bytes each."""
    shutil.rmtree(folder)
    symbols = "".join(map(chr, range(0x10000, 0x10000 + size)))
    write_model(folder, random_model(1, symbols), "")


def header_cases() -> Iterator[Case]:
    """Yield cases of model.safetensors with the largest headers allowed, which describe other tensors."""
    size = LARGEST_HEADER - SPARE
    tensor = '{"dtype":"U8","shape":[],"data_offsets":[0,0]}'
    for name, value in worst_values(size).items():
        yield Case(f"header: {name}", partial(put_header, value), f"{WEIGHTS_FILE} holds other tensors")
    for name, (value, outcome) in refused_values(size).items():
        yield Case(f"header: {name}", partial(put_header, value), f"the header of {WEIGHTS_FILE} {outcome}")
    yield Case(
        "header: tensors",
        partial(put_header, object_of(MOST_VALUES // 8, tensor)),
        f"{WEIGHTS_FILE} holds other tensors",
    )


def put_header(value: str, folder: Path) -> None:
    """Replace the weights by a header with one value and no tensors; config.json gets their SHA-256."""
    content = f'{{"x":{value}}}'.encode()
    assert len(content) <= LARGEST_HEADER
    put(WEIGHTS_FILE, len(content).to_bytes(8, "little") + content, folder)
    update_sha256(folder)


def odd_file_cases() -> Iterator[Case]:
    """Yield cases with something else than a regular file."""
    for file in (CONFIG_FILE, HISTORY_FILE, WEIGHTS_FILE):
        for name, make in (
            ("a pipe", os.mkfifo),
            ("a folder", Path.mkdir),
            ("a link to itself", lambda path: path.symlink_to(path)),
            ("a link to zeros without end", lambda path: path.symlink_to("/dev/zero")),
        ):
            yield Case(f"{file}: {name}", partial(replace_file, file, make), f"{file} cannot be read")


def replace_file(name: str, make: Callable[[Path], object], folder: Path) -> None:
    """Replace a file by what `make` creates."""
    (folder / name).unlink()
    make(folder / name)


def large_cases() -> Iterator[Case]:
    """Yield cases of large models: sound ones, and ones whose fault shows only at the end of the file."""
    refused = f"{WEIGHTS_FILE} cannot be read"
    for base, nan in (("float32", b"\0\0\xc0\x7f"), ("bfloat16", b"\xc0\x7f")):
        for name, damage, outcome in (
            ("sound", lambda folder: None, "read"),
            ("a NaN at the end", partial(overwrite_end, nan), f"{WEIGHTS_FILE}: recurrent.weight_ih_l0 holds a NaN"),
            ("another SHA-256", partial(change, fields={"weights_sha256": ""}), f"{WEIGHTS_FILE} is not the file"),
            ("a header that lies", partial(change_header, '_offsets":[0,', '_offsets":[4,'), refused),
            ("a model of half the size", halve, WEIGHTS_FILE),
            ("cut short", partial(resize, -1), refused),
            ("a byte too many", partial(resize, 1), refused),
        ):
            yield Case(f"{base}: {name}", damage, outcome, base)


def halve(folder: Path) -> None:
    """Make config.json describe a smaller model; a bfloat16 file is still not too large for it."""
    size = json.loads((folder / CONFIG_FILE).read_text())["hidden_size"]
    change(folder, {"embedding_size": size // 2})


def overwrite_end(numbers: bytes, folder: Path) -> None:
    """Replace the last bytes of the weights; config.json gets their SHA-256."""
    with open(folder / WEIGHTS_FILE, "r+b") as file:
        file.seek(-len(numbers), os.SEEK_END)
        file.write(numbers)
    update_sha256(folder)


def change_header(old: str, new: str, folder: Path) -> None:
    """Replace a part of the header by one of the same length; config.json gets the new SHA-256."""
    with open(folder / WEIGHTS_FILE, "r+b") as file:
        header = file.read(int.from_bytes(file.read(8), "little"))
        assert header.count(old.encode()) == 1
        file.seek(8)
        file.write(header.replace(old.encode(), new.encode()))
    update_sha256(folder)


def resize(by: int, folder: Path) -> None:
    """Cut the weights, or add zeros; config.json gets their SHA-256."""
    os.truncate(folder / WEIGHTS_FILE, os.path.getsize(folder / WEIGHTS_FILE) + by)
    update_sha256(folder)


def random_model(size: int, symbols: str = "ab", stored: str = "bfloat16") -> Model:
    """Return a model without a record. size: of its one layer. stored: the type in which its weights will be stored."""
    config = ModelConfig("rnn", symbols, embedding_size=size, hidden_size=size, num_layers=1, dropout=0.0)
    random = np.random.default_rng(0)
    weights: Weights = {}
    for name, shape in config.tensor_shapes.items():
        weights[name] = random.standard_normal(shape, dtype=np.float32)
        if stored == "bfloat16":
            weights[name].view(np.uint32)[...] &= 0xFFFF0000
    return Model(config, weights, None)


class Meter:
    """The process that reads folders and uses models."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", MEASURE, str(PATIENCE)]
        self._process = Popen(command, cwd=ROOT, text=True, stdin=PIPE, stdout=PIPE)

    def measure(self, folder: Path, use: str | None = None) -> dict[str, Any]:
        """Return the seconds and bytes that reading a folder takes, or using its model, and the outcome."""
        assert self._process.stdin and self._process.stdout
        print(json.dumps([str(folder), use]), file=self._process.stdin, flush=True)
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def close(self) -> None:
        """End the process that measures."""
        self._process.communicate()


def measure(meter: Meter, case: Case, folder: Path, sound: Path) -> dict[str, Any]:
    """Measure reading a folder; return the figures. sound: the folder before it was damaged."""
    found = meter.measure(folder)
    config, _ = ModelConfig.from_json((sound / CONFIG_FILE).read_text(encoding="utf-8"))
    size = 4 * config.parameters
    beside, allowed = max(0, found["bytes"] - size) / 2**20, MOST_SECONDS + SECONDS_PER_GB * size / 1e9
    return {
        "case": case.name,
        "seconds": found["seconds"],
        "allowed_seconds": allowed,
        "megabytes": beside,
        "outcome": found["outcome"],
        "is_within": found["seconds"] <= allowed and beside <= MOST_MEGABYTES,
        "is_expected": found["outcome"].startswith(case.outcome),
    }


def measure_uses(meter: Meter, place: Path) -> Iterator[dict[str, Any]]:
    """Yield the figures of using models of a large vocabulary, in a folder that is empty or does not exist."""
    for symbols in LARGE_VOCABULARIES:
        place.mkdir(exist_ok=True)
        write_vocabulary(place, symbols)
        for use in USES:
            found = meter.measure(place, use)
            megabytes = max(0, found["bytes"] - symbols * LEAST_HEAD) / 2**20
            yield {
                "case": f"using {symbols:,} symbols: {use}",
                "seconds": found["seconds"],
                "allowed_seconds": SECONDS_OF_USE,
                "megabytes": megabytes,
                "outcome": found["outcome"],
                "is_within": found["seconds"] <= SECONDS_OF_USE and megabytes <= MOST_MEGABYTES,
                "is_expected": found["outcome"] == "used",
            }


def measure_all(megabytes: float) -> list[dict[str, Any]]:
    """Return the figures of every case. megabytes: of the large models, in memory."""
    size = int((megabytes * 1e6 / 8) ** 0.5)  # two square matrices of four bytes
    cases = [*json_cases(), *header_cases(), *odd_file_cases(), *large_cases()]
    rows = []
    with (
        tempfile.TemporaryDirectory() as place,
        tqdm(cases, file=sys.stderr, leave=False) as bar,
        closing(Meter()) as meter,
    ):
        write_model(Path(place, "small"), replace(random_model(4), history=longest_record(1, sample=1)), "")
        for stored in ("float32", "bfloat16"):
            write_model(Path(place, stored), random_model(size, stored=stored), "")
        for case in bar:
            sound = Path(place, case.base)
            folder = shutil.copytree(sound, Path(place, "damaged"))
            case.damage(folder)
            rows.append(measure(meter, case, folder, sound))
            shutil.rmtree(folder)
        rows += measure_uses(meter, Path(place, "large vocabulary"))
    return rows


def table(rows: list[dict[str, Any]]) -> Table:
    """Return the figures as a table; a row that exceeds a limit is red."""
    laid_out = Table(title=f"Reading an untrusted model: ≤ {MOST_MEGABYTES} MB beyond its size")
    laid_out.add_column("case", no_wrap=True)
    for name in ("seconds", "allowed", "MB"):
        laid_out.add_column(name, justify="right", min_width=len(name))
    laid_out.add_column("outcome", no_wrap=True)
    for row in rows:
        laid_out.add_row(
            row["case"],
            f"{row['seconds']:.3f}",
            f"{row['allowed_seconds']:.1f}",
            f"{row['megabytes']:.1f}",
            escape(textwrap.shorten(row["outcome"], 72, placeholder="…")),
            style=None if row["is_within"] and row["is_expected"] else "red",
        )
    return laid_out


def main() -> int:
    """Measure and print the figures; return the exit status."""
    parser = argparse.ArgumentParser(description="Measure what it costs to read the worst model folders.")
    parser.add_argument(
        "--megabytes",
        type=float,
        default=200,
        help="size of the large models in memory (%(default)s); smaller ones hide slow reading",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    args = parser.parse_args()
    rows = measure_all(args.megabytes)
    if args.json:
        print(json.dumps({"rows": rows}))
    else:
        worst = {name: max(rows, key=lambda row: row[name]) for name in ("seconds", "megabytes")}
        said = "; ".join(f"most {name}: {row[name]:.2f}, {row['case']}" for name, row in worst.items())
        Console(width=150).print(table(rows), said, sep="\n")
    return 0 if all(row["is_within"] and row["is_expected"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
