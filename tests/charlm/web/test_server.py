"""The server as a process: how it treats those who stand still, vanish or never read, and how it ends."""

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from types import SimpleNamespace

import pytest
from browser import ROOT
from gradio.state_holder import StateHolder

from charlm.web.server import States

SERVE = """
import os, socket, sys, threading
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
from pathlib import Path
from charlm.web import server
from charlm.web.models import load_registry
from charlm.web.page import THEME, build_page

server.HEAD_SECONDS, server.UNREAD_SECONDS = 0.5, 0.5
registry = load_registry(["weights/homework-rnn"], Path("weights"), "cpu")
page = build_page(registry, "cpu")
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]

def tell():  # how many events there are, and how many sessions Gradio keeps a state of
    for _ in sys.stdin:
        queue = page._queue
        lines = queue.event_queue_per_concurrency_id.values()
        events = sum(len(line.queue) + line.current_concurrency for line in lines)
        print(events, len(page.app.state_holder.session_data), file=out, flush=True)

out, sys.stdout = sys.stdout, sys.stderr
print(port, file=out, flush=True)
threading.Thread(target=tell, daemon=True).start()
server.serve(page, THEME, "127.0.0.1", port)
"""
LONG = ["homework-rnn", "A", 5000, 1, 0, 1, 3]


class Server:
    def __init__(self):
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([sys.executable, "-c", SERVE], cwd=ROOT, text=True, stdin=pipe, stdout=pipe)
        self.port = int(self.process.stdout.readline())
        while not self.is_guarded():
            assert self.process.poll() is None

    def is_guarded(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/config") as answer:
                return "content-security-policy" in answer.headers
        except OSError:
            return False

    def status(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}") as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except urllib.error.URLError:
            return None

    def begin(self, endpoint, *data):
        body = json.dumps({"data": data}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/gradio_api/call/{endpoint}", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            return json.loads(answer.read())["event_id"]

    def open(self, endpoint, event):
        return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/gradio_api/call/{endpoint}/{event}")

    def counts(self):
        print(file=self.process.stdin, flush=True)
        return list(map(int, self.process.stdout.readline().split()))

    def await_no_events(self):
        while self.counts()[0]:
            pass


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.process.kill()
    server.process.communicate()


@pytest.mark.parametrize("sent", [b"", b"GE", b"POST /gradio_api/queue/join HTTP/1.1\r\nhost: a\r\n"])
def test_a_request_that_does_not_go_on_is_closed(server, sent):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(sent)
        with suppress(ConnectionResetError):
            assert connection.recv(100) == b""


def test_an_event_that_nobody_reads_ends_and_is_forgotten(server):
    event = server.begin("generate", *LONG)
    server.await_no_events()
    while server.status(f"/gradio_api/call/generate/{event}") != 404:
        pass


def test_an_event_ends_when_its_reader_vanishes(server):
    with server.open("generate", server.begin("generate", *LONG)) as answer:
        assert answer.readline() == b"event: generating\n"
    server.await_no_events()


def test_calls_leave_no_state_behind(server):
    before = server.counts()[1]
    for _ in range(3):
        with server.open("models", server.begin("models")) as answer:
            assert b"event: complete" in answer.read()
    assert server.counts()[1] == before


def test_told_to_end_it_lets_a_text_end_refuses_others_and_exits_with_0():
    server = Server()
    with server.open("generate", server.begin("generate", *LONG)) as answer:
        first = answer.readline()
        server.process.send_signal(signal.SIGTERM)
        while server.status("/config") == 200:
            pass
        rest = answer.read().decode()
    texts = [json.loads(line[6:])[0] for line in rest.splitlines() if line.startswith("data: [")]
    assert first == b"event: generating\n" and len(texts[-1]) == 5000
    assert server.process.wait(30) == 0
    server.process.communicate()


def test_who_came_before_the_guard_keeps_what_the_page_showed_them():
    page = SimpleNamespace(default_config=SimpleNamespace(blocks={}), blocks={}, state_session_capacity=10)
    before = StateHolder()
    before.set_blocks(page)
    early = before["early"]
    states = States(page, before)
    assert states["early"] is early
    assert states["late"] is before["late"] is not early
