"""history.json: the record of a training run, and the picture of its curves."""

import io
import json
import math
import re
import sys
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, chain
from reprlib import repr as short_repr
from typing import Any, NotRequired, TypedDict

from charlm.errors import ModelFileError
from charlm.installation import optional_packages
from charlm.model.config import (
    FORMAT_VERSION,
    LARGEST_JSON,
    LONE_SURROGATE,
    check_format_version,
    is_number,
    parse_json_object,
    values_by_nesting,
)

HISTORY_FILE = "history.json"
MOST_RECORDED_EPOCHS = 5_000  # each has 9 strings and 9 other values, and MOST_VALUES leaves room for 6,600
LARGEST_EPOCH = 400  # bytes of one epoch in history.json, without the sample
LARGEST_SYMBOL = 6  # bytes of one symbol in a sample: JSON escapes a control character as six characters
LARGEST_RUN = 64 * 1024  # bytes of `run`; a path takes up to 4 KB
LARGEST_RUN_NAME = 1_300  # bytes of an earlier run without its epochs
MOST_EARLIER_RUNS, LONGEST_RUN_NAME = 50, 200  # the second in characters
LONGEST_TITLE = 70  # characters
LARGEST_DRAWN = 10**9  # larger numbers are drawn as this one: their labels do not fit, and matplotlib overflows
SHA256 = re.compile("[0-9a-fA-F]{64}")
PARTS = ("train", "val", "test")  # of a text; few records have the last
FURTHER_LOSSES = ("val_loss_reset256", "test_loss", "also_text_loss")  # of the best epoch, which not every record has
RECORDED = ("epoch", "train_loss", "val_loss", "unseen_loss", "learning_rate", "seconds", "chars_per_second", "sample")
Point = tuple[float, float]  # of a curve: the number of an epoch and a loss
Points = tuple[Point, ...]
CURVES = {"train_loss": "training", "val_loss": "validation", "unseen_loss": "unseen text"}


class EpochRecord(TypedDict):
    """One pass over the training text. Losses are means in nats per character."""

    epoch: int
    train_loss: float
    val_loss: float
    unseen_loss: float | None
    learning_rate: float
    seconds: float
    chars_per_second: float
    sample: str
    weights_sha256: NotRequired[str]  # of the weights of this epoch, if they were kept: see charlm.model.kept


class BestRecord(TypedDict):
    """The epoch whose weights model.safetensors holds."""

    epoch: int
    val_loss: float
    val_loss_reset256: NotRequired[float]
    test_loss: NotRequired[float]
    also_text_loss: NotRequired[float]


class EarlierRun(TypedDict):
    """A run up to its best epoch, with whose weights the next run began. name: of its model."""

    name: str
    epochs: list[EpochRecord]


class HistoryRecord(TypedDict):
    """The content of history.json.

    run: what was trained, on what, and every setting. epochs: of that run. earlier_runs: those whose weights it
    continues, the oldest first, if their losses were measured on the same text, split alike.
    """

    format_version: int
    run: dict[str, Any]
    epochs: list[EpochRecord]
    best: BestRecord
    earlier_runs: NotRequired[list[EarlierRun]]


class JoinedHistory(HistoryRecord):
    """A record whose epochs are those of all runs. run_starts: the first epoch of each run but the first."""

    run_starts: list[int]


def make_history(
    run: dict[str, Any], epochs: list[EpochRecord], earlier_runs: Sequence[EarlierRun] = ()
) -> HistoryRecord:
    """Return the record of a run; its best epoch is the first with the lowest validation loss."""
    best = min(epochs, key=lambda epoch: epoch["val_loss"])
    history: HistoryRecord = {
        "format_version": FORMAT_VERSION,
        "run": run,
        "epochs": epochs,
        "best": {"epoch": best["epoch"], "val_loss": best["val_loss"]},
    }
    return {**history, "earlier_runs": list(earlier_runs)} if earlier_runs else history


def runs_until_best(history: HistoryRecord, name: str) -> list[EarlierRun]:
    """Return the `earlier_runs` of a run that begins with the model of this record. name: what to call that model.

    The record may be a stranger's, so only the fields that charlm writes are copied: others might make the new record
    too large to read. `weights_sha256` is left out, since the new folder does not have those weights.
    """
    last: EarlierRun = {"name": name, "epochs": history["epochs"][: history["best"]["epoch"]]}
    return [_copied(run) for run in [*history.get("earlier_runs", []), last]]


def _copied(run: EarlierRun) -> EarlierRun:
    epochs = [{name: epoch[name] for name in RECORDED if name in epoch} for epoch in run["epochs"]]  # type: ignore[literal-required]
    return {"name": run["name"][:LONGEST_RUN_NAME], "epochs": epochs}  # type: ignore[typeddict-item]


def earlier_epochs(history: HistoryRecord) -> int:
    """Return how many epochs the earlier runs of a record have, which `join_runs` adds to the numbers of its own."""
    return sum(len(each["epochs"]) for each in history.get("earlier_runs", []))


def join_runs(history: HistoryRecord) -> JoinedHistory:
    """Return a record as if it and its earlier runs had been one run, with epochs numbered consecutively.

    The settings in `run` are those of the last of these runs. Of them, only `lr_edits` has the new numbers.
    """
    earlier, before = history.get("earlier_runs", []), earlier_epochs(history)
    epochs = [*chain.from_iterable(each["epochs"] for each in earlier), *history["epochs"]]
    run, best = history["run"], history["best"]
    if "lr_edits" in run:
        run = run | {"lr_edits": [edit | {"epoch": edit["epoch"] + before} for edit in run["lr_edits"]]}
    return {
        "format_version": history["format_version"],
        "run": run,
        "epochs": [{**epoch, "epoch": number} for number, epoch in enumerate(epochs, 1)],
        "best": {**best, "epoch": best["epoch"] + before},
        "run_starts": [done + 1 for done in accumulate(len(each["epochs"]) for each in earlier)],
    }


def measured_by(run: dict[str, Any]) -> tuple[str, ...]:
    """Return what two runs must have in common for their losses to be compared: text with folding, protocol, split."""
    text = run.get("text_sha256", run.get("text")), run.get("lowercase"), run.get("min_count")
    split = run.get("split")
    if isinstance(split, dict):  # shares that are written otherwise may give the same parts
        split = sorted((name, size) for name, size in split.items() if name != "shares")
    return str(text), str(run.get("protocol")), str(split)


def lost_in_last_run(history: JoinedHistory) -> float | None:
    """Return the validation loss that the last run began with if it is lower than the best of that run; else None."""
    if not history["run_starts"]:
        return None
    before = history["epochs"][history["run_starts"][-1] - 2]["val_loss"]
    return before if before < history["best"]["val_loss"] else None


def best_epoch(history: HistoryRecord) -> EpochRecord:
    """Return the record of the epoch whose weights the model has."""
    return next(epoch for epoch in history["epochs"] if epoch["epoch"] == history["best"]["epoch"])


def losses_before(history: HistoryRecord) -> dict[str, float]:
    """Return the losses, by name, of the model that the training began with; none if it began with random weights."""
    before = history["run"].get("before")
    return {name: loss for name, loss in before.items() if is_number(loss)} if isinstance(before, dict) else {}


def longest_sample(epochs: int, earlier_runs: int = 0) -> int:
    """Return how many characters each sample of a record may have for `read_history` to accept it, whatever they are.

    epochs: of all runs of the record, up to MOST_RECORDED_EPOCHS. earlier_runs: how many, up to MOST_EARLIER_RUNS.
    """
    room = LARGEST_JSON - LARGEST_RUN - earlier_runs * LARGEST_RUN_NAME
    return (room // epochs - LARGEST_EPOCH) // LARGEST_SYMBOL


def write_history(history: HistoryRecord) -> str:
    """Return the text of history.json. Raises ModelFileError if `read_history` would refuse it."""
    text = json.dumps(history, ensure_ascii=False, indent=2) + "\n"
    if len(text.encode(errors="surrogatepass")) > LARGEST_JSON:  # indentation can make deeply nested values that large
        text = json.dumps(history, ensure_ascii=False, separators=(",", ":"))
    read_history(text)
    return text


def read_history(text: str) -> HistoryRecord:
    """Read history.json. Raises ModelFileError, naming the field, unless every field that charlm uses is valid."""
    values = parse_json_object(text, "history.json")
    check_format_version(values, "history.json")
    _check_run(values.get("run"))
    epochs = _check_epochs(values.get("epochs"), "epochs")
    runs = _check_earlier_runs(values.get("earlier_runs", []))
    total = len(epochs) + sum(len(run["epochs"]) for run in runs)
    if total > MOST_RECORDED_EPOCHS:
        raise ModelFileError(
            f"history.json: its runs have {total:,} epochs together; they may have up to {MOST_RECORDED_EPOCHS:,}"
        )
    best = values.get("best")
    if not isinstance(best, dict) or not is_number(best.get("val_loss")):
        raise ModelFileError("history.json: best must be an object with epoch and val_loss")
    for name in FURTHER_LOSSES:
        if not is_number(best.get(name, 0.0)):
            raise ModelFileError(f"history.json: best.{name} must be a number")
    best |= {name: float(best[name]) for name in ("val_loss", *FURTHER_LOSSES) if name in best}
    if type(best.get("epoch")) is not int or best["epoch"] not in [epoch["epoch"] for epoch in epochs]:
        raise ModelFileError(f"history.json: best.epoch {short_repr(best.get('epoch'))} is not among the epochs")
    for value in chain.from_iterable(values_by_nesting(values)):
        if isinstance(value, str) and LONE_SURROGATE.search(value):
            raise ModelFileError("history.json holds a lone surrogate, which is not a character")
        if isinstance(value, float) and not math.isfinite(value):
            # Python reads 1e999 as infinity, and would write it as Infinity, which is not JSON
            raise ModelFileError("history.json holds a number too large for a float")
    return values  # type: ignore[return-value]  # checked above, field by field


def _check_run(run: object) -> None:
    if not isinstance(run, dict):
        raise ModelFileError("history.json: run must be an object")
    if not isinstance(run.get("text", ""), str):
        raise ModelFileError("history.json: run.text must be a string")
    split = run.get("split", {})
    if not isinstance(split, dict) or not all(is_number(split.get(f"{part}_chars", 0)) for part in PARTS):
        raise ModelFileError("history.json: run.split must be an object with the numbers train_chars and val_chars")
    edits = run.get("lr_edits", [])
    if not isinstance(edits, list) or not all(_is_edit(edit) for edit in edits):
        raise ModelFileError("history.json: run.lr_edits must be a list of objects with the numbers epoch and lr")


def _is_edit(edit: object) -> bool:
    """Tell whether this is a learning rate that was asked for while a run went, with the epoch that it went through."""
    return isinstance(edit, dict) and is_number(edit.get("epoch")) and is_number(edit.get("lr"))


def _check_epochs(epochs: object, where: str) -> list[Any]:
    """Return the epochs of a run if they are valid. where: their list in history.json."""
    if not isinstance(epochs, list) or not 1 <= len(epochs) <= MOST_RECORDED_EPOCHS:
        raise ModelFileError(f"history.json: {where} must be a list of 1 to {MOST_RECORDED_EPOCHS:,} objects")
    for place, epoch in enumerate(epochs):
        _check_epoch(epoch, place, f"{where}[{place}]")
    return epochs


def _check_earlier_runs(runs: object) -> list[Any]:
    """Return the runs whose weights a run continues if they are valid."""
    if not isinstance(runs, list) or len(runs) > MOST_EARLIER_RUNS or not all(map(_has_run_name, runs)):
        raise ModelFileError(
            f"history.json: earlier_runs must be a list of up to {MOST_EARLIER_RUNS} objects with epochs and a name of "
            f"up to {LONGEST_RUN_NAME} characters"
        )
    for place, run in enumerate(runs):
        _check_epochs(run.get("epochs"), f"earlier_runs[{place}].epochs")
    return runs


def _has_run_name(run: object) -> bool:
    return isinstance(run, dict) and isinstance(run.get("name"), str) and len(run["name"]) <= LONGEST_RUN_NAME


def _check_epoch(epoch: object, place: int, where: str) -> None:
    if not isinstance(epoch, dict) or not isinstance(epoch.get("epoch"), int) or not is_number(epoch["epoch"]):
        raise ModelFileError(f"history.json: {where} must be an object with its number in `epoch`")
    if epoch["epoch"] != place + 1:
        number = short_repr(epoch["epoch"])
        raise ModelFileError(
            f"history.json: {where}.epoch is {number}; epochs are numbered 1, 2, 3 …: it must be {place + 1}"
        )
    for name in ("train_loss", "val_loss", "learning_rate", "seconds", "chars_per_second"):
        if not is_number(epoch.get(name)):
            raise ModelFileError(f"history.json: {where}.{name} is {short_repr(epoch.get(name))}; it must be a number")
        # JSON parsers of browsers round larger whole numbers, and the sum of two may be too large for a float
        epoch[name] = float(epoch[name])
    if epoch.get("unseen_loss") is not None:
        if not is_number(epoch["unseen_loss"]):
            raise ModelFileError(f"history.json: {where}.unseen_loss must be a number or null")
        epoch["unseen_loss"] = float(epoch["unseen_loss"])
    if not isinstance(epoch.get("sample"), str):
        raise ModelFileError(f"history.json: {where}.sample must be a string")
    sha256 = epoch.get("weights_sha256", "0" * 64)
    if not isinstance(sha256, str) or not SHA256.fullmatch(sha256):
        raise ModelFileError(f"history.json: {where}.weights_sha256 must be a string of 64 hexadecimal digits")


def bits_per_char(nats_per_char: float) -> float:
    """Convert a cross-entropy from nats to bits."""
    return nats_per_char / math.log(2)


def perplexity(nats_per_char: float) -> float:
    """Return e to the power of a cross-entropy, at most the largest float."""
    return math.exp(min(nats_per_char, math.log(sys.float_info.max)))


def draw_curves(history: HistoryRecord, title: str) -> bytes:
    """Return loss.png: the losses of a record by epoch, the best one marked, with those of its earlier runs.

    Raises MissingPackageError without matplotlib.
    """
    with optional_packages():  # here, because importing it takes half a second
        import matplotlib.figure  # noqa: F401
    joined = join_runs(history)
    curves = tuple((label, _points(joined, name)) for name, label in CURVES.items())
    best, last = joined["best"], joined["epochs"][-1]["epoch"]
    marked = _clipped(best["epoch"]), _clipped(best["val_loss"])
    label = "best" if lost_in_last_run(joined) is None else "best of the last run"
    return _draw(curves, marked, label, _clipped(last), tuple(joined["run_starts"]), title)


def _points(history: HistoryRecord, name: str) -> Points:
    losses = [(epoch["epoch"], epoch.get(name)) for epoch in history["epochs"]]
    return tuple((_clipped(number), _clipped(loss)) for number, loss in losses if loss is not None)  # type: ignore[arg-type]


@lru_cache(maxsize=8)  # the record of a run that has ended, of a model that is saved and then published, and so on
def _draw(
    curves: tuple[tuple[str, Points], ...],
    marked: Point,
    label: str,
    last: float,
    run_starts: tuple[int, ...],
    title: str,
) -> bytes:
    """Return the picture of `draw_curves`.

    curves: the label and the points of each. marked: the best epoch and its loss, with its label. last: the last epoch.
    run_starts: the first epoch of each run but the first.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4.2), dpi=120)
    # fixed margins: matplotlib's own layouts draw the figure once more, and a run draws it after each best epoch
    figure.subplots_adjust(left=0.13, right=0.98, bottom=0.12, top=0.92)
    axes = figure.subplots()
    for name, points in curves:
        if points:
            axes.plot(*zip(*points, strict=True), marker=".", label=name)
    for place, first in enumerate(run_starts):
        entry = None if place else "next run begins"  # of the legend
        axes.axvline(first - 0.5, color="grey", linestyle=":", linewidth=1, label=entry)
    best, best_loss = marked
    axes.plot(best, best_loss, "o", markersize=11, markerfacecolor="none", color="black")
    axes.annotate(
        f"{label}: {best_loss:.4f}, epoch {best}",
        (best, best_loss),
        xytext=(0, 14),
        textcoords="offset points",
        ha="right" if 2 * best > last else "left",  # so that the text lies towards the middle of the picture
    )
    if last == 1:  # matplotlib cannot scale the axes by a single point
        axes.set_xlim(last - 1, last + 1)
        axes.margins(y=0.25)
    axes.set(xlabel="epoch", ylabel="loss (nats per character)")
    axes.set_title(_drawable(title), parse_math=False)  # a $ in a text's name starts no formula
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.ticklabel_format(axis="y", scilimits=(-3, 4))  # labels that fit into the margin
    axes.grid(alpha=0.3)
    axes.legend()
    png = io.BytesIO()
    # without matplotlib's version, so that the same record gives the same bytes and a second push commits nothing
    figure.savefig(png, format="png", metadata={"Software": None})
    return png.getvalue()


def _clipped(number: float) -> float:
    return max(-LARGEST_DRAWN, min(number, LARGEST_DRAWN))


def _drawable(title: str) -> str:
    """Return a title cut to the picture's width, with □ for what its font cannot draw, for example Hangul."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    glyphs = get_font(findfont(FontProperties())).get_charmap()
    return "".join(symbol if ord(symbol) in glyphs else "□" for symbol in title[:LONGEST_TITLE])
