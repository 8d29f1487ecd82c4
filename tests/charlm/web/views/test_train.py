"""The stream of a training to the page."""

import gradio as gr

from charlm.web.views.train import _only_changes


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


def test_a_training_ends_when_nobody_reads_its_progress_any_more():
    ended = []

    def progress():
        try:
            yield ["running"]
        finally:
            ended.append(True)

    stream = _only_changes(progress)()
    next(stream)
    stream.close()
    assert ended
