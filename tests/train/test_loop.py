import hashlib
import json
import math
import os
import signal

import numpy as np
import pytest
import torch
from models import contents, make_model, save, unpack_safetensors
from reference import PlainModel, load_plain, mean_loss
from stopping import StopAt, overflow, without_times

from charlm.errors import RequestError, TrainingError
from charlm.inference.scoring import EngineReader
from charlm.lm import CharLM
from charlm.model import folder
from charlm.model.cells import CELLS
from charlm.model.folder import MODEL_FILES, read_model
from train import loop, protocols
from train.checkpoint import CHECKPOINT_FILE, load_checkpoint, save_checkpoint
from train.config import TrainConfig
from train.control import ControlFile
from train.data import Text
from train.distributed import SINGLE_PROCESS
from train.encode import encode_pieces
from train.evaluate import reset_loss
from train.interrupts import Interrupts
from train.loop import describe_run, fit
from train.network import TrainingNetwork
from train.protocols import PROTOCOLS
from train.recipes import training_recipe
from train.report import Report
from train.run_folder import NothingToResumeError
from train.trainer import FINAL_LR_SHARE, SAMPLE_LENGTH, Trainer

pytestmark = pytest.mark.usefixtures("no_pictures")

CONTENT = "the cat sat on the mat; the dog sat on the log.\n" * 40
SMALL = {"epochs": 2, "hidden_size": 12, "embedding_size": 6, "seq_length": 16, "batch_size": 4, "device": "cpu"}


def make_text(content=CONTENT):
    return Text("cats", encode_pieces([content], "cats"))


def make_config(cell="gru", **changes):
    return TrainConfig(cell, **(SMALL | {"lr": 0.01, "dropout": 0.2} | changes))


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_a_model_learns_a_text_that_repeats(tmp_path, cell):
    sentence = "the quick brown fox jumps over the lazy dog.\n"
    sizes = {"epochs": 2, "hidden_size": 32, "embedding_size": 16, "num_layers": 1, "batch_size": 8, "lr": 0.03}
    undropped = {"dropout": 0, "embedding_dropout": 0, "weight_decay": 0}
    history = fit(make_text(sentence * 160), tmp_path / "out", make_config(cell, **sizes, **undropped), Report())
    # Once the sentence is known, all of it is certain. Letters drawn by their frequency alone cost 3 nats.
    assert history["best"]["val_loss"] < 0.1
    written = CharLM.from_pretrained(tmp_path / "out").generate("the quick", 81, temperature=0)
    assert "the quick" + written == sentence * 2


@pytest.mark.slow
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
        "precision": "fp32",  # bf16 is no faster for so small a model
        "torch": "2.13.0",
        **{name: SMALL[name] for name in ("epochs", "hidden_size", "embedding_size", "seq_length", "batch_size")},
        "lr": 0.01,
        "dropout": 0.2,
        "embedding_dropout": training_recipe("gru", 2).embedding_dropout,
        "weight_decay": training_recipe("gru", 2).weight_decay,
    }
    assert {name: history["run"][name] for name in expected} == expected
    assert [epoch["epoch"] for epoch in history["epochs"]] == [1, 2]
    for epoch in history["epochs"]:
        assert epoch["unseen_loss"] is None
        assert epoch["seconds"] > 0
        assert epoch["chars_per_second"] * epoch["seconds"] == pytest.approx((train_chars - 16) // 64 * 64)
        assert len(epoch["sample"]) == SAMPLE_LENGTH


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_the_exported_weights_give_the_figures_of_the_record(tmp_path, cell):
    history = fit(make_text(), tmp_path / "out", make_config(cell), Report())
    plain, vocab = load_plain(tmp_path / "out")
    val_ids = [vocab.index(symbol) for symbol in CONTENT[int(0.9 * len(CONTENT)) :]]
    assert mean_loss(plain, val_ids) == pytest.approx(history["best"]["val_loss"], abs=1e-5)
    assert mean_loss(plain, val_ids, reset_every=256) == pytest.approx(history["best"]["val_loss_reset256"], abs=1e-5)


@pytest.mark.slow
def test_a_third_part_is_measured_once_when_the_training_is_done(tmp_path, monkeypatch):
    read = []
    carried_loss = protocols.carried_loss
    monkeypatch.setattr(
        protocols,
        "carried_loss",
        lambda reader, ids: read.append(len(ids)) or carried_loss(reader, ids),
    )
    history = fit(make_text(), tmp_path / "out", make_config(split="0.7,0.2,0.1"), Report())
    chars = len(CONTENT)
    train, val = int(0.7 * chars), int(0.2 * chars)
    assert history["run"]["split"] == {
        "train_chars": train,
        "val_chars": val,
        "test_chars": chars - train - val,
        "shares": "0.7,0.2,0.1",
    }
    assert read == [val, val, chars - train - val]
    plain, vocab = load_plain(tmp_path / "out")
    test_ids = [vocab.index(symbol) for symbol in CONTENT[train + val :]]
    assert mean_loss(plain, test_ids) == pytest.approx(history["best"]["test_loss"], abs=1e-5)
    assert json.loads((tmp_path / "out" / "history.json").read_text(encoding="utf-8")) == history


def test_what_the_text_was_put_together_from_and_what_nothing_trains_is_recorded_and_said(tmp_path, capsys):
    content = CONTENT + "é€é"
    sources = ({"name": "cats", "files": 2, "chars": len(CONTENT)}, {"name": "é.txt", "chars": 3})
    history = fit(
        Text("cats+é", encode_pieces([content], "cats+é"), sources), tmp_path / "out", make_config(epochs=1), Report()
    )
    assert history["run"]["texts"] == list(sources)
    assert history["run"]["untrained"] == {"symbols": 2, "chars": 3}
    assert (
        "note: 2 symbols stand only in the text that validates or tests, 3 times ('é', '€')" in capsys.readouterr().err
    )
    history = fit(make_text(), tmp_path / "plain", make_config(epochs=1), Report())
    assert not {"texts", "untrained", "shares"} & {*history["run"], *history["run"]["split"]}


@pytest.mark.slow
def test_windows_are_recorded_with_the_loss_on_the_text_after_them(tmp_path, monkeypatch):
    monkeypatch.setattr(protocols, "WINDOWS_TEXT", 1000)
    config = make_config(protocol="windows", seq_length=None, batch_size=32)
    history = fit(make_text(), tmp_path / "out", config, Report())
    assert history["run"]["seq_length"] == 30
    windows = 1000 - 30
    assert history["run"]["split"] == {
        "train_chars": 30 * int(0.8 * windows),
        "val_chars": 30 * (windows - int(0.8 * windows)),
        "train_windows": int(0.8 * windows),
        "val_windows": windows - int(0.8 * windows),
        "unseen_chars": len(CONTENT) - 1000,
    }
    plain, vocab = load_plain(tmp_path / "out")
    unseen_loss = mean_loss(plain, [vocab.index(symbol) for symbol in CONTENT[1000:]])
    assert history["epochs"][history["best"]["epoch"] - 1]["unseen_loss"] == pytest.approx(unseen_loss, abs=1e-5)
    assert "val_loss_reset256" not in history["best"]


@pytest.mark.slow
def test_the_best_epoch_is_exported_when_later_ones_are_worse(tmp_path):
    # random letters: nothing learnt from the first nine tenths helps to predict the last
    content = "".join(np.random.default_rng(0).choice(list("abcdefgh"), 1000))
    config = make_config(epochs=8, hidden_size=64, lr=0.02, dropout=0, embedding_dropout=0, weight_decay=0)
    history = fit(make_text(content), tmp_path / "out", config, Report())
    losses = [epoch["val_loss"] for epoch in history["epochs"]]
    assert history["best"]["val_loss"] == min(losses) < losses[-1]
    lm = CharLM.from_pretrained(tmp_path / "out", device="cpu")
    val = content[900:]
    assert lm.score(val).mean() == pytest.approx(min(losses), abs=1e-4)
    assert reset_loss(EngineReader(lm.engine), lm.vocab.encode(val)) == pytest.approx(
        history["best"]["val_loss_reset256"], abs=1e-5
    )


def test_a_finished_run_leaves_the_files_of_a_model_and_no_other(tmp_path):
    fit(make_text(), tmp_path / "out", make_config(), Report())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(MODEL_FILES)


@pytest.mark.slow
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


def check_resume(folder, config, stop):
    """Check that an interrupted and resumed run ends exactly like an uninterrupted one."""
    straight = fit(make_text(), folder / "straight", config, Report())
    with pytest.raises(KeyboardInterrupt):
        fit(make_text(), folder / "stopped", config, StopAt(**stop))
    saved = load_checkpoint(folder / "stopped").values
    resumed = fit(make_text(), folder / "stopped", config, Report(), resume=True)
    for name in ("model.safetensors", "config.json"):
        assert (folder / "stopped" / name).read_bytes() == (folder / "straight" / name).read_bytes()
    assert without_times(resumed["epochs"]) == without_times(straight["epochs"])
    assert resumed["best"] == straight["best"]
    if saved["step"] > 0:  # the time before the interrupt counts too
        assert resumed["epochs"][saved["epoch"] - 1]["seconds"] > saved["seconds"] > 0
    return straight


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("stop", [{"epochs": 2}, {"steps": 1}, {"steps": 30}], ids=str)
def test_an_interrupted_run_goes_on_to_the_same_model_bit_for_bit(tmp_path, monkeypatch, cell, stop):
    monkeypatch.setattr("train.trainer.SECONDS_BETWEEN_PROGRESS", -1)  # report every step
    check_resume(tmp_path, make_config(cell, epochs=3), stop)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [{"epochs": 1}, {"steps": 30}], ids=str)
def test_a_run_on_windows_goes_on_to_the_same_model_bit_for_bit(tmp_path, monkeypatch, stop):
    monkeypatch.setattr("train.trainer.SECONDS_BETWEEN_PROGRESS", -1)
    monkeypatch.setattr(protocols, "WINDOWS_TEXT", 1000)
    check_resume(tmp_path, make_config(protocol="windows", seq_length=None, batch_size=32), stop)


def test_an_interrupted_run_already_holds_the_best_model_so_far(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(make_text(), tmp_path / "out", make_config(epochs=4), StopAt(epochs=2))
    lm = CharLM.from_pretrained(tmp_path / "out")
    assert [epoch["epoch"] for epoch in lm.history["epochs"]] == [1, 2]


def test_only_the_final_model_of_a_run_has_samples_written_for_its_card(tmp_path):
    def shown(folder):
        return (folder / "README.md").read_text(encoding="utf-8").count("At temperature")

    with pytest.raises(KeyboardInterrupt):
        fit(make_text(), tmp_path / "out", make_config(), StopAt(epochs=1))
    assert shown(tmp_path / "out") == 0
    fit(make_text(), tmp_path / "out", make_config(), Report(), resume=True)
    assert shown(tmp_path / "out") == 3


@pytest.mark.slow
def test_a_run_of_very_many_epochs_shows_less_of_each_so_that_its_record_can_be_read(tmp_path):
    for epochs, shown in ((1_000, 500), (2_000, 277), (5_000, 70)):
        out = tmp_path / str(epochs)
        with pytest.raises(KeyboardInterrupt):
            fit(make_text(), out, make_config(epochs=epochs), StopAt(epochs=1))
        assert len(CharLM.from_pretrained(out).history["epochs"][0]["sample"]) == shown


def test_resuming_a_finished_run_returns_its_record_and_changes_nothing(tmp_path):
    history = fit(make_text(), tmp_path / "out", make_config(), Report())
    before = contents(tmp_path / "out")
    assert fit(make_text(), tmp_path / "out", make_config(), Report(), resume=True) == history
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (None, "out does not exist; begin without --resume"),
        ([], "out is empty; begin without --resume"),
        (["notes.txt", "b.png"], "out holds only b.png, notes.txt; begin without --resume"),
        ("abcdefg", "out holds only a, b, c, d, e and 2 more; begin without --resume"),
    ],
    ids=str,
)
def test_resume_where_nothing_is_tells_what_is_there_and_changes_nothing(tmp_path, names, told):
    out = tmp_path / "out"
    if names is not None:
        out.mkdir()
    for name in names or []:
        (out / name).touch()
    with pytest.raises(NothingToResumeError) as refused:
        fit(make_text(), out, make_config(), Report(), resume=True)
    assert str(refused.value) == f"nothing to resume: {tmp_path / told}"
    assert refused.value.exit_status == 2
    assert sorted(os.listdir(tmp_path)) == ([] if names is None else ["out"])
    assert names is None or sorted(os.listdir(out)) == sorted(names)


def test_resume_in_a_mistyped_folder_names_the_run_that_is_there(tmp_path):
    out = interrupted(tmp_path / "cats-gru")
    with pytest.raises(
        RequestError, match=f"cats-gur does not exist; did you mean {out}\\? Else begin without --resume"
    ):
        fit(make_text(), tmp_path / "cats-gur", make_config(), Report(), resume=True)


def rates(history):
    return [epoch["learning_rate"] for epoch in history["epochs"]]


@pytest.mark.slow
def test_an_interrupted_run_goes_on_for_more_epochs_with_the_rate_of_the_longer_run(tmp_path, capsys):
    out = interrupted(tmp_path / "out")
    longer = make_config(epochs=4)
    with pytest.raises(KeyboardInterrupt):
        fit(make_text(), out, longer, StopAt(epochs=3), resume=True)
    assert (
        "4 epochs in place of 2: from here on, the learning rate is that of a run of 4 epochs" in capsys.readouterr()[1]
    )
    history = fit(make_text(), out, longer, Report(), resume=True)
    assert "in place of" not in capsys.readouterr().err
    assert history["run"]["extensions"] == [{"epoch": 2, "step": 0, "planned_epochs": 2}]
    assert history["run"]["epochs"] == 4
    planned = fit(make_text(), tmp_path / "planned", longer, Report())
    assert "extensions" not in planned["run"]
    assert rates(history)[1:] == rates(planned)[1:]
    assert rates(history)[0] != rates(planned)[0]
    straight = fit(make_text(), interrupted(tmp_path / "straight"), longer, Report(), resume=True)
    assert without_times(straight["epochs"]) == without_times(history["epochs"])
    assert straight["run"] == history["run"]
    assert contents(tmp_path / "straight")["model.safetensors"] == contents(out)["model.safetensors"]


@pytest.mark.slow
@pytest.mark.parametrize("default", [1, 24])
def test_a_run_for_which_no_epochs_are_asked_goes_on_to_its_own_number_bit_for_bit(tmp_path, capsys, default):
    out = interrupted(tmp_path / "out")
    history = fit(make_text(), out, make_config(epochs=default), Report(), resume=True, asks_epochs=False)
    straight = fit(make_text(), tmp_path / "straight", make_config(), Report())
    assert history["run"] == straight["run"]  # with its settings that follow from the number, and without `extensions`
    assert without_times(history["epochs"]) == without_times(straight["epochs"])
    assert contents(out)["model.safetensors"] == contents(tmp_path / "straight")["model.safetensors"]
    before = contents(out)
    capsys.readouterr()
    again = fit(make_text(), out, make_config(epochs=default), Report(), resume=True, asks_epochs=False)
    assert again == history and contents(out) == before
    assert "is finished already" in capsys.readouterr().err


@pytest.mark.slow
def test_a_finished_run_goes_on_for_more_epochs_from_its_model(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    finished = fit(make_text(), out, make_config(), Report())
    weights = read_model(out).weights
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "learning_rate", lambda *_: 0.0)  # so that the weights stay
        history = fit(make_text(), out, make_config(epochs=3), Report(), resume=True)
    assert "going on at epoch 3 from the weights of epoch 2, the best" in capsys.readouterr().err
    assert history["epochs"][:2] == finished["epochs"]
    assert history["epochs"][2]["val_loss"] == finished["best"]["val_loss"]
    assert history["best"] == finished["best"]
    assert all((array == weights[name]).all() for name, array in read_model(out).weights.items())
    extension = {"epoch": 3, "step": 0, "planned_epochs": 2, "weights_of_epoch": 2}
    assert history["run"]["extensions"] == [extension]

    again = fit(make_text(), out, make_config(epochs=4), Report(), resume=True)
    assert again["run"]["extensions"] == [extension, extension | {"epoch": 4, "planned_epochs": 3}]
    assert again["epochs"][3]["val_loss"] < finished["best"]["val_loss"]
    assert CHECKPOINT_FILE not in os.listdir(out)


def test_a_record_with_many_more_epochs_keeps_samples_that_fit(tmp_path, monkeypatch):
    out = interrupted(tmp_path / "out")
    monkeypatch.setattr("train.trainer.longest_sample", lambda epochs, earlier_runs: 400 // epochs)
    with pytest.raises(KeyboardInterrupt):
        fit(make_text(), out, make_config(epochs=40), StopAt(epochs=2), resume=True)
    assert [len(epoch["sample"]) for epoch in read_model(out).history["epochs"]] == [10, 10]


@pytest.mark.slow
def test_what_the_curves_show_is_said_once_although_the_run_is_resumed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("charlm.analysis.diagnosis.GAP", -10.0)  # so that every epoch shows one
    with pytest.raises(KeyboardInterrupt):
        fit(make_text(), tmp_path / "out", make_config(epochs=3), StopInEpoch(2))
    fit(make_text(), tmp_path / "out", make_config(epochs=3), Report(), resume=True)
    assert capsys.readouterr().err.count("note: the training loss is") == 1


class StopInEpoch(Report):
    """Raise KeyboardInterrupt before the first step of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.stop_in = epoch

    def start_epoch(self, epoch, *others):
        super().start_epoch(epoch, *others)
        if epoch == self.stop_in:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_kept_epochs_are_those_that_the_record_names_and_the_best_of_them_is_the_model(tmp_path):
    out = tmp_path / "out"
    history = fit(make_text(), out, make_config(epochs=4), Report(), keep_epochs=True)
    names = sorted(os.listdir(out / "epochs"))
    assert names == ["0001.safetensors", "0002.safetensors", "0003.safetensors", "0004.safetensors"]
    assert history["run"]["keep_epochs"] is True
    for name, epoch in zip(names, history["epochs"], strict=True):
        packed = (out / "epochs" / name).read_bytes()
        assert hashlib.sha256(packed).hexdigest() == epoch["weights_sha256"]
        assert {kind for kind, _, _ in unpack_safetensors(packed).values()} == {"BF16"}
    best = history["best"]["epoch"]
    assert (out / "epochs" / f"000{best}.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    lm = CharLM.from_pretrained(out, epoch=1, device="cpu")
    assert lm.generate("", 100, 0.8, seed=0) == history["epochs"][0]["sample"][:100]


def test_a_run_that_keeps_nothing_has_no_folder_for_it(tmp_path):
    history = fit(make_text(), tmp_path / "out", make_config(epochs=1), Report())
    assert "epochs" not in os.listdir(tmp_path / "out")
    assert "keep_epochs" not in history["run"] and "weights_sha256" not in history["epochs"][0]


@pytest.mark.slow
def test_a_resumed_run_keeps_the_same_epochs_bit_for_bit(tmp_path):
    config = make_config(epochs=4)
    straight = fit(make_text(), tmp_path / "straight", config, Report(), keep_epochs=True)
    for epoch in (2, 4):
        with pytest.raises(KeyboardInterrupt):
            fit(make_text(), tmp_path / "out", config, StopInEpoch(epoch), keep_epochs=True, resume=epoch > 2)
    history = fit(make_text(), tmp_path / "out", config, Report(), keep_epochs=True, resume=True)
    assert without_times(history["epochs"]) == without_times(straight["epochs"])
    assert contents(tmp_path / "out" / "epochs") == contents(tmp_path / "straight" / "epochs")


def test_a_run_that_was_begun_without_keeping_epochs_is_not_resumed_with_it(tmp_path):
    out = interrupted(tmp_path / "out")
    with pytest.raises(RequestError, match="holds a run without --keep-epochs, not with --keep-epochs; resume with"):
        fit(make_text(), out, make_config(), Report(), resume=True, keep_epochs=True)


@pytest.mark.slow
def test_a_disk_that_is_full_at_the_weights_of_an_epoch_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    write, out = folder._write_flushed, tmp_path / "out"

    def fail_at_the_second(path, content):
        if path.name == "0002.safetensors":
            raise OSError(28, "No space left on device")
        write(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(folder, "_write_flushed", fail_at_the_second)
        with pytest.raises(TrainingError) as caught:
            fit(make_text(), out, make_config(), Report(), keep_epochs=True)
    assert str(caught.value) == (
        f"cannot write {out}/epochs/0002.safetensors (No space left on device); the last checkpoint is kept: make "
        "room and go on from it with --resume"
    )
    assert os.listdir(out / "epochs") == ["0001.safetensors"]
    fit(make_text(), out, make_config(), Report(), keep_epochs=True, resume=True)
    assert sorted(os.listdir(out / "epochs")) == ["0001.safetensors", "0002.safetensors"]


@pytest.mark.parametrize("export", [1, 2, 3])  # those of two epochs, and that with the whole record
def test_a_disk_that_is_full_at_the_model_keeps_the_checkpoint_and_the_run_goes_on_from_it(
    tmp_path, monkeypatch, export
):
    straight = fit(make_text(), tmp_path / "straight", make_config(), Report())
    write, out, exports = folder._write_flushed, tmp_path / "out", []

    def fail_at_the_model(path, content):
        exports.extend([path] * (path.name == "model.safetensors"))
        if len(exports) == export:
            raise OSError(28, "No space left on device")
        write(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(folder, "_write_flushed", fail_at_the_model)
        with pytest.raises(TrainingError) as caught:
            fit(make_text(), out, make_config(), Report())
    assert str(caught.value) == (
        f"cannot write the model to {out} (No space left on device); the last checkpoint is kept: make room and go on "
        "from it with --resume"
    )
    assert load_checkpoint(out).values["epoch"] == min(export, 2) + 1
    resumed = fit(make_text(), out, make_config(), Report(), resume=True)
    assert without_times(resumed["epochs"]) == without_times(straight["epochs"])
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "straight" / "model.safetensors").read_bytes()


def interrupted(folder, **changes):
    with pytest.raises(KeyboardInterrupt):
        fit(make_text(), folder, make_config(**changes), StopAt(epochs=1))
    return folder


def without_its_checkpoint(folder):
    (interrupted(folder) / CHECKPOINT_FILE).unlink()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("holds", "resume", "changes", "message"),
    [
        (lambda folder: save(make_model(), folder), False, {}, "already holds config.json.*choose another --out"),
        (lambda folder: save(make_model(), folder), True, {}, "holds a run with .* choose another --out"),
        (lambda folder: save(make_model(history=False), folder), True, {}, "a model without a record"),
        (without_its_checkpoint, True, {}, "1 of 2 epochs, and no checkpoint to go on from; choose another --out"),
        (
            interrupted,
            False,
            {},
            "holds an unfinished run; continue it with --resume or choose another --out, such as .*-2$",
        ),
        (interrupted, True, {"hidden_size": 13}, "holds a run with --hidden-size 12, not with --hidden-size 13"),
        (interrupted, True, {"epochs": 1}, "holds a run with --epochs 2, not with --epochs 1"),
        (interrupted, True, {"epochs": 3, "lr": 0.02}, "holds a run with --lr 0.01, not with --lr 0.02"),
        (without_its_checkpoint, True, {"epochs": 3}, "1 of 2 epochs, and no checkpoint to go on from"),
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
    with pytest.raises(RequestError, match="holds a run with another text, called cats; resume with the text"):
        fit(make_text(CONTENT.replace("cat", "cow")), out, make_config(), Report(), resume=True)


def test_the_same_text_under_another_name_continues_a_run(tmp_path):
    out = interrupted(tmp_path / "out")
    renamed = Text("my cats", make_text().encoded)
    assert len(fit(renamed, out, make_config(), Report(), resume=True)["epochs"]) == 2


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("precious")
    with pytest.raises(RequestError, match="is a file; give a folder as --out"):
        fit(make_text(), tmp_path / "out", make_config(), Report())
    assert (tmp_path / "out").read_text() == "precious"


def test_a_place_that_can_be_no_folder_is_refused_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "train_step", lambda *_, **__: pytest.fail("it has begun"))
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
    monkeypatch.setattr(Trainer, "train_step", overflow)
    with pytest.raises(TrainingError, match=r"the loss is no longer a number.*lower --lr than 0\.01"):
        fit(make_text(), out, make_config(), Report(), resume=True)
    assert contents(out) == before


def test_weights_that_the_last_update_made_useless_are_not_kept(tmp_path, monkeypatch):
    out = interrupted(tmp_path / "out")
    before = contents(out)
    monkeypatch.setattr(protocols, "carried_loss", lambda *_: math.nan)
    with pytest.raises(TrainingError, match="the loss is no longer a number"):
        fit(make_text(), out, make_config(), Report(), resume=True)
    assert contents(out) == before


def test_weights_that_are_no_numbers_end_the_run_with_advice(tmp_path, monkeypatch):
    export = TrainingNetwork.export_weights
    monkeypatch.setattr(
        TrainingNetwork,
        "export_weights",
        lambda network: {name: array * np.float32("nan") for name, array in export(network).items()},
    )
    with pytest.raises(TrainingError, match=r"no longer (a number|numbers).*lower --lr than 0\.01"):
        fit(make_text(), tmp_path / "out", make_config(), Report())
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_weights_too_large_to_write_with_are_not_kept_and_the_advice_is_a_lower_rate(tmp_path, monkeypatch):
    out = interrupted(tmp_path / "out")
    before = contents(out)
    export = TrainingNetwork.export_weights
    monkeypatch.setattr(
        TrainingNetwork,
        "export_weights",
        lambda network: {name: np.float32(1e20) * array for name, array in export(network).items()},
    )
    monkeypatch.setattr(protocols, "carried_loss", lambda *_: 3.0)
    with pytest.raises(TrainingError, match=r"no longer numbers, or too large .*lower --lr than 0\.01"):
        fit(make_text(), out, make_config(), Report(), resume=True)
    assert contents(out) == before


def test_an_interrupt_does_not_save_a_run_whose_loss_is_no_number(tmp_path, monkeypatch):
    out = interrupted(tmp_path / "out")
    before = contents(out)

    def overflow_and_interrupt(trainer, stop):
        signal.raise_signal(signal.SIGINT)
        return overflow(trainer, stop)

    monkeypatch.setattr(Trainer, "train_step", overflow_and_interrupt)
    with pytest.raises((TrainingError, KeyboardInterrupt)) as caught:  # an uncaught KeyboardInterrupt would end pytest
        fit(make_text(), out, make_config(), Report(), resume=True)
    assert caught.type is TrainingError and contents(out) == before


def make_trainer(cell="gru", **changes):
    text = make_text()
    protocol = PROTOCOLS[changes.get("protocol", "holdout")](text)
    config = make_config(cell, **changes).resolve(protocol)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Trainer(config, protocol, describe_run(text, protocol, config), Report(), SINGLE_PROCESS)


def test_the_time_left_leaves_out_the_warm_up():
    trainer = make_trainer(epochs=2)
    per_epoch = trainer.batches.steps_per_epoch
    trainer.step, trainer._seconds = 1, 50.0
    assert trainer._seconds_left() == pytest.approx(50 * (2 * per_epoch - 1))
    trainer.step, trainer._seconds = 5, 58.0  # 2 s a step since
    assert trainer._seconds_left() == pytest.approx(2 * (2 * per_epoch - 5))
    trainer._reset_for_epoch(2)
    trainer.step, trainer._seconds = 2, 6.0
    assert trainer._seconds_left() == pytest.approx(3 * (per_epoch - 2))


def test_the_learning_rate_falls_along_half_a_cosine_to_its_last_share():
    trainer = make_trainer(epochs=2, lr=0.01)
    per_epoch = trainer.batches.steps_per_epoch
    rates = []
    for trainer.epoch in (1, 2):
        rates += [trainer.learning_rate(step) for step in range(per_epoch)]
    assert rates[0] == 0.01
    assert rates[per_epoch] == pytest.approx(0.01 * (1 + FINAL_LR_SHARE) / 2)
    falling = (1 + math.cos(math.pi * (per_epoch // 2) / (2 * per_epoch))) / 2
    assert rates[per_epoch // 2] == pytest.approx(0.01 * (FINAL_LR_SHARE + (1 - FINAL_LR_SHARE) * falling))
    assert rates == sorted(rates, reverse=True)
    assert 0.01 * FINAL_LR_SHARE < rates[-1] < 0.01 * FINAL_LR_SHARE * 1.1


def test_in_a_warm_up_the_learning_rate_rises_in_equal_steps_to_what_it_is_without_one():
    plain, warmed = make_trainer(epochs=2, lr=0.01), make_trainer(epochs=2, lr=0.01, warm_up=0.25)
    per_epoch = plain.batches.steps_per_epoch
    rising = per_epoch // 2  # a quarter of two epochs
    assert per_epoch == 2 * rising
    shares = [warmed.learning_rate(step) / plain.learning_rate(step) for step in range(per_epoch)]
    assert shares[:rising] == pytest.approx([(step + 1) / (rising + 1) for step in range(rising)])
    assert shares[rising:] == [1.0] * (per_epoch - rising)


def controlled(path, **asked):
    """Return a control file that asks for something."""
    path.write_text(json.dumps(asked), encoding="utf-8")
    return ControlFile(path)


def test_a_learning_rate_that_is_asked_for_holds_at_the_next_step_and_falls_along_the_rest_of_the_cosine(tmp_path):
    plain, edited = make_trainer(epochs=2, lr=0.01), make_trainer(epochs=2, lr=0.01, warm_up=0.5)
    per_epoch, begin = plain.batches.steps_per_epoch, 5
    edited._control = controlled(tmp_path / "control.json", learning_rates=[0.003])
    edited.step = begin
    with Interrupts() as interrupts:
        edited._apply_controls(interrupts)
        edited._apply_controls(interrupts)  # it is asked for once
    assert edited._run["lr_edits"] == [{"epoch": 1, "step": begin, "lr": 0.003}]
    assert "with a lower --lr than 0.003, " in str(edited._divergence("it diverges"))
    for trainer in (plain, edited):
        trainer.rates = []
        for trainer.epoch in (1, 2):
            trainer.rates += [trainer.learning_rate(step) for step in range(per_epoch)]
    assert edited.rates[begin] == 0.003
    factor = 0.003 / plain.rates[begin]
    assert edited.rates[begin:] == pytest.approx([factor * rate for rate in plain.rates[begin:]])


@pytest.mark.slow
def test_a_run_whose_rate_is_changed_before_its_first_step_is_that_with_this_rate_bit_for_bit(tmp_path):
    expected = fit(make_text(), tmp_path / "plain", make_config(lr=0.004), Report())
    control = controlled(tmp_path / "control.json", learning_rates=[0.004])
    history = fit(make_text(), tmp_path / "edited", make_config(), Report(), control=control)
    assert history["run"]["lr_edits"] == [{"epoch": 1, "step": 0, "lr": 0.004}]
    assert without_times(history["epochs"]) == without_times(expected["epochs"])
    assert json.loads((tmp_path / "edited" / "history.json").read_text(encoding="utf-8")) == history


@pytest.mark.slow
def test_a_run_whose_rate_was_changed_goes_on_from_a_checkpoint_as_without_a_break(tmp_path):
    class Edit(Report):
        """Ask for a rate after the first epoch, and interrupt the run in the second if asked to."""

        def __init__(self, path, interrupts):
            super().__init__()
            self.path, self.interrupts = path, interrupts

        def epoch(self, record, epochs, is_best):
            if record["epoch"] == 1:
                controlled(self.path, learning_rates=[0.002])

        def edit(self, edit):
            if self.interrupts:
                signal.raise_signal(signal.SIGINT)

    whole, cut = tmp_path / "whole.json", tmp_path / "cut.json"
    expected = fit(make_text(), tmp_path / "whole", make_config(), Edit(whole, False), control=ControlFile(whole))
    with pytest.raises(KeyboardInterrupt):
        fit(make_text(), tmp_path / "cut", make_config(), Edit(cut, True), control=ControlFile(cut))
    assert load_checkpoint(tmp_path / "cut").values["step"] == 1
    history = fit(make_text(), tmp_path / "cut", make_config(), Report(), resume=True, control=ControlFile(cut))
    assert history["run"]["lr_edits"] == expected["run"]["lr_edits"] == [{"epoch": 2, "step": 0, "lr": 0.002}]
    assert without_times(history["epochs"]) == without_times(expected["epochs"])
    fit(make_text(), tmp_path / "cut", make_config(), Report(), resume=True)  # finished, and without the file


def test_a_paused_run_waits_between_two_steps_and_the_time_is_not_counted(tmp_path, monkeypatch):
    path, clock, shown = tmp_path / "control.json", [0.0], []

    class Pauses(Report):
        def step(self, chars, loss, run_seconds_left):
            if trainer.step == 1:
                controlled(path, paused=True)

        def paused(self, seconds):
            shown.append((trainer.step, seconds))
            if seconds == 60:
                controlled(path, paused=False)

    trainer = make_trainer()
    trainer._control, trainer._report = ControlFile(path), Pauses()
    monkeypatch.setattr("train.trainer.SECONDS_BETWEEN_PROGRESS", -1)  # after each step
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("time.sleep", lambda seconds: clock.__setitem__(0, clock[0] + 30))
    with Interrupts() as interrupts:
        trainer.train_epoch(interrupts)
    assert shown == [(1, 0), (1, 30), (1, 60)]
    assert trainer.step == trainer.batches.steps_per_epoch and trainer._seconds == 0


def test_a_paused_run_ends_at_a_signal(tmp_path):
    class Interrupting(Report):
        def paused(self, seconds):
            signal.raise_signal(signal.SIGTERM)

    trainer = make_trainer()
    trainer._control, trainer._report = controlled(tmp_path / "control.json", paused=True), Interrupting()
    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts:
        trainer.train_epoch(interrupts)
    assert trainer.step == 1


def plain_steps(trainer, steps, carries_state, clip_norm):
    """Make the first steps of a run with torch's own layers; return the parameters by name, and the state."""
    plain = PlainModel(json.loads(trainer._model_config.to_json("")))
    plain.load_state_dict(trainer.network.exported_parameters())
    optimizer = torch.optim.AdamW(plain.parameters(), lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    all_steps, state = 2 * trainer.batches.steps_per_epoch, None
    for step in range(steps):
        inputs, targets = trainer.batches.batch(1, step)
        hidden, state = plain.recurrent(plain.embedding(inputs), state if carries_state else None)
        state = tuple(part.detach() for part in (state if isinstance(state, tuple) else (state,)))
        state = state if len(state) > 1 else state[0]
        logits = plain.head(hidden)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)).backward()
        if clip_norm:
            torch.nn.utils.clip_grad_norm_(plain.parameters(), clip_norm)
        optimizer.param_groups[0]["lr"] = 0.01 * (
            FINAL_LR_SHARE + (1 - FINAL_LR_SHARE) * (1 + math.cos(math.pi * step / all_steps)) / 2
        )
        optimizer.step()
    return plain.state_dict(), state


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("clip_norm", [0, 0.5])
@pytest.mark.parametrize("sequences", [{}, {"protocol": "windows", "seq_length": None}], ids=["holdout", "windows"])
def test_the_first_steps_are_those_of_plain_torch(cell, clip_norm, sequences):
    undropped = {"dropout": 0, "embedding_dropout": 0, "weight_decay": 0.1, "precision": "fp32"}
    trainer = make_trainer(cell, clip_norm=clip_norm, **undropped, **sequences)
    expected, state = plain_steps(trainer, 3, carries_state=not sequences, clip_norm=clip_norm)
    for _ in range(3):
        assert not trainer.train_step()
    # Adam's first steps are some 0.01 long whatever the gradient: one near zero, where sums differ, counts as much
    for name, tensor in trainer.network.exported_parameters().items():
        torch.testing.assert_close(tensor.detach(), expected[name], atol=1e-5, rtol=0)
    parts = [torch.stack(part) for part in zip(*trainer.states, strict=True)]  # (L, B, H) each
    torch.testing.assert_close(parts, list(state) if isinstance(state, tuple) else [state], atol=1e-5, rtol=0)


def test_the_state_is_off_the_graph_and_zero_at_an_epochs_start():
    trainer = make_trainer()
    trainer.train_step()
    assert not any(part.requires_grad for layer in trainer.states for part in layer)
    trainer.train_epoch(Interrupts())
    assert trainer.states is None


def press(*_):
    signal.raise_signal(signal.SIGINT)
    pytest.fail("the interrupt did not come at once")


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["carried_loss", "reset_loss"])  # of an epoch, of the best one at the end
def test_an_interrupt_while_losses_are_measured_comes_at_once_and_loses_nothing(tmp_path, monkeypatch, measure):
    straight = fit(make_text(), tmp_path / "straight", make_config(), Report())
    with monkeypatch.context() as patch:
        patch.setattr(protocols, measure, press)
        with pytest.raises(KeyboardInterrupt):
            fit(make_text(), tmp_path / "stopped", make_config(), Report())
    resumed = fit(make_text(), tmp_path / "stopped", make_config(), Report(), resume=True)
    assert without_times(resumed["epochs"]) == without_times(straight["epochs"])
    assert resumed["best"] == straight["best"]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("straight", "stopped")]
    assert weights[0] == weights[1]


@pytest.mark.slow
@pytest.mark.parametrize("export", [1, 2, 3])  # those of two epochs, and that with the whole record
def test_an_interrupt_while_a_model_is_exported_comes_when_it_is_whole(tmp_path, monkeypatch, capsys, export):
    replace_files, exports = folder.replace_files, []

    def press_and_write(out, files):
        exports.append(out)
        if len(exports) == export:
            signal.raise_signal(signal.SIGINT)
        replace_files(out, files)

    monkeypatch.setattr(folder, "replace_files", press_and_write)
    with pytest.raises(KeyboardInterrupt):
        fit(make_text(), tmp_path / "out", make_config(), Report())
    assert len(exports) == export
    assert len(CharLM.from_pretrained(tmp_path / "out").history["epochs"]) == min(export, 2)
    checkpoint = load_checkpoint(tmp_path / "out")
    stands = None if checkpoint is None else (checkpoint.values["epoch"], checkpoint.values["step"])
    assert stands == {1: (2, 1), 2: (3, 0), 3: None}[export]  # it stopped at the next place where it can
    finished = f"the run is finished and {tmp_path / 'out'} holds its model: the interrupt came while that was saved"
    told = "interrupted; the same command with --resume goes on from here" if export < 3 else finished
    assert capsys.readouterr().err.splitlines()[-1] == told


def test_a_second_interrupt_does_not_cut_the_saving_short(tmp_path, monkeypatch):
    def press_again(*arguments):
        signal.raise_signal(signal.SIGINT)
        save_checkpoint(*arguments)

    monkeypatch.setattr("train.trainer.SECONDS_BETWEEN_PROGRESS", -1)
    monkeypatch.setattr(loop, "save_checkpoint", press_again)
    with pytest.raises(KeyboardInterrupt):
        fit(make_text(), tmp_path / "out", make_config(), StopAt(steps=5))
    assert load_checkpoint(tmp_path / "out").values["step"] == 5


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_in_bfloat16_too_a_run_learns_and_goes_on_bit_for_bit(tmp_path, monkeypatch, cell):
    monkeypatch.setattr("train.trainer.SECONDS_BETWEEN_PROGRESS", -1)
    straight = check_resume(tmp_path, make_config(cell, precision="bf16", dropout=0), {"steps": 30})
    assert straight["run"]["precision"] == "bf16"
    # guessing among V symbols has the loss log V
    assert straight["best"]["val_loss"] < 0.9 * math.log(len(set(CONTENT)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("begun", "resumed", "result"), [("fp32", "bf16", "bf16"), ("bf16", "auto", "bf16"), ("fp32", "auto", "fp32")]
)
def test_a_run_goes_on_in_the_precision_asked_for_else_in_the_one_it_began_in(tmp_path, begun, resumed, result):
    out = interrupted(tmp_path / "out", precision=begun)
    history = fit(make_text(), out, make_config(precision=resumed), Report(), resume=True)
    assert len(history["epochs"]) == 2 and history["run"]["precision"] == result
