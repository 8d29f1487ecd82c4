import subprocess
import sys

import numpy as np
import pytest
import torch
from browser import ROOT
from models import VOCAB, make_config, make_lm, make_weights, save
from reference import forward_by_hand, load_plain, log_softmax

from charlm.errors import ModelFileError, RequestError, VocabError
from charlm.inference.compiled import VARIABLE
from charlm.lm import CharLM
from charlm.model.cells import CELLS
from charlm.model.folder import Model

TEXT = "".join(np.random.default_rng(0).choice(list(VOCAB), 400))


def gradient_norms(plain, ids):
    """The norms that torch's autograd finds, in double precision."""
    inputs = plain.embedding(torch.tensor(ids[:-1])).requires_grad_()
    log_probability = plain.head(plain.recurrent(inputs)[0][-1]).log_softmax(-1)[int(ids[-1])]
    (gradient,) = torch.autograd.grad(log_probability, inputs)
    return gradient.norm(dim=-1).numpy()


@pytest.mark.parametrize("kernels", ["auto", "numpy"])
@pytest.mark.parametrize("cell", CELLS)
def test_influence_is_the_gradient_of_torch_however_far_back(cell, kernels, tmp_path, monkeypatch):
    """Each symbol's norm is held to 1e-4 of itself, down to what is left after 300 symbols."""
    monkeypatch.setenv(VARIABLE, kernels)
    config = make_config(cell, hidden_size=70, num_layers=3)
    model = Model(config, make_weights(config, scale=0.1), None)
    plain = load_plain(save(model, tmp_path / "model"))[0]
    lm = CharLM(config, model.weights, device="cpu")
    ids = lm.vocab.encode(TEXT[:301])
    expected = gradient_norms(plain, ids)
    np.testing.assert_allclose(lm.influence(TEXT[:301]), expected, rtol=1e-4)
    assert expected.min() < 1e-20 * expected.max()  # single precision alone would not do

    seen = lm.inspect(TEXT[:350])
    np.testing.assert_allclose(lm.influence_at(seen, 300, 1000), expected, rtol=1e-4)
    np.testing.assert_allclose(lm.influence_at(seen, 300, 40), expected[-40:], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(folder.name for folder in (ROOT / "weights").iterdir()))
def test_influence_in_models_that_were_trained_is_the_gradient_of_torch(name):
    """All of it to 1e-4 where it is at least 1e-4 of the strongest; below, to 1e-8 of that.

    The states are those of single precision, and in a recurrent network their rounding grows from step to step.
    """
    lm, plain = CharLM.from_pretrained(ROOT / "weights" / name, device="cpu"), load_plain(ROOT / "weights" / name)[0]
    text = lm.vocab.keep_known((ROOT / "charlm/web/static/scene.txt").read_text(encoding="utf-8"))[0][:301]
    expected = gradient_norms(plain, lm.vocab.encode(text))
    np.testing.assert_allclose(lm.influence(text), expected, rtol=1e-4, atol=1e-8 * expected.max())


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_influence_is_the_length_of_the_gradient_that_small_changes_show(cell, layers, small_steps):
    lm = make_lm(cell, num_layers=layers)
    *read, last = lm.vocab.encode("bad cab").tolist()
    # an embedding for each place rather than symbol, so that they can be changed one by one
    weights = {name: array.astype(np.float64) for name, array in lm._weights.items()}
    embeddings = weights["embedding.weight"][read]

    def log_probability(change):
        by_place = weights | {"embedding.weight": embeddings + change}
        return log_softmax(forward_by_hand(cell, by_place, range(len(read))))[-1, last]

    step, slopes = 1e-5, np.zeros_like(embeddings)
    for place, direction in np.ndindex(*slopes.shape):
        change = np.zeros_like(embeddings)
        change[place, direction] = step
        slopes[place, direction] = (log_probability(change) - log_probability(-change)) / (2 * step)
    assert lm.influence("bad cab") == pytest.approx(np.linalg.norm(slopes, axis=1), rel=1e-5)


def test_what_was_forgotten_has_no_influence():
    config = make_config("rnn", num_layers=1)
    weights = make_weights(config)
    weights["recurrent.weight_hh_l0"][:] = 0  # it forgets everything but the symbol before
    norms = CharLM(config, weights, device="cpu").influence("abcde")
    assert (norms[:-1] == 0).all()
    assert norms[-1] > 0


def test_influence_that_fades_is_told_where_single_precision_has_no_number_left():
    config = make_config("rnn", num_layers=1)
    weights = make_weights(config)
    weights["recurrent.weight_hh_l0"] = 0.5 * np.eye(config.hidden_size, dtype=np.float32)
    norms = CharLM(config, weights, device="cpu").influence(TEXT[:250])
    assert (norms > 0).all()
    assert norms[0] < np.finfo(np.float32).smallest_subnormal


def test_influence_leaves_the_weights_as_they_are():
    lm = make_lm()
    before = {name: array.copy() for name, array in lm._weights.items()}
    lm.influence("bad cab")
    for name, array in lm._weights.items():
        np.testing.assert_array_equal(array, before[name])


def test_influence_loads_no_torch():
    code = """
import sys
from charlm import CharLM

CharLM.from_pretrained("./weights/shakespeare-rnn", device="cpu").influence("to be or not")
print("torch" in sys.modules)
"""
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "False\n"


@pytest.mark.parametrize(
    ("place", "allowed"),
    [(0, "from 1 to 3"), (-1, "from 1 to 3"), (4, "from 1 to 3"), (None, "a whole number"), (1.5, "a whole number")],
)
def test_a_place_that_has_no_prediction_is_refused_with_those_that_have_one(place, allowed):
    lm = make_lm()
    with pytest.raises(RequestError, match=f"place is {place}; it must be {allowed}"):
        lm.influence_at(lm.inspect("abcd"), place, 300)
    for each in (1, 3):
        assert len(lm.influence_at(lm.inspect("abcd"), each, 300)) == each


@pytest.mark.parametrize("text", ["", "a"])
def test_nothing_moves_the_prediction_of_a_first_character(text):
    lm = make_lm()
    with pytest.raises(RequestError, match="influenced its prediction; give a text of two or more characters"):
        lm.influence(text)
    with pytest.raises(RequestError, match="influenced its prediction; give a text of two or more characters"):
        lm.influence_at(lm.inspect(text), 0, 300)


@pytest.mark.parametrize(("text", "error", "message"), [("a☃", VocabError, "☃"), (7, RequestError, "must be a string")])
def test_a_text_that_is_none_of_the_models_has_no_influence(text, error, message):
    with pytest.raises(error, match=message):
        make_lm().influence(text)


def test_a_gradient_that_is_no_finite_number_is_refused():
    config = make_config("rnn", vocab="ab", embedding_size=1, hidden_size=1, num_layers=1)
    weights = {name: np.zeros(shape, np.float32) for name, shape in config.tensor_shapes.items()}
    weights["recurrent.weight_ih_l0"][:] = weights["recurrent.weight_hh_l0"][:] = 1e15  # times 1e15 for each step
    weights["head.weight"][:] = [[1], [-1]]
    with pytest.raises(ModelFileError, match="not finite numbers"):
        CharLM(config, weights, device="cpu").influence("ab" * 15)
