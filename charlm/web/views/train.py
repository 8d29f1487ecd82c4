"""The view *Train*: a model of the visitor's own text, with its curves and samples while it trains."""

import secrets
from collections.abc import Callable, Generator
from functools import wraps
from itertools import zip_longest
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import gradio as gr

from charlm.web.answers.train import MOST_WAITING, TrainingQueue
from charlm.web.components import lines
from charlm.web.errors import QUIET, for_page
from charlm.web.models import ModelRegistry, prepare_model
from charlm.web.training.progress import Progress
from charlm.web.training.result import no_download, publish_command
from charlm.web.views.train_parts import (
    Fields,
    Results,
    RunControls,
    lay_out_controls,
    lay_out_fields,
    lay_out_results,
    lay_out_status,
)

Updates = Generator[list[Any], None, None]  # each list has a value for each of the same components

NOTHING = object()  # which no value equals

# JavaScript of an event, see static/changed.js: what is shown belongs to the text and the settings at the start.
CHANGED = "charlm.changed.training"


class TrainView(NamedTuple):
    """What the page connects with the other views, and the fields that an address fills in.

    trained: a hidden field that takes the name of each model that was trained. write: the button that writes with it.
    """

    trained: gr.Textbox
    write: gr.Button
    fields: Fields


def build(registry: ModelRegistry, queue: TrainingQueue) -> TrainView:
    """Lay out the view and connect it."""
    # 1) the components
    with gr.Row(elem_classes="view"):
        with gr.Column(elem_classes="controls", scale=0, min_width=288):
            fields = lay_out_fields(registry, queue)
        with gr.Column(elem_classes="stage", scale=1):
            changed = lines(role="status", elem_classes="changed", elem_id="train-changed")
            status = lay_out_status(queue)
            controls = lay_out_controls()
            results, write = lay_out_results(status)
    started = gr.JSON(visible=False)  # the text and the settings of the training that is shown
    settings: list[Any] = [fields.text, fields.start, fields.cell, fields.size, fields.minutes]

    # 2) the events
    def train(
        text: str,
        start: str,
        cell: str,
        size: str,
        minutes: float,
        text_name: str,
        earlier: str,
        request: gr.Request,
        on_cpu: bool = False,
    ) -> Updates:
        asked: Any = {"text": text, "start": start, "cell": cell, "size": size, "minutes": minutes}
        model, visitor = registry[start] if start else None, request.session_hash or ""
        for progress in queue.train(text, cell, size, visitor, on_cpu=on_cpu, start=model, minutes=minutes):
            offered = _offer(registry, progress, text_name, earlier, results)
            yield [*_show_controls(progress), *_show_progress(progress, offered.note), *offered.values, asked]
            asked = gr.update()  # the text is sent back once

    def train_on_cpu(
        text: str, start: str, cell: str, size: str, minutes: float, text_name: str, earlier: str, request: gr.Request
    ) -> Updates:
        yield from train(text, start, cell, size, minutes, text_name, earlier, request, on_cpu=True)

    for button, handler in ((fields.train, train), (results.on_cpu, train_on_cpu)):
        training = button.click(
            for_page(_only_changes(handler)),
            [*settings, fields.text_name, results.trained],
            [*controls, *results, started],
            concurrency_limit=MOST_WAITING + 2,  # one more than run and wait: it is told that the queue is full
            concurrency_id="train",
            **QUIET,
        )
        training.failure(None, js="() => charlm.loseResults()", **QUIET)
    _connect_controls(queue, controls)
    for field in (started, *settings):
        field.change(None, [started, *settings], changed, js=CHANGED, **QUIET)
    return TrainView(results.trained, write, fields)


def _only_changes(handler: Callable[..., Updates]) -> Callable[..., Updates]:
    """Return a handler that leaves out each value that has not changed since the update before.

    Gradio's client takes any value for a new one: twice a second it would set 19 components, hide and show some, and
    wait for a frame for each of these.
    """

    @wraps(handler)
    def stream(*args: Any) -> Updates:
        before: list[Any] = []
        updates = handler(*args)
        try:
            for values in updates:
                pairs = zip_longest(values, before, fillvalue=NOTHING)
                yield [gr.skip() if value == old else value for value, old in pairs]
                before = values
        except GeneratorExit:  # the visitor has left: the training must not go on without a reader
            # in a thread, since Gradio closes this generator on its event loop, which answers everybody: to kill the
            # process of the training and to wait for its end can take seconds
            Thread(target=updates.close).start()
            raise

    return stream


def _connect_controls(queue: TrainingQueue, controls: RunControls) -> None:
    """Let the buttons change the training of the visitor who presses them, and no other."""

    def stop(request: gr.Request) -> None:
        queue.stop(request.session_hash or "")

    def pause(request: gr.Request) -> None:
        queue.pause(request.session_hash or "")

    def go_on(request: gr.Request) -> None:
        queue.pause(request.session_hash or "", paused=False)

    def set_rate(rate: str, request: gr.Request) -> str:
        queue.set_learning_rate(request.session_hash or "", rate)
        return ""

    controls.stop.click(stop, None, None, **QUIET)
    controls.pause.click(for_page(pause), None, None, **QUIET)
    controls.go_on.click(for_page(go_on), None, None, **QUIET)
    asks = [controls.set_rate.click, controls.rate.submit]
    gr.on(asks, for_page(set_rate), controls.rate, controls.rate, **QUIET)


def _show_controls(progress: Progress) -> list[Any]:
    """Return the values of `RunControls`."""
    # a process that is still starting reads neither a pause nor a rate
    has_begun = progress.state in ("running", "paused") and bool(progress.points)
    pause = "Pause" if progress.can_pause else "No pause on a borrowed GPU"
    rate = "learning rate" if progress.rate is None else f"learning rate, now {progress.rate:.2g}"
    return [
        gr.update(visible=progress.state in ("waiting", "running", "paused")),
        gr.update(visible=has_begun and progress.state == "running", interactive=progress.can_pause, value=pause),
        gr.update(visible=progress.state == "paused"),
        gr.update(),
        gr.update(visible=has_begun, placeholder=rate),
        gr.update(visible=has_begun),
    ]


def _show_progress(progress: Progress, note: str) -> list[Any]:
    """Return the values of `Results` that a running training has. note: what to say after its message."""
    message = progress.message + note
    if progress.result is not None and progress.result.lm is not None:
        message += ". It is model A of Write, and can be chosen in the other views."
    written = [{"epoch": each["epoch"], "loss": each["val_loss"], "text": each["sample"]} for each in progress.epochs]
    share = progress.share if progress.state in ("running", "paused") else None
    return [
        {"state": progress.state, "message": message, "share": share},
        gr.update(visible=bool(progress.points)),
        progress.curves,
        {"text": written[-1]["text"] if written else "", "name": "sample"},
        written[:-1],
    ]


class Offered(NamedTuple):
    """What is offered of a training: the further values of `Results`, and what to say of them after its message."""

    values: list[Any]
    note: str = ""


def _offer(registry: ModelRegistry, progress: Progress, text_name: str, earlier: str, results: Results) -> Offered:
    """Add the model of a training that has ended to the registry, and put its files where Gradio serves them.

    earlier: the name of the model that this visitor trained last. If this training has left none, it is offered again.
    """
    result = progress.result
    on_cpu = gr.update(visible=result is not None and result.offers_cpu)
    if result is None or result.lm is None:
        is_earlier = progress.state in ("ended", "failed") and earlier in registry
        note = "; the buttons below are those of the model before" if is_earlier else ""
        return Offered([on_cpu, gr.update(visible=is_earlier), *[gr.update()] * 4], note)
    name = f"my-{result.lm.config.cell}-{secrets.token_hex(4)}"  # which nobody else can guess
    registry.add_visitor_model(prepare_model(name, result.lm, "trained"))
    try:
        files = [_serve(result.package, results.package), _serve(result.page, results.page)]
        note = ""
    except OSError as error:  # the model is there all the same
        files, note = [None, None], no_download(error)
    buttons = [gr.update(value=path, visible=path is not None) for path in files]
    command = publish_command(text_name, result.lm)
    return Offered([on_cpu, gr.update(visible=True), name, *buttons, command], note)


def _serve(path: Path | None, button: gr.DownloadButton) -> str | None:
    """Copy a file to the folder that Gradio serves; return its path there. Raises OSError if it cannot be written."""
    return None if path is None else button.move_resource_to_block_cache(path)
