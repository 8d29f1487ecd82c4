import subprocess
import sys

import numpy as np
import pytest
from browser import ROOT
from models import VOCAB, make_config, make_lm, make_weights
from reference import forward_by_hand, log_softmax

from charlm.analysis import context
from charlm.analysis.context import ROUNDING, WARM_UP_SYMBOLS, context_length, measure_effective_context
from charlm.errors import RequestError, VocabError
from charlm.inference import sampling
from charlm.lm import CharLM
from charlm.model.cells import CELLS

TEXT = "".join(np.random.default_rng(0).choice(list(VOCAB), 400))


def changes(ids, longest, places, seed):
    """The places and the symbols that the measurement draws for them."""
    symbols = np.unique(ids)
    drawn = symbols[np.random.default_rng(seed).integers(len(symbols) - 1, size=places)]
    for place, other in zip(np.linspace(WARM_UP_SYMBOLS, len(ids) - longest, places).astype(int), drawn, strict=True):
        yield place, symbols[-1] if other == ids[place] else other


def divergences(lm, ids, place, other, longest):
    """Read ids twice, the second time with one of them changed; return the divergence at each distance."""
    changed = ids.copy()
    changed[place] = other
    assert (changed != ids).sum() == 1
    true, altered = (log_softmax(forward_by_hand(lm.config.cell, lm._weights, text)) for text in (ids, changed))
    divergence = (np.exp(altered) * (altered - true)).sum(axis=1)
    assert (divergence[:place] == 0).all()
    return divergence[place : place + longest]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_curve_is_what_reading_everything_again_with_one_symbol_changed_shows(cell, layers):
    lm = make_lm(cell, num_layers=layers)
    ids = lm.vocab.encode(TEXT[:90])
    curve = measure_effective_context(lm.engine, ids, longest=12, places=4, seed=5)
    expected = np.mean([divergences(lm, ids, *change, 12) for change in changes(ids, 12, 4, 5)], axis=0)
    assert curve == pytest.approx(expected, rel=1e-3, abs=1e-7)
    assert curve[0] > 1e-4


@pytest.mark.parametrize("cell", CELLS)
def test_of_a_long_text_only_what_lies_around_the_places_is_read(cell):
    lm = make_lm(cell)
    ids, longest = lm.vocab.encode(TEXT), 9
    curve = measure_effective_context(lm.engine, ids, longest, places=5, seed=2)
    expected = np.zeros(longest)
    for place, other in changes(ids, longest, 5, 2):
        around = ids[place - WARM_UP_SYMBOLS : place + longest]
        expected += divergences(lm, around, WARM_UP_SYMBOLS, other, longest) / 5
    assert curve == pytest.approx(expected, rel=1e-3, abs=1e-7)


@pytest.mark.parametrize("cell", CELLS)
def test_rounding_makes_no_divergence_negative(cell):
    config = make_config(cell)
    lm = CharLM(config, make_weights(config, scale=0.1), device="cpu")  # it forgets within some symbols
    curve = measure_effective_context(lm.engine, lm.vocab.encode(TEXT), longest=200, places=1)
    assert curve.min() == 0
    assert curve[20:].max() < ROUNDING


@pytest.mark.parametrize("places", [5, 9])  # read around, side by side; and as a whole
@pytest.mark.parametrize("at_once", [1, 7, 400])
def test_the_curve_does_not_depend_on_how_much_is_read_at_once(places, at_once, monkeypatch):
    lm = make_lm("gru")
    ids = lm.vocab.encode(TEXT)
    expected = measure_effective_context(lm.engine, ids, 10, places)
    monkeypatch.setattr(context, "DISTANCES_PER_PASS", at_once)
    assert measure_effective_context(lm.engine, ids, 10, places) == pytest.approx(expected, rel=1e-6, abs=ROUNDING)


@pytest.mark.parametrize("places", [5, 9])
@pytest.mark.parametrize("most", [1, 30, 100])  # logits: one place, three, all
def test_the_curve_does_not_depend_on_how_many_logits_there_are_at_a_time(places, most, monkeypatch):
    lm = make_lm("lstm")
    ids = lm.vocab.encode(TEXT)
    expected = measure_effective_context(lm.engine, ids, 10, places)
    monkeypatch.setattr(sampling, "MOST_LOGITS", most)
    assert measure_effective_context(lm.engine, ids, 10, places) == pytest.approx(expected, rel=1e-6, abs=ROUNDING)


def with_one_symbol_of_context(cell="rnn"):
    """A model of one layer that forgets everything but the symbol before."""
    config = make_config(cell, num_layers=1)
    weights = make_weights(config)
    weights["recurrent.weight_hh_l0"][:] = 0
    return CharLM(config, weights, device="cpu")


def test_a_model_that_looks_at_one_symbol_forgets_a_change_at_once():
    curve = with_one_symbol_of_context().effective_context(TEXT, longest=20)
    assert curve[0] > 0.01
    assert curve[1:].max() < ROUNDING
    assert context_length(curve) == 1


def test_a_model_that_keeps_a_switch_never_forgets_who_turned_it():
    """h' = tanh(3 h + 9 x) with x = 1 for a, -1 for b, 0 for c: it tells which of a and b came last, however long."""
    config = make_config("rnn", vocab="abc", embedding_size=1, hidden_size=1, num_layers=1)
    weights = {name: np.zeros(shape, np.float32) for name, shape in config.tensor_shapes.items()}
    weights["embedding.weight"][:] = [[1], [-1], [0]]
    weights["recurrent.weight_ih_l0"][:] = 9
    weights["recurrent.weight_hh_l0"][:] = 3
    weights["head.weight"][:] = [[2], [-2], [0]]
    lm = CharLM(config, weights, device="cpu")
    text = "ba" + 450 * "c"
    curve = lm.effective_context(text, longest=300)

    kept = 0.9949062  # h = tanh(3 h)
    after_a = np.exp(2 * kept) / (np.exp(2 * kept) + np.exp(-2 * kept) + 1)
    after_b = np.exp(-2 * kept) / (np.exp(2 * kept) + np.exp(-2 * kept) + 1)
    # a c that becomes an a is no change to the switch, one that becomes a b turns it
    turned = np.mean([other == 1 for _, other in changes(lm.vocab.encode(text), 300, context.CHANGES, 0)])
    assert 0.2 < turned < 0.8
    assert curve[3:] == pytest.approx(turned * (after_b - after_a) * -4 * kept, rel=1e-4)
    assert context_length(curve) == 300


@pytest.mark.parametrize(
    ("curve", "reach"),
    [([0.5, 0.02, 0.001], 2), ([0.5, 0.001, 0.02, 0.0], 3), ([0.0, 0.0], 0), ([1.0, 1.0], 2), ([0.01, 0.01], 0)],
)
def test_the_context_length_is_the_last_distance_above_the_threshold(curve, reach):
    assert context_length(np.array(curve)) == reach


def test_the_context_length_is_larger_for_a_lower_threshold():
    curve = np.array([0.5, 0.02, 1e-3, 1e-5])
    assert [context_length(curve, threshold) for threshold in (1, 0.1, 0.01, 1e-4, 0)] == [0, 1, 2, 3, 4]


def test_the_seed_decides_what_is_changed():
    engine, ids = make_lm("gru").engine, make_lm("gru").vocab.encode(TEXT)
    once, again, other = (measure_effective_context(engine, ids, 20, 8, seed) for seed in (1, 1, 2))
    assert (once == again).all()
    assert (once != other).any()


def test_the_shortest_text_that_is_long_enough():
    lm = make_lm()
    longest = len(TEXT) - WARM_UP_SYMBOLS - context.CHANGES
    assert lm.effective_context(TEXT, longest).shape == (longest,)
    with pytest.raises(RequestError, match=f"has 399 characters .* to look {longest} back takes at least 400"):
        lm.effective_context(TEXT[:-1], longest)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("abc", RequestError, "the text has 3 characters that the model knows; to look 256 back takes at least 384"),
        ("a" * 1000, RequestError, "only one distinct character"),
        ("ab☃" * 200, VocabError, "☃"),
        (None, RequestError, "text is None; it must be a string"),
    ],
)
def test_a_text_that_is_too_short_or_of_one_symbol_is_refused(text, error, message):
    with pytest.raises(error, match=message):
        make_lm().effective_context(text)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"longest": 0}, "longest is 0; it must be from 1"),
        ({"longest": 10**5000}, "longest is a huge number"),
        ({"places": 0}, "places is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_number_out_of_bounds_is_refused(argument, message):
    lm = make_lm()
    with pytest.raises(RequestError, match=message):
        measure_effective_context(lm.engine, lm.vocab.encode(TEXT), **argument)


def test_measuring_it_loads_no_torch():
    code = """
import sys
from charlm import CharLM

CharLM.from_pretrained("weights/shakespeare-rnn", device="cpu").effective_context("to be or not " * 30, longest=8)
print("torch" in sys.modules)
"""
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "False\n"
