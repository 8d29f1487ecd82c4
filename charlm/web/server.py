"""The server behind the page: it begins, goes on while people come and vanish, and ends in order."""

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import Parameter, signature
from threading import Event, Timer
from types import FrameType

import gradio as gr
import h11
from gradio.state_holder import SessionState, StateHolder
from uvicorn.protocols.http.h11_impl import H11Protocol

from charlm.web.components import SCRIPT, STYLE
from charlm.web.guard import Guard, is_call

HEAD_SECONDS = 10.0  # in which the first lines of a request have to come
SEND_SECONDS = 15.0  # in which a part of an answer has to be taken
SWEEP_SECONDS = 0.5
UNREAD_SECONDS, FORGOTTEN_SECONDS = 3.0, 30.0  # for which events go on, and what they gave waits, without a reader
CLOSING_SECONDS = 6.5  # in which texts that are being written may end
THREADS = 100  # more than there can be streams, since each waits on one
SENDING_SECONDS = 1.5  # in which whoever asked may take what was written
SESSIONS = 200  # of which Gradio keeps a copy of the page's structure, some 200 KB each


def serve(page: gr.Blocks, theme: gr.themes.Base, host: str, port: int) -> None:
    """Serve a page until the process is told to end. Raises OSError if the port cannot be had."""
    with _told_to_end() as end:
        page.launch(
            server_name=host,
            server_port=port,
            theme=theme,
            css=STYLE,
            head=SCRIPT,
            footer_links=["api"],
            run_history=False,
            enable_monitoring=False,
            mcp_server=True,
            state_session_capacity=SESSIONS,
            max_threads=THREADS,
            prevent_thread_lock=True,
        )
        page.app.state_holder = States(page, page.app.state_holder)
        config = page.server.config
        guard = Guard(
            config.loaded_app,
            *_events(page),
            page._queue.pending_messages_per_session.__contains__,
            lambda: _sweep(page, guard),
        )
        # uvicorn asks its settings at each connection; who was there before the guard meets it at their next request
        config.loaded_app, config.http_protocol_class, config.ws_protocol_class = guard, ImpatientProtocol, None
        for connection in list(page.server.server_state.connections):
            if isinstance(connection, H11Protocol):
                connection.app = guard
        end.wait()
        _close(page, guard)


def _events(page: gr.Blocks) -> tuple[dict[str, dict[str, bool]], dict[int, int]]:
    """Return what a Guard has to know of them: the endpoints of the API, and the events of the page."""
    endpoints = {
        str(event.api_name): {
            name: argument.default is Parameter.empty for name, argument in signature(event.fn).parameters.items()
        }
        for event in page.fns.values()
        if event.api_visibility == "public" and event.fn is not None
    }
    numbers = {number: len(event.inputs) for number, event in page.fns.items() if event.fn is not None}
    return endpoints, numbers


@contextmanager
def _told_to_end() -> Iterator[Event]:
    """Give what is set when the process is told to end; a second time, it ends at once."""
    end = Event()

    def tell(number: int, frame: FrameType | None) -> None:
        if end.is_set():
            raise KeyboardInterrupt
        end.set()

    before = {number: signal.signal(number, tell) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield end
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _close(page: gr.Blocks, guard: Guard) -> None:
    """Let nobody in, wait for texts that are being written, and cut those that take too long."""
    guard.is_closing = True
    deadline = time.monotonic() + CLOSING_SECONDS
    while guard.readers and time.monotonic() < deadline:
        time.sleep(0.02)

    late = Timer(SENDING_SECONDS, _cut, [page])
    late.daemon = True
    late.start()
    page.close(verbose=False)
    late.cancel()


def _cut(page: gr.Blocks) -> None:
    """Close all connections at once."""
    for connection in list(page.server.server_state.connections):
        connection.loop.call_soon_threadsafe(connection.transport.abort)


async def _sweep(page: gr.Blocks, guard: Guard) -> None:
    """End, again and again, the events of sessions that nobody reads, and forget what they gave.

    Gradio ends an event when its reader goes away, but not if none ever came.
    """
    queue, unread_since = page._queue, dict[str, float]()
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        unread = [session for session in queue.pending_messages_per_session if session not in guard.readers]
        unread_since = {session: unread_since.get(session, time.monotonic()) for session in unread}
        for session, since in unread_since.items():
            ids = queue.pending_event_ids_session.get(session, set())
            has_ended = queue.event_ids_to_events.keys().isdisjoint(ids)
            if time.monotonic() - since > (FORGOTTEN_SECONDS if has_ended and ids else UNREAD_SECONDS):
                await queue.clean_events(session_hash=session)
                queue.pending_messages_per_session.pop(session, None)
                queue.pending_event_ids_session.pop(session, None)


class States(StateHolder):
    """What Gradio keeps of each session, a copy of the page's structure; one for all calls of the API.

    A call would be a session of its own, a copy takes 10 ms and 200 KB, and calls change nothing in it.
    """

    def __init__(self, page: gr.Blocks, before: StateHolder) -> None:
        """before: what has kept them so far; who came that early goes on."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.session_data, self.time_last_used, self.lock = before.session_data, before.time_last_used, before.lock
        self.set_blocks(page)
        self._of_calls = SessionState(page)

    def __getitem__(self, session_id: str) -> SessionState:
        """Return the state of a session."""
        return self._of_calls if is_call(session_id) else super().__getitem__(session_id)


class ImpatientProtocol(H11Protocol):
    """HTTP with somebody who has to go on with what they ask, and to take what they are answered."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        self._patience: dict[str, asyncio.TimerHandle] = {}
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        super().data_received(data)
        self._expect_head()

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        super().pause_writing()
        self._wait_for("writing", SEND_SECONDS)

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        super().resume_writing()
        self._stop_waiting("writing")

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        for what in list(self._patience):
            self._stop_waiting(what)
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        if self.conn.their_state is h11.IDLE:
            self._wait_for("head", HEAD_SECONDS)
        else:
            self._stop_waiting("head")

    def _wait_for(self, what: str, seconds: float) -> None:
        if what not in self._patience:
            self._patience[what] = self.loop.call_later(seconds, self.transport.abort)

    def _stop_waiting(self, what: str) -> None:
        if what in self._patience:
            self._patience.pop(what).cancel()
