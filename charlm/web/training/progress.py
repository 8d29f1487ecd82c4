"""The progress of a training on the page: its state and its figures, from its events, and when it has to end."""

from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from charlm.model.history import CURVES, EpochRecord
from charlm.web.training.process import FitEvent
from charlm.web.training.result import Result

# For which a training may be paused, all its pauses together: while others wait for their turn, and in any case.
PAUSE_SECONDS_IF_OTHERS_WAIT, PAUSE_SECONDS = 120.0, 600.0


@dataclass
class Progress:
    """The state of a training.

    state: `waiting` in the queue, `running`, `paused`, `ended`, or `failed`.
    message: a line about it.
    can_pause: False on a borrowed GPU, which is lent for a fixed time.
    share: how much of the planned epochs is done.
    epochs: the records so far.
    points: of the curve of the training loss, each the number of epochs done, with a fraction, and the loss.
    rate: the learning rate: at first the highest of the schedule, then that of the last change or end of an epoch.
    rates: the learning rates that the visitor has asked for, each with the point of the curve from which it holds.
    before: the validation loss before the first step, if the training begins with a model.
    chosen: the end of each message: the size and the recipe that were chosen, if the training has a time.
    result: what it leaves, None until it has ended; its files exist until the stream is asked for its next value.
    """

    state: str
    message: str
    can_pause: bool = False
    share: float = 0.0
    epochs: list[EpochRecord] = field(default_factory=list)
    points: list[tuple[float, float]] = field(default_factory=list)
    rate: float | None = None
    rates: list[tuple[float, tuple[float, float]]] = field(default_factory=list)
    before: float | None = None
    chosen: str = ""
    result: Result | None = None
    _planned: int = 1
    _new_rates: list[float] = field(default_factory=list)  # asked for since the last point

    def take(self, event: FitEvent) -> None:
        """Update it with an event of the training, as train/report.py explains them."""
        match event["event"]:
            case "start":
                self._planned, self.rate = event["run"]["epochs"], event["run"]["lr"]
                self.before = event["run"].get("before", {}).get("val_loss")
                self.chosen = _describe_choice(event["run"]) if "minutes" in event["run"] else ""
            case "step":
                done = event["epoch"] - 1 + event["done"]
                self.points.append((done, event["loss"]))
                self.rates += [(rate, self.points[-1]) for rate in self._new_rates]
                self._new_rates = []
                self.state, self.share = "running", done / self._planned
                self.message = f"training: {self._figures}, {max(event['seconds_left'], 0):.0f} s left{self.chosen}"
            case "paused":
                self.state, self.message = "paused", f"paused: {self._figures}{self.chosen}"
            case "edit":
                self.rate = event["lr"]
                self._new_rates.append(event["lr"])
            case "epoch":
                self.rate = event["record"]["learning_rate"]
                self.epochs.append(event["record"])

    @property
    def _figures(self) -> str:
        return (
            f"{self.points[-1][0]:.1f} epochs, loss {self.points[-1][1]:.3f}"
            if self.points
            else "before its first step"
        )

    @property
    def curves(self) -> dict[str, Any]:
        """The losses as a chart: of the training within the epochs, of the validation before them and after each."""
        training = [list(point) for point in self.points]
        validation = [[epoch["epoch"], epoch["val_loss"]] for epoch in self.epochs]
        if self.before is not None:
            validation.insert(0, [0, self.before])
        return {
            "x": {"title": "epoch", "one": "epoch"},
            "y": {"title": "loss (nats per character)"},
            "series": [
                {"name": CURVES["train_loss"], "colour": 1, "points": training},
                {"name": CURVES["val_loss"], "colour": 0, "points": validation},
            ],
            "marks": [
                {
                    "name": f"learning rate {rate:g} from epoch {point[0]:.1f}",
                    "colour": 2,
                    "at": list(point),
                    "sign": "arrow",
                }
                for rate, point in self.rates
            ],
        }


def _describe_choice(run: dict[str, Any]) -> str:
    """Return what was chosen for the time of a run, as the end of a sentence. run: of history.json."""
    return (
        f"; chosen for {run['minutes']:g} min: {run['num_layers']} × {run['hidden_size']}, "
        f"learning rate {run['lr']:g}, dropout {run['dropout']:g}"
    )


class TimeLimits:
    """The minutes that a training may run, and those that it may be paused.

    Only the time that it runs counts against the former; all pauses together count against the latter.
    """

    def __init__(self, minutes: float) -> None:
        self._minutes = minutes
        self._last = monotonic()
        self._ran = self._paused = self._delayed_others = 0.0  # seconds

    @property
    def are_used_up(self) -> bool:
        """Whether the training has run for all its minutes."""
        return self._ran >= 60 * self._minutes

    def why_over(self, *, is_paused: bool, others_wait: bool) -> str:
        """Count the time since the last call for what the training did; return why it has to end, or nothing."""
        now = monotonic()
        passed, self._last = now - self._last, now
        self._ran += 0 if is_paused else passed
        self._paused += passed if is_paused else 0
        self._delayed_others += passed if is_paused and others_wait else 0
        if self.are_used_up:
            return f"the {self._minutes:g} minutes are over"
        if self._delayed_others >= PAUSE_SECONDS_IF_OTHERS_WAIT:
            return f"paused for {PAUSE_SECONDS_IF_OTHERS_WAIT / 60:g} minutes while others waited"
        return f"paused for {PAUSE_SECONDS / 60:g} minutes" if self._paused >= PAUSE_SECONDS else ""
