"""The server as a process: how it treats those who stand still, vanish or never read, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress

import pytest
from browser import PATIENCE, ROOT
from forked_programs import Program

from charlm.errors import RequestError
from charlm.web.server import listen, unread_seconds

SERVE = """
import socket, sys, threading
from charlm.web import environment
environment.prepare()
from charlm.web.answers import write
write.LONGEST_TEXT = 10**9  # 5,000 characters end by themselves before anything can happen to them
from pathlib import Path
from charlm.web import gradio_internals, server
from charlm.web.models import load_registry
from charlm.web.page import build_page
from charlm.web.theme import make_theme

gradio_internals.TimeoutProtocol.head_seconds = server.UNREAD_SECONDS = float(sys.argv[1])
server.CLOSING_SECONDS = 1000  # on a busy machine a text takes longer than a user would wait
registry = load_registry(["weights/homework-rnn"], Path("weights"), "cpu")
page = build_page(registry, "cpu")
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]

def tell():  # how many events there are, how many sessions Gradio keeps a state of, and texts that are being written
    for _ in sys.stdin:
        queue = page._queue
        lines = queue.event_queue_per_concurrency_id.values()
        events = sum(len(line.queue) + line.current_concurrency for line in lines)
        texts = sum(len(model.lm._scheduler) for model in registry)
        print(events, len(page.app.state_holder.session_data), texts, file=out, flush=True)

out, sys.stdout = sys.stdout, sys.stderr
print(port, file=out, flush=True)
threading.Thread(target=tell, daemon=True).start()
server.serve(page, registry, make_theme(), "127.0.0.1", port)
"""
ENDLESS, LONG = 10**9, 200_000  # characters: LONG ends, but not before others have been refused


def asked(length):
    """What `generate` is asked for."""
    return ["homework-rnn", "A", length, 1, 0, 1, 3]


def wait_until(is_so):
    """Ask again and again, at most for PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline


class Server:
    """A server in a process of its own; `first` are the headers of the first response that it ever gave.

    unread_seconds: how long it waits for a request, or for the reader of an event.
    """

    def __init__(self, unread_seconds=1000, **environment):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        if environment:  # libraries read it when they are imported
            command = [sys.executable, "-c", SERVE, str(unread_seconds)]
            self.process = subprocess.Popen(command, cwd=ROOT, text=True, env=os.environ | environment, **pipes)
        else:
            self.process = Program(["-c", SERVE, unread_seconds], folder=ROOT, **pipes)
        self.port = int(self.process.stdout.readline())
        while (first := self.headers()) is None:
            assert self.process.poll() is None
        self.first = first

    def headers(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/config") as answer:
                return answer.headers
        except OSError:
            return None

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

    def stream_completion(self, **fields):
        body = json.dumps({"model": "homework-rnn", "prompt": "A", "stream": True} | fields).encode()
        return urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{self.port}/v1/completions", body))

    def open(self, endpoint, event):
        return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/gradio_api/call/{endpoint}/{event}")

    def counts(self):
        print(file=self.process.stdin, flush=True)
        return list(map(int, self.process.stdout.readline().split()))

    def texts(self):
        return self.counts()[2]

    def await_no_events(self):
        wait_until(lambda: self.counts()[0] == 0)


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.process.kill()
    server.process.communicate()


@pytest.fixture(scope="module")
def impatient_server():
    """One that does not wait long, for tests that wait until it has waited."""
    server = Server(unread_seconds=0.5)
    yield server
    server.process.kill()
    server.process.communicate()


def test_the_first_response_that_anybody_gets_has_the_headers_of_the_guard(server):
    assert "default-src 'self'" in server.first["content-security-policy"]


@pytest.mark.parametrize("sent", [b"", b"GE", b"POST /gradio_api/queue/join HTTP/1.1\r\nhost: a\r\n"])
def test_a_request_that_does_not_go_on_is_closed(impatient_server, sent):
    with socket.create_connection(("127.0.0.1", impatient_server.port), timeout=PATIENCE) as connection:
        connection.sendall(sent)
        with suppress(ConnectionResetError):
            assert connection.recv(100) == b""


def test_an_event_that_nobody_reads_ends_and_is_forgotten(impatient_server):
    event = impatient_server.begin("generate", *asked(ENDLESS))
    impatient_server.await_no_events()
    wait_until(lambda: impatient_server.status(f"/gradio_api/call/generate/{event}") == 404)


def test_an_event_ends_when_its_reader_vanishes(server):
    with server.open("generate", server.begin("generate", *asked(ENDLESS))) as answer:
        assert answer.readline() == b"event: generating\n"
    server.await_no_events()
    wait_until(lambda: server.texts() == 0)


def test_a_completion_ends_when_its_reader_vanishes(server):
    with server.stream_completion(max_tokens=ENDLESS, n=1) as answer:
        assert answer.readline().startswith(b'data: {"id":"cmpl-')
    wait_until(lambda: server.texts() == 0)


def test_calls_leave_no_state_behind(server):
    before = server.counts()[1]
    for _ in range(3):
        with server.open("models", server.begin("models")) as answer:
            assert b"event: complete" in answer.read()
    assert server.counts()[1] == before


@pytest.mark.slow
def test_told_to_end_it_lets_a_text_end_refuses_others_and_exits_with_0():
    server = Server()
    with (
        server.open("generate", server.begin("generate", *asked(LONG))) as answer,
        server.stream_completion(max_tokens=LONG, seed=3) as completion,
    ):
        first, begun = answer.readline(), completion.readline()
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.status("/config") != 200)
        with pytest.raises(urllib.error.HTTPError, match="503"):
            server.stream_completion()
        rest, events = answer.read().decode(), (begun + completion.read()).decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert sum(len(chunk["choices"][0]["text"]) for chunk in chunks) == LONG
    texts = [json.loads(line[6:])[0] for line in rest.splitlines() if line.startswith("data: [")]
    assert first == b"event: generating\n" and len(texts[-1]) == LONG
    assert server.process.wait(PATIENCE) == 0
    server.process.communicate()


@pytest.mark.slow
def test_a_second_signal_closes_all_connections_at_once():
    server = Server()
    with server.open("generate", server.begin("generate", *asked(ENDLESS))) as answer:
        assert answer.readline() == b"event: generating\n"
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.status("/config") != 200)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0
    server.process.communicate()


# What other programs, a Space, or somebody's shell leave behind, and that would make Gradio put another server in front
# of the guard, open ports, share the page, watch files, or fail.
STRANGE = {
    "GRADIO_SSR_MODE": "True",
    "GRADIO_NUM_WORKERS": "2",
    "GRADIO_WATCH_DIRS": str(ROOT),
    "GRADIO_HOT_RELOAD": "true",
    "GRADIO_SHARE": "True",
    "GRADIO_DEBUG": "1",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_ALLOWED_PATHS": "/",
    "GRADIO_NUM_PORTS": "many",
    "GRADIO_NODE_PATH": "/bin/false",
    "GRADIO_LOCAL_DEV_MODE": "1",
    "GRADIO_VIBE_MODE": "1",
    "GRADIO_HEARTBEAT_INTERVAL": "x",
    "GRADIO_ANALYTICS_ENABLED": "True",
    "WEB_CONCURRENCY": "four",
    "http_proxy": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "SYSTEM": "spaces",
    "SPACE_ID": "ada/demo",
}


@pytest.mark.slow
def test_variables_that_others_set_change_neither_the_guard_nor_the_end(monkeypatch):
    server = Server(**STRANGE)  # the children of this test alone have them
    assert "default-src 'self'" in server.first["content-security-policy"]
    assert server.status("/.env") == server.status("/gradio_api/file=/etc/passwd") == 404
    with server.open("generate", server.begin("generate", *asked(LONG))) as answer:
        assert answer.readline() == b"event: generating\n"
        server.process.send_signal(signal.SIGTERM)
        assert b"event: complete" in answer.read()
    assert server.process.wait(PATIENCE) == 0
    server.process.communicate()


def test_a_late_reader_has_fifteen_seconds_unless_the_server_is_flooded():
    assert [unread_seconds(64, has_ended=ended) for ended in (False, True)] == [15, 30]
    assert [unread_seconds(65, has_ended=ended) for ended in (False, True)] == [3, 3]


def test_a_port_that_is_in_use_and_a_host_that_is_not_here_are_told_apart():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RequestError, match=f"cannot serve on port {port} of 127.0.0.1 .*; choose another --port"):
            listen("127.0.0.1", port)
    for host in ("192.0.2.1", "no.such.host.invalid", "a\0b", "x" * 300):
        with pytest.raises(RequestError, match="; choose another --host"):
            listen(host, 7860)
