"""The view *Write*: two models continue the same prompt, side by side."""

import json
from dataclasses import dataclass

import gradio as gr

from charlm.inference.sampling import DEFAULT_LENGTH, DEFAULT_TEMPERATURE
from charlm.web.answers.write import BOARD, LONGEST_PROMPT, LONGEST_TEXT, Writer
from charlm.web.components import heat_text, lines
from charlm.web.errors import QUIET, for_page
from charlm.web.models import ModelRegistry

PROMPTS = ("ROMEO:\n", "To be, or not to be", "Apple", "University", "Seoul", "Coffee", "Computer")
PACES = {"as fast as it comes": 0, "to read along": 30, "to read aloud": 14}  # characters per second

# What follows runs in the browser. A text that is still growing stops where the visitor sees it.
KEPT = '(a, b, length) => [charlm.kept("output-a"), charlm.kept("output-b"), length]'
LINK = """(heat, a, b, prompt, length, temperature, top_k, top_p, seed) => {
    const { model_a = a, model_b = b, ...settings } =
        heat?.run ?? { prompt, length, temperature, top_k, top_p, seed };
    return charlm.link({ view: "write", a: model_a, b: model_b, ...settings });
}"""


@dataclass(frozen=True)
class WriteView:
    """What the rest of the page needs of it.

    pickers: the lists of models. settings: prompt, length, temperature, top-k, top-p, seed.
    """

    pickers: list[gr.Dropdown]
    settings: list[gr.components.Component]


def build(registry: ModelRegistry) -> WriteView:
    """Lay out the view and connect it."""
    writer = Writer(registry)
    prompt = _prompt(registry)
    with gr.Row(equal_height=True):
        length, temperature, seed = _settings()
    with gr.Accordion("More settings", open=False):
        top_k, top_p, pace = _more_settings()
    settings: list[gr.components.Component] = [prompt, length, temperature, top_k, top_p, seed]
    with gr.Row(elem_classes="actions"):
        generate = gr.Button("Generate", variant="primary", elem_id="generate", size="md", min_width=120)
        stop = gr.Button("Stop", elem_id="stop", size="md", min_width=90)
        more = gr.Button("Continue", elem_id="continue", size="md", min_width=90)
        board = gr.Button("Three temperatures", elem_id="board", size="md", min_width=160)
        share = gr.Button("Share", elem_id="share", size="md", min_width=90)
    link = gr.Textbox(
        label="This link opens the page with the same models, prompt, settings and seed, and so with the same text",
        buttons=["copy"],
        visible=False,
        elem_id="link",
    )
    colours = gr.Checkbox(
        True, label="Show surprise: the darker a character, the less the model expected it", elem_id="colours"
    )
    names = [registry.names[0], registry.names[min(1, len(registry.names) - 1)]]
    with gr.Row():
        (model_a, output_a, line_a), (model_b, output_b, line_b) = (
            _side(letter, registry, name) for letter, name in zip("ab", names, strict=True)
        )
    with gr.Column(visible=False, elem_id="temperatures") as temperatures:
        panels = _board()

    outputs = [output_a, output_b, line_a, line_b]
    run = gr.on(
        [generate.click, prompt.submit], for_page(writer.write), [model_a, model_b, *settings], outputs, **QUIET
    )
    carry_on = more.click(for_page(writer.carry_on), [output_a, output_b, length], outputs, js=KEPT, **QUIET)
    shown = board.click(lambda: gr.update(visible=True), None, temperatures, **QUIET)
    fill = shown.then(for_page(writer.board), [model_a, model_b, *settings], panels, **QUIET)
    stop.click(None, cancels=[run, carry_on, fill], js="() => charlm.freezeAll()", **QUIET)
    reveal = share.click(lambda: gr.update(visible=True), None, link, **QUIET)
    reveal.then(None, [output_a, model_a, model_b, *settings], link, js=LINK, **QUIET)
    pace.input(None, pace, None, js=f"(name) => charlm.setPace({json.dumps(PACES)}[name])", **QUIET)
    colours.input(None, colours, None, js="(on) => document.body.classList.toggle('plain-texts', !on)", **QUIET)
    return WriteView([model_a, model_b], settings)


def _prompt(registry: ModelRegistry) -> gr.Textbox:
    """Lay out the prompt, and some that can be had at a click."""
    prompt = gr.Textbox(
        value=_first_prompt(registry),
        label="Prompt",
        info="The models go on from here. Left empty, they start a new line.",
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
    """Choose a beginning that every model can read."""
    known = [prompt for prompt in PROMPTS if all(not model.lm.vocab.encode_known(prompt)[1] for model in registry)]
    return known[0] if known else ""


def _settings() -> tuple[gr.Slider, gr.Slider, gr.Textbox]:
    """Lay out length, temperature and seed."""
    length = gr.Slider(
        1, LONGEST_TEXT, DEFAULT_LENGTH, step=1, label="Length", info="new characters", elem_id="length", min_width=220
    )
    temperature = gr.Slider(
        0,
        2,
        DEFAULT_TEMPERATURE,
        step=0.05,
        label="Temperature",
        info="0: likeliest only; 1: as it learnt",
        elem_id="temperature",
        min_width=220,
    )
    # a Textbox: an empty Number shows 0, and a browser's numbers cannot hold every seed
    seed = gr.Textbox(
        label="Seed",
        info="same seed, same text",
        placeholder="any",
        max_length=40,
        elem_id="seed",
        min_width=160,
    )
    return length, temperature, seed


def _more_settings() -> tuple[gr.Slider, gr.Slider, gr.Radio]:
    """Lay out top-k, top-p and the pace."""
    with gr.Row(equal_height=True):
        top_k = gr.Slider(
            0, 100, 0, step=1, label="Top-k", info="only the k likeliest; 0: all", elem_id="top-k", min_width=220
        )
        top_p = gr.Slider(
            0,
            1,
            1,
            step=0.01,
            label="Top-p",
            info="only the likeliest, up to that probability; 1: all",
            elem_id="top-p",
            min_width=220,
        )
        pace = gr.Radio(
            list(PACES), value="as fast as it comes", label="Pace of the text", elem_id="pace", min_width=260
        )
    return top_k, top_p, pace


def _side(letter: str, registry: ModelRegistry, name: str) -> tuple[gr.Dropdown, gr.HTML, gr.HTML]:
    """Lay out a model's picker, the line about it, what it writes and how that goes."""
    with gr.Column(min_width=300):
        model = gr.Dropdown(registry.names, value=name, label=f"Model {letter.upper()}", elem_id=f"model-{letter}")
        about = lines(str(registry[name]), elem_classes="about", elem_id=f"about-{letter}")
        output = heat_text(f"What model {letter.upper()} writes", paced=True, elem_id=f"output-{letter}")
        line = lines(elem_classes="progress", elem_id=f"progress-{letter}")
    model.change(for_page(lambda chosen: str(registry[chosen])), model, about, **QUIET)
    return model, output, line


def _board() -> list[gr.HTML]:
    """Lay out the texts at three temperatures, in the order of `Writer.board`."""
    gr.Markdown("### The same prompt and seed at three temperatures")
    panels = []
    for temperature in BOARD:
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
