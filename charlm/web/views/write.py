"""The view *Write*: two models continue the same prompt, side by side, and the visitor takes part in it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import gradio as gr

from charlm.web.answers import write as answers
from charlm.web.answers.examples import next_prompt, shared_prompts
from charlm.web.answers.write import FIELDS, SIDES, BothTexts, WriteSettings
from charlm.web.components import choice_panels, lines
from charlm.web.errors import QUIET, for_page
from charlm.web.heat import Heat
from charlm.web.models import ModelRegistry
from charlm.web.views.write_parts import (
    Actions,
    Examples,
    Side,
    make_actions,
    make_prompt,
    make_settings,
    make_side,
    make_temperature_panels,
    offer_prompts,
)

# JavaScript of the events, see static/write.js
START = "charlm.writing.start"  # with the choices of a link only for the link's texts
GO_ON = "charlm.writing.goOn"
BEFORE = "() => charlm.writing.before('%s')"
HIDE_LINK = "charlm.writing.hideLink"
ENDED = "() => charlm.writing.ended('%s')"
WRITTEN = "charlm.writing.written"
STOP = "charlm.stopAll"
LINK = "charlm.writing.link"
# static/changed.js
CHANGED_TEXTS = "charlm.changed.texts"
CHANGED_TEMPERATURES = "charlm.changed.temperatures"


@dataclass(frozen=True)
class WriteView:
    """The components that the rest of the page uses; the first two together are in the order of FIELDS.

    pickers: model A and model B. settings: prompt, length, temperature, top-k, top-p, seed. forced: the choices of a
    link's texts, {a, b}, or null. examples: the prompts on offer. change_prompts: arguments of an event after which
    the prompts on offer, and the prompt if it was one of them, are those of the models that are chosen then.
    """

    pickers: list[gr.Dropdown]
    settings: list[gr.components.Component]
    forced: gr.JSON
    examples: Examples
    change_prompts: dict[str, Any]


class Temperatures(NamedTuple):
    """The texts at three temperatures: the button that writes them, what shows them, and the six texts."""

    button: gr.Button
    column: gr.Column
    panels: list[gr.HTML]


def build(registry: ModelRegistry) -> WriteView:
    """Lay out the view and connect it."""
    # 1) the components: what is asked for on the left, what comes of it on the right
    names = [registry.names[0], registry.names[min(1, len(registry.names) - 1)]]
    with gr.Row(elem_classes="view"):
        with gr.Column(elem_classes="controls", scale=0, min_width=288):
            prompt, examples = make_prompt(shared_prompts(registry, *names))
            actions = make_actions()
            settings, compare = make_settings()
        with gr.Column(elem_classes="stage", scale=1):
            changed = lines(role="status", elem_classes="changed", elem_id="texts-changed")
            with gr.Row(elem_classes="sides"):
                sides = [make_side(letter, registry, name) for letter, name in zip(SIDES, names, strict=True)]
            choice_panels()
            with gr.Column(visible=False, elem_id="temperatures") as column:
                panels_changed = lines(role="status", elem_classes="changed", elem_id="temperatures-changed")
                panels = make_temperature_panels()

    # 2) the events
    pickers = [side.model for side in sides]
    changing = _change_prompts(registry, pickers, prompt, examples)
    view = WriteView(pickers, [prompt, *settings], gr.JSON(visible=False), examples, changing)
    gr.on([picker.input for picker in pickers], **changing)
    writers = _connect_texts(registry, view, actions, sides)
    fill = _connect_temperatures(registry, view, Temperatures(compare, column, panels))
    actions.stop.click(
        None, cancels=[writers.run, writers.more, writers.one, *writers.branches, fill], js=STOP, **QUIET
    )
    _connect_link(view, actions, [side.output for side in sides])
    fields = [*view.pickers, *view.settings]
    for text, note, script, ends in (
        (sides[0].output, changed, CHANGED_TEXTS, [writers.run, writers.more]),
        (panels[0], panels_changed, CHANGED_TEMPERATURES, [fill]),
    ):
        happenings = [*(event.then for event in ends), actions.stop.click, *(field.change for field in fields)]  # type: ignore[attr-defined]
        for happens in happenings:
            happens(None, [text, *fields], note, js=script, **QUIET)
    return view


def _change_prompts(
    registry: ModelRegistry, pickers: list[gr.Dropdown], prompt: gr.Textbox, examples: Examples
) -> dict[str, Any]:
    """Return the arguments of an event, as WriteView has them."""

    def change(model_a: object, model_b: object, prompt: object, offered: object) -> list[Any]:
        prompts = shared_prompts(registry, model_a, model_b)
        new = next_prompt(prompt, offered, prompts)
        # one that stays is not sent back: the visitor may be typing another by then
        return [gr.update() if new == prompt else new, *offer_prompts(prompts)]

    inputs = [*pickers, prompt, examples.offered]
    outputs = [prompt, examples.offered, *examples.buttons]
    return {"fn": for_page(change), "inputs": inputs, "outputs": outputs, "trigger_mode": "always_last", **QUIET}


class Writers(NamedTuple):
    """The events that write the texts of both models: from the start, further, one character more; or one of them."""

    run: Any
    more: Any
    one: Any
    branches: list[Any]


def _connect_texts(registry: ModelRegistry, view: WriteView, actions: Actions, sides: list[Side]) -> Writers:
    """Connect the buttons and texts with the events that write both texts; return these."""

    def write(*values: Any) -> Iterator[BothTexts]:
        yield from answers.write(registry, _read_fields(values))

    def continue_texts(heat_a: object, heat_b: object, length: int) -> Iterator[BothTexts]:
        yield from answers.continue_texts(registry, heat_a, heat_b, length)

    def extend(heat_a: object, heat_b: object, *values: Any) -> Iterator[BothTexts]:
        """Write one character more, the first one if there is none."""
        if isinstance(heat_a, dict) and heat_a.get("run"):
            yield from answers.continue_texts(registry, heat_a, heat_b, 1)
        else:
            yield from answers.write(registry, replace(_read_fields(values), length=1))

    def begin(*triggers: Any) -> Any:
        """Return what connects a writer with what begins it.

        Gradio's client runs the events of a trigger one after another, and waits for each. So a writer is no event of
        its trigger, but follows a short one; else it would end before the others are cancelled.
        """
        return gr.on(triggers, None, None, actions.link, js=HIDE_LINK, **QUIET).then

    fields = [*view.pickers, *view.settings]
    texts = [side.output for side in sides]
    outputs = [*texts, *(side.line for side in sides)]
    prompt, length = view.settings[:2]

    # 1) the events, each with what begins it
    starts = [actions.generate.click, prompt.submit]  # type: ignore[attr-defined]
    run = begin(*starts)(for_page(write), [*fields, view.forced], outputs, js=START, **QUIET)
    more = begin(actions.more.click)(for_page(continue_texts), [*texts, length], outputs, js=GO_ON, **QUIET)
    one = begin(texts[0].submit)(for_page(extend), [*texts, *fields], outputs, js=GO_ON, **QUIET)
    branches = [
        begin(side.output.select)(
            for_page(_branch(registry, letter)),
            [side.output, view.forced],
            [side.output, side.line],
            js=BEFORE % letter,
            trigger_mode="always_last",
            **QUIET,
        )
        for letter, side in zip(SIDES, sides, strict=True)
    ]
    # 2) who ends whom: two events that write the same text would mix it
    begins = [(starts, run), ([actions.more.click], more), ([texts[0].submit], one)]
    for triggers, own in begins:
        gr.on(triggers, None, cancels=[each for each in (run, more, one, *branches) if each is not own], **QUIET)
    gr.on([text.select for text in texts], None, cancels=[run, more, one], **QUIET)

    # 3) what follows each
    of_sides = {f"branch {side}": branch for side, branch in zip(SIDES, branches, strict=True)}
    for name, event in {"run": run, "more": more, "one": one, **of_sides}.items():
        for ends in (event.then, event.failure):
            ends(None, js=ENDED % name, **QUIET)
        event.success(None, js=WRITTEN, **QUIET)
    return Writers(run, more, one, branches)


def _connect_temperatures(registry: ModelRegistry, view: WriteView, temperatures: Temperatures) -> Any:
    """Connect the button *Three temperatures*; return the event that writes the panels."""

    def write_at_temperatures(*values: Any) -> Iterator[list[Heat]]:
        yield from answers.write_at_temperatures(registry, _read_fields(values))

    fields = [*view.pickers, *view.settings]
    shown = temperatures.button.click(lambda: gr.update(visible=True), None, temperatures.column, **QUIET)
    return shown.then(for_page(write_at_temperatures), fields, temperatures.panels, **QUIET)


def _connect_link(view: WriteView, actions: Actions, texts: list[gr.HTML]) -> None:
    """Connect the button *Share* with the field that shows the link."""

    def show_link(*heats: object) -> Any:
        return gr.update(visible=True, label=answers.link_label(*heats))

    reveal = actions.share.click(show_link, texts, actions.link, **QUIET)
    reveal.then(None, [texts[0], *view.pickers, *view.settings], actions.link, js=LINK, **QUIET)


def _branch(registry: ModelRegistry, side: str) -> Callable[..., Iterator[tuple[Heat, str]]]:
    """Return what writes the rest of a text of a side, when its component asks for it."""

    def branch(heat: object, forced: object) -> Iterator[tuple[Heat, str]]:
        yield from answers.branch(registry, side, heat, forced)

    return branch


def _read_fields(values: tuple[Any, ...]) -> WriteSettings:
    """Return the settings for the values of FIELDS, and of `WriteView.forced` if they follow."""
    fields = dict(zip(FIELDS, values[: len(FIELDS)], strict=True))
    given = values[len(FIELDS)] if len(values) > len(FIELDS) else None
    forced = given if isinstance(given, dict) else {}
    return WriteSettings.from_fields(fields | {f"forced_{side}": forced.get(side) for side in SIDES})
