"""The view *Look inside*: what a model expected in a text, what its units did, how far back it looks."""

from typing import Any, NamedTuple

import gradio as gr

from charlm.web.answers import inside as answers
from charlm.web.answers.inside import LONGEST_SEARCHED, SURPRISAL
from charlm.web.components import STATIC, curves, heat_text, lines
from charlm.web.errors import QUIET, for_page
from charlm.web.heat import Heat
from charlm.web.models import ModelRegistry

SCENE = (STATIC / "scene.txt").read_text(encoding="utf-8")  # written for this page: no model was trained on it
COLOUR_HINT = "surprisal, or a unit: STATE LAYER:UNIT, for example hidden 0:17"
SEEN_HINT = (
    "Point at a character, or move there with the arrow keys, to see which characters the model held likeliest in its "
    "place. Click it, or press Enter, to see which earlier characters influenced that prediction."
)
COMPARED_FIRST = 2  # models

# JavaScript of the events, see static/page.js. What is shown is traced, which the fields may no longer hold.
TRACE = """() => {
    const { run, text } = charlm.shown("seen");
    return [run.model, text];
}"""
CHANGED_SEEN = """(seen, found, model, text, colour) => [
    charlm.changes(seen?.run, { model, text, colour }, "“Look inside” reads the text as it is now."),
    charlm.changes(found ?? undefined, { model, text }, "The units on offer were found before that."),
].filter(Boolean).join(" ")"""
CHANGED_CONTEXTS = """(compared, models, text) =>
    charlm.changes(compared ?? undefined, { models, text }, "“Compare effective contexts” measures anew.")"""


class InspectionView(NamedTuple):
    """The text coloured by surprisal or by a unit, and the influence on one of its predictions."""

    model: gr.Dropdown
    colour: gr.Dropdown
    text: gr.Textbox
    inspect: gr.Button
    find: gr.Button
    write: gr.Button
    changed: gr.HTML
    seen: gr.HTML
    about: gr.HTML
    influence: gr.Column
    traced: gr.HTML
    traced_line: gr.HTML


def build(registry: ModelRegistry) -> list[gr.Dropdown]:
    """Lay out the view and connect it; return the pickers of models."""
    inspection = _inspection(registry)
    _connect(registry, inspection)
    return [inspection.model, _contexts(registry, inspection.text)]


def _inspection(registry: ModelRegistry) -> InspectionView:
    with gr.Row(equal_height=True):
        names = registry.names
        model = gr.Dropdown(names, value=names[0], label="Model", elem_id="inspect-model", min_width=220)
        colour = gr.Dropdown(
            [SURPRISAL],
            value=SURPRISAL,
            label="Colour the text by",
            info=COLOUR_HINT,
            allow_custom_value=True,
            elem_id="colour",
            min_width=260,
        )
    text = gr.Textbox(SCENE, label="Text", lines=5, max_lines=12, max_length=LONGEST_SEARCHED, elem_id="inspect-text")
    with gr.Row(elem_classes="actions"):
        inspect = gr.Button("Look inside", variant="primary", elem_id="inspect", size="md", min_width=120)
        find = gr.Button("Find interpretable units", elem_id="find-units", size="md", min_width=220)
        write = gr.Button("Let the model write a text", elem_id="write-text", size="md", min_width=200)
    changed = lines(elem_classes="changed", elem_id="seen-changed")
    seen = heat_text("What the model expected", explained=SEEN_HINT, elem_id="seen")
    about = lines(elem_classes="progress", elem_id="seen-line")
    with gr.Column(visible=False) as influence:
        traced = heat_text("Influence on the chosen prediction", elem_id="traced", elem_classes="small")
        traced_line = lines(elem_classes="progress", elem_id="traced-line")
    return InspectionView(
        model, colour, text, inspect, find, write, changed, seen, about, influence, traced, traced_line
    )


def _connect(registry: ModelRegistry, view: InspectionView) -> None:
    def look(model: str, text: str, colour: str) -> tuple[Heat, str, Any]:
        # what was traced belongs to the text that was shown before
        return *answers.inspect(registry, model, text, colour), gr.update(visible=False)

    def find_units(model: str, text: str) -> tuple[Any, dict[str, str]]:
        units = answers.find_units(registry, model, text)
        update = gr.update(
            choices=[SURPRISAL, *units],
            value=units[0] if units else SURPRISAL,
            info=f"{len(units)} units found: choose one",
        )
        return update, {"model": model, "text": text}

    def write_text(model: str) -> str:
        return answers.write_text(registry, model)

    def trace(model: str, text: str, event: gr.EventData) -> list[Any]:
        place = getattr(event, "index", None)
        return [gr.update(visible=True), *answers.trace_influence(registry, model, text, place)]

    model, colour, text = view.model, view.colour, view.text
    found = gr.JSON(visible=False)  # the model and the text in which the units on offer were found
    traced = view.seen.select(
        for_page(trace),
        [model, text],
        [view.influence, view.traced, view.traced_line],
        js=TRACE,
        trigger_mode="always_last",
        **QUIET,
    )
    event: dict[str, Any] = {
        "fn": for_page(look),
        "inputs": [model, text, colour],
        "outputs": [view.seen, view.about, view.influence],
        "cancels": traced,
        **QUIET,
    }
    finding = view.find.click(for_page(find_units), [model, text], [colour, found], **QUIET)
    # the units of one model mean nothing in another
    reset = gr.update(choices=[SURPRISAL], value=SURPRISAL, info=COLOUR_HINT)
    chosen = model.change(lambda: (reset, None), None, [colour, found], cancels=finding, **QUIET)
    looks = [
        gr.on([view.inspect.click, colour.input], **event, trigger_mode="always_last"),
        finding.then(**event),
        view.write.click(for_page(write_text), model, text, **QUIET).then(**event),
        chosen.then(**event),
    ]
    for happens in [*(look.then for look in looks), *(each.change for each in (view.seen, model, text, colour, found))]:
        happens(None, [view.seen, found, model, text, colour], view.changed, js=CHANGED_SEEN, **QUIET)


def _contexts(registry: ModelRegistry, text: gr.Textbox) -> gr.Dropdown:
    """Lay out and connect the comparison of effective contexts on the text; return its picker of models."""
    gr.Markdown(
        "### Effective context\n"
        "How far back do the models look? One character of the text is changed: by how much does that alter the "
        "predictions after it?"
    )
    with gr.Row(elem_classes="actions"):
        names = registry.names
        models = gr.Dropdown(
            names,
            value=names[:COMPARED_FIRST],
            multiselect=True,
            label="Models",
            elem_id="context-models",
            min_width=260,
        )
        compare = gr.Button("Compare effective contexts", elem_id="compare-contexts", size="md", scale=0, min_width=240)
    changed = lines(elem_classes="changed", elem_id="contexts-changed")
    compared = gr.JSON(visible=False)  # the models and the text that were compared
    with gr.Column(visible=False) as comparison:
        chart = curves(elem_id="contexts")
        reading = lines(elem_id="contexts-reading", elem_classes="reading")

    def show(names: list[str], text: str) -> list[Any]:
        plot, sentences = answers.compare_contexts(registry, names, text)
        return [gr.update(visible=True), plot, sentences, {"models": names, "text": text}]

    compare.click(for_page(show), [models, text], [comparison, chart, reading, compared], **QUIET)
    for happens in (compared.change, models.change, text.change):
        happens(None, [compared, models, text], changed, js=CHANGED_CONTEXTS, **QUIET)
    return models
