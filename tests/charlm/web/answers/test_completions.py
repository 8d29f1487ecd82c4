"""The answers in OpenAI's form, against what the model writes in Python, and log-probabilities against plain torch."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from models import VOCAB, make_lm, make_model, save
from reference import load_plain, log_softmax, plain_logits

from charlm.lm import CharLM
from charlm.web.answers.completions import (
    LARGEST_SEED,
    Completion,
    CompletionError,
    describe_model,
    error_object,
    list_models,
    read_request,
)
from charlm.web.answers.inside import LONGEST_INSPECTED
from charlm.web.answers.write import LONGEST_PROMPT, LONGEST_STOP, LONGEST_TEXT, MOST_SAMPLES, MOST_STOPS
from charlm.web.models import ModelRegistry, ServedModel


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(make_model(), tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def registry(folder):
    lms = {"small": CharLM.from_pretrained(folder, device="cpu"), "ada/rnn": make_lm("rnn", seed=1)}
    return ModelRegistry([ServedModel(name, lm, "folder") for name, lm in lms.items()])


@pytest.fixture
def lm(registry):
    return registry["small"].lm


@pytest.fixture
def read(registry):
    return lambda **fields: read_request({"model": "small"} | fields, registry)


@pytest.fixture
def complete(read):
    """A function that answers a request with these fields."""

    def complete(**fields):
        completion = Completion(read(**fields))
        return completion.whole([part for parts in completion.write() for part in parts])

    return complete


def test_the_models_are_listed_and_described_in_openais_form(registry):
    described = {"id": "ada/rnn", "object": "model", "created": 5, "owned_by": "charlm"}
    assert list_models(registry, 5) == {"object": "list", "data": [described | {"id": "small"}, described]}
    assert describe_model(registry, "ada/rnn", 5) == described
    with pytest.raises(CompletionError, match="choose one of small, ada/rnn") as caught:
        describe_model(registry, "none", 5)
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("fields", "settings"),
    [
        ({}, {"temperature": 1.0, "length": 16}),
        ({"max_tokens": 60, "temperature": 0.7, "top_p": 0.9}, {"length": 60, "temperature": 0.7, "top_p": 0.9}),
        ({"max_tokens": 40, "top_k": 3}, {"length": 40, "temperature": 1.0, "top_k": 3}),
        ({"max_tokens": 40, "temperature": 0}, {"length": 40, "temperature": 0}),
        ({"max_tokens": 40, "stop": None, "n": None, "logprobs": None}, {"length": 40, "temperature": 1.0}),
        ({"max_tokens": 90, "stop": "a", "user": "me"}, {"length": 90, "temperature": 1.0, "stop": "a"}),
        ({"max_tokens": 90, "stop": ["e\n", "ab"]}, {"length": 90, "temperature": 1.0, "stop": ["e\n", "ab"]}),
        ({"max_tokens": 90, "stop": ["€"]}, {"length": 90, "temperature": 1.0}),  # can never come
        ({"best_of": 1, "logit_bias": {}, "suffix": None, "presence_penalty": 0.0}, {"temperature": 1.0, "length": 16}),
        ({"max_tokens": 0}, {"length": 0}),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:no text ends")
def test_the_text_is_the_one_that_the_model_writes_for_that_seed(complete, lm, fields, settings):
    answer = complete(prompt="a cab", seed=11, **fields)
    text = lm.generate("a cab", seed=11, **settings)
    (choice,) = answer["choices"]
    assert choice == {
        "index": 0,
        "text": text,
        "logprobs": None,
        "finish_reason": "stop" if len(text) < settings["length"] else "length",
        "seed": 11,
        "skipped": "",
    }
    assert answer["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": len(text),
        "total_tokens": 5 + len(text),
    }
    assert (answer["object"], answer["model"]) == ("text_completion", "small")
    assert re.fullmatch("cmpl-[0-9a-f]{24}", answer["id"])


def test_each_of_several_texts_has_a_seed_that_gives_it_alone(complete, lm):
    answer = complete(prompt=["a cab", "bad"], n=3, seed=5, max_tokens=30)
    assert [choice["index"] for choice in answer["choices"]] == list(range(6))
    for choice, (prompt, seed) in zip(
        answer["choices"], [(prompt, seed) for prompt in ("a cab", "bad") for seed in (5, 6, 7)], strict=True
    ):
        assert choice["seed"] == seed
        assert choice["text"] == lm.generate(prompt, 30, 1.0, seed=seed)
    assert answer["usage"] == {"prompt_tokens": 8, "completion_tokens": 180, "total_tokens": 188}


def test_without_a_seed_one_is_drawn_and_told(complete, lm):
    seeds = {complete(prompt="a")["choices"][0]["seed"] for _ in range(5)}
    assert len(seeds) == 5
    choice = complete(prompt="a", temperature=1.5)["choices"][0]
    assert choice["text"] == lm.generate("a", 16, 1.5, seed=choice["seed"])


def test_unknown_symbols_of_a_prompt_are_skipped_and_told(complete, lm):
    answer = complete(prompt="€a cXXab€", seed=1, echo=True)
    choice = answer["choices"][0]
    assert choice["skipped"] == "€X"
    assert choice["text"] == "a cab" + lm.generate("a cab", 16, 1.0, seed=1)
    assert answer["usage"]["prompt_tokens"] == 5


def test_a_stream_names_only_the_first_of_many_unknown_symbols_in_each_part(read):
    unknown = "".join(map(chr, range(0x4E00, 0x4E00 + 5_000)))
    parts = [part for parts in Completion(read(prompt=unknown, echo=True, seed=1)).write() for part in parts]
    assert len(parts) > 1
    assert {part["skipped"] for part in parts} == {unknown[:200]}


@pytest.mark.parametrize("prompt", ["", None, "€"])
def test_an_empty_prompt_starts_a_new_line(complete, lm, prompt):
    for fields in ({}, {"echo": True}, {"logprobs": 1}, {"echo": True, "logprobs": 1}):
        choice = complete(prompt=prompt, seed=1, max_tokens=20, **fields)["choices"][0]
        assert choice["text"] == lm.generate("", 20, 1.0, seed=1)
        if "logprobs" in fields:
            assert choice["logprobs"]["token_logprobs"] == pytest.approx(-lm.score("\n" + choice["text"]), abs=1e-5)


def plain_log_probabilities(folder, text):
    """What plain torch expects after each character of a text, (N, V)."""
    plain, vocab = load_plain(folder)
    return log_softmax(plain_logits(plain, [vocab.index(symbol) for symbol in text]))


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_log_probabilities_are_those_of_plain_torch(complete, folder, count, echo):
    choice = complete(prompt="bad", max_tokens=40, seed=3, temperature=1.5, logprobs=count, echo=echo)["choices"][0]
    told = choice["logprobs"]
    text = choice["text"] if echo else "bad" + choice["text"]
    first = 0 if echo else 3
    assert told["tokens"] == list(text[first:])
    assert told["text_offset"] == list(range(first, len(text)))
    expected = plain_log_probabilities(folder, text)
    if echo:
        assert told["token_logprobs"][0] is None and told["top_logprobs"][0] is None
    for place in range(max(1, first), len(text)):
        log_probs, symbol = expected[place - 1], text[place]
        own = told["token_logprobs"][place - first]
        assert own == pytest.approx(log_probs[VOCAB.index(symbol)], abs=1e-5)
        likeliest = [VOCAB[id] for id in np.argsort(-log_probs, kind="stable")[:count]]
        named = told["top_logprobs"][place - first]
        assert named.keys() == {*likeliest, symbol}
        assert named == pytest.approx({each: log_probs[VOCAB.index(each)] for each in named}, abs=1e-5)
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_a_prompt_can_be_scored_without_writing_anything(complete, lm):
    choice = complete(prompt="a bad cab\nde", max_tokens=0, logprobs=0, echo=True)["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == ("a bad cab\nde", "length")
    assert choice["logprobs"]["token_logprobs"][1:] == pytest.approx(-lm.score("a bad cab\nde"), abs=1e-5)


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("logprobs", [None, 2])
def test_the_parts_of_a_stream_make_the_whole_answer(read, monkeypatch, logprobs, echo):
    stream_scored = CharLM.stream_scored

    def by_characters(*arguments, **options):  # as a slow model would write
        for text, costs in stream_scored(*arguments, **options):
            yield from zip(text, np.split(costs, len(text)), strict=True)

    monkeypatch.setattr(CharLM, "stream_scored", by_characters)
    monkeypatch.setattr("charlm.web.answers.write.UPDATE_SECONDS", -1)
    request = read(prompt=["a", "bad"], n=2, seed=2, max_tokens=50, stop="cab", logprobs=logprobs, echo=echo)
    completion = Completion(request)
    parts = [part for parts in completion.write() for part in parts]
    assert len(parts) > 20
    chunks = [completion.chunk(part) for part in parts]
    assert all({**chunk, "choices": None} == {**chunks[0], "choices": None} for chunk in chunks)
    for index in range(4):
        mine = [part for part in parts if part["index"] == index]
        assert [part["finish_reason"] for part in mine[:-1]] == [None] * (len(mine) - 1)
        assert mine[-1]["finish_reason"] in ("stop", "length")
    whole, other = completion.whole(parts), Completion(request)
    again = other.whole([part for parts in other.write() for part in parts])
    assert "".join(part["text"] for part in parts if part["index"] == 3) == whole["choices"][3]["text"]
    if logprobs is None:
        assert whole["choices"] == again["choices"]
    else:  # cut elsewhere, the same products have other roundings
        for mine, theirs in zip(whole["choices"], again["choices"], strict=True):
            own, same = (each.pop("logprobs") for each in (mine, theirs))
            assert mine == theirs and own["tokens"] == same["tokens"]
            assert own["token_logprobs"] == pytest.approx(same["token_logprobs"], abs=1e-5)
    assert completion.last_chunk()["choices"] == [] and completion.last_chunk()["usage"] == whole["usage"]


def test_a_client_that_leaves_ends_all_streams(read, scheduler_threads):
    completion = Completion(replace(read(prompt="a", n=4), max_tokens=10**9))
    writing = completion.write()
    assert next(writing)
    writing.close()
    for thread in scheduler_threads:
        thread.join(60)  # a worker ends when nobody is left
        assert not thread.is_alive()


MANY = LONGEST_TEXT // MOST_SAMPLES + 1
WRONG = [
    ({"model": None}, 404, "model", "there is no model '' here; choose one of small, ada/rnn"),
    ({"model": "SMALL"}, 404, "model", "there is no model 'SMALL' here; choose one of small, ada/rnn"),
    ({"model": 5}, 400, "model", "model is 5; it must be a string"),
    ({"prompt": 5}, 400, "prompt", "prompt is 5; it must be a string or a list of strings, since no ids are taken"),
    ({"prompt": []}, 400, "prompt", "prompt is []; it must be a string or a list of strings, since no ids are taken"),
    ({"prompt": [1, 2]}, 400, "prompt", "prompt is [1, 2]; it must be a string or a list of strings, since no ids"),
    ({"prompt": ["a", ["b"]]}, 400, "prompt", "prompt is ['a', ['b']]; it must be a string or a list of strings"),
    (
        {"prompt": "a" * (LONGEST_PROMPT + 1)},
        400,
        "prompt",
        "the prompt has 20,001 characters; at most 20,000 are",
    ),
    ({"max_tokens": -1}, 400, "max_tokens", "max_tokens is -1; it must be from 0 to 5,000"),
    ({"max_tokens": 1.5}, 400, "max_tokens", "max_tokens is 1.5; it must be a whole number"),
    ({"max_tokens": LONGEST_TEXT + 1}, 400, "max_tokens", "max_tokens is 5001; it must be from 0 to 5,000"),
    ({"max_tokens": 10**30}, 400, "max_tokens", "max_tokens is a huge number; it must be from 0 to 5,000"),
    ({"max_tokens": True}, 400, "max_tokens", "max_tokens is True; it must be a whole number"),
    ({"temperature": 2.1}, 400, "temperature", "temperature is 2.1; it must be from 0 to 2"),
    ({"temperature": math.nan}, 400, "temperature", "temperature is nan; it must be from 0 to 2"),
    ({"temperature": "hot"}, 400, "temperature", "temperature is 'hot'; it must be a number"),
    ({"top_p": 1.5}, 400, "top_p", "top_p is 1.5; it must be from 0 to 1"),
    ({"top_k": 101}, 400, "top_k", "top_k is 101; it must be from 0 to 100"),
    ({"n": 0}, 400, "n", "n is 0; it must be from 1 to 16"),
    ({"n": 10**9}, 400, "n", "n is 1000000000; it must be from 1 to 16"),
    ({"stop": 5}, 400, "stop", "stop is 5; it must be a string or a list of strings"),
    ({"stop": [""]}, 400, "stop", "stop has ''; each stop string must be a string of at least one character"),
    ({"stop": ["a"] * (MOST_STOPS + 1)}, 400, "stop", "stop must be at most 16 strings of at most 200 characters"),
    ({"stop": "a" * (LONGEST_STOP + 1)}, 400, "stop", "stop must be at most 16 strings of at most 200 characters"),
    ({"seed": -1}, 400, "seed", "seed is -1; it must be from 0 to 9,223,372,036,854,775,807"),
    ({"seed": LARGEST_SEED + 1}, 400, "seed", "seed is a huge number; it must be from 0 to 9,223,372,036,854,775,807"),
    ({"logprobs": 6}, 400, "logprobs", "logprobs is 6; it must be from 0 to 5"),
    ({"logprobs": True}, 400, "logprobs", "logprobs is True; it must be a whole number"),
    ({"echo": 1}, 400, "echo", "echo is 1; it must be true or false"),
    ({"stream": "yes"}, 400, "stream", "stream is 'yes'; it must be true or false"),
    ({"stream_options": []}, 400, "stream_options", "stream_options is []; it must be an object with include_usage"),
    ({"stream_options": {"include_usage": 1}}, 400, "stream_options", "include_usage is 1; it must be true or false"),
    ({"best_of": 2}, 400, "best_of", "best_of is 2, and is not offered here: leave it out"),
    ({"logit_bias": {"5": 1}}, 400, "logit_bias", "logit_bias is {'5': 1}, and is not offered here: leave it out"),
    ({"max_token": 5}, 400, "max_token", "there is no argument 'max_token' here; did you mean max_tokens?"),
    (
        {"messages": []},
        400,
        "messages",
        "there is no argument 'messages' here; choose from model, prompt, max_tokens, ",
    ),
    ({"n": 9, "prompt": ["a", "b"]}, 400, "n", "this asks for 18 texts (n for each prompt); at most 16 are allowed"),
    (
        {"n": MOST_SAMPLES, "max_tokens": MANY},
        400,
        "max_tokens",
        "this asks for 5,008 characters to write (max_tokens for each text); at most 5,000 are allowed",
    ),
    (
        {"n": 2, "prompt": "a" * 10_001},
        400,
        "prompt",
        "this asks for 20,002 characters to read (each prompt n times); at most 20,000 are allowed",
    ),
    (
        {"prompt": "a" * LONGEST_INSPECTED, "max_tokens": 1, "echo": True, "logprobs": 0},
        400,
        "logprobs",
        "this asks for the log-probabilities of 5,001 characters; at most 5,000 are allowed",
    ),
]


@pytest.mark.parametrize(("fields", "status", "param", "message"), WRONG, ids=lambda value: repr(value)[:30])
def test_what_is_wrong_with_a_request_is_said_with_the_field(read, fields, status, param, message):
    with pytest.raises(CompletionError) as caught:
        read(**{"prompt": "a"} | fields)
    assert (caught.value.status, caught.value.param) == (status, param)
    assert str(caught.value).startswith(message) and len(str(caught.value)) < 300


@pytest.mark.parametrize("content", [None, [], "a", 5, True])
def test_a_body_that_is_no_object_is_refused(registry, content):
    with pytest.raises(CompletionError, match="the body must be a JSON object"):
        read_request(content, registry)


@pytest.mark.slow
def test_the_largest_requests_are_answered(complete):
    text = complete(
        prompt="a" * LONGEST_PROMPT, max_tokens=1, stop=["c" * LONGEST_STOP] * MOST_STOPS, seed=LARGEST_SEED
    )
    assert len(text["choices"][0]["text"]) == 1
    many = complete(prompt="a", n=MOST_SAMPLES, max_tokens=5, seed=LARGEST_SEED)
    assert [len(choice["text"]) for choice in many["choices"]] == [5] * MOST_SAMPLES
    assert max(choice["seed"] for choice in many["choices"]) < 2**64  # what JSON here can hold


def test_errors_have_openais_form():
    assert error_object(404, "no", "model", "model_not_found") == {
        "error": {"message": "no", "type": "invalid_request_error", "param": "model", "code": "model_not_found"}
    }
    assert error_object(503, "busy")["error"]["type"] == "server_error"
