"""What stands between the network and Gradio.

It knows which requests there are, how large and how slow they may be, and what every answer says of itself. What a
request asks for is checked where it enters: see `charlm.web.answers.api` and the views.
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, MutableMapping
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import orjson

from charlm.web.answers.train import LARGEST_TEXT

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_SECONDS = 10.0  # in which the body of a request has to come
DRAIN_SECONDS = 2.0  # for which a body that is refused is still taken, so that the answer is not lost in a reset
MOST_OPEN = 1_000  # requests at once
MOST_HELD = 16_000_000  # bytes of the bodies that are being read
# bytes of a body; in JSON a quotation mark or a line break takes two
SMALL, CALL, EVENT = 4_000, 256_000, LARGEST_TEXT * 5 // 4 + 150_000

HEADERS = {
    # Gradio's page has scripts and styles in its HTML and evaluates templates: what a script could do with what it
    # finds is limited instead, since nothing may go to another host
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
            "frame-ancestors 'self' https://huggingface.co https://*.hf.space",
        ]
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


@dataclass(frozen=True)
class Route:
    """Requests that are let through.

    paths: a regular expression for all of the path; what it calls `name` is an endpoint, and what it calls `session`
        is whose events are read. largest: bytes of the body. reads: whether the answer is what events have given.
    arguments: whether the body has a list of them.
    """

    methods: str
    paths: str
    largest: int = 0
    reads: bool = False
    arguments: bool = False


API = "/gradio_api"
WORD = r"[\w.-]{1,100}"
ROUTES = [
    (route, re.compile(route.paths, re.ASCII))
    for route in (
        Route("GET HEAD", "/(config/?|theme.css|favicon.ico|robots.txt|manifest.json|pwa_icon(/[0-9]+)?)?"),
        Route("GET HEAD", rf"/(assets|static|svelte)/{WORD}(/{WORD})*"),
        Route("GET HEAD", rf"{API}/(info/?|openapi.json|app_id/?|startup-events|theme.css)"),
        Route("GET", rf"{API}/heartbeat/{WORD}"),
        Route("GET HEAD", rf"{API}/file=/?({WORD}/)*[0-9a-f]{{64}}/my-model\.zip"),  # Gradio looks whether it may be
        Route("GET", rf"{API}/queue/data", reads=True),
        Route("GET", rf"{API}/call/(v2/)?{WORD}/(?P<session>{WORD})", reads=True),
        Route("POST", rf"{API}/queue/join", EVENT, arguments=True),
        Route("POST", rf"{API}/call/(?P<name>{WORD})/?", CALL, arguments=True),
        Route("POST", rf"{API}/call/v2/(?P<name>{WORD})/?", CALL),
        Route("POST", rf"{API}/(cancel|reset)/?", SMALL),
        Route("GET POST DELETE", rf"{API}/mcp(/{WORD})*/?", CALL),
    )
]


class RefusedError(Exception):
    """A request is not answered; the status and the words say why."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Guard:
    """An ASGI application that lets through to another what is on the list of ROUTES, in bounds.

    readers: how often the events of a session are being read now. is_closing: whether nothing new is let in.
    """

    def __init__(
        self,
        app: App,
        endpoints: Mapping[str, Mapping[str, bool]],
        events: Mapping[int, int],
        is_session: Callable[[str], bool],
        background: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        """endpoints: by the name of each that may be called its arguments, and whether it needs them.

        events: the numbers of those that the page may join, with how many arguments each takes.

        is_session: tells whether there is, or was lately, an event of that session.
        background: what runs beside the requests, from the first on.
        """
        self._app, self._endpoints, self._events = app, endpoints, events
        self._is_session, self._background = is_session, background
        self._task: asyncio.Task[None] | None = None
        self._open = self._held = 0
        self.readers: Counter[str] = Counter()
        self.is_closing = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            self._task = self._task or asyncio.create_task(self._background())
            self._open += 1
            try:
                await self._answer(scope, receive, Sender(send))
            finally:
                self._open -= 1
        else:
            await send({"type": "websocket.close"})

    async def _answer(self, scope: Scope, receive: Receive, send: "Sender") -> None:
        try:
            route, match = self._admit(scope)
            async with self._body(scope, receive, route.largest) as body:
                self._check(route, match, body)
                with self._reading(scope, match) if route.reads else nullcontext():
                    await self._app(scope, _once(body, receive), send)
        except RefusedError as refusal:
            await send.refuse(refusal)
            await _drain(receive)
            await send({"type": "http.response.body"})

    def _admit(self, scope: Scope) -> tuple[Route, re.Match[str]]:
        """Return what a request is. Raises RefusedError for one that is not on the list, or too many."""
        path, method = scope["path"], scope["method"]
        found = [(route, match) for route, matcher in ROUTES if (match := matcher.fullmatch(path))]
        if not found or not {".", ".."}.isdisjoint(path.split("/")):
            raise RefusedError(404, "There is nothing at this address.")
        taken = [(route, match) for route, match in found if method in route.methods.split()]
        if not taken:
            raise RefusedError(405, f"This address does not take {method}.")
        route, match = taken[0]
        if self._open > MOST_OPEN:
            raise RefusedError(503, "Too many requests at once: try again in some seconds.")
        if self.is_closing and not route.reads:
            raise RefusedError(503, "The server is about to end: try again in a minute.")
        return route, match

    @asynccontextmanager
    async def _body(self, scope: Scope, receive: Receive, largest: int) -> AsyncIterator[bytearray]:
        """Read the body of a request, and count its bytes as long as it is used. Raises RefusedError for a bad one."""
        too_large = RefusedError(413, f"The body has more than the {largest:,} bytes that are taken here.")
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
                        self._held += len(message.get("body", b""))
                        if len(body) > largest:
                            raise too_large
                        if self._held > MOST_HELD:
                            raise RefusedError(503, "Too many large requests at once: try again in some seconds.")
                        if not message.get("more_body", False):
                            break
            except TimeoutError:
                raise RefusedError(408, f"The body did not come within {BODY_SECONDS:.0f} seconds.") from None
            yield body
        finally:
            self._held -= len(body)

    def _check(self, route: Route, match: re.Match[str], body: bytearray) -> None:
        """Refuse what Gradio would fail on. Raises RefusedError."""
        name = match.groupdict().get("name")
        if name is not None and name not in self._endpoints:
            raise RefusedError(404, f"There is no such endpoint; choose {', '.join(self._endpoints)}.")
        if not body:
            return
        try:
            content = orjson.loads(body)  # which refuses NaN, infinite numbers and halves of characters
        except orjson.JSONDecodeError as error:
            raise RefusedError(422, f"The body must be JSON: {str(error).partition(': line')[0]}.") from None
        if not isinstance(content, dict):
            raise RefusedError(422, "The body must be a JSON object.")
        session = content.get("session_hash")
        if session is not None and not (isinstance(session, str) and re.fullmatch(WORD, session, re.ASCII)):
            raise RefusedError(422, "session_hash must be a word of at most 100 letters and digits.")
        if session is not None and is_call(session):
            raise RefusedError(422, "session_hash must not look like the name of an event.")
        if route.arguments:
            self._check_arguments(content, name)
        elif name is not None:
            self._check_named_arguments(content, self._endpoints[name])

    def _check_arguments(self, content: dict[str, Any], name: str | None) -> None:
        number, data = content.get("fn_index"), content.get("data")
        if not isinstance(data, list):
            raise RefusedError(422, "data must be the list of the arguments.")
        if content.get("batched"):
            raise RefusedError(422, "Events cannot be batched.")
        if name is not None:
            wanted = self._endpoints[name]
            if content.keys() != {"data"}:
                raise RefusedError(422, "The body must hold data, the list of the arguments, and nothing else.")
            if len(data) != len(wanted):
                raise RefusedError(422, f"data must have {len(wanted)} arguments: {', '.join(wanted) or 'none'}.")
        elif not isinstance(number, int) or self._events.get(number) != len(data):
            raise RefusedError(422, "fn_index is the number of no event that takes so many arguments.")

    def _check_named_arguments(self, content: dict[str, Any], wanted: Mapping[str, bool]) -> None:
        unknown = [name for name in content if name not in wanted]
        missing = [name for name, is_needed in wanted.items() if is_needed and name not in content]
        if unknown or missing:
            raise RefusedError(422, f"The body must hold these arguments by name: {', '.join(wanted) or 'none'}.")

    @contextmanager
    def _reading(self, scope: Scope, match: re.Match[str]) -> Iterator[None]:
        """Count a reader of a session. Raises RefusedError if there is nothing to read."""
        query = parse_qs(scope["query_string"].decode("latin-1"))
        session = match.groupdict().get("session") or query.get("session_hash", [""])[0]
        if not self._is_session(session):
            raise RefusedError(404, "There is no such event, or nobody has read it in time: ask again.")
        self.readers[session] += 1
        try:
            yield
        finally:
            self.readers[session] -= 1
            self.readers += Counter()  # forgets who is read no more


class Sender:
    """Sends an answer with HEADERS."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def __call__(self, message: Message) -> None:
        """See the ASGI specification."""
        if message["type"] == "http.response.start":
            ours = {name.encode(): value.encode() for name, value in HEADERS.items()}
            theirs = [pair for pair in message.get("headers", []) if pair[0].lower() not in ours]
            message = {**message, "headers": [*theirs, *ours.items()]}
        await self._send(message)

    async def refuse(self, refusal: RefusedError) -> None:
        """Send an answer that says why there is no other; its end is still to be sent."""
        body = orjson.dumps({"detail": str(refusal)})
        length = str(len(body)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", length), (b"connection", b"close")]
        await self({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await self({"type": "http.response.body", "body": body, "more_body": True})


def is_call(session: str) -> bool:
    """Tell whether a session is a call of the API: Gradio names it as its event, and no other is named so."""
    return re.fullmatch("[0-9a-f]{32}", session) is not None


def _once(body: bytearray, receive: Receive) -> Receive:
    """Return what gives a body that was read already, and then what else there is to receive."""
    unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return unread.pop() if unread else await receive()

    return next_message


async def _drain(receive: Receive) -> None:
    """Take the rest of a body that is refused: a connection that is closed before loses the answer in a reset."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
                pass
