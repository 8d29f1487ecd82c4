"""The page: its views, its look, and the API behind it."""

import os
from typing import Any

import gradio as gr

from charlm.web.address import VIEWS, read_address
from charlm.web.answers.api import Api
from charlm.web.answers.load import Loader, may_load
from charlm.web.answers.train import TrainingRoom
from charlm.web.components import lines
from charlm.web.errors import QUIET, for_api
from charlm.web.models import ModelRegistry
from charlm.web.views import inside, learn, load, train, write

TITLE = "charlm: character-level language models"
INTRODUCTION = """# charlm
Small recurrent networks that learnt a text one character at a time, and now write in its manner."""

STREAMS_AT_ONCE = 64  # the models write for all of them together
WAITING_AT_MOST = 64
KEPT_SECONDS = 3600  # of what visitors can download: the models that they trained

THEME = gr.themes.Default(primary_hue="blue", neutral_hue="slate", spacing_size="sm").set(
    body_text_color_subdued="*neutral_600",  # the theme's own is too pale to read
    body_text_color_subdued_dark="*neutral_400",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
)


def build_page(registry: ModelRegistry, device: str = "auto") -> gr.Blocks:
    """Make the page that serves a registry of models, and the API behind it.

    device: what models run on that visitors load or train.
    """
    api = Api(registry)
    page = gr.Blocks(title=TITLE, delete_cache=(KEPT_SECONDS // 6, KEPT_SECONDS))
    with page:
        gr.Markdown(INTRODUCTION)
        notices = lines(_notices(registry), elem_id="notices")
        # the names of what this visitor has loaded or trained; a gr.State would hold a connection open for each visitor
        visitor_models = gr.JSON([], visible=False)
        arrivals = [load.build(Loader(registry, device))] if may_load(os.environ) else []
        with gr.Tabs(elem_id="views") as tabs:
            with _tab("write"):
                writing = write.build(registry)
            with _tab("learn"):
                learning = learn.build(registry)
            with _tab("inside"):
                looking = inside.build(registry)
            with _tab("train"):
                arrivals.append(train.build(registry, TrainingRoom(device=device)))
        pickers = [*writing.pickers, learning, *looking]
        fields = [*writing.pickers, *writing.settings]

        def open_page(request: gr.Request) -> list[Any]:
            """Fill in what the address says; the Hub may have come back since the page was made."""
            view, values, problems = read_address(dict(request.query_params), registry)
            filled = [gr.update() if value is None else gr.update(value=value) for value in values]
            linked = [name for name in values[:2] if name is not None and name not in registry.names]
            choices = [gr.update(choices=[*registry.names, *linked])] * len(pickers)
            return [_notices(registry) + problems, gr.Tabs(selected=view), *choices, *filled]

        def welcome(name: str, visitor_models: list[str]) -> list[Any]:
            """Offer a visitor the model that was loaded or trained, in all views; the first picker takes it."""
            before = visitor_models if isinstance(visitor_models, list) else []
            visitor_models = list(dict.fromkeys(each for each in [*before, name] if each in registry))
            choices = [*registry.names, *visitor_models]
            return [
                visitor_models,
                gr.update(choices=choices, value=name),
                *[gr.update(choices=choices)] * (len(pickers) - 1),
            ]

        for arrival in arrivals:
            arrival.change(welcome, [arrival, visitor_models], [visitor_models, *pickers], **QUIET)
        opened = page.load(open_page, None, [notices, tabs, *pickers, *fields], **QUIET)
        opened.then(None, js="() => charlm.opened()", **QUIET)
        for handler in (api.models, api.generate, api.history, api.inspect):
            gr.api(for_api(handler), api_name=handler.__name__)  # type: ignore[attr-defined]
        page.queue(max_size=WAITING_AT_MOST, default_concurrency_limit=STREAMS_AT_ONCE)
    return page


def _tab(view: str) -> gr.Tab:
    # its children are there from the start, so that an address can open any of them
    tab = gr.Tab(VIEWS[view], id=view, elem_id=f"view-{view}", render_children=True)
    tab.select(None, js=f"() => charlm.setView('{view}')", **QUIET)
    return tab


def _notices(registry: ModelRegistry) -> list[str]:
    """Say which models are missing, and why."""
    return [f"{problem}. The page goes on with the models below." for problem in registry.problems]
