"""The view *Look inside*: what two models expected in a text, what their units did, how far back they look."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import gradio as gr

from charlm.analysis.inspection import INSPECTIONS_AT_ONCE
from charlm.messages import counted
from charlm.web.answers.examples import text_to_read
from charlm.web.answers.inside import DIFFERENCE, LONGEST_SEARCHED, SURPRISAL, Inspector
from charlm.web.components import curves, inside_stage, legend, lines, pack_seen, server_function
from charlm.web.errors import QUIET, for_page
from charlm.web.models import ModelRegistry

COLOURS = [SURPRISAL, DIFFERENCE]
COLOUR_HINT = "Or type a unit as LAYER:UNIT, such as hidden 0:17. f 0:17 is its forget gate, B f 0:17 that of model B."
COMPARED_FIRST = 2  # models
# For the events that read texts and for the endpoint that does: they share a queue, since each holds the states of two
# models for up to 5,000 characters, some 80 MB.
INSPECTING: dict[str, Any] = {"concurrency_limit": INSPECTIONS_AT_ONCE, "concurrency_id": "inspect"}

# JavaScript of the events, see static/inside.js and static/changed.js
ASK = "(...fields) => charlm.looking.ask(...fields)"
SEND = "() => charlm.looking.send()"
ENDED = "() => charlm.looking.ended()"
FAILED = "() => charlm.looking.failed()"
AWAIT = "() => charlm.looking.want({})"  # the text of another model A, and then a look
GIVE_UP = "() => charlm.looking.want(null)"
WRITE = "charlm.fieldTexts.write"
RESTORE = "charlm.fieldTexts.restore"
PRESS = """() => document.querySelector("#inspect").click()"""
CHANGED_SEEN = "charlm.changed.seen"
CHANGED_CONTEXTS = "charlm.changed.contexts"


class InsideParts(NamedTuple):
    """What is read, by which models, and what colours it."""

    models: tuple[gr.Dropdown, gr.Dropdown]
    colour: gr.Dropdown
    text: gr.Textbox
    inspect: gr.Button
    find: gr.Button
    write: gr.Button
    restore: gr.Button


@dataclass(frozen=True)
class InsideView:
    """The components that the rest of the page uses.

    pickers: all that choose models. a, b, colour, text: what an address holds of the view. offered: the text that the
    page put there, which it exchanges when another model A is chosen.
    """

    pickers: list[gr.Dropdown]
    a: gr.Dropdown
    b: gr.Dropdown
    colour: gr.Dropdown
    text: gr.Textbox
    offered: gr.JSON


def build(registry: ModelRegistry) -> InsideView:
    """Lay out the view and connect it."""
    inspector = Inspector(registry)
    with gr.Row(elem_classes="view"):
        with gr.Column(elem_classes="controls", scale=0, min_width=288):
            parts = _lay_out(registry)
        with gr.Column(elem_classes="stage", scale=1):
            changed = lines(role="status", elem_classes="changed", elem_id="seen-changed")
            influence = server_function("influence", inspector.trace_influence)
            stage = inside_stage([influence, server_function("pattern", inspector.find_pattern)])
            with gr.Accordion("How far back the models look", open=False, elem_id="how-far-back"):
                compared = _contexts(inspector, registry, parts.text)
    offered = gr.JSON([parts.text.value], visible=False)
    _connect(registry, inspector, parts, changed, stage, offered)
    return InsideView([*parts.models, compared], *parts.models, parts.colour, parts.text, offered)


def _lay_out(registry: ModelRegistry) -> InsideParts:
    names = registry.names
    model_a = gr.Dropdown(names, value=names[0], label="Model A", elem_id="inspect-model-a", elem_classes="a")
    model_b = gr.Dropdown(names, value=names[:2][-1], label="Model B", elem_id="inspect-model-b", elem_classes="b")
    colour = gr.Dropdown(
        COLOURS, value=SURPRISAL, label="Colour by", info=COLOUR_HINT, allow_custom_value=True, elem_id="colour"
    )
    legend(elem_id="legend")
    first = text_to_read(registry[names[0]])
    text = gr.Textbox(first, label="Text", lines=8, max_lines=14, max_length=LONGEST_SEARCHED, elem_id="inspect-text")
    with gr.Row(elem_classes="actions"):
        inspect = gr.Button("Look inside", variant="primary", elem_id="inspect", size="md")
        write = gr.Button("Let model A write one", elem_id="write-text", size="md")
        restore = gr.Button("Put my text back", visible=False, elem_id="restore-text", size="md")
        find = gr.Button("Find interpretable units", elem_id="find-units", size="md")
    return InsideParts((model_a, model_b), colour, text, inspect, find, write, restore)


def _connect(
    registry: ModelRegistry,
    inspector: Inspector,
    parts: InsideParts,
    changed: gr.HTML,
    stage: gr.HTML,
    offered: gr.JSON,
) -> None:
    def look(model_a: str, model_b: str, text: str, colour: str) -> dict[str, Any]:
        return pack_seen(inspector.look(model_a, model_b, text, colour))

    def find_units(model: str, text: str) -> tuple[Any, dict[str, str]]:
        units = inspector.find_units(model, text)
        update = gr.update(
            choices=[*COLOURS, *units],
            value=units[0] if units else SURPRISAL,
            info=f"{counted(len(units), 'unit')} found: choose one",
        )
        return update, {"model": model, "text": text}

    def write(model: str) -> list[str]:
        return [inspector.write_text(model)]

    def begin(model_a: object, text: str, offered: object) -> list[Any]:
        """Reset what belongs to the model A before: the colour, the units on offer, and the text that it brought."""
        # the units of one model mean nothing in another; a new update each time, since Gradio takes its value out
        reset = gr.update(choices=COLOURS, value=SURPRISAL, info=COLOUR_HINT)
        own = text_to_read(registry[model_a])
        is_typed = not isinstance(offered, list) or text not in offered
        # one that stays is not sent back: the visitor may be typing another by then
        return [reset, None, gr.update() if is_typed or text == own else own, [own]]

    (model_a, model_b), colour, text = parts.models, parts.colour, parts.text
    found = gr.JSON(visible=False)  # the model and the text in which the units on offer were found
    finding = parts.find.click(for_page(find_units), [model_a, text], [colour, found], **INSPECTING, **QUIET)
    began = [colour, found, text, offered]
    # first of all, since Gradio's client runs the events of a trigger one after another, and waits for each
    model_a.change(None, js=AWAIT, cancels=finding, **QUIET)
    chosen = model_a.change(for_page(begin), [model_a, text, offered], began, **QUIET)
    chosen.failure(None, js=GIVE_UP, **QUIET)
    # one event reads what was asked for last, and runs again if that changes meanwhile: so that is shown last
    asks = [parts.inspect.click, colour.input, model_b.change, stage.select]
    fields: list[Any] = [model_a, model_b, text, colour]
    asked = gr.on(asks, None, fields, colour, js=ASK, **QUIET)
    last: dict[str, Any] = {"trigger_mode": "always_last", **INSPECTING, **QUIET}
    looking = asked.then(for_page(look), fields, stage, js=SEND, **last)
    ended = [looking.success(None, js=ENDED, **QUIET), looking.failure(None, js=FAILED, **QUIET)]
    # the browser puts it into the field, and keeps the text that the visitor has typed there by then
    written = gr.JSON(visible=False)
    writing = parts.write.click(for_page(write), model_a, written, **QUIET)
    shown = writing.success(None, [written, text, offered], [text, parts.restore], js=WRITE, **QUIET)
    restored = parts.restore.click(None, [text, offered], [text, parts.restore], js=RESTORE, **QUIET)
    for before in (finding, shown, restored, chosen):
        before.then(None, js=PRESS, **QUIET)
    for happens in [
        *(event.then for event in (asked, *ended)),
        *(each.change for each in (stage, found, *fields)),
    ]:
        happens(None, [stage, found, *fields], changed, js=CHANGED_SEEN, **QUIET)


def _contexts(inspector: Inspector, registry: ModelRegistry, text: gr.Textbox) -> gr.Dropdown:
    """Lay out and connect the comparison of effective contexts on the text; return its picker of models."""
    gr.Markdown("One character of the text is changed: by how much does that alter the predictions after it?")
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
    changed = lines(role="status", elem_classes="changed", elem_id="contexts-changed")
    compared = gr.JSON(visible=False)  # the models and the text that were compared
    with gr.Column(visible=False) as comparison:
        chart = curves(elem_id="contexts")
        reading = lines(role="status", elem_id="contexts-reading", elem_classes="reading")

    def show(names: list[str], text: str) -> list[Any]:
        plot, sentences = inspector.compare_contexts(names, text)
        return [gr.update(visible=True), plot, sentences, {"models": names, "text": text}]

    compare.click(for_page(show), [models, text], [comparison, chart, reading, compared], **INSPECTING, **QUIET)
    for happens in (compared.change, models.change, text.change):
        happens(None, [compared, models, text], changed, js=CHANGED_CONTEXTS, **QUIET)
    return models
