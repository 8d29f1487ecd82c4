"""The page: its components, its look, and which handler answers which event."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from html import escape
from inspect import isgeneratorfunction
from typing import Any

import gradio as gr

from charlm.errors import CharLMError
from charlm.sampling import DEFAULT_LENGTH, DEFAULT_TEMPERATURE
from charlm.web.collection import Collection
from charlm.web.handlers import LONGEST_PROMPT, LONGEST_TEXT, Handlers

TITLE = "charlm: character-level language models"
INTRODUCTION = """# charlm
Small recurrent networks that learnt a text one character at a time, and now write in its manner.
Give both models the same beginning and the same seed, and watch how they differ."""
PROMPTS = ("ROMEO:\n", "Apple", "University", "Seoul", "Coffee", "Computer")

STREAMS_AT_ONCE = 32  # each waits on a thread, of which Gradio has 40; the models write for all of them together
WAITING_AT_MOST = 64

THEME = gr.themes.Default(primary_hue="blue", neutral_hue="slate", spacing_size="sm")
CSS = """
.gradio-container { max-width: 1200px !important; margin: 0 auto !important; }
.written textarea { font-family: var(--font-mono); line-height: 1.45; }
.about, .progress { color: var(--body-text-color-subdued); font-size: var(--text-sm); min-height: 1.4em;
    overflow-wrap: anywhere; }
.about .html-container, .progress .html-container { padding: 0 4px; }
.progress { font-variant-numeric: tabular-nums; }
.notice { border-left: 3px solid var(--color-accent); padding: 6px 12px; overflow-wrap: anywhere; }
"""


def build_page(collection: Collection) -> gr.Blocks:
    """Make the page that serves a collection of models, and the API behind it."""
    handlers = Handlers(collection)
    page = gr.Blocks(title=TITLE)
    with page:
        gr.Markdown(INTRODUCTION)
        notices = gr.HTML(_notices(collection))
        prompt = gr.Textbox(
            value=_first_prompt(collection),
            label="Prompt",
            info="The models go on from here. Left empty, they start a new line.",
            lines=2,
            max_lines=8,
            max_length=LONGEST_PROMPT,
            elem_id="prompt",
        )
        settings = _settings()
        with gr.Row():
            generate = gr.Button("Generate", variant="primary", elem_id="generate")
            stop = gr.Button("Stop", elem_id="stop")
        names = [collection.names[0], collection.names[min(1, len(collection.names) - 1)]]
        about_a, about_b, plot = handlers.compare(*names)
        with gr.Row():
            model_a, line_a, output_a, progress_a = _writer("a", collection.names, names[0], about_a)
            model_b, line_b, output_b, progress_b = _writer("b", collection.names, names[1], about_b)
        gr.Markdown("## How they learnt\nThe loss after each epoch of training; lower is better. The star is the best.")
        curves = gr.Plot(plot, show_label=False, elem_id="loss-curves")

        run = gr.on(
            [generate.click, prompt.submit],
            _for_page(handlers.write),
            [model_a, model_b, prompt, *settings],
            [output_a, output_b, progress_a, progress_b],
            show_progress="hidden",
            api_visibility="private",
        )
        stop.click(None, cancels=[run], api_visibility="private")
        gr.on(
            [model_a.input, model_b.input],
            _for_page(handlers.compare),
            [model_a, model_b],
            [line_a, line_b, curves],
            show_progress="hidden",
            api_visibility="private",
        )
        # the Hub may have come back since the page was made
        page.load(
            lambda: [_notices(collection), *[gr.update(choices=collection.names)] * 2],
            None,
            [notices, model_a, model_b],
            show_progress="hidden",
            api_visibility="private",
        )
        for handler in (handlers.models, handlers.generate, handlers.history, handlers.inspect):
            gr.api(_for_api(handler), api_name=handler.__name__)  # type: ignore[attr-defined]
        page.queue(max_size=WAITING_AT_MOST, default_concurrency_limit=STREAMS_AT_ONCE)
    return page


def launch(page: gr.Blocks, host: str, port: int) -> None:
    """Serve the page until the process is told to end. Raises OSError if the port cannot be had."""
    page.launch(
        server_name=host,
        server_port=port,
        theme=THEME,
        css=CSS,
        footer_links=["api"],
        run_history=False,
        enable_monitoring=False,
    )


def _notices(collection: Collection) -> str:
    """Say which models are missing, and why."""
    return "".join(
        f'<div class="notice">{escape(problem)}. The page goes on with the models below.</div>'
        for problem in collection.problems
    )


def _first_prompt(collection: Collection) -> str:
    """Choose a beginning that every model can read."""
    known = [prompt for prompt in PROMPTS if all(not model.lm.vocab.encode_known(prompt)[1] for model in collection)]
    return known[0] if known else ""


def _settings() -> list[gr.components.Component]:
    """Lay out the settings of generation, in the order of the handler's arguments."""
    with gr.Row():
        length = gr.Slider(
            1, LONGEST_TEXT, DEFAULT_LENGTH, step=1, label="Length", info="new characters", elem_id="length"
        )
        temperature = gr.Slider(
            0, 2, DEFAULT_TEMPERATURE, step=0.05, label="Temperature", info="0: likeliest only", elem_id="temperature"
        )
        top_k = gr.Slider(0, 100, 0, step=1, label="Top-k", info="0: all symbols", elem_id="top-k")
        top_p = gr.Slider(0, 1, 1, step=0.01, label="Top-p", info="1: all symbols", elem_id="top-p")
        # a Textbox: an empty Number shows 0, and a browser's numbers cannot hold every seed
        seed = gr.Textbox(label="Seed", info="same seed, same text", placeholder="any", max_length=40, elem_id="seed")
    return [length, temperature, top_k, top_p, seed]


def _writer(letter: str, names: list[str], name: str, about: str) -> tuple[gr.Dropdown, gr.HTML, gr.Textbox, gr.HTML]:
    """Lay out a model's picker, the line about it, what it writes and how that goes."""
    with gr.Column():
        model = gr.Dropdown(names, value=name, label=f"Model {letter.upper()}", elem_id=f"model-{letter}")
        line = gr.HTML(about, html_template="{{value}}", elem_classes="about", elem_id=f"about-{letter}")
        output = gr.Textbox(
            label=f"What model {letter.upper()} writes",
            lines=14,
            max_lines=14,
            buttons=["copy"],
            interactive=False,
            elem_id=f"output-{letter}",
            elem_classes="written",
        )
        progress = gr.HTML("", html_template="{{value}}", elem_classes="progress", elem_id=f"progress-{letter}")
    return model, line, output, progress


def _for_page(handler: Callable[..., Any]) -> Callable[..., Any]:
    return _reporting(handler, escape)  # the page shows messages as HTML


def _for_api(handler: Callable[..., Any]) -> Callable[..., Any]:
    return _reporting(handler, str)


def _reporting(handler: Callable[..., Any], shown: Callable[[str], str]) -> Callable[..., Any]:
    """Wrap a handler so that whoever asked reads what is wrong with the request, and the log has no traceback of it."""

    @contextmanager
    def reported() -> Iterator[None]:
        try:
            yield
        except CharLMError as error:
            raise gr.Error(shown(str(error)), print_exception=False) from None

    @wraps(handler)
    def answer(*args: Any) -> Any:
        with reported():
            return handler(*args)

    @wraps(handler)
    def stream(*args: Any) -> Iterator[Any]:
        with reported():
            yield from handler(*args)

    return stream if isgeneratorfunction(handler) else answer
