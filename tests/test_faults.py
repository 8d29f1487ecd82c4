"""The Hub fails while people stream: whoever loads a model is told, and no stream stops."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from asking import App
from browser import ROOT, running_app
from hub_server import Response
from models import contents, make_model, save

from charlm import CharLM

PEOPLE, LENGTH = 20, 2000
FILES = "(GET|HEAD) /ada/.*/resolve/.*"
FAULTS = {
    "nothing": lambda hub: None,
    "503": lambda hub: hub.fail("", 503),
    "500": lambda hub: hub.fail("", 500),
    "429": lambda hub: hub.fail("", 429, retry_after="300"),
    "401": lambda hub: hub.fail("", 401),
    "hangs up": lambda hub: hub.hang_up(""),
    "portal": lambda hub: hub.on("", lambda _: Response(200, b"<html>Log in to the hotel's WiFi")),
    "files are not there": lambda hub: hub.fail(FILES, 404),
    "files are refused": lambda hub: hub.fail(FILES, 403),
    "wrong bytes once": lambda hub: hub.corrupt("GET .*safetensors", times=1),
    "wrong bytes": lambda hub: hub.corrupt("GET .*safetensors"),
    "breaks off once": lambda hub: hub.cut("GET .*safetensors", at=100, times=1),
    "gone": lambda hub: hub.close(),  # the last: it does not come back
}


@contextmanager
def people(app):
    """Have texts written, one after another for each of many people, until the block ends; give how long they were."""
    lengths, leave = [], threading.Event()

    def person(number):
        while not leave.is_set():
            lengths.append(len(app.stream("homework-rnn", "A", LENGTH, 1, 0, 1, number)))

    with ThreadPoolExecutor(PEOPLE) as threads:
        streams = [threads.submit(person, number) for number in range(PEOPLE)]
        try:
            yield lengths
        finally:
            leave.set()
        for stream in streams:
            stream.result()


@pytest.mark.slow
def test_no_stream_stops_whatever_the_hub_does(hub, tmp_path):
    """Each fault meets a model that is in the Hub's cache on this machine, and one that is not."""
    files = contents(save(make_model("gru"), tmp_path / "model"))
    repos = {fault: [f"ada/{number}-cold", f"ada/{number}-warm"] for number, fault in enumerate(FAULTS)}
    for cold, warm in repos.values():
        hub.add_repo(cold, files)
        hub.add_repo(warm, files)
        CharLM.from_pretrained(warm)
    said = {}
    with running_app("--model", str(ROOT / "weights" / "homework-rnn")) as url:
        app = App(url)
        with people(app) as lengths:
            for fault, begin in FAULTS.items():
                hub.heal()
                begin(hub)
                for repo in repos[fault]:
                    said[fault, repo[-4:]] = [
                        app.ask(*step, session=repo[4:]) for step in (("show", repo), ("load", repo, ""))
                    ]
    assert set(lengths) == {LENGTH} and len(lengths) >= PEOPLE
    loaded = {case for case, errors in said.items() if errors == [None, None]}
    in_cache = {(fault, "warm") for fault in FAULTS if fault.startswith(("files", "wrong", "breaks"))}
    at_second_try = {("wrong bytes once", "cold"), ("breaks off once", "cold")}
    assert loaded == {("nothing", "cold"), ("nothing", "warm")} | in_cache | at_second_try
    errors = [error for case in said.values() for error in case if error]
    for error in errors:
        assert "ada/" in error and str(tmp_path) not in error and "Traceback" not in error and "\n" not in error
