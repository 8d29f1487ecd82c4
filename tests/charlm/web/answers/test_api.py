import itertools
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from models import make_lm, make_record

from charlm.errors import RequestError
from charlm.lm import CharLM
from charlm.web.answers import write as writing
from charlm.web.answers.api import Api
from charlm.web.answers.inside import LONGEST_INSPECTED
from charlm.web.answers.write import (
    HIGHEST_TEMPERATURE,
    LARGEST_TOP_K,
    LONGEST_PROMPT,
    LONGEST_STOP,
    LONGEST_TEXT,
    MOST_SAMPLES,
    MOST_STOPS,
    SEED_DIGITS,
)
from charlm.web.models import ModelRegistry, ServedModel


def make_api(**models):
    served = models or {"small-lstm": make_lm("lstm"), "small-rnn": make_lm("rnn", seed=1)}
    return Api(ModelRegistry([ServedModel(name, lm, "folder") for name, lm in served.items()]))


def without_history():
    lm = make_lm("gru")
    return CharLM(lm.config, lm.network.export_weights(), device="cpu")


def set_clock(monkeypatch, clock):
    """Let the API see another time than the threads that write."""
    monkeypatch.setattr(writing, "time", SimpleNamespace(perf_counter=clock))


def test_models_tells_what_the_contract_names():
    assert make_api().models() == [
        {
            "name": "small-lstm",
            "source": "folder",
            "revision": None,
            "cell": "lstm",
            "parameters": make_lm("lstm").config.parameters,
            "val_loss": 1.5,
        },
        {
            "name": "small-rnn",
            "source": "folder",
            "revision": None,
            "cell": "rnn",
            "parameters": make_lm("rnn").config.parameters,
            "val_loss": 1.5,
        },
    ]


def test_a_model_without_a_record_has_no_loss_and_no_history():
    api = make_api(bare=without_history())
    assert api.models()[0]["val_loss"] is None
    with pytest.raises(RequestError, match="bare came without a training record"):
        api.history("bare")
    damaged = without_history()
    damaged.record_problem = "history.json: run must be an object"
    with pytest.raises(
        RequestError, match="the training record of the model bad is damaged: history.json: run must be"
    ):
        make_api(bad=damaged).history("bad")


def test_history_is_the_training_record():
    assert make_api().history("small-rnn") == make_record(cell="rnn")


def test_generate_ends_with_the_text_of_the_model_itself():
    settings = {"length": 60, "temperature": 0.7, "top_k": 5, "top_p": 0.9, "seed": 11}
    texts = list(make_api().generate("small-lstm", "abc", **settings))
    assert texts[-1] == make_lm("lstm").generate("abc", **settings)


def test_each_value_of_a_stream_extends_the_one_before(monkeypatch):
    monkeypatch.setattr(writing, "UPDATE_SECONDS", -1)  # a value after every delivery
    monkeypatch.setattr(
        "charlm.inference.batching.DELIVERY_SECONDS", -1
    )  # of every character, though several may come together
    texts = list(make_api().generate("small-lstm", "abc", length=12, seed=1))
    lengths = [len(text) for text in texts]
    assert lengths[:-1] == sorted(set(lengths)) and lengths[-1] == 12
    assert all(texts[-1].startswith(text) for text in texts)


def test_a_stream_updates_no_more_often_than_it_says(monkeypatch):
    clock = itertools.count()
    set_clock(monkeypatch, lambda: next(clock) * 0.02)  # 20 ms a character
    monkeypatch.setattr(CharLM, "stream_scored", lambda *_, **__: ((each, None) for each in "written by a"))
    assert list(make_api().generate("small-lstm")) == ["w", "writ", "written", "written by", "written by a"]


def test_a_visitor_who_leaves_ends_the_stream(monkeypatch, scheduler_threads):
    monkeypatch.setattr(writing, "LONGEST_TEXT", 10**9)
    monkeypatch.setattr(writing, "UPDATE_SECONDS", -1)
    api = make_api()
    values = api.generate("small-lstm", "ab", 10**9)
    assert next(values)
    values.close()
    (thread,) = scheduler_threads
    thread.join(60)  # a worker ends when nobody is left
    assert not thread.is_alive()


NO_MODELS = ["", "SMALL-LSTM", "../small-lstm", None, ["small-lstm"], {}, 3, True, "x" * 10_000]


@pytest.mark.slow
@pytest.mark.parametrize("name", NO_MODELS, ids=lambda name: repr(name)[:20])
def test_a_model_that_is_not_served_is_refused_by_a_short_message_that_lists_those_that_are(name):
    api = make_api()
    for ask in (
        api.history,
        lambda name: list(api.generate(name)),
        api.generate_many,
        lambda name: api.inspect(name, "ab"),
    ):
        with pytest.raises(RequestError, match="choose one of small-lstm, small-rnn") as caught:
            ask(name)
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *[("prompt", value) for value in (None, 5, ["a"], {}, True, "a" * (LONGEST_PROMPT + 1))],
        *[("length", value) for value in (None, 0, -1, 2.5, "10", True, math.nan, [5], LONGEST_TEXT + 1)],
        *[
            ("temperature", value)
            for value in (None, -0.1, "1", True, math.nan, math.inf, [1], HIGHEST_TEMPERATURE + 1)
        ],
        *[("top_k", value) for value in (None, -1, 1.5, "3", True, math.nan, LARGEST_TOP_K + 1)],
        *[("top_p", value) for value in (None, -0.1, 1.1, "1", True, math.nan)],
        *[("seed", value) for value in (-1, 1.5, "7", True, math.nan, [7], 10**SEED_DIGITS)],
    ],
    ids=lambda value: repr(value)[:12],
)
def test_an_argument_out_of_bounds_is_refused_by_name(argument, value):
    with pytest.raises(RequestError, match=argument):
        list(make_api().generate("small-lstm", **{argument: value}))
    with pytest.raises(RequestError, match=argument):
        make_api().generate_many("small-lstm", **{argument: value})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *[({"num_samples": value}, "num_samples is ") for value in (None, 0, 1.5, "2", True, MOST_SAMPLES + 1)],
        ({"num_samples": 11}, "num_samples × length is 5,500 characters; at most 5,000 are allowed"),
        (
            {"num_samples": 3, "length": 5, "prompt": "a" * 6667},
            "num_samples × prompt is 20,001 characters; at most 20,000 are allowed",
        ),
        ({"stop": 5}, "stop is 5; it must be a string or a list of strings"),
        ({"stop": ["a", ""]}, "stop has ''; each stop string must be"),
        ({"stop": ["a"] * (MOST_STOPS + 1)}, "stop must be at most 16 strings of at most 200 characters"),
        ({"stop": ["a" * (LONGEST_STOP + 1)]}, "stop must be at most 16 strings of at most 200 characters"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_more_texts_or_stop_strings_than_are_allowed_are_refused(arguments, message):
    with pytest.raises(RequestError, match=f"^{message}"):
        make_api().generate_many("small-lstm", **arguments)


def test_several_texts_are_those_of_the_model_itself():
    settings = {"length": 60, "temperature": 0.7, "top_k": 5, "top_p": 0.9, "seed": 11}
    told = make_api().generate_many("small-lstm", "abc€", 4, **settings, stop=["ab", "€"])
    samples = make_lm("lstm").generate_many("abc", 4, **settings, stop="ab")
    assert told == [vars(sample) for sample in samples]
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_the_description_of_generate_names_the_bounds():
    described = Api.generate.__doc__
    assert f"how many new characters, up to {LONGEST_TEXT:,}." in described
    assert f"the model's own probabilities; up to {HIGHEST_TEMPERATURE}." in described
    assert f"the k likeliest characters, up to {LARGEST_TOP_K};" in described
    described = Api.generate_many.__doc__
    assert f"how many texts, up to {MOST_SAMPLES}." in described and f"up to {MOST_STOPS} strings" in described
    assert f"Together they may have {LONGEST_TEXT:,} characters, and read {LONGEST_PROMPT:,}." in described


def test_the_longest_prompt_and_a_lone_surrogate_are_read():
    text = list(make_api().generate("small-lstm", "\ud800" + "a" * (LONGEST_PROMPT - 1), length=1, seed=0))[-1]
    assert len(text) == 1


def test_numbers_may_come_as_json_or_numpy_sends_them():
    api = make_api()
    expected = list(api.generate("small-lstm", length=5, top_k=3, seed=7))[-1]
    assert list(api.generate("small-lstm", length=5.0, top_k=3.0, seed=np.int64(7)))[-1] == expected


def test_inspect_gives_surprisal_and_likeliest_symbols_of_each_character():
    told = make_api().inspect("small-lstm", "a b😀c☃")  # the last is unknown
    lm = make_lm("lstm")
    assert [place["symbol"] for place in told] == list("a b😀c")
    assert told[0] == {"symbol": "a", "surprisal": None, "likeliest": []}
    assert [place["surprisal"] for place in told[1:]] == pytest.approx(lm.score("a b😀c").tolist(), abs=1e-6)
    for place in told[1:]:
        probabilities = {each["symbol"]: each["probability"] for each in place["likeliest"]}
        assert len(probabilities) == 5
        assert list(probabilities.values()) == sorted(probabilities.values(), reverse=True)
        if place["symbol"] in probabilities:
            assert math.exp(-place["surprisal"]) == pytest.approx(probabilities[place["symbol"]], abs=1e-6)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert make_api().inspect("small-lstm", "") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "text is None; it must be a string"),
        (7, "text is 7; it must be a string"),
        (["a"], r"text is \['a'\]; it must be a string"),
        ("a" * (LONGEST_INSPECTED + 1), "the text has 5,001 characters; at most 5,000 are allowed: shorten it"),
    ],
)
def test_an_invalid_text_to_inspect_is_refused(text, message):
    with pytest.raises(RequestError, match=message):
        make_api().inspect("small-lstm", text)
