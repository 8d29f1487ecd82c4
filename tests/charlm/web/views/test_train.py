"""The stream of a training to the page."""

from threading import Event

import gradio as gr
import pytest
from models import make_lm

from charlm.web.models import ModelRegistry, ServedModel
from charlm.web.training.progress import Progress
from charlm.web.views.train import _offer, _only_changes, _show_controls


def test_a_value_that_is_the_one_before_is_skipped():
    def progress(first):
        yield [first, {"loss": [1.0]}]
        yield [first, {"loss": [1.0, 0.5]}]
        yield ["ended", {"loss": [1.0, 0.5]}]
        yield [first, {"loss": [1.0, 0.5]}]

    skip = gr.skip()
    assert list(_only_changes(progress)("running")) == [
        ["running", {"loss": [1.0]}],
        [skip, {"loss": [1.0, 0.5]}],
        ["ended", skip],
        ["running", skip],
    ]


def test_a_training_ends_when_nobody_reads_its_progress_any_more_and_nobody_waits_for_its_end():
    may_end, ended = Event(), Event()

    def progress():
        try:
            yield ["running"]
        finally:
            assert may_end.wait(60)
            ended.set()

    stream = _only_changes(progress)()
    next(stream)
    stream.close()  # it would not return before the training has ended
    may_end.set()
    assert ended.wait(60)


def shown_controls(progress):
    """Whether the row, Pause, Go on, the rate and Change are shown; Stop always is, in the row."""
    row, pause, go_on, _, *rate = _show_controls(progress)
    return [update["visible"] for update in (row, pause, go_on, *rate)]


def test_a_training_can_be_paused_and_given_a_rate_once_it_has_made_a_step():
    for state in ("waiting", "running"):  # the second from the start of its process on
        assert shown_controls(Progress(state, "starting", can_pause=True)) == [True, False, False, False, False]
    begun = {"can_pause": True, "points": [(0.1, 2.0)]}
    assert shown_controls(Progress("running", "training", **begun)) == [True, True, False, True, True]
    assert shown_controls(Progress("paused", "paused", **begun)) == [True, False, True, True, True]
    assert shown_controls(Progress("ended", "ended", **begun)) == [False] * 5


@pytest.mark.parametrize(
    ("state", "earlier", "is_offered"),
    [
        ("ended", "my-gru-1", True),
        ("failed", "my-gru-1", True),
        ("running", "my-gru-1", False),
        ("ended", "my-gru-0", False),  # it was evicted
        ("ended", "", False),
    ],
)
def test_after_a_training_without_a_model_the_one_before_is_offered_again(state, earlier, is_offered):
    registry = ModelRegistry([ServedModel("small", make_lm(), "folder")])
    registry.add_visitor_model(ServedModel("my-gru-1", make_lm("gru"), "trained"))
    (_, after, *others), note = _offer(registry, Progress(state, "stopped"), "", earlier, None)
    assert after == gr.update(visible=is_offered) and others == [gr.update()] * 4
    assert note == ("; the buttons below are those of the model before" if is_offered else "")
