"""The view *Learn*: the loss curves of the training records, what they show, and the samples of each epoch."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import gradio as gr

from charlm.checks import check_whole
from charlm.web.answers import learn as answers
from charlm.web.answers.write import FIELDS
from charlm.web.components import cards, curves, lines
from charlm.web.errors import QUIET, for_page
from charlm.web.models import ModelRegistry
from charlm.web.plots import AXES, LOSS_UNITS, SCALES, PlotSettings
from charlm.web.views.write import WriteView

SHOWN_FIRST = 3  # models

SAVE_PICTURE = """() => { charlm.curvesOf("loss-curves").savePng("curves.png"); }"""
SAVE_TABLE = """() => { charlm.curvesOf("loss-curves").saveCsv("curves.csv"); }"""


@dataclass(frozen=True)
class LearnView:
    """What is chosen in the view, in the order in which addresses hold it.

    models: whose records are shown. unit, axis, scale: of the plot. epoch: after which samples are shown.
    """

    models: gr.CheckboxGroup
    unit: gr.Radio
    axis: gr.Radio
    scale: gr.Radio
    epoch: gr.Slider


class Details(NamedTuple):
    """What the models wrote, and the tables."""

    kept: gr.HTML
    samples: gr.HTML
    table: gr.Dataframe
    settings: gr.Dataframe


def build(registry: ModelRegistry, writing: WriteView, tab: gr.Tab) -> LearnView:
    """Lay out the view and connect it.

    writing: the view *Write*, whose settings kept epochs write with; they do when the tab of this view is chosen, too.
    """
    names, default = answers.comparable(registry, SHOWN_FIRST), PlotSettings()
    last = answers.last_epoch(registry, names)
    with gr.Row(elem_classes="view"):
        with gr.Column(elem_classes="controls", scale=0, min_width=288):
            models = gr.CheckboxGroup(registry.names, value=names, label="Models", elem_id="learn-models")
            unit = gr.Radio(list(LOSS_UNITS), value=default.unit, label="Loss in", elem_id="unit")
            axis = gr.Radio(list(AXES), value=default.axis, label="Over", elem_id="axis")
            scale = gr.Radio(SCALES, value=default.scale, label="Scale", elem_id="scale")
            _make_saving()
        with gr.Column(elem_classes="stage"):
            first = answers.chart(registry, names, default, [each.value for each in writing.pickers])
            chart = curves(first, reading="What the curves show", elem_id="loss-curves")
            gr.Markdown("## What the models wrote as they learnt")
            epoch = gr.Slider(1, max(last, 2), last, step=1, label="After epoch", elem_id="epoch")
            details = _details(registry, names, last)
    view = LearnView(models, unit, axis, scale, epoch)
    _connect(registry, view, chart, details, writing, tab)
    return view


def _make_saving() -> None:
    with gr.Row(elem_classes="actions"):
        picture = gr.Button("Save as PNG", elem_id="save-png", size="md")
        table = gr.Button("Save as CSV", elem_id="save-csv", size="md")
    picture.click(None, js=SAVE_PICTURE, **QUIET)
    table.click(None, js=SAVE_TABLE, **QUIET)


def _details(registry: ModelRegistry, names: list[str], last: int) -> Details:
    kept = lines(answers.kept(registry, names), elem_id="kept-epochs", elem_classes="hint")
    samples = cards(value=answers.samples(registry, names, last), elem_id="samples")
    with gr.Accordion("Table of all epochs", open=False):
        table = gr.Dataframe(answers.table(registry, names), interactive=False, show_label=False, elem_id="figures")
    with gr.Accordion("Settings of the runs", open=False):
        settings = gr.Dataframe(
            answers.run_settings(registry, names), interactive=False, show_label=False, elem_id="run-settings"
        )
    return Details(kept, samples, table, settings)


def _connect(
    registry: ModelRegistry, view: LearnView, chart: gr.HTML, details: Details, writing: WriteView, tab: gr.Tab
) -> None:
    def draw(names: Any, unit: Any, axis: Any, scale: Any, *sides: Any) -> Any:
        return answers.chart(registry, names, PlotSettings(unit, axis, scale), sides)

    def show(names: Any, epoch: Any) -> list[Any]:
        last = answers.last_epoch(registry, names)
        return [
            answers.kept(registry, names),
            _limit_epoch(epoch, last),
            answers.table(registry, names),
            answers.run_settings(registry, names),
        ]

    def show_samples(names: Any, epoch: Any, *settings: Any) -> list[dict[str, str]]:
        return answers.samples(registry, names, epoch, dict(zip(FIELDS[-len(settings) :], settings, strict=True)))

    # each output has one event, which runs again if its inputs change meanwhile: so it ends with what is chosen last
    last: dict[str, Any] = {"trigger_mode": "always_last", **QUIET}
    models, sides = view.models, writing.pickers
    shown = [details.kept, view.epoch, details.table, details.settings]
    models.change(for_page(show), [models, view.epoch], shown, **last)
    plot_settings = [view.unit, view.axis, view.scale]
    redraw = [each.change for each in (models, *plot_settings, *sides)]  # type: ignore[attr-defined]
    gr.on(redraw, for_page(draw), [models, *plot_settings, *sides], chart, **last)
    inputs = [models, view.epoch, *writing.settings]
    gr.on([models.change, view.epoch.change, tab.select], for_page(show_samples), inputs, details.samples, **last)


def _limit_epoch(epoch: Any, last: int) -> dict[str, Any]:
    """Return the update by which the slider ends at the last epoch.

    An epoch that there is stays out of it: the visitor may have chosen another one by the time that it arrives.
    """
    highest = max(last, 1)
    if check_whole("epoch", epoch, 0) > highest:
        return gr.update(maximum=max(last, 2), value=highest)
    return gr.update(maximum=max(last, 2))
