import numpy as np
import pytest
import torch
from models import VOCAB, make_lm, make_model, save, uniform_lm
from reference import load_plain, mean_loss

from charlm.cells import CELLS
from charlm.errors import ModelFileError, RequestError
from charlm.lm import CharLM
from train import evaluate
from train.data import Text, split_holdout
from train.evaluate import carried_loss, evaluate_holdout, flushed_denormals, reset_loss


def random_text(length, seed=3):
    return "".join(np.random.default_rng(seed).choice(list(VOCAB), length))


def as_text(content):
    return Text("a text", content, "")


@pytest.fixture(params=CELLS)
def both(request, tmp_path):
    """The same model as charlm loads it, and as plain torch does."""
    folder = save(make_model(request.param), tmp_path / "model")
    return CharLM.from_pretrained(folder, device="cpu"), load_plain(folder)[0]


@pytest.mark.parametrize("chunk", [1, 7, 64, 4096])
def test_the_carried_loss_is_that_of_one_symbol_after_another_however_it_is_cut(both, monkeypatch, chunk):
    lm, plain = both
    monkeypatch.setattr(evaluate, "CHUNK", chunk)
    ids = lm.vocab.encode(random_text(65))
    assert carried_loss(lm.network, ids) == pytest.approx(mean_loss(plain, ids), abs=1e-5)


@pytest.mark.parametrize("length", [17, 33, 34, 50, 64])
@pytest.mark.parametrize("most_logits", [1, 2**24])
def test_the_reset_loss_counts_every_position_of_every_window_the_last_short_one_too(
    both, monkeypatch, length, most_logits
):
    lm, plain = both
    monkeypatch.setattr(evaluate, "MOST_LOGITS", most_logits)
    ids = lm.vocab.encode(random_text(length))
    assert reset_loss(lm.network, ids, window=16) == pytest.approx(mean_loss(plain, ids, reset_every=16), abs=1e-5)


def test_a_text_shorter_than_a_window_is_read_from_one_zero_state(both):
    lm, _ = both
    ids = lm.vocab.encode(random_text(40))
    assert reset_loss(lm.network, ids) == pytest.approx(carried_loss(lm.network, ids), abs=1e-6)


def test_the_loss_equals_the_mean_of_the_scores(both):
    lm, _ = both
    text = random_text(300)
    assert carried_loss(lm.network, lm.vocab.encode(text)) == pytest.approx(lm.score(text).mean(), abs=1e-5)


def test_a_model_that_knows_nothing_loses_the_logarithm_of_its_symbols():
    losses, _ = evaluate_holdout(uniform_lm("abcd"), as_text("abcd" * 50))
    assert losses == pytest.approx({"val_loss": np.log(4), "val_loss_reset256": np.log(4)})


def test_only_the_last_tenth_is_measured():
    lm, text = make_lm(), random_text(500)
    measured, _ = evaluate_holdout(lm, as_text(text))
    assert measured["val_loss"] == pytest.approx(lm.score(split_holdout(text)[1]).mean(), abs=1e-5)
    assert evaluate_holdout(lm, as_text(random_text(450, seed=9) + text[450:]))[0] == measured


def test_characters_that_the_model_does_not_know_are_left_out_and_counted():
    lm, text = make_lm(), random_text(500)
    val = split_holdout(text)[1]
    with_strangers = "€" * 9 * 53 + "€€" + val + "€"  # the last tenth of it is val and the three around it
    losses, skipped = evaluate_holdout(lm, as_text(with_strangers))
    assert skipped == 3
    assert losses["val_loss"] == pytest.approx(lm.score(val).mean(), abs=1e-5)


def test_a_text_of_which_the_model_knows_nothing_is_refused():
    with pytest.raises(RequestError, match="knows no more than 0 characters of a text's validation part"):
        evaluate_holdout(make_lm(), as_text("XYZ" * 100))


def test_a_model_whose_losses_are_no_numbers_is_refused():
    model = make_model("rnn")
    model.weights["head.weight"][:] = 3e38
    lm = CharLM(model.config, model.weights, device="cpu")
    with pytest.raises(ModelFileError, match="no finite numbers"):
        evaluate_holdout(lm, as_text(random_text(500)))


def test_denormals_are_zero_while_a_model_is_measured_and_numbers_again_afterwards():
    denormal = torch.tensor([1e-40])
    with flushed_denormals():
        assert (denormal * 1).item() == 0
    evaluate_holdout(uniform_lm("abcd"), as_text("abcd" * 50))
    assert (denormal * 1).item() > 0
