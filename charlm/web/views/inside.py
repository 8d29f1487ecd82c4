"""The view *Look inside*: what a model expects at each character of a text, and what its units do."""

from typing import Any

import gradio as gr

from charlm.web.answers.inside import LONGEST_SEARCHED, SURPRISE, Insider
from charlm.web.components import STATIC, heat_text, lines
from charlm.web.errors import QUIET, for_page
from charlm.web.models import ModelRegistry

SCENE = (STATIC / "scene.txt").read_text(encoding="utf-8")  # of our own: no model was trained on it
HINT = "surprise, or a unit such as hidden 0:17"
COMPARED = 2  # models whose memory is compared at first


def build(registry: ModelRegistry) -> list[gr.Dropdown]:
    """Lay out the view and connect it; return the lists of models."""
    insider = Insider(registry)
    names = registry.names
    with gr.Row(equal_height=True):
        model = gr.Dropdown(names, value=names[0], label="Model", elem_id="inspect-model", min_width=220)
        colour = gr.Dropdown(
            [SURPRISE],
            value=SURPRISE,
            label="Colour the text by",
            info=HINT,
            allow_custom_value=True,
            elem_id="colour",
            min_width=260,
        )
    text = gr.Textbox(SCENE, label="Text", lines=5, max_lines=12, max_length=LONGEST_SEARCHED, elem_id="inspect-text")
    with gr.Row(elem_classes="actions"):
        inspect = gr.Button("Look inside", variant="primary", elem_id="inspect", size="md", min_width=120)
        find = gr.Button("Find units that track something", elem_id="find-units", size="md", min_width=220)
        write = gr.Button("Let the model write a text", elem_id="write-text", size="md", min_width=200)
    seen = heat_text(
        "What the model made of it",
        explained="Point at a character, or go there with the arrow keys: here stands what the model expected in its "
        "place. Click it, or press Enter, to see which earlier characters moved that prediction.",
        elem_id="seen",
    )
    about = lines(elem_classes="progress", elem_id="seen-line")
    with gr.Column(visible=False) as tracing:
        traced = heat_text("What moved the prediction of the chosen character", elem_id="traced", elem_classes="small")
        traced_line = lines(elem_classes="progress", elem_id="traced-line")

    gr.Markdown(
        "### How far back they remember\n"
        "One character of the text is changed. How much does that alter the predictions after it?"
    )
    with gr.Row(elem_classes="actions"):
        models = gr.Dropdown(
            names, value=names[:COMPARED], multiselect=True, label="Models", elem_id="memory-models", min_width=260
        )
        compare = gr.Button("Compare their memories", elem_id="compare-memory", size="md", scale=0, min_width=240)
    with gr.Column(visible=False) as remembering:
        memory = gr.Plot(show_label=False, elem_id="memory")
        said = lines(elem_id="memory-reading", elem_classes="reading")

    def found(*arguments: Any) -> dict[str, Any]:
        units = insider.find(*arguments)
        return gr.update(
            choices=[SURPRISE, *units],
            value=units[0] if units else SURPRISE,
            info=f"{len(units)} units found: choose one",
        )

    def trace(model: str, text: str, event: gr.EventData) -> list[Any]:
        return [gr.update(visible=True), *insider.trace(model, text, getattr(event, "index", None))]

    def remember(names: list[str], text: str) -> list[Any]:
        return [gr.update(visible=True), *insider.remember(names, text)]

    look = {"fn": for_page(insider.look), "inputs": [model, text, colour], "outputs": [seen, about], **QUIET}
    gr.on([inspect.click, colour.input], **look, trigger_mode="always_last")
    find.click(for_page(found), [model, text], colour, **QUIET).then(**look)
    write.click(for_page(insider.write), model, text, **QUIET).then(**look)
    seen.select(for_page(trace), [model, text], [tracing, traced, traced_line], **QUIET)
    # a unit of one model is none of another
    forgotten = gr.update(choices=[SURPRISE], value=SURPRISE, info=HINT)
    model.change(lambda: forgotten, None, colour, **QUIET).then(**look)
    compare.click(for_page(remember), [models, text], [remembering, memory, said], **QUIET)
    return [model, models]
