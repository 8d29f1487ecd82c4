import itertools

import pytest

from train.schedule import CHECKS_PER_EPOCH, Schedule, TimeLimit

CHANGED = [{"epoch": 2, "step": 4, "epoch_steps": 5}, {"epoch": 3, "step": 0, "epoch_steps": 8}]


def every_step(schedule, epochs):
    return [(epoch, step) for epoch in range(1, epochs + 1) for step in range(schedule.steps(epoch))]


def test_an_epoch_is_a_pass_over_the_text_unless_there_are_other_steps():
    plain = Schedule(7, 3)
    assert [plain.reads(*each) for each in every_step(plain, 3)] == every_step(plain, 3)
    assert len(every_step(plain, 3)) == 21


@pytest.mark.parametrize("changes", [(), CHANGED])
def test_epochs_of_any_length_read_pass_after_pass_and_leave_nothing_out(changes):
    schedule = Schedule(7, 3, 10, changes)
    read = [schedule.reads(*each) for each in every_step(schedule, 3)]
    assert [schedule.steps_done(*each) for each in every_step(schedule, 3)] == list(range(len(read)))
    passes = [(place // 7 + 1, place % 7) for place in range(len(read))]
    assert read == passes


def test_a_change_in_an_epoch_counts_for_the_share_of_it_that_is_left():
    # epoch 2: 4 of 10 steps are done, the other six tenths of an epoch of 5 steps are 3
    schedule = Schedule(7, 4, 10, CHANGED)
    assert [schedule.steps(epoch) for epoch in (1, 2, 3, 4)] == [10, 7, 8, 8]


@pytest.mark.parametrize("changes", [(), CHANGED])
def test_the_progress_rises_from_0_to_1_without_a_jump_at_a_change(changes):
    schedule = Schedule(7, 3, 10, changes)
    shares = [done / whole for done, whole in (schedule.progress(*each) for each in every_step(schedule, 3))]
    assert shares[0] == 0 and shares == sorted(shares)
    assert max(after - before for before, after in itertools.pairwise([*shares, 1])) < 1 / 3 / 5 + 1e-9
    if changes:
        assert shares[10 + 4] == pytest.approx((1 + 0.4) / 3)  # as without the change
        assert shares[10 + 5] == pytest.approx((1 + 0.4 + 0.6 / 3) / 3)


def test_the_progress_of_a_run_without_changes_is_made_of_whole_numbers():
    assert Schedule(7, 3).progress(2, 5) == (12, 21)


@pytest.mark.parametrize("changes", [[], CHANGED])
def test_the_steps_left_are_those_that_come(changes):
    schedule = Schedule(7, 5, 10, changes)
    steps = every_step(schedule, 5)
    later = [each for each in enumerate(steps) if each[1] >= (3, 0)]  # behind the last change
    assert all(schedule.steps_left(*each) == len(steps) - place for place, each in later)


@pytest.mark.parametrize(("epoch", "step"), [(1, 0), (1, 6), (2, 0), (3, 9)])
@pytest.mark.parametrize("wanted", [1, 17, 40, 300])
def test_a_change_leaves_as_many_steps_as_are_wanted(epoch, step, wanted):
    changes = []
    schedule = Schedule(7, 3, 10, changes)
    changes.extend(filter(None, [schedule.change(epoch, step, wanted)]))
    epochs_left = 3 - epoch + 1
    left = sum(schedule.steps(each) for each in range(epoch, 4)) - step
    # each epoch has a whole number of steps, and at least one
    assert abs(left - max(wanted, epochs_left)) <= epochs_left
    assert left == schedule.steps_left(epoch, step)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def run_with(seconds, epochs, epoch_steps, step_seconds, ending, interrupt_at=None):
    """Let a run of the schedule go by a clock, as the trainer asks for the time left; return its length and changes.

    step_seconds: by the step, counted over the whole run. interrupt_at: then it goes on with a new limit.
    """
    clock, changes, count = Clock(), [], 0
    limit = TimeLimit(seconds, clock=clock)
    schedule = Schedule(50, epochs, epoch_steps, changes)
    limit.ending_seconds, begun = ending, clock.now
    for epoch in range(1, epochs + 1):
        step = 0
        limit.begin_epoch()
        while True:
            total = schedule.steps(epoch)
            if step < total and step % max(total // CHECKS_PER_EPOCH, 1) == 0:
                wanted = limit.steps_left(step, epochs - epoch + 1)
                if wanted is not None and limit.is_off(schedule.steps_left(epoch, step), wanted):
                    changes.extend(filter(None, [schedule.change(epoch, step, wanted)]))
                    total = schedule.steps(epoch)
            if step >= total:
                break
            clock.now += step_seconds(count)
            step, count = step + 1, count + 1
            if count == interrupt_at:
                state = limit.state()
                clock.now += 5000
                begun += 5000
                limit = TimeLimit(seconds, clock=clock)
                limit.resume(state)
                limit.begin_epoch()
        limit.end_epoch()
        clock.now += ending
    return clock.now - begun, changes


@pytest.mark.parametrize("epochs", [1, 2, 8])
@pytest.mark.parametrize("factor", [0.4, 0.7, 1.5, 3])
def test_a_run_ends_in_time_though_the_machine_is_slower_or_faster_than_expected(epochs, factor):
    # 1,000 steps of 0.1 s and the ends of the epochs are planned
    seconds = 100 + 2.5 * epochs
    for slow_from in (0, 300):
        taken, changes = run_with(
            seconds, epochs, 1000 // epochs, lambda count, at=slow_from: 0.1 * (factor if count >= at else 1), 1.0
        )
        assert abs(taken - seconds) < 0.1 * seconds
        assert changes


def test_a_run_that_goes_as_planned_keeps_its_schedule():
    _, changes = run_with(105, 2, 500, lambda _: 0.1, 1.0)
    assert not changes


def test_the_time_until_a_run_is_resumed_does_not_count():
    taken, changes = run_with(105, 2, 500, lambda _: 0.1, 1.0, interrupt_at=640)
    assert abs(taken - 105) < 0.1 * 105 and not changes


def test_a_run_without_time_left_makes_the_fewest_steps():
    taken, _ = run_with(1, 2, 500, lambda _: 0.1, 5.0)
    assert taken == pytest.approx(62 * 0.1 + 2 * 0.1 + 2 * 5)  # up to the first look at the time, and two of the rest
