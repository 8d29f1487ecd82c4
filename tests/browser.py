"""A real browser and a running app, for the tests that look at the page as a person does."""

import base64
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.parse
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from forked_programs import Program
from playwright.sync_api import BrowserContext, Error, Page, sync_playwright

ROOT = Path(__file__).parents[1]
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # the network ends at this machine
]
EMPTY = "about:blank"
# Click the button of an id once both texts of *Write* have 50 characters: a click from outside the page comes late on a
# busy machine.
CLICK_WHEN_WRITTEN = """(id) => {
    const texts = ["a", "b"].map((side) => document.querySelector(`#output-${side} .heat-text`));
    new MutationObserver((_, observer) => {
        if (texts.some((text) => text.children.length < 50)) return;
        observer.disconnect();
        document.getElementById(id).click();
    }).observe(document.body, { childList: true, subtree: true });
}"""
PATIENCE = 300  # seconds to wait for what takes one or two, on a machine that other work may keep busy


@contextmanager
def running_app(
    *arguments: str,
    folder: Path = ROOT,
    python: str | Path = sys.executable,
    command: Sequence[str | Path] | None = None,
    said: list[str] | None = None,
    **variables: str,
) -> Iterator[str]:
    """Start `python app.py` of a folder as a user does; give its address once it serves.

    It starts in a fork that has imported the libraries already, unless they may read one of `variables` meanwhile.
    command: another way to start it. said: takes what it prints.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **variables}
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    rest = ["--port", str(port), *arguments]
    is_plain = folder == ROOT and python == sys.executable and command is None
    if is_plain and all(name.startswith("CHARLM_") for name in variables):
        process = Program([folder / "app.py", *rest], environment=environment, **output)
    else:
        full = [*(command or [python, folder / "app.py"]), *rest]
        process = subprocess.Popen(full, text=True, env=environment, **output)
    said = [] if said is None else said
    reader = threading.Thread(target=lambda: said.extend(process.stdout), daemon=True)
    try:
        for line in process.stdout:
            said.append(line)
            if "Running on local URL" in line:
                break
        else:
            pytest.fail("the app ended before it served a page:\n" + "".join(said))
        reader.start()  # or a full pipe would hold the app up
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=PATIENCE)
        if reader.is_alive():
            reader.join()
        process.communicate()


class Visit:
    """A visitor in a page of the browser, whose network ends at this machine, and what went wrong meanwhile."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        self.foreign: list[str] = []
        self._listeners = {
            "request": self._note_foreign,  # it would be slower to route them, without the browser's cache
            "console": lambda message: self.errors.append(message.text) if message.type == "error" else None,
            "pageerror": lambda error: self.errors.append(str(error)),
            "dialog": lambda dialog: (self.errors.append(f"dialog: {dialog.message}"), dialog.dismiss()),
        }
        page.set_default_timeout(1000 * PATIENCE)

    def open(self, url: str) -> None:
        """Go to an address of the app and wait until the page shows what it says."""
        self._go_to(url)
        self.wait_until("window.charlm?.isOpen()")

    def leave(self) -> None:
        """Leave the page as if nobody had been there: the next visitor finds it empty."""
        # a test may have denied the page its storage, which then raises an error
        self.page.evaluate("() => { try { localStorage.clear(); sessionStorage.clear(); } catch {} }")
        self.page.set_extra_http_headers({})
        self._leave_document()

    def _go_to(self, url: str) -> None:
        if self.page.url != EMPTY:
            self._leave_document()
        for event, listener in self._listeners.items():
            self.page.on(event, listener)
        self.page.goto(url)

    def _leave_document(self) -> None:
        """Go to an empty page and note no errors meanwhile: Gradio reports each request that is ended by leaving."""
        for event, listener in self._listeners.items():
            self.page.remove_listener(event, listener)
        self.page.goto(EMPTY)

    def wait_until(self, condition: str, arg: object = None, **options: float) -> None:
        """Wait until a condition in JavaScript holds; `arg` is its argument, if it is a function.

        It is asked every 50 ms. Asking at each frame, as Playwright does by default, makes the browser draw each.
        Anything but a function would be evaluated each time, which the policy of the page without a server forbids.
        """
        function = condition if "=>" in condition else f"() => {condition}"
        self.page.wait_for_function(function, arg=arg, polling=50, **options)

    def _note_foreign(self, request):
        url = urllib.parse.urlsplit(request.url)
        if url.scheme not in ("data", "blob") and url.hostname != "127.0.0.1":
            self.foreign.append(request.url)

    def text(self, elem_id: str) -> str:
        """The text that an element shows, or holds if it is for text."""
        element = self.page.locator(f"#{elem_id}")
        if (text := element.locator(".heat-text")).count():
            return text.text_content()
        areas = element.locator("textarea")
        return areas.input_value() if areas.count() else element.inner_text()

    def choose_view(self, name: str) -> None:
        """Click the tab of a view."""
        self.page.get_by_role("tab", name=name, exact=True).click()

    def fill(self, elem_id: str, value: str) -> None:
        """Type into a field and leave it."""
        field = self.page.locator(f"#{elem_id}").locator("textarea, input:not([type=range])")
        field.fill(value)
        field.blur()

    def choose(self, elem_id: str, name: str) -> None:
        """Pick a model as a person does: open the list, click the name."""
        self.page.locator(f"#{elem_id} input").click()
        self.page.get_by_role("option", name=name, exact=True).click()

    def wait_for_text(self, elem_id: str, characters: int) -> None:
        """Wait until a text has at least so many characters."""
        self.wait_until(
            "([id, n]) => document.querySelector(`#${id} .heat-text`)?.children.length >= n", arg=[elem_id, characters]
        )

    def generate(self, characters: int) -> None:
        """Click Generate and wait for that many characters of both models."""
        self.page.locator("#generate").click()
        self.wait_for_text("output-a", characters)
        self.wait_for_text("output-b", characters)

    def click_once(self, elem_id: str, condition: str) -> None:
        """Click as soon as a condition holds, from within the page.

        A click from outside may come seconds later on a busy machine, when what is to be clicked has ended.
        """
        click = "document.querySelector(`#${id} button, button#${id}`).click()"
        self.wait_until(f"(id) => {{ if (!({condition})) return false; {click}; return true; }}", arg=elem_id)

    def wait_for_words(self, elem_id: str, words: str) -> None:
        """Wait until an element shows these words."""
        self.wait_until("([id, words]) => document.getElementById(id).innerText.includes(words)", arg=[elem_id, words])


def take_page(context: BrowserContext, idle_pages: list[Page]) -> Page:
    """Return a page that another test has left, since a new one takes a second; a new one if there is none."""
    return idle_pages.pop() if idle_pages else context.new_page()


def text_fragment(text: str) -> str:
    """Return the fragment of an address with a text to look into, packed as state.js packs it."""
    packed = zlib.compress(text.encode(), wbits=-zlib.MAX_WBITS)
    return "#text=" + base64.urlsafe_b64encode(packed).decode().rstrip("=")


@contextmanager
def borrowed_page(context: BrowserContext, idle_pages: list[Page]) -> Iterator[Page]:
    """Give a page as `take_page` does, and leave it to other tests afterwards."""
    page = take_page(context, idle_pages)
    page.set_viewport_size({"width": 1280, "height": 720})
    yield page
    page.unroute_all()
    page.goto(EMPTY)
    idle_pages.append(page)


@contextmanager
def script_before(page: Page, source: str) -> Iterator[None]:
    """Run a script before those of each document that a page goes to; afterwards it can be used again."""
    session = page.context.new_cdp_session(page)  # what it sets ends with it
    session.send("Page.enable")
    session.send("Page.addScriptToEvaluateOnNewDocument", {"source": source})
    yield
    session.detach()


def serious_violations(page: Page) -> list[tuple[str, object, str]]:
    """Return what axe-core finds of serious or critical impact: the rule, where, and the element."""
    from axe_playwright_python.sync_playwright import Axe

    return [
        (violation["id"], node["target"], node["html"][:200])
        for violation in Axe().run(page).response["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


WHERE = """() => {
    const element = document.activeElement, style = getComputedStyle(element);
    const labels = [...(element.labels ?? [])].map((label) => label.innerText).join(" ");
    const named = (element.getAttribute("aria-labelledby") ?? "").split(" ").filter(Boolean)
        .map((id) => document.getElementById(id)?.innerText).join(" ");
    if (!element.walked) element.walked = String(Math.random());
    return {
        key: element.walked,
        tag: element.tagName,
        name: (element.getAttribute("aria-label") || named || labels || element.innerText || element.title).trim(),
        outline: parseFloat(style.outlineWidth) > 0 && style.outlineStyle !== "none",
    };
}"""
UNREACHED = """() => [...document.querySelectorAll("button, input, textarea, select, a[href], [tabindex='0']")].filter(
    (each) => each.checkVisibility({ visibilityProperty: true }) && !each.disabled && each.tabIndex >= 0
        && each.type !== "radio").filter((each) => !each.walked).map((each) => each.outerHTML.slice(0, 200))"""


def check_keyboard(page: Page) -> None:
    """Go around a page with Tab: every control is reached, shows it, and has a name."""
    reached = {}
    for _ in range(150):
        page.keyboard.press("Tab")
        where = page.evaluate(WHERE)
        if where["tag"] == "BODY" or where["key"] in reached:
            break
        reached[where["key"]] = where
    else:
        pytest.fail("the keyboard does not get around the page")
    assert [where for where in reached.values() if not where["outline"]] == []
    assert [where for where in reached.values() if not where["name"]] == []
    assert page.evaluate(UNREACHED) == []


@contextmanager
def chromium() -> Iterator[object]:
    """Start the system's Chromium, else Playwright's own; without either the test is skipped.

    Where CHARLM_BROWSER_REQUIRED is set, as in CI, it fails instead.
    """
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        except Error as error:
            if os.environ.get("CHARLM_BROWSER_REQUIRED"):
                raise
            pytest.skip(f"no Chromium to look at the page with (tests/install_browser.sh gets one): {error}")
        yield browser
        browser.close()
