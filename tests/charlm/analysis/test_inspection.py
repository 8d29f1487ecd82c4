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
        np.testing.assert_allclose(seen.cell_state, states[1], atol=1e-5)
    else:
        assert seen.cell_state is None
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


def gates_by_hand(cell, plain, ids):
    """The gates of the documentation of torch.nn, (N, L, H) each, from its weights and the states that it returns."""
    states = plain_reading(plain, ids)[1]
    hidden = states[0]
    x, found = plain.embedding.weight[torch.tensor(ids)], []
    for layer in range(hidden.shape[1]):
        w, u, b, d = (
            getattr(plain.recurrent, f"{name}_l{layer}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        h = torch.tensor(np.concatenate([np.zeros_like(hidden[:1, layer]), hidden[:-1, layer]]))
        wx, uh = x @ w.T + b, h @ u.T + d
        if cell == "rnn":
            found.append({"sum": wx + uh})
        elif cell == "lstm":
            i, f, g, o = (wx + uh).chunk(4, dim=1)
            found.append(
                {"i": i.sigmoid(), "f": f.sigmoid(), "g": g.tanh(), "o": o.sigmoid(), "c": states[1][:, layer]}
            )
        else:
            (wr, wz, wn), (ur, uz, un) = wx.chunk(3, dim=1), uh.chunk(3, dim=1)
            r = (wr + ur).sigmoid()
            found.append({"r": r, "z": (wz + uz).sigmoid(), "n": (wn + r * un).tanh()})
        found[-1]["h"] = hidden[:, layer]
        x = torch.tensor(hidden[:, layer])
    return {name: np.stack([np.asarray(layer[name]) for layer in found], axis=1) for name in found[0]}


def test_the_gates_are_those_of_torch(pair):
    lm, plain = pair
    expected = gates_by_hand(lm.config.cell, plain, lm.vocab.encode(TEXT))
    found = lm.inspect(TEXT, gates=True).gates
    assert found.keys() == expected.keys()
    for name, gate in expected.items():
        np.testing.assert_allclose(found[name], gate, atol=1e-4)

    one = lm.unit_gates(lm.inspect(TEXT), 2, 69)
    assert (one.cell, one.layer, one.unit) == (lm.config.cell, 2, 69)
    for name, gate in expected.items():
        np.testing.assert_allclose(one.gates[name], gate[:, 2, 69], atol=1e-4)


def test_the_gates_of_one_step_give_the_next_state():
    lm = make_lm("lstm")
    gate = lm.unit_gates(lm.inspect(TEXT), 1, 3).gates
    c = np.concatenate([[0], gate["c"][:-1]])
    np.testing.assert_allclose(gate["f"] * c + gate["i"] * gate["g"], gate["c"], atol=1e-5)
    np.testing.assert_allclose(gate["o"] * np.tanh(gate["c"]), gate["h"], atol=1e-5)
    lm = make_lm("gru")
    gate = lm.unit_gates(lm.inspect(TEXT), 1, 3).gates
    h = np.concatenate([[0], gate["h"][:-1]])
    np.testing.assert_allclose((1 - gate["z"]) * gate["n"] + gate["z"] * h, gate["h"], atol=1e-5)


def test_saturation_is_the_share_of_the_text_where_a_gate_is_nearly_shut_or_open():
    lm = make_lm("lstm")
    one = lm.unit_gates(lm.inspect(TEXT), 0, 5)
    assert list(one.saturation) == ["i", "f", "o"]
    for name, (shut, open_) in one.saturation.items():
        values = one.gates[name].tolist()
        assert shut == pytest.approx(sum(value < 0.1 for value in values) / len(TEXT))
        assert open_ == pytest.approx(sum(value > 0.9 for value in values) / len(TEXT))
    assert any(0 < share < 1 for shares in one.saturation.values() for share in shares)
    assert make_lm("rnn").unit_gates(make_lm("rnn").inspect(TEXT), 0, 0).saturation == {}


@pytest.mark.parametrize("cell", CELLS)
def test_an_empty_text_has_no_gates_and_none_of_one_unit_are_counted(cell):
    lm = make_lm(cell, num_layers=2, hidden_size=5)
    seen = lm.inspect("", gates=True)
    assert {values.shape for values in seen.gates.values()} == {(0, 2, 5)}
    with pytest.raises(RequestError, match="the text is empty, so no gate was computed; inspect a text first"):
        lm.unit_gates(seen, 0, 0)


@pytest.mark.parametrize(("layer", "unit"), [(2, 0), (-1, 0), (0, 8), (0, None), ("0", 0)])
def test_a_unit_that_the_model_lacks_has_no_gates(layer, unit):
    lm = make_lm()
    with pytest.raises(RequestError, match=r"(layer|unit) is .*; it must be (from 0 to|a whole number)"):
        lm.unit_gates(lm.inspect("abc"), layer, unit)
