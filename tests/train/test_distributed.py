"""Several processes train one model, started by torchrun; or without it, where each process has to end by itself."""

import json
import os
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import timedelta

import pytest
import torch
from browser import ROOT
from forked_programs import run_program
from models import contents, make_model, save
from stopping import StopAt

from charlm.errors import RequestError
from train.checkpoint import load_checkpoint
from train.config import TrainConfig
from train.data import load_text
from train.distributed import SINGLE_PROCESS, ProcessGroup, join_process_group
from train.init_from import load_start_model
from train.loop import check_same_everywhere, fit
from train.report import Report

SETTINGS = {
    "cell": "gru",
    "epochs": 2,
    "hidden_size": 12,
    "embedding_size": 6,
    "dropout": 0.2,
    "batch_size": 4,
    "seq_length": 16,
    "device": "cpu",
    "precision": "fp32",
}
# Sums over the streams of a batch are made in another order: that alone makes the processes differ from one.
SAME_LOSS = 1e-4
STOP_EPOCH, STOP_STEP = 2, 5
TIMEOUT = 300  # seconds, enough on a busy machine; ends processes that wait for each other for ever


def run(*arguments, **environment):
    """Run a Python program to its end, or kill it after TIMEOUT seconds."""
    whole = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
    return run_program(arguments, ROOT, whole, timeout=TIMEOUT)


def torchrun(*arguments):
    """Start two processes as users do."""
    return run("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments)


def pair(*arguments, other=None):
    """Start two processes that nobody watches over; return how the main process and the other ended.

    other: the arguments of the other one, by default the same.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    with ThreadPoolExecutor(2) as threads:
        ended = [
            threads.submit(run, "-m", "train", *given, **place, RANK=rank, LOCAL_RANK=rank)
            for rank, given in (("0", arguments), ("1", other or arguments))
        ]
    processes = [process.result() for process in ended]
    return [(process.returncode, process.stdout, process.stderr) for process in processes]


def command(text, out, **changes):
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in (SETTINGS | changes).items()]
    return ["fit", "--text", text, "--out", out, *flags]


def losses(history):
    return [epoch[name] for epoch in history["epochs"] for name in ("train_loss", "val_loss")]


def read_history(folder):
    return json.loads((folder / "history.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "cats.txt"
    path.write_text("the cat sat on the mat; the dog sat on the log.\n" * 40)
    return path


@pytest.fixture(scope="module")
def alone(tmp_path_factory, text):
    """The record of one process."""
    out = tmp_path_factory.mktemp("alone")
    return fit(load_text(str(text)), out, TrainConfig(**SETTINGS), Report())


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, text):
    """What two processes said and left behind that torchrun was told to end in the second epoch."""
    out = tmp_path_factory.mktemp("stopped")
    script = ROOT / "tests" / "train" / "stopped_process_group.py"
    return torchrun(script, STOP_EPOCH, STOP_STEP, *command(text, out)), out


@pytest.mark.slow
def test_two_processes_that_torchrun_has_to_end_stop_after_the_same_step_and_save_all_of_the_run(stopped, alone):
    ended, out = stopped
    assert ended.returncode == 1  # torchrun's own
    assert ended.stderr.count("interrupted; the same command with --resume goes on from here") == 1
    assert ended.stderr.count("epoch 1/2: training loss ") == 1
    assert "RuntimeError" not in ended.stderr, ended.stderr  # the all-reduce of one fails if the other has ended
    checkpoint = load_checkpoint(out)
    assert checkpoint.values["epoch"] == STOP_EPOCH
    # the signal may reach the other process a step earlier
    assert checkpoint.values["step"] in (STOP_STEP + 1, STOP_STEP + 2)
    assert checkpoint.tensors["state.0.0"].shape == (SETTINGS["batch_size"], SETTINGS["hidden_size"])
    assert losses(read_history(out)) == pytest.approx(losses(alone)[:2], abs=SAME_LOSS)


@pytest.mark.slow
def test_one_process_goes_on_where_two_have_stopped_to_the_losses_of_one(stopped, alone, text, tmp_path):
    out = shutil.copytree(stopped[1], tmp_path / "out")
    resumed = fit(load_text(str(text)), out, TrainConfig(**SETTINGS), Report(), resume=True)
    assert losses(resumed) == pytest.approx(losses(alone), abs=SAME_LOSS)


@pytest.mark.slow
def test_two_processes_go_on_where_two_have_stopped_to_the_losses_of_one(stopped, alone, text, tmp_path):
    out = shutil.copytree(stopped[1], tmp_path / "out")
    ended = torchrun("-m", "train", *command(text, out), "--resume")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("resuming at epoch 2, step ") == ended.stderr.count("done: ") == 1
    assert losses(read_history(out)) == pytest.approx(losses(alone), abs=SAME_LOSS)


@pytest.mark.slow
def test_two_processes_that_begin_with_a_model_have_the_losses_of_one(text, alone, tmp_path):
    model = save(make_model(SETTINGS["cell"], vocab="\n a;.ctz"), tmp_path / "model")
    record = json.loads((model / "history.json").read_text(encoding="utf-8"))
    record["run"] = alone["run"]  # as if it had learnt from the same text
    (model / "history.json").write_text(json.dumps(record), encoding="utf-8")
    given = {name: SETTINGS[name] for name in ("epochs", "batch_size", "seq_length", "device", "precision")}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    ended = torchrun("-m", "train", "fit", "--text", text, "--out", tmp_path / "two", "--init-from", model, *flags)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("begins with model: validation loss ") == 1
    start = load_start_model(str(model))
    known = start.lm.vocab.symbols
    config = TrainConfig(**start.settings(given))
    one = fit(load_text(str(text), known=known), tmp_path / "one", config, Report(), start=start)
    two = read_history(tmp_path / "two")
    assert two["run"]["init_from"] == one["run"]["init_from"]
    assert two["earlier_runs"] == one["earlier_runs"] != []
    assert two["run"]["before"] == pytest.approx(one["run"]["before"], abs=SAME_LOSS)
    assert losses(two) == pytest.approx(losses(one), abs=SAME_LOSS)


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_both_processes_at_the_same_step_and_one_tells(text, tmp_path):
    diverging = {"lr": 10, "weight_decay": 10, "clip_norm": 0}  # a weight that decays tenfold a step grows
    (main, _, told), other = pair(*command(text, tmp_path / "out", **diverging))
    assert main == 1 and told.count("error: the loss is no longer a number") == 1
    assert other == (1, "", "")


@pytest.mark.slow
def test_what_the_main_process_refuses_ends_both_processes_and_one_tells(text, tmp_path):
    out = save(make_model(), tmp_path / "out")
    before = contents(out)
    (main, _, told), other = pair(*command(text, out))
    assert main == 2 and told.startswith("error: ") and told.count("\n") == 1
    assert "already holds config.json" in told
    assert other == (2, "", "")
    assert contents(out) == before


@pytest.mark.slow
def test_two_processes_with_different_texts_are_both_ended_before_the_first_step_and_one_tells(text, tmp_path):
    changed = tmp_path / "cats.txt"  # a copy that somebody has edited
    changed.write_text(text.read_text().replace("dog", "cow"))
    out = tmp_path / "out"
    (main, _, told), other = pair(*command(text, out), other=command(changed, out, lr=0.5))
    assert main == 2
    assert told == (
        "error: the processes of this training differ in lr, text_sha256; give all of them the same text, models and "
        "options\n"
    )
    assert other == (2, "", "")
    assert list(out.iterdir()) == []


class GatheringGroup(ProcessGroup):
    """A group of two processes of which the other has given `others`."""

    def __init__(self, rank, others):
        super().__init__(rank, 2)
        self.others = others

    def gather(self, value):
        values = [self.others, self.others]
        values[self.rank] = value
        return values


@pytest.mark.parametrize(
    ("mine", "others", "message"),
    [
        ({"init_from": {"revision": "a"}}, {"init_from": {"revision": "b"}}, "differ in init_from; .*@COMMIT$"),
        ({}, {"init_from": {"revision": "b"}}, "differ in init_from; "),
        ({"teachers": [{"name": "a"}], "teacher_weight": 0.5}, {}, "differ in teacher_weight, teachers; .*@COMMIT$"),
        ({"text_sha256": "a", "vocab_size": 3}, {"text_sha256": "b", "vocab_size": 4}, "differ in text_sha256; .*ons$"),
        ({"also_text": {"text_sha256": "a"}}, {"also_text": {"text_sha256": "b"}}, "differ in also_text; "),
        ({"keep_epochs": True}, {}, "differ in keep_epochs; "),
    ],
    ids=str,
)
def test_processes_that_were_given_something_else_are_all_refused_with_the_same_words(mine, others, message):
    config = TrainConfig(**SETTINGS)
    told = []
    for rank, (one, other) in enumerate([(mine, others), (others, mine)]):
        with pytest.raises(RequestError, match=message) as caught:
            check_same_everywhere(one, config, GatheringGroup(rank, asdict(config) | other))
        told.append(str(caught.value))
    assert told[0] == told[1]


def test_processes_may_call_the_text_and_their_device_by_other_names():
    config = TrainConfig(**SETTINGS)
    other = asdict(config) | {"text": "dogs", "device": "cuda", "precision": "bf16", "torch": "2.9"}
    check_same_everywhere({"text": "cats", "torch": "2.13"}, config, GatheringGroup(0, other))


def test_the_streams_of_a_batch_are_divided_in_order_and_completely():
    shares = [list(range(6))[ProcessGroup(rank, 3).share(6)] for rank in range(3)]
    assert shares == [[0, 1], [2, 3], [4, 5]]


def test_streams_that_cannot_be_divided_evenly_are_refused_before_anything_is_made(text, tmp_path, monkeypatch):
    monkeypatch.setattr("train.loop.join_process_group", lambda device: FakeProcessGroup())
    with pytest.raises(RequestError, match="5 streams .* 2 processes; give a --batch-size that is a multiple of 2"):
        fit(load_text(str(text)), tmp_path / "out", TrainConfig(**SETTINGS | {"batch_size": 5}), Report())
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_by_default_two_processes_share_a_short_text_and_one_goes_on_with_their_streams(tmp_path, monkeypatch):
    text = tmp_path / "short.txt"
    text.write_text("the cat sat on the mat.\n" * 72)  # one process alone would read 3 streams
    settings = {name: value for name, value in SETTINGS.items() if name != "batch_size"}
    with monkeypatch.context() as patch:
        patch.setattr("train.loop.join_process_group", lambda device: FakeProcessGroup())
        with pytest.raises(KeyboardInterrupt):
            fit(load_text(str(text)), tmp_path / "out", TrainConfig(**settings), StopAt(epochs=1))
    history = fit(load_text(str(text)), tmp_path / "out", TrainConfig(**settings), Report(), resume=True)
    assert history["run"]["batch_size"] == 2 and len(history["epochs"]) == 2
    assert fit(load_text(str(text)), tmp_path / "alone", TrainConfig(**settings), Report())["run"]["batch_size"] == 3


class FakeProcessGroup(ProcessGroup):
    """A group of two processes of which the other does the same as this one."""

    def __init__(self):
        super().__init__(0, 2)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def all_reduce_mean(self, tensors):
        pass

    def all_gather(self, part):
        return torch.cat([part, part])

    def gather(self, value):
        return [value, value]

    def broadcast_from_main(self, make):
        return make()


def test_a_single_process_reduces_gathers_and_broadcasts_without_a_process_group():
    tensor = torch.arange(6.0).reshape(2, 3)
    before = tensor.clone()
    SINGLE_PROCESS.all_reduce_mean([tensor])
    assert torch.equal(tensor, before) and SINGLE_PROCESS.all_gather(tensor) is tensor
    assert SINGLE_PROCESS.broadcast_from_main(lambda: 7) == 7 and SINGLE_PROCESS.gather(7) == [7]
    with join_process_group("cpu") as group:
        assert group is SINGLE_PROCESS and group.is_main


@pytest.mark.parametrize(("device", "gpus"), [("cuda", 2), ("mps", 1)])
def test_more_processes_than_gpus_are_refused(monkeypatch, device, gpus):
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 29500}
    for name, value in {"WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 4, "RANK": 3, "LOCAL_RANK": 3, **place}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(RequestError, match=f"give torchrun --nproc-per-node {gpus}, or"), join_process_group(device):
        pytest.fail("joined")


@pytest.mark.slow
def test_processes_that_do_not_meet_are_told_in_one_line_what_to_do(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        place = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for name, value in place.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("train.distributed.MEETING_TIME", timedelta(seconds=1))
        message = (
            rf"the 2 processes of WORLD_SIZE do not meet at 127\.0\.0\.1, port {port} \(.*\); start the training with"
        )
        with pytest.raises(RequestError, match=message), join_process_group("cpu"):
            pytest.fail("joined")
