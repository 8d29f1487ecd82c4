"""What the app does under load and against abuse: one table, a row for each thing that is done to it.

    python benchmarks/abuse.py [--rows 1 2 …] [--seconds 120] [--requests 20000] [--json]

It exits with 1 if one of the limits that it prints is broken. Every row has an app of its own, a process that serves
the models in weights/ on 127.0.0.1 behind the same guard as `python app.py` and also tells, on its standard output,
which events Gradio has, how many texts are being written, and how much memory is resident. The rows, by the numbers
that SECURITY.md has them under:

1. 64 people call /generate for 1,000 characters of the LSTM, again and again for `--seconds`;
2. 200 clients ask for 5,000 characters and vanish: before they are told their event, before they read it, or while
   they read it. An event's slot counts as free when neither Gradio's queue nor its workers have it;
3. 500 requests for 5,000 characters are posted at once and never read;
4. 10,000 calls in a row: 7 of 10 list the models, 2 inspect a line, 1 writes 20 characters;
5. bodies of 64 kB to 300 MB, with their size and in chunks; bodies and heads of which the half never comes; uploads;
6. `--requests` generated requests to the routes of the OpenAPI document, the queue and the call routes;
8. addresses of files, proxies and traversals;
11. SIGTERM while 20 people stream;
14. of a model of 6,000 symbols, 16 visitors inspect the longest text and 16 send the longest prompt, all at once. The
    limit is what 65 symbols take, some 260 MB, and half of that;
15. 500 requests to /v1/completions at once, each for 5,000 characters in one text or in 16, with log-probabilities or
    without. Two of three clients vanish while they wait or read;
17. 500 calls at once of the function that tells how a character was drawn, each at the end of a text of 20,000
    characters of its own, while somebody writes.

What takes no load is tested once: of the rows 7, 9, 10, 12, 13 and 16 the tests run that SECURITY.md names.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from charlm.model.config import ModelConfig
from charlm.model.folder import Model, write_model

ROOT = Path(__file__).parents[1]
HOST = "127.0.0.1"
API, COMPLETIONS = "/gradio_api", "/v1/completions"
LSTM, RNN = "shakespeare-lstm", "shakespeare-rnn"
LONGEST, LONGEST_PROMPT = 5_000, 20_000  # characters
LARGE, LARGE_VOCABULARY = "large", 6_000  # the name of row 14's model, and its symbols, as many as of a Chinese novel

SERVE = """
import socket, sys, threading
from charlm.web import environment
environment.prepare()
import json
from pathlib import Path
from charlm.web.models import load_registry
from charlm.web import server
from charlm.web.page import build_page
from charlm.web.theme import make_theme

registry = load_registry(sys.argv[1:], Path("weights"), "cpu")
page = build_page(registry, "cpu")
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1000 for line in status if line.startswith("VmRSS"))

def tell():
    for _ in sys.stdin:
        queue = page._queue
        running = [event._id for job in list(queue.active_jobs) if job for event in job]
        waiting = [event._id for line in list(queue.event_queue_per_concurrency_id.values()) for event in line.queue]
        texts = sum(len(model.lm._scheduler) for model in registry)
        state = {"running": running, "waiting": waiting, "texts": texts, "megabytes": resident()}
        print(json.dumps(state), file=out, flush=True)

out = sys.stdout
sys.stdout = sys.stderr
print(json.dumps({"port": port}), file=out, flush=True)
threading.Thread(target=tell, daemon=True).start()
server.serve(page, registry, make_theme(), "127.0.0.1", port)
"""


class App:
    """An app that serves, and tells how it is."""

    def __init__(self, log: Path, folders: Sequence[Path]) -> None:
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVE, *map(str, folders)],
                cwd=ROOT,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self.port = json.loads(self.process.stdout.readline())["port"]
        self.log = log

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{HOST}:{self.port}"

    def state(self) -> dict[str, Any]:
        """Ask how it is."""
        print(file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def peak(self) -> float:
        """The most memory, in MB, that was resident since the last `forget_peak`."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) / 1000 for line in status.splitlines() if line.startswith("VmHWM"))

    def forget_peak(self) -> float:
        """Begin anew with the peak; return what is resident now."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        return self.peak()


@asynccontextmanager
async def serving(log: Path, *folders: Path) -> AsyncIterator[App]:
    """Start an app, and warm it up with a text of each model. folders: of models, instead of those in weights/."""
    app = App(log, folders)
    try:
        async with visitor(app) as client:
            while True:
                with suppress(httpx.TransportError):
                    if "content-security-policy" in (await client.get("/config")).headers:
                        break
                assert app.process.poll() is None, "the app has ended before it answered"
                await asyncio.sleep(0.05)
            for model in [folder.name for folder in folders] or (LSTM, RNN):
                await asyncio.gather(*(write(client, model, 50) for _ in range(4)))
        yield app
    finally:
        app.process.kill()
        app.process.wait()


def visitor(app: App) -> httpx.AsyncClient:
    """Return a client with connections of its own."""
    return httpx.AsyncClient(base_url=app.url, timeout=60, verify=False, limits=httpx.Limits(max_connections=None))


async def post(client: httpx.AsyncClient, endpoint: str, *data: object) -> httpx.Response:
    """Ask an endpoint of the API for something."""
    return await client.post(f"{API}/call/{endpoint}", json={"data": data})


async def read(client: httpx.AsyncClient, endpoint: str, event: str) -> AsyncIterator[tuple[str, Any]]:
    """Yield what an event gives: the kind of each message, and its data."""
    async with client.stream("GET", f"{API}/call/{endpoint}/{event}") as answer:
        kind = ""
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield kind, json.loads(line.removeprefix("data: "))


async def write(client: httpx.AsyncClient, model: str, length: int, seed: int = 0) -> tuple[str, float]:
    """Have a text written; return it, and the seconds until its first characters came."""
    begin, first, text = time.perf_counter(), 0.0, ""
    answer = await post(client, "generate", model, "ROMEO:\n", length, 0.8, 0, 1.0, seed)
    answer.raise_for_status()
    async for kind, data in read(client, "generate", answer.json()["event_id"]):
        if kind == "error":
            raise RuntimeError(f"the stream ended with {data!r}")
        if data and not first:
            first = time.perf_counter() - begin
        text = data[0] if data else text
    if len(text) != length:
        raise RuntimeError(f"{len(text)} of {length} characters came")
    return text, first


class Figure(NamedTuple):
    """What was seen in a row, what shall be, and whether it is."""

    row: int
    figure: str
    asked: str
    seen: str
    met: bool


def at_most(row: int, figure: str, value: float, limit: float, unit: str) -> Figure:
    """Return a figure that has a limit."""
    return Figure(row, figure, f"≤ {limit:g} {unit}", f"{value:,.3g} {unit}", value <= limit)


async def many_people(app: App, args: argparse.Namespace) -> list[Figure]:
    """Row 1."""
    end, errors = time.perf_counter() + args.seconds, list[str]()
    firsts, written = list[float](), Counter[int]()

    async def person(number: int) -> None:
        async with visitor(app) as client:
            while time.perf_counter() < end:
                try:
                    text, first = await write(client, LSTM, 1_000, number)
                except (httpx.HTTPError, RuntimeError) as error:
                    errors.append(repr(error))
                    return
                firsts.append(first)
                written[number] += len(text)

    before = app.forget_peak()
    await asyncio.gather(*(person(number) for number in range(64)))
    share = min(written.values()) / max(written.values())
    rate = sum(written.values()) / args.seconds
    return [
        Figure(
            1, f"errors among {len(firsts):,} texts ({rate:,.0f} characters/s)", "none", f"{len(errors)}", not errors
        ),
        Figure(1, "the slowest against the fastest", "≥ 0.5", f"{share:.2f}", share >= 0.5 and len(written) == 64),
        at_most(1, f"first text (median {statistics.median(firsts):.2f} s)", max(firsts), 2, "s"),
        at_most(1, "memory", app.peak() - before, 100, "MB"),
    ]


async def vanishing(app: App, args: argparse.Namespace) -> list[Figure]:
    """Row 2."""
    dice = random.Random(0)
    gone, seen, present = dict[str, float](), dict[str, float](), True

    async def client(number: int) -> None:
        await asyncio.sleep(dice.uniform(0, 20))
        async with visitor(app) as client:
            asking = post(client, "generate", LSTM, "ROMEO:\n", LONGEST, 0.8, 0, 1.0, number)
            if number % 10 == 0:  # before it is told its event
                with suppress(TimeoutError):
                    await asyncio.wait_for(asking, dice.uniform(0, 0.05))
                return
            answer = await asking
            if answer.status_code != 200:
                return
            event = answer.json()["event_id"]
            if number % 10 > 1:  # while it reads; one of ten does not begin to
                with suppress(TimeoutError):
                    async with asyncio.timeout(dice.uniform(0, 2)):
                        async for _ in read(client, "generate", event):
                            pass
                gone[event] = time.perf_counter()

    async def watch() -> None:
        while present:
            state = await asyncio.to_thread(app.state)
            seen.update(dict.fromkeys(state["running"] + state["waiting"], time.perf_counter()))
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(client(number) for number in range(200)))
    end = time.perf_counter()
    await asyncio.sleep(5)
    present = False
    await watching
    state = app.state()
    late = sorted(seen[event] - since for event, since in gone.items() if event in seen)
    slowest = late[int(0.99 * len(late))]
    left = len(state["running"]) + len(state["waiting"]) + state["texts"]
    last = max(seen.values()) - end
    return [
        at_most(2, f"until the slot of a vanished reader is free, 99 % of {len(late)}", slowest, 1, "s"),
        Figure(2, f"left after 5 s (the last went after {max(last, 0):.1f} s)", "none", f"{left}", left == 0),
    ]


async def unread(app: App, args: argparse.Namespace) -> list[Figure]:
    """Row 3."""
    before, statuses, details = app.forget_peak(), Counter[int](), set[str]()

    async def ask(number: int) -> None:
        async with visitor(app) as client:
            answer = await post(client, "generate", LSTM, "ROMEO:\n", LONGEST, 0.8, 0, 1.0, number)
            statuses[answer.status_code] += 1
            if answer.status_code != 200:
                details.add(answer.json()["detail"])

    begin = time.perf_counter()
    await asyncio.gather(*(ask(number) for number in range(500)))
    while (state := app.state())["running"] or state["waiting"] or state["texts"]:
        await asyncio.sleep(0.05)
        if time.perf_counter() - begin > 60:
            break
    took = time.perf_counter() - begin
    others = {status: count for status, count in statuses.items() if status not in (200, 503)}
    says = ", ".join(details) or "nothing"
    return [
        at_most(3, "until the last has ended", took, 20, "s"),
        Figure(3, f"answers: {dict(statuses)}", "200 or 503", says[:60], not others and "full" in says),
        at_most(3, "memory", app.peak() - before, 50, "MB"),
    ]


async def calls_in_a_row(app: App, args: argparse.Namespace) -> list[Figure]:
    """Row 4."""
    after_first = 0.0
    async with visitor(app) as client:
        for number in range(args.calls):
            if number == args.calls // 10:
                after_first = app.state()["megabytes"]
            kind = number % 10
            if kind == 0:
                await write(client, RNN, 20, number)
                continue
            endpoint, data = ("models", []) if kind < 8 else ("inspect", [RNN, "To be, or not to be"])
            answer = await post(client, endpoint, *data)
            async for each, _ in read(client, endpoint, answer.json()["event_id"]):
                assert each == "complete"
    return [
        at_most(
            4, f"memory of {args.calls:,} calls after the first tenth", app.state()["megabytes"] - after_first, 20, "MB"
        )
    ]


async def bodies(app: App, args: argparse.Namespace) -> list[Figure]:
    """Row 5."""
    answers, unexpected = Counter[int](), list[str]()
    calls = ["call/generate", "call/v2/generate", "mcp/"]
    routes = {f"{API}/queue/join": 2_500_000, COMPLETIONS: 256_000, **{f"{API}/{name}": 256_000 for name in calls}}
    names = ["upload", "stream/a", "component_server", "process_recording", "run/generate", "vibe-edit"]
    uploads = ["/v1/files", "/v1/uploads", *(f"{API}/{name}" for name in names)]

    async def chunks(size: int) -> AsyncIterator[bytes]:
        for _ in range(size // 64_000):
            yield b"x" * 64_000

    async with visitor(app) as client:
        for path in routes:  # so that what a route needs at its first request is not taken for the bodies' memory
            await client.post(path, content=b"{}")
        before = app.forget_peak()
        for size in (64_000, 1_000_000, 3_000_000, 30_000_000, 300_000_000):
            for path in [*routes, *uploads]:
                for chunked in (False, True):
                    headers = {} if chunked else {"content-length": str(size // 64_000 * 64_000)}
                    status = 0
                    with suppress(httpx.TransportError):
                        answer = await client.post(path, content=chunks(size), headers=headers)
                        status = answer.status_code
                    expected = 404 if path in uploads else 413 if size > routes[path] else None
                    answers[status] += 1
                    if status not in ((expected,) if expected else (400, 406, 415, 422)):
                        unexpected.append(f"{path} {size:,} {'chunked' if chunked else ''}: {status}")

    async def half(sent: bytes) -> float:
        reader, writer = await asyncio.open_connection(HOST, app.port)
        begin = time.perf_counter()
        writer.write(sent)
        with suppress(ConnectionError, TimeoutError):
            await asyncio.wait_for(reader.read(), 30)
        writer.close()
        return time.perf_counter() - begin

    line = f"POST {API}/queue/join HTTP/1.1\r\nhost: {HOST}\r\n".encode()
    sent = [
        b"",
        b"GET",
        line,
        line + b"content-length: 1000\r\n\r\n{",
        line + b"transfer-encoding: chunked\r\n\r\n5\r\n{",
    ]
    closed = max(await asyncio.gather(*(half(each) for each in sent for _ in range(20))))
    return [
        Figure(5, f"answers: {dict(answers)}", "413 or 404", ", ".join(unexpected)[:60] or "so", not unexpected),
        at_most(5, "until a half request is closed", closed, 15, "s"),
        at_most(5, "memory", app.peak() - before, 10, "MB"),
    ]


# Values of every kind that is none of those wanted, or is at its bounds.
STRANGE = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    1e308,
    -1e-308,
    2**53,
    10**30,
    "",
    "a",
    "ROMEO:",
    LSTM,
    RNN,
    "no/such",
    "../..",
    [],
    [[]],
    [None],
    {},
    {"a": 1},
    {"path": "/etc/passwd"},
    {"__type__": "update"},
    "\u202e\u0000\u0301" * 50,
    "한글 🎭",
    "x" * 30_000,
    "<script>alert(1)</script>",
    {"text": "a", "shades": "b", "run": {}},
    [LSTM, RNN],
    "lstm",
    "small",
    "ada/model",
]
RAW = [b"NaN", b"Infinity", b'"\\ud800"', b'"\xff"', b"1e999", b"[" * 2_000]


class Generated(NamedTuple):
    """A request."""

    method: str
    path: str
    content: bytes


def generate(dice: random.Random, endpoints: dict[str, int], events: dict[int, int], paths: list[str]) -> Generated:
    """Make up a request: mostly sound in its form, with strange values."""

    def value() -> bytes:
        return dice.choice(RAW) if dice.random() < 0.05 else json.dumps(dice.choice(STRANGE)).encode()

    def arguments(count: int) -> bytes:
        count = count if dice.random() < 0.9 else dice.randrange(10)
        return b"[" + b", ".join(value() for _ in range(count)) + b"]"

    kind = dice.random()
    if kind < 0.4:
        name = dice.choice(list(endpoints)) if dice.random() < 0.95 else dice.choice(["none", "..", "a%00b", "%F0%9F"])
        extra = b', "session_hash": ' + value() if dice.random() < 0.1 else b""
        return Generated("POST", f"{API}/call/{name}", b'{"data": ' + arguments(endpoints.get(name, 1)) + extra + b"}")
    if kind < 0.75:
        number = dice.choice(list(events)) if dice.random() < 0.95 else dice.choice([-1, 999, 10**20])
        session = json.dumps(f"s{dice.randrange(300)}").encode() if dice.random() < 0.95 else value()
        extra = b', "event_data": ' + value() + b', "trigger_id": ' + value() if dice.random() < 0.3 else b""
        body = b'{"data": ' + arguments(events.get(number, 1)) + f', "fn_index": {number}, '.encode()
        return Generated("POST", f"{API}/queue/join", body + b'"session_hash": ' + session + extra + b"}")
    if kind < 0.85:
        name = dice.choice(list(endpoints))
        keys = ["model", "prompt", "length", "temperature", "top_k", "top_p", "seed", "text", "unknown"]
        pairs = [json.dumps(key).encode() + b": " + value() for key in keys if dice.random() < 0.5]
        return Generated("POST", f"{API}/call/v2/{name}", b"{" + b", ".join(pairs) + b"}")
    if kind < 0.9:
        keys = ["model", "prompt", "max_tokens", "temperature", "top_p", "n", "stop", "seed", "logprobs", "echo"]
        keys += ["stream", "stream_options", "best_of", "unknown"]
        pairs = [json.dumps(key).encode() + b": " + value() for key in keys if dice.random() < 0.3]
        model = [] if dice.random() < 0.1 else [b'"model": "' + RNN.encode() + b'"']  # of two, the last counts
        return Generated("POST", COMPLETIONS, b"{" + b", ".join([*pairs, *model]) + b"}")
    if kind < 0.94:
        body = {"session_hash": f"s{dice.randrange(300)}", "fn_index": dice.choice(STRANGE[:12]), "event_id": "e"}
        return Generated(
            "POST", f"{API}/{dice.choice(['cancel', 'reset', 'mcp/', 'queue/join'])}", json.dumps(body).encode()
        )
    path = dice.choice(paths).replace("{event_id}", dice.choice(["a", "..", "0" * 32]))
    return Generated(dice.choice(["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "POST"]), path, value())


def reason(answer: httpx.Response) -> str:
    """Return what a refusal says, in the form of the page's API or of OpenAI's."""
    content = answer.json()
    return str(content["error"]["message"] if "error" in content else content["detail"])


async def generated(app: App, args: argparse.Namespace) -> list[Figure]:
    """Row 6."""
    dice, statuses, bad = random.Random(0), Counter[int](), Counter[str]()
    async with visitor(app) as client:
        document = (await client.get(f"{API}/openapi.json")).json()
        config = (await client.get("/config")).json()
        names = [path.rpartition("/")[2] for path in document["paths"] if path.startswith(f"{API}/call/v2/")]
        counts = {"models": 0, "generate": 7, "generate_many": 9, "history": 1, "inspect": 2}
        events = {event["id"]: len(event["inputs"]) for event in config["dependencies"]}
        paths = [*document["paths"], f"{API}/queue/data?session_hash=none", f"{API}/info", "/config", "/"]
        paths += [COMPLETIONS, "/v1/models", f"/v1/models/{RNN}", "/v1/models/none", "/v1/files"]
        requests = [generate(dice, {name: counts[name] for name in names}, events, paths) for _ in range(args.requests)]
        todo = iter(requests)

        async def ask() -> None:
            for request in todo:
                answer = await client.request(
                    request.method, request.path, content=request.content, headers={"content-type": "application/json"}
                )
                statuses[answer.status_code] += 1
                text = answer.text
                if answer.status_code >= 500 and not (answer.status_code == 503 and reason(answer)):
                    bad[f"{answer.status_code} {request.method} {request.path}"] += 1
                if 400 <= answer.status_code < 500 and request.method != "HEAD" and len(text) < 10:
                    bad[f"no message: {answer.status_code} {request.path}"] += 1
                if answer.status_code >= 400 and ("Traceback" in text or str(ROOT) in text or "site-packages" in text):
                    bad[f"tells too much: {request.path}"] += 1
                if answer.status_code == 200 and request.path.startswith(f"{API}/call/") and request.method == "POST":
                    endpoint = request.path.rpartition("/")[2]
                    async for kind, data in read(client, endpoint, answer.json()["event_id"]):
                        said = json.dumps(data)
                        if kind == "error" and ("Traceback" in said or "site-packages" in said or str(ROOT) in said):
                            bad[f"tells too much: {request.path}"] += 1
                        if kind == "error" and data in (None, {"error": None}):
                            bad[f"an error without a message: {endpoint}"] += 1

        await asyncio.gather(*(ask() for _ in range(24)))
    log = app.log.read_text()
    traces = log.count("Traceback (most recent call last)")
    return [
        Figure(
            6,
            f"of {sum(statuses.values()):,}: {dict(sorted(statuses.items()))}",
            "no 5xx but 503",
            str(dict(bad))[:90] if bad else "so",
            not bad,
        ),
        Figure(6, "traces in the log", "-", str(traces), True),
    ]


ADDRESSES = (
    [
        f"{API}/file={path}"
        for path in (
            "/etc/passwd",
            "etc/passwd",
            "../../etc/passwd",
            "app.py",
            "requirements.txt",
            "weights/shakespeare-lstm/config.json",
            "/proc/self/environ",
            "http://127.0.0.1:9/",
            "https://example.org/",
            "%2Fetc%2Fpasswd",
            "..%2f..%2fetc%2fpasswd",
            "~/.cache/huggingface/token",
            "//etc/passwd",
            "C:/Windows/win.ini",
            ".git/config",
            "/dev/zero",
            "/tmp",
            "a" * 64 + "/my-model.zip",
            "a" * 64 + "/my-model.html",
            "/etc/" + "a" * 64 + "/my-model.zip",
            "../" + "a" * 64 + "/my-model.zip",
        )
    ]
    + [
        f"{API}/{path}"
        for path in (
            "proxy=http://127.0.0.1:9/",
            "proxy=https://example.org",
            "proxy=http://169.254.169.254/latest/meta-data",
            "proxy=",
            "file/etc/passwd",
            "file/app.py",
            "monitoring",
            "upload_progress?upload_id=1",
            "runs",
            "run-history/records",
            "stream/a/1/1/playlist.m3u8",
            "stream/a/1/1/0.ts",
            "custom_component/a/client/component/..%2f..%2fapp.py",
            "dev/reload",
            "deep_link?session_hash=a",
            "vibe-code",
            "profiling/summary",
            "token",
            "user",
            "login_check",
            "theme.css/../../config",
        )
    ]
    + [
        "/static/../app.py",
        "/static/..%2f..%2fapp.py",
        "/static/%2e%2e/%2e%2e/app.py",
        "/assets/..%2f..%2f..%2fetc/passwd",
        "/assets/../../gradio/routes.py",
        "/svelte/..%2f..%2froutes.py",
        "/static//etc/passwd",
        "/app.py",
        "/.git/config",
        "/.env",
        "/weights/shakespeare-lstm/model.safetensors",
        "/v1/files",
        "/v1/models/../../app.py",
        "/v1/models/..%2f..%2fapp.py",
        "/v1/models/weights%2fshakespeare-lstm%2fconfig.json",
        "/v1/chat/completions",
        "/monitoring",
        "/monitoring/summary",
        "/docs",
        "/redoc",
        "/openapi.json",
        "/logout",
        "/login",
        "/file=/etc/passwd",
        "/proxy=http://127.0.0.1:9/",
        "//127.0.0.1:9/",
        "/theme.css%00.py",
        "/..;/app.py",
    ]
)


async def addresses(app: App, args: argparse.Namespace) -> list[Figure]:
    """Row 8."""
    served = []
    for address in ADDRESSES:
        reader, writer = await asyncio.open_connection(HOST, app.port)
        writer.write(f"GET {address} HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        if b" 404 " not in answer.split(b"\r\n")[0] and b" 403 " not in answer.split(b"\r\n")[0]:
            served.append(f"{address}: {answer[:20]!r}")
    return [Figure(8, f"served of {len(ADDRESSES)} addresses", "none", "; ".join(served)[:90] or "none", not served)]


async def told_to_end(app: App, args: argparse.Namespace) -> list[Figure]:
    """Row 11."""
    outcomes, refused = Counter[str](), Counter[object]()

    async def person(number: int) -> None:
        async with visitor(app) as client:
            try:
                await write(client, LSTM, LONGEST, number)
                outcomes["ended"] += 1
            except (httpx.HTTPError, RuntimeError):
                outcomes["cut"] += 1

    people = [asyncio.create_task(person(number)) for number in range(20)]
    async with asyncio.timeout(60):
        while app.state()["texts"] < len(people):
            await asyncio.sleep(0.01)
    app.process.send_signal(signal.SIGTERM)
    begin = time.perf_counter()
    await asyncio.sleep(0.2)
    for _ in range(5):
        try:
            async with visitor(app) as client:
                refused[(await post(client, "models")).status_code] += 1
        except httpx.TransportError:
            refused["no connection"] += 1
    status = await asyncio.to_thread(app.process.wait, 30)
    took = time.perf_counter() - begin
    await asyncio.gather(*people)
    return [
        at_most(11, f"until it has ended; streams: {dict(outcomes)}", took, 10, "s"),
        Figure(
            11, f"new requests: {dict(refused)}", "refused", "so" if 200 not in refused else "no", 200 not in refused
        ),
        Figure(11, "exit status", "0", str(status), status == 0),
    ]


async def large_vocabulary(app: App, args: argparse.Namespace) -> list[Figure]:
    """Row 14."""
    vocab, statuses = large_vocab(), Counter[str]()
    text = "".join(random.Random(0).choices(vocab, k=LONGEST_PROMPT))

    async def ask(endpoint: str, *data: object) -> None:
        async with visitor(app) as client:
            answer = await post(client, endpoint, LARGE, *data)
            answer.raise_for_status()
            async for kind, _ in read(client, endpoint, answer.json()["event_id"]):
                last = kind
            statuses[last] += 1

    before = app.forget_peak()
    await asyncio.gather(
        *(ask("inspect", text[:LONGEST]) for _ in range(16)),
        *(ask("generate", text, 20, 0.8, 50, 0.9, seed) for seed in range(16)),
    )
    return [
        Figure(14, "answers", "complete", str(dict(statuses)), set(statuses) == {"complete"}),
        at_most(14, "memory", app.peak() - before, 400, "MB"),
    ]


async def completions(app: App, args: argparse.Namespace) -> list[Figure]:
    """Row 15."""
    before, statuses, details, cut = app.forget_peak(), Counter[int](), set[str](), 0

    async def ask(number: int) -> None:
        nonlocal cut
        n, dice = 1 if number % 2 else 16, random.Random(number)
        body = {"model": LSTM, "prompt": "ROMEO:", "n": n, "max_tokens": LONGEST // n, "stream": number % 4 < 2}
        body["logprobs"] = 5 if number % 5 == 0 else None
        async with visitor(app) as client:
            try:
                async with asyncio.timeout(dice.uniform(0, 5) if number % 3 else None):
                    answer = await client.post(COMPLETIONS, json=body, timeout=None)
            except TimeoutError:
                cut += 1
                return
            statuses[answer.status_code] += 1
            if answer.status_code != 200:
                details.add(reason(answer))

    await asyncio.gather(*(ask(number) for number in range(500)))
    await asyncio.sleep(5)
    left = app.state()["texts"]
    others = {status for status in statuses if status not in (200, 503)}
    says = ", ".join(details) or "nothing"
    return [
        Figure(
            15, f"answers: {dict(statuses)}; vanished: {cut}", "200 or 503", says[:60], not others and bool(details)
        ),
        Figure(15, "texts being written 5 s after the last answer", "none", f"{left}", left == 0),
        at_most(15, "memory", app.peak() - before, 100, "MB"),
    ]


async def function_calls(app: App, args: argparse.Namespace) -> list[Figure]:
    """Row 17."""
    statuses, details, first, dice = Counter[int](), set[str](), list[float](), random.Random(0)
    async with visitor(app) as client:
        components = (await client.get("/config")).json()["components"]
    number = next(each["id"] for each in components if "look_at" in each["props"].get("server_fns", []))
    run = {"model_a": LSTM, "model_b": RNN, "length": LONGEST, "temperature": 1, "top_k": 0, "top_p": 1, "seed": "7"}
    before = app.forget_peak()

    async def point(caller: int) -> None:
        written = "".join(dice.choices("abcdefghij \n", k=LONGEST_PROMPT))  # which nobody has read before
        heat = {"text": written, "shades": "", "run": run | {"prompt": "", "forced": []}}
        call = {"component_id": number, "fn_name": "look_at", "session_hash": f"caller{caller}"}
        async with visitor(app) as client:
            body = call | {"data": ["a", LONGEST_PROMPT - 1, heat]}
            answer = await client.post(f"{API}/component_server/", json=body, timeout=None)
        statuses[answer.status_code] += 1
        if answer.status_code != 200:
            details.add(reason(answer))

    async def write_meanwhile() -> None:
        await asyncio.sleep(1)
        async with visitor(app) as client:
            first.append((await write(client, LSTM, 200))[1])

    await asyncio.gather(write_meanwhile(), *(point(caller) for caller in range(500)))
    others = {status for status in statuses if status not in (200, 503)}
    says = ", ".join(details) or "nothing"
    return [
        Figure(17, f"answers: {dict(statuses)}", "200 or 503", says[:60], not others and bool(details)),
        at_most(17, "first text of a visitor meanwhile", first[0], 2, "s"),
        at_most(17, "memory", app.peak() - before, 100, "MB"),
    ]


def large_vocab() -> str:
    """Return the vocabulary of row 14."""
    return "".join(chr(0x4E00 + number) for number in range(LARGE_VOCABULARY))


def write_large_model(folder: Path) -> None:
    """Write the model of row 14, with random weights."""
    config = ModelConfig("lstm", large_vocab(), embedding_size=16, hidden_size=64, num_layers=1, dropout=0.0)
    dice = np.random.default_rng(0)
    weights = {name: dice.standard_normal(shape, np.float32) for name, shape in config.tensor_shapes.items()}
    write_model(folder, Model(config, weights, None), "")


async def tested(row: int) -> list[Figure]:
    """A row that tests show. A test that is skipped shows nothing."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS[row]),
        cwd=ROOT,
        env=os.environ | {"CHARLM_BROWSER_REQUIRED": "1"},
        stdout=subprocess.PIPE,
    )
    printed, _ = await process.communicate()
    outcome = printed.decode().strip().splitlines()[-1]
    return [Figure(row, " ".join(TESTS[row]), "pass", outcome, process.returncode == 0 and "skipped" not in outcome)]


TESTS = {
    7: ["tests/test_strangers.py"],
    9: ["tests/test_tokens.py"],
    10: ["tests/test_faults.py"],
    12: ["tests/charlm/web/test_guard.py", "-k", "headers"],
    13: ["tests/test_package.py", "-k", "locked"],
    16: ["tests/charlm/browser/test_page.py"],
}
ROWS: dict[int, Callable[[App, argparse.Namespace], Awaitable[list[Figure]]]] = {
    1: many_people,
    2: vanishing,
    3: unread,
    4: calls_in_a_row,
    5: bodies,
    6: generated,
    8: addresses,
    11: told_to_end,
    14: large_vocabulary,
    15: completions,
    17: function_calls,
}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure what the app does under load and against abuse.")
    parser.add_argument("--rows", nargs="+", type=int, choices=sorted([*ROWS, *TESTS]), default=sorted([*ROWS, *TESTS]))
    parser.add_argument("--seconds", type=float, default=120, help="of row 1 (%(default)s)")
    parser.add_argument("--calls", type=int, default=10_000, help="of row 4 (%(default)s)")
    parser.add_argument("--requests", type=int, default=20_000, help="of row 6 (%(default)s)")
    parser.add_argument(
        "--log",
        type=Path,
        metavar="FOLDER",
        help="where the app's messages go, a file for each row; by default nowhere",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser.parse_args()


async def measure(args: argparse.Namespace) -> list[Figure]:
    """Return the figures of all rows that are asked for."""
    figures = []
    if args.log is not None:
        args.log.mkdir(parents=True, exist_ok=True)
    for row in args.rows:
        print(f"row {row}", file=sys.stderr)
        if row in TESTS:
            figures += await tested(row)
            continue
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place, LARGE)
            write_large_model(folder)
            log = Path(place, "log") if args.log is None else args.log / f"row-{row}.txt"
            async with serving(log, *([folder] if row == 14 else [])) as app:
                figures += await ROWS[row](app, args)
    return figures


def main() -> int:
    """Measure what the command line asks for, and print it."""
    args = parse()
    figures = asyncio.run(measure(args))
    if args.json:
        print(json.dumps([figure._asdict() for figure in figures]))
    else:
        table = Table("row", "figure", "asked", "seen", "", title="Under load and against abuse")
        for row, figure, asked, seen, met in figures:
            table.add_row(str(row), figure, asked, seen, "[green]met" if met else "[red]missed")
        Console(width=160).print(table)
    return int(not all(figure.met for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
