"""The API in OpenAI's form behind the guard: asked by the client library `openai`, and as ASGI asks it."""

import asyncio
import json
from contextlib import asynccontextmanager
from functools import partial

import httpx2
import pytest
from loops import run_async
from models import make_lm

from charlm.lm import CharLM
from charlm.web import completions as api_module
from charlm.web.answers.completions import FIELDS, CompletionError, write_body
from charlm.web.answers.write import LONGEST_TEXT, MOST_SAMPLES
from charlm.web.completions import CompletionsApi, StreamSlots
from charlm.web.guard import CALL_BODY, Guard
from charlm.web.models import ModelRegistry, ServedModel


async def gradio(scope, receive, send):
    """The application behind."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"gradio"})


def make_guard(lm=None, root_path=""):
    served = [ServedModel("small", lm or make_lm(), "folder"), ServedModel("ada/rnn", make_lm("rnn"), "hub")]
    api = CompletionsApi(gradio, ModelRegistry(served))
    return Guard(api, {}, {}, {}, lambda session: False, root_path)


@asynccontextmanager
async def connected(guard, path="/v1"):
    """The client library, which asks the guard without a network."""
    import openai  # here, because it takes as long as many tests, and each process would import it to collect them

    transport = httpx2.ASGITransport(guard, raise_app_exceptions=False)
    async with (
        httpx2.AsyncClient(transport=transport) as http,
        openai.AsyncOpenAI(api_key="none", base_url=f"http://page{path}", max_retries=0, http_client=http) as client,
    ):
        yield client


def ask(work, guard=None, path="/v1"):
    """Do work, an async function of a client."""

    async def connect():
        async with connected(guard or make_guard(), path) as client:
            return await work(client)

    return run_async(connect())


def complete(guard=None, path="/v1", **fields):
    return ask(lambda client: client.completions.create(**{"model": "small", "prompt": "a cab"} | fields), guard, path)


def refused(guard=None, **fields):
    """The error that the client raises."""
    import openai

    with pytest.raises(openai.APIStatusError) as caught:
        complete(guard, **fields)
    return caught.value


def test_the_client_lists_and_describes_the_models():
    async def list_and_describe(client):
        return [model.id async for model in client.models.list()], await client.models.retrieve("ada/rnn")

    names, described = ask(list_and_describe)
    assert names == ["small", "ada/rnn"]
    assert (described.id, described.object, described.owned_by) == ("ada/rnn", "model", "charlm")


def test_the_client_has_texts_written():
    answer = complete(prompt=["a cab", "bad€"], max_tokens=40, temperature=0.7, seed=7, n=2, stop=["ab"], user="me")
    lm = make_lm()
    expected = [lm.generate(prompt, 40, 0.7, seed=seed, stop="ab") for prompt in ("a cab", "bad") for seed in (7, 8)]
    assert [choice.text for choice in answer.choices] == expected
    assert [choice.seed for choice in answer.choices] == [7, 8, 7, 8]
    assert [choice.skipped for choice in answer.choices] == ["", "", "€", "€"]
    assert [choice.finish_reason for choice in answer.choices] == [
        "stop" if len(text) < 40 else "length" for text in expected
    ]
    assert answer.usage.total_tokens == 8 + sum(map(len, expected))


def test_the_client_streams_texts_and_is_told_how_many_characters():
    async def stream(client):
        settings = {"prompt": "a cab", "max_tokens": 60, "seed": 7, "n": 2, "logprobs": 5, "echo": True}
        options = {"stream": True, "stream_options": {"include_usage": True}}
        return [chunk async for chunk in await client.completions.create(model="small", **settings, **options)]

    chunks = ask(stream)
    lm = make_lm()
    for index in range(2):
        mine = [chunk.choices[0] for chunk in chunks if chunk.choices and chunk.choices[0].index == index]
        text = "a cab" + lm.generate("a cab", 60, 1.0, seed=7 + index)
        assert "".join(choice.text for choice in mine) == text
        assert mine[-1].finish_reason == "length" and all(choice.finish_reason is None for choice in mine[:-1])
        told = [log_prob for choice in mine for log_prob in choice.logprobs.token_logprobs]
        assert told[0] is None and told[1:] == pytest.approx(-lm.score(text), abs=1e-5)
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 120
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize(
    ("fields", "error", "param", "message"),
    [
        (
            {"model": "none"},
            "NotFoundError",
            "model",
            "there is no model 'none' here; choose one of small, ada/rnn",
        ),
        ({"n": 17}, "BadRequestError", "n", "n is 17; it must be from 1 to 16"),
        ({"prompt": [[1, 2]]}, "BadRequestError", "prompt", "prompt is [[1, 2]]; it must be a string or a list"),
        ({"stream": True, "stop": [""]}, "BadRequestError", "stop", "stop has ''; each stop string must be"),
        (
            {"extra_body": {"min_p": 1}},
            "BadRequestError",
            "min_p",
            "there is no argument 'min_p' here; ",
        ),
    ],
    ids=lambda value: repr(value)[:25],
)
def test_the_client_raises_what_is_wrong_with_a_request(fields, error, param, message):
    raised = refused(**fields)
    assert type(raised).__name__ == error and type(raised).__module__ == "openai"
    assert raised.body["param"] == param and raised.body["type"] == "invalid_request_error"
    assert raised.body["message"].startswith(message)


def test_a_model_that_diverged_is_an_error_of_the_server_streamed_or_not():
    import openai

    lm = make_lm()
    lm._weights["head.weight"][:] = 3e38
    for stream in (False, True):
        raised = refused(make_guard(lm), stream=stream)
        assert raised.status_code == 500 and raised.body["type"] == "server_error"
        assert raised.body["message"].endswith("after a training that diverged; use another model")

    async def read(client):
        async for _ in await client.completions.create(model="small", prompt="a", stream=True, echo=True):
            pass

    with pytest.raises(openai.APIError, match="after a training that diverged"):  # behind what was sent already
        ask(read, make_guard(lm))


def test_a_failure_of_ours_says_no_more_than_that(monkeypatch, caplog):
    def fail(*_, **__):
        raise ValueError("/home/ada/secret")

    monkeypatch.setattr(CharLM, "stream_scored", fail)
    raised = refused()
    assert raised.status_code == 500 and raised.body["message"] == "The server failed; its log says how."


def test_other_addresses_are_refused_in_openais_form():
    import openai

    async def chat(client):
        return await client.chat.completions.create(model="small", messages=[])

    with pytest.raises(openai.NotFoundError) as caught:
        ask(chat)
    assert caught.value.body["message"] == "There is nothing at this address; completions and models are offered."


def test_it_is_found_behind_a_path_prefix_whether_the_proxy_takes_it_off_or_not():
    guard = make_guard(root_path="/demo")
    for path in ("/demo/v1", "/v1"):
        assert complete(guard, path, seed=1).choices[0].text == make_lm().generate("a cab", 16, 1.0, seed=1)


def test_a_server_that_is_about_to_end_refuses_and_lets_texts_end(monkeypatch):
    monkeypatch.setattr(api_module, "write_body", partial(close_and_write, guard := make_guard()))
    assert len(complete(guard, max_tokens=50).choices[0].text) == 50
    assert not guard.readers
    raised = refused(guard)
    assert raised.status_code == 503 and raised.body["type"] == "server_error"
    assert "about to end" in raised.body["message"]


def close_and_write(guard, request):
    """Write texts while the server is told to end."""
    assert guard.readers  # which the server waits for
    guard.is_closing = True
    return write_body(request)


# As ASGI asks it


class Exchange:
    """A request, sent whole, and what was answered so far."""

    def __init__(self, guard, content, method="POST", path="/v1/completions"):
        self.sent = []
        self.left = asyncio.Event()
        self.changed = asyncio.Event()
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self._messages = [{"type": "http.request", "body": body, "more_body": False}]
        scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": []}
        self.task = asyncio.create_task(guard(scope, self._receive, self._send))

    async def _receive(self):
        if self._messages:
            return self._messages.pop()
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        self.sent.append(message)
        self.changed.set()

    async def begin(self):
        """Wait until something was answered."""
        await self.changed.wait()

    async def end(self):
        """Wait for the end; return status and body."""
        await self.task
        return self.sent[0]["status"], b"".join(message.get("body", b"") for message in self.sent[1:])


def exchange(guard, content, **options):
    async def connect():
        return await Exchange(guard, content, **options).end()

    return run_async(connect())


DEEP = b'{"model": ' + b"[" * 5000 + b"]" * 5000 + b"}"


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "The body must be JSON: "),
        (b"{", 400, "The body must be JSON: "),
        (b'{"model": "small", "temperature": NaN}', 400, "The body must be JSON: "),
        (b'{"model": "small", "temperature": Infinity}', 400, "The body must be JSON: "),
        (b'{"model": "small", "prompt": "\\ud800"}', 400, "The body must be JSON: "),
        (b'{"model": "\xff"}', 400, "The body must be JSON: "),
        (DEEP, 400, "The body must be JSON: "),
        (b'{"model": "small", "prompt": ' + b"[" * 900 + b"]" * 900 + b"}", 400, "prompt is [[[["),
        (b"[]", 400, "the body must be a JSON object"),
        (b'{"model": "small", "n": 1e308}', 400, "n is a huge number; it must be from 1 to 16"),
        (b'{"model": "small", "max_tokens": 1e3000}', 400, ""),
        (b'{"model": "small", "stop": [' + b'"a",' * 50_000 + b'"a"]}', 400, "stop must be at most 16 strings"),
        (b'{"model": "small", "prompt": [' + b'"",' * 50_000 + b'""]}', 400, "this asks for 50,001 texts"),
        (b'{"model": "small", "prompt": {"a": "b"}}', 400, "prompt is {'a': 'b'}; it must be a string"),
        (b'{"model": {"a": []}}', 400, "model is {'a': []}; it must be a string"),
        (b'{"' + b"a" * 200_000 + b'": 1}', 400, "there is no argument 'aaaa"),
        (b'{"model": "small", "session_hash": "../.."}', 400, "there is no argument 'session_hash'"),
        (b" " * (CALL_BODY + 1), 413, "The body has more than the 256,000 bytes"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_hostile_bodies_are_refused_in_one_short_message(body, status, message):
    answered, content = exchange(make_guard(), body)
    error = json.loads(content)["error"]
    assert answered == status and error["type"] == "invalid_request_error"
    assert error["message"].startswith(message) and len(error["message"]) < 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/completions", 405),
        ("POST", "/v1/models", 405),
        ("GET", "/v1/models/../../app.py", 404),
        ("GET", f"/v1/models/{'a' * 201}", 404),
        ("GET", "/v1/models/none", 404),
        ("GET", "/v1/", 404),
        ("GET", "/v1/files", 404),
        ("GET", "/v1/models/", 200),
        ("GET", "/v1", 404),
    ],
)
def test_only_completions_and_models_are_served(method, path, status):
    answered, content = exchange(make_guard(), b"", method=method, path=path)
    assert answered == status
    if path.startswith("/v1/") and status != 200:
        assert json.loads(content)["error"]["message"]


def test_all_else_goes_to_the_page():
    assert exchange(make_guard(), b"", method="GET", path="/") == (200, b"gradio")


def test_a_stream_is_server_sent_events_that_no_proxy_holds_back():
    async def connect():
        request = Exchange(make_guard(), {"model": "small", "prompt": "a", "stream": True, "seed": 1})
        status, body = await request.end()
        return status, dict(request.sent[0]["headers"]), body.decode()

    status, headers, body = run_async(connect())
    assert status == 200
    assert headers[b"content-type"] == b"text/event-stream" and headers[b"x-accel-buffering"] == b"no"
    assert b"content-security-policy" in headers
    *events, done, empty = body.split("\n\n")
    assert (done, empty) == ("data: [DONE]", "")
    texts = [json.loads(event.removeprefix("data: "))["choices"][0]["text"] for event in events]
    assert "".join(texts) == make_lm().generate("a", 16, 1.0, seed=1)


def make_endless(monkeypatch):
    """Let texts be so long that they end only with their reader."""
    monkeypatch.setattr("charlm.web.answers.completions.LONGEST_TEXT", 10**9)
    monkeypatch.setitem(FIELDS, "max_tokens", (10**8, lambda _, value: value))


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_disconnects_ends_its_texts_and_frees_their_slots(monkeypatch, scheduler_threads, stream):
    make_endless(monkeypatch)
    guard = make_guard()

    async def connect():
        request = Exchange(guard, {"model": "small", "n": 3, "stream": stream})
        await (request.begin() if stream else started(scheduler_threads))
        request.left.set()
        await request.task
        assert guard._app._slots._free._value == api_module.MOST_STREAMS

    run_async(connect())
    assert not guard.readers
    for thread in scheduler_threads:
        thread.join(60)  # a worker ends when nobody is left
        assert not thread.is_alive()


async def started(threads):
    while not threads:
        await asyncio.sleep(0)


def test_a_request_waits_for_its_slots_and_the_others_behind_it(monkeypatch):
    make_endless(monkeypatch)
    monkeypatch.setattr(api_module, "MOST_STREAMS", MOST_SAMPLES + 1)
    monkeypatch.setattr(api_module, "MOST_WAITING", 2)

    async def connect():
        guard = make_guard()
        endless = Exchange(guard, {"model": "small", "n": 2, "stream": True})
        await endless.begin()
        large = Exchange(guard, {"model": "small", "n": MOST_SAMPLES, "max_tokens": 5})
        small = Exchange(guard, {"model": "small", "max_tokens": 5})
        for _ in range(100):
            await asyncio.sleep(0)
        assert not large.sent and not small.sent
        status, body = await Exchange(guard, {"model": "small", "max_tokens": 5}).end()
        assert status == 503 and json.loads(body)["error"]["message"].startswith("Too many requests at once")
        small.left.set()  # one that waits may leave
        await small.task
        assert not small.sent
        endless.left.set()
        status, body = await large.end()
        assert status == 200 and len(json.loads(body)["choices"]) == MOST_SAMPLES

    run_async(connect())


def test_the_body_of_a_text_that_is_being_written_does_not_count_among_those_that_arrive(monkeypatch):
    make_endless(monkeypatch)
    monkeypatch.setattr("charlm.web.guard.MOST_BODY_BYTES", 1000)
    body = {"model": "small", "stream": True, "user": "a" * 600}

    async def connect():
        guard = make_guard()
        requests = [Exchange(guard, body) for _ in range(3)]
        for request in requests:
            await request.begin()
            assert request.sent[0]["status"] == 200
        for request in requests:
            request.left.set()
            await request.task

    run_async(connect())


def test_slots_are_given_in_turn_and_never_more_than_there_are():
    async def work():
        slots, order, most, taken = StreamSlots(5, 100), [], 0, 0

        async def take(number, count):
            nonlocal most, taken
            async with slots.take(count):
                taken += count
                most = max(most, taken)
                order.append(number)
                await asyncio.sleep(0)
                taken -= count

        await asyncio.gather(*(take(number, count) for number, count in enumerate([4, 5, 1, 2, 3, 5, 1])))
        return order, most

    assert run_async(work()) == ([0, 1, 2, 3, 4, 5, 6], 5)


def test_a_request_that_is_given_up_while_it_waits_takes_no_slot():
    async def work():
        slots = StreamSlots(3, 2)
        async with slots.take(2):
            waiting = asyncio.create_task(slots.take(3).__aenter__())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait({waiting})
        async with slots.take(3):
            waiting = [asyncio.create_task(slots.take(1).__aenter__()) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(CompletionError, match="Too many requests") as caught:
                await slots.take(1).__aenter__()
        for task in waiting:
            await task
        return caught.value.status

    assert run_async(work()) == 503


def test_the_text_of_a_request_is_no_longer_than_that_of_the_page():
    assert exchange(make_guard(), {"model": "small", "max_tokens": LONGEST_TEXT + 1})[0] == 400
