import itertools
import json
import warnings
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from models import make_lm, make_model, stream_shared

from charlm.errors import ModelFileError, RequestError, VocabError
from charlm.lm import CharLM
from charlm.model.history import bits_per_char
from charlm.web.answers import write as writing
from charlm.web.answers.write import (
    FIELDS,
    LONGEST_AT_TEMPERATURES,
    LONGEST_CONTINUED,
    LONGEST_TEXT,
    TEMPERATURES,
    WriteSettings,
)
from charlm.web.heat import MOST_NATS, shades
from charlm.web.models import ModelRegistry, ServedModel

LSTM, RNN = make_lm("lstm"), make_lm("rnn", seed=1)


def make_registry(**models):
    served = models or {"small-lstm": make_lm("lstm"), "small-rnn": make_lm("rnn", seed=1)}
    return ModelRegistry([ServedModel(name, lm, "folder") for name, lm in served.items()])


def settings(a="small-lstm", b="small-rnn", prompt="", length=20, temperature=1.0, top_k=0, top_p=1.0, seed="7"):
    """What the page sends with these values in its fields."""
    values = (a, b, prompt, length, temperature, top_k, top_p, seed)
    return WriteSettings.from_fields(dict(zip(FIELDS, values, strict=True)))


def write(registry=None, **fields):
    return list(writing.write(registry or make_registry(), settings(**fields)))


def texts(value):
    return value[0]["text"], value[1]["text"]


def through_a_browser(value):
    return json.loads(json.dumps(value))


def test_both_models_write_what_each_writes_alone_with_that_seed():
    text_a, text_b = texts(write(prompt="ab")[-1])
    assert text_a == LSTM.generate("ab", 20, 1.0, seed=7)
    assert text_b == RNN.generate("ab", 20, 1.0, seed=7)


def test_one_model_may_be_chosen_on_both_sides():
    text_a, text_b = texts(write(b="small-lstm")[-1])
    assert text_a == text_b != ""


def test_surprisals_are_those_of_the_model_itself_at_any_temperature():
    (heat, _, line, _) = write(prompt="abc", length=30, temperature=0.2, top_k=3, top_p=0.9)[-1]
    surprisals = LSTM.score("abc" + heat["text"])[-30:]
    assert heat["shades"] == shades(surprisals / MOST_NATS)
    assert f"{bits_per_char(surprisals.mean()):.2f} bits per character" in line


def test_each_value_of_a_stream_extends_text_and_shades(monkeypatch):
    monkeypatch.setattr(writing, "UPDATE_SECONDS", -1)
    monkeypatch.setattr("charlm.inference.batching.DELIVERY_SECONDS", -1)
    monkeypatch.setattr("charlm.inference.batching.CALL_SECONDS", 0)  # so a call of the engine writes one symbol
    values = write(length=3000)
    assert len(values) > 2
    for earlier, later in itertools.pairwise(values):
        for side in (0, 1):
            assert later[side]["text"].startswith(earlier[side]["text"])
            assert later[side]["shades"].startswith(earlier[side]["shades"])
            assert len(later[side]["shades"]) == len(later[side]["text"])


def test_an_empty_seed_is_drawn_once_for_both_and_shown():
    value = write(seed=" ")[-1]
    seed = value[2].rsplit("seed ", 1)[1]
    assert value[3].endswith(f"seed {seed}")
    assert value[0]["run"]["seed"] == seed
    assert texts(write(seed=seed)[-1]) == texts(value)


def test_a_seed_larger_than_a_browsers_numbers_is_kept_to_the_last_digit():
    value = write(seed="90071992547409931234")[-1]
    assert value[2].endswith("seed 90071992547409931234")
    assert through_a_browser(value[0])["run"]["seed"] == "90071992547409931234"


def test_unknown_symbols_of_the_prompt_are_named_and_skipped():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        heat, _, line, _ = write(prompt="a€b€‮")[-1]
    assert heat["text"] == LSTM.generate("ab", 20, 1.0, seed=7)
    assert heat["prompt"] == "ab"
    assert line.endswith("skipped in the prompt, as the model does not know it: '€\\u202e'")


def test_a_line_that_each_update_sends_names_only_the_first_of_many_unknown_symbols():
    unknown = "".join(map(chr, range(0x4E00, 0x4E00 + 5_000)))
    for line in write(prompt=f"a{unknown}b")[-1][2:]:
        named = line.rsplit("does not know it: ", 1)[1]
        assert named == repr(unknown)[:200]


def test_the_line_counts_the_characters_and_their_rate(monkeypatch):
    clock = itertools.chain([10.0, 10.0], itertools.repeat(12.0))
    monkeypatch.setattr(writing, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert write()[-1][2].startswith("small-lstm · 20 characters, 10 per second · ")


def test_visitors_who_ask_at_once_get_what_each_gets_alone():
    registry = make_registry()
    expected = [texts(write(prompt="ab", length=200, seed=str(seed))[-1]) for seed in range(8)]
    with ThreadPoolExecutor(8) as visitors:
        values = visitors.map(lambda seed: write(registry, prompt="ab", length=200, seed=str(seed))[-1], range(8))
        assert [texts(value) for value in values] == expected


def test_a_visitor_who_leaves_ends_both_streams(monkeypatch, scheduler_threads):
    monkeypatch.setattr(writing, "LONGEST_TEXT", 10**9)
    monkeypatch.setattr(writing, "LONGEST_AT_TEMPERATURES", 10**9)
    registry = make_registry()
    begun = next(writing.write(registry, settings(prompt="ab", length=5)))
    for values in (
        writing.write(registry, settings(prompt="ab", length=10**9)),
        writing.write_at_temperatures(registry, settings(prompt="ab", length=10**9)),
        writing.continue_texts(registry, begun[0], begun[1], 10**9),
    ):
        assert next(values)
        values.close()
        for thread in scheduler_threads:  # a worker ends when nobody is left
            thread.join(60)
            assert not thread.is_alive()
    assert len(scheduler_threads) >= 6


def test_a_model_that_diverged_is_refused():
    model = make_model()
    model.weights["head.weight"][:] = 3e38
    diverged = CharLM(model.config, model.weights, device="cpu")
    registry = make_registry(diverged=diverged, sound=make_lm())
    with pytest.raises(ModelFileError, match="use another model"):
        write(registry, a="sound", b="diverged")
    assert texts(write(registry, a="sound", b="sound")[-1])[0] == LSTM.generate("", 20, 1.0, seed=7)


@pytest.mark.parametrize("seed", ["-1", "1.5", "abc", "1e5", "²", "9" * 41, None, 7, ["7"]], ids=lambda s: repr(s)[:12])
def test_a_seed_that_is_no_whole_number_is_refused(seed):
    with pytest.raises(RequestError, match="it must be a whole number from 0, or empty for any"):
        write(seed=seed)


@pytest.mark.parametrize("length", [None, 0, -1, 2.5, "10", True, [5], LONGEST_TEXT + 1])
def test_a_length_out_of_bounds_is_refused(length):
    with pytest.raises(RequestError, match="length"):
        write(length=length)


def stopped(value, at_a, at_b):
    """What a browser sends back when it stopped both texts at those lengths."""
    heats = through_a_browser(value)[:2]
    return [
        heat | {"text": heat["text"][:at], "shades": heat["shades"][:at]}
        for heat, at in zip(heats, (at_a, at_b), strict=True)
    ]


@pytest.mark.parametrize(("at_a", "at_b"), [(60, 60), (13, 40), (1, 59), (0, 60)])
def test_a_continued_text_equals_one_that_was_never_stopped(at_a, at_b):
    whole = write(prompt="abc", length=60)[-1]
    heat_a, heat_b = stopped(whole, at_a, at_b)
    more = list(writing.continue_texts(make_registry(), heat_a, heat_b, 40))[-1]
    unbroken = write(prompt="abc", length=100)[-1]
    for side, at in ((0, at_a), (1, at_b)):
        assert more[side]["text"] == unbroken[side]["text"][: at + 40]
        assert more[side]["shades"] == unbroken[side]["shades"][: at + 40]
    assert more[2].startswith(f"small-lstm · {at_a + 40} characters")


def test_a_text_continues_with_the_settings_that_it_began_with():
    first = write(
        a="small-rnn", b="small-lstm", prompt="ab", length=30, temperature=0.7, top_k=5, top_p=0.9, seed="11"
    )[-1]
    more = list(writing.continue_texts(make_registry(), *through_a_browser(first)[:2], 30))[-1]
    assert more[0]["text"] == RNN.generate("ab", 60, 0.7, 5, 0.9, seed=11)


def test_a_continued_text_is_shared_whole():
    heat_a, heat_b = stopped(write(prompt="abc", length=60)[-1], 30, 50)
    more = list(writing.continue_texts(make_registry(), heat_a, heat_b, 40))[-1]
    again = list(writing.write(make_registry(), WriteSettings.from_fields(through_a_browser(more)[0]["run"])))[-1]
    for side, length in ((0, 70), (1, 90)):
        assert len(more[side]["text"]) == length
        assert again[side]["text"].startswith(more[side]["text"])


RUN = {"model_a": "small-lstm", "model_b": "small-rnn", "prompt": "", "temperature": 1, "top_k": 0, "top_p": 1}
SOUND = {"text": "ab", "shades": "00", "run": RUN | {"seed": "7"}}


@pytest.mark.parametrize(
    ("heat", "message"),
    [
        *[(heat, "there is no text to continue yet") for heat in (None, {}, [], "ab", {"text": "ab"})],
        (SOUND | {"text": None}, "there is no text to continue yet"),
        (SOUND | {"shades": 5}, "there is no text to continue yet"),
        (SOUND | {"run": "x"}, "there is no text to continue yet"),
        (SOUND | {"run": {}}, "seed"),
        (SOUND | {"run": RUN}, "seed"),
        (SOUND | {"run": RUN | {"seed": "7", "model_a": "nobody"}}, "there is no model 'nobody' here"),
        (SOUND | {"run": RUN | {"seed": "7", "model_a": {}}}, "model is {}; it must be a string"),
        (SOUND | {"text": "a" * (LONGEST_CONTINUED + 1)}, "start a new one"),
    ],
)
def test_a_text_that_cannot_be_continued_is_refused(heat, message):
    with pytest.raises(RequestError, match=message):
        list(writing.continue_texts(make_registry(), heat, SOUND, 5))


def test_a_text_that_the_model_cannot_have_written_is_refused():
    with pytest.raises(VocabError, match="'☃'"):
        list(writing.continue_texts(make_registry(), SOUND | {"text": "a☃"}, SOUND, 5))


def test_shades_from_a_browser_never_outgrow_their_text():
    value = list(writing.continue_texts(make_registry(), SOUND | {"shades": "0" * 500}, SOUND | {"shades": ""}, 5))[-1]
    assert [len(heat["shades"]) for heat in value[:2]] == [7, 7]


# Choices of the visitor

CUTTABLE = SOUND | {"run": SOUND["run"] | {"length": 9}}


def branch(heat, place, choices, side="a"):
    before = through_a_browser(heat) | {"text": heat["text"][:place], "shades": heat["shades"][:place]}
    return list(writing.branch(make_registry(), side, before, choices))[-1]


@pytest.mark.parametrize(("side", "lm"), [("a", LSTM), ("b", RNN)])
def test_a_branch_keeps_what_is_before_the_choice_and_goes_on_as_if_it_had_been_drawn(side, lm):
    heat = write(prompt="abc", length=60, temperature=1.3)[-1]["ab".index(side)]
    symbol = next(each for each in "abcde" if each != heat["text"][25])
    branched, line = branch(heat, 25, [[25, symbol]], side)
    start = heat["text"][:25] + symbol
    rest = "".join(stream_shared(lm, "abc", 34, 1.3, seed=7, after=start))
    assert branched["text"] == start + rest
    surprisals = lm.score("abc" + branched["text"])[-60:]
    assert branched["shades"] == shades(surprisals / MOST_NATS)
    assert branched["run"] == heat["run"] | {"forced": [[25, symbol]]}
    assert branched["bits"] == (pytest.approx(bits_per_char(surprisals.mean()), abs=0.05), 60)
    assert "60 characters" in line and "1 chosen by you" in line


def test_bits_of_a_text_that_was_written_at_once_are_those_of_its_surprisals():
    heat = write(prompt="abc", length=60)[-1][0]
    assert heat["bits"] == (pytest.approx(bits_per_char(LSTM.score("abc" + heat["text"])[-60:].mean()), abs=6e-4), 60)


def test_a_branch_of_a_branch_is_written_at_once_by_its_settings_seed_and_choices():
    heat = write(prompt="ab", length=50)[-1][0]
    heat, _ = branch(heat, 10, [[10, "é"]])
    heat, _ = branch(heat, 30, [[10, "é"], [30, "한"]])
    fields = through_a_browser(heat["run"]) | {"forced_a": [[10, "é"], [30, "한"]]}
    again = list(writing.write(make_registry(), WriteSettings.from_fields(fields)))[-1]
    assert again[0]["text"] == heat["text"] and again[0]["run"] == heat["run"]
    assert again[1]["text"] == write(prompt="ab", length=50)[-1][1]["text"]
    assert (again[0]["text"][10], again[0]["text"][30]) == ("é", "한")


def test_a_branch_without_its_last_choice_is_the_text_before():
    whole = write(prompt="ab", length=50)[-1][0]
    heat, _ = branch(whole, 10, [[10, "é"]])
    assert branch(heat, 10, [])[0]["text"] == whole["text"]


def test_a_branch_of_a_stopped_text_has_the_whole_length_again():
    heat_a, _ = stopped(write(prompt="ab", length=50)[-1], 20, 0)
    assert len(branch(heat_a, 19, [[19, "é"]])[0]["text"]) == len(branch(heat_a, 0, [[0, "é"]])[0]["text"]) == 50


def test_branches_are_continued_with_their_choices():
    first = write(prompt="ab", length=50)[-1]
    heat, _ = branch(first[0], 10, [[10, "é"]])
    more = list(writing.continue_texts(make_registry(), *map(through_a_browser, (heat, first[1])), 30))[-1]
    assert more[0]["text"].startswith(heat["text"]) and len(more[0]["text"]) == 80
    assert more[0]["run"]["forced"] == [[10, "é"]] and more[1]["run"]["forced"] == []
    assert more[1]["text"] == write(prompt="ab", length=80)[-1][1]["text"]


def test_branches_of_two_texts_are_continued_each_with_its_own_settings():
    heat_a, heat_b = write(prompt="ab", length=50)[-1][0], write(prompt="ba", length=50, seed="8")[-1][1]
    more = list(writing.continue_texts(make_registry(), *map(through_a_browser, (heat_a, heat_b)), 30))[-1]
    assert more[0]["text"] == write(prompt="ab", length=80)[-1][0]["text"]
    assert more[1]["text"] == write(prompt="ba", length=80, seed="8")[-1][1]["text"]
    assert (more[0]["run"]["seed"], more[1]["run"]["seed"]) == ("7", "8")


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ("ab", "they must be a list of pairs"),
        ([[1]], "they must be a list of pairs"),
        ([1, "a"], "they must be a list of pairs"),
        ([[1, "ab"]], "a choice is 'ab'; it must be one character"),
        ([[1, 5]], "a choice is 5; it must be one character"),
        ([["1", "a"]], "the place of a choice is '1'; it must be a whole number"),
        ([[True, "a"]], "the place of a choice is True"),
        ([[-1, "a"]], "the place of a choice is -1; it must be from 0"),
        ([[3, "a"], [3, "b"]], r"the choices are at \[3, 3\]; their places must ascend"),
        ([[n, "a"] for n in range(65)], "these are 65 choices; a text has at most 64: start a new one"),
    ],
)
def test_choices_that_mean_nothing_are_refused(choices, message):
    with pytest.raises(RequestError, match=message):
        branch(CUTTABLE, 1, choices)


def test_a_text_that_is_not_there_is_refused():
    with pytest.raises(RequestError, match="there is no text to continue yet"):
        list(writing.branch(make_registry(), "a", {}, []))


def test_a_text_of_its_whole_length_gets_one_character_more():
    heat = write(prompt="ab", length=50)[-1][0]
    heat, _ = branch(heat, 50, [])
    assert heat["text"] == write(prompt="ab", length=51)[-1][0]["text"]
    assert heat["run"]["length"] == 51


def test_a_choice_that_the_model_does_not_know_is_refused_by_name():
    with pytest.raises(
        VocabError, match="^'x', chosen for character 2, is not among the 10 symbols of small-lstm; choose"
    ):
        branch(CUTTABLE, 1, [[1, "x"]])


def test_a_link_to_a_text_that_was_continued_beyond_its_bounds_says_how_much_of_it_it_opens():
    whole, longer = {"text": "é" * LONGEST_TEXT}, {"text": "é" * (LONGEST_TEXT + 1)}
    assert writing.link_label(whole, {}) == writing.link_label(None, 5, {"text": 7}) == "A link to these texts"
    assert writing.link_label({}, longer) == "A link to these texts (their first 5,000 characters)"


def test_one_click_has_both_models_at_three_temperatures():
    heats = list(writing.write_at_temperatures(make_registry(), settings(prompt="ab", length=25, temperature=0.3)))[-1]
    expected = [lm.generate("ab", 25, temperature, seed=7) for temperature in TEMPERATURES for lm in (LSTM, RNN)]
    assert [heat["text"] for heat in heats] == expected
    assert TEMPERATURES == (0.5, 1.0, 1.5)


def test_the_length_of_six_long_texts_is_cut():
    heats = list(writing.write_at_temperatures(make_registry(), settings(length=LONGEST_TEXT)))[-1]
    assert {len(heat["text"]) for heat in heats} == {LONGEST_AT_TEMPERATURES}


def test_shades_are_steps_of_a_tenth_of_a_nat():
    assert shades(np.array([0.0, 0.1, 2.04, 7.8, 50.0]) / MOST_NATS) == "01D~~"
    assert shades([float("nan"), -1, 0.5, float("inf")]) == " 0W~"
    assert shades([]) == ""
