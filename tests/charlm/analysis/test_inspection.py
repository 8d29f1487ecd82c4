import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import VOCAB, laws, make_config, make_lm, make_weights, save, uniform_lm
from reference import load_plain, log_softmax

from charlm.analysis.inspection import PredictionReader
from charlm.errors import RequestError, VocabError
from charlm.inference import sampling
from charlm.lm import CharLM
from charlm.model.cells import CELLS
from charlm.model.folder import Model

TEXT = "a bad cab\né한😀 dead\n\nbee"


@pytest.fixture(scope="module", params=CELLS)
def pair(request, tmp_path_factory):
    """A model, and the same in plain torch.nn."""
    config = make_config(request.param, hidden_size=70, num_layers=3)
    # small enough to forget: in a chaotic network rounding would grow into differences
    model = Model(config, make_weights(config, scale=0.15), None)
    folder = save(model, tmp_path_factory.mktemp("model"))
    return CharLM(config, model.weights, device="cpu"), load_plain(folder)[0]


def plain_reading(plain, ids):
    """The logits (N, V) and the states of torch.nn after each symbol, (N, L, H) each."""
    logits, states, state = [], [], None
    for symbol in ids:
        out, state = plain(torch.tensor([int(symbol)]), state)
        logits.append(out[0].numpy())
        states.append(state if isinstance(state, tuple) else (state,))
    return np.array(logits), [np.array([part[k].numpy() for part in states]) for k in range(len(states[0]))]


def test_what_is_seen_is_what_torch_computes(pair):
    lm, plain = pair
    seen, ids = lm.inspect(TEXT), lm.vocab.encode(TEXT)
    logits, states = plain_reading(plain, ids)
    log_probabilities = log_softmax(logits)
    assert seen.text == TEXT
    np.testing.assert_allclose(seen.hidden, states[0], atol=1e-5)
    if len(states) == 2:
        np.testing.assert_allclose(seen.cell, states[1], atol=1e-5)
    else:
        assert seen.cell is None
    for place in range(1, len(TEXT)):
        expected = log_probabilities[place - 1]
        assert seen.surprisals[place] == pytest.approx(-expected[ids[place]], abs=1e-5)
        ranking = sorted(range(len(VOCAB)), key=lambda symbol: -expected[symbol])[:5]
        assert seen.likeliest[place].tolist() == ranking
        np.testing.assert_allclose(seen.probabilities[place], np.exp(expected[ranking]), atol=1e-5)


@pytest.mark.slow
@laws
@given(text=st.text(st.sampled_from(VOCAB), max_size=30))
def test_the_surprisals_are_those_of_score(text):
    lm = make_lm("gru")
    seen = lm.inspect(text)
    assert len(seen.surprisals) == len(seen.likeliest) == len(seen.probabilities) == len(seen.hidden) == len(text)
    np.testing.assert_allclose(seen.surprisals[1:], lm.score(text), atol=1e-6)
    assert np.isnan(seen.surprisals[:1]).all() and np.isnan(seen.probabilities[:1]).all()


@pytest.mark.parametrize("most", [1, 30, 100])
def test_what_is_seen_does_not_depend_on_how_many_logits_there_are_at_a_time(most, monkeypatch):
    lm = make_lm("lstm")
    expected = lm.inspect(TEXT)
    monkeypatch.setattr(sampling, "MOST_LOGITS", most)
    for name, seen in vars(lm.inspect(TEXT)).items():
        np.testing.assert_array_equal(seen, getattr(expected, name))


def test_of_equally_likely_symbols_the_first_are_shown():
    seen = uniform_lm(VOCAB).inspect(TEXT)
    assert (seen.likeliest[1:] == [0, 1, 2, 3, 4]).all()
    np.testing.assert_allclose(seen.probabilities[1:], 1 / len(VOCAB))


def test_a_small_vocabulary_has_fewer_than_five_likeliest():
    seen = make_lm(vocab="abc").inspect("abcab")
    assert seen.likeliest.shape == (5, 3)
    np.testing.assert_allclose(seen.probabilities[1:].sum(axis=1), 1, atol=1e-6)


def test_an_unknown_symbol_or_no_text_is_refused():
    with pytest.raises(VocabError, match="'Q'"):
        make_lm().inspect("aQ")
    with pytest.raises(RequestError, match="must be a string"):
        make_lm().inspect(7)


@pytest.mark.parametrize("most", [1, 200, sampling.MOST_LOGITS])
@pytest.mark.parametrize("cuts", [[], [1, 2, 3], [0, 5, 5, 11]], ids=str)
def test_a_text_read_in_pieces_has_the_predictions_that_torch_computes(pair, cuts, most, monkeypatch):
    monkeypatch.setattr(sampling, "MOST_LOGITS", most)
    lm, plain = pair
    ids = lm.vocab.encode("bad\n" + TEXT)
    log_probabilities = log_softmax(plain_reading(plain, ids)[0])[3:-1]
    reader = PredictionReader(lm.engine, ids[:4])
    parts = [reader.read(piece) for piece in np.split(ids[4:], cuts)]
    chosen, likeliest, likeliest_log_probs = (np.concatenate(each) for each in zip(*parts, strict=True))
    np.testing.assert_allclose(chosen, np.take_along_axis(log_probabilities, ids[4:, None], 1)[:, 0], atol=1e-5)
    ranking = np.argsort(-log_probabilities, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(likeliest, ranking)
    np.testing.assert_allclose(likeliest_log_probs, np.take_along_axis(log_probabilities, ranking, 1), atol=1e-5)


def test_log_probabilities_are_finite_where_probabilities_are_0():
    lm = make_lm(vocab="abc")
    lm._weights["head.bias"][:] = [0, -2000, -3000]
    chosen, _, log_probs = PredictionReader(lm.engine, lm.vocab.encode("a")).read(lm.vocab.encode("cab"))
    assert chosen[0] == pytest.approx(-3000, rel=0.01) and np.isfinite(log_probs).all()
