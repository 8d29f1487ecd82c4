"""How models learnt: their stored records, as the view *Learn* shows them."""

from collections.abc import Sequence
from typing import Any

from plotly import graph_objects as go

from charlm.analysis.diagnosis import Records, read_curves
from charlm.checks import check_whole
from charlm.web.models import ModelRegistry
from charlm.web.plots import (
    FIGURES,
    Scale,
    draw_plot,
    samples_at,
    settings_of,
    tabulate,
    write_csv,
)

MOST_MODELS = 20


class Learner:
    """The answers of the view. All raise RequestError for an argument out of bounds."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    def plot(self, names: object, unit: str, axis: str, scale: str) -> go.Figure:
        """Draw the curves of some models."""
        return draw_plot(self._records(names)[0], Scale(unit, axis, scale))

    def read(self, names: object) -> list[str]:
        """Say what the curves of some models mean."""
        records, missing = self._records(names)
        return [f"{name} came without a training record." for name in missing] + read_curves(records)

    def epochs(self, names: object) -> int:
        """Return the last epoch of all."""
        records, _ = self._records(names)
        return max((epoch["epoch"] for _, history in records for epoch in history["epochs"]), default=1)

    def samples(self, names: object, epoch: object) -> list[dict[str, str]]:
        """Return what some models wrote after an epoch."""
        return samples_at(self._records(names)[0], check_whole("epoch", epoch, 0))

    def table(self, names: object) -> dict[str, Any]:
        """Return the figures of every epoch, with the headings."""
        rows = [[_rounded(value) for value in row] for row in tabulate(self._records(names)[0])]
        return {"headers": ["model", *FIGURES], "data": rows}

    def csv(self, names: object) -> str:
        """Return the same as CSV."""
        return write_csv(self._records(names)[0])

    def settings(self, names: object) -> dict[str, Any]:
        """Return the settings of the runs side by side, with the headings."""
        records, _ = self._records(names)
        return {"headers": ["setting", *(name for name, _ in records)], "data": settings_of(records)}

    def _records(self, names: object) -> tuple[Records, Sequence[str]]:
        """Return the records of the models with these names, and the names of those that have none."""
        models = self._registry.choose(names, MOST_MODELS)
        records = [(model.name, model.lm.history) for model in models if model.lm.history is not None]
        return records, [model.name for model in models if model.lm.history is None]


def _rounded(value: Any) -> Any:
    """Return a number with the digits that a reader wants."""
    return float(f"{value:.5g}") if isinstance(value, float) else value
