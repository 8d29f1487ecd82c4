import json
import math

import numpy as np
import pytest
from models import VOCAB, make_lm, uniform_lm

from charlm.errors import RequestError
from charlm.web.answers import inside
from charlm.web.answers.inside import LONGEST_INSPECTED, LONGEST_SEARCHED, LONGEST_TRACED, WRITTEN
from charlm.web.heat import MOST_NATS, shades
from charlm.web.models import ModelRegistry, ServedModel

LSTM, RNN = make_lm("lstm"), make_lm("rnn", seed=1)
REGISTRY = ModelRegistry(
    [
        ServedModel("small-lstm", LSTM, "folder"),
        ServedModel("small-rnn", RNN, "folder"),
        ServedModel("uniform", uniform_lm("abcd"), "folder"),
    ]
)
LONG = "abc de\nbad cab é한😀\n" * 200


def test_an_inspected_text_shows_surprisal_and_likeliest_symbols():
    heat, line = inside.inspect(REGISTRY, "small-lstm", "abc a☃b", "surprisal")
    assert (heat["text"], heat["kind"]) == ("abc ab", "surprisal")
    assert heat["shades"] == " " + shades(LSTM.score("abc ab") / MOST_NATS)
    assert heat["details"][0] == []
    for place, expected in enumerate(heat["details"][1:], 1):
        assert len(expected) == 5
        for symbol, probability in expected:
            surprisal = LSTM.score("abc ab"[:place] + symbol)[-1]
            assert probability == pytest.approx(math.exp(-surprisal), abs=1e-5)
    assert line.endswith("skipped, as the model does not know it: '☃'")
    assert heat["run"] == {"model": "small-lstm", "text": "abc a☃b", "colour": "surprisal"}
    assert json.loads(json.dumps(heat, allow_nan=False))["text"] == "abc ab"


def test_four_equally_likely_symbols_are_two_bits_each():
    _, line = inside.inspect(REGISTRY, "uniform", "abba", "surprisal")
    assert "2.00 bits per character, perplexity 4.0" in line


@pytest.mark.parametrize(("unit", "state"), [("hidden 1:3", "hidden"), ("cell 0:7 · inside quotes (0.9)", "cell")])
def test_a_text_is_coloured_by_the_activation_of_a_unit(unit, state):
    heat, _ = inside.inspect(REGISTRY, "small-lstm", "abc de", unit)
    layer, number = int(unit.split()[1][0]), int(unit.split()[1][2])
    activations = getattr(LSTM.inspect("abc de"), state)[:, layer, number]
    assert heat["kind"] == "activation"
    assert heat["shades"] == shades((activations / np.abs(activations).max() + 1) / 2)


@pytest.mark.parametrize(
    ("model", "colour"),
    [
        ("small-lstm", "hidden 2:0"),
        ("small-lstm", "hidden 0:8"),
        ("small-rnn", "cell 0:0"),
        ("small-lstm", "hidden 99999:0"),
        *[("small-lstm", colour) for colour in ("", "unit 3", None, ["hidden 0:0"], 5, "hidden ０:0x", "x" * 10**6)],
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_unit_that_the_model_lacks_is_refused_with_the_valid_range(model, colour):
    with pytest.raises(RequestError, match=r"a layer from 0 to 1, a colon and a unit from 0 to 7") as caught:
        inside.inspect(REGISTRY, model, "abc", colour)
    assert len(str(caught.value)) < 300


def test_only_the_beginning_of_a_long_text_is_shown_and_the_line_says_so():
    heat, line = inside.inspect(REGISTRY, "small-rnn", "a" * (LONGEST_INSPECTED + 5), "surprisal")
    assert len(heat["text"]) == LONGEST_INSPECTED
    assert "the first 5,000 of 5,005 are shown" in line


def test_a_single_character_has_no_surprisal():
    heat, line = inside.inspect(REGISTRY, "small-lstm", "a", "surprisal")
    assert (heat["shades"], heat["details"], line) == (" ", [[]], "1 characters")


def test_units_that_were_found_can_be_chosen():
    found = inside.find_units(REGISTRY, "small-lstm", LONG)
    assert len(found) > 3
    for described in found:
        assert inside.inspect(REGISTRY, "small-lstm", "abc", described)[0]["kind"] == "activation"
    best = LSTM.find_units(LONG, 1)
    unit = best["position in the line"][0]
    assert any(each.startswith(f"{unit.state} {unit.layer}:{unit.unit} · position in the line") for each in found)


def test_characters_before_a_prediction_are_coloured_by_their_influence():
    heat, line = inside.trace_influence(REGISTRY, "small-lstm", LONG, 25)
    norms = LSTM.influence(LONG[:26])
    assert heat["text"] == LONG[:25]
    assert heat["shades"] == shades(norms / norms.max())
    assert "(character 26)" in line


def test_influence_is_traced_over_a_limited_number_of_characters():
    heat, _ = inside.trace_influence(REGISTRY, "small-rnn", LONG, 1000)
    assert heat["text"] == LONG[1000 - LONGEST_TRACED : 1000]


@pytest.mark.parametrize("place", [0, -1, None, "3", 1.5, len(LONG)])
def test_a_place_without_anything_before_it_is_refused(place):
    with pytest.raises(RequestError):
        inside.trace_influence(REGISTRY, "small-lstm", LONG, place)


def test_effective_contexts_are_compared_in_one_plot_and_in_words():
    plot, said = inside.compare_contexts(REGISTRY, ["small-lstm", "small-rnn"], LONG)
    assert [series["name"] for series in plot["series"]] == ["small-lstm", "small-rnn"]
    assert [line.split(" ")[0] for line in said] == ["small-lstm", "small-rnn"]
    curve = LSTM.effective_context(LONG)
    shown = [value for _, value in plot["series"][0]["points"] if value is not None]
    assert shown == pytest.approx(curve[: len(shown)].tolist())


@pytest.mark.parametrize("names", [None, [], "small-lstm", ["nobody"], ["small-lstm"] * 9])
def test_an_invalid_choice_of_models_is_refused(names):
    with pytest.raises(RequestError):
        inside.compare_contexts(REGISTRY, names, LONG)


@pytest.mark.parametrize("text", [None, 7, "", "☃☃", "a" * (LONGEST_SEARCHED + 1)], ids=lambda text: repr(text)[:12])
def test_an_invalid_text_is_refused(text):
    for ask in (
        lambda: inside.inspect(REGISTRY, "small-lstm", text, "surprisal"),
        lambda: inside.find_units(REGISTRY, "small-lstm", text),
        lambda: inside.trace_influence(REGISTRY, "small-lstm", text, 1),
        lambda: inside.compare_contexts(REGISTRY, ["small-lstm"], text),
    ):
        with pytest.raises(RequestError):
            ask()


def test_a_model_may_write_the_text_itself():
    text = inside.write_text(REGISTRY, "small-lstm")
    assert len(text) == WRITTEN
    assert set(text) <= set(VOCAB)
