"""Loading a model from the Hub: by name, or from a search; its card's figures are shown before it is downloaded."""

from typing import Any

import gradio as gr

from charlm.web.answers.load import MOST_BYTES, Loader
from charlm.web.components import lines
from charlm.web.errors import QUIET, for_page


def build(loader: Loader) -> gr.Textbox:
    """Lay it out and connect it; return a hidden field that takes the name of each model that was loaded."""
    with gr.Accordion("Load a model from the Hub", open=False, elem_id="load"):
        with gr.Row(elem_classes="actions"):
            wanted = gr.Textbox(
                label="Repository, or words to search for",
                info=f"USER/NAME, of a model of charlm up to {MOST_BYTES / 1e6:,.0f} MB that anyone may read",
                max_length=200,
                elem_id="load-name",
                min_width=260,
            )
            look = gr.Button("Look", elem_id="load-look", size="md", scale=0, min_width=120)
        found = gr.Radio([], label="Found on the Hub", visible=False, elem_id="load-found")
        described = lines(elem_id="load-card", elem_classes="reading")
        load = gr.Button("Load", variant="primary", visible=False, elem_id="load-go", size="md")
        loaded = gr.Textbox(visible=False)

    def show(words: str) -> list[Any]:
        names = loader.search(words)
        if len(names) != 1:
            said = [] if names else ["The Hub has no model of charlm that fits; try other words."]
            return [gr.update(choices=names, value=None, visible=bool(names)), said, gr.update(visible=False)]
        return [gr.update(choices=names, value=names[0], visible=True), *describe(names[0])]

    def describe(name: str) -> list[Any]:
        offer = loader.describe(name)
        return [offer.lines, gr.update(visible=offer.fits)]

    gr.on([look.click, wanted.submit], for_page(show), wanted, [found, described, load], **QUIET)
    found.input(for_page(describe), found, [described, load], **QUIET)
    fetched = load.click(for_page(loader.load), found, loaded, show_progress="full", api_visibility="private")
    fetched.success(lambda name: [f"{name} is loaded, and chosen as model A."], loaded, described, **QUIET)
    return loaded
