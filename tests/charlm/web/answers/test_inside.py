import json
import math

import numpy as np
import pytest
from models import VOCAB, make_lm, uniform_lm

from charlm.errors import RequestError
from charlm.web.answers import inside
from charlm.web.answers.inside import (
    DIFFERENCE,
    LONGEST_INSPECTED,
    LONGEST_SEARCHED,
    LONGEST_TRACED,
    SURPRISAL,
    WRITTEN,
    Inspector,
)
from charlm.web.heat import MOST_DIFFERENCE, MOST_NATS, shades
from charlm.web.models import ModelRegistry, ServedModel

LSTM, RNN, GRU = make_lm("lstm"), make_lm("rnn", seed=1), make_lm("gru", seed=2)
INSPECTOR = Inspector(
    ModelRegistry(
        [
            ServedModel("small-lstm", LSTM, "folder"),
            ServedModel("small-rnn", RNN, "folder"),
            ServedModel("small-gru", GRU, "folder"),
            ServedModel("uniform", uniform_lm("abcd"), "folder"),
        ]
    )
)
LONG = "abc de\nbad cab é한😀\n" * 200


def look(text, colour=SURPRISAL, model_a="small-lstm", model_b="small-rnn"):
    return INSPECTOR.look(model_a, model_b, text, colour)


def test_an_inspected_text_shows_surprisal_and_likeliest_symbols_of_both_models():
    seen = look("abc a☃b")
    for side, name, lm in (("a", "small-lstm", LSTM), ("b", "small-rnn", RNN)):
        heat = seen[side]["heat"]
        assert seen[side]["model"] == name
        assert (heat["text"], heat["kind"]) == ("abc ab", "surprisal")
        assert heat["shades"] == " " + shades(lm.score("abc ab") / MOST_NATS)
        assert heat["details"][0] == []
        for place, expected in enumerate(heat["details"][1:], 1):
            assert len(expected) == 5
            for symbol, probability in expected:
                surprisal = lm.score("abc ab"[:place] + symbol)[-1]
                assert probability == round(math.exp(-surprisal), 3)
        skipped = [f"skipped, as small-{cell} does not know it: '☃'" for cell in ("lstm", "rnn")]
        assert seen[side]["line"].endswith(" · ".join(skipped))
        run = {"model_a": "small-lstm", "model_b": "small-rnn", "text": "abc a☃b", "colour": "surprisal"}
        assert heat["run"] == run
    assert (seen["a"]["units"], seen["longer"]) == (16, "")
    assert json.loads(json.dumps(seen, allow_nan=False))["a"]["heat"]["text"] == "abc ab"


def test_both_models_read_what_both_know():
    seen = look("abé cd", model_b="uniform")
    assert seen["a"]["heat"]["text"] == seen["b"]["heat"]["text"] == "abcd"
    for side in "ab":
        assert seen[side]["line"].endswith("skipped, as uniform does not know it: 'é '")
        assert "small-lstm does not know" not in seen[side]["line"]


def test_a_model_is_not_compared_with_itself():
    assert look("abc", model_b="small-lstm")["b"] is None


def test_four_equally_likely_symbols_are_two_bits_each():
    assert "2.00 bits per character, perplexity 4.0" in look("abba", model_b="uniform")["b"]["line"]


def test_both_texts_are_coloured_by_the_difference_of_the_surprisals():
    seen = look("abc de", DIFFERENCE)
    nats = LSTM.score("abc de") - RNN.score("abc de")
    for side in "ab":
        heat = seen[side]["heat"]
        assert (heat["kind"], heat["shades"]) == (DIFFERENCE, " " + shades((nats / MOST_DIFFERENCE + 1) / 2))


@pytest.mark.parametrize(
    ("unit", "state"), [("hidden 1:3", "hidden"), ("cell 0:7 · inside quotes (0.9)", "cell_state")]
)
def test_a_text_is_coloured_by_the_activation_of_a_unit(unit, state):
    seen = look("abc de", unit)
    layer, number = int(unit.split()[1][0]), int(unit.split()[1][2])
    activations = getattr(LSTM.inspect("abc de"), state)[:, layer, number]
    assert seen["a"]["heat"]["kind"] == "activation"
    assert seen["a"]["heat"]["shades"] == shades((activations / np.abs(activations).max() + 1) / 2)
    assert seen["b"]["heat"]["kind"] == "surprisal"  # the units of one model mean nothing in another
    assert seen["unit"]["title"] == f"Unit {layer}:{number} of small-lstm"
    expected = LSTM.unit_gates(LSTM.inspect("abc de"), layer, number)
    assert seen["unit"]["cell"] == "lstm" and list(seen["unit"]["gates"]) == list(expected.gates)
    for name, values in expected.gates.items():
        assert seen["unit"]["gates"][name] == pytest.approx(values.tolist(), abs=5e-5)


def test_the_text_of_model_b_is_coloured_by_its_own_unit():
    seen = look("abc de", "B hidden 1:3")
    activations = RNN.inspect("abc de").hidden[:, 1, 3]
    assert seen["b"]["heat"]["shades"] == shades((activations / np.abs(activations).max() + 1) / 2)
    assert (seen["a"]["heat"]["kind"], seen["unit"]["title"]) == ("surprisal", "Unit 1:3 of small-rnn")
    assert (seen["unit"]["side"], list(seen["unit"]["gates"])) == ("b", ["sum", "h"])


@pytest.mark.parametrize(("model", "gate"), [("small-lstm", "f"), ("small-gru", "z"), ("small-lstm", "o")])
def test_a_text_is_coloured_by_a_gate_between_shut_and_open(model, gate):
    heat = look("abc de", f"{gate} 1:2", model)["a"]["heat"]
    lm = {"small-lstm": LSTM, "small-gru": GRU}[model]
    assert (heat["kind"], heat["shades"]) == ("gate", shades(lm.inspect("abc de", gates=True).gates[gate][:, 1, 2]))


@pytest.mark.parametrize(("model", "gate"), [("small-lstm", "g"), ("small-gru", "n"), ("small-rnn", "sum")])
def test_what_is_no_gate_between_0_and_1_is_coloured_as_an_activation(model, gate):
    assert look("abc de", f"{gate} 1:2", model)["a"]["heat"]["kind"] == "activation"


def test_without_a_chosen_unit_the_one_that_varies_most_is_shown():
    seen = LSTM.inspect("abc de")
    assert look("abc de")["unit"]["title"] == f"Unit 1:{seen.hidden[:, 1].std(axis=0).argmax()} of small-lstm"


@pytest.mark.parametrize("colour", ["surprisal", "difference"])
def test_a_unit_is_shown_beside_the_colours_of_the_whole_text(colour):
    plain = look("abc de", colour)
    for name, title, side in (("0:7", "Unit 0:7 of small-lstm", "a"), ("1:2", "Unit 1:2 of small-rnn", "b")):
        seen = look("abc de", f"{'B ' if side == 'b' else ''}{colour} {name}")
        assert (seen["unit"]["title"], seen["unit"]["side"]) == (title, side)
        for each in "ab":
            shown, expected = seen[each]["heat"], plain[each]["heat"]
            assert (shown["kind"], shown["shades"]) == (expected["kind"], expected["shades"])


@pytest.mark.parametrize(
    ("model", "colour"),
    [
        ("small-lstm", "surprisal 2:0"),
        ("small-lstm", "surprise 0:0"),
        ("small-lstm", "hidden 2:0"),
        ("small-lstm", "hidden 0:8"),
        ("small-rnn", "cell 0:0"),
        ("small-lstm", "hidden 99999:0"),
        ("small-lstm", "z 0:0"),
        ("small-rnn", "i 0:0"),
        *[("small-lstm", colour) for colour in ("", "unit 3", None, ["hidden 0:0"], 5, "hidden ０:0x", "x" * 10**6)],
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_unit_that_the_model_lacks_is_refused_with_the_valid_range(model, colour):
    with pytest.raises(RequestError, match=r"a layer from 0 to 1, a colon and a unit from 0 to 7") as caught:
        look("abc", colour, model)
    assert len(str(caught.value)) < 300


def test_only_the_beginning_of_a_long_text_is_shown_and_the_line_says_so():
    seen = look("a☃" + "b" * (LONGEST_INSPECTED + 3))
    assert len(seen["a"]["heat"]["text"]) == LONGEST_INSPECTED - 1
    assert "the first 5,000 of 5,005 are shown" in seen["a"]["line"]
    assert seen["longer"] == "a" + "b" * (LONGEST_INSPECTED + 3)


def test_a_single_character_has_no_surprisal():
    seen = look("a")["a"]
    assert (seen["heat"]["shades"], seen["heat"]["details"], seen["line"]) == (" ", [[]], "1 character")


def test_units_that_were_found_can_be_chosen():
    found = INSPECTOR.find_units("small-lstm", LONG)
    assert len(found) > 3
    for described in found:
        assert look("abc", described)["a"]["heat"]["kind"] == "activation"
    best = LSTM.find_units(LONG, 1)
    unit = best["position in the line"][0]
    assert any(each.startswith(f"{unit.state} {unit.layer}:{unit.unit} · position in the line") for each in found)


def test_characters_before_a_prediction_are_coloured_by_their_influence():
    found = INSPECTOR.trace_influence("small-lstm", LONG, 25)
    norms = LSTM.influence(LONG[:26])
    assert found["first"] == 0
    assert found["shades"] == shades(norms / norms.max())
    half = next(n for n in range(1, 26) if norms[-n:].sum() >= norms.sum() / 2)
    last = "character" if half == 1 else f"{half} characters"
    assert found["line"] == (
        f"Half of the influence on this prediction came from the last {last}; the underline shows how much from each."
    )


def test_influence_is_traced_over_a_limited_number_of_characters():
    found = INSPECTOR.trace_influence("small-rnn", LONG, 1000)
    assert (found["first"], len(found["shades"])) == (1000 - LONGEST_TRACED, LONGEST_TRACED)


@pytest.mark.parametrize("place", [0, -1, None, "3", 1.5, len(LONG)])
def test_a_place_without_anything_before_it_is_refused(place):
    with pytest.raises(RequestError):
        INSPECTOR.trace_influence("small-lstm", LONG, place)


def test_a_pattern_is_that_of_the_model_in_the_text_or_a_longer_one():
    seen = LSTM.inspect(LONG[:100])
    start = next(place for place in range(100) if LSTM.find_pattern(seen, place, place + 1).units)
    found = INSPECTOR.find_pattern("small-lstm", LONG[:100] + "☃", "", start, start + 1, 0.3)
    expected = LSTM.find_pattern(seen, start, start + 1)
    assert (found["units"], found["places"], found["searched"]) == (expected.units, expected.places, 100)
    longer = INSPECTOR.find_pattern("small-lstm", LONG[:100], "☃" + LONG[:400], start, start + 1, 0.3)
    assert longer["searched"] == 400
    assert longer["places"] == LSTM.find_pattern(seen, start, start + 1, within=LONG[:400]).places


@pytest.mark.parametrize(
    ("longer", "start", "end", "threshold"),
    [
        ("", None, 3, 0.3),
        ("", 2, 1, 0.3),
        ("", 0, 10**9, 0.3),
        ("", 0, 3, "x"),
        ("a" * 10**6, 0, 3, 0.3),
        (7, 0, 3, 0.3),
    ],
    ids=lambda value: repr(value)[:8],
)
def test_an_impossible_pattern_is_refused(longer, start, end, threshold):
    with pytest.raises(RequestError):
        INSPECTOR.find_pattern("small-lstm", LONG, longer, start, end, threshold)


def test_a_search_for_a_pattern_has_little_time(monkeypatch):
    monkeypatch.setattr(inside, "SEARCH_SECONDS", 0)
    seen = LSTM.inspect(LONG[:100])
    start = next(place for place in range(100) if LSTM.find_pattern(seen, place, place + 1).units)
    found = INSPECTOR.find_pattern("small-lstm", LONG[:100], LONG, start, start + 1, 0.3)
    assert found["units"] and (found["places"], found["searched"]) == ([], 0)


def test_effective_contexts_are_compared_in_one_plot_and_in_words():
    plot, said = INSPECTOR.compare_contexts(["small-lstm", "small-rnn"], LONG)
    assert [series["name"] for series in plot["series"]] == ["small-lstm", "small-rnn"]
    assert [line.split(" ")[0] for line in said] == ["small-lstm", "small-rnn"]
    curve = LSTM.effective_context(LONG)
    shown = [value for _, value in plot["series"][0]["points"] if value is not None]
    assert shown == pytest.approx(curve[: len(shown)].tolist())


@pytest.mark.parametrize("names", [None, [], "small-lstm", ["nobody"], ["small-lstm"] * 9])
def test_an_invalid_choice_of_models_is_refused(names):
    with pytest.raises(RequestError):
        INSPECTOR.compare_contexts(names, LONG)


@pytest.mark.parametrize("text", [None, 7, "", "☃☃", "a" * (LONGEST_SEARCHED + 1)], ids=lambda text: repr(text)[:12])
def test_an_invalid_text_is_refused(text):
    for ask in (
        lambda: look(text),
        lambda: INSPECTOR.find_units("small-lstm", text),
        lambda: INSPECTOR.trace_influence("small-lstm", text, 1),
        lambda: INSPECTOR.find_pattern("small-lstm", text, "", 0, 1, 0.3),
        lambda: INSPECTOR.compare_contexts(["small-lstm"], text),
    ):
        with pytest.raises(RequestError):
            ask()


def test_a_model_may_write_the_text_itself():
    text = INSPECTOR.write_text("small-lstm")
    assert len(text) == WRITTEN
    assert set(text) <= set(VOCAB)
