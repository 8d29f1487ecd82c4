"""The components of the view *Write*: what is asked for, and the texts of both models."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import gradio as gr

from charlm.inference import DEFAULT_LENGTH, DEFAULT_TEMPERATURE
from charlm.web.answers import draws
from charlm.web.answers.examples import MOST_PROMPTS
from charlm.web.answers.write import (
    HIGHEST_TEMPERATURE,
    LARGEST_TOP_K,
    LONGEST_PROMPT,
    LONGEST_TEXT,
    SEED_DIGITS,
    SIDES,
    TEMPERATURES,
    link_label,
)
from charlm.web.components import heat_text, legend, server_function, titled_line, written_line, written_text
from charlm.web.errors import QUIET, for_page
from charlm.web.models import ModelRegistry

PACES = {"as fast as it comes": 0, "to read along": 30, "to read aloud": 14}  # characters per second


class Actions(NamedTuple):
    """The buttons, and the field that shows the share link."""

    generate: gr.Button
    stop: gr.Button
    more: gr.Button
    share: gr.Button
    link: gr.Textbox


class Examples(NamedTuple):
    """The prompts that are offered, a list, and the buttons that show the first of them, MOST_PROMPTS of them."""

    offered: gr.JSON
    buttons: list[gr.Button]


class Side(NamedTuple):
    """One model's half of the view: its picker, its text, the line about the text."""

    model: gr.Dropdown
    output: gr.HTML
    line: gr.HTML


def make_prompt(prompts: Sequence[str]) -> tuple[gr.Textbox, Examples]:
    """Lay out the prompt, what is said of symbols that the models do not know, and buttons with examples.

    prompts: those that are offered at first, of which the first is filled in.
    """
    prompt = gr.Textbox(
        value=prompts[0] if prompts else "",
        label="Prompt",
        placeholder="If empty, the text begins on a new line",
        lines=3,
        max_lines=8,
        max_length=LONGEST_PROMPT,
        elem_id="prompt",
    )
    gr.HTML('<p id="unknown" hidden></p>', apply_default_css=False)
    offered = gr.JSON(list(prompts), visible=False)
    buttons = []
    with gr.Row(elem_classes="examples"):
        for place in range(MOST_PROMPTS):
            shown = prompts[place : place + 1]
            button = gr.Button(
                shown[0].strip() if shown else "",
                visible=bool(shown),
                size="sm",
                min_width=60,
                elem_classes="example",
            )
            button.click(None, offered, prompt, js=f"(prompts) => prompts[{place}]", **QUIET)
            buttons.append(button)
    prompt.change(None, js="() => charlm.writing.mark()", **QUIET)
    return prompt, Examples(offered, buttons)


def offer_prompts(prompts: Sequence[str]) -> list[Any]:
    """Return the updates of the components of Examples that offer these prompts."""
    hidden = [gr.update(visible=False)] * (MOST_PROMPTS - len(prompts))
    return [list(prompts), *(gr.update(value=prompt.strip(), visible=True) for prompt in prompts), *hidden]


def make_actions() -> Actions:
    """Lay out the buttons, and the field for the link."""
    with gr.Row(elem_classes="actions"):
        generate = gr.Button("Generate", variant="primary", elem_id="generate", size="md")
        stop = gr.Button("Stop", elem_id="stop", size="md")
        more = gr.Button("Continue", elem_id="continue", size="md")
        share = gr.Button("Share", elem_id="share", size="md")
    link = gr.Textbox(label=link_label(), buttons=["copy"], visible=False, elem_id="link")
    return Actions(generate, stop, more, share, link)


def make_settings() -> tuple[list[gr.components.Component], gr.Button]:
    """Lay out length, seed and temperature, and what is seldom changed; return the settings in the order of FIELDS.

    The button writes at three temperatures.
    """
    with gr.Row(elem_classes="pair"):
        length = gr.Number(
            DEFAULT_LENGTH, label="Length", minimum=1, maximum=LONGEST_TEXT, step=1, precision=0, elem_id="length"
        )
        # a Textbox: an empty gr.Number shows 0, and JavaScript's numbers cannot hold every seed
        seed = gr.Textbox(label="Seed", placeholder="random", max_length=SEED_DIGITS, elem_id="seed")
    temperature = gr.Slider(
        0, HIGHEST_TEMPERATURE, DEFAULT_TEMPERATURE, step=0.05, label="Temperature", elem_id="temperature"
    )
    compare = gr.Button("Three temperatures", elem_id="board", size="sm", elem_classes="quiet")
    colours = gr.Checkbox(True, label="Show surprisal as colour", elem_id="colours")
    legend(elem_id="colours-legend")
    with gr.Accordion("More settings", open=False):
        top_k = gr.Slider(0, LARGEST_TOP_K, 0, step=1, label="Top-k (0: all)", elem_id="top-k")
        top_p = gr.Slider(0, 1, 1, step=0.01, label="Top-p (1: all)", elem_id="top-p")
        pace = gr.Radio(list(PACES), value=next(iter(PACES)), label="Pace of the text", elem_id="pace")
    # the browser alone uses these two
    pace.input(None, pace, None, js=f"(name) => charlm.setPace({json.dumps(PACES)}[name])", **QUIET)
    colours.input(None, colours, None, js="(on) => document.body.classList.toggle('plain-texts', !on)", **QUIET)
    return [length, temperature, top_k, top_p, seed], compare


def make_side(letter: str, registry: ModelRegistry, name: str) -> Side:
    """Lay out one model's half: its picker, the line about the model, its text, the line about the text."""

    def look_at(side: object, place: object, heat: object) -> dict[str, Any]:
        return draws.look_at(registry, side, place, heat)

    def symbols_of(model: object) -> str:
        return draws.symbols_of(registry, model)

    def describe(model: str) -> dict[str, str]:
        return {"line": registry[model].about, "title": str(registry[model])}

    functions = [server_function(each.__name__, each) for each in (look_at, symbols_of)]
    with gr.Column(elem_classes=["side", letter], min_width=240):
        model = gr.Dropdown(
            registry.names,
            value=name,
            label=f"Model {letter.upper()}",
            elem_id=f"model-{letter}",
            elem_classes="side-head",
        )
        about = titled_line(describe(name), elem_classes="about", elem_id=f"about-{letter}")
        output = written_text(f"What model {letter.upper()} writes", letter, functions, elem_id=f"output-{letter}")
        line = written_line(letter, elem_classes="progress", elem_id=f"progress-{letter}")
    model.change(for_page(describe), model, about, **QUIET)
    model.change(None, model, None, js="(name) => charlm.writing.modelChosen(name)", **QUIET)
    return Side(model, output, line)


def make_temperature_panels() -> list[gr.HTML]:
    """Lay out the six texts in the order of `write_at_temperatures`."""
    panels = []
    for temperature in TEMPERATURES:
        with gr.Row(elem_classes="sides"):
            panels += [
                heat_text(
                    f"Model {letter.upper()} at {temperature}",
                    paced=True,
                    elem_id=f"board-{letter}-{temperature:g}".replace(".", "-"),
                    elem_classes=["small", letter],
                    min_width=240,
                )
                for letter in SIDES
            ]
    return panels
