"""The device API of ZeroGPU on 127.0.0.1, as the package `spaces` asks it: who gets a GPU, for how long, and who none.

with ZeroGpuServer() as zero_gpu:
    ...                                     # start the page with zero_gpu.environment
    zero_gpu.answers.append(quota(left=10, wait=3600))  # to the next requests for a GPU; without one they get it
    zero_gpu.requests                       # the requests so far, in order: path and parameters
"""

import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

GPU = {"idle": False, "nvidiaIndex": 0, "nvidiaUUID": "GPU-0", "allowToken": "allowed"}


@dataclass(frozen=True)
class Answer:
    """To a request for a GPU. events: of the queue for one, in place of a body."""

    status: int = 200
    body: dict | None = None
    events: tuple[str, ...] = ()
    headers: dict[str, str] = field(default_factory=dict)


GRANTED = Answer(200, GPU)
QUEUED = Answer(200, events=("event: ping", f"event: succeeded\ndata: {json.dumps(GPU)}"))


def quota(left, wait) -> Answer:
    """The refusal of a visitor whose quota is spent. left: seconds of it. wait: seconds until there is more of it.

    A visitor without a quota has wait 0 once all runs are used up, and a negative one if it could never be enough.
    """
    return Answer(429, {"left": left, "wait": wait}, headers={"X-Approve-Result": "quota-exceeded"})


class ZeroGpuServer:
    """The server; it runs between `with` and its end."""

    def __init__(self):
        self.answers: list[Answer] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):  # a name that http.server demands
                path = urlsplit(self.path)
                server.requests.append((path.path, dict(parse_qsl(path.query))))
                server._answer(self, path.path)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.environment = {
            "SPACES_ZERO_GPU": "true",
            "SPACES_ZERO_DEVICE_API_URL": f"http://127.0.0.1:{self._server.server_port}",
        }

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def asked(self, path) -> list[dict[str, str]]:
        """The parameters of the requests so far for this path."""
        return [parameters for asked, parameters in self.requests if asked == path]

    def _answer(self, handler, path):
        known = path in ("/startup-report", "/allow", "/release")
        answer = Answer(200 if known else 404, {})
        if path == "/schedule":
            answer = self.answers.pop(0) if self.answers else GRANTED
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        if answer.events:
            handler.send_header("Content-Type", "text/event-stream")
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            for event in (*answer.events, ""):
                text = f"{event}\n\n".encode() if event else b""
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
                handler.wfile.flush()
                time.sleep(0.05)  # `spaces` reads one event at a time
            return
        body = json.dumps(answer.body or {}).encode()
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
