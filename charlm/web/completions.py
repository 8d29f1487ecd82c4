"""The API in the form of OpenAI's, `/v1/completions` and `/v1/models`: an ASGI middleware between the guard and Gradio.

`charlm.web.answers.completions` says what is answered. Here is who is served when: a request waits until there are as
many free slots as it asks for texts, the texts are written on a thread, and a client that disconnects ends them.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from threading import Event
from typing import Any

import orjson

from charlm.errors import CharLMError
from charlm.web.answers.completions import (
    PATH,
    CompletionError,
    CompletionRequest,
    Json,
    describe_model,
    error_object,
    event,
    list_models,
    read_request,
    write_body,
)
from charlm.web.guard import App, Receive, Scope, Send
from charlm.web.models import ModelRegistry

MOST_STREAMS = 32  # texts that are written at the same time
MOST_WAITING = 64  # requests that wait until theirs can be

# of an answer, by whether it is a stream: nginx would hold events back until it has some kilobytes
HEADERS = {
    False: [(b"content-type", b"application/json")],
    True: [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")],
}


class CompletionsApi:
    """An ASGI middleware that answers the requests below PATH and passes on all others."""

    def __init__(self, app: App, registry: ModelRegistry) -> None:
        self._app, self._registry = app, registry
        self._slots = StreamSlots(MOST_STREAMS, MOST_WAITING)
        self._threads = ThreadPoolExecutor(MOST_STREAMS, "completion")
        self._created = int(time.time())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification. The guard lets through only what `_answer` knows."""
        if scope["type"] != "http" or not scope["path"].startswith(PATH):
            await self._app(scope, receive, send)
            return
        try:
            await self._answer(scope["path"].removeprefix(PATH).removesuffix("/"), receive, send)
        except CompletionError as error:
            body = error_object(error.status, str(error), error.param, error.code)
            await _send_json(send, error.status, body)

    async def _answer(self, name: str, receive: Receive, send: Send) -> None:
        if name == "models":
            await _send_json(send, 200, list_models(self._registry, self._created))
        elif name.startswith("models/"):
            await _send_json(send, 200, describe_model(self._registry, name.removeprefix("models/"), self._created))
        else:
            await self._complete(receive, send)

    async def _complete(self, receive: Receive, send: Send) -> None:
        """Write texts until they are complete, or the client disconnects."""
        request = read_request(await _receive_json(receive), self._registry)
        writing = asyncio.create_task(self._write(request, send))
        disconnecting = asyncio.create_task(_wait_for_disconnect(receive))
        try:
            await asyncio.wait({writing, disconnecting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (writing, disconnecting):
                task.cancel()
            await asyncio.wait({writing, disconnecting})
        if not writing.cancelled():
            writing.result()

    async def _write(self, request: CompletionRequest, send: Send) -> None:
        """Send the answer to a request as soon as there are slots for its texts."""
        answer = Answer(send, request.stream)
        async with self._slots.take(request.texts):
            try:
                async with aclosing(self._on_thread(request)) as pieces:
                    async for piece in pieces:
                        await answer.add(piece)
                await answer.end()
            except CharLMError as error:
                await answer.fail(str(error))
            except Exception:
                await answer.fail("The server failed; its log says how.")
                raise

    async def _on_thread(self, request: CompletionRequest) -> AsyncGenerator[bytes]:
        """Yield what `write_body` yields on a thread, which has ended when this is closed."""
        loop, is_closed = asyncio.get_running_loop(), Event()
        pieces = asyncio.Queue[bytes | None]()

        def write() -> None:
            try:
                for piece in write_body(request):
                    if is_closed.is_set():
                        return
                    loop.call_soon_threadsafe(pieces.put_nowait, piece)
            finally:
                loop.call_soon_threadsafe(pieces.put_nowait, None)

        writing = loop.run_in_executor(self._threads, write)
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            await writing  # raises what has failed
        finally:
            is_closed.set()
            await asyncio.wait({writing})


class Answer:
    """The answer to a request for completions: server-sent events while texts are written, or one JSON object."""

    def __init__(self, send: Send, is_stream: bool) -> None:
        self._send, self._is_stream = send, is_stream
        self._has_begun = False

    async def add(self, piece: bytes) -> None:
        """Send a piece of the body; nothing if it is empty."""
        if not piece:
            return
        if not self._has_begun:
            self._has_begun = True
            await self._send({"type": "http.response.start", "status": 200, "headers": HEADERS[self._is_stream]})
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def end(self) -> None:
        """Send the end of the body."""
        await self._send({"type": "http.response.body"})

    async def fail(self, message: str) -> None:
        """Send an error, as an event if others were sent already."""
        error = error_object(500, message)
        if not self._has_begun:
            await _send_json(self._send, 500, error)
            return
        await self.add(event(error))
        await self.end()


class StreamSlots:
    """Slots for texts that are written at the same time; requests that wait for theirs get them in turn."""

    def __init__(self, streams: int, most_waiting: int) -> None:
        self._free, self._turn = asyncio.Semaphore(streams), asyncio.Lock()
        self._waiting, self._most_waiting = 0, most_waiting

    @asynccontextmanager
    async def take(self, count: int) -> AsyncIterator[None]:
        """Take as many slots as there are texts, while the block runs. Raises CompletionError if too many wait."""
        if self._waiting >= self._most_waiting:
            raise CompletionError("Too many requests at once: try again in some seconds.", status=503)
        taken = 0
        try:
            self._waiting += 1
            try:
                async with self._turn:  # two requests that each had half of their slots would wait for each other
                    while taken < count:
                        await self._free.acquire()
                        taken += 1
            finally:
                self._waiting -= 1
            yield
        finally:
            for _ in range(taken):
                self._free.release()


async def _receive_json(receive: Receive) -> Any:
    """Return what the JSON of a body says. Raises CompletionError if it is none."""
    body, more_body = bytearray(), True
    while more_body:
        message = await receive()
        body += message.get("body", b"")
        more_body = message.get("more_body", False)
    try:
        return orjson.loads(body)  # which refuses NaN, infinite numbers, lone surrogates and very deep nesting
    except orjson.JSONDecodeError as error:
        raise CompletionError(f"The body must be JSON: {str(error).partition(': line')[0]}.") from None


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_json(send: Send, status: int, content: Json) -> None:
    body = orjson.dumps(content)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
