"""The API as tools of the Model Context Protocol, asked by its own client."""

import json

from browser import ROOT
from loops import run_async
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from charlm.lm import CharLM


def with_session(url, work):
    """Do work, an async function of a session."""

    async def connect():
        async with (
            streamable_http_client(f"{url}/gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            return await work(session)

    return run_async(connect())


def call(url, name, **arguments):
    return with_session(url, lambda session: session.call_tool(name, arguments))


def test_the_tools_are_the_endpoints_of_the_api_and_no_event_of_the_page(app):
    tools = with_session(app, lambda session: session.list_tools()).tools
    assert sorted(tool.name for tool in tools) == ["generate", "generate_many", "history", "inspect", "models"]


def test_every_tool_and_every_argument_is_described(app):
    for tool in with_session(app, lambda session: session.list_tools()).tools:
        assert len(tool.description) > 40
        for name, argument in tool.inputSchema["properties"].items():
            assert argument["description"], f"{tool.name}: {name}"


def test_a_tool_writes_the_text_of_the_model(app):
    answer = call(app, "generate", model="shakespeare-rnn", prompt="Apple", length=80, temperature=0.7, seed=3)
    lm = CharLM.from_pretrained(ROOT / "weights" / "shakespeare-rnn")
    assert not answer.isError
    assert answer.content[0].text == lm.generate("Apple", 80, 0.7, seed=3)


def test_a_tool_writes_several_texts_and_ends_them(app):
    settings = {"prompt": "Apple", "num_samples": 2, "length": 80, "seed": 3, "stop": ["."]}
    answer = call(app, "generate_many", model="shakespeare-rnn", **settings)
    assert not answer.isError
    for sample in CharLM.from_pretrained(ROOT / "weights" / "shakespeare-rnn").generate_many(**settings):
        assert repr(sample.text) in answer.content[0].text


def test_a_tool_inspects_and_another_gives_the_record(app):
    answer = call(app, "inspect", model="shakespeare-rnn", text="To be")
    assert not answer.isError
    assert "'symbol': 'T'" in answer.content[0].text
    answer = call(app, "history", model="shakespeare-rnn")
    record = json.loads((ROOT / "weights" / "shakespeare-rnn" / "history.json").read_text(encoding="utf-8"))
    assert repr(record["best"]["val_loss"]) in answer.content[0].text


def test_a_wrong_request_is_an_error_that_says_what_to_do(app):
    answer = call(app, "generate", model="nobody")
    assert answer.isError
    assert "there is no model 'nobody' here; choose one of shakespeare-lstm" in answer.content[0].text
