"""The view *Learn*: the loss curves of the training records, what they show, and the samples of each epoch."""

from typing import Any

import gradio as gr

from charlm.web.answers import learn as answers
from charlm.web.components import cards, lines
from charlm.web.errors import QUIET, for_page
from charlm.web.models import ModelRegistry
from charlm.web.plots import AXES, LOSS_UNITS, SCALES, PlotSettings

SHOWN_FIRST = 3  # models

SAVE_PICTURE = """() => document.querySelector('#loss-curves [data-title^="Download plot"]')?.click()"""
SAVE_TABLE = """(text) => { charlm.save(text, "curves.csv", "text/csv"); return text; }"""


def build(registry: ModelRegistry) -> gr.Dropdown:
    """Lay out the view and connect it; return the picker of models."""
    # 1) the curves
    names = _comparable(registry)
    models = gr.Dropdown(registry.names, value=names, multiselect=True, label="Models", elem_id="learn-models")
    with gr.Row():
        default = PlotSettings()
        unit = gr.Radio(list(LOSS_UNITS), value=default.unit, label="Loss in", elem_id="unit", min_width=260)
        axis = gr.Radio(list(AXES), value=default.axis, label="Over", elem_id="axis", min_width=260)
        scale = gr.Radio(SCALES, value=default.scale, label="Scale", elem_id="scale", min_width=140)
    curves = gr.Plot(answers.plot(registry, names, default), show_label=False, elem_id="loss-curves")
    with gr.Row(elem_classes="actions"):
        picture = gr.Button("Save as PNG", size="sm", elem_id="save-png", min_width=120)
        table_file = gr.Button("Save as CSV", size="sm", elem_id="save-csv", min_width=120)
    csv = gr.Textbox(visible=False)

    # 2) what they show, in words, samples and tables
    gr.Markdown("### What the curves show")
    reading = lines(answers.read_curves(registry, names), elem_id="reading", elem_classes="reading")
    gr.Markdown("### Samples by epoch\nWhat each model wrote after an epoch. Move the slider to see it learn.")
    last = answers.last_epoch(registry, names)
    epoch = gr.Slider(1, max(last, 2), last, step=1, label="Epoch", elem_id="epoch")
    samples = cards(value=answers.samples(registry, names, last), elem_id="samples")
    with gr.Accordion("Table of all epochs", open=False):
        table = gr.Dataframe(answers.table(registry, names), interactive=False, show_label=False, elem_id="figures")
    with gr.Accordion("Settings of the runs", open=False):
        settings = gr.Dataframe(
            answers.run_settings(registry, names), interactive=False, show_label=False, elem_id="run-settings"
        )

    # 3) the events
    def draw(names: Any, *plot_settings: Any) -> Any:
        return answers.plot(registry, names, PlotSettings(*plot_settings))

    def show(names: Any, *plot_settings: Any) -> list[Any]:
        last = answers.last_epoch(registry, names)
        return [
            draw(names, *plot_settings),
            answers.read_curves(registry, names),
            gr.update(maximum=max(last, 2), value=last),
            answers.samples(registry, names, last),
            answers.table(registry, names),
            answers.run_settings(registry, names),
        ]

    plot_settings = [unit, axis, scale]
    models.change(for_page(show), [models, *plot_settings], [curves, reading, epoch, samples, table, settings], **QUIET)
    gr.on([each.input for each in plot_settings], for_page(draw), [models, *plot_settings], curves, **QUIET)
    epoch.input(
        for_page(lambda names, epoch: answers.samples(registry, names, epoch)),
        [models, epoch],
        samples,
        trigger_mode="always_last",
        **QUIET,
    )
    picture.click(None, js=SAVE_PICTURE, **QUIET)
    saved = table_file.click(for_page(lambda names: answers.csv(registry, names)), models, csv, **QUIET)
    saved.then(None, csv, csv, js=SAVE_TABLE, **QUIET)
    return models


def _comparable(registry: ModelRegistry) -> list[str]:
    """Choose the first models that were measured with the same protocol as the very first one."""

    def protocol(name: str) -> Any:
        history = registry[name].lm.history
        return history["run"].get("protocol") if history else None

    names = registry.names
    return [name for name in names if protocol(name) == protocol(names[0])][:SHOWN_FIRST]
