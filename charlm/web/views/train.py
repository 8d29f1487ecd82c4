"""The view *Train*: a model of the visitor's own text, and its curves and samples as they grow."""

import secrets
from collections.abc import Iterator
from typing import Any

import gradio as gr
import pandas as pd

from charlm.model.cells import CELLS
from charlm.model.history import CURVES
from charlm.web.answers.train import LARGEST_TEXT, MOST_WAITING, PRESETS, Progress, TrainingRoom
from charlm.web.components import heat_text, lines, text_file
from charlm.web.errors import QUIET, for_page
from charlm.web.models import ModelRegistry, prepare_model

COLOURS = {CURVES["train_loss"]: "#64748b", CURVES["val_loss"]: "#2563eb"}


def build(registry: ModelRegistry, room: TrainingRoom) -> gr.Textbox:
    """Lay out the view and connect it; return a hidden field that takes the name of each model that was trained."""
    text = gr.Textbox(
        label="A text of your own",
        info="Some ten thousand characters at least; from a hundred thousand on, a model learns words and lines.",
        placeholder="Paste it here, or choose a file below.",
        lines=6,
        max_lines=10,
        elem_id="train-text",
    )
    file = text_file(f"or a text file, up to {LARGEST_TEXT / 1e6:g} MB:", LARGEST_TEXT, elem_id="train-file")
    with gr.Row(equal_height=True):
        cell = gr.Radio(
            [(kind.label, name) for name, kind in CELLS.items()], value="lstm", label="Cell", elem_id="train-cell"
        )
        size = gr.Radio(
            [(preset.label, name) for name, preset in PRESETS.items()],
            value=next(iter(PRESETS)),
            label="Size",
            elem_id="train-size",
        )
    with gr.Row(elem_classes="actions"):
        train = gr.Button("Train", variant="primary", elem_id="train-go", size="md", min_width=120)
        stop = gr.Button("Stop", elem_id="train-stop", size="md", min_width=120)
    rules = f"One training at a time, up to {room.minutes:g} minutes each; who comes later waits in a queue."
    status = lines(rules, elem_classes="progress", elem_id="train-status")
    with gr.Row(visible=False) as course:
        with gr.Column(min_width=300):
            curves = gr.LinePlot(
                x="epoch",
                y="loss",
                color="curve",
                color_map=COLOURS,
                y_title="loss (nats per character)",
                height=300,
                elem_id="train-curves",
            )
        with gr.Column(min_width=300):
            sample = heat_text("What it writes by now", elem_id="train-sample")
    package = gr.DownloadButton("Download the model folder (.zip)", visible=False, elem_id="train-zip", size="md")
    trained = gr.Textbox(visible=False)

    def follow(text: str, cell: str, size: str, request: gr.Request) -> Iterator[list[Any]]:
        for progress in room.train(text, cell, size, request.session_hash or ""):
            name = _add_trained(registry, progress, cell)
            # of the plot, no series is drawn that it did not have at first: it waits for the first validation loss
            rows = progress.curves if progress.epochs else []
            yield [
                progress.message if name is None else f"{progress.message}. It is model A of the other views now.",
                gr.update(visible=bool(rows)),
                pd.DataFrame(rows, columns=["epoch", "loss", "curve"]) if rows else gr.update(),
                {"text": progress.epochs[-1]["sample"] if progress.epochs else "", "name": "sample"},
                gr.update() if name is None else name,
                gr.update(value=progress.package and str(progress.package), visible=progress.package is not None),
            ]

    def stop_training(request: gr.Request) -> None:
        room.stop(request.session_hash or "")

    train.click(
        for_page(follow),
        [text, cell, size],
        [status, course, curves, sample, trained, package],
        concurrency_limit=MOST_WAITING + 2,  # of whom the last is told that there are too many
        concurrency_id="train",
        **QUIET,
    )
    stop.click(stop_training, None, None, **QUIET)
    file.change(lambda chosen: chosen.get("text", "") if isinstance(chosen, dict) else "", file, text, **QUIET)
    return trained


def _add_trained(registry: ModelRegistry, progress: Progress, cell: str) -> str | None:
    """Let the visitor use a model that is trained, under a name that no other can guess; return it."""
    if progress.lm is None:
        return None
    name = f"my-{cell}-{secrets.token_hex(4)}"
    registry.add_visitor_model(prepare_model(name, progress.lm, "trained"))
    return name
