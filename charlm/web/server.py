"""The server of the page: uvicorn with the guard in front of Gradio, from the first connection to an orderly end."""

import asyncio
import errno
import socket
import sys
import time
from threading import Thread
from types import FrameType

import gradio as gr
import uvicorn

from charlm.errors import RequestError
from charlm.messages import printable
from charlm.web.completions import CompletionsApi
from charlm.web.components import SCRIPT, SPACE, STYLE
from charlm.web.gradio_internals import (
    EventQueue,
    TimeoutProtocol,
    component_functions,
    mount_page,
    open_share_link,
    page_events,
    public_endpoints,
    report_zero_gpu_start,
    stop_page,
)
from charlm.web.guard import Guard
from charlm.web.models import ModelRegistry
from charlm.zero_gpu import on_zero_gpu

SWEEP_SECONDS = 0.5  # between two looks for events without a reader
# An event without a reader is ended after UNREAD_SECONDS; a phone in a tunnel may need that long to begin to read.
# Results that nobody reads are kept for FORGOTTEN_SECONDS.
UNREAD_SECONDS, FORGOTTEN_SECONDS = 15.0, 30.0
# More unread events than there can be streams are a flood: they are ended sooner, since results take memory.
MOST_UNREAD, FLOOD_SECONDS = 64, 3.0
CLOSING_SECONDS = 6.5  # in which texts that are being written may end once the process is told to end
SENDING_SECONDS = 2  # in which clients may then receive what was written
THREADS = 100  # more than there can be streams, since each waits on one
SESSIONS = 200  # of which Gradio keeps a copy of the page's structure, some 200 KB each

# Behind a path prefix, the icon at the root of the site is not the page's.
ICON = '<link rel="icon" href="favicon.ico">'

PUBLIC_LINK_WARNING = "anyone who knows this address can use the page, and this computer's processor, until it ends"


def serve(
    page: gr.Blocks,
    registry: ModelRegistry,
    theme: gr.themes.Base,
    host: str,
    port: int,
    *,
    root_path: str = "",
    share: bool = False,
) -> None:
    """Serve the page of a registry, and its API in the form of OpenAI's, until the process gets SIGTERM or Ctrl-C.

    root_path: under which a proxy offers the page, as `serve.read_root_path` returns it.
    share: whether to open a public link through Gradio's tunnel as well.
    Raises RequestError if the host or the port cannot be had.
    """
    listener = listen(host, port)
    app = mount_page(
        page,
        threads=THREADS,
        sessions=SESSIONS,
        root_path=root_path,
        theme=theme,
        head=ICON + SPACE + STYLE + SCRIPT,
        footer_links=["api"],
        run_history=False,
        enable_monitoring=False,
        show_error=False,
        pwa=False,
        mcp_server=True,
        ssr_mode=False,  # Gradio would put a Node server in front of the guard
    )
    events = EventQueue(page)
    api = CompletionsApi(app, registry)
    guard = Guard(
        api, public_endpoints(page), page_events(page), component_functions(page), events.has_session, root_path
    )
    if on_zero_gpu():
        report_zero_gpu_start()
    PageServer(page, guard, events, host, port, share=share).run([listener])


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address. Raises RequestError, with what to do instead, if that cannot be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError):
        raise RequestError(f"there is no host {host!r} on this computer; choose another --host") from None
    listener = socket.socket(family, kind, protocol)
    try:
        if sys.platform != "win32":  # there it would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(socket.SOMAXCONN)  # now, so that a port that is in use is noticed before models are mounted
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise RequestError(f"{host} is not an address of this computer; choose another --host") from None
        raise RequestError(f"cannot serve on port {port} of {host} ({error.strerror}); choose another --port") from None
    return listener


def unread_seconds(unread: int, *, has_ended: bool) -> float:
    """Return for how long an event, or its results if it has ended, may go unread while `unread` sessions do."""
    if unread > MOST_UNREAD:
        return FLOOD_SECONDS
    return FORGOTTEN_SECONDS if has_ended else UNREAD_SECONDS


class PageServer(uvicorn.Server):
    """uvicorn's server, which also ends events that nobody reads, and ends in order.

    At the first signal the guard refuses new requests, and texts that are being written may end; then connections are
    closed. At the second, connections are closed at once.
    """

    def __init__(
        self, page: gr.Blocks, guard: Guard, events: EventQueue, host: str, port: int, *, share: bool = False
    ) -> None:
        config = uvicorn.Config(
            guard,
            host,
            port,
            http=TimeoutProtocol,
            ws="none",
            lifespan="on",
            workers=1,
            log_level="warning",
            timeout_graceful_shutdown=SENDING_SECONDS,
        )
        super().__init__(config)
        self._page, self._guard, self._events, self._share = page, guard, events, share
        self._deadline = 0.0
        page.server = self  # type: ignore[assignment]  # the package `spaces` asks it for its port

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve, and say where."""
        await super().startup(sockets)
        self._sweeper = asyncio.create_task(self._end_unread_events())
        config = self.config
        host = f"[{config.host}]" if ":" in config.host else config.host
        print(f"* Running on local URL:  http://{host}:{config.port}", flush=True)
        if self._share:
            Thread(target=self._open_public_link, daemon=True).start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal that tells the process to end."""
        if self._guard.is_closing:
            self.should_exit = self.force_exit = True
        self._guard.is_closing = True
        self._deadline = time.monotonic() + CLOSING_SECONDS

    async def on_tick(self, counter: int) -> bool:
        """Tell, ten times a second, whether it is time to close all connections."""
        if self._guard.is_closing and (not self._guard.readers or time.monotonic() > self._deadline):
            self.should_exit = True
        if self.should_exit:
            stop_page(self._page)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close all connections; those whose clients do not take what was written, after SENDING_SECONDS."""
        self._sweeper.cancel()
        await super().shutdown(sockets)

    async def _end_unread_events(self) -> None:
        """End, again and again, the events that nobody reads, and delete results that nobody read."""
        # by session and its events: those that were read between two looks are not those that are unread now
        unread_since = dict[tuple[str, frozenset[str]], float]()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = time.monotonic()
            unread = [session for session in self._events.sessions() if session not in self._guard.readers]
            states = [(session, self._events.events_of(session)) for session in unread]
            unread_since = {state: unread_since.get(state, now) for state in states}
            for (session, events), since in unread_since.items():
                is_due = now - since > unread_seconds(len(unread), has_ended=self._events.has_ended(session))
                if is_due and events == self._events.events_of(session):
                    await self._events.drop(session)

    def _open_public_link(self) -> None:
        try:
            link = open_share_link(self.config.host, self.config.port)
        except Exception as error:  # of any kind: a network, a download, a program that does not start
            reason = printable(str(error) or type(error).__name__)
            print(f"warning: no public link ({reason}); the page is served here only", file=sys.stderr)
            return
        print(f"* Running on public URL: {link}", flush=True)
        print(f"warning: {PUBLIC_LINK_WARNING}", file=sys.stderr)
