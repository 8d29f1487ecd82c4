"""The view *Train*: a model of the visitor's own text, with its curves and samples while it trains."""

import secrets
from collections.abc import Iterator
from typing import Any, NamedTuple

import gradio as gr

from charlm.model.cells import CELLS
from charlm.web.answers.train import LARGEST_TEXT, MOST_WAITING, PRESETS, Progress, TrainingQueue, no_download
from charlm.web.components import curves, heat_text, lines, text_file
from charlm.web.errors import QUIET, for_page
from charlm.web.models import ModelRegistry, prepare_model

# JavaScript of an event, see static/page.js: what is shown belongs to the text and the settings at the start.
CHANGED = """(started, text, start, cell, size) => charlm.changes(
    started ?? undefined, { text, start, cell, size }, "The results below are those of the training before.")"""


class Fields(NamedTuple):
    """The fields and buttons above the line about the training."""

    text: gr.Textbox
    start: gr.Dropdown
    cell: gr.Radio
    size: gr.Radio
    train: gr.Button
    stop: gr.Button


class Results(NamedTuple):
    """What a value of `TrainingQueue.train` fills in."""

    status: gr.HTML
    plots: gr.Row
    curves: gr.HTML
    sample: gr.HTML
    trained: gr.Textbox
    package: gr.DownloadButton
    on_cpu: gr.Button


def build(registry: ModelRegistry, queue: TrainingQueue) -> gr.Textbox:
    """Lay out the view and connect it; return a hidden field that takes the name of each model that was trained."""
    fields = _fields(registry, queue)
    changed = lines(elem_classes="changed", elem_id="train-changed")
    results = _results(queue)
    started = gr.JSON(visible=False)  # the text and the settings of the training that is shown
    settings: list[Any] = [fields.text, fields.start, fields.cell, fields.size]

    def train(
        text: str, start: str, cell: str, size: str, request: gr.Request, on_cpu: bool = False
    ) -> Iterator[list[Any]]:
        asked: Any = {"text": text, "start": start, "cell": cell, "size": size}
        model = registry[start] if start else None
        visitor = request.session_hash or ""
        for progress in queue.train(text, cell, size, visitor, on_cpu=on_cpu, start=model):
            name = _add_trained(registry, progress)
            yield [*_fill_in(progress, name, _offer_download(progress, results.package)), asked]
            asked = gr.update()  # the text is sent back once

    def train_on_cpu(text: str, start: str, cell: str, size: str, request: gr.Request) -> Iterator[list[Any]]:
        yield from train(text, start, cell, size, request, on_cpu=True)

    def stop(request: gr.Request) -> None:
        queue.stop(request.session_hash or "")

    for button, handler in ((fields.train, train), (results.on_cpu, train_on_cpu)):
        button.click(
            for_page(handler),
            settings,
            [*results, started],
            concurrency_limit=MOST_WAITING + 2,  # one more than run and wait: it is told that the queue is full
            concurrency_id="train",
            **QUIET,
        )
    fields.stop.click(stop, None, None, **QUIET)
    for field in (started, *settings):
        field.change(None, [started, *settings], changed, js=CHANGED, **QUIET)
    return results.trained


def _fields(registry: ModelRegistry, queue: TrainingQueue) -> Fields:
    text = gr.Textbox(
        label="A text of your own",
        info="Give 10,000 characters or more. From 100,000 on, a model learns words and lines.",
        placeholder="Paste it here, or choose a file below.",
        lines=6,
        max_lines=10,
        elem_id="train-text",
    )
    file = text_file(f"or a text file, up to {LARGEST_TEXT / 1e6:g} MB:", LARGEST_TEXT, elem_id="train-file")
    file.change(lambda chosen: chosen.get("text", "") if isinstance(chosen, dict) else "", file, text, **QUIET)
    start = gr.Dropdown(
        [("random weights", ""), *((name, name) for name in registry.names)],
        value="",
        label="Start from",
        info="A model learns a text like its own sooner, and keeps its cell and size.",
        elem_id="train-start",
    )
    with gr.Row(equal_height=True) as sizes:
        cell = gr.Radio(
            [(kind.label, name) for name, kind in CELLS.items()], value="lstm", label="Cell", elem_id="train-cell"
        )
        size = gr.Radio(
            [(preset.describe(on_gpu=queue.borrows_gpu), name) for name, preset in PRESETS.items()],
            value=next(iter(PRESETS)),
            label="Size",
            elem_id="train-size",
        )
    with gr.Row(elem_classes="actions"):
        train = gr.Button("Train", variant="primary", elem_id="train-go", size="md", min_width=120)
        stop = gr.Button("Stop", elem_id="train-stop", size="md", min_width=120)
    start.change(lambda chosen: gr.update(visible=not chosen), start, sizes, **QUIET)
    return Fields(text, start, cell, size, train, stop)


def _results(queue: TrainingQueue) -> Results:
    rules = f"One training runs at a time, for up to {queue.minutes:g} minutes; the others wait in a queue."
    status = lines(rules, elem_classes="progress", elem_id="train-status")
    on_cpu = gr.Button("Train on the CPU instead", visible=False, elem_id="train-on-cpu", size="md")
    with gr.Row(visible=False) as plots:
        with gr.Column(min_width=300):
            chart = curves(elem_id="train-curves")
        with gr.Column(min_width=300):
            sample = heat_text("Sample after the last epoch", elem_id="train-sample")
    package = gr.DownloadButton("Download the model folder (.zip)", visible=False, elem_id="train-zip", size="md")
    return Results(status, plots, chart, sample, gr.Textbox(visible=False), package, on_cpu)


def _fill_in(progress: Progress, name: str | None, download: str | None) -> list[Any]:
    """Return the values of `Results`. name: of the model, once it is trained. download: the path of its package."""
    return [
        progress.message if name is None else f"{progress.message}. It is model A of the other views now.",
        gr.update(visible=bool(progress.points)),
        progress.curves,
        {"text": progress.epochs[-1]["sample"] if progress.epochs else "", "name": "sample"},
        gr.update() if name is None else name,
        gr.update(value=download, visible=download is not None),
        gr.update(visible=progress.offers_cpu),
    ]


def _offer_download(progress: Progress, button: gr.DownloadButton) -> str | None:
    """Copy the package to the folder that Gradio serves; return its path there, None if there is no package.

    If the copy cannot be written, the progress says so: the model is there all the same.
    """
    if progress.package is None:
        return None
    try:
        return button.move_resource_to_block_cache(progress.package)
    except OSError as error:
        progress.message += no_download(error)
        return None


def _add_trained(registry: ModelRegistry, progress: Progress) -> str | None:
    """Add a finished model to the registry; return its name, which nobody else can guess."""
    if progress.lm is None:
        return None
    name = f"my-{progress.lm.config.cell}-{secrets.token_hex(4)}"
    registry.add_visitor_model(prepare_model(name, progress.lm, "trained"))
    return name
