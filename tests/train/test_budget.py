import itertools
import json
import signal
from dataclasses import asdict, replace

import pytest
from models import make_lm
from stopping import StopAt, without_times

from charlm.errors import RequestError
from charlm.model.cells import CELLS
from train import budget, teachers
from train.advice import core_seconds
from train.budget import Budget, plan
from train.checkpoint import load_checkpoint
from train.config import TrainConfig
from train.control import ControlFile
from train.data import Text
from train.encode import encode_pieces
from train.init_from import NamedModel
from train.loop import fit
from train.protocols import Holdout
from train.recipes import MOST_PASSES, most_chars, predicted_loss, sizes
from train.report import Report
from train.schedule import TimeLimit
from train.teachers import TaughtTargets, Teachers
from train.trainer import Trainer

pytestmark = pytest.mark.usefixtures("no_pictures")

SMALL = {"hidden_size": 12, "embedding_size": 6, "num_layers": 1, "seq_length": 16, "batch_size": 4, "device": "cpu"}


class Clock:
    """A clock that the training moves on."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def protocol(chars):
    return Holdout(Text("letters", encode_pieces(["abcdefgh" * (chars // 8)], "letters")))


@pytest.fixture
def machine(monkeypatch):
    """A core whose speed is that of the runs in docs/log.md; nothing is computed."""

    def seconds(config, protocol, taught=None):
        return core_seconds(
            config.batch_size * config.seq_length, config.batch_size, config.model(protocol.vocab).parameters
        )

    monkeypatch.setattr(budget, "step_seconds", seconds)


def planned(text, minutes, cell="lstm", **given):
    """Return what is chosen for a text and a time, with every choice made, and the characters that it reads."""
    asked = Budget(minutes, TimeLimit(60 * minutes, clock=Clock()), frozenset(given))
    config, epoch_steps = plan(asked, TrainConfig(cell, device="cpu", **given), text, Report())
    chosen = config.resolve(text)
    return chosen, chosen.epochs * epoch_steps * chosen.batch_size * chosen.seq_length


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("chars", [20_000, 1_000_000])
def test_more_time_never_chooses_less_work(machine, cell, chars):
    text, work = protocol(chars), []
    for minutes in (0.5, 1, 2, 3, 5, 10, 20, 30, 60, 200):
        chosen, read = planned(text, minutes, cell)
        work.append(chosen.model(text.vocab).parameters * read)
        # the time is used, but for what the ends of epochs take, unless the text is read as often as is worth it
        seconds = read * core_seconds(10**6, chosen.batch_size, work[-1] // read) / 10**6
        most = most_chars(chosen.hidden_size, text.split["train_chars"])
        reads_most = most - chosen.epochs * chosen.batch_size * chosen.seq_length < read <= most
        assert reads_most or 0.75 * 60 * minutes < seconds
        assert seconds < 60 * minutes
        assert not reads_most or minutes >= 3 or chars < 1_000_000
        assert reads_most or minutes < 20 or chars > 20_000
    for less, more in itertools.pairwise(work):
        assert more > 0.95 * less  # epochs have whole steps


@pytest.mark.parametrize("chars", [20_000, 100_000, 1_000_000])
def test_of_all_sizes_that_suit_the_text_the_one_with_the_lowest_expected_loss_is_chosen(machine, chars):
    text = protocol(chars)
    train_chars = text.split["train_chars"]
    for minutes in (1, 3, 10, 30, 60):
        expected, complete = {}, {}
        for size in sizes(train_chars):
            given = asdict(size)
            config, _ = planned(text, minutes, **given)
            parameters = config.model(text.vocab).parameters
            if expected | complete and parameters > 24 * train_chars:
                continue  # no better than a smaller one
            read = 60 * minutes / core_seconds(1, 32, parameters)  # in the batches by which sizes are compared
            most = most_chars(size.hidden_size, train_chars)
            loss = predicted_loss(size.num_layers, parameters, min(read, most), train_chars)
            if read >= most:
                complete = {tuple(given.values()): loss}  # the largest of those that can read all that is worth it
            else:
                expected[tuple(given.values())] = loss
        expected |= complete
        chosen = planned(text, minutes)[0]
        assert (chosen.num_layers, chosen.hidden_size, chosen.embedding_size) == min(expected, key=expected.get)


@pytest.mark.parametrize(("cell", "size"), [("lstm", (1, 512)), ("gru", (2, 384)), ("rnn", (2, 512))])
def test_a_text_of_medium_length_takes_no_larger_model_than_it_can_teach(machine, cell, size):
    chosen, _ = planned(protocol(100_000), 60, cell)
    assert (chosen.num_layers, chosen.hidden_size) == size


def test_more_time_or_more_text_takes_a_larger_model_and_a_faster_machine_too(machine, monkeypatch):
    def parameters(chars, minutes):
        text = protocol(chars)
        return planned(text, minutes)[0].model(text.vocab).parameters

    assert parameters(1_000_000, 1) < parameters(1_000_000, 60)
    assert parameters(20_000, 60) < parameters(1_000_000, 60)
    assert planned(protocol(8_000), 60)[0].hidden_size <= 128
    slow = parameters(1_000_000, 3)
    seconds = budget.step_seconds
    monkeypatch.setattr(budget, "step_seconds", lambda *of: seconds(*of) / 50)
    assert parameters(1_000_000, 3) > slow


@pytest.mark.parametrize(
    "given",
    [
        {"hidden_size": 77},
        {"num_layers": 3, "embedding_size": 5},
        {"lr": 0.5, "dropout": 0.25, "weight_decay": 0.125, "embedding_dropout": 0.5},
        {"batch_size": 3, "seq_length": 10},
        {"hidden_size": 20, "num_layers": 1, "embedding_size": 5, "seq_length": 32, "warm_up": 0.5, "seed": 9},
    ],
)
def test_what_the_user_gives_is_kept(machine, given):
    chosen, _ = planned(protocol(100_000), 2, **given)
    assert {name: getattr(chosen, name) for name in given} == given


def test_where_no_time_is_left_a_single_step_is_made(machine):
    chosen, read = planned(protocol(100_000), 1e-9)
    assert read == chosen.batch_size * chosen.seq_length


def test_the_recipe_of_a_short_time_is_that_of_few_passes(machine):
    text = protocol(1_000_000)
    short, long = planned(text, 1)[0], planned(text, 600)[0]
    assert short.lr > 2 * long.lr and short.dropout < long.dropout


def test_a_line_says_what_was_chosen_and_why(machine, capsys):
    chosen, read = planned(protocol(1_000_000), 3)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(
        f"chosen: {chosen.num_layers}×{chosen.hidden_size}, of which the lowest loss is expected among 1×128, "
    )
    assert f" {read:,} characters" in said and f"learning rate {chosen.lr:g}" in said
    assert f" times, in {chosen.epochs} epochs; learning rate" in said


def test_a_line_says_if_more_time_would_not_help(machine, capsys):
    read = [planned(protocol(20_000), minutes)[1] for minutes in (100, 1000)]
    assert read[0] == read[1]
    said = capsys.readouterr().err.splitlines()
    assert said[0] == said[1]
    assert " times, in 24 epochs, and ends then, since reading it more often would hardly help; learning" in said[0]


def test_a_single_epoch_is_one_epoch(machine, capsys):
    planned(protocol(1_000_000), 0.1)
    assert ", in 1 epoch; learning rate" in capsys.readouterr().err


def test_the_protocol_of_an_experiment_is_refused(tmp_path):
    text = Text("letters", encode_pieces(["abcdefgh" * 500], "letters"))
    asked = Budget(1, TimeLimit(60))
    with pytest.raises(RequestError, match="--minutes is for the protocol holdout; with windows, give --epochs"):
        fit(text, tmp_path / "out", TrainConfig(protocol="windows"), Report(), budget=asked)
    assert not (tmp_path / "out").exists()


def test_measuring_a_step_changes_no_random_number_and_takes_some_time():
    import torch

    text = protocol(4000)
    state = torch.get_rng_state()
    assert budget.step_seconds(TrainConfig(**SMALL).resolve(text), text) > 0
    assert torch.equal(state, torch.get_rng_state())


def test_measuring_a_step_reads_the_generator_of_the_gpu_that_trains_and_of_no_other(monkeypatch):
    import torch

    text, read = protocol(4000), []
    resolved = replace(TrainConfig(**SMALL).resolve(text), device="cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: read.append(device) or torch.tensor([device]))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: None)
    monkeypatch.setattr(budget, "Trainer", lambda *_, **__: 1 / 0)  # there is no such GPU
    with pytest.raises(ZeroDivisionError):
        budget.step_seconds(resolved, text)
    assert read == [3]


# A whole run by a clock that the steps move on


@pytest.fixture
def timed(monkeypatch):
    """A clock, and a training whose steps take the seconds in `clock.step` by it, 2 s were expected."""
    clock = Clock()
    clock.step, clock.steps = 2.0, 0
    train_step, measure = Trainer.train_step, Trainer.measure

    def step(self, stop=False):
        clock.now, clock.steps = clock.now + clock.step, clock.steps + 1
        return train_step(self, stop)

    def measured(self, interrupts):
        clock.now += 1.0
        return measure(self, interrupts)

    monkeypatch.setattr(Trainer, "train_step", step)
    monkeypatch.setattr(Trainer, "measure", measured)
    monkeypatch.setattr(budget, "step_seconds", lambda *_: 2.0)
    return clock


TEXT = Text("cats", encode_pieces(["the cat sat on the mat; the dog sat on the log.\n" * 20], "cats"))


def run(clock, out, report=None, minutes=4, **options):
    asked = Budget(minutes, TimeLimit(60 * minutes, clock=clock), frozenset(SMALL))
    return fit(TEXT, out, TrainConfig("gru", **SMALL), report or Report(), budget=asked, **options)


@pytest.mark.slow
def test_the_time_in_which_teachers_read_is_not_planned_for_and_steps_are_measured_with_what_they_predict(
    timed, tmp_path, monkeypatch
):
    read, measured = teachers._add_predictions, []

    def read_slowly(*arguments):
        timed.now += 120.0
        read(*arguments)

    def seconds(config, protocol, taught):
        measured.append(taught)
        return 2.0

    monkeypatch.setattr(teachers, "_add_predictions", read_slowly)
    monkeypatch.setattr(budget, "step_seconds", seconds)
    taught_by = Teachers([NamedModel(make_lm("rnn", vocab="".join(TEXT.encoded.symbols)), "teacher", None)])
    planned = run(timed, tmp_path / "out", teachers=taught_by)["run"]
    assert 0.75 * (240 - 120) < 2.0 * planned["epochs"] * planned["epoch_steps"] < 240 - 120
    assert timed.now - 100 == pytest.approx(240, rel=0.1)
    assert all(isinstance(each, TaughtTargets) for each in measured) and measured


@pytest.mark.slow
def test_a_run_with_a_time_and_a_teacher_is_resumed_to_the_same_model(timed, tmp_path):
    taught_by = Teachers([NamedModel(make_lm("rnn", vocab="".join(TEXT.encoded.symbols)), "teacher", None)])
    expected = run(timed, tmp_path / "whole", teachers=taught_by)
    with pytest.raises(KeyboardInterrupt):
        run(timed, tmp_path / "cut", StopAt(epochs=2), teachers=taught_by)
    assert timeless(run(timed, tmp_path / "cut", resume=True, teachers=taught_by)) == timeless(expected)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_where_teachers_take_all_the_time_a_run_still_makes_a_model(timed, tmp_path, monkeypatch):
    def read_for_ever(*_):
        timed.now += 1_000.0

    monkeypatch.setattr(teachers, "_add_predictions", read_for_ever)
    taught_by = Teachers([NamedModel(make_lm("rnn", vocab="".join(TEXT.encoded.symbols)), "teacher", None)])
    history = run(timed, tmp_path / "out", teachers=taught_by)
    assert len(history["epochs"]) == timed.steps == 1


def timeless(history):
    return history | {"epochs": without_times(history["epochs"])}


@pytest.mark.slow
@pytest.mark.parametrize("step", [1.2, 2.0, 4.0])
def test_a_run_ends_near_its_time_at_any_speed_and_records_how(timed, tmp_path, step):
    timed.step = step
    history = run(timed, tmp_path / "out")
    assert timed.now - 100 == pytest.approx(240, rel=0.1)
    assert history["run"]["minutes"] == 4
    assert history["run"]["paces"] or step == 2.0
    assert len(history["epochs"]) == history["run"]["epochs"]
    assert history["epochs"][-1]["learning_rate"] < 0.1 * history["run"]["lr"]  # the schedule comes to its end
    assert json.loads((tmp_path / "out" / "history.json").read_text(encoding="utf-8")) == history


@pytest.mark.slow
@pytest.mark.parametrize("step", [2.0, 0.5])
def test_a_run_ends_early_once_it_has_read_the_text_as_often_as_is_worth_it(timed, tmp_path, monkeypatch, step):
    train_chars = Holdout(TEXT).split["train_chars"]
    wanted = 3 * train_chars
    monkeypatch.setattr(
        "train.recipes.MOST_PASSES", MOST_PASSES * wanted / most_chars(SMALL["hidden_size"], train_chars)
    )
    timed.step = step
    history = run(timed, tmp_path / "out")
    steps = wanted / (SMALL["batch_size"] * SMALL["seq_length"])
    assert timed.steps == pytest.approx(steps, abs=history["run"]["epochs"])
    assert timed.now - 100 < 0.75 * 240
    assert history["epochs"][-1]["learning_rate"] < 0.1 * history["run"]["lr"]


@pytest.mark.slow
def test_the_time_of_a_pause_does_not_count(timed, tmp_path, monkeypatch):
    minutes = 4.003  # no step is exactly at a limit
    expected = run(timed, tmp_path / "whole", minutes=minutes)
    spent, control = timed.now - 100, tmp_path / "control.json"

    def ask(paused):
        new = control.with_suffix(".new")
        new.write_text(json.dumps({"paused": paused}), encoding="utf-8")
        new.replace(control)

    class Pausing(Report):
        def step(self, chars, loss, run_seconds_left):
            ask(paused=timed.steps == begun + 30)

        def paused(self, seconds):
            if seconds > 399:  # and sleeps once more
                ask(paused=False)

    def sleep(seconds):
        timed.now += 100

    begun, looks = timed.steps, itertools.count(1)
    monkeypatch.setattr("train.trainer.SECONDS_BETWEEN_PROGRESS", -1)  # after each step
    monkeypatch.setattr("time.perf_counter", lambda: timed.now + 1e-6 * next(looks))  # no two at the same time
    monkeypatch.setattr("time.sleep", sleep)
    before = timed.now
    paused = run(timed, tmp_path / "paused", Pausing(), minutes=minutes, control=ControlFile(control))
    assert timed.now - before == spent + 500
    assert paused["run"]["paces"] == expected["run"]["paces"]
    assert timeless(paused) == timeless(expected)


class SignalAt(Report):
    """Interrupts the process, as Ctrl-C does, when so many steps were shown."""

    def __init__(self, steps):
        super().__init__()
        self.left = steps

    def step(self, chars, loss, run_seconds_left):
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [StopAt, SignalAt])
@pytest.mark.parametrize("step", [2.0, 3.0])
def test_a_run_that_is_resumed_keeps_what_was_chosen_and_gives_the_same_model(
    timed, tmp_path, monkeypatch, capsys, step, stop
):
    timed.step = step
    expected = run(timed, tmp_path / "whole")
    monkeypatch.setattr("train.trainer.SECONDS_BETWEEN_PROGRESS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        run(timed, tmp_path / "cut", stop(steps=30))
    assert load_checkpoint(tmp_path / "cut").values["limit"]["spent"] > 0
    monkeypatch.setattr(budget, "step_seconds", lambda *_: pytest.fail("it measures again"))
    timed.now += 10_000
    resumed = run(timed, tmp_path / "cut", resume=True)
    assert resumed["run"]["paces"] == expected["run"]["paces"]
    assert timeless(resumed) == timeless(expected)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]
    capsys.readouterr()
    run(timed, tmp_path / "cut", resume=True)
    assert capsys.readouterr().err == (
        f"{tmp_path / 'cut'} is finished already: best validation loss {expected['best']['val_loss']:.4f}\n"
    )


@pytest.mark.slow
def test_a_run_with_a_time_is_not_resumed_with_another_or_without(timed, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(timed, tmp_path / "out", StopAt(steps=1))
    with pytest.raises(
        RequestError, match="holds a run with --minutes 4, not with --minutes 5; resume with the options"
    ):
        run(timed, tmp_path / "out", minutes=5, resume=True)
    with pytest.raises(RequestError, match="holds a run with --minutes 4, not without --minutes"):
        fit(TEXT, tmp_path / "out", TrainConfig("gru", **SMALL), Report(), resume=True)


def test_what_was_chosen_is_every_setting_that_a_plan_may_change(machine):
    text = protocol(100_000)
    asked = Budget(3, TimeLimit(180, clock=Clock()))
    before = TrainConfig(device="cpu")
    chosen = plan(asked, before, text, Report())[0]
    kept = asked.keep(before, asdict(chosen))
    assert kept == chosen
    assert asked.keep(replace(before, lr=0.5), asdict(chosen)) == chosen
    assert replace(asked, given=frozenset({"lr"})).keep(replace(before, lr=0.5), asdict(chosen)).lr == 0.5
