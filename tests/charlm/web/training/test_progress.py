import pytest

from charlm.web.training import progress
from charlm.web.training.progress import Progress, TimeLimits

START = {"event": "start", "run": {"epochs": 4, "lr": 0.002}}
STEP = {"event": "step", "epoch": 2, "done": 0.5, "loss": 1.25, "seconds_left": 30.2}


def told(*events):
    state = Progress("running", "starting")
    for event in events:
        state.take(event)
    return state


def test_a_step_says_how_far_a_training_is():
    state = told(START, STEP)
    assert (state.state, state.message) == ("running", "training: 1.5 epochs, loss 1.250, 30 s left")
    assert (state.share, state.points, state.rate) == (1.5 / 4, [(1.5, 1.25)], 0.002)


def test_a_pause_keeps_the_figures_and_the_next_step_ends_it():
    state = told(START, {"event": "paused", "seconds": 0})
    assert (state.state, state.message) == ("paused", "paused: before its first step")
    state = told(START, STEP, {"event": "paused", "seconds": 0})
    assert (state.state, state.message) == ("paused", "paused: 1.5 epochs, loss 1.250")
    state.take(STEP | {"done": 0.75})
    assert state.state == "running"


def test_what_was_chosen_for_a_time_stands_at_the_end_of_each_message():
    run = {"epochs": 4, "lr": 0.0087, "minutes": 2.0, "num_layers": 1, "hidden_size": 256, "dropout": 0.05}
    chosen = "; chosen for 2 min: 1 × 256, learning rate 0.0087, dropout 0.05"
    state = told({"event": "start", "run": run}, STEP)
    assert state.message == "training: 1.5 epochs, loss 1.250, 30 s left" + chosen
    state.take({"event": "paused", "seconds": 0})
    assert state.message == "paused: 1.5 epochs, loss 1.250" + chosen
    assert told(START, STEP).chosen == ""


def test_a_learning_rate_is_marked_on_the_curve_where_the_next_loss_is_known():
    state = told(START, STEP, {"event": "edit", "epoch": 2, "step": 9, "lr": 0.0005})
    assert state.curves["marks"] == [] and state.rate == 0.0005
    state.take(STEP | {"done": 0.75, "loss": 1.125})
    (mark,) = state.curves["marks"]
    assert (mark["name"], mark["at"]) == ("learning rate 0.0005 from epoch 1.8", [1.75, 1.125])
    assert mark["sign"] == "arrow"  # a star is the best epoch
    state.take(STEP | {"done": 0.875})
    assert len(state.curves["marks"]) == 1


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    return now


def test_only_the_time_that_a_training_runs_counts_against_its_minutes(clock):
    limits = TimeLimits(5)
    for _ in range(4):
        clock[0] += 60
        assert limits.why_over(is_paused=False, others_wait=True) == ""
    for _ in range(9):
        clock[0] += 60
        assert limits.why_over(is_paused=True, others_wait=False) == ""
    clock[0] += 60
    assert limits.why_over(is_paused=False, others_wait=False) == "the 5 minutes are over"


def test_all_pauses_together_end_after_two_minutes_while_others_wait_and_after_ten_in_any_case(clock):
    limits = TimeLimits(5)
    for others_wait in (True, False, False, True):
        clock[0] += 59
        assert limits.why_over(is_paused=True, others_wait=others_wait) == ""
        clock[0] += 1
        assert limits.why_over(is_paused=False, others_wait=True) == ""
    clock[0] += 2
    assert limits.why_over(is_paused=True, others_wait=True) == "paused for 2 minutes while others waited"
    alone = TimeLimits(5)
    clock[0] += 599
    assert alone.why_over(is_paused=True, others_wait=False) == ""
    clock[0] += 1
    assert alone.why_over(is_paused=True, others_wait=False) == "paused for 10 minutes"
