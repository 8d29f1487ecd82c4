"""The stored training records as plots, tables and files."""

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate, count, cycle
from typing import Any

from plotly import graph_objects as go

from charlm.analysis.diagnosis import Records
from charlm.errors import RequestError
from charlm.model.history import CURVES, EpochRecord, HistoryRecord, bits_per_char, perplexity
from charlm.text import printable

# distinguishable on light and dark backgrounds, and for the colour-blind
COLOURS = ("#3b82f6", "#f97316", "#10b981", "#a855f7", "#eab308", "#ec4899", "#14b8a6", "#8b5cf6")
DASHES = {"train_loss": "dot", "val_loss": "solid", "unseen_loss": "dash"}
GREY = "#808080"
PLOT_HEIGHT, LEGEND_HEIGHT = 340, 20  # pixels: without the legend, and for each line of it, which holds three curves
COLUMNS = ("epoch", "train_loss", "val_loss", "unseen_loss", "learning_rate", "seconds", "chars_per_second")

LOSS_UNITS: dict[str, Callable[[float], float]] = {
    "nats per character": lambda nats: nats,
    "bits per character": bits_per_char,
    "perplexity": perplexity,
}
Axis = Callable[[Sequence[EpochRecord]], Sequence[float]]
AXES: dict[str, Axis] = {
    "epochs": lambda epochs: [epoch["epoch"] for epoch in epochs],
    "seconds": lambda epochs: list(accumulate(epoch["seconds"] for epoch in epochs)),
    "characters read": lambda epochs: list(
        accumulate(epoch["seconds"] * epoch["chars_per_second"] for epoch in epochs)
    ),
}
SCALES = ("linear", "log")


@dataclass(frozen=True)
class PlotSettings:
    """How loss curves are drawn: the unit of the loss, the x axis, and the scale of the y axis.

    Raises RequestError for a name that is not among LOSS_UNITS, AXES and SCALES.
    """

    unit: str = "nats per character"
    axis: str = "epochs"
    scale: str = "linear"

    def __post_init__(self) -> None:
        for name, names in ((self.unit, LOSS_UNITS), (self.axis, AXES), (self.scale, SCALES)):
            if not isinstance(name, str) or name not in names:
                raise RequestError(f"{name!r:.50} is not one of {', '.join(names)}")


def draw_plot(records: Records, settings: PlotSettings | None = None) -> go.Figure:
    """Return the plot of any number of training records: their curves, and a star at the best epoch of each."""
    settings = settings or PlotSettings()
    figure = go.Figure()
    for (name, history), colour in zip(records, cycle(COLOURS), strict=False):
        _add_curves(figure, escape(name), history, colour, settings)
    _lay_out(figure)
    ticks = {}
    if settings.axis == "epochs":
        longest = max((len(history["epochs"]) for _, history in records), default=1)
        ticks = {"tick0": 0, "dtick": _tick_step(longest), "tickangle": 0}
    figure.update_xaxes(title=settings.axis, **ticks)
    loss = settings.unit if settings.unit == "perplexity" else f"loss ({settings.unit})"
    figure.update_yaxes(title=loss, type=settings.scale)
    return figure


def draw_context(curves: Sequence[tuple[str, Sequence[float]]], floor: float) -> go.Figure:
    """Return the plot of some models' effective contexts: the change of the prediction by distance from the change.

    floor: values up to it are rounding errors and not drawn.
    """
    figure = go.Figure()
    for (name, curve), colour in zip(curves, cycle(COLOURS), strict=False):
        shown = [value if value > floor else None for value in curve]
        figure.add_scatter(
            x=list(range(1, len(shown) + 1)),
            y=shown,
            name=escape(name),
            mode="lines",
            line={"color": colour},
            hovertemplate="%{y:.2e} nats",
        )
    _lay_out(figure)
    figure.update_xaxes(title="characters since the change", type="log")
    figure.update_yaxes(title="change of the prediction (nats)", type="log", exponentformat="power")
    return figure


def _lay_out(figure: go.Figure) -> None:
    figure.update_layout(
        height=PLOT_HEIGHT + LEGEND_HEIGHT * -(-len(figure.data) // 3),
        margin={"l": 60, "r": 16, "t": 16, "b": 48},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": GREY},
        hovermode="x unified",
        legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
    )
    axis = {"gridcolor": "rgba(128,128,128,0.2)", "zeroline": False}
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)


def _tick_step(epochs: int) -> int:
    """Return the smallest of 1, 2, 5, 10, 20, … that gives at most six ticks, as many as a phone has room for."""
    steps = (digit * 10**power for power in count() for digit in (1, 2, 5))
    fitting: int = next(step for step in steps if epochs <= 6 * step)
    return fitting


def _add_curves(figure: go.Figure, name: str, history: HistoryRecord, colour: str, settings: PlotSettings) -> None:
    epochs, convert = history["epochs"], LOSS_UNITS[settings.unit]
    places = AXES[settings.axis](epochs)
    for curve, label in CURVES.items():
        points = [
            (place, convert(epoch[curve]))  # type: ignore[literal-required]
            for place, epoch in zip(places, epochs, strict=True)
            if epoch.get(curve) is not None
        ]
        if points:
            xs, losses = zip(*points, strict=True)
            figure.add_scatter(
                x=xs,
                y=losses,
                name=f"{name}, {label}",
                line={"color": colour, "dash": DASHES[curve]},
                mode="lines+markers" if len(points) == 1 else "lines",
                hovertemplate="%{y:.4f}",
            )
    best = history["best"]
    loss = convert(best["val_loss"])
    figure.add_scatter(
        x=[place for place, epoch in zip(places, epochs, strict=True) if epoch["epoch"] == best["epoch"]][:1],
        y=[loss],
        name=f"{name}, best: {loss:.4f} at epoch {best['epoch']}",
        mode="markers",
        marker={"color": colour, "size": 13, "symbol": "star", "line": {"color": "white", "width": 1}},
        hoverinfo="skip",
    )


def tabulate(records: Records) -> list[list[Any]]:
    """Return one row for each epoch of each record: the model's name, then COLUMNS."""
    return [[name, *(epoch.get(column) for column in COLUMNS)] for name, epoch in _epochs(records)]


def write_csv(records: Records) -> str:
    """Return the rows of `tabulate` as CSV, with a heading."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["model", *COLUMNS])
    # spreadsheets read a cell that begins with one of these as a formula
    writer.writerows([f"'{name}" if name.startswith(tuple("=+-@")) else name, *row] for name, *row in tabulate(records))
    return file.getvalue()


def _epochs(records: Records) -> Iterator[tuple[str, EpochRecord]]:
    return ((name, epoch) for name, history in records for epoch in history["epochs"])


def samples_at(records: Records, epoch: int) -> list[dict[str, str]]:
    """Return each model's sample after an epoch, or after its last epoch before that, as cards: title, about, text."""
    found = []
    for name, history in records:
        so_far = [each for each in history["epochs"] if each["epoch"] <= epoch] or history["epochs"][:1]
        record = so_far[-1]
        losses = ", ".join(
            f"{label} {record[curve]:.4f}"  # type: ignore[literal-required]
            for curve, label in CURVES.items()
            if record.get(curve) is not None and math.isfinite(record[curve])  # type: ignore[literal-required]
        )
        found.append({"title": name, "about": f"after epoch {record['epoch']}: {losses}", "text": record["sample"]})
    return found


def settings_of(records: Records) -> list[list[str]]:
    """Return one row for each setting: its name, then its value in each of the runs."""
    runs = [_flat(history["run"]) for _, history in records]
    names = list(dict.fromkeys(name for run in runs for name in run))
    return [[name, *(run.get(name, "") for run in runs)] for name in names]


def _flat(run: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in run.items():
        path = f"{prefix}{printable(name)}"
        flat |= _flat(value, f"{path}.") if isinstance(value, dict) else {path: printable(str(value)[:200])}
    return flat
