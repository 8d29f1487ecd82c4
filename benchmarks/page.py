"""How soon the page is there and how fast it writes: against an empty Gradio page, and in a real browser.

    python benchmarks/page.py [--starts 7] [--repeats 7] [--json]

Run it on an idle machine. It exits with 1 if one of the limits that it prints is broken. It measures

- start: seconds from starting `python app.py`, with the models in weights/, until `GET /` and `GET /config` have both
  been answered in full with 200, asked again every 5 ms; and the same of an empty page, a `gr.Blocks()` with one line
  of Markdown. Both are processes of their own, with the same Python and the same environment, and take turns; the
  figures are the medians of `--starts` each. Bytecode is cached, as it is from a user's second start on. Their memory
  is what is resident just after that answer;
- first characters: milliseconds from the click on *Generate* (the time stamp of the event, which the browser sets when
  the mouse button comes up) until a MutationObserver sees the first characters of model A in the page;
- 1,000 characters: seconds from the same click until both texts have all of theirs. Both are medians of `--repeats`
  visits, each in a new profile with an empty cache that was loaded a second before and has not written yet;
- pointing at a character, in each of those visits, when the text is there and the pointer has been over it for half a
  second: milliseconds from the event that the pointer is on the character until the page shows what else could stand
  there. The slowest of POINTED, the medians of the visits;
- a branch: from the click on another symbol in the place of character 450 until a MutationObserver sees the first
  characters of the branch;
- the page's load, in each of those visits, until a second after *Generate* is there: the most requests to any other
  host than the app's; and how many requests the app itself answers, with how many bytes (as they are transferred,
  headers included), the medians;
- updates: how often a second a MutationObserver sees text A grow while both models write 5,000 characters, from the
  first growth to the last, and the characters in each; the medians of `--repeats` further such visits. And the longest
  task of the page's main thread meanwhile in any of them: browsers report those of 50 ms or more, 0 stands for none.

Everything that is timed in the browser is timed in the page itself, by its own clock: what the browser is driven with
takes no part. The browser and the server share this machine's cores.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from browser import PATIENCE, chromium

ROOT = Path(__file__).parents[1]
HOST = "127.0.0.1"
LONG, LONGEST = 1_000, 5_000  # characters
POINTED = (60, 190, 320, 499, 449)  # places of characters; the last of them is replaced
RESTED = 500  # milliseconds for which the pointer is over the text before it points at a character
SETTLED = 1_000  # milliseconds after which a loaded page has come to rest
# both pages get what app.py sets for itself, and may cache bytecode
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}

# what the page shall reach
TIMES_EMPTY = 1.3
FIRST_MILLISECONDS = 150
LONG_SECONDS = 1.5
POINT_MILLISECONDS, BRANCH_MILLISECONDS = 50, 150
UPDATES = 10, 25  # a second

EMPTY = """
import sys
import gradio as gr
with gr.Blocks() as page:
    gr.Markdown("Nothing here")
page.launch(server_name="127.0.0.1", server_port=int(sys.argv[1]))
"""
COMMANDS = {"app": ["app.py", "--port"], "empty": ["-c", EMPTY]}  # a port follows

# Keep what happens to both texts from the click on: milliseconds since, and characters by then.
WATCH = """(length) => {
    const seen = window.seen = { a: [], b: [], tasks: [] };
    let begin = null;
    const clicked = (event) => { begin = event.timeStamp; };
    document.querySelector("#generate").addEventListener("click", clicked, { capture: true });
    new PerformanceObserver((list) => seen.tasks.push(...list.getEntries().map((task) => task.duration)))
        .observe({ type: "longtask" });
    seen.whole = Promise.all(["a", "b"].map((side) => new Promise((resolve) => {
        const text = document.querySelector(`#output-${side} .heat-text`);
        const look = (changes) => {
            if (begin === null || !changes.some((change) => change.addedNodes.length)) return;
            seen[side].push([performance.now() - begin, text.childElementCount]);
            if (text.childElementCount >= length) resolve();
        };
        new MutationObserver(look).observe(text, { childList: true });
    })));
}"""
# Keep when what is known of a character is shown after the pointer has come to it, and when a branch begins.
WATCH_CHOICES = """() => {
    const chosen = window.chosen = { points: {}, branch: null };
    const text = document.querySelector("#output-a .heat-text");
    const panel = document.querySelector("#alternatives");
    let pointed = null, place = null, clicked = null;
    text.addEventListener("mouseover", ({ target, timeStamp }) => {
        if (target.dataset.place !== undefined) [pointed, place] = [timeStamp, Number(target.dataset.place)];
    }, { capture: true });
    panel.addEventListener("click", ({ timeStamp }) => { clicked = timeStamp; }, { capture: true });
    new MutationObserver(() => {
        if (!panel.textContent.includes(`character ${place + 1} `)) return;
        chosen.points[place] ??= performance.now() - pointed;
    }).observe(panel, { childList: true, subtree: true });
    new MutationObserver((changes) => {
        if (clicked === null || !changes.some((change) => change.addedNodes.length)) return;
        chosen.branch ??= performance.now() - clicked;
    }).observe(text, { childList: true });
}"""
# A task that is just ending is reported a little later.
TELL = """async (milliseconds) => {
    const late = new Promise((_, reject) => setTimeout(() => reject(new Error("the texts are late")), milliseconds));
    await Promise.race([seen.whole, late]);
    await new Promise((resolve) => setTimeout(resolve, 200));
    return seen;
}"""


class Server(NamedTuple):
    """A page that answers. seconds: from the start of its process; megabytes: of its memory that are resident then."""

    url: str
    seconds: float
    megabytes: float


@contextmanager
def serving(command: Sequence[str]) -> Iterator[Server]:
    """Start a page by Python's arguments, to which a port is added; end it in the end."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryFile("w+") as said:
        begin = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *command, str(port)], cwd=ROOT, env=ENVIRONMENT, stdout=said, stderr=said
        )
        try:
            while not answers(port):
                if process.poll() is not None:
                    said.seek(0)
                    sys.exit(f"the page ended before it answered:\n{said.read()}")
                time.sleep(0.005)
            seconds = time.perf_counter() - begin
            yield Server(f"http://{HOST}:{port}", seconds, resident_megabytes(process.pid))
        finally:
            process.terminate()
            process.wait(timeout=PATIENCE)


def answers(port: int) -> bool:
    """Tell whether a server gives its page, and what the page is made of."""
    for path in ("/", "/config"):
        connection = HTTPConnection(HOST, port, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()
        if answer.status != 200:
            return False
    return True


def resident_megabytes(pid: int) -> float:
    """Return how much memory of a process is resident."""
    statistics = Path(f"/proc/{pid}/statm")
    if statistics.exists():
        return int(statistics.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(pid)])) * 1024 / 1e6


def measure_starts(times: int, bar: "tqdm[Any]") -> dict[str, Any]:
    """Return the figures of starts of both pages, which take turns."""
    servers: dict[str, list[Server]] = {name: [] for name in COMMANDS}
    for _ in range(times):
        for name, command in COMMANDS.items():
            with serving(command) as server:
                servers[name].append(server)
            bar.update()
    return {
        name: {
            "seconds": median(server.seconds for server in each),
            "megabytes": median(server.megabytes for server in each),
            "each_seconds": [server.seconds for server in each],
        }
        for name, each in servers.items()
    }


class Traffic:
    """What a page asks of servers, as the browser itself counts it."""

    def __init__(self, page: Page) -> None:
        self.urls: list[str] = []
        self.transferred = 0
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        session.on("Network.requestWillBeSent", lambda event: self.urls.append(event["request"]["url"]))
        session.on("Network.loadingFinished", self._count)

    def _count(self, event: dict[str, Any]) -> None:
        self.transferred += event["encodedDataLength"]

    def figures(self) -> dict[str, Any]:
        """Return how much it was until now. What the page holds itself, as `data:` and `blob:` do, is none."""
        hosts = [urlsplit(url).hostname for url in self.urls if urlsplit(url).scheme in ("http", "https", "ws", "wss")]
        return {
            "foreign_requests": sum(host != HOST for host in hosts),
            "requests": sum(host == HOST for host in hosts),
            "transferred_bytes": self.transferred,
        }


@contextmanager
def visit(browser: Browser, url: str) -> Iterator[tuple[Page, Traffic]]:
    """Open the page in a new profile, and let it come to rest."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    traffic = Traffic(page)
    page.goto(url)
    page.locator("#generate").wait_for()
    page.wait_for_timeout(SETTLED)
    yield page, traffic
    context.close()


def write(page: Page, length: int) -> dict[str, Any]:
    """Let both models write texts of that length; return what WATCH has seen."""
    field = page.locator("#length input[type=number]")
    field.fill(str(length))
    field.blur()
    page.evaluate(WATCH, length)
    page.locator("#generate").click()
    seen: dict[str, Any] = page.evaluate(TELL, 1000 * PATIENCE)
    return seen


def choose(page: Page) -> dict[str, Any]:
    """Point at characters of text A, and let another symbol stand in the place of the last; return the figures."""
    patience = 1000 * PATIENCE
    page.evaluate(WATCH_CHOICES)
    page.locator("#output-a .heat-head").hover()
    page.wait_for_timeout(RESTED)
    for place in POINTED:
        page.locator(f"#output-a .heat-text [data-place='{place}']").hover()
        page.wait_for_function("place => place in chosen.points", arg=place, timeout=patience)
    page.locator("#alternatives button:not([aria-current])").first.click()
    page.wait_for_function("() => chosen.branch !== null", timeout=patience)
    chosen = page.evaluate("() => chosen")
    return {"point_milliseconds": max(chosen["points"].values()), "branch_milliseconds": chosen["branch"]}


def measure_writing(browser: Browser, url: str) -> dict[str, Any]:
    """Return the figures of a visit that writes a text as its first, and then takes part in it."""
    with visit(browser, url) as (page, traffic):
        load = traffic.figures()
        seen = write(page, LONG)
        load |= choose(page)
    return load | {
        "first_milliseconds": seen["a"][0][0],
        "long_seconds": max(seen[side][-1][0] for side in "ab") / 1000,
    }


def measure_streaming(browser: Browser, url: str) -> dict[str, Any]:
    """Return the figures of a visit that writes the longest text that there is."""
    with visit(browser, url) as (page, _):
        seen = write(page, LONGEST)
    updates = seen["a"]
    seconds = (updates[-1][0] - updates[0][0]) / 1000
    return {
        "streamed_seconds": max(seen[side][-1][0] for side in "ab") / 1000,
        "updates_per_second": (len(updates) - 1) / seconds,
        "chars_per_update": updates[-1][1] / len(updates),
        "longest_task_milliseconds": max(seen["tasks"], default=0),
    }


def measure_visits(times: int, bar: "tqdm[Any]") -> dict[str, Any]:
    """Return the figures of visits in a browser: the medians, and the worst of what must never be."""
    figures: dict[str, list[float]] = {}
    with serving(COMMANDS["app"]) as server, chromium() as browser:
        for _ in range(times):
            for measure in (measure_writing, measure_streaming):
                for name, value in measure(browser, server.url).items():
                    figures.setdefault(name, []).append(value)
                bar.update()
    worst = ("foreign_requests", "longest_task_milliseconds")
    return {name: max(values) if name in worst else median(values) for name, values in figures.items()}


class Figure(NamedTuple):
    """What was measured, in words. limit: what it shall be, if anything is asked; met: whether it is."""

    name: str
    measured: str
    limit: str = ""
    met: bool = True


def figures(report: dict[str, Any]) -> Iterator[Figure]:
    """Yield what was measured, each figure beside its limit."""
    app, empty, visits = report["starts"]["app"], report["starts"]["empty"], report["visits"]
    yield Figure("start of the app", f"{app['seconds']:.2f} s, {app['megabytes']:.0f} MB")
    yield Figure("start of an empty page", f"{empty['seconds']:.2f} s, {empty['megabytes']:.0f} MB")
    times = report["times_empty"]
    yield Figure("app/empty", f"{times:.2f}×", f"≤ {TIMES_EMPTY}×", times <= TIMES_EMPTY)
    first = visits["first_milliseconds"]
    yield Figure(
        "click to first characters", f"{first:.0f} ms", f"≤ {FIRST_MILLISECONDS} ms", first <= FIRST_MILLISECONDS
    )
    long = visits["long_seconds"]
    yield Figure(f"click to {LONG:,} characters of both", f"{long:.2f} s", f"≤ {LONG_SECONDS} s", long <= LONG_SECONDS)
    for name, figure, limit in (
        ("pointing at a character", visits["point_milliseconds"], POINT_MILLISECONDS),
        ("click to first characters of a branch", visits["branch_milliseconds"], BRANCH_MILLISECONDS),
    ):
        yield Figure(name, f"{figure:.0f} ms", f"≤ {limit} ms", figure <= limit)
    foreign = visits["foreign_requests"]
    yield Figure("requests to elsewhere", f"{foreign}", "0", foreign == 0)
    megabytes = visits["transferred_bytes"] / 1e6
    yield Figure("load from the app", f"{visits['requests']:.0f} requests, {megabytes:.2f} MB")
    low, high = UPDATES
    rate = visits["updates_per_second"]
    yield Figure("updates while streaming", f"{rate:.1f} a second", f"{low} to {high} a second", low <= rate <= high)
    yield Figure("characters in an update", f"{visits['chars_per_update']:.0f}", "> 1", visits["chars_per_update"] > 1)
    yield Figure(f"click to {LONGEST:,} characters of both", f"{visits['streamed_seconds']:.2f} s")
    yield Figure("longest task meanwhile", f"{visits['longest_task_milliseconds']:.0f} ms")


def table(report: dict[str, Any]) -> Table:
    """Lay the figures out for people; what is not reached is red."""
    laid_out = Table("figure", "measured", "limit", "", title="The page")
    for name, measured, limit, met in figures(report):
        laid_out.add_row(name, measured, limit, limit and ("[green]ok" if met else "[red]missed"))
    return laid_out


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure how soon the page is there and how fast it writes.")
    parser.add_argument("--starts", type=int, default=7, help="of each of both pages (%(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="visits in the browser for each figure (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser.parse_args()


def main() -> None:
    """Measure, print, and exit with 1 if a limit is broken."""
    args = parse()
    os.environ["CHARLM_BROWSER_REQUIRED"] = "1"  # without a browser there is nothing to measure
    with tqdm(total=2 * args.repeats + 2 * args.starts, file=sys.stderr, desc="measuring", leave=False) as bar:
        # the browser first: its server's start is the one that reads all files and caches bytecode
        visits, starts = measure_visits(args.repeats, bar), measure_starts(args.starts, bar)
    report = {
        "starts": starts,
        "times_empty": starts["app"]["seconds"] / starts["empty"]["seconds"],
        "visits": visits,
    }
    if args.json:
        print(json.dumps(report))
    else:
        Console(width=120).print(table(report))
    sys.exit(not all(figure.met for figure in figures(report)))


if __name__ == "__main__":
    main()
