"""The guard before Gradio, asked as ASGI asks it, with an application behind it that tells what came through."""

import asyncio
import json

import pytest
from loops import run_async

from charlm.web import guard as guard_module
from charlm.web.guard import CALL_BODY, EVENT_BODY, SECURITY_HEADERS, Guard

ENDPOINTS = {"generate": {"model": True, "prompt": False}, "models": {}}
EVENT_ID = "0123456789abcdef" * 2


class Behind:
    """An application that reads the whole body and answers with how many bytes it had."""

    def __init__(self):
        self.bodies = []
        self.paths = []

    async def __call__(self, scope, receive, send):
        self.paths.append(scope["path"])
        message = await receive()
        self.bodies.append(bytes(message["body"]))
        headers = [(b"content-type", b"text/plain"), (b"X-Content-Type-Options", b"theirs")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"behind"})


def make_guard(app, root_path=""):
    has_session = ("visitor", EVENT_ID).__contains__
    return Guard(app, ENDPOINTS, {4: 2}, {9: ["look_at"]}, has_session, root_path)


def ask(method, target, *chunks, app=None, guard=None, headers=(), ends=True):
    """Return the status, the headers and the body of an answer."""
    app = app or Behind()
    guard = guard or make_guard(app)
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in dict(headers).items()],
    }
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages += [{"type": "http.request", "body": b"", "more_body": False}] if ends else []
    sent = []

    async def receive():
        if messages:
            return messages.pop(0)
        if ends and sent and sent[-1]["type"] == "http.response.body":  # a client that has its answer hangs up
            return {"type": "http.disconnect"}
        return await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    run_async(guard(scope, receive, send))
    body = b"".join(message.get("body", b"") for message in sent[1:])
    assert not sent[-1].get("more_body", False)
    return sent[0]["status"], dict(sent[0]["headers"]), body


def detail(answer):
    return json.loads(answer[2])["detail"]


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/config",
        "/assets/index-1.js",
        "/static/fonts/a/b.woff2",
        "/gradio_api/info",
        "/gradio_api/heartbeat/abc123",
        "/gradio_api/queue/data?session_hash=visitor",
        f"/gradio_api/call/generate/{EVENT_ID}",
        f"/gradio_api/file=/tmp/gradio/{'a' * 64}/my-model.zip",
        f"/gradio_api/file=/tmp/gradio/{'a' * 64}/my-model.html",
    ],
)
def test_what_the_page_needs_goes_through(target):
    status, _, body = ask("GET", target)
    assert (status, body) == (200, b"behind")


@pytest.mark.parametrize(
    "target",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=../my-model.zip",
        f"/gradio_api/file=/tmp/gradio/{'a' * 64}/other.html",
        f"/gradio_api/file=/tmp/../etc/{'a' * 64}/my-model.zip",
        "/gradio_api/proxy=http://127.0.0.1:9/",
        "/gradio_api/upload_progress",
        "/gradio_api/monitoring",
        "/static/../app.py",
        "/assets/..",
        "/static/a//b",
        "/app.py",
        "/config\n",
        "/ｃonfig",
    ],
)
def test_nothing_else_does(target):
    app = Behind()
    answer = ask("GET", target, app=app)
    assert answer[0] == 404 and detail(answer) == "There is nothing at this address."
    assert app.bodies == []


@pytest.mark.parametrize("path", ["upload", "run/generate", "api/generate", "stream/a", "vibe-edit"])
def test_nothing_can_be_posted_to_the_routes_that_are_not_used(path):
    assert ask("POST", f"/gradio_api/{path}", b"x" * 100)[0] == 404


@pytest.mark.parametrize("root_path", ["/demo", "/a/demo", "https://example.com/demo"])
def test_behind_a_proxy_a_path_is_served_with_its_prefix_and_without(root_path):
    prefix = root_path.removeprefix("https://example.com")
    app = Behind()
    guard = make_guard(app, root_path)
    for target in (prefix, f"{prefix}/", f"{prefix}/config", "/config", f"{prefix}/gradio_api/info"):
        assert ask("GET", target, guard=guard)[0] == 200
    assert app.paths == ["/", "/", "/config", "/config", "/gradio_api/info"]
    for target in (f"{prefix}x/config", f"{prefix}/app.py", f"{prefix}{prefix}/config", f"{prefix}/static/../app.py"):
        assert ask("GET", target, guard=guard)[0] == 404


def test_another_method_is_told():
    answer = ask("DELETE", "/config")
    assert answer[0] == 405 and detail(answer) == "This address does not take DELETE."


def test_an_event_that_nobody_knows_is_not_waited_for():
    for target in (
        "/gradio_api/queue/data?session_hash=other",
        "/gradio_api/queue/data",
        "/gradio_api/call/generate/e",
    ):
        answer = ask("GET", target)
        assert answer[0] == 404 and detail(answer).startswith("There is no such event")


@pytest.mark.parametrize(
    ("path", "largest", "message"),
    [
        ("queue/join", EVENT_BODY, "This is more than the page takes (1 MB of text): use a part of it."),
        ("call/generate", CALL_BODY, "The body has more than the 256,000 bytes that are taken here."),
        ("mcp/", CALL_BODY, "The body has more than the 256,000 bytes that are taken here."),
        ("component_server/", CALL_BODY, "The body has more than the 256,000 bytes that are taken here."),
    ],
)
def test_a_body_that_is_too_large_is_refused_by_its_declared_size_and_by_its_real_one(path, largest, message):
    app = Behind()
    for chunks, headers in (
        ((), {"content-length": str(largest + 1)}),
        ((), {"content-length": "-1"}),
        ([b" " * 64_000] * (largest // 64_000 + 1), {}),
    ):
        answer = ask("POST", f"/gradio_api/{path}", *chunks, app=app, headers=headers)
        assert answer[0] == 413 and detail(answer) == message
    assert app.bodies == []


def test_a_body_comes_through_whole_however_it_was_cut():
    app = Behind()
    body = b'{"data": ["shakespeare-rnn", "' + b"x" * 200_000 + b'"]}'
    for size in (1_000, 64_000, len(body)):
        chunks = [body[start : start + size] for start in range(0, len(body), size)]
        assert ask("POST", "/gradio_api/call/generate", *chunks, app=app)[0] == 200
    assert app.bodies == [body] * 3


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(guard_module, "BODY_SECONDS", 0.05)
    monkeypatch.setattr(guard_module, "DRAIN_SECONDS", 0.05)
    answer = ask("POST", "/gradio_api/call/generate", b'{"da', ends=False)
    assert answer[0] == 408 and "did not come within" in detail(answer)


def test_a_failure_behind_the_guard_is_not_taken_for_a_slow_body():
    async def fails(scope, receive, send):
        raise TimeoutError("of its own")

    with pytest.raises(TimeoutError, match="of its own"):
        ask("GET", "/", app=fails)


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("call/none", b'{"data": []}', "There is no such endpoint; choose generate, models."),
        ("call/generate", b'{"data": [1]}', "data must have 2 arguments: model, prompt."),
        ("call/models", b'{"data": [1]}', "data must have 0 arguments: none."),
        ("call/generate", b'{"data": {"model": 1}}', "data must be the list of the arguments."),
        ("call/generate", b'{"data": [1, 2], "fn_index": 4}', "The body must hold data"),
        ("call/generate", b"[]", "The body must be a JSON object."),
        ("call/generate", b'{"data": [NaN, 1]}', "The body must be JSON"),
        ("call/generate", b'{"data": ["\\ud800", 1]}', "The body must be JSON"),
        ("call/generate", b'{"data": [' + b"[" * 5000, "The body must be JSON"),
        ("call/v2/generate", b'{"prompt": "a"}', "The body must hold these arguments by name: model, prompt."),
        ("call/v2/generate", b'{"model": "a", "x": 1}', "The body must hold these arguments by name"),
        ("queue/join", b'{"data": [1], "fn_index": 4}', "No event with this fn_index takes that many arguments."),
        ("queue/join", b'{"data": [1, 2], "fn_index": 5}', "No event with this fn_index takes that many arguments."),
        ("queue/join", b'{"data": [1, 2], "fn_index": 4, "batched": true}', "Events cannot be batched."),
        ("queue/join", b'{"data": [1, 2], "fn_index": 4, "session_hash": ["a"]}', "session_hash must be a word"),
        ("queue/join", f'{{"data": [1, 2], "session_hash": "{EVENT_ID}"}}'.encode(), "session_hash must not look like"),
    ],
)
def test_what_gradio_would_fail_on_is_refused_with_what_is_wrong(path, body, message):
    app = Behind()
    answer = ask("POST", f"/gradio_api/{path}", body, app=app)
    assert answer[0] in (404, 422) and detail(answer).startswith(message)
    assert app.bodies == []


def test_sound_requests_go_through():
    for path, body in {
        "call/generate": b'{"data": ["shakespeare-rnn", null]}',
        "call/v2/generate": b'{"model": "shakespeare-rnn"}',
        "call/models": b'{"data": []}',
        "queue/join": b'{"data": [1, {}], "fn_index": 4, "session_hash": "visitor", "event_data": null}',
    }.items():
        assert ask("POST", f"/gradio_api/{path}", body)[0] == 200


def test_every_answer_has_the_headers_once_refusals_too():
    for target in ("/", "/none"):
        _, headers, _ = ask("GET", target)
        lower = [name.lower() for name in headers]
        assert len(lower) == len(set(lower))
        assert {name: headers[name.encode()].decode() for name in SECURITY_HEADERS} == SECURITY_HEADERS
    policy = SECURITY_HEADERS["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'self' https://huggingface.co https://*.hf.space" in policy
    assert SECURITY_HEADERS["x-content-type-options"] == "nosniff"


def test_any_page_may_show_a_view_alone_in_a_frame_and_nothing_else():
    def policy(target, root_path=""):
        _, headers, _ = ask("GET", target, guard=make_guard(Behind(), root_path))
        return headers[b"content-security-policy"].decode()

    limited = SECURITY_HEADERS["content-security-policy"]
    for target in ("/?embed=write", "/?embed=learn&models=one", "/?a=one&embed=inside"):
        assert policy(target) == policy(f"/demo{target}", "/demo") == limited.partition("; frame-ancestors")[0]
    for target in ("/", "/?embed=train", "/?embed=", "/?embed=train&embed=write", "/config?embed=write"):
        assert policy(target) == limited


def test_who_comes_when_the_server_is_about_to_end_is_refused_and_who_reads_may_go_on():
    guard = make_guard(Behind())
    guard.is_closing = True
    answer = ask("POST", "/gradio_api/call/models", b'{"data": []}', guard=guard)
    assert answer[0] == 503 and "about to end" in detail(answer)
    assert ask("GET", f"/gradio_api/call/generate/{EVENT_ID}", guard=guard)[0] == 200


def test_readers_are_counted_while_they_read():
    counted = []

    async def behind(scope, receive, send):
        counted.append(dict(guard.readers))
        await Behind()(scope, receive, send)

    guard = make_guard(behind)
    ask("GET", "/gradio_api/queue/data?session_hash=visitor", guard=guard)
    assert counted == [{"visitor": 1}] and not guard.readers


def test_too_many_large_bodies_at_once_are_told_so(monkeypatch):
    monkeypatch.setattr(guard_module, "MOST_BODY_BYTES", 5_000)
    answer = ask("POST", "/gradio_api/call/generate", b"x" * 5_001)
    assert answer[0] == 503 and "Too many large requests" in detail(answer)


FUNCTION_CALL = {"component_id": 9, "fn_name": "look_at", "session_hash": "visitor", "data": ["a", 1]}
JSON_HEADER = {"content-type": "application/json"}


def call_function(guard, headers=JSON_HEADER, **change):
    body = json.dumps(FUNCTION_CALL | change).encode()
    return ask("POST", "/gradio_api/component_server/", body, guard=guard, headers=headers)


def test_a_function_of_a_component_can_be_called_by_its_name():
    app = Behind()
    assert call_function(make_guard(app))[0] == 200
    assert json.loads(app.bodies[0]) == FUNCTION_CALL


@pytest.mark.parametrize(
    "change",
    [
        {"component_id": 8},
        {"component_id": "9"},
        {"component_id": None},
        {"fn_name": "get_config"},
        {"fn_name": "__init__"},
        {"fn_name": ["look_at"]},
        {"fn_name": {}},
        {"session_hash": None},
        {"session_hash": 5},
        {"session_hash": EVENT_ID},
        {"trigger_id": 1},
    ],
    ids=str,
)
def test_nothing_else_of_a_component_can(change):
    app = Behind()
    assert call_function(make_guard(app), **change)[0] == 422
    assert app.bodies == []


@pytest.mark.parametrize("headers", [{}, {"content-type": "multipart/form-data; boundary=x"}])
def test_a_call_of_a_function_carries_no_files(headers):
    answer = call_function(make_guard(Behind()), headers)
    assert answer[0] == 415 and detail(answer) == "The content type must be application/json."
    assert ask("POST", "/gradio_api/component_server", headers=JSON_HEADER)[0] == 422  # an empty body


class Waiting:
    """An application that answers a request when `goes_on` is set."""

    def __init__(self):
        self.arrived = self.answered = 0
        self.goes_on = asyncio.Event()

    async def __call__(self, scope, receive, send):
        self.arrived += 1
        await self.goes_on.wait()
        self.answered += 1
        await Behind()(scope, receive, send)


async def post(guard, path, body, *, ends=True):
    """Post a body, with an end or without; return the status of the answer and what it says."""
    messages = [{"type": "http.request", "body": body, "more_body": not ends}]
    sent = []

    async def receive():
        return messages.pop() if messages else await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    path = f"/gradio_api/{path}"
    await guard(
        {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}, receive, send
    )
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]).decode()


async def let_run():
    """Let all tasks run until each of them waits."""
    for _ in range(20):
        await asyncio.sleep(0)


SMALL_EVENT = b'{"fn_index": 4, "data": [1, 2], "session_hash": "visitor"}'


@pytest.mark.parametrize(
    ("path", "body", "most"),
    [
        ("component_server/", json.dumps(FUNCTION_CALL).encode(), guard_module.MOST_FUNCTION_CALLS),
        ("mcp/", b'{"method": "tools/call"}', guard_module.MOST_TOOL_CALLS),
    ],
)
def test_more_calls_than_run_at_a_time_are_told_so_and_what_else_is_asked_goes_through(path, body, most):
    async def work():
        app = Waiting()
        guard = make_guard(app)
        calls = [asyncio.create_task(post(guard, path, body)) for _ in range(most)]
        await let_run()
        assert app.arrived == most
        assert await post(guard, path, body) == (
            503,
            '{"detail":"Too many requests at once: try again in some seconds."}',
        )
        other = asyncio.create_task(post(guard, "queue/join", SMALL_EVENT))
        await let_run()
        assert app.arrived == most + 1
        app.goes_on.set()
        assert [status for status, _ in await asyncio.gather(*calls, other)] == [200] * (most + 1)
        assert await post(guard, path, body) == (200, "behind")  # those that have ended do not count

    run_async(work())


def test_a_tool_is_called_only_where_its_call_is_counted_until_it_ends():
    for method, path in (("GET", "mcp/sse"), ("POST", "mcp/messages/"), ("POST", "mcp/sse"), ("POST", "mcp/schema")):
        app = Behind()
        assert ask(method, f"/gradio_api/{path}", app=app)[0] in (404, 405)
        assert app.bodies == []
    for path in ("mcp", "mcp/", "mcp/http", "mcp/http/"):
        assert ask("POST", f"/gradio_api/{path}", b"{}")[0] == 200
    for path in ("mcp", "mcp/", "mcp/schema"):
        assert ask("GET", f"/gradio_api/{path}")[0] == 200


def test_the_body_of_a_call_that_waits_for_its_result_does_not_count_among_those_that_arrive(monkeypatch):
    monkeypatch.setattr(guard_module, "MOST_BODY_BYTES", 10_000)
    large_event = SMALL_EVENT + b" " * 5_000

    async def work():
        app = Waiting()
        guard = make_guard(app)
        call = asyncio.create_task(post(guard, "mcp/", b"{}" + b" " * 9_000))
        other = asyncio.create_task(post(guard, "queue/join", large_event))
        await let_run()
        assert app.arrived == 2
        # Gradio's own routes hold a body for as long as they take to answer: those that are not counted here still are
        assert (await post(guard, "queue/join", large_event))[0] == 503
        app.goes_on.set()
        await asyncio.gather(call, other)

    run_async(work())


def test_large_bodies_that_come_slowly_do_not_keep_small_ones_out(monkeypatch):
    monkeypatch.setattr(guard_module, "MOST_BODY_BYTES", 10_000)

    async def work():
        guard = make_guard(Behind())
        slow = asyncio.create_task(post(guard, "queue/join", SMALL_EVENT + b" " * 9_900, ends=False))
        await let_run()
        large = SMALL_EVENT.ljust(guard_module.SMALL_BODY + 1)
        assert (await post(guard, "queue/join", large))[0] == 503
        assert (await post(guard, "queue/join", large[:-1]))[0] == 200
        slow.cancel()
        await asyncio.wait([slow])
        assert (await post(guard, "queue/join", large))[0] == 200

    run_async(work())
