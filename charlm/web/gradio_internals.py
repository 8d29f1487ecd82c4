"""Everything that the page uses of Gradio and uvicorn although they do not document it, each with the reason.

`requirements.txt` and `pyproject.toml` keep Gradio below the next minor version, since any of this may change with it.
`tests/charlm/web/test_gradio_internals.py` has a test for each name, so that an upgrade fails there first.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from inspect import Parameter, signature
from typing import Any

import gradio as gr
import h11
from fastapi import FastAPI
from gradio import networking
from gradio.routes import App
from gradio.state_holder import SessionState, StateHolder
from uvicorn.protocols.http.h11_impl import H11Protocol

from charlm.web.guard import is_api_call

# Seconds between two looks of Gradio's queue for a new event, and for news of progress, which no event here tells. By
# default it looks a thousand times a second, which takes 6 % of a core while nobody visits the page.
EVENT_SECONDS, PROGRESS_SECONDS = 0.01, 0.1


def mount_page(page: gr.Blocks, *, threads: int, sessions: int, **settings: Any) -> FastAPI:
    """Return the ASGI application of a page, for a server of ours.

    threads: on which handlers run. sessions: how many copies of the page's structure Gradio keeps. settings: of
    `gr.mount_gradio_app`.

    `gr.Blocks.launch` would set these attributes, but it also starts a server before a guard can stand in front of it,
    and asks that server for a page, through a proxy if the environment names one.
    """
    page.max_threads = page._queue.max_thread_count = threads
    page.state_session_capacity = sessions
    page._queue.sleep_when_free, page._queue.progress_update_sleep_when_free = EVENT_SECONDS, PROGRESS_SECONDS
    app: FastAPI = gr.mount_gradio_app(FastAPI(openapi_url=None), page, path="/", **settings)
    (inner,) = [mounted for route in app.routes if isinstance(mounted := getattr(route, "app", None), App)]
    inner.state_holder = SharedApiState(page)
    inner.iterators = EventIterators()
    page.app = page.server_app = inner  # the queue and `gr.Blocks.close` look for it there
    return app


def public_endpoints(page: gr.Blocks) -> dict[str, dict[str, bool]]:
    """Return the API's endpoints by name, each with its arguments and whether an argument is required."""
    return {
        str(event.api_name): {
            name: argument.default is Parameter.empty for name, argument in signature(event.fn).parameters.items()
        }
        for event in page.fns.values()
        if event.api_visibility == "public" and event.fn is not None
    }


def page_events(page: gr.Blocks) -> Mapping[int, int]:
    """Return the numbers of the events that the page may send, each with the number of its arguments."""
    return {number: len(event.inputs) for number, event in page.fns.items() if event.fn is not None}


def component_functions(page: gr.Blocks) -> dict[int, list[str]]:
    """Return the numbers of the components whose scripts can call functions of ours, each with the names of these."""
    functions = {number: block.server_fns for number, block in page.blocks.items() if isinstance(block, gr.HTML)}
    return {number: [function.__name__ for function in own] for number, own in functions.items() if own}


class EventQueue:
    """Gradio's queue of events, seen by session.

    Gradio ends an event when its reader disconnects, but has no way to end one whose reader never came.
    """

    def __init__(self, page: gr.Blocks) -> None:
        self._queue = page._queue

    def has_session(self, session: str) -> bool:
        """Tell whether there is an event of that session, or one whose results were not read yet."""
        return session in self._queue.pending_messages_per_session

    def sessions(self) -> list[str]:
        """Return the sessions for which `has_session` is true."""
        return list(self._queue.pending_messages_per_session)

    def events_of(self, session: str) -> frozenset[str]:
        """Return the events of a session whose results were not all read yet; none if it is idle."""
        return frozenset(self._queue.pending_event_ids_session.get(session, ()))

    def has_ended(self, session: str) -> bool:
        """Tell whether all events of a session have run to their end."""
        ids = self._queue.pending_event_ids_session.get(session, set())
        return bool(ids) and self._queue.event_ids_to_events.keys().isdisjoint(ids)

    async def drop(self, session: str) -> None:
        """End the events of a session and delete their results."""
        await self._queue.clean_events(session_hash=session)
        self._queue.pending_messages_per_session.pop(session, None)
        self._queue.pending_event_ids_session.pop(session, None)


def stop_page(page: gr.Blocks) -> None:
    """Start no more events, and end the responses that Gradio would keep open for as long as a browser tab is."""
    page._queue.close()  # type: ignore[no-untyped-call]
    page.is_running = False
    page.app.stop_event.set()


class EventIterators(dict[str, AsyncIterator[Any]]):
    """The generators of Gradio's events that are running, by the event's id.

    An event may be ended twice, by itself and by its cancellation. Gradio looks for its generator, waits for a lock and
    then deletes it, so the second end finds it no more: the cancellation was answered with 500.
    """

    def __delitem__(self, event: str) -> None:
        """Delete the generator of an event, if it is still there."""
        self.pop(event, None)


class SharedApiState(StateHolder):
    """Gradio's state of each session, with a single one for all calls of the API.

    The state of a session is a copy of the page's structure: 10 ms and 200 KB. Gradio makes one for every call of the
    API, as if it were a visitor of its own, but calls change nothing in it.
    """

    def __init__(self, page: gr.Blocks) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.set_blocks(page)
        self._of_api = SessionState(page)

    def __getitem__(self, session_id: str) -> SessionState:
        """Return the state of a session."""
        return self._of_api if is_api_call(session_id) else super().__getitem__(session_id)


class TimeoutProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol with two timeouts: for the request head and for a client that stops reading.

    uvicorn has a timeout only for connections that are idle between two requests.
    """

    head_seconds = 10.0
    send_seconds = 15.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        self._timers: dict[str, asyncio.TimerHandle] = {}
        super().connection_made(transport)
        self._time_head()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        super().data_received(data)
        self._time_head()

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        super().pause_writing()
        self._start_timer("send", self.send_seconds)

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        super().resume_writing()
        self._stop_timer("send")

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        for name in list(self._timers):
            self._stop_timer(name)
        super().connection_lost(exc)

    def _time_head(self) -> None:
        if self.conn.their_state is h11.IDLE:
            self._start_timer("head", self.head_seconds)
        else:
            self._stop_timer("head")

    def _start_timer(self, name: str, seconds: float) -> None:
        if name not in self._timers:
            self._timers[name] = self.loop.call_later(seconds, self.transport.abort)

    def _stop_timer(self, name: str) -> None:
        if name in self._timers:
            self._timers.pop(name).cancel()


def report_zero_gpu_start() -> None:
    """Call `gr.Blocks.launch` once, because the package `spaces` reports the start of a ZeroGPU Space from there.

    The page that is launched is empty and marked as running, so that Gradio starts no server for it.
    """
    with gr.Blocks(analytics_enabled=False) as empty:
        pass
    empty.is_running, empty.is_colab = True, False
    empty.local_url = "http://127.0.0.1"
    empty.launch(prevent_thread_lock=True, quiet=True, share=False, ssr_mode=False, mcp_server=False, _frontend=False)


def open_share_link(host: str, port: int) -> str:
    """Return the address of a public link to a server on this machine, through Gradio's tunnel.

    Raises what the tunnel's set-up raises, of any kind: it downloads a program and asks a server of Gradio's.
    """
    address = networking.setup_tunnel(
        local_host=host,
        local_port=port,
        share_token=secrets.token_urlsafe(32),
        share_server_address=None,
        share_server_tls_certificate=None,
    )
    return address.replace("http://", "https://", 1)
