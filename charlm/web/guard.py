"""The guard: an ASGI middleware through which every request has to go before it reaches Gradio.

It serves a fixed list of addresses, limits how large and how slow a request may be, refuses what Gradio would fail on,
and adds security headers to every response. Whether the arguments of a call make sense is checked where they are used:
see `charlm.web.answers`.
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

from charlm.web.address import EMBEDDED
from charlm.web.answers import completions
from charlm.web.answers.write import LONGEST_MODEL_NAME
from charlm.web.training.settings import LARGEST_TEXT

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_SECONDS = 10.0  # in which the body of a request has to arrive
DRAIN_SECONDS = 2.0  # for which a refused body is still received: closing earlier would reset the connection
MOST_OPEN_REQUESTS = 1_000
MOST_FUNCTION_CALLS = 16  # that run at a time, of functions of components, which have no queue
MOST_TOOL_CALLS = 16  # of MCP, each of which waits for its result on one of the 40 threads that send files, too
MOST_BODY_BYTES = 16_000_000  # of all bodies that are being received; small ones are received even so
# Bytes that a body may have. In JSON a quotation mark or a line break takes two.
SMALL_BODY, CALL_BODY, EVENT_BODY = 4_000, 256_000, LARGEST_TEXT * 5 // 4 + 150_000
# Only a text that a visitor has pasted makes the body of an event so large.
TEXT_TOO_LARGE = f"This is more than the page takes ({LARGEST_TEXT / 1e6:g} MB of text): use a part of it."

# The pages that may show this one in a frame.
ANCESTORS = "frame-ancestors 'self' https://huggingface.co https://*.hf.space"
SECURITY_HEADERS = {
    # Gradio's page contains inline scripts and styles and evaluates templates, so both have to be allowed. What a
    # script could do with what it finds is limited instead: it cannot send anything to another host.
    "content-security-policy": "; ".join(
        [
            "default-src 'self'",
            "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "worker-src 'self' blob:",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
            ANCESTORS,
        ]
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
# Of an address that shows a view alone, which any page may show in a frame: without accounts, a click to which another
# page misleads a visitor gives nothing away. `*` would leave out pages from disk.
POLICY = SECURITY_HEADERS["content-security-policy"]
EMBEDDED_HEADERS = SECURITY_HEADERS | {"content-security-policy": POLICY.removesuffix(f"; {ANCESTORS}")}


@dataclass(frozen=True)
class Route:
    """Requests that are served.

    methods: separated by spaces.
    paths: a regular expression for the whole path. Its group `name` is an endpoint of the API, its group `session` the
        session whose results are read.
    largest_body: in bytes. too_large: what is said of one that is larger, if not just that.
    reads_results: whether the response is a stream of the results of events.
    has_argument_list: whether the body has the arguments as a list, `data`.
    calls_function: whether the body names a function of a component, which a script of the page asks without the queue.
    most_at_once: how many of these requests are answered at a time; None for as many as are open.
    writes_completions: whether the response is of `charlm.web.completions`, which checks the body itself. It may be
        completed when the server is about to end.
    """

    methods: str
    paths: str
    largest_body: int = 0
    too_large: str = ""
    reads_results: bool = False
    has_argument_list: bool = False
    calls_function: bool = False
    most_at_once: int | None = None
    writes_completions: bool = False


API = "/gradio_api"
WORD = r"[\w.-]{1,100}"
ROUTES = [
    (route, re.compile(route.paths, re.ASCII))
    for route in (
        Route("GET HEAD", "/(config/?|theme.css|favicon.ico|robots.txt|manifest.json|pwa_icon(/[0-9]+)?)?"),
        Route("GET HEAD", rf"/(assets|static|svelte)/{WORD}(/{WORD})*"),
        Route("GET HEAD", rf"{API}/(info/?|openapi.json|app_id/?|startup-events|theme.css)"),
        Route("GET", rf"{API}/heartbeat/{WORD}"),
        # a trained model and its page to download; Gradio checks that the folder is its own
        Route("GET HEAD", rf"{API}/file=/?([^/\n]{{1,255}}/)*[0-9a-f]{{64}}/my-model\.(zip|html)"),
        Route("GET", rf"{API}/queue/data", reads_results=True),
        Route("GET", rf"{API}/call/(v2/)?{WORD}/(?P<session>{WORD})", reads_results=True),
        Route("POST", rf"{API}/queue/join", EVENT_BODY, TEXT_TOO_LARGE, has_argument_list=True),
        Route("POST", rf"{API}/call/(?P<name>{WORD})/?", CALL_BODY, has_argument_list=True),
        Route("POST", rf"{API}/call/v2/(?P<name>{WORD})/?", CALL_BODY),
        Route("POST", rf"{API}/component_server/?", CALL_BODY, calls_function=True, most_at_once=MOST_FUNCTION_CALLS),
        Route("POST", rf"{API}/(cancel|reset)/?", SMALL_BODY),
        # not MCP's older transport, /sse: it answers a call at once and runs it later, where nobody can count it
        Route("POST", rf"{API}/mcp(/http)?/?", CALL_BODY, most_at_once=MOST_TOOL_CALLS),
        Route("GET DELETE", rf"{API}/mcp(/http|/schema)?/?"),
        Route("POST", rf"{completions.PATH}completions/?", CALL_BODY, writes_completions=True),
        Route("GET", rf"{completions.PATH}models(/[^\n]{{1,{LONGEST_MODEL_NAME}}})?/?"),
    )
]


class RefusedError(Exception):
    """A request is refused with an HTTP status and a message."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Guard:
    """An ASGI middleware that passes on the requests of ROUTES, within their limits, and refuses all others.

    readers: for each session, how many responses that read its results are open, and how many of completions.
    is_closing: if set, only results are served: the server is about to end.
    """

    def __init__(
        self,
        app: App,
        endpoints: Mapping[str, Mapping[str, bool]],
        events: Mapping[int, int],
        functions: Mapping[int, Collection[str]],
        has_session: Callable[[str], bool],
        root_path: str = "",
    ) -> None:
        """Stand in front of `app`.

        endpoints: those of the API by name, each with its arguments and whether an argument is required.
        events: the numbers of the events that the page may send, each with the number of its arguments.
        functions: the numbers of the components with functions for their scripts, each with the names of these.
        has_session: tells whether a session has an event, or results that were not read yet.
        root_path: under which a proxy offers the app, as `serve.read_root_path` returns it. Paths are served with that
            prefix and without, since some proxies take it off.
        """
        self._app, self._endpoints, self._events, self._functions = app, endpoints, events, functions
        self._has_session = has_session
        self._prefix = urlsplit(root_path).path
        self._open_requests = self._body_bytes = 0
        self._running: Counter[Route] = Counter()
        self.readers: Counter[str] = Counter()
        self.is_closing = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            self._open_requests += 1
            try:
                local = self._without_prefix(scope)
                await self._respond(local, receive, Responder(send, _headers_of(local)))
            finally:
                self._open_requests -= 1
        else:
            await send({"type": "websocket.close"})

    def _without_prefix(self, scope: Scope) -> Scope:
        path, prefix = scope["path"], self._prefix
        if not prefix or not f"{path}/".startswith(f"{prefix}/"):
            return scope
        local = path.removeprefix(prefix) or "/"
        return {**scope, "path": local, "raw_path": local.encode()}

    async def _respond(self, scope: Scope, receive: Receive, send: "Responder") -> None:
        receiver = Receiver(receive)
        try:
            route, match = self._find_route(scope)
            async with AsyncExitStack() as counted:
                body = await counted.enter_async_context(self._receive_body(scope, receiver, route))
                session = self._check_request(route, match, scope, body)
                if route.most_at_once is not None or route.writes_completions:
                    await counted.aclose()  # there are few of these; while one waits, its body must not keep others out
                with self._count_reader(session), self._count_running(route):
                    await self._app(scope, _replay(body, receiver), send)
        except RefusedError as refusal:
            await send.refuse(refusal, in_openai_form=scope["path"].startswith(completions.PATH))
            await receiver.drain()
            await send({"type": "http.response.body"})

    def _check_request(self, route: Route, match: re.Match[str], scope: Scope, body: bytearray) -> str | None:
        """Check a request that was received; return what `readers` counts its response by, if it does.

        Raises RefusedError.
        """
        if route.writes_completions:
            return completions.PATH  # which is no name of a session
        self._check_body(route, match, body)
        if route.calls_function:
            self._check_media_type(scope)
        return self._read_session(route, scope, match)

    def _find_route(self, scope: Scope) -> tuple[Route, re.Match[str]]:
        """Return the route of a request. Raises RefusedError if there is none, or too many requests are open."""
        path, method = scope["path"], scope["method"]
        found = [(route, match) for route, matcher in ROUTES if (match := matcher.fullmatch(path))]
        if not found or not {".", ".."}.isdisjoint(path.split("/")):
            offered = "; completions and models are offered" if path.startswith(completions.PATH) else ""
            raise RefusedError(404, f"There is nothing at this address{offered}.")
        allowed = [(route, match) for route, match in found if method in route.methods.split()]
        if not allowed:
            raise RefusedError(405, f"This address does not take {method}.")
        route, match = allowed[0]
        if self._open_requests > MOST_OPEN_REQUESTS:
            raise RefusedError(503, "Too many requests at once: try again in some seconds.")
        if self.is_closing and not route.reads_results:
            raise RefusedError(503, "The server is about to end: try again in a minute.")
        return route, match

    @asynccontextmanager
    async def _receive_body(self, scope: Scope, receive: Receive, route: Route) -> AsyncIterator[bytearray]:
        """Receive the whole body of a request, and count its bytes while the block runs.

        Raises RefusedError for a body that is too large, too slow, or cut off.
        """
        largest = route.largest_body
        in_bytes = f"The body has more than the {largest:,} bytes that are taken here."
        too_large = RefusedError(413, route.too_large or in_bytes)
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > largest:
            raise too_large
        body = bytearray()
        try:
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    while scope["method"] == "POST":
                        message = await receive()
                        if message["type"] == "http.disconnect":
                            raise RefusedError(400, "The connection ended before the request did.")
                        body += message.get("body", b"")
                        self._body_bytes += len(message.get("body", b""))
                        if len(body) > largest:
                            raise too_large
                        # MOST_OPEN_REQUESTS limits the small ones: large ones that come slowly must not keep them out
                        if self._body_bytes > MOST_BODY_BYTES and len(body) > SMALL_BODY:
                            raise RefusedError(503, "Too many large requests at once: try again in some seconds.")
                        if not message.get("more_body", False):
                            break
            except TimeoutError:
                raise RefusedError(408, f"The body did not come within {BODY_SECONDS:.0f} seconds.") from None
            yield body
        finally:
            self._body_bytes -= len(body)

    def _check_body(self, route: Route, match: re.Match[str], body: bytearray) -> None:
        """Refuse what Gradio would answer with an internal error. Raises RefusedError."""
        name = match.groupdict().get("name")
        if name is not None and name not in self._endpoints:
            raise RefusedError(404, f"There is no such endpoint; choose {', '.join(self._endpoints)}.")
        if not body and not route.calls_function:
            return
        try:
            content = orjson.loads(body)  # which refuses NaN, infinite numbers and lone surrogates
        except orjson.JSONDecodeError as error:
            raise RefusedError(422, f"The body must be JSON: {str(error).partition(': line')[0]}.") from None
        if not isinstance(content, dict):
            raise RefusedError(422, "The body must be a JSON object.")
        session = content.get("session_hash")
        if session is not None and not (isinstance(session, str) and re.fullmatch(WORD, session, re.ASCII)):
            raise RefusedError(422, "session_hash must be a word of at most 100 letters and digits.")
        if session is not None and is_api_call(session):
            raise RefusedError(422, "session_hash must not look like the name of an event.")
        if route.calls_function:
            self._check_function_call(content)
        elif route.has_argument_list:
            self._check_argument_list(content, name)
        elif name is not None:
            self._check_named_arguments(content, self._endpoints[name])

    def _check_argument_list(self, content: dict[str, Any], name: str | None) -> None:
        number, data = content.get("fn_index"), content.get("data")
        if not isinstance(data, list):
            raise RefusedError(422, "data must be the list of the arguments.")
        if content.get("batched"):
            raise RefusedError(422, "Events cannot be batched.")
        if name is not None:
            expected = self._endpoints[name]
            if content.keys() != {"data"}:
                raise RefusedError(422, "The body must hold data, the list of the arguments, and nothing else.")
            if len(data) != len(expected):
                raise RefusedError(422, f"data must have {len(expected)} arguments: {', '.join(expected) or 'none'}.")
        elif not isinstance(number, int) or self._events.get(number) != len(data):
            raise RefusedError(422, "No event with this fn_index takes that many arguments.")

    def _check_function_call(self, content: dict[str, Any]) -> None:
        if content.keys() != {"component_id", "fn_name", "session_hash", "data"} or content["session_hash"] is None:
            raise RefusedError(422, "The body must hold component_id, fn_name, session_hash and data.")
        number, name = content["component_id"], content["fn_name"]
        if not isinstance(number, int) or name not in list(self._functions.get(number, ())):
            raise RefusedError(422, "No component with this component_id has a function of that name.")

    def _check_media_type(self, scope: Scope) -> None:
        """Refuse what Gradio would read as a form with files. Raises RefusedError."""
        if not dict(scope["headers"]).get(b"content-type", b"").startswith(b"application/json"):
            raise RefusedError(415, "The content type must be application/json.")

    def _check_named_arguments(self, content: dict[str, Any], expected: Mapping[str, bool]) -> None:
        unknown = [name for name in content if name not in expected]
        missing = [name for name, is_required in expected.items() if is_required and name not in content]
        if unknown or missing:
            raise RefusedError(422, f"The body must hold these arguments by name: {', '.join(expected) or 'none'}.")

    def _read_session(self, route: Route, scope: Scope, match: re.Match[str]) -> str | None:
        """Return the session whose results a request reads, if any. Raises RefusedError if there are none to read."""
        if not route.reads_results:
            return None
        query = parse_qs(scope["query_string"].decode("latin-1"))
        session = match.groupdict().get("session") or query.get("session_hash", [""])[0]
        if not self._has_session(session):
            raise RefusedError(404, "There is no such event, or nobody has read it in time: ask again.")
        return session

    @contextmanager
    def _count_reader(self, session: str | None) -> Iterator[None]:
        """Count a response that reads the results of a session, while the block runs."""
        if session is None:
            yield
            return
        self.readers[session] += 1
        try:
            yield
        finally:
            self.readers[session] -= 1
            self.readers += Counter()  # removes the sessions whose count is 0

    @contextmanager
    def _count_running(self, route: Route) -> Iterator[None]:
        """Count a request while the block runs. Raises RefusedError if as many of its route run as may at a time."""
        if route.most_at_once is not None and self._running[route] >= route.most_at_once:
            raise RefusedError(503, "Too many requests at once: try again in some seconds.")
        self._running[route] += 1
        try:
            yield
        finally:
            self._running[route] -= 1


class Receiver:
    """An ASGI `receive` that knows whether the whole request has arrived."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._has_ended = False

    async def __call__(self) -> Message:
        """See the ASGI specification."""
        message = await self._receive()
        self._has_ended = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def drain(self) -> None:
        """Receive the rest of a refused body: if the connection were closed before, a reset would lose the response."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self._has_ended:
                    await self()


class Responder:
    """An ASGI `send` that adds headers to each response."""

    def __init__(self, send: Send, headers: Mapping[str, str]) -> None:
        self._send, self._headers = send, headers

    async def __call__(self, message: Message) -> None:
        """See the ASGI specification."""
        if message["type"] == "http.response.start":
            ours = {name.encode(): value.encode() for name, value in self._headers.items()}
            theirs = [pair for pair in message.get("headers", []) if pair[0].lower() not in ours]
            message = {**message, "headers": [*theirs, *ours.items()]}
        await self._send(message)

    async def refuse(self, refusal: RefusedError, *, in_openai_form: bool = False) -> None:
        """Send a response with the refusal's status and message, all but the empty last part of its body."""
        message = str(refusal)
        content = completions.error_object(refusal.status, message) if in_openai_form else {"detail": message}
        body = orjson.dumps(content)
        length = str(len(body)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", length), (b"connection", b"close")]
        await self({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await self({"type": "http.response.body", "body": body, "more_body": True})


def is_api_call(session: str) -> bool:
    """Tell whether a session belongs to a call of the API: Gradio names that after its event, and no other session."""
    return re.fullmatch("[0-9a-f]{32}", session) is not None


def _headers_of(scope: Scope) -> Mapping[str, str]:
    """Return the security headers for the response to a request."""
    embedded = parse_qs(scope["query_string"].decode("latin-1")).get("embed", [""])[0]
    return EMBEDDED_HEADERS if scope["path"] == "/" and embedded in EMBEDDED else SECURITY_HEADERS


def _replay(body: bytearray, receive: Receive) -> Receive:
    """Return an ASGI `receive` that gives a body that was received already, then what else arrives."""
    unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return unread.pop() if unread else await receive()

    return next_message
