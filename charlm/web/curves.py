"""The stored loss curves as an interactive plot."""

from collections.abc import Sequence
from html import escape
from itertools import count

from plotly import graph_objects as go

from charlm.history import CURVES, HistoryRecord

COLOURS = ("#3b82f6", "#f97316")  # model A, model B: told apart in light, in dark, and by the colour-blind
DASHES = {"train_loss": "dot", "val_loss": "solid", "unseen_loss": "dash"}
GREY = "#808080"


def draw_plot(records: Sequence[tuple[str, HistoryRecord | None]]) -> go.Figure:
    """Return the plot of the training records of one or two models, given with their names."""
    figure = go.Figure()
    for (name, history), colour in zip(records, COLOURS, strict=False):
        if history is not None:
            _add_curves(figure, escape(name), history, colour)
    figure.update_layout(
        height=380,
        margin={"l": 60, "r": 16, "t": 16, "b": 48},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": GREY},
        hovermode="x unified",
        legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
    )
    axis = {"gridcolor": "rgba(128,128,128,0.2)", "zeroline": False}
    longest = max((len(history["epochs"]) for _, history in records if history is not None), default=1)
    figure.update_xaxes(title="epoch", tick0=0, dtick=_tick_step(longest), tickangle=0, **axis)
    figure.update_yaxes(title="loss (nats per character)", **axis)
    return figure


def _tick_step(epochs: int) -> int:
    """Return the smallest of 1, 2, 5, 10, 20, … that sets at most six ticks, as many as a phone has room for."""
    steps = (digit * 10**power for power in count() for digit in (1, 2, 5))
    fitting: int = next(step for step in steps if epochs <= 6 * step)
    return fitting


def _add_curves(figure: go.Figure, name: str, history: HistoryRecord, colour: str) -> None:
    for curve, label in CURVES.items():
        points = [(epoch["epoch"], epoch[curve]) for epoch in history["epochs"] if epoch.get(curve) is not None]  # type: ignore[literal-required]
        if points:
            epochs, losses = zip(*points, strict=True)
            figure.add_scatter(
                x=epochs,
                y=losses,
                name=f"{name}, {label}",
                line={"color": colour, "dash": DASHES[curve]},
                mode="lines+markers" if len(points) == 1 else "lines",
                hovertemplate="%{y:.4f}",
            )
    best = history["best"]
    figure.add_scatter(
        x=[best["epoch"]],
        y=[best["val_loss"]],
        name=f"{name}, best: {best['val_loss']:.4f} at epoch {best['epoch']}",
        mode="markers",
        marker={"color": colour, "size": 13, "symbol": "star", "line": {"color": "white", "width": 1}},
        hoverinfo="skip",
    )
