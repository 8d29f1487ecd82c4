import numpy as np
import pytest
from models import VOCAB, make_config, make_lm, make_weights

from charlm.analysis import pattern
from charlm.analysis.pattern import LONGEST_PATTERN, find_places, units_on
from charlm.errors import RequestError, VocabError
from charlm.lm import CharLM

TEXT = "".join(np.random.default_rng(0).choice(list(VOCAB), 1000))


def switch_lm():
    """A model with 4 units: the first two are near 1 at a and b, the third at a alone, the last nowhere."""
    config = make_config("rnn", vocab="abc", embedding_size=1, hidden_size=4, num_layers=1)
    weights = {name: np.zeros(shape, np.float32) for name, shape in config.tensor_shapes.items()}
    weights["embedding.weight"][:] = [[2], [1], [0]]
    weights["recurrent.weight_ih_l0"][:] = [[9], [9], [9], [0]]
    weights["recurrent.bias_ih_l0"][:] = [-3, -3, -12, -3]
    return CharLM(config, weights, device="cpu")


def test_the_units_of_a_stretch_are_on_in_all_of_it_and_off_before_and_after():
    lm = switch_lm()
    seen = lm.inspect("ccaabbcc")
    assert lm.find_pattern(seen, 2, 6, 0.3).units == [(0, 0), (0, 1)]
    assert lm.find_pattern(seen, 2, 4, 0.3).units == [(0, 2)]  # the first two are still on after it
    assert lm.find_pattern(seen, 2, 7, 0.3).units == []
    assert lm.find_pattern(lm.inspect("aab"), 0, 3, 0.3).units == [(0, 0), (0, 1)]  # the text ends


def test_a_higher_threshold_leaves_fewer_units():
    hidden = np.array([[[0.1, -0.5, 0.4]], [[0.5, 0.2, 0.5]], [[0.1, -0.5, 0.45]]])
    counts = [units_on(hidden, 1, 2, threshold) for threshold in (-0.9, 0.15, 0.3, 0.47, 0.5)]
    assert counts == [[], [(0, 0), (0, 1)], [(0, 0)], [(0, 0), (0, 2)], []]


def test_other_places_are_those_where_the_same_units_are_on_the_largest_share_first():
    lm = switch_lm()
    text = "ccaacc" + "bbb" + "ccaac"
    found = lm.find_pattern(lm.inspect("caac"), 1, 3, 0.3, within=text)
    assert found.units == [(0, 0), (0, 1), (0, 2)]
    assert found.places == [(2, 4, 1.0), (11, 13, 1.0), (6, 8, pytest.approx(2 / 3))]
    assert found.searched == len(text)
    # the stretch itself is no other place
    same = lm.find_pattern(lm.inspect(text), 2, 4, 0.3)
    assert [place[:2] for place in same.places] == [(11, 13), (6, 8)]


def places_by_hand(hidden, units, length, threshold):
    on = np.array([hidden[:, layer, unit] > threshold for layer, unit in units])
    shares = np.array([on[:, start : start + length].all(axis=1).mean() for start in range(len(hidden) - length + 1)])
    places, taken = [], set()
    for start in sorted(range(len(shares)), key=lambda start: -shares[start]):
        if shares[start] >= 0.5 and taken.isdisjoint(range(start, start + length)):
            places.append((start, start + length, pytest.approx(shares[start])))
            taken |= set(range(start, start + length))
    return places[: pattern.MOST_PLACES]


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("alone", [2000, 100])  # read as a whole, or in stretches side by side
def test_the_places_are_those_that_all_hidden_states_show(cell, alone, monkeypatch):
    monkeypatch.setattr(pattern, "READ_ALONE", alone)
    monkeypatch.setattr(pattern, "WARM_UP_SYMBOLS", 50)
    config = make_config(cell)
    lm = CharLM(config, make_weights(config, scale=0.3), device="cpu")  # it forgets within the warm-up
    units = [(0, 1), (1, 2), (1, 5), (0, 7)]
    hidden = lm.inspect(TEXT).hidden
    threshold = float(np.median([hidden[:, layer, unit] for layer, unit in units]))
    expected = places_by_hand(hidden, units, 2, threshold)
    found, searched = find_places(lm.engine, lm.vocab.encode(TEXT), units, 2, threshold)
    assert len(expected) > 5
    assert found == expected
    assert searched == len(TEXT)


def test_a_search_ends_in_time_and_says_how_far_it_came():
    lm = switch_lm()
    found = lm.find_pattern(lm.inspect("caac"), 1, 3, within="caac" * 9, seconds=0)
    assert found.units and (found.places, found.searched) == ([], 0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((-1, 2), RequestError, "start is -1"),
        ((2, 2), RequestError, "end is 2; it must be from 3 to 400"),
        ((2, 401), RequestError, "end is 401"),
        ((0, LONGEST_PATTERN + 1), RequestError, "the stretch has 201 characters; select at most 200"),
        ((0, 2, 1.5), RequestError, "threshold is 1.5; it must be from -1 to 1"),
        ((0, 2, None), RequestError, "threshold is None"),
    ],
)
def test_a_stretch_or_a_threshold_out_of_bounds_is_refused(arguments, error, message):
    lm = make_lm()
    with pytest.raises(error, match=message):
        lm.find_pattern(lm.inspect(TEXT[:400]), *arguments)


def test_an_empty_text_has_no_stretch():
    lm = make_lm()
    with pytest.raises(RequestError, match="the text is empty, so no stretch of it can be selected"):
        lm.find_pattern(lm.inspect(""), 0, 1)


def test_a_text_to_search_with_an_unknown_symbol_is_refused():
    lm = make_lm()
    with pytest.raises(VocabError, match="☃"):
        lm.find_pattern(lm.inspect("abc"), 0, 1, within="a☃")
