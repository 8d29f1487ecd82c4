"""The stored training records as charts, tables and files.

What a chart is, and how it is drawn, stands in charlm/browser/components/curves.js.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from charlm.analysis.diagnosis import Records
from charlm.analysis.published import published_losses
from charlm.errors import RequestError
from charlm.messages import printable, show
from charlm.model.history import CURVES, EpochRecord, HistoryRecord, join_runs

# of an epoch, for its curves over each axis and for the tables
COLUMNS = ("epoch", "train_loss", "val_loss", "unseen_loss", "learning_rate", "seconds", "chars_per_second")

LOSS_UNITS = ("nats per character", "bits per character", "perplexity")
AXES = ("epochs", "seconds", "characters read")
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
                raise RequestError(f"{show(name)} is not one of {', '.join(names)}")


def draw_plot(records: Records, settings: PlotSettings | None = None, sides: Sequence[object] = ()) -> dict[str, Any]:
    """Return what draws the loss curves of any number of training records, with a star at the best epoch of each.

    An arrow marks each epoch in which the learning rate was changed, a bar the first epoch of a further run.

    sides: the names of models A and B. Losses that others published are drawn if they are on the text of all records.
    """
    drawn = [
        [
            name,
            {
                "epochs": [{each: epoch.get(each) for each in COLUMNS} for epoch in record["epochs"]],
                "best": record["best"],
                "run": {name: value for name, value in record["run"].items() if name == "lr_edits"},
                "run_starts": record["run_starts"],
            },
        ]
        for name, record in ((name, join_runs(history)) for name, history in records)
    ]
    published = [set(published_losses(record)) for _, record in records]
    known = sorted(set.intersection(*published), key=lambda each: each.loss) if published else []
    return {
        "records": drawn,
        "sides": [name for name in sides if isinstance(name, str)],
        "published": [asdict(each) for each in known],
        **asdict(settings or PlotSettings()),
    }


def draw_context(curves: Sequence[tuple[str, Sequence[float]]], floor: float) -> dict[str, Any]:
    """Return the chart of some models' effective contexts: the change of the prediction by distance from the change.

    floor: values up to it are rounding errors and not drawn.
    """
    series = [
        {
            "name": name,
            "colour": colour,
            "points": [[place, value if value > floor else None] for place, value in enumerate(curve, 1)],
        }
        for colour, (name, curve) in enumerate(curves)
    ]
    return {
        "x": {"title": "characters since the change", "one": "distance", "log": True},
        "y": {"title": "change of the prediction (nats)", "log": True},
        "series": series,
    }


def tabulate(records: Records) -> list[list[Any]]:
    """Return one row for each epoch of each record: the model's name, then COLUMNS."""
    return [[name, *(epoch.get(column) for column in COLUMNS)] for name, epoch in _epochs(records)]


def _epochs(records: Records) -> Iterator[tuple[str, EpochRecord]]:
    return ((name, epoch) for name, history in records for epoch in join_runs(history)["epochs"])


def epoch_at(history: HistoryRecord, epoch: int) -> EpochRecord:
    """Return the record of an epoch, or of the nearest one. epoch: counted over all runs."""
    epochs = join_runs(history)["epochs"]
    return epochs[min(max(epoch, 1), len(epochs)) - 1]


def sample_card(name: str, record: EpochRecord) -> dict[str, str]:
    """Return the sample of an epoch as a card: title, about, text. name: of the model."""
    losses = ", ".join(
        f"{label} {record[curve]:.4f}"  # type: ignore[literal-required]
        for curve, label in CURVES.items()
        if record.get(curve) is not None and math.isfinite(record[curve])  # type: ignore[literal-required]
    )
    return {"title": name, "about": f"after epoch {record['epoch']}: {losses}", "text": record["sample"]}


def settings_of(records: Records) -> list[list[str]]:
    """Return one row for each setting: its name, then its value in the last run of each record."""
    runs = [_flat(join_runs(history)["run"]) for _, history in records]
    names = list(dict.fromkeys(name for run in runs for name in run))
    return [[name, *(run.get(name, "") for run in runs)] for name in names]


def _flat(run: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in run.items():
        path = f"{prefix}{printable(name)}"
        flat |= _flat(value, f"{path}.") if isinstance(value, dict) else {path: printable(str(value)[:200])}
    return flat
