"""The view *Learn*: the stored loss curves, what they mean, and what the models wrote on the way."""

from typing import Any

import gradio as gr

from charlm.web.answers.learn import Learner
from charlm.web.components import cards, lines
from charlm.web.errors import QUIET, for_page
from charlm.web.models import ModelRegistry
from charlm.web.plots import AXES, LOSS_UNITS, SCALES

FIRST = 3  # models that are shown at first

SAVE_PICTURE = """() => document.querySelector('#loss-curves [data-title^="Download plot"]')?.click()"""
SAVE_TABLE = """(text) => { charlm.save(text, "curves.csv", "text/csv"); return text; }"""


def build(registry: ModelRegistry) -> gr.Dropdown:
    """Lay out the view and connect it; return the list of models."""
    learner = Learner(registry)
    shown = _comparable(registry)
    models = gr.Dropdown(registry.names, value=shown, multiselect=True, label="Models", elem_id="learn-models")
    with gr.Row():
        unit = gr.Radio(list(LOSS_UNITS), value="nats per character", label="Loss in", elem_id="unit", min_width=260)
        axis = gr.Radio(list(AXES), value="epochs", label="Over", elem_id="axis", min_width=260)
        scale = gr.Radio(SCALES, value="linear", label="Scale", elem_id="scale", min_width=140)
    curves = gr.Plot(learner.plot(shown, unit.value, axis.value, scale.value), show_label=False, elem_id="loss-curves")
    with gr.Row(elem_classes="actions"):
        picture = gr.Button("Save as PNG", size="sm", elem_id="save-png", min_width=120)
        table_file = gr.Button("Save as CSV", size="sm", elem_id="save-csv", min_width=120)
    gr.Markdown("### What the curves say")
    reading = lines(learner.read(shown), elem_id="reading", elem_classes="reading")
    gr.Markdown("### Through training\nWhat each model wrote after an epoch: move the slider.")
    last = learner.epochs(shown)
    epoch = gr.Slider(1, max(last, 2), last, step=1, label="Epoch", elem_id="epoch")
    samples = cards(value=learner.samples(shown, last), elem_id="samples")
    with gr.Accordion("Every figure", open=False):
        table = gr.Dataframe(learner.table(shown), interactive=False, show_label=False, elem_id="figures")
    with gr.Accordion("Settings of the runs", open=False):
        settings = gr.Dataframe(learner.settings(shown), interactive=False, show_label=False, elem_id="run-settings")
    csv = gr.Textbox(visible=False)

    def show(names: Any, *scales: Any) -> list[Any]:
        last = learner.epochs(names)
        return [
            learner.plot(names, *scales),
            learner.read(names),
            gr.update(maximum=max(last, 2), value=last),
            learner.samples(names, last),
            learner.table(names),
            learner.settings(names),
        ]

    scales = [unit, axis, scale]
    models.change(for_page(show), [models, *scales], [curves, reading, epoch, samples, table, settings], **QUIET)
    gr.on([each.input for each in scales], for_page(learner.plot), [models, *scales], curves, **QUIET)
    epoch.input(for_page(learner.samples), [models, epoch], samples, trigger_mode="always_last", **QUIET)
    picture.click(None, js=SAVE_PICTURE, **QUIET)
    table_file.click(for_page(learner.csv), models, csv, **QUIET).then(None, csv, csv, js=SAVE_TABLE, **QUIET)
    return models


def _comparable(registry: ModelRegistry) -> list[str]:
    """Choose the first models that were measured as the very first one was."""

    def protocol(name: str) -> Any:
        history = registry[name].lm.history
        return history["run"].get("protocol") if history else None

    names = registry.names
    return [name for name in names if protocol(name) == protocol(names[0])][:FIRST]
