"""The view *Learn*: the loss curves of the training records, what they show, and the samples of each epoch."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import gradio as gr
from gradio.components import Component

from charlm.web.answers import learn as answers
from charlm.web.answers.write import FIELDS
from charlm.web.components import cards, curves, lines
from charlm.web.errors import QUIET, for_page
from charlm.web.models import ModelRegistry
from charlm.web.plots import AXES, LOSS_UNITS, SCALES, PlotSettings

SHOWN_FIRST = 3  # models

SAVE_PICTURE = """() => charlm.savePicture("loss-curves", "curves.png")"""
SAVE_TABLE = """(text) => { charlm.save(text, "curves.csv", "text/csv"); return text; }"""


class Controls(NamedTuple):
    """What changes or saves the plot of the loss curves."""

    unit: gr.Radio
    axis: gr.Radio
    scale: gr.Radio
    picture: gr.Button
    table_file: gr.Button
    csv: gr.Textbox


class Details(NamedTuple):
    """What the curves show, in words, samples and tables."""

    reading: gr.HTML
    kept: gr.HTML
    epoch: gr.Slider
    samples: gr.HTML
    table: gr.Dataframe
    settings: gr.Dataframe


def build(registry: ModelRegistry, write_settings: Sequence[Component]) -> gr.Dropdown:
    """Lay out the view and connect it; return the picker of models. write_settings: those of the view *Write*."""
    names = answers.comparable(registry, SHOWN_FIRST)
    with gr.Row(elem_classes="view"):
        with gr.Column(elem_classes="controls", scale=0, min_width=288):
            models = gr.Dropdown(registry.names, value=names, multiselect=True, label="Models", elem_id="learn-models")
            controls = _controls()
        with gr.Column(elem_classes="stage"):
            plot = curves(answers.plot(registry, names, PlotSettings()), elem_id="loss-curves")
            details = _details(registry, names)
    _connect(registry, models, plot, controls, details, write_settings)
    return models


def _controls() -> Controls:
    default = PlotSettings()
    unit = gr.Radio(list(LOSS_UNITS), value=default.unit, label="Loss in", elem_id="unit")
    axis = gr.Radio(list(AXES), value=default.axis, label="Over", elem_id="axis")
    scale = gr.Radio(SCALES, value=default.scale, label="Scale", elem_id="scale")
    with gr.Row(elem_classes="actions"):
        picture = gr.Button("Save as PNG", elem_id="save-png", size="md")
        table_file = gr.Button("Save as CSV", elem_id="save-csv", size="md")
    return Controls(unit, axis, scale, picture, table_file, gr.Textbox(visible=False))


def _details(registry: ModelRegistry, names: list[str]) -> Details:
    gr.Markdown("## What the curves show")
    reading = lines(answers.read_curves(registry, names), elem_id="reading", elem_classes="reading")
    gr.Markdown("## What the models wrote as they learnt")
    kept = lines(answers.kept(registry, names), elem_id="kept-epochs", elem_classes="hint")
    last = answers.last_epoch(registry, names)
    epoch = gr.Slider(1, max(last, 2), last, step=1, label="After epoch", elem_id="epoch")
    samples = cards(value=answers.samples(registry, names, last), elem_id="samples")
    with gr.Accordion("Table of all epochs", open=False):
        table = gr.Dataframe(answers.table(registry, names), interactive=False, show_label=False, elem_id="figures")
    with gr.Accordion("Settings of the runs", open=False):
        settings = gr.Dataframe(
            answers.run_settings(registry, names), interactive=False, show_label=False, elem_id="run-settings"
        )
    return Details(reading, kept, epoch, samples, table, settings)


def _connect(
    registry: ModelRegistry,
    models: gr.Dropdown,
    plot: gr.HTML,
    controls: Controls,
    details: Details,
    write_settings: Sequence[Component],
) -> None:
    def draw(names: Any, *plot_settings: Any) -> Any:
        return answers.plot(registry, names, PlotSettings(*plot_settings))

    def show(names: Any) -> list[Any]:
        last = answers.last_epoch(registry, names)
        return [
            answers.read_curves(registry, names),
            answers.kept(registry, names),
            gr.update(maximum=max(last, 2), value=last),
            answers.table(registry, names),
            answers.run_settings(registry, names),
        ]

    def show_samples(names: Any, epoch: Any, *settings: Any) -> list[dict[str, str]]:
        return answers.samples(registry, names, epoch, dict(zip(FIELDS[-len(settings) :], settings, strict=True)))

    def csv(names: Any) -> str:
        return answers.csv(registry, names)

    plot_settings = [controls.unit, controls.axis, controls.scale]
    inputs = [models, *plot_settings]
    # each output has one event, which runs again if its inputs change meanwhile: so it ends with what is chosen last
    last: dict[str, Any] = {"trigger_mode": "always_last", **QUIET}
    shown = [details.reading, details.kept, details.epoch, details.table, details.settings]
    models.change(for_page(show), models, shown, **last)
    gr.on([models.change, *(each.input for each in plot_settings)], for_page(draw), inputs, plot, **last)
    gr.on(
        [models.change, details.epoch.change],
        for_page(show_samples),
        [models, details.epoch, *write_settings],
        details.samples,
        **last,
    )
    controls.picture.click(None, js=SAVE_PICTURE, **QUIET)
    saved = controls.table_file.click(for_page(csv), models, controls.csv, **QUIET)
    saved.then(None, controls.csv, controls.csv, js=SAVE_TABLE, **QUIET)
