"""Dynamic evaluation: the losses of a model that learns meanwhile, by its formula in plain torch."""

import numpy as np
import pytest
import torch
from models import VOCAB, make_lm
from reference import load_plain, mean_loss

from charlm.errors import RequestError
from train import dynamic
from train.data import make_text
from train.dynamic import dynamic_losses
from train.encode import encode_pieces
from train.network import TrainingNetwork
from train.protocols import evaluate

IDS = np.random.default_rng(3).integers(len(VOCAB), size=40).astype(np.uint8)
TRAINED = np.random.default_rng(4).integers(len(VOCAB), size=30).astype(np.uint8)


@pytest.fixture(autouse=True)
def short_segments(monkeypatch):
    monkeypatch.setattr(dynamic, "SEGMENT", 8)


def learner(lm):
    return TrainingNetwork.from_model(lm, "cpu", torch.float32, 1)


def plain_segments(plain, ids):
    """Yield the losses of segments of 8 predictions in plain torch. Gradients do not reach the segment before."""
    state = None
    for first in range(0, len(ids) - 1, 8):
        piece = torch.as_tensor(ids[first : first + 9].astype(np.int64))
        logits, state = plain(piece[:-1], state)
        state = tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()
        yield torch.nn.functional.cross_entropy(logits, piece[1:], reduction="none")


@pytest.mark.parametrize(("cell", "most"), [("rnn", 1.3), ("lstm", 0.9), ("gru", 0.9)])
def test_losses_and_updates_are_those_of_the_formula(tmp_path, monkeypatch, cell, most):
    """most: LARGEST, by which some gradients are cut and others are not."""
    monkeypatch.setattr(dynamic, "LEARNING_RATE", 0.05)
    monkeypatch.setattr(dynamic, "PULL", 0.3)
    monkeypatch.setattr(dynamic, "LARGEST", most)
    lm = make_lm(cell)
    lm.save_pretrained(tmp_path)
    plain = load_plain(tmp_path)[0].requires_grad_()
    parameters = list(plain.parameters())
    squares = [
        [grad.square() for grad in torch.autograd.grad(losses.mean(), parameters)]
        for losses in plain_segments(plain, TRAINED)
    ]
    roots = [torch.stack(each).mean(0).sqrt() for each in zip(*squares, strict=True)]
    mean = torch.cat([root.flatten() for root in roots]).mean()
    largest = most * float(torch.cat([root.flatten() for root in roots]).norm())
    trained = [parameter.detach().clone() for parameter in parameters]
    expected, cuts = [], []
    for losses in plain_segments(plain, IDS):
        expected += losses.tolist()
        grads = torch.autograd.grad(losses.mean(), parameters)
        cuts.append(min(1, largest / float(torch.cat([grad.flatten() for grad in grads]).norm())))
        with torch.no_grad():
            for parameter, grad, root, start in zip(parameters, grads, roots, trained, strict=True):
                pull = (0.3 * root / mean).clamp(max=1)
                parameter += -0.05 * cuts[-1] * grad / (root + 1e-5) + pull * (start - parameter)
    np.testing.assert_allclose(dynamic_losses(learner(lm), TRAINED, IDS), expected, rtol=1e-3)
    assert min(cuts) < 1 == max(cuts)


def test_a_model_that_learns_nothing_has_the_losses_of_one_pass(tmp_path, monkeypatch):
    lm = make_lm("lstm")
    lm.save_pretrained(tmp_path)
    expected = mean_loss(load_plain(tmp_path)[0], IDS)
    assert dynamic_losses(learner(lm), TRAINED, IDS).mean() != pytest.approx(expected, abs=1e-4)
    monkeypatch.setattr(dynamic, "LEARNING_RATE", 0.0)
    assert dynamic_losses(learner(lm), TRAINED, IDS).mean() == pytest.approx(expected, abs=1e-5)


def test_a_text_that_repeats_itself_is_predicted_better_and_better(monkeypatch):
    losses = dynamic_losses(learner(make_lm("gru")), TRAINED, np.tile(IDS[:16], 40))
    assert losses[-64:].mean() < losses[:64].mean() - 0.2


def text_of(content):
    return make_text("letters", encode_pieces([content], "letters"))


def test_evaluate_measures_it_beside_the_others_and_on_each_half():
    content = "".join(VOCAB[id] for id in np.concatenate([TRAINED, IDS] * 8))
    lm, text = make_lm("lstm"), text_of(content)
    before = lm.network.export_weights()
    losses, _ = evaluate(lm, text, "holdout", halves=True, dynamic=True)
    assert [name for name in losses if "dynamic" in name] == [
        "val_loss_dynamic",
        "val_loss_dynamic_first_half",
        "val_loss_dynamic_second_half",
    ]
    val = text.encoded.ids[int(0.9 * len(content)) :]
    trained = text.encoded.ids[: int(0.9 * len(content))]
    ids = [np.array([VOCAB.index(text.encoded.symbols[id]) for id in part]) for part in (trained, val)]
    expected = dynamic_losses(learner(lm), *ids)
    half = len(val) // 2
    assert losses["val_loss_dynamic"] == pytest.approx(expected.mean(), abs=1e-5)
    assert losses["val_loss_dynamic_first_half"] == pytest.approx(expected[: half - 1].mean(), abs=1e-5)
    assert losses["val_loss_dynamic_second_half"] == pytest.approx(expected[half - 1 :].mean(), abs=1e-5)
    for name, array in lm.network.export_weights().items():  # a copy has learnt
        np.testing.assert_array_equal(array, before[name])
    assert not any("dynamic" in name for name in evaluate(lm, text, "holdout", halves=True)[0])


def test_windows_and_a_text_that_the_model_does_not_know_are_refused():
    lm = make_lm("rnn")
    with pytest.raises(RequestError, match="--dynamic needs a text that is read in its order"):
        evaluate(lm, text_of(VOCAB * 20), "windows", dynamic=True)
    with pytest.raises(RequestError, match="does not know the end of letters's training part"):
        evaluate(lm, text_of("0" * 90 + VOCAB[0] * 10), "holdout", dynamic=True)
