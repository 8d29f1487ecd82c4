"""What Gradio and uvicorn do not document: a test for each name in use, which fails when an upgrade moves it."""

import asyncio
import inspect
from types import SimpleNamespace

import gradio as gr
import pytest
import uvicorn
from gradio import networking, queueing, routes
from gradio.routes import App
from loops import run_async

from charlm.web import gradio_internals
from charlm.web.gradio_internals import (
    EventQueue,
    SharedApiState,
    TimeoutProtocol,
    component_functions,
    mount_page,
    open_share_link,
    page_events,
    public_endpoints,
    report_zero_gpu_start,
    stop_page,
)


def greet(name: str, times: int = 1) -> str:
    return name * times


def in_loop(build, *args, **kwargs):
    """Call a function inside of an event loop: outside of one, Gradio makes loops that nobody closes."""

    async def call():
        return build(*args, **kwargs)

    return run_async(call())


def build_page():
    with gr.Blocks(analytics_enabled=False) as page:
        box = gr.Textbox()
        box.change(str.upper, [box], box, api_visibility="private")
        gr.api(greet, api_name="greet")
        page.queue(max_size=5, default_concurrency_limit=3)
    return page


@pytest.fixture
def page():
    return in_loop(build_page)


def test_a_mounted_page_has_its_threads_its_sessions_and_one_state_for_the_api(page):
    outer = in_loop(mount_page, page, threads=7, sessions=5, show_error=False, ssr_mode=False, mcp_server=False)
    assert isinstance(page.app, App) and page.app in [getattr(route, "app", None) for route in outer.routes]
    assert page.app.get_blocks() is page
    assert page.max_threads == 7 and page._queue.max_thread_count == 7
    states = page.app.state_holder
    assert isinstance(states, SharedApiState) and states.capacity == 5
    assert states["0" * 32] is states["f" * 32] and "0" * 32 not in states
    assert states["visitor"] is states["visitor"] is not states["other"]
    assert "visitor" in states


def test_the_queue_of_a_page_that_nobody_visits_looks_for_events_a_hundred_times_a_second_at_most(page, monkeypatch):
    pauses, sleep = [], asyncio.sleep

    async def pause(seconds):
        pauses.append(seconds)
        await sleep(0)

    async def idle():
        mount_page(page, threads=7, sessions=5, show_error=False, ssr_mode=False, mcp_server=False)
        queue = page._queue
        with monkeypatch.context() as patch:
            patch.setattr(queueing.asyncio, "sleep", pause)
            tasks = [asyncio.create_task(work()) for work in (queue.start_processing, queue.start_progress_updates)]
            while len(pauses) < 10:
                await sleep(0)
        queue.stopped = True
        await asyncio.gather(*tasks)

    run_async(idle())
    assert min(pauses) >= 0.01


def test_the_public_endpoints_and_the_events_are_those_of_the_page(page):
    assert public_endpoints(page) == {"greet": {"name": True, "times": False}}
    assert sorted(page_events(page).values()) == [1, 2]


def test_the_functions_of_components_are_those_that_we_gave_them():
    def build():
        with gr.Blocks(analytics_enabled=False) as page:
            gr.HTML("")
            gr.FileExplorer()  # which has a function of Gradio's own, to list files
            gr.HTML("", js_on_load="", server_functions=[greet])
        return page

    page = in_loop(build)
    assert list(component_functions(page).values()) == [["greet"]]
    (number,) = component_functions(page)
    assert page.blocks[number].greet._is_server_fn


@pytest.mark.slow
def test_the_queue_tells_which_sessions_have_events_and_drops_them(page):
    async def use():
        events, queue = EventQueue(page), page._queue
        assert not events.has_session("visitor") and events.sessions() == []
        queue.pending_messages_per_session["visitor"] = queueing.AsyncQueue()
        queue.pending_event_ids_session["visitor"] = {"event"}
        queue.event_ids_to_events["event"] = SimpleNamespace(_id="event", session_hash="visitor")
        assert events.has_session("visitor") and events.sessions() == ["visitor"]
        assert not events.has_ended("visitor")
        assert events.events_of("visitor") == queue.pending_event_ids_session["visitor"] != events.events_of("other")
        del queue.event_ids_to_events["event"]
        assert events.has_ended("visitor") and not events.has_ended("other")
        await events.drop("visitor")
        assert events.sessions() == [] and "visitor" not in queue.pending_event_ids_session

    run_async(use())


def test_ending_the_events_of_a_session_is_something_that_gradio_can_do():
    assert list(inspect.signature(queueing.Queue.clean_events).parameters) == ["self", "session_hash", "event_id"]


def test_an_event_may_be_ended_twice_at_the_same_time(page):
    async def write():
        try:
            yield "a"
        finally:
            await asyncio.sleep(0)  # so that the second end begins before the first one is over

    async def end_twice():
        mount_page(page, threads=7, sessions=5, ssr_mode=False, mcp_server=False)
        page._queue.set_server_app(page.app)  # as Gradio does before the first event
        page.app.iterators["event"] = writing = write()
        await anext(writing)
        await asyncio.gather(*(page._queue.reset_iterators("event") for _ in range(2)))
        assert "event" not in page.app.iterators

    run_async(end_twice())
    assert "del app.iterators[body.event_id]" in inspect.getsource(routes.App.create_app)  # what a cancellation calls


def test_a_stopped_page_starts_no_event_and_closes_its_streams(page):
    in_loop(mount_page, page, threads=7, sessions=5, ssr_mode=False, mcp_server=False)
    page.run_startup_events = lambda: None
    page.is_running = True
    in_loop(stop_page, page)
    assert page._queue.stopped and not page.is_running and page.app.stop_event.is_set()


def test_the_protocol_with_timeouts_overrides_what_uvicorn_calls():
    protocol = uvicorn.protocols.http.h11_impl.H11Protocol
    for name in ("connection_made", "data_received", "pause_writing", "resume_writing", "connection_lost"):
        assert getattr(TimeoutProtocol, name) is not getattr(protocol, name)
    source = inspect.getsource(protocol)
    for attribute in ("self.conn = ", "self.transport: ", "self.loop = "):
        assert attribute in source


def test_the_server_can_be_told_when_to_end():
    for name in ("startup", "shutdown", "on_tick", "handle_exit"):
        assert callable(getattr(uvicorn.Server, name))
    assert "should_exit = await self.on_tick(counter)" in inspect.getsource(uvicorn.Server.main_loop)
    assert "self.handle_exit" in inspect.getsource(uvicorn.Server.capture_signals)


def test_the_package_for_zero_gpu_gets_its_call_and_no_server_is_started_for_it(monkeypatch):
    launch, calls = gr.Blocks.launch, []

    def reporting(*args, **kwargs):  # what the package `spaces` puts in the place of launch, until the first call
        calls.append("startup")
        gr.Blocks.launch = launch
        return gr.Blocks.launch(*args, **kwargs)

    monkeypatch.setattr(gr.Blocks, "launch", reporting)
    monkeypatch.setattr("gradio.http_server.start_server", lambda **_: pytest.fail("a server was started"))
    in_loop(report_zero_gpu_start)
    assert calls == ["startup"] and gr.Blocks.launch is launch


def test_a_public_link_leads_to_the_server(monkeypatch):
    asked = {}

    def setup_tunnel(**arguments):
        asked.update(arguments)
        return "http://abc.gradio.live"

    expected = list(inspect.signature(networking.setup_tunnel).parameters)
    monkeypatch.setattr(networking, "setup_tunnel", setup_tunnel)
    assert open_share_link("127.0.0.1", 7860) == "https://abc.gradio.live"
    assert list(asked) == expected
    assert (asked["local_host"], asked["local_port"]) == ("127.0.0.1", 7860)
    assert len(asked["share_token"]) >= 40


def test_nothing_else_of_gradio_that_begins_with_an_underscore_is_used():
    """Private names of other libraries stand in this module alone."""
    from browser import ROOT

    private = ("page._queue", "page._", "gr.Blocks._", "state_holder", "http_server", "custom_mount_path")
    here = inspect.getsourcefile(gradio_internals)
    for path in [ROOT / "app.py", *(ROOT / "charlm").rglob("*.py")]:
        if str(path) != here:
            text = path.read_text(encoding="utf-8")
            assert [name for name in private if name in text] == [], path
