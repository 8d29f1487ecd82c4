"""A diagnosis of loss curves by rules: which model is better, what a rise means, whether the measure can be trusted.

Records may be untrusted: their numbers are finite, but `run` may hold any values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from charlm.model.config import is_number
from charlm.model.history import (
    EpochRecord,
    HistoryRecord,
    JoinedHistory,
    best_epoch,
    bits_per_char,
    join_runs,
    losses_before,
    lost_in_last_run,
    measured_by,
    perplexity,
)

Records = Sequence[tuple[str, HistoryRecord]]  # with the names of their models
JoinedRecords = Sequence[tuple[str, JoinedHistory]]

LEAST_FLUCTUATION = 0.003  # nats: a smaller change between epochs says nothing
SEED_SPREAD = 0.01  # nats by which runs that differ in nothing but the seed may end apart: five LSTMs did by 0.013
STILL_FALLING = 0.002  # nats per epoch
SPIKE = 0.1  # nats
GAP = 0.05  # nats by which the training loss is lower than the validation loss, if training text is memorised
LEAK = 0.1  # nats by which the loss on unseen text exceeds the validation loss, if validation text was trained on
LONGEST_SHOWN_NAME = 60  # characters of a name that are shown


@dataclass(frozen=True)
class Place:
    """A stretch of a curve, or one point of it.

    model: the name of its record. curve: its key in the epochs. first, last: epochs.
    """

    model: str
    curve: str
    first: int
    last: int


@dataclass(frozen=True)
class Remark:
    """What curves show, in a sentence or two, and where.

    model: whose curves are described, or "" if models are compared.
    """

    text: str
    model: str = ""
    places: tuple[Place, ...] = ()


@dataclass(frozen=True)
class Rise:
    """A validation loss that ends above its best.

    kind: `divergence` if the training loss rose too, else `overfitting`.
    best, last: epochs. val, train: the losses (nats) at these two.
    """

    kind: str
    best: int
    last: int
    val: tuple[float, float]
    train: tuple[float, float]


def read_curves(records: Records) -> list[Remark]:
    """Return remarks about each model's record in turn, then comparisons between the models.

    The epochs in them count those of earlier runs as well.
    """
    joined = [(name, join_runs(history)) for name, history in records]
    own = [remark for name, history in joined for remark in _read_one(name, history)]
    return own + _compare(joined)


def find_rise(epochs: Sequence[EpochRecord]) -> Rise | None:
    """Return the rise of the validation loss from its best to the end, if that exceeds its fluctuation."""
    best = min(range(len(epochs)), key=lambda place: epochs[place]["val_loss"])
    first, last = epochs[best], epochs[-1]
    noise = fluctuation([epoch["val_loss"] for epoch in epochs])
    if last["val_loss"] - first["val_loss"] <= noise:
        return None
    diverges = last["train_loss"] - first["train_loss"] > fluctuation([epoch["train_loss"] for epoch in epochs])
    return Rise(
        "divergence" if diverges else "overfitting",
        first["epoch"],
        last["epoch"],
        (first["val_loss"], last["val_loss"]),
        (first["train_loss"], last["train_loss"]),
    )


def fluctuation(losses: Sequence[float]) -> float:
    """Return the median size of the second differences of losses (nats), but at least LEAST_FLUCTUATION.

    Differences between epochs measure a steady trend too; their differences do not.
    """
    changes = [later - earlier for earlier, later in pairwise(losses)]
    jumps = [abs(later - earlier) for earlier, later in pairwise(changes)]
    return max(LEAST_FLUCTUATION, median(jumps)) if jumps else LEAST_FLUCTUATION


def find_spike(epochs: Sequence[EpochRecord], run_starts: Sequence[int] = ()) -> int | None:
    """Return the first epoch whose validation loss jumped up and later fell below its former value.

    A jump is a rise by more than SPIKE and by more than three times the median change. The first epoch of a further run
    is left out: its learning rate is high again. run_starts: these epochs.
    """
    losses = [epoch["val_loss"] for epoch in epochs]
    changes = [later - earlier for earlier, later in pairwise(losses)]
    usual = median(map(abs, changes)) if changes else 0
    for place, change in enumerate(changes[:-1]):
        epoch = epochs[place + 1]["epoch"]
        if change > max(SPIKE, 3 * usual) and min(losses[place + 2 :]) < losses[place] and epoch not in run_starts:
            return epoch
    return None


def find_slope(epochs: Sequence[EpochRecord], least: int = 2) -> tuple[float, int]:
    """Return how much the validation loss falls an epoch (nats), and over how many of the last epochs that is.

    They are the last quarter, but at least `least` epochs.
    """
    recent = epochs[-max(least, len(epochs) // 4) :]
    return (recent[0]["val_loss"] - recent[-1]["val_loss"]) / (len(recent) - 1), len(recent)


def find_gap(history: HistoryRecord) -> float | None:
    """Return by how much the training loss is lower than the validation loss at the best epoch (nats), beyond GAP.

    It is None if what is memorised does not show in these losses: the validation loss leaks, or the training loss is
    also that of another text, which the teachers of the model wrote.
    """
    if find_leak(history) is not None or _has_learnt_written_text(history):
        return None
    best = best_epoch(history)
    gap = best["val_loss"] - best["train_loss"]
    return gap if gap > GAP else None


def _has_learnt_written_text(history: HistoryRecord) -> bool:
    chars = history["run"].get("teachers_write")
    return is_number(chars) and chars > 0


def find_leak(history: HistoryRecord) -> tuple[float, float] | None:
    """Return the losses on validation text and on unseen text (nats) if the first is lower by more than LEAK."""
    best = best_epoch(history)
    unseen = best.get("unseen_loss")
    if unseen is None or unseen - best["val_loss"] <= LEAK:
        return None
    return best["val_loss"], unseen


def _read_one(name: str, history: JoinedHistory) -> list[Remark]:
    said = _tell_start(name, history) + _tell_best(name, history)
    if (spike := find_spike(history["epochs"], history["run_starts"])) is not None:
        text = f"Its validation loss jumped up in epoch {spike} and came down again: a few steps were too large."
        said.append(Remark(text, name, (Place(name, "val_loss", spike, spike),)))
    if (rise := find_rise(_last_run(history))) is not None:
        places = tuple(Place(name, curve, rise.best, rise.last) for curve in ("val_loss", "train_loss"))
        said.append(Remark(_tell_rise(rise), name, places))
    return said + _tell_gap(name, history) + _tell_leak(name, history)


def _last_run(history: JoinedHistory) -> list[EpochRecord]:
    """Return the epochs of the last run, which made the model."""
    return history["epochs"][history["run_starts"][-1] - 1 :] if history["run_starts"] else history["epochs"]


def _tell_start(name: str, history: JoinedHistory) -> list[Remark]:
    """Say with what weights the training began, unless they were random."""
    if starts := history["run_starts"]:
        runs = len(starts) + 1
        text = f"Its curves show {runs} runs. Each but the first began with the best weights of the run before."
        return [Remark(text, name, tuple(Place(name, "val_loss", first, first) for first in starts))]
    loss = losses_before(history).get("val_loss")
    if loss is None:
        return []
    first = history["epochs"][0]["epoch"]
    text = f"It began with the weights of another model, whose validation loss on this text was {_nats(loss)}."
    return [Remark(text, name, (Place(name, "val_loss", first, first),))]


def _tell_best(name: str, history: JoinedHistory) -> list[Remark]:
    epochs, best = _last_run(history), history["best"]
    text = f"Its best validation loss is {_nats(best['val_loss'])} nats per character, after "
    text += f"epoch {best['epoch']} of {epochs[-1]['epoch']}."
    if (lost := lost_in_last_run(history)) is not None:
        text += f" The last run made it worse: it began with {_nats(lost)}."
    said = [Remark(text, name, (_best_place(name, history),))]
    if best["epoch"] != epochs[-1]["epoch"] or len(epochs) < 3:
        return said
    slope, recent = find_slope(epochs)
    end = (Place(name, "val_loss", epochs[-recent]["epoch"], epochs[-1]["epoch"]),)
    if slope > STILL_FALLING:
        advice = "" if find_leak(history) else ": more epochs would lower it"
        return [*said, Remark(f"It was still falling by {_nats(slope)} an epoch{advice}.", name, end)]
    text = f"Over the last {recent} epochs it changed by less than {_nats(STILL_FALLING)} an epoch."
    return [*said, Remark(text, name, end)]


def _best_place(name: str, history: HistoryRecord, curve: str = "val_loss") -> Place:
    epoch = history["best"]["epoch"]
    return Place(name, curve, epoch, epoch)


def _tell_rise(rise: Rise) -> str:
    val, train = (f"from {_nats(before)} to {_nats(after)}" for before, after in (rise.val, rise.train))
    begin = f"From epoch {rise.best} to {rise.last} its validation loss rose {val}"
    if rise.kind == "divergence":
        return (
            f"{begin} and its training loss rose too, {train}: that is divergence, not overfitting. Its steps are too "
            "large; a lower or decaying learning rate, or clipped gradients would help."
        )
    return (
        f"{begin} while its training loss went {train}: that is overfitting. More text, more dropout or fewer epochs "
        "would help."
    )


def _tell_gap(name: str, history: HistoryRecord) -> list[Remark]:
    """Compare training and validation loss where the model is best."""
    best, run = best_epoch(history), history["run"]
    gap = best["val_loss"] - best["train_loss"]
    drops = any(isinstance(run.get(name), float) and run[name] > 0 for name in ("dropout", "embedding_dropout"))
    places = tuple(_best_place(name, history, curve) for curve in ("train_loss", "val_loss"))
    if _has_learnt_written_text(history):
        text = "Its training loss is also that of text that teachers wrote, so it does not show what is memorised."
        return [Remark(text, name, places)]
    if find_gap(history) is not None:
        measured = ", though measured with dropout on," if drops else ""
        text = f"Its training loss{measured} is {_nats(gap)} lower: that much is memorised training text."
        return [Remark(text, name, places)]
    if gap < -LEAST_FLUCTUATION and drops:
        return [Remark(f"Its training loss is {_nats(-gap)} higher, for it is measured with dropout on.", name, places)]
    return []


def _tell_leak(name: str, history: HistoryRecord) -> list[Remark]:
    leak = find_leak(history)
    if leak is None:
        if history["run"].get("protocol") != "windows":
            return []
        text = (
            "Its validation windows overlap those that trained it, so its validation loss leaks: it measures "
            "memorisation, and no loss on unseen text was recorded."
        )
        return [Remark(text, name, (_best_place(name, history),))]
    text = (
        f"Its validation loss leaks: {_nats(leak[0])}, against {_nats(leak[1])} on text that it has not "
        "seen. It measures memorisation."
    )
    said = [Remark(text, name, tuple(_best_place(name, history, curve) for curve in ("val_loss", "unseen_loss")))]
    unseen = [
        (epoch["epoch"], epoch["unseen_loss"]) for epoch in history["epochs"] if epoch.get("unseen_loss") is not None
    ]
    (first, before), (last, after) = unseen[0], unseen[-1]
    if after is not None and before is not None and after - before > LEAST_FLUCTUATION:
        text = (
            f"On unseen text it got worse as it trained, from {_nats(before)} after epoch {first} to "
            f"{_nats(after)} after epoch {last}: overfitting that the validation loss does not show."
        )
        said.append(Remark(text, name, (Place(name, "unseen_loss", first, last),)))
    return said


def _compare(records: JoinedRecords) -> list[Remark]:
    """Rank the models, within groups whose losses can be compared."""
    groups: dict[tuple[str, ...], list[tuple[str, JoinedHistory]]] = {}
    for name, history in records:
        groups.setdefault(measured_by(history["run"]), []).append((name, history))
    said = [_tell_apart(one, other) for one, other in pairwise(groups.items())]
    for group in groups.values():
        ranked = sorted(group, key=lambda each: each[1]["best"]["val_loss"])
        said += [_tell_difference(better, worse) for better, worse in pairwise(ranked)]
        said += _tell_head_start(ranked[0], ranked[-1]) + _tell_other_order(ranked)
    return said


def _tell_apart(one: tuple[tuple[str, ...], JoinedRecords], other: tuple[tuple[str, ...], JoinedRecords]) -> Remark:
    """Say why the losses of two groups of models cannot be compared. Of each: how they were measured, the models."""
    reasons = zip(("texts", "protocols", "splits of the text"), one[0], other[0], strict=True)
    differing = [reason for reason, ours, theirs in reasons if ours != theirs]
    sides = " and ".join(", ".join(_short(name) for name, _ in group) for _, group in (one, other))
    return Remark(f"The losses of {sides} cannot be compared: they come from different {' and '.join(differing)}.")


def _tell_other_order(ranked: JoinedRecords) -> list[Remark]:
    """Say if unseen text ranks the models differently from a validation loss that leaks."""
    known = [(best_epoch(history).get("unseen_loss"), name) for name, history in ranked if find_leak(history)]
    unseen = sorted((loss, name) for loss, name in known if loss is not None)
    if len(unseen) < 2 or unseen[0][1] == ranked[0][0]:
        return []
    (low, first), (high, last) = unseen[0], unseen[-1]
    text = (
        f"On unseen text the order differs: {_short(first)} is best there, {_nats(low)} nats against {_nats(high)} of "
        f"{_short(last)}. The validation loss ranks them by memorisation."
    )
    return [Remark(text, places=tuple(_best_place(*each, "unseen_loss") for each in ranked))]


def _tell_difference(better: tuple[str, HistoryRecord], worse: tuple[str, HistoryRecord]) -> Remark:
    (name, history), (other, others) = better, worse
    first, second, places = _short(name), _short(other), (_best_place(*better), _best_place(*worse))
    low, high = history["best"]["val_loss"], others["best"]["val_loss"]
    difference = high - low
    if difference < SEED_SPREAD:
        losses = f"{_nats(low)} and {_nats(high)}"
        text = f"{first} and {second} are level, {losses}: other seeds alone can differ by that much."
        return Remark(text, places=places)
    share = 100 * (1 - 1 / perplexity(difference))
    sizes = _tell_sizes(history, others)
    text = (
        f"{first} is better than {second}, {_nats(low)} nats per character against {_nats(high)}: "
        f"{_nats(bits_per_char(difference))} bits less, a perplexity lower by {share:.1f} %{sizes}."
    )
    return Remark(text, places=places)


def _tell_sizes(history: HistoryRecord, others: HistoryRecord) -> str:
    ours, theirs = history["run"].get("parameters"), others["run"].get("parameters")
    if type(ours) is not int or type(theirs) is not int or not 0 < min(ours, theirs) <= max(ours, theirs) < 10**12:
        return ""
    if ours == theirs:
        return ", with as many parameters"
    ratio = ours / theirs
    times = f"{ratio:.1f}" if ratio >= 0.1 else f"{ratio:.1g}"
    return ", with about as many parameters" if times == "1.0" else f", with {times} times the parameters"


def _tell_head_start(best: tuple[str, HistoryRecord], worst: tuple[str, HistoryRecord]) -> list[Remark]:
    """Say at which epoch the best model reached the worst one's best loss."""
    (name, history), (other, others) = best, worst
    goal = others["best"]["val_loss"]
    # below it, since an earlier run may be that of the worst one itself
    reached = next((epoch for epoch in history["epochs"] if epoch["val_loss"] < goal), None)
    if (
        reached is None
        or goal - history["best"]["val_loss"] < SEED_SPREAD
        or reached["epoch"] == history["best"]["epoch"]
    ):
        return []
    epoch, last = reached["epoch"], history["epochs"][-1]["epoch"]
    text = f"{_short(name)} was below the best of {_short(other)} after epoch {epoch} of {last}."
    return [Remark(text, places=(Place(name, "val_loss", epoch, epoch), _best_place(*worst)))]


def _nats(loss: float) -> str:
    return f"{loss:.4f}" if abs(loss) < 1e4 else f"{loss:.2e}"


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_SHOWN_NAME else name[: LONGEST_SHOWN_NAME - 1] + "…"
