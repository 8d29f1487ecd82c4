import itertools
import json
import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pytest
from models import VOCAB, make_lm, make_record

from charlm.errors import ModelFileError, RequestError
from charlm.lm import CharLM
from charlm.web import handlers as handlers_module
from charlm.web.collection import Collection, ServedModel
from charlm.web.handlers import LONGEST_INSPECTED, LONGEST_PROMPT, LONGEST_TEXT, Handlers


def make_handlers(**models):
    served = models or {"small-lstm": make_lm("lstm"), "small-rnn": make_lm("rnn", seed=1)}
    return Handlers(Collection([ServedModel(name, lm, "folder") for name, lm in served.items()]))


def without_history():
    lm = make_lm("gru")
    return CharLM(lm.config, lm.network.export_weights(), device="cpu")


def set_clock(monkeypatch, clock):
    """Let the handlers see another time than the threads that write."""
    monkeypatch.setattr(handlers_module, "time", SimpleNamespace(perf_counter=clock))


def write(handlers, a="small-lstm", b="small-rnn", prompt="", length=20, seed_text="7"):
    return list(handlers.write(a, b, prompt, length, 1.0, 0, 1.0, seed_text))


def test_models_tells_what_the_contract_names():
    assert make_handlers().models() == [
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
    handlers = make_handlers(bare=without_history())
    assert handlers.models()[0]["val_loss"] is None
    with pytest.raises(RequestError, match="bare came without a training record"):
        handlers.history("bare")


def test_history_is_the_training_record():
    assert make_handlers().history("small-rnn") == make_record(cell="rnn")


def test_generate_ends_with_the_text_of_the_model_itself():
    settings = {"length": 60, "temperature": 0.7, "top_k": 5, "top_p": 0.9, "seed": 11}
    texts = list(make_handlers().generate("small-lstm", "abc", **settings))
    assert texts[-1] == make_lm("lstm").generate("abc", **settings)


def test_each_value_of_a_stream_goes_on_from_the_one_before(monkeypatch):
    monkeypatch.setattr(handlers_module, "UPDATE_SECONDS", -1)  # a value after every delivery
    monkeypatch.setattr("charlm.crowd.DELIVERY_SECONDS", -1)  # of every character, though several may come together
    texts = list(make_handlers().generate("small-lstm", "abc", length=12, seed=1))
    lengths = [len(text) for text in texts]
    assert lengths[:-1] == sorted(set(lengths)) and lengths[-1] == 12
    assert all(texts[-1].startswith(text) for text in texts)


def test_a_stream_updates_no_more_often_than_it_says(monkeypatch):
    clock = itertools.count()
    set_clock(monkeypatch, lambda: next(clock) * 0.02)  # 20 ms a character
    monkeypatch.setattr(CharLM, "stream", lambda *_, **__: iter("written by a"))
    assert list(make_handlers().generate("small-lstm")) == [
        "wri",
        "writte",
        "written b",
        "written by a",
        "written by a",
    ]


def test_both_models_write_what_each_writes_alone_with_that_seed():
    text_a, text_b, _, _ = write(make_handlers(), prompt="ab")[-1]
    assert text_a == make_lm("lstm").generate("ab", 20, 1.0, seed=7)
    assert text_b == make_lm("rnn", seed=1).generate("ab", 20, 1.0, seed=7)


def test_one_model_may_stand_on_both_sides():
    text_a, text_b, _, _ = write(make_handlers(), b="small-lstm")[-1]
    assert text_a == text_b != ""


def test_an_empty_seed_is_drawn_shared_and_told():
    handlers = make_handlers()
    text_a, _, line_a, line_b = write(handlers, seed_text=" ")[-1]
    seed = line_a.rsplit("seed ", 1)[1]
    assert line_b.endswith(f"seed {seed}")
    assert write(handlers, seed_text=seed)[-1][0] == text_a


def test_a_seed_larger_than_a_browsers_numbers_is_kept_to_the_last_digit():
    line = write(make_handlers(), seed_text="90071992547409931234")[-1][2]
    assert line.endswith("seed 90071992547409931234")


def test_unknown_symbols_of_the_prompt_are_named_and_the_text_is_written_all_the_same():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text_a, _, line_a, _ = write(make_handlers(), prompt="a€b€‮")[-1]
    assert text_a == make_lm("lstm").generate("ab", 20, 1.0, seed=7)
    assert line_a.endswith("skipped in the prompt, as the model does not know it: '€\\u202e'")


def test_the_line_counts_the_characters_and_their_rate(monkeypatch):
    clock = itertools.chain([10.0], itertools.repeat(12.0))
    set_clock(monkeypatch, lambda: next(clock))
    assert write(make_handlers())[-1][2] == "small-lstm · 20 characters, 10 per second · seed 7"


def test_visitors_who_ask_at_once_get_what_each_gets_alone():
    handlers = make_handlers()
    expected = [write(make_handlers(), prompt="ab", length=200, seed_text=str(seed))[-1][:2] for seed in range(8)]
    with ThreadPoolExecutor(8) as visitors:
        values = visitors.map(lambda seed: write(handlers, prompt="ab", length=200, seed_text=str(seed))[-1], range(8))
        assert [value[:2] for value in values] == expected


def test_a_visitor_who_leaves_frees_the_place_of_each_text(monkeypatch):
    monkeypatch.setattr(handlers_module, "LONGEST_TEXT", 10**9)
    monkeypatch.setattr(handlers_module, "UPDATE_SECONDS", -1)
    threads = []

    class Recorded(Thread):
        def start(self):
            threads.append(self)
            super().start()

    monkeypatch.setattr("charlm.crowd.Thread", Recorded)
    handlers = make_handlers()
    for values in (
        handlers.write("small-lstm", "small-rnn", "ab", 10**9, 1.0, 0, 1.0, "7"),
        handlers.generate("small-lstm", "ab", 10**9),
    ):
        assert next(values)
        values.close()
        for thread in threads:  # a worker ends when nobody is left
            thread.join(60)
            assert not thread.is_alive()
    assert len(threads) == 3


def test_a_model_that_diverged_is_told_to_the_visitor():
    lm = make_lm()
    lm._weights["head.weight"][:] = 3e38
    handlers = make_handlers(diverged=lm, sound=make_lm())
    with pytest.raises(ModelFileError, match="use another model"):
        write(handlers, "sound", "diverged")
    assert write(handlers, "sound", "sound")[-1][0] == make_lm().generate("", 20, 1.0, seed=7)


def test_compare_tells_about_both_models_and_draws_their_curves():
    line_a, line_b, plot = make_handlers().compare("small-lstm", "small-rnn")
    assert line_a.startswith("CharLSTM 2×8 · 1,")
    parameters = make_lm("rnn").config.parameters
    assert line_b == f"CharRNN 2×8 · {parameters} parameters · {len(VOCAB)} symbols · from a folder · runs on CPU"
    assert len(plot.data) == 6


def test_the_same_model_on_both_sides_is_drawn_once():
    assert len(make_handlers().compare("small-rnn", "small-rnn")[2].data) == 3


NO_MODELS = ["", "SMALL-LSTM", "../small-lstm", None, ["small-lstm"], {}, 3, True, "x" * 10_000]


@pytest.mark.parametrize("name", NO_MODELS, ids=lambda name: repr(name)[:20])
def test_a_model_that_is_not_served_is_refused_by_a_short_message_that_lists_those_that_are(name):
    handlers = make_handlers()
    for ask in (
        handlers.history,
        lambda name: list(handlers.generate(name)),
        lambda name: handlers.compare(name, name),
    ):
        with pytest.raises(RequestError, match="choose one of small-lstm, small-rnn") as caught:
            ask(name)
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *[("prompt", value) for value in (None, 5, ["a"], {}, True, "a" * (LONGEST_PROMPT + 1))],
        *[("length", value) for value in (None, 0, -1, 2.5, "10", True, math.nan, [5], LONGEST_TEXT + 1)],
        *[("temperature", value) for value in (None, -0.1, "1", True, math.nan, math.inf, [1])],
        *[("top_k", value) for value in (None, -1, 1.5, "3", True, math.nan)],
        *[("top_p", value) for value in (None, -0.1, 1.1, "1", True, math.nan)],
        *[("seed", value) for value in (-1, 1.5, "7", True, math.nan, [7])],
    ],
    ids=lambda value: repr(value)[:12],
)
def test_an_argument_out_of_bounds_is_refused_by_name(argument, value):
    with pytest.raises(RequestError, match=argument):
        list(make_handlers().generate("small-lstm", **{argument: value}))


@pytest.mark.parametrize(
    "seed_text", ["-1", "1.5", "abc", "1e5", "²", "9" * 41, None, 7, ["7"]], ids=lambda s: repr(s)[:12]
)
def test_a_seed_that_is_no_whole_number_is_refused(seed_text):
    with pytest.raises(RequestError, match="it must be a whole number from 0, or empty for any"):
        write(make_handlers(), seed_text=seed_text)


def test_the_longest_prompt_and_a_lone_surrogate_are_read():
    text = list(make_handlers().generate("small-lstm", "\ud800" + "a" * (LONGEST_PROMPT - 1), length=1, seed=0))[-1]
    assert len(text) == 1


def test_numbers_may_come_as_json_or_numpy_sends_them():
    handlers = make_handlers()
    expected = list(handlers.generate("small-lstm", length=5, top_k=3, seed=7))[-1]
    assert list(handlers.generate("small-lstm", length=5.0, top_k=3.0, seed=np.int64(7)))[-1] == expected


def test_inspect_tells_for_each_character_what_was_expected_and_how_surprising_it_was():
    told = make_handlers().inspect("small-lstm", "a b😀c☃")  # the last is unknown
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
    assert make_handlers().inspect("small-lstm", "") == []


@pytest.mark.parametrize("text", [None, 7, ["a"], "a" * (LONGEST_INSPECTED + 1)])
def test_what_is_no_text_to_inspect_is_refused(text):
    with pytest.raises(RequestError, match="the text must be a text of at most"):
        make_handlers().inspect("small-lstm", text)
