"""The components of the view *Train*: what is asked for, what changes a training while it runs, what comes of it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import gradio as gr

from charlm.model.cells import CELLS
from charlm.web.answers.train import TrainingQueue
from charlm.web.components import curves, heat_text, progress_line, samples, text_file
from charlm.web.errors import QUIET
from charlm.web.models import ModelRegistry
from charlm.web.training import texts
from charlm.web.training.settings import DEFAULT_MINUTES, LARGEST_TEXT, PRESETS, SHORTEST_TEXT, TIMED, TIMED_LABEL

# JavaScript of an event: text, text_name and example, when a file is chosen; without a file they stay as they are.
READ = "(chosen, ...source) => (chosen ? [chosen.text, chosen.name, ''] : source)"
# JavaScript of an event: the field for a file shows none once an example has replaced the text of the file.
FORGET = "(example) => { if (example) charlm.forgetFile('train-file'); }"

LOST = "the connection or the server has failed, and the training has ended without a model: press Train again"


class Fields(NamedTuple):
    """The inputs of a training.

    minutes: shown for the size TIMED. text_name: hidden, the name of the file or of the text to try that was chosen.
    example: hidden, the name of the text to try that `text` holds; empty once the visitor has changed the text.
    """

    text: gr.Textbox
    start: gr.Dropdown
    cell: gr.Radio
    size: gr.Radio
    minutes: gr.Number
    text_name: gr.Textbox
    example: gr.Textbox
    train: gr.Button


class RunControls(NamedTuple):
    """What changes a training while it waits and runs. row: of all of them."""

    row: gr.Row
    pause: gr.Button
    go_on: gr.Button
    stop: gr.Button
    rate: gr.Textbox
    set_rate: gr.Button


class Results(NamedTuple):
    """What a training shows, and what is done with its model. trained: hidden, the name of the model.

    plots, after: the rows of the curves and the samples, and of what is done with the model.
    """

    status: gr.HTML
    plots: gr.Row
    curves: gr.HTML
    sample: gr.HTML
    samples: gr.HTML
    on_cpu: gr.Button
    after: gr.Row
    trained: gr.Textbox
    package: gr.DownloadButton
    page: gr.DownloadButton
    publish: gr.Textbox


def lay_out_fields(registry: ModelRegistry, queue: TrainingQueue) -> Fields:
    """Lay out the text, what a training starts from, the cell, the size, and the button that starts it."""
    text, text_name, example = _lay_out_text()
    start = gr.Dropdown(start_choices(registry.names), value="", label="Start from", elem_id="train-start")
    with gr.Column() as sizes:
        cell = gr.Radio(
            [(kind.label, name) for name, kind in CELLS.items()], value="lstm", label="Cell", elem_id="train-cell"
        )
        timed = [] if queue.borrows_gpu else [(TIMED_LABEL, TIMED)]
        choices = timed + [(preset.describe(on_gpu=queue.borrows_gpu), name) for name, preset in PRESETS.items()]
        size = gr.Radio(choices, value=choices[0][1], label="Size", elem_id="train-size")
    with gr.Row(elem_classes="actions"):
        # no bounds: Gradio would also refuse a number out of them while the field is hidden
        minutes = gr.Number(
            DEFAULT_MINUTES, label="Minutes", step=0.5, visible=bool(timed), min_width=120, elem_id="train-minutes"
        )
        train = gr.Button("Train", variant="primary", elem_id="train-go", size="md", min_width=120)

    def show(start: str, size: str) -> list[Any]:
        return [gr.update(visible=not start), gr.update(visible=not start and size == TIMED)]

    gr.on([start.change, size.change], show, [start, size], [sizes, minutes], **QUIET)
    return Fields(text, start, cell, size, minutes, text_name, example, train)


def start_choices(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return what a training can start from, each with its value. names: of the models on offer."""
    return [("random weights", ""), *((name, name) for name in names)]


def _lay_out_text() -> tuple[gr.Textbox, gr.Textbox, gr.Textbox]:
    """Lay out the text, and what it may come from: a file, or one of the texts to try.

    Returns the text, `text_name` and `example`, see Fields.
    """
    text = gr.Textbox(
        label="Text",
        info=f"At least {SHORTEST_TEXT:,} characters; from about 100,000 on, a model learns words and lines.",
        placeholder="Paste a text, or drop a file here.",
        lines=4,
        max_lines=4,
        elem_id="train-text",
    )
    text_name, example = gr.Textbox(visible=False), gr.Textbox(visible=False)
    source = [text, text_name, example]
    with gr.Row(elem_classes="examples", elem_id="train-examples"):
        for kind in texts.KINDS:
            button = gr.Button(texts.title(kind), size="sm", min_width=60, elem_classes="example")
            button.click(lambda kind=kind: (texts.make_text(kind), kind, kind), None, source, **QUIET)
    limit = f"or a file, up to {LARGEST_TEXT / 1e6:g} MB:"
    file = text_file(limit, LARGEST_TEXT, drop="#train-text", elem_id="train-file")
    file.change(None, [file, *source], source, js=READ, **QUIET)
    file.input(None, None, [text_name, example], js="() => ['', '']", **QUIET)
    example.change(None, example, None, js=FORGET, **QUIET)
    return text, text_name, example


def lay_out_controls() -> RunControls:
    """Lay out what changes a training while it waits and runs."""
    with gr.Row(visible=False, elem_classes="actions", elem_id="train-controls") as row:
        pause = gr.Button("Pause", elem_id="train-pause", size="md", min_width=90)
        go_on = gr.Button("Go on", visible=False, elem_id="train-go-on", size="md", min_width=90)
        stop = gr.Button("Stop", elem_id="train-stop", size="md", min_width=90)
        rate = gr.Textbox(
            placeholder="learning rate",
            label="Learning rate from the next step on",
            show_label=False,
            max_length=20,
            elem_id="train-rate",
        )
        set_rate = gr.Button("Change", elem_id="train-set-rate", size="md", min_width=90)
    return RunControls(row, pause, go_on, stop, rate, set_rate)


def lay_out_status(queue: TrainingQueue) -> gr.HTML:
    """Lay out the line about the training, which says before the first one what will stand here."""
    rules = f"One training runs at a time, for up to {queue.minutes:g} minutes; the others wait in a queue."
    message = f"Choose a text and press Train: the loss curves and what the model writes appear here. {rules}"
    return progress_line({"state": "empty", "message": message}, lost=LOST, elem_id="train-status")


def lay_out_results(status: gr.HTML) -> tuple[Results, gr.Button]:
    """Lay out what a training shows and what is done with its model; also return the button that writes with it."""
    on_cpu = gr.Button("Train on the CPU instead", visible=False, elem_id="train-on-cpu", size="md")
    with gr.Row(visible=False, elem_classes="actions", elem_id="train-after") as after:
        write = gr.Button("Write with it", variant="primary", elem_id="train-write", size="md", min_width=120)
        package = gr.DownloadButton("Download", elem_id="train-zip", size="md", min_width=90)
        page = gr.DownloadButton("Export as one page", elem_id="train-page", size="md", min_width=120)
        publish = gr.Textbox(
            label="Publish what you downloaded, as USER on the Hub",
            interactive=True,
            buttons=["copy"],
            elem_id="train-publish",
        )
    with gr.Row(visible=False, elem_classes="sides", elem_id="train-plots") as plots:
        chart = curves(elem_id="train-curves")
        with gr.Column(elem_classes="side", min_width=240):
            sample = heat_text("What it writes now", elem_id="train-sample")
            earlier = samples(elem_id="train-samples")
    trained = gr.Textbox(visible=False)
    return Results(status, plots, chart, sample, earlier, on_cpu, after, trained, package, page, publish), write
