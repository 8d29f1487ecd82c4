"""The page: its views side by side in tabs, its theme, and the API behind it."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import gradio as gr

from charlm.browser.lesson import Lesson
from charlm.checks import check_string
from charlm.errors import RequestError
from charlm.web.address import INSIDE_FIELDS, LEARN_FIELDS, TRAIN_FIELDS, VIEWS, Address, read_address
from charlm.web.answers import learn as learn_answers
from charlm.web.answers.api import Api
from charlm.web.answers.examples import shared_prompts, text_to_read
from charlm.web.answers.load import Downloader, may_load
from charlm.web.answers.train import TrainingQueue
from charlm.web.answers.write import FIELDS, SIDES
from charlm.web.components import lesson as lesson_panel
from charlm.web.components import lines, link_menu
from charlm.web.errors import QUIET, for_api, for_page
from charlm.web.models import MOST_VISITOR_MODELS, ModelRegistry
from charlm.web.training.process import fit_on_gpu
from charlm.web.training.texts import make_text
from charlm.web.views import inside, learn, load, train, write
from charlm.web.views.train_parts import start_choices
from charlm.web.views.write_parts import offer_prompts

TITLE = "charlm: character-level language models"
NAME = '<h1 title="Small recurrent networks that predict a text one character at a time">charlm</h1>'

# a hidden field that takes the name of each model that a visitor adds, and the event that it has taken one
NewModels = tuple[gr.Textbox, Callable[..., Any]]

STREAMS_AT_ONCE = 64  # texts written at the same time: the models write them in batches
MOST_WAITING = 64  # events waiting for one of those
KEPT_SECONDS = 3600  # for which visitors can download the models that they trained


@dataclass(frozen=True)
class Pickers:
    """The fields in which a visitor chooses models.

    models: of one model or of several; the first is model A of *Write*. start: of *Train*, what a training begins with.
    """

    models: list[gr.Dropdown | gr.CheckboxGroup]
    start: gr.Dropdown

    @property
    def components(self) -> list[Any]:
        """All of them."""
        return [*self.models, self.start]

    def offer(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return the updates of the components by which they offer some models."""
        return [*(gr.update(choices=names) for _ in self.models), gr.update(choices=start_choices(names))]


def build_page(registry: ModelRegistry, device: str = "auto", lesson: Lesson | None = None) -> gr.Blocks:
    """Build the page that serves the models of a registry, and the API behind it.

    device: where models run that visitors load or train. lesson: that the page shows if its address asks for it.
    """
    page = gr.Blocks(title=TITLE, fill_width=True, delete_cache=(KEPT_SECONDS // 6, KEPT_SECONDS))
    with page:
        # 1) the components, view by view
        with gr.Row(elem_classes="top"):
            gr.HTML(NAME, apply_default_css=False)
            link_menu(elem_id="link-view")
            loading = [load.build(Downloader(registry, device))] if may_load(os.environ) else []
        notices = lines(_notices(registry), role="alert", elem_id="notices")
        with gr.Tabs(elem_id="views", overflow_behavior="wrap") as tabs:
            with _tab("write"):
                writing = write.build(registry)
            with _tab("learn") as tab:
                learning = learn.build(registry, writing, tab)
            with _tab("inside"):
                looking = inside.build(registry)
            with _tab("train"):
                training = train.build(registry, TrainingQueue(device=device, fit_on_gpu=fit_on_gpu()))
        if lesson is not None:
            lesson_panel(lesson, registry.names, elem_classes="unseen")
        pickers = Pickers([*writing.pickers, learning.models, *looking.pickers], training.fields.start)

        # 2) the events that concern several views; the names of the visitor's own models are in a component, since a
        # gr.State would hold a connection open for each visitor
        visitor_models = gr.JSON([], visible=False)
        added: list[NewModels] = [*loading, (training.trained, training.trained.change)]
        _offer_new_models(registry, added, training.write, visitor_models, pickers, writing.change_prompts)
        sizes = [str(value) for _, value in training.fields.size.choices]
        address_fields = [
            _page_fields(registry, notices, tabs),
            _write_fields(registry, writing),
            _learn_fields(registry, learning),
            _view_fields(looking, INSIDE_FIELDS, lambda address: _with_text(address.inside, registry)),
            _view_fields(
                training.fields,
                (*TRAIN_FIELDS, "text", "text_name"),
                lambda address: _with_example(address.train, sizes),
            ),
        ]
        _open_address(page, registry, visitor_models, pickers, address_fields)
        _keep_in_address("learn", LEARN_FIELDS, learning)
        _keep_in_address("train", TRAIN_FIELDS, training.fields)

        # 3) the API
        api = Api(registry)
        for endpoint in (api.models, api.generate, api.generate_many, api.history, api.inspect):
            limits = inside.INSPECTING if endpoint == api.inspect else {}
            gr.api(for_api(endpoint), api_name=endpoint.__name__, **limits)  # type: ignore[attr-defined]
        page.queue(max_size=MOST_WAITING, default_concurrency_limit=STREAMS_AT_ONCE)
    return page


def _offer_new_models(
    registry: ModelRegistry,
    new_models: list[NewModels],
    write: gr.Button,
    visitor_models: gr.JSON,
    pickers: Pickers,
    change_prompts: dict[str, Any],
) -> None:
    """Let a visitor choose in all views the models that they loaded or trained.

    new_models: of each way to add one. write: a button that goes to the view *Write* with the model of the last of them
    as model A. visitor_models: their names. change_prompts: of WriteView.
    """

    def offer(name: str, before: object) -> list[Any]:
        """Add the new model to all pickers and choose it in the first one, model A.

        Raises RequestError if it was evicted meanwhile.
        """
        if name not in registry:
            raise RequestError(
                f"{name} is no longer kept here, since visitors have added {MOST_VISITOR_MODELS} others: download it, "
                "or train it again"
            )
        known = _own_models(registry, before, [name])
        model_a, *others = pickers.offer([*registry.names, *known])
        return [known, {**model_a, "value": name}, *others]

    outputs = [visitor_models, *pickers.components]
    for new_model, when_added in new_models:
        added = when_added(for_page(offer), [new_model, visitor_models], outputs, **QUIET)
        added.success(**change_prompts)
    chosen = write.click(for_page(offer), [new_models[-1][0], visitor_models], outputs, **QUIET)
    chosen.success(**change_prompts)
    chosen.success(None, js="() => charlm.openView('write')", **QUIET)


def _own_models(registry: ModelRegistry, before: object, named: Iterable[str]) -> list[str]:
    """Return the names of a visitor's models: those of `before`, as a browser sent it, and those of other names."""
    names = [*(before if isinstance(before, list) else []), *named]
    return list(dict.fromkeys(name for name in names if name in registry and name not in registry.names))


@dataclass(frozen=True)
class _AddressFields:
    """Components that the address of the page fills in.

    updates: returns a value or an update for each of them, in their order, from what the address holds.
    """

    components: list[Any]
    updates: Callable[[Address], list[Any]]


def _page_fields(registry: ModelRegistry, notices: gr.HTML, tabs: gr.Tabs) -> _AddressFields:
    def updates(address: Address) -> list[Any]:
        return [_notices(registry) + address.problems, gr.Tabs(selected=address.view)]

    return _AddressFields([notices, tabs], updates)


def _write_fields(registry: ModelRegistry, writing: write.WriteView) -> _AddressFields:
    offered = [writing.examples.offered, *writing.examples.buttons]

    def updates(address: Address) -> list[Any]:
        settings = address.settings
        if settings is None:
            unchanged = gr.update()
            return [*[unchanged] * len(FIELDS), None, *[unchanged] * len(offered)]
        forced = dict(zip(SIDES, settings.forced, strict=True))
        prompts = offer_prompts(shared_prompts(registry, *settings.models))
        return [*settings.to_fields().values(), forced, *prompts]

    components = [*writing.pickers, *writing.settings, writing.forced, *offered]
    return _AddressFields(components, updates)


def _view_fields(
    owner: object,
    names: tuple[str, ...],
    values: Callable[[Address], Mapping[str, Any]],
) -> _AddressFields:
    """Return the fields of a view, which are attributes of `owner`.

    values: what an address holds of them, by name; a field that is missing there keeps its value.
    """

    def updates(address: Address) -> list[Any]:
        held = values(address)
        return [gr.update(value=held[name]) if name in held else gr.update() for name in names]

    return _AddressFields([getattr(owner, name) for name in names], updates)


def _learn_fields(registry: ModelRegistry, learning: learn.LearnView) -> _AddressFields:
    """Return the fields of *Learn*. The slider ends at the last epoch of the models that the address holds."""
    fields = _view_fields(learning, LEARN_FIELDS, lambda address: address.learn)

    def updates(address: Address) -> list[Any]:
        changes = fields.updates(address)
        if address.learn:
            last = learn_answers.last_epoch(registry, address.learn.get("models", learning.models.value))
            epoch = {"value": min(address.learn["epoch"], max(last, 1))} if "epoch" in address.learn else {}
            changes[LEARN_FIELDS.index("epoch")] = gr.update(maximum=max(last, 2), **epoch)
        return changes

    return _AddressFields(fields.components, updates)


def _open_address(
    page: gr.Blocks,
    registry: ModelRegistry,
    visitor_models: gr.JSON,
    pickers: Pickers,
    fields: list[_AddressFields],
) -> None:
    """When the page is opened, show the view of its address and fill in what the address holds.

    All pickers then offer the models of the visitor, and those that the address names.
    """

    def open_page(parameters: object, before: object) -> list[Any]:
        query = parse_qsl(check_string("the address", parameters), keep_blank_values=True)
        address = read_address(dict(query), registry)
        own = _own_models(registry, before, address.models)
        # listed afresh: models may have come from the Hub since the page was built
        return [
            own,
            *pickers.offer([*registry.names, *own]),
            *(update for each in fields for update in each.updates(address)),
        ]

    # when the page is opened, and when Back or Forward has changed the address: a button that only a script presses
    parameters, reopen = gr.Textbox(visible=False), gr.Button(visible="hidden", elem_id="reopen")
    inputs = [parameters, visitor_models]
    components = [visitor_models, *pickers.components, *(component for each in fields for component in each.components)]
    for happens in (page.load, reopen.click):
        opened = happens(for_page(open_page), inputs, components, js="(_, own) => charlm.address(own)", **QUIET)
        opened.then(None, js="() => charlm.opened()", **QUIET)


def _keep_in_address(view: str, names: tuple[str, ...], owner: object) -> None:
    """Let the address hold the values of the fields of a view, which are attributes of `owner`."""
    fields = [getattr(owner, name) for name in names]
    keep = f"(...values) => charlm.keep('{view}', {json.dumps(names)}, values)"
    for field in fields:
        field.change(None, fields, js=keep, **QUIET)


def _with_text(inside: dict[str, Any], registry: ModelRegistry) -> dict[str, Any]:
    """Return what an address holds of *Look inside*, with the text of its model A if it names none."""
    return {"text": text_to_read(registry[inside["a"]]), **inside} if "a" in inside else inside


def _with_example(train: dict[str, Any], sizes: list[str]) -> dict[str, Any]:
    """Return what an address holds of *Train*, with the text that its example stands for.

    sizes: those on offer here. Another one, such as TIMED where a GPU is borrowed, is left out.
    """
    offered = {name: value for name, value in train.items() if name != "size" or value in sizes}
    kind = train.get("example")
    return {"text": make_text(kind), "text_name": kind, **offered} if kind else offered


def _tab(view: str) -> gr.Tab:
    # rendered from the start, so that an address can open any view
    tab = gr.Tab(VIEWS[view], id=view, elem_id=f"view-{view}", render_children=True)
    tab.select(None, js=f"() => charlm.setView('{view}')", **QUIET)
    return tab


def _notices(registry: ModelRegistry) -> list[str]:
    """Say which models are missing and which records cannot be shown, and why."""
    missing = [f"{problem}. The page goes on with the models below." for problem in registry.problems]
    return missing + learn_answers.unshown(registry)
