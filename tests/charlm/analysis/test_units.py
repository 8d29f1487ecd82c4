import math
import re
import tracemalloc

import numpy as np
import pytest
from models import make_lm

from charlm.analysis.units import FEATURES, STRETCHES, WARM_UP_STEPS, _fit_line, _rank, _separate
from charlm.errors import RequestError
from charlm.lm import CharLM
from charlm.model.cells import CELLS
from charlm.model.config import ModelConfig

MEASURES = {feature.name: feature.measure for feature in FEATURES}
PLAY = 'ROMEO:\nAy, me! said I.\nNo 12 (or so).\n\nLADY JANE:\nBe "so kind" now.\n  x # why\n'


def marked(name, text=PLAY):
    """The parts of a text that have a feature."""
    values = MEASURES[name](text)
    assert set(values) <= {0, 1} and len(values) == len(text)
    marks = "".join("#" if value else " " for value in values)
    return [text[part.start() : part.end()] for part in re.finditer("#+", marks)]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("end of a line", ["\n", "\n", "\n\n", "\n", "\n", "\n"]),
        ("empty line", ["\n"]),
        ("first word of a line", ["ROMEO", "Ay", "No", "LADY", "Be"]),
        ("in a speaker's name", ["ROMEO", "LADY JANE"]),
        ("in capitals", ["ROMEO", "LADY", "JANE"]),
        ("capital letter", ["ROMEO", "A", "I", "N", "LADY", "JANE", "B"]),
        ("digit", ["12"]),
        ("after the end of a sentence", [" ", "\n", "\n\n", "\n  "]),
        ("inside quotes", ["so kind"]),
        ("inside brackets", ["or so"]),
        ("indentation", ["  "]),
        ("in a comment", ["# why"]),
    ],
)
def test_a_feature_is_where_a_person_sees_it(name, parts):
    assert marked(name) == parts


def test_the_end_of_a_comment_is_searched_only_so_far_that_a_hostile_text_takes_no_time():
    mark = MEASURES["in a comment"]
    assert mark(f"/*{'a' * 2000}*/").all()
    # each of these beginnings would else be searched to the end of the text: 17 s for 100,000 characters
    assert not mark("/* " * 1000 + "*/")[:-2200].any()


def test_vowels_spaces_and_punctuation_are_marked_one_by_one():
    assert marked("vowel", "Abide, you") == ["A", "i", "e", "you"]
    assert marked("space", "a  b\nc ") == ["  ", " "]
    assert marked("punctuation", "a,b!?_\n'") == [",", "!?", "'"]


def test_places_are_counted_from_the_last_start():
    assert MEASURES["position in the line"]("ab\ncd\n\ne").tolist() == [0, 1, 0, 1, 2, 0, 0, 1]
    assert MEASURES["position in the word"](" ab, c").tolist() == [0, 1, 2, 0, 0, 1]


def counting_lm():
    """An LSTM made by hand: cell unit 1 counts symbols since the last newline, hidden unit 0 is on at a newline."""
    config = ModelConfig("lstm", "\nab", 3, 4, 1, 0.0)
    weights = {name: np.zeros(shape, np.float32) for name, shape in config.tensor_shapes.items()}
    weights["embedding.weight"] = np.eye(3, dtype=np.float32)
    inputs, bias = weights["recurrent.weight_ih_l0"], weights["recurrent.bias_ih_l0"]
    enter, forget, new, leave = (slice(4 * gate, 4 * gate + 4) for gate in range(4))
    bias[leave] = 20  # open
    bias[enter] = 20
    # unit 0: never kept, and it takes in whether this is a newline
    bias[forget.start] = -20
    inputs[new.start, 0], bias[new.start] = 40, -20
    # unit 1: one more at every symbol; all forgotten at a newline, which itself adds nothing
    bias[forget.start + 1], inputs[forget.start + 1, 0] = 20, -40
    bias[new.start + 1], inputs[new.start + 1, 0] = 20, -20
    return CharLM(config, weights, device="cpu")


def lines(seed=0, count=400):
    random = np.random.default_rng(seed)
    return "".join("".join(random.choice(["a", "b"], random.integers(5, 40))) + "\n" for _ in range(count))


def test_units_that_were_made_to_track_something_are_found():
    found = counting_lm().find_units(lines(), best=4)
    first = found["position in the line"][0]
    assert (first.state, first.layer, first.unit, first.rises) == ("cell", 0, 1, True)
    assert first.score > 0.999
    # the counter is at 0 at a newline alone, so that it tells one too: by being low
    told = {(unit.state, unit.unit, unit.rises): unit.score for unit in found["end of a line"]}
    assert told == {("hidden", 0, True): 1, ("cell", 0, True): 1, ("hidden", 1, False): 1, ("cell", 1, False): 1}


def test_features_that_a_text_lacks_are_left_out_and_units_that_do_nothing_tell_nothing():
    found = counting_lm().find_units(lines(), best=8)
    assert set(found) == {
        "position in the line",
        "position in the word",
        "end of a line",
        "vowel",
        "first word of a line",
    }
    idle = [unit for unit in found["end of a line"] if unit.unit in (2, 3)]
    assert len(idle) == 4
    assert all(abs(unit.score - 0.5) < 0.1 for unit in idle)  # equal values in random order


def test_the_area_counts_the_pairs_in_the_right_order():
    random = np.random.default_rng(1)
    shown, tested = random.standard_normal((2, 5, 60))
    tested[2] = tested[2].round()  # many equal ones: each pair of them counts for about a half
    shown_values, tested_values = (random.random((2, 60)) < 0.3).astype(float)
    rises, areas = _separate(shown, shown_values, _rank(tested), tested_values)
    for unit in range(5):
        higher = shown[unit, shown_values == 1].mean() > shown[unit, shown_values == 0].mean()
        assert rises[unit] == higher
        with_it, without = tested[unit, tested_values == 1], tested[unit, tested_values == 0]
        pairs = [np.sign(a - b) / 2 + 0.5 for a in with_it for b in without]
        expected = np.mean(pairs) if higher else 1 - np.mean(pairs)
        assert areas[unit] == pytest.approx(expected, abs=0.05 if unit == 2 else 1e-12)


def test_the_share_explained_is_that_of_a_line_fitted_elsewhere():
    random = np.random.default_rng(2)
    shown, tested = random.standard_normal((2, 4, 50))
    shown_values, tested_values = 3 * shown[0] + random.standard_normal(50), 3 * tested[0] + random.standard_normal(50)
    rises, scores = _fit_line(shown, shown_values, tested, tested_values)
    for unit in range(4):
        slope, intercept = np.polyfit(shown[unit], shown_values, 1)
        errors = tested_values - slope * tested[unit] - intercept
        assert scores[unit] == pytest.approx(
            1 - errors.var() / tested_values.var() - errors.mean() ** 2 / tested_values.var()
        )
        assert rises[unit] == (slope > 0)


def test_a_short_text_is_refused():
    with pytest.raises(RequestError, match="the text has 2,047 characters that the model knows; .* at least 2,048"):
        counting_lm().find_units("ab\n" * 682 + "a")
    assert counting_lm().find_units(lines()[: 128 * STRETCHES])


@pytest.mark.parametrize(("best", "count"), [(1, 1), (2.0, 2), (np.int64(8), 8), (9, 8), (10**400, 8)])
def test_as_many_units_are_returned_as_were_asked_for_if_there_are_so_many(best, count):
    found = counting_lm().find_units(lines(), best)  # four hidden and four cell units
    assert {len(units) for units in found.values()} == {count}


@pytest.mark.parametrize("best", [0, -1, -8, 1.5, math.nan, math.inf, None, True, "3"])
def test_fewer_units_than_one_or_no_whole_number_of_them_are_refused(best):
    with pytest.raises(RequestError, match="^best is .*; it must be (from 1|a whole number)$"):
        counting_lm().find_units(lines(), best)


@pytest.mark.parametrize("cell", CELLS)
def test_units_that_are_probed_in_groups_have_the_same_scores(monkeypatch, cell):
    lm, text = make_lm(cell, vocab="\nab", hidden_size=7, num_layers=2), lines()
    whole = lm.find_units(text, best=28)
    monkeypatch.setattr("charlm.analysis.units.PROBED_AT_ONCE", 3 * (len(text) - STRETCHES * WARM_UP_STEPS))
    in_groups = lm.find_units(text, best=28)
    for name, units in whole.items():
        scores = {(unit.state, unit.layer, unit.unit): unit.score for unit in units}
        assert {(unit.state, unit.layer, unit.unit): unit.score for unit in in_groups[name]} == pytest.approx(
            scores, abs=1e-6
        )


def test_searching_units_takes_little_memory_beside_their_states(monkeypatch):
    lm, text = make_lm("rnn", vocab="\nab", hidden_size=500, num_layers=1), lines()[: 128 * STRETCHES]
    lm.find_units(text)
    monkeypatch.setattr("charlm.analysis.units.PROBED_AT_ONCE", 2**16)
    tracemalloc.start()
    lm.find_units(text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    states = 4 * 128 * STRETCHES * 500  # bytes
    assert states < peak < 1.4 * states
