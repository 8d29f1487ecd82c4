"""The view *Write*: two models continue the same prompt, side by side."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import gradio as gr

from charlm.inference import DEFAULT_LENGTH, DEFAULT_TEMPERATURE
from charlm.web.answers import write as answers
from charlm.web.answers.write import (
    FIELDS,
    HIGHEST_TEMPERATURE,
    LARGEST_TOP_K,
    LONGEST_PROMPT,
    LONGEST_TEXT,
    SEED_DIGITS,
    TEMPERATURES,
    BothTexts,
    WriteSettings,
)
from charlm.web.components import heat_text, lines
from charlm.web.errors import QUIET, for_page
from charlm.web.heat import Heat
from charlm.web.models import ModelRegistry

PROMPTS = ("ROMEO:\n", "To be, or not to be", "Apple", "University", "Seoul", "Coffee", "Computer")
PACES = {"as fast as it comes": 0, "to read along": 30, "to read aloud": 14}  # characters per second

# JavaScript of the events, see static/page.js. Stopped texts end where the visitor sees them end.
CONTINUE = '(a, b, length) => [charlm.stopped("output-a"), charlm.stopped("output-b"), length]'
STOP = "() => charlm.stopAll()"
# Which settings of a text are no longer those of the fields. An empty seed field fits every seed; the length shows.
CHANGED = """(heat, model_a, model_b, prompt, length, temperature, top_k, top_p, typed) => {
    const seed = typed.trim().replace(/^0+(?=.)/, "") || heat?.run?.seed;
    const { temperatures, remedy } = %s;
    const now = { model_a, model_b, prompt, top_k, top_p, seed, ...(temperatures ? {} : { temperature }) };
    return charlm.changes(heat?.run, now, remedy);
}"""
CHANGED_TEXTS = CHANGED % json.dumps({"remedy": "“Continue” and “Share” keep to the texts that are shown."})
CHANGED_TEMPERATURES = CHANGED % json.dumps({"temperatures": True, "remedy": "“Three temperatures” writes anew."})
LINK = """(heat, a, b, prompt, length, temperature, top_k, top_p, seed) => {
    const { model_a = a, model_b = b, ...settings } =
        heat?.run ?? { prompt, length, temperature, top_k, top_p, seed };
    return charlm.link({ view: "write", a: model_a, b: model_b, ...settings });
}"""


@dataclass(frozen=True)
class WriteView:
    """The components that the rest of the page uses, together in the order of FIELDS.

    pickers: model A and model B. settings: prompt, length, temperature, top-k, top-p, seed.
    """

    pickers: list[gr.Dropdown]
    settings: list[gr.components.Component]


class Actions(NamedTuple):
    """The buttons, and the field that shows the share link."""

    generate: gr.Button
    stop: gr.Button
    more: gr.Button
    temperatures: gr.Button
    share: gr.Button
    link: gr.Textbox


class Side(NamedTuple):
    """One model's half of the view: its picker, its text, the line about the text."""

    model: gr.Dropdown
    output: gr.HTML
    line: gr.HTML


def build(registry: ModelRegistry) -> WriteView:
    """Lay out the view and connect it."""
    # 1) the components
    prompt = _prompt(registry)
    with gr.Row(equal_height=True):
        length, temperature, seed = _settings()
    with gr.Accordion("More settings", open=False):
        top_k, top_p = _more_settings()
    actions = _actions()
    colours = gr.Checkbox(
        True,
        label="Show surprisal: the stronger the colour of a character, the less the model expected it",
        elem_id="colours",
    )
    colours.input(None, colours, None, js="(on) => document.body.classList.toggle('plain-texts', !on)", **QUIET)
    names = [registry.names[0], registry.names[min(1, len(registry.names) - 1)]]
    changed = lines(elem_classes="changed", elem_id="texts-changed")
    with gr.Row():
        sides = [_side(letter, registry, name) for letter, name in zip("ab", names, strict=True)]
    with gr.Column(visible=False, elem_id="temperatures") as temperatures:
        panels = _temperature_panels()
        panels_changed = lines(elem_classes="changed", elem_id="temperatures-changed")

    # 2) the events
    view = WriteView([side.model for side in sides], [prompt, length, temperature, top_k, top_p, seed])
    run, fill = _connect(registry, view, actions, sides, temperatures, panels)
    fields = [*view.pickers, *view.settings]
    for text, note, script, ends in (
        (sides[0].output, changed, CHANGED_TEXTS, run),
        (panels[0], panels_changed, CHANGED_TEMPERATURES, fill),
    ):
        for happens in [*ends, actions.stop.click, *(field.change for field in fields)]:  # type: ignore[attr-defined]
            happens(None, [text, *fields], note, js=script, **QUIET)
    return view


def _connect(
    registry: ModelRegistry,
    view: WriteView,
    actions: Actions,
    sides: list[Side],
    temperatures: gr.Column,
    panels: list[gr.HTML],
) -> tuple[list[Any], list[Any]]:
    """Connect the buttons with the answers; return the events at the end of both texts, and of those in the panels."""

    def write(*values: Any) -> Iterator[BothTexts]:
        yield from answers.write(registry, _read_fields(values))

    def continue_texts(heat_a: object, heat_b: object, length: int) -> Iterator[BothTexts]:
        yield from answers.continue_texts(registry, heat_a, heat_b, length)

    def write_at_temperatures(*values: Any) -> Iterator[list[Heat]]:
        yield from answers.write_at_temperatures(registry, _read_fields(values))

    fields = [*view.pickers, *view.settings]
    texts = [side.output for side in sides]
    outputs = [*texts, *(side.line for side in sides)]
    prompt, length = view.settings[:2]

    run = gr.on([actions.generate.click, prompt.submit], for_page(write), fields, outputs, **QUIET)  # type: ignore[attr-defined]
    # two events that write the same texts would mix them
    more = actions.more.click(for_page(continue_texts), [*texts, length], outputs, js=CONTINUE, cancels=run, **QUIET)
    starts = [actions.generate.click, prompt.submit]  # type: ignore[attr-defined]
    gr.on(starts, None, cancels=more, **QUIET)
    # the link belongs to the texts before
    gr.on([*starts, actions.more.click], lambda: gr.update(value="", visible=False), None, actions.link, **QUIET)
    shown = actions.temperatures.click(lambda: gr.update(visible=True), None, temperatures, **QUIET)
    fill = shown.then(for_page(write_at_temperatures), fields, panels, **QUIET)
    actions.stop.click(None, cancels=[run, more, fill], js=STOP, **QUIET)
    reveal = actions.share.click(lambda: gr.update(visible=True), None, actions.link, **QUIET)
    reveal.then(None, [texts[0], *fields], actions.link, js=LINK, **QUIET)
    return [run.then, more.then], [fill.then]


def _read_fields(values: tuple[Any, ...]) -> WriteSettings:
    return WriteSettings.from_fields(dict(zip(FIELDS, values, strict=True)))


def _prompt(registry: ModelRegistry) -> gr.Textbox:
    """Lay out the prompt, and buttons with examples."""
    prompt = gr.Textbox(
        value=_first_prompt(registry),
        label="Prompt",
        info="The models continue this text. If it is empty, they start a new line.",
        lines=2,
        max_lines=8,
        max_length=LONGEST_PROMPT,
        elem_id="prompt",
    )
    with gr.Row(elem_classes="examples"):
        for text in PROMPTS:
            button = gr.Button(text.strip(), size="sm", min_width=60, elem_classes="example")
            button.click(None, None, prompt, js=f"() => {json.dumps(text)}", **QUIET)
    return prompt


def _first_prompt(registry: ModelRegistry) -> str:
    """Return the first of PROMPTS whose characters all models know, or an empty prompt."""
    known = [prompt for prompt in PROMPTS if all(not model.lm.vocab.encode_known(prompt)[1] for model in registry)]
    return known[0] if known else ""


def _settings() -> tuple[gr.Slider, gr.Slider, gr.Textbox]:
    """Lay out length, temperature and seed."""
    length = gr.Slider(
        1, LONGEST_TEXT, DEFAULT_LENGTH, step=1, label="Length", info="new characters", elem_id="length", min_width=220
    )
    temperature = gr.Slider(
        0,
        HIGHEST_TEMPERATURE,
        DEFAULT_TEMPERATURE,
        step=0.05,
        label="Temperature",
        info="0: always the likeliest; 1: as learnt",
        elem_id="temperature",
        min_width=220,
    )
    # a Textbox: an empty gr.Number shows 0, and JavaScript's numbers cannot hold every seed
    seed = gr.Textbox(
        label="Seed",
        info="same seed, same text",
        placeholder="random",
        max_length=SEED_DIGITS,
        elem_id="seed",
        min_width=160,
    )
    return length, temperature, seed


def _more_settings() -> tuple[gr.Slider, gr.Slider]:
    """Lay out top-k, top-p and the pace, which the browser alone uses."""
    with gr.Row(equal_height=True):
        top_k = gr.Slider(
            0,
            LARGEST_TOP_K,
            0,
            step=1,
            label="Top-k",
            info="only the k likeliest characters; 0: all",
            elem_id="top-k",
            min_width=220,
        )
        top_p = gr.Slider(
            0,
            1,
            1,
            step=0.01,
            label="Top-p",
            info="only the likeliest, up to this probability; 1: all",
            elem_id="top-p",
            min_width=220,
        )
        pace = gr.Radio(list(PACES), value=next(iter(PACES)), label="Pace of the text", elem_id="pace", min_width=260)
    pace.input(None, pace, None, js=f"(name) => charlm.setPace({json.dumps(PACES)}[name])", **QUIET)
    return top_k, top_p


def _actions() -> Actions:
    with gr.Row(elem_classes="actions"):
        generate = gr.Button("Generate", variant="primary", elem_id="generate", size="md", min_width=120)
        stop = gr.Button("Stop", elem_id="stop", size="md", min_width=90)
        more = gr.Button("Continue", elem_id="continue", size="md", min_width=90)
        temperatures = gr.Button("Three temperatures", elem_id="board", size="md", min_width=160)
        share = gr.Button("Share", elem_id="share", size="md", min_width=90)
    link = gr.Textbox(
        label="This link opens the page with the same models, prompt, settings and seed, so it shows the same text",
        buttons=["copy"],
        visible=False,
        elem_id="link",
    )
    return Actions(generate, stop, more, temperatures, share, link)


def _side(letter: str, registry: ModelRegistry, name: str) -> Side:
    """Lay out one model's half: its picker, the line about the model, its text, the line about the text."""
    with gr.Column(min_width=300):
        model = gr.Dropdown(registry.names, value=name, label=f"Model {letter.upper()}", elem_id=f"model-{letter}")
        about = lines(str(registry[name]), elem_classes="about", elem_id=f"about-{letter}")
        output = heat_text(f"What model {letter.upper()} writes", paced=True, elem_id=f"output-{letter}")
        line = lines(elem_classes="progress", elem_id=f"progress-{letter}")
    model.change(for_page(lambda chosen: str(registry[chosen])), model, about, **QUIET)
    return Side(model, output, line)


def _temperature_panels() -> list[gr.HTML]:
    """Lay out the six texts in the order of `write_at_temperatures`."""
    gr.Markdown("### The same prompt and seed at three temperatures")
    panels = []
    for temperature in TEMPERATURES:
        with gr.Row():
            panels += [
                heat_text(
                    f"Model {letter.upper()} at {temperature}",
                    paced=True,
                    elem_id=f"board-{letter}-{temperature:g}".replace(".", "-"),
                    elem_classes="small",
                    min_width=300,
                )
                for letter in "ab"
            ]
    return panels
