"""Advice about a training: before it, the size of model that suits the text; after an epoch, what its curves show.

Also what symbols cost that no text trains.
"""

from dataclasses import replace
from itertools import pairwise
from math import inf
from typing import Any

from charlm.analysis.diagnosis import STILL_FALLING, find_gap, find_rise, find_slope
from charlm.messages import counted
from charlm.model.config import ModelConfig
from charlm.model.history import EpochRecord, HistoryRecord, make_history

from .recipes import suitable_hidden_size

MOST_SHOWN = 10  # symbols in a message
UNTRAINED_NATS = 12  # that a symbol costs which nothing trains: 11.0 to 12.3 in the runs in docs/log.md
# Seconds of one CPU core, fitted to the runs in docs/log.md. At each position of a sequence the weights are read once
# for all streams of the batch; for each character of each stream there are products with them.
PER_POSITION, PER_POSITION_AND_PARAMETER = 3.9e-4, 2.0e-10
PER_CHAR, PER_CHAR_AND_PARAMETER = 4e-6, 3.1e-11

# Epochs over which a validation loss that rises, or falls no more, is told: in one epoch it also fluctuates.
RISE_EPOCHS, PLATEAU_EPOCHS = 2, 3


def advise(run: dict[str, Any], model: ModelConfig) -> str | None:
    """Return a line of advice if a model is too large for its text, else None. run: of history.json."""
    # an experiment is repeated as it was, a model has its size, and one for a time was chosen for it
    if run["protocol"] != "holdout" or "init_from" in run or "minutes" in run:
        return None
    chars = run["split"]["train_chars"]
    size = suitable_hidden_size(chars)
    if size is None or model.hidden_size <= size:
        return None
    smaller = replace(model, hidden_size=size)
    times = [
        _about(core_seconds(chars * run["epochs"], run["batch_size"], each.parameters)) for each in (smaller, model)
    ]
    cost = f", in about {times[0]} in place of {times[1]} on one CPU core" if run["device"] == "cpu" else ""
    return (
        f"note: {chars:,} characters are few for {model.parameters:,} parameters; --hidden-size {size} predicts such a "
        f"text as well or better{cost}; --minutes M in place of --epochs chooses a size for M minutes"
    )


class CurveAdvice:
    """Advice by the curves of a run, each piece at most once, however often it is resumed."""

    def __init__(self, history: HistoryRecord | None = None) -> None:
        """history: the record of the epochs before those that `after_epoch` is asked about; None if there are none."""
        self._given = set[str]()
        for last in range(1, len(history["epochs"]) if history else 0):
            assert history is not None
            self.after_epoch(make_history(history["run"], history["epochs"][:last]))
        if history is not None:
            self.after_epoch(history)

    def after_epoch(self, history: HistoryRecord) -> list[str]:
        """Return the lines of advice that the record of the epochs so far gives and no earlier one gave."""
        if len(history["epochs"]) >= history["run"]["epochs"]:  # too late for this run: the page reads the curves
            return []
        found = {name: line for name, line in _read_curves(history).items() if name not in self._given}
        self._given |= found.keys()
        return list(found.values())


def _read_curves(history: HistoryRecord) -> dict[str, str]:
    """Return a line of advice for each thing that the curves show, by its name."""
    best, found = history["best"], dict[str, str]()
    epochs = _since_rate_rose(history["epochs"])
    rise = find_rise(epochs)
    if rise is not None and rise.last - rise.best >= RISE_EPOCHS:
        rose = f"the validation loss rose from {rise.val[0]:.4f} (epoch {rise.best}) to {rise.val[1]:.4f}"
        trained = f"{rise.train[0]:.4f} to {rise.train[1]:.4f}"
        found[rise.kind] = (
            f"note: {rose} and the training loss from {trained}: the steps are too large; a lower --lr helps, "
            "or a lower --clip-norm (0 turns it off)"
            if rise.kind == "divergence"
            else f"note: {rose} while the training loss went from {trained}: the text is too short for this model; "
            "more text, a higher --dropout or a smaller --hidden-size helps; the best model so far is saved"
        )
    gap = find_gap(history)
    if gap is not None:
        found["gap"] = (
            f"note: the training loss is {gap:.4f} lower than the validation loss (epoch {best['epoch']}): that "
            "much is memorised training text; if this gap grows and the validation loss stops falling, a higher "
            "--dropout or more text helps"
        )
    slope, recent = find_slope(epochs, PLATEAU_EPOCHS) if len(epochs) > PLATEAU_EPOCHS else (inf, 0)
    if rise is None and slope < STILL_FALLING:
        found["plateau"] = (
            f"note: the validation loss has stopped falling: over the last {recent} epochs it fell by less than "
            f"{STILL_FALLING} an epoch; the best model so far is saved, so Ctrl-C loses nothing, and fewer "
            f"{'--minutes' if 'minutes' in history['run'] else '--epochs'} do next time"
        )
    return found


def _since_rate_rose(epochs: list[EpochRecord]) -> list[EpochRecord]:
    """Return the epochs since the learning rate last rose, or all if it never did.

    It rises where a run goes on with more epochs than planned. The losses rise with it, and fall later.
    """
    rates = [epoch["learning_rate"] for epoch in epochs]
    rises = (place for place, (before, after) in enumerate(pairwise(rates), 1) if after > before)
    return epochs[max(rises, default=0) :]


def explain_untrained(symbols: dict[str, int], split: dict[str, Any]) -> str | None:
    """Return a line about symbols that only the parts have that validate or test, None if there are none.

    symbols: how often each occurs there. split: of history.json.
    """
    if not symbols:
        return None
    rest = split["val_chars"] + split.get("test_chars", 0)
    shown = ", ".join(map(repr, list(symbols)[:MOST_SHOWN])) + (", …" if len(symbols) > MOST_SHOWN else "")
    chars = sum(symbols.values())
    cost = chars * UNTRAINED_NATS / rest
    stand = "stands" if len(symbols) == 1 else "stand"
    each = "this costs" if chars == 1 else "each time costs"
    adds = "and adds" if chars == 1 else "together they add"
    return (
        f"note: {counted(len(symbols), 'symbol')} {stand} only in the text that validates or tests, "
        f"{counted(chars, 'time')} ({shown}): in the vocabulary, but untrained; {each} about {UNTRAINED_NATS} nats, "
        f"{adds} about {cost:.4f} to the loss"
    )


def explain_rare(run: dict[str, Any]) -> str | None:
    """Return a line about the symbols that were too rare, None if none was. run: of history.json."""
    if not (rare := run.get("rare", {})).get("symbols"):
        return None
    occur, they_are = ("occurs", "it is") if rare["symbols"] == 1 else ("occur", "they are")
    return (
        f"note: {counted(rare['symbols'], 'symbol')} {occur} fewer than {run['min_count']} times, "
        f"{counted(rare['chars'], 'character')} in all: {they_are} read as U+FFFD"
    )


def core_seconds(chars: int, batch_size: int, parameters: int) -> float:
    """Return about how many seconds one CPU core takes to train. chars: of all epochs together."""
    per_position = PER_POSITION + PER_POSITION_AND_PARAMETER * parameters
    return chars * (per_position / batch_size + PER_CHAR + PER_CHAR_AND_PARAMETER * parameters)


def _about(seconds: float) -> str:
    """Return a time as exact as it is known: tens of seconds, minutes, or hours."""
    if seconds < 90:
        return f"{max(round(seconds, -1), 10):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.0f} h"
