import hashlib
import json
import math
import signal

import numpy as np
import pytest
import torch
from models import contents, make_model, save
from reference import load_plain, mean_loss

from charlm.cells import CELLS
from charlm.errors import RequestError, TrainingError
from charlm.folder import MODEL_FILES
from charlm.lm import CharLM
from charlm.vocab import Vocab
from train import loop
from train.checkpoint import CHECKPOINT_FILE, load_checkpoint, save_checkpoint
from train.config import TrainConfig
from train.data import Streams, Text
from train.evaluate import reset_loss
from train.loop import FINAL_LR, Trainer, describe_run, fit
from train.report import Report

CONTENT = "the cat sat on the mat; the dog sat on the log.\n" * 40
SMALL = {"epochs": 2, "hidden_size": 12, "embedding_size": 6, "seq_length": 16, "batch_size": 4, "device": "cpu"}


def make_text(content=CONTENT):
    return Text("cats", content, hashlib.sha256(content.encode()).hexdigest())


def make_config(cell="gru", **changes):
    return TrainConfig(cell, **(SMALL | {"lr": 0.01, "dropout": 0.2} | changes))


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Drawing takes longer than a tiny epoch, and is tested elsewhere."""
    monkeypatch.setattr("charlm.folder.draw_curves", lambda history, title: b"picture")


class StopAt(Report):
    """Press Ctrl-C, as it were, while an epoch's bar moves for the n-th time, or after an epoch is reported."""

    def __init__(self, steps=None, epochs=None):
        super().__init__()
        self.steps, self.epochs = steps, epochs

    def step(self, chars, loss, run_seconds_left):
        super().step(chars, loss, run_seconds_left)
        if self.steps is not None:
            self.steps -= 1
            if self.steps == 0:
                raise KeyboardInterrupt

    def epoch(self, record, epochs, is_best):
        super().epoch(record, epochs, is_best)
        if record["epoch"] == self.epochs:
            raise KeyboardInterrupt


def without_times(record):
    return [
        {name: value for name, value in epoch.items() if name not in ("seconds", "chars_per_second")}
        for epoch in record
    ]


@pytest.mark.parametrize("cell", CELLS)
def test_a_model_learns_a_text_that_repeats(tmp_path, cell):
    sentence = "the quick brown fox jumps over the lazy dog.\n"
    sizes = {"epochs": 8, "hidden_size": 32, "embedding_size": 16, "lr": 0.01, "dropout": 0}
    history = fit(make_text(sentence * 160), tmp_path / "out", make_config(cell, **sizes), Report())
    # Once the sentence is known, all of it is certain. Letters drawn by their frequency alone cost 3 nats.
    assert history["best"]["val_loss"] < 0.1
    written = CharLM.from_pretrained(tmp_path / "out").generate("the quick", 81, temperature=0)
    assert "the quick" + written == sentence * 2


def test_the_record_tells_all_that_the_contract_names(tmp_path):
    history = fit(make_text(), tmp_path / "out", make_config(seed=5), Report())
    assert json.loads((tmp_path / "out" / "history.json").read_text(encoding="utf-8")) == history
    train_chars = int(0.9 * len(CONTENT))
    expected = {
        "cell": "gru",
        "text": "cats",
        "text_sha256": hashlib.sha256(CONTENT.encode()).hexdigest(),
        "text_chars": len(CONTENT),
        "protocol": "holdout",
        "split": {"train_chars": train_chars, "val_chars": len(CONTENT) - train_chars},
        "seed": 5,
        "parameters": sum(p.numel() for p in load_plain(tmp_path / "out")[0].parameters()),
        "device": "cpu",
        "precision": "bf16" if torch.cpu.get_capabilities().get("amx_bf16") else "fp32",
        "torch": "2.13.0",
        **{name: SMALL[name] for name in ("epochs", "hidden_size", "embedding_size", "seq_length", "batch_size")},
        "lr": 0.01,
        "dropout": 0.2,
    }
    assert {name: history["run"][name] for name in expected} == expected
    assert [epoch["epoch"] for epoch in history["epochs"]] == [1, 2]
    for epoch in history["epochs"]:
        assert epoch["unseen_loss"] is None
        assert epoch["seconds"] > 0
        assert epoch["chars_per_second"] * epoch["seconds"] == pytest.approx((train_chars - 16) // 64 * 64)
        assert len(epoch["sample"]) == loop.SAMPLE_LENGTH


@pytest.mark.parametrize("cell", CELLS)
def test_the_exported_weights_give_the_figures_of_the_record(tmp_path, cell):
    history = fit(make_text(), tmp_path / "out", make_config(cell), Report())
    plain, vocab = load_plain(tmp_path / "out")
    val_ids = [vocab.index(symbol) for symbol in CONTENT[int(0.9 * len(CONTENT)) :]]
    assert mean_loss(plain, val_ids) == pytest.approx(history["best"]["val_loss"], abs=1e-5)
    assert mean_loss(plain, val_ids, reset_every=256) == pytest.approx(history["best"]["val_loss_reset256"], abs=1e-5)


def test_the_best_epoch_is_exported_when_later_ones_are_worse(tmp_path):
    # random letters: what is learnt by heart from the first nine tenths is of no use in the last
    content = "".join(np.random.default_rng(0).choice(list("abcdefgh"), 1000))
    config = make_config(epochs=25, hidden_size=64, lr=0.02, dropout=0)
    history = fit(make_text(content), tmp_path / "out", config, Report())
    losses = [epoch["val_loss"] for epoch in history["epochs"]]
    assert history["best"]["val_loss"] == min(losses) < losses[-1]
    lm = CharLM.from_pretrained(tmp_path / "out", device="cpu")
    val = content[900:]
    assert lm.score(val).mean() == pytest.approx(min(losses), abs=1e-4)
    assert reset_loss(lm.network, lm.vocab.encode(val)) == pytest.approx(history["best"]["val_loss_reset256"], abs=1e-5)


def test_a_finished_run_leaves_the_files_of_a_model_and_no_other(tmp_path):
    fit(make_text(), tmp_path / "out", make_config(), Report())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(MODEL_FILES)


def test_the_same_seed_gives_the_same_model_and_another_seed_another(tmp_path):
    for name, seed in {"one": 1, "again": 1, "other": 2}.items():
        fit(make_text(), tmp_path / name, make_config(seed=seed), Report())
    weights = {name: (tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "again", "other")}
    assert weights["one"] == weights["again"] != weights["other"]


def test_training_leaves_the_global_random_numbers_alone(tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    fit(make_text(), tmp_path / "out", make_config(), Report())
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("stop", [{"epochs": 2}, {"steps": 1}, {"steps": 30}], ids=str)
def test_an_interrupted_run_goes_on_to_the_same_model_bit_for_bit(tmp_path, monkeypatch, cell, stop):
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_READINGS", -1)  # so that every step is one to stop at
    config = make_config(cell, epochs=4)
    straight = fit(make_text(), tmp_path / "straight", config, Report())
    with pytest.raises(KeyboardInterrupt):
        fit(make_text(), tmp_path / "stopped", config, StopAt(**stop))
    assert (tmp_path / "stopped" / CHECKPOINT_FILE).exists()
    resumed = fit(make_text(), tmp_path / "stopped", config, Report(), resume=True)
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    assert without_times(resumed["epochs"]) == without_times(straight["epochs"])
    assert resumed["best"] == straight["best"]


def test_an_interrupted_run_already_holds_the_best_model_so_far(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(make_text(), tmp_path / "out", make_config(epochs=4), StopAt(epochs=2))
    lm = CharLM.from_pretrained(tmp_path / "out")
    assert [epoch["epoch"] for epoch in lm.history["epochs"]] == [1, 2]


def test_resuming_a_finished_run_returns_its_record_and_changes_nothing(tmp_path):
    history = fit(make_text(), tmp_path / "out", make_config(), Report())
    before = contents(tmp_path / "out")
    assert fit(make_text(), tmp_path / "out", make_config(), Report(), resume=True) == history
    assert contents(tmp_path / "out") == before


def test_resume_where_nothing_is_begins(tmp_path):
    assert len(fit(make_text(), tmp_path / "out", make_config(), Report(), resume=True)["epochs"]) == 2


def interrupted(folder):
    with pytest.raises(KeyboardInterrupt):
        fit(make_text(), folder, make_config(), StopAt(epochs=1))
    return folder


@pytest.mark.parametrize(
    ("holds", "resume", "changes", "message"),
    [
        (lambda folder: save(make_model(), folder), False, {}, "already holds config.json.*choose another --out"),
        (lambda folder: save(make_model(), folder), True, {}, "holds a run with .* choose another --out"),
        (lambda folder: save(make_model(history=False), folder), True, {}, "a model without a record"),
        (interrupted, False, {}, "holds an unfinished run; continue it with --resume or choose another --out"),
        (interrupted, True, {"hidden_size": 13}, "holds a run with hidden_size 12, not 13"),
        (interrupted, True, {"epochs": 3}, "holds a run with epochs 2, not 3"),
    ],
)
def test_a_folder_that_holds_something_else_is_refused_and_left_as_it_is(tmp_path, holds, resume, changes, message):
    out = holds(tmp_path / "out")
    before = contents(out)
    with pytest.raises(RequestError, match=message):
        fit(make_text(), out, make_config(**changes), Report(), resume=resume)
    assert contents(out) == before


def test_another_text_does_not_continue_a_run(tmp_path):
    out = interrupted(tmp_path / "out")
    with pytest.raises(RequestError, match="holds a run with text_sha256"):
        fit(make_text(CONTENT.replace("cat", "cow")), out, make_config(), Report(), resume=True)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("precious")
    with pytest.raises(RequestError, match="is a file; give a folder as --out"):
        fit(make_text(), tmp_path / "out", make_config(), Report())
    assert (tmp_path / "out").read_text() == "precious"


def test_a_place_that_can_be_no_folder_is_refused_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "_train_step", lambda trainer: pytest.fail("it has begun"))
    (tmp_path / "file").write_text("precious")
    with pytest.raises(RequestError, match="cannot make the folder .* choose another place"):
        fit(make_text(), tmp_path / "file" / "out", make_config(), Report())
    assert contents(tmp_path) == {"file": b"precious"}


def test_what_a_killed_run_left_half_written_is_cleared_away(tmp_path):
    half = tmp_path / "out" / ".writing-killed" / "new"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    fit(make_text(), tmp_path / "out", make_config(), Report())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(MODEL_FILES)


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    out = interrupted(tmp_path / "out")
    before = contents(out)
    step = Trainer._train_step

    def overflow(trainer):
        step(trainer)
        trainer._loss_sum += math.nan

    monkeypatch.setattr(Trainer, "_train_step", overflow)
    with pytest.raises(TrainingError, match=r"the loss is no longer a number.*lower --lr than 0\.01"):
        fit(make_text(), out, make_config(), Report(), resume=True)
    assert contents(out) == before


def test_weights_that_the_last_update_made_useless_are_not_kept(tmp_path, monkeypatch):
    out = interrupted(tmp_path / "out")
    before = contents(out)
    monkeypatch.setattr(loop, "carried_loss", lambda *_: math.nan)
    with pytest.raises(TrainingError, match="the loss is no longer a number"):
        fit(make_text(), out, make_config(), Report(), resume=True)
    assert contents(out) == before


def test_an_interrupt_does_not_save_a_run_whose_loss_is_no_number(tmp_path, monkeypatch):
    out = interrupted(tmp_path / "out")
    before = contents(out)
    step = Trainer._train_step

    def overflow_and_interrupt(trainer):
        step(trainer)
        trainer._loss_sum += math.nan
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Trainer, "_train_step", overflow_and_interrupt)
    with pytest.raises((TrainingError, KeyboardInterrupt)) as caught:  # the second would end all tests
        fit(make_text(), out, make_config(), Report(), resume=True)
    assert caught.type is TrainingError and contents(out) == before


def make_trainer(cell="gru", **changes):
    config = make_config(cell, **changes).resolve(int(0.9 * len(CONTENT)))
    vocab = Vocab.from_text(CONTENT)
    streams = Streams(vocab.encode(CONTENT), config.batch_size, config.seq_length, 0, torch.device("cpu"))
    torch.manual_seed(0)
    return Trainer(config, vocab, streams, describe_run(make_text(), vocab, config, 1, 1), Report())


def test_the_learning_rate_falls_along_half_a_cosine_to_its_last_share():
    trainer = make_trainer(epochs=2, lr=0.01)
    per_epoch = trainer._streams.steps_per_epoch
    rates = []
    for trainer.epoch in (1, 2):
        rates += [trainer._learning_rate(step) for step in range(per_epoch)]
    assert rates[0] == 0.01
    assert rates[per_epoch] == pytest.approx(0.01 * (1 + FINAL_LR) / 2)
    assert rates[per_epoch // 2] == pytest.approx(
        0.01 * (FINAL_LR + (1 - FINAL_LR) * (1 + math.cos(math.pi * (per_epoch // 2) / (2 * per_epoch))) / 2)
    )
    assert rates == sorted(rates, reverse=True)
    assert 0.01 * FINAL_LR < rates[-1] < 0.01 * FINAL_LR * 1.1


@pytest.mark.parametrize("clip_norm", [0, 0.5])
def test_the_first_step_is_that_of_plain_torch(clip_norm):
    trainer = make_trainer("lstm", clip_norm=clip_norm, dropout=0, precision="fp32", weight_decay=0.1)
    plain = torch.nn.ModuleDict(
        {
            "embedding": torch.nn.Embedding(*trainer._network.embedding.weight.shape),
            "recurrent": torch.nn.LSTM(6, 12, 2),
            "head": torch.nn.Linear(12, len(set(CONTENT))),
        }
    )
    plain.load_state_dict(trainer._network.state_dict())
    optimizer = torch.optim.AdamW(plain.parameters(), lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    inputs, targets = trainer._streams.batch(1, 0)
    logits = plain["head"](plain["recurrent"](plain["embedding"](inputs))[0])
    torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)).backward()
    if clip_norm:
        torch.nn.utils.clip_grad_norm_(plain.parameters(), clip_norm)
    optimizer.step()

    trainer._train_step()
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(trainer._network.state_dict()[name], tensor, atol=1e-6, rtol=0)


def test_the_state_is_carried_from_step_to_step_and_zero_at_an_epochs_start():
    trainer = make_trainer("gru", dropout=0, precision="fp32")
    inputs, _ = trainer._streams.batch(1, 0)
    with torch.no_grad():
        _, expected = trainer._network(inputs)
    trainer._train_step()
    torch.testing.assert_close(trainer._state, expected)
    assert not trainer._state.requires_grad
    trainer._start_epoch(2)
    assert trainer._state is None


def test_an_interrupt_while_an_epoch_is_measured_loses_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    straight = fit(make_text(), tmp_path / "straight", make_config(), Report())
    with monkeypatch.context() as patch:
        patch.setattr(loop, "carried_loss", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit(make_text(), tmp_path / "stopped", make_config(), Report())
    resumed = fit(make_text(), tmp_path / "stopped", make_config(), Report(), resume=True)
    assert without_times(resumed["epochs"]) == without_times(straight["epochs"])
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("straight", "stopped")]
    assert weights[0] == weights[1]


def test_a_second_interrupt_does_not_cut_the_saving_short(tmp_path, monkeypatch):
    def press_again(*arguments):
        signal.raise_signal(signal.SIGINT)
        save_checkpoint(*arguments)

    monkeypatch.setattr(loop, "SECONDS_BETWEEN_READINGS", -1)
    monkeypatch.setattr(loop, "save_checkpoint", press_again)
    with pytest.raises(KeyboardInterrupt):
        fit(make_text(), tmp_path / "out", make_config(), StopAt(steps=5))
    assert load_checkpoint(tmp_path / "out").values["step"] == 5


@pytest.mark.parametrize("cell", CELLS)
def test_in_bfloat16_too_a_run_learns_and_goes_on_bit_for_bit(tmp_path, monkeypatch, cell):
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_READINGS", -1)
    config = make_config(cell, precision="bf16", dropout=0)
    straight = fit(make_text(), tmp_path / "straight", config, Report())
    assert straight["run"]["precision"] == "bf16"
    # a model that knew nothing but the symbols would lose the logarithm of their number
    assert straight["best"]["val_loss"] < 0.9 * math.log(len(set(CONTENT)))
    with pytest.raises(KeyboardInterrupt):
        fit(make_text(), tmp_path / "stopped", config, StopAt(steps=30))
    fit(make_text(), tmp_path / "stopped", config, Report(), resume=True)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("straight", "stopped")]
    assert weights[0] == weights[1]


def test_a_run_may_go_on_in_another_precision(tmp_path):
    out = interrupted(tmp_path / "out")
    history = fit(make_text(), out, make_config(precision="bf16"), Report(), resume=True)
    assert len(history["epochs"]) == 2 and history["run"]["precision"] == "bf16"
