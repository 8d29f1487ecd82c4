"""The answers of the view *Learn*: the stored training records of some models, and what they write at kept epochs.

All functions raise RequestError for names that are no choice of models.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

from charlm.analysis import diagnosis
from charlm.analysis.diagnosis import Records, Remark
from charlm.checks import check_whole
from charlm.errors import CharLMError
from charlm.lm import CharLM
from charlm.messages import printable
from charlm.model.history import HistoryRecord, best_epoch, earlier_epochs, join_runs
from charlm.model.kept import list_epochs
from charlm.web.answers.write import WriteSettings
from charlm.web.models import ModelRegistry, ServedModel
from charlm.web.plots import (
    COLUMNS,
    PlotSettings,
    draw_plot,
    epoch_at,
    sample_card,
    settings_of,
    tabulate,
)

MOST_MODELS = 20
LONGEST_SAMPLE, MOST_WRITTEN = 500, 5_000  # characters that models write for one position of the slider: each, and all
LARGEST_WHOLE = 2**53  # up to which JavaScript's numbers hold every whole number

_faults: WeakKeyDictionary[CharLM, str] = WeakKeyDictionary()  # of the records that were shown once, "" if none


def comparable(registry: ModelRegistry, most: int) -> list[str]:
    """Choose the first models that were measured as the very first one was, of those with a record: on the same text,
    with the same protocol.

    If none has a record that can be shown, the first models are chosen.
    """
    records, _ = _records(registry, registry.names[:MOST_MODELS])
    measured = [(name, [history["run"].get(key) for key in ("text", "protocol")]) for name, history in records]
    return [name for name, how in measured if how == measured[0][1]][:most] or registry.names[:most]


def chart(
    registry: ModelRegistry, names: object, settings: PlotSettings, sides: Sequence[object] = ()
) -> dict[str, Any]:
    """Return what draws the loss curves of the models with the remarks on them, as `reading`.

    sides: models A and B, whose curves have their colours.
    """
    return draw_plot(_records(registry, names)[0], settings, sides) | {"reading": read_curves(registry, names)}


def read_curves(registry: ModelRegistry, names: object) -> list[dict[str, Any]]:
    """Return remarks that say which models have no record that can be shown, and what the curves of the others show.

    Each has the fields of `diagnosis.Remark`.
    """
    records, missing = _records(registry, names)
    return [asdict(remark) for remark in [*map(Remark, missing), *diagnosis.read_curves(records)]]


def unshown(registry: ModelRegistry) -> list[str]:
    """Return a sentence about each listed model whose record cannot be shown."""
    return [fault for model in registry if (fault := record_fault(model))]


def last_epoch(registry: ModelRegistry, names: object) -> int:
    """Return the highest epoch of all the records, 1 if there are none."""
    records, _ = _records(registry, names)
    return max((earlier_epochs(history) + len(history["epochs"]) for _, history in records), default=1)


def samples(
    registry: ModelRegistry, names: object, epoch: object, fields: Mapping[str, Any] | None = None
) -> list[dict[str, str]]:
    """Return what the models wrote after an epoch, as cards.

    fields: of the view *Write*, but for its models. A model that has kept the weights of the epoch writes with them
    now, as these fields say, and beside it with those of its best epoch; the others show the samples of their records.
    Raises RequestError for fields that cannot be, if a model writes.
    """
    records, _ = _records(registry, names)
    chosen = check_whole("epoch", epoch, 0)
    found = [epoch_at(history, chosen) for _, history in records]
    samples = [sample_card(name, record) for (name, _), record in zip(records, found, strict=True)]
    if fields is None:
        return samples
    shown = [
        (registry[name], record["epoch"] - earlier_epochs(history))
        for (name, history), record in zip(records, found, strict=True)
    ]
    writers = sum(number in model.epochs for model, number in shown)
    if not writers:
        return samples
    settings = WriteSettings.from_fields({"model_a": "", "model_b": "", **fields})  # which draws a seed for all
    settings = replace(settings, length=min(settings.length, LONGEST_SAMPLE, MOST_WRITTEN // (2 * writers)))
    cards = list[dict[str, str]]()
    for (model, number), sample in zip(shown, samples, strict=True):
        cards += _write_at(model, number, sample, settings) if number in model.epochs else [sample]
    return cards


def _write_at(model: ServedModel, epoch: int, sample: dict[str, str], settings: WriteSettings) -> list[dict[str, str]]:
    """Let a model write as it was after an epoch, and as it is; return a card for each.

    epoch: of its last run.
    sample: the card of that epoch's sample, which is returned with the reason if the weights cannot be used.
    """
    assert model.lm.history is not None
    best = model.lm.history["best"]["epoch"]
    try:
        cards = [_written(model.at_epoch(epoch), sample, settings)]
        if epoch != best:
            late = sample_card(model.name, best_epoch(join_runs(model.lm.history)))
            cards.append(_written(model.lm, {**late, "about": f"the best, {late['about']}"}, settings))
    except CharLMError as error:
        return [{**sample, "about": f"{sample['about']}. Its record's sample, since it cannot write: {error}"}]
    return cards


def _written(lm: CharLM, card: dict[str, str], settings: WriteSettings) -> dict[str, str]:
    """Return a card with a text that the model writes, in place of the sample."""
    sampling, (prompt, _) = settings.sampling, lm.vocab.keep_known(settings.prompt)
    text = prompt + "".join(piece for piece, _ in lm.stream_scored(prompt, settings.length, sampling))
    return {**card, "about": f"{card['about']} · written now, seed {sampling.seed}", "text": text}


def kept(registry: ModelRegistry, names: object) -> list[str]:
    """Return a sentence about each model that can write after some of its epochs."""
    return [
        f"{model.name} has checkpoints of epochs {list_epochs(_shown_epochs(model))}: at these it writes a new text "
        "with the prompt, the seed and the settings of Write, beside one by its best epoch."
        for model in registry.choose(names, MOST_MODELS)
        if model.epochs and not record_fault(model)
    ]


def _shown_epochs(model: ServedModel) -> list[int]:
    """Return the epochs whose weights a model has kept, as the slider numbers them."""
    assert model.lm.history is not None
    return [earlier_epochs(model.lm.history) + epoch for epoch in model.epochs]


def table(registry: ModelRegistry, names: object) -> dict[str, Any]:
    """Return the numbers of every epoch, rounded, with the headings."""
    rows = [[_rounded(value) for value in row] for row in tabulate(_records(registry, names)[0])]
    return {"headers": ["model", *COLUMNS], "data": rows}


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
    for epoch in join_runs(record)["epochs"]:
        check_whole("epoch", epoch["epoch"], 0, LARGEST_WHOLE)
        sample_card(name, epoch)
    for value in chain.from_iterable(tabulate(records)):
        if isinstance(value, int):
            check_whole("a number", value, -LARGEST_WHOLE, LARGEST_WHOLE)
    diagnosis.read_curves(records)
    settings_of(records)


def _rounded(value: Any) -> Any:
    """Round a float to five significant digits."""
    return float(f"{value:.5g}") if isinstance(value, float) else value
