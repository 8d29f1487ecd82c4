"""The answers of the view *Learn*: the stored training records of some models.

All functions raise RequestError for names that are no choice of models.
"""

from collections.abc import Sequence
from typing import Any

from plotly import graph_objects as go

from charlm.analysis import diagnosis
from charlm.analysis.diagnosis import Records
from charlm.checks import check_whole
from charlm.web.models import ModelRegistry
from charlm.web.plots import COLUMNS, PlotSettings, draw_plot, samples_at, settings_of, tabulate, write_csv

MOST_MODELS = 20


def plot(registry: ModelRegistry, names: object, settings: PlotSettings) -> go.Figure:
    """Draw the loss curves of the models."""
    return draw_plot(_records(registry, names)[0], settings)


def read_curves(registry: ModelRegistry, names: object) -> list[str]:
    """Return sentences that say what the curves show, and which models came without a record."""
    records, missing = _records(registry, names)
    return [f"{name} came without a training record." for name in missing] + diagnosis.read_curves(records)


def last_epoch(registry: ModelRegistry, names: object) -> int:
    """Return the highest epoch of all the records, 1 if there are none."""
    records, _ = _records(registry, names)
    return max((epoch["epoch"] for _, history in records for epoch in history["epochs"]), default=1)


def samples(registry: ModelRegistry, names: object, epoch: object) -> list[dict[str, str]]:
    """Return what the models wrote after an epoch, as cards."""
    return samples_at(_records(registry, names)[0], check_whole("epoch", epoch, 0))


def table(registry: ModelRegistry, names: object) -> dict[str, Any]:
    """Return the numbers of every epoch, rounded, with the headings."""
    rows = [[_rounded(value) for value in row] for row in tabulate(_records(registry, names)[0])]
    return {"headers": ["model", *COLUMNS], "data": rows}


def csv(registry: ModelRegistry, names: object) -> str:
    """Return the numbers of every epoch, unrounded, as CSV."""
    return write_csv(_records(registry, names)[0])


def run_settings(registry: ModelRegistry, names: object) -> dict[str, Any]:
    """Return the settings of the training runs side by side, with the headings."""
    records, _ = _records(registry, names)
    return {"headers": ["setting", *(name for name, _ in records)], "data": settings_of(records)}


def _records(registry: ModelRegistry, names: object) -> tuple[Records, Sequence[str]]:
    """Return the records of the models, and the names of the models that have none."""
    models = registry.choose(names, MOST_MODELS)
    records = [(model.name, model.lm.history) for model in models if model.lm.history is not None]
    return records, [model.name for model in models if model.lm.history is None]


def _rounded(value: Any) -> Any:
    """Round a float to five significant digits."""
    return float(f"{value:.5g}") if isinstance(value, float) else value
