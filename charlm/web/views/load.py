"""*Load a model from the Hub*: by name or by a search; figures of its card are shown before it is downloaded."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import gradio as gr

from charlm.errors import CharLMError
from charlm.web.answers.load import MOST_BYTES, Downloader, describe, search
from charlm.web.answers.write import LONGEST_MODEL_NAME
from charlm.web.components import lines
from charlm.web.errors import QUIET, for_page


class LoadView(NamedTuple):
    """What the page connects with the views.

    loaded: a hidden field that takes the name of each model that was loaded. when_loaded: the event that it has been,
    also if it is the same one again, which does not change the field.
    """

    loaded: gr.Textbox
    when_loaded: Callable[..., Any]


def build(downloader: Downloader) -> LoadView:
    """Lay it out and connect it."""
    with gr.Accordion("Load a model from the Hub", open=False, elem_id="load"):
        with gr.Row(elem_classes="actions"):
            wanted = gr.Textbox(
                label="Repository, or words to search for",
                info=f"USER/NAME of a public charlm model of up to {MOST_BYTES / 1e6:,.0f} MB",
                max_length=LONGEST_MODEL_NAME,
                elem_id="load-name",
                min_width=260,
            )
            look = gr.Button("Find", elem_id="load-look", size="md", scale=0, min_width=120)
        found = gr.Radio([], label="Found on the Hub", visible=False, elem_id="load-found")
        described = lines(role="status", elem_id="load-card", elem_classes="reading")
        load = gr.Button("Load", variant="primary", visible=False, elem_id="load-go", size="md")
        # of the repository that is described, which may not be the one that was chosen last
        name, commit = gr.Textbox(visible=False), gr.Textbox(visible=False)
        loaded = gr.Textbox(visible=False)

    def show(words: str) -> list[Any]:
        names = search(words)
        if len(names) != 1:
            message = [] if names else ["The Hub has no model of charlm that fits; try other words."]
            return [gr.update(choices=names, value=None, visible=bool(names)), *_describe_nothing(message)]
        return [gr.update(choices=names, value=names[0], visible=True), *_describe(names[0])]

    def choose(chosen: str) -> Iterator[list[Any]]:
        yield _describe_nothing([])
        try:
            yield _describe(chosen)
        except CharLMError as error:  # not raised, since Gradio would then drop a choice that was made meanwhile
            yield _describe_nothing([f"It cannot be loaded: {error}."])

    description = [described, load, name, commit]
    gr.on([look.click, wanted.submit], for_page(show), wanted, [found, *description], **QUIET)
    found.input(choose, found, description, trigger_mode="always_last", **QUIET)
    # downloads happen one at a time: one that waited in `Downloader.load` would hold a thread that others need
    progress: dict[str, Any] = QUIET | {"show_progress": "full", "show_progress_on": [described]}
    fetched = load.click(for_page(downloader.load), [name, commit], loaded, concurrency_limit=1, **progress)
    fetched.success(for_page(downloader.report), loaded, described, **QUIET)
    return LoadView(loaded, fetched.success)


def _describe(name: str) -> list[Any]:
    """Return the card of a repository, and what *Load* then loads."""
    found = describe(name)
    return [found.lines, gr.update(visible=found.fits), name, found.commit]


def _describe_nothing(message: list[str]) -> list[Any]:
    return [message, gr.update(visible=False), "", ""]
