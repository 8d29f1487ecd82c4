"""How the tests run, side by side and with one thread each, and the fixtures that they share.

Every test meets the Hub nowhere, or as the server of the fixture `hub` on 127.0.0.1. huggingface_hub reads its
environment once, at import, into its module `constants`. So the environment is set, which child processes inherit, and
the module is read again.
"""

import gc
import importlib
import logging
import os
import ssl
import sys
from contextlib import ExitStack

# Before torch is imported, and for child processes too: the models of the tests are so small that several threads
# mostly wait for each other, and on a core that other work keeps busy they wait for a hundred times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from functools import partial
from threading import Thread

import pytest
from browser import Visit, chromium, running_app, take_page
from hub_server import HubServer

from charlm.device import count_cores
from charlm.web.gradio_import import skip_stubs

skip_stubs()  # before a module of the tests imports Gradio
# Otherwise each process of the tests, and each of the hundreds that they start, would compile everything again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

SLOW_FIXTURES = {"app", "browser", "impatient_server", "proxied", "rendered", "server"}
HUB_PREFIXES = ("HF_", "HUGGING", "TRANSFORMERS_OFFLINE")  # of environment variables
NO_HUB = "http://127.0.0.1:9"  # nothing listens there: a test that did not ask for a server is refused


def pytest_xdist_auto_num_workers(config):
    """A single file runs in this process, where a debugger and `print` work; several run side by side.

    A slow test often waits, for a browser, a server or a timeout, so with them there is one process more than cores.
    """
    files = {argument.split("::")[0] for argument in config.args}
    if len(files) == 1 and files.pop().endswith(".py"):
        return 0
    return count_cores() + (config.getoption("markexpr") != "not slow")


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Collect the tests with Python's garbage collector off, and freeze them, so that it never examines them.

    They are half a million objects that live to the end; examining them took a quarter of the time of collecting.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        _let_logs_propagate()


def _let_logs_propagate():
    """Let the handlers of the root logger have what torch's forty loggers have.

    pytest would attach its own to each of those instead, and take them away again, six times a test.
    """
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger) and logger.name.startswith("torch"):
            logger.propagate = True


def pytest_collection_modifyitems(items):
    """Mark the tests that need a browser or an app as slow; side by side, begin with the files that have slow tests.

    Otherwise one process would still be busy with the last slow file when the others have nothing left to do.
    """
    for item in items:
        if SLOW_FIXTURES.intersection(item.fixturenames):
            item.add_marker("slow")
    if "PYTEST_XDIST_WORKER" in os.environ:
        slow_files = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow_files)


def set_hub_environment(monkeypatch, **changes):
    """Set variables (None removes one) and let huggingface_hub know."""
    from huggingface_hub import constants

    for name, value in changes.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, str(value))
    importlib.reload(constants)


def hub_variables():
    """The variables that huggingface_hub may read."""
    return {name: value for name, value in os.environ.items() if name.startswith(HUB_PREFIXES)}


def isolate_hub(monkeypatch, home):
    """Leave nothing of the user's settings, token and cache, and no way to the real Hub."""
    ours = {"HF_HOME": home, "HF_ENDPOINT": NO_HUB, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    set_hub_environment(monkeypatch, **(dict.fromkeys(hub_variables()) | ours))


class HubHomes:
    """Gives each test a home of huggingface_hub that nothing is in, and the constants that follow from it.

    Most tests leave their home empty and change no variable. Then the next test has the same home, and huggingface_hub
    reads nothing again, which would take longer than many a test.
    """

    def __init__(self, folder):
        self._folder = folder
        self._number = 0
        self._home = folder / "0"
        self._variables, self._constants = {}, {}

    def enter(self, monkeypatch):
        """Let huggingface_hub have such a home until the test ends."""
        from huggingface_hub import constants

        monkeypatch.setenv("HF_HOME", str(self._home))
        if hub_variables() == self._variables and not self._home.exists():
            vars(constants).update(self._constants)  # another test may have had them read with other variables
            return
        self._number += 1
        self._home = self._folder / str(self._number)
        isolate_hub(monkeypatch, self._home)
        self._variables, self._constants = hub_variables(), dict(vars(constants))


@pytest.fixture(scope="session", autouse=True)
def _no_certificates():
    """Let HTTP clients read no certificates: that takes each longer than all its requests, and no test needs TLS."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda *_, **__: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_flushing():
    """Flush no file to the disk: that takes longer than many a test, and matters only if the power fails."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture
def certificates(monkeypatch):
    """Let HTTP clients read certificates until the test ends."""
    monkeypatch.delattr(ssl.SSLContext, "load_verify_locations")  # of this class: its parent's takes its place


@pytest.fixture(scope="session", autouse=True)
def _no_hub_between_tests(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate_hub(monkeypatch, tmp_path_factory.getbasetemp() / "huggingface")
        yield


@pytest.fixture(scope="session")
def hub_homes(_no_hub_between_tests, tmp_path_factory):
    return HubHomes(tmp_path_factory.mktemp("homes"))


@pytest.fixture(autouse=True)
def _no_hub(hub_homes, monkeypatch):
    hub_homes.enter(monkeypatch)


@pytest.fixture
def hub_environment(_no_hub, monkeypatch):
    """A function that sets environment variables, as set_hub_environment does, until the test ends."""
    return partial(set_hub_environment, monkeypatch)


@pytest.fixture
def hub(hub_environment):
    """A Hub of the test's own; huggingface_hub and child processes talk to it."""
    from huggingface_hub import close_session

    with HubServer() as server:
        hub_environment(HF_ENDPOINT=server.url)
        yield server
        close_session()


@pytest.fixture
def scheduler_threads(monkeypatch):
    """The threads that batch schedulers start."""
    started = []

    class Recorded(Thread):
        def start(self):
            started.append(self)
            super().start()

    monkeypatch.setattr("charlm.inference.batching.Thread", Recorded)
    return started


@pytest.fixture(scope="module")
def small_steps():
    """Let torch read symbol by symbol without waste, for a module that asks for it.

    oneDNN takes some 20 ms to begin with an LSTM, each time; threads wait for each other at every step, which takes
    for ever where a core is busy.
    """
    import torch

    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(torch.backends.mkldnn, "enabled", False, raising=False)
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def browser():
    """A browser, started once."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def app(_no_hub_between_tests):
    """The address of the app with the bundled models, started once."""
    with running_app() as url:
        yield url


@pytest.fixture(scope="session")
def context(browser):
    """A profile of the browser, whose cache saves a page most of its loading."""
    return browser.new_context()


@pytest.fixture
def start_app():
    """A function that starts an app, as `running_app` does, until the end of the test."""
    with ExitStack() as apps:
        yield lambda *arguments, **options: apps.enter_context(running_app(*arguments, **options))


@pytest.fixture(scope="session")
def idle_pages():
    """Pages of the browser that visitors have left: opening another one takes as long as loading the app in it."""
    return []


@pytest.fixture
def visit(context, idle_pages, start_app):  # so that the visitors leave before an app ends, which refuses requests then
    """A function that opens the app as a new visitor; at the end nothing may have gone wrong for any of them."""
    visits = []

    def open_page(url, width=1280, height=1000):
        page = take_page(context, idle_pages)
        page.set_viewport_size({"width": width, "height": height})
        visits.append(Visit(page))
        visits[-1].open(url)
        return visits[-1]

    yield open_page
    for each in visits:
        each.leave()
        idle_pages.append(each.page)
        assert each.errors == []
        assert each.foreign == []
    context.clear_cookies()
