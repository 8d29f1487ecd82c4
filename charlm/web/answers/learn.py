"""The answers of the view *Learn*: the stored training records of some models.

All functions raise RequestError for names that are no choice of models.
"""

import json
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

from charlm.analysis import diagnosis
from charlm.analysis.diagnosis import Records
from charlm.checks import check_whole
from charlm.lm import CharLM
from charlm.model.history import HistoryRecord
from charlm.text import printable
from charlm.web.models import ModelRegistry, ServedModel
from charlm.web.plots import (
    COLUMNS,
    PlotSettings,
    draw_plot,
    samples_at,
    settings_of,
    tabulate,
    write_csv,
)

MOST_MODELS = 20
LARGEST_WHOLE = 2**53  # up to which JavaScript's numbers hold every whole number

_faults: WeakKeyDictionary[CharLM, str] = WeakKeyDictionary()  # of the records that were shown once, "" if none


def comparable(registry: ModelRegistry, most: int) -> list[str]:
    """Choose the first models that were measured with the same protocol as the very first one, of those with a record.

    If none has a record that can be shown, the first models are chosen.
    """
    records, _ = _records(registry, registry.names[:MOST_MODELS])
    protocols = [(name, history["run"].get("protocol")) for name, history in records]
    return [name for name, protocol in protocols if protocol == protocols[0][1]][:most] or registry.names[:most]


def plot(registry: ModelRegistry, names: object, settings: PlotSettings) -> dict[str, Any]:
    """Return what draws the loss curves of the models."""
    return draw_plot(_records(registry, names)[0], settings)


def read_curves(registry: ModelRegistry, names: object) -> list[str]:
    """Return sentences that say what the curves show, and which models have no record that can be shown."""
    records, missing = _records(registry, names)
    return missing + diagnosis.read_curves(records)


def unshown(registry: ModelRegistry) -> list[str]:
    """Return a sentence about each listed model whose record cannot be shown."""
    return [fault for model in registry if (fault := record_fault(model))]


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


def _records(registry: ModelRegistry, names: object) -> tuple[Records, list[str]]:
    """Return the records of the models, and a sentence about each model without one that can be shown."""
    records, missing = [], []
    for model in registry.choose(names, MOST_MODELS):
        if fault := record_fault(model):
            missing.append(fault)
        elif model.lm.history is None:
            missing.append(f"{model.name} came without a training record.")
        else:
            records.append((model.name, model.lm.history))
    return records, missing


def record_fault(model: ServedModel) -> str:
    """Say why a model's record cannot be shown, "" if it can or there is none.

    Records come from strangers: what is wrong with one must not keep the others from being shown. So each is shown once
    alone, and whatever fails there keeps it out.
    """
    if model.lm not in _faults:
        reason = model.lm.record_problem
        if model.lm.history is not None:
            try:
                _show_once(model.name, model.lm.history)
            except Exception as error:  # of any kind
                reason = printable(str(error) or type(error).__name__)
        sentence = f"{model.name} has a training record that cannot be shown: {reason:.200}."
        _faults[model.lm] = sentence if reason else ""
    return _faults[model.lm]


def _show_once(name: str, record: HistoryRecord) -> None:
    """Make everything that the view shows of a record."""
    records = [(name, record), (name, record)]  # two, so that they are compared as well
    json.dumps(draw_plot(records), allow_nan=False)
    for epoch in record["epochs"]:
        check_whole("epoch", epoch["epoch"], 0, LARGEST_WHOLE)
        samples_at(records, epoch["epoch"])
    for value in chain.from_iterable(tabulate(records)):
        if isinstance(value, int):
            check_whole("a number", value, -LARGEST_WHOLE, LARGEST_WHOLE)
    diagnosis.read_curves(records)
    settings_of(records)
    write_csv(records)


def _rounded(value: Any) -> Any:
    """Round a float to five significant digits."""
    return float(f"{value:.5g}") if isinstance(value, float) else value
