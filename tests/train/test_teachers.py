"""Distillation: what is learnt, from which predictions, and what is refused."""

import json
import os
import signal

import numpy as np
import pytest
import torch
from models import make_lm, uniform_lm
from reference import load_plain, plain_logits
from torch.utils._python_dispatch import TorchDispatchMode

from charlm.errors import RequestError
from charlm.model.card import model_card
from charlm.model.folder import read_model
from train import teachers as teachers_module
from train.config import TrainConfig
from train.data import make_text
from train.encode import encode_pieces
from train.init_from import NamedModel, load_start_model
from train.interrupts import Interrupts
from train.loop import fit
from train.protocols import Holdout, OverlappingWindows
from train.report import Report
from train.teachers import TaughtTargets, Teachers, load_teachers

pytestmark = pytest.mark.usefixtures("no_pictures")

CONTENT = "the cat sat on the mat; the dog sat on the log.\n" * 30
SYMBOLS = "".join(sorted(set(CONTENT)))
GIVEN = {
    "hidden_size": 12,
    "embedding_size": 6,
    "device": "cpu",
    "seq_length": 16,
    "batch_size": 4,
    "precision": "fp32",
}


def text_of(content=CONTENT):
    return make_text("cats", encode_pieces([content], "cats"))


def named(lm, name="teacher"):
    return NamedModel(lm, name, None)


def training(precision="fp32", seed=0):
    return TrainConfig(device="cpu", precision=precision, seed=seed)


def read(models, tmp_path, content=CONTENT, precision="fp32"):
    protocol = Holdout(text_of(content))
    with Interrupts() as interrupts:
        return Teachers(models, 1).teach(protocol, tmp_path, training(precision), lambda line: None, interrupts)


@pytest.mark.parametrize("more", ["", "#é"], ids=["the same symbols", "more symbols in another order"])
def test_the_targets_are_the_mean_of_the_teachers_predictions(tmp_path, monkeypatch, more):
    monkeypatch.setattr(teachers_module, "MOST_LOGITS", 1000)  # in several parts
    lms = [make_lm("lstm", vocab=more + SYMBOLS[::-1], seed=1), make_lm("gru", vocab=SYMBOLS, seed=2)]
    protocol, taught = read([named(lm) for lm in lms], tmp_path)
    ids, expected = protocol.training_ids(), 0
    for place, lm in enumerate(lms):
        lm.save_pretrained(tmp_path / str(place))
        plain, _ = load_plain(tmp_path / str(place))
        symbols = [lm.vocab.symbols.index(SYMBOLS[id]) for id in ids]
        order = [lm.vocab.symbols.index(symbol) for symbol in SYMBOLS]
        logits = plain_logits(plain, symbols)[:, order]
        expected = expected + torch.softmax(torch.as_tensor(logits), 1).numpy() / 2
    np.testing.assert_allclose(taught.probabilities, expected, atol=1e-3)


def test_teachers_read_in_the_precision_of_the_training_and_leave_its_random_numbers_alone(tmp_path):
    teacher = named(make_lm("lstm", vocab=SYMBOLS))
    torch.manual_seed(3)
    exact = read([teacher], tmp_path)[1].probabilities.astype(np.float64)
    drawn = torch.rand(4)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(4), drawn)
    rounded = read([teacher], tmp_path, precision="bf16")[1].probabilities.astype(np.float64)
    assert 1e-4 < np.abs(rounded - exact).max() < 0.02


@pytest.mark.parametrize("streams", [2, 7, 16, 5000])
def test_every_place_of_the_text_is_predicted_once_however_it_is_cut(tmp_path, monkeypatch, streams):
    monkeypatch.setattr(teachers_module, "STREAMS", streams)
    monkeypatch.setattr(teachers_module, "SHORTEST_PART", 1)
    protocol, taught = read([named(make_lm("rnn", vocab=SYMBOLS))] * 2, tmp_path, CONTENT[:400])
    assert taught.probabilities.shape == (len(protocol.training_ids()), len(SYMBOLS))
    np.testing.assert_allclose(taught.probabilities.sum(axis=1, dtype=np.float64), 1, atol=2e-3)


def test_a_step_learns_the_mean_of_what_is_taught_and_what_stands_there():
    probabilities = np.array([[0.5, 0.25, 0.25], [0, 0, 1], [1, 0, 0], [0.25, 0.5, 0.25]], np.float16)
    at = TaughtTargets(probabilities, 0.5).at(np.array([[3, 1], [0, 2]]), torch.tensor([[0, 1], [1, 0]]))
    expected = [[[0.625, 0.25, 0.125], [0, 0.5, 0.5]], [[0.25, 0.625, 0.125], [1, 0, 0]]]
    assert at.tolist() == expected


class LargestTensor(TorchDispatchMode):
    """Notes the bytes of the largest tensor that an operation of torch makes in the block."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, torch.Tensor):
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return made


def test_the_targets_of_a_step_take_no_array_larger_than_themselves_and_leave_what_is_taught_alone():
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(50), 40).astype(np.float16)
    kept, weight = probabilities.copy(), 0.3
    positions, ids = random.permutation(40).reshape(8, 5), random.integers(50, size=(8, 5))
    with LargestTensor() as largest:
        at = TaughtTargets(probabilities, weight).at(positions, torch.from_numpy(ids))
    expected = np.float32(weight) * kept[positions].astype(np.float32)
    expected[np.arange(8)[:, None], np.arange(5), ids] += np.float32(1 - weight)
    assert (at.numpy() == expected).all()
    assert largest.bytes == 4 * expected.size
    assert (probabilities == kept).all()


def run(out, teachers=None, resume=False, **given):
    config = TrainConfig("rnn", **{**GIVEN, "epochs": 2, "lr": 0.01, "dropout": 0, "embedding_dropout": 0, **given})
    return fit(text_of(), out, config, Report(), resume=resume, teachers=teachers)


def test_teachers_of_weight_0_change_nothing_and_the_losses_are_those_of_the_text(tmp_path):
    teachers = Teachers([named(make_lm("lstm", vocab=SYMBOLS))], 0)
    alone, taught = run(tmp_path / "alone"), run(tmp_path / "taught", teachers)
    for one, other in zip(alone["epochs"], taught["epochs"], strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], abs=1e-4)
        assert other["val_loss"] == pytest.approx(one["val_loss"], abs=1e-4)


@pytest.mark.slow
def test_a_student_comes_close_to_its_teacher_where_the_teacher_alone_counts(tmp_path):
    """The teacher has learnt nothing, so the text would lead elsewhere."""
    lm = make_lm("gru", vocab=SYMBOLS, seed=3)
    history = run(tmp_path / "student", Teachers([named(lm)], 1), epochs=8)
    val = text_of().encoded.ids[int(0.9 * len(CONTENT)) :]
    teacher = lm.score("".join(SYMBOLS[id] for id in val)).mean()
    assert history["epochs"][-1]["val_loss"] == pytest.approx(teacher, abs=0.1)
    assert run(tmp_path / "alone", epochs=8)["epochs"][-1]["val_loss"] < teacher - 0.5


def test_the_record_and_the_card_name_the_teachers_and_a_resumed_run_needs_them(tmp_path):
    make_lm("lstm", vocab=SYMBOLS).save_pretrained(tmp_path / "big")
    teachers = load_teachers([str(tmp_path / "big")], 0.25)
    run(tmp_path / "out", teachers)
    record = json.loads((tmp_path / "out" / "history.json").read_text())["run"]
    sha256 = json.loads((tmp_path / "big" / "config.json").read_text())["weights_sha256"]
    assert record["teachers"] == [{"name": "big", "revision": None, "weights_sha256": sha256}]
    assert record["teacher_weight"] == 0.25
    model = read_model(tmp_path / "out")
    assert "from what other models predict there: `big`." in model_card(model.config, model.history)
    model.history["run"]["teachers"] = [{"name": "ada/big", "revision": "c" * 40}]
    linked = "from what other models predict there: [ada/big](https://huggingface.co/ada/big)."
    assert linked in model_card(model.config, model.history)
    with pytest.raises(RequestError, match=rf"taught by big \({sha256}\), not by no model; resume with each --teacher"):
        run(tmp_path / "out", resume=True, epochs=3)
    assert run(tmp_path / "out", teachers, resume=True, epochs=3)["run"]["teachers"] == record["teachers"]


def test_an_interrupt_while_the_teachers_read_says_that_nothing_was_saved(tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(teachers_module, "_add_predictions", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", Teachers([named(make_lm("gru", vocab=SYMBOLS))], 1))
    assert capsys.readouterr().err.endswith(
        f"interrupted before the first step: {tmp_path / 'out'} is as it was, so give the same command again\n"
    )
    assert list((tmp_path / "out").iterdir()) == []


def test_what_the_teachers_write_trains_before_the_text_and_the_text_alone_validates(tmp_path):
    lms = [make_lm("lstm", vocab=SYMBOLS[::-1] + "#", seed=1), make_lm("gru", vocab=SYMBOLS, seed=2)]
    protocol, text = Holdout(text_of()), text_of()
    said = []
    with Interrupts() as interrupts:
        teachers = Teachers([named(lms[0], "one"), named(lms[1], "two")], 0.5, 2 * 64 * 10 + 100)
        trained, taught = teachers.teach(protocol, tmp_path, training(seed=7), said.append, interrupts)
    expected = "".join(lm.generate("", 10, 1.0, seed=seed).replace("#", "") for lm in lms for seed in range(7, 71))
    expected += CONTENT[: protocol.split["train_chars"]]
    assert "".join(SYMBOLS[id] for id in trained.training_ids()) == expected
    assert "".join(SYMBOLS[id] for id in protocol.training_ids()) == CONTENT[: protocol.split["train_chars"]]
    assert taught.probabilities.shape == (len(expected), len(SYMBOLS))
    assert said[:2] == ["one writes 640 characters to learn from", "two writes 640 characters to learn from"]
    assert trained.epoch_losses(lms[1]) == Holdout(text).epoch_losses(lms[1])


def test_a_text_too_short_to_train_is_enough_for_a_run_whose_teacher_writes(tmp_path):
    teacher, few = named(make_lm("lstm", vocab=SYMBOLS)), text_of(CONTENT[:100])
    config = TrainConfig("rnn", epochs=1, **GIVEN | {"seq_length": 64, "batch_size": None})
    with pytest.raises(RequestError, match="that trains has 90 characters; sequences of 64 need 128"):
        fit(few, tmp_path / "few", config, Report(), teachers=Teachers([teacher], 1))
    history = fit(few, tmp_path / "out", config, Report(), teachers=Teachers([teacher], 1, 64 * 100))
    assert history["run"]["batch_size"] == (6400 + 90 - 64) // 64 // 32


def test_a_teacher_that_writes_hardly_anything_in_the_symbols_of_the_text_is_refused(tmp_path):
    others = "".join(chr(0x4E00 + place) for place in range(2_000))
    teachers = Teachers([named(uniform_lm(SYMBOLS + others))], 1, 64 * 1_000)  # in each hundred, one symbol is known
    with pytest.raises(RequestError, match=r"holds 1[01]\d sequences of 16, fewer than --batch-size 1000; lower"):
        run(tmp_path / "out", teachers, batch_size=1_000)


def test_a_model_to_begin_with_is_fitted_to_the_text_and_not_to_what_teachers_write(tmp_path):
    """Its new symbols get their frequency in the text; the teacher writes all symbols as often."""
    make_lm("gru", vocab=SYMBOLS.replace("o", ""), seed=1).save_pretrained(tmp_path / "start")
    start, before = load_start_model(str(tmp_path / "start")), []
    text = make_text("cats", encode_pieces([CONTENT], "cats", known=start.lm.vocab.symbols))
    config = TrainConfig(**start.settings({"epochs": 1, "device": "cpu", "seq_length": 16, "batch_size": 4}))
    for chars in (0, 64 * 100):
        teachers = Teachers([named(uniform_lm(SYMBOLS))], 0.5, chars)
        history = fit(text, tmp_path / str(chars), config, Report(), start=start, teachers=teachers)
        before.append(history["run"]["before"])
    assert before[0] == before[1]


def test_a_run_that_learnt_from_written_text_says_so_and_goes_on_with_as_much(tmp_path):
    teacher = named(make_lm("lstm", vocab=SYMBOLS))
    whole = run(tmp_path / "whole", Teachers([teacher], 1, 640), epochs=3)
    assert whole["run"]["teachers_write"] == 640
    assert "They also wrote 640 characters for it to learn from." in model_card(
        read_model(tmp_path / "whole").config, whole
    )
    run(tmp_path / "resumed", Teachers([teacher], 1, 640))
    with pytest.raises(RequestError, match="holds a run with --teachers-write 640, not without --teachers-write"):
        run(tmp_path / "resumed", Teachers([teacher], 1), resume=True, epochs=3)
    assert run(tmp_path / "resumed", Teachers([teacher], 1, 640), resume=True, epochs=3)["run"]["teachers_write"] == 640


@pytest.mark.slow
def test_a_student_of_few_steps_learns_more_from_what_its_teacher_writes(tmp_path):
    """Two epochs of the text are some forty steps, with what the teacher writes ten times as many."""
    run(tmp_path / "teacher", epochs=8, lr=0.03)
    models = load_teachers([str(tmp_path / "teacher")], 1).models
    alone, more = (run(tmp_path / str(chars), Teachers(models, 1, chars))["best"]["val_loss"] for chars in (0, 12_800))
    assert more < alone - 0.3


def test_a_teacher_that_lacks_a_symbol_is_refused(tmp_path):
    with pytest.raises(RequestError, match=r"^teacher does not know 1 of the 16 symbols of the text \('t'\): choose"):
        read([named(make_lm("rnn", vocab=SYMBOLS.replace("t", "")))], tmp_path)


def test_windows_are_refused(tmp_path):
    windows, teacher = OverlappingWindows(text_of()), named(make_lm("rnn", vocab=SYMBOLS))
    with (
        Interrupts() as interrupts,
        pytest.raises(RequestError, match="--teacher needs a text that is read in its order"),
    ):
        Teachers([teacher], 0.5, 6400).teach(windows, tmp_path, training(), lambda line: None, interrupts)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="macOS and Windows cannot allocate a file")
def test_a_full_disk_is_said_before_a_write_to_the_mapped_file_would_end_the_process(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(RequestError, match=r"cannot be written to .* \(No space left on device\): it takes 0.0 GB"):
        read([named(make_lm("rnn", vocab=SYMBOLS))], tmp_path)


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan"), "much"])
def test_a_wrong_weight_is_refused(weight):
    with pytest.raises(RequestError, match="teacher_weight"):
        Teachers([], weight)


@pytest.mark.parametrize("chars", [-1, 10**12, 0.5])
def test_a_wrong_number_of_written_characters_is_refused(chars):
    with pytest.raises(RequestError, match="teachers_write"):
        Teachers([], 0.5, chars)


def test_fewer_written_characters_than_texts_are_refused():
    models = [named(make_lm("rnn", vocab=SYMBOLS))] * 2
    with pytest.raises(RequestError, match="teachers_write is 127; it must be at least 128"):
        Teachers(models, 0.5, 127)
    assert Teachers(models, 0.5, 128).written_chars == 128
