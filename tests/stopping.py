"""Trainings that are interrupted, and what has to be the same as without the interruption."""

from typing import Any

from train.report import Report

TIMES = ("seconds", "chars_per_second")


class StopAt(Report):
    """Raise KeyboardInterrupt in call number `steps` of `step`, or after the report of epoch number `epochs`."""

    def __init__(self, steps: int | None = None, epochs: int | None = None) -> None:
        super().__init__()
        self.steps, self.epochs = steps, epochs

    def step(self, chars: int, loss: float, run_seconds_left: float) -> None:
        super().step(chars, loss, run_seconds_left)
        if self.steps is not None:
            self.steps -= 1
            if self.steps == 0:
                raise KeyboardInterrupt

    def epoch(self, record: Any, epochs: int, is_best: bool) -> None:
        super().epoch(record, epochs, is_best)
        if record["epoch"] == self.epochs:
            raise KeyboardInterrupt


def without_times(epochs: list[Any]) -> list[Any]:
    """Return the records of epochs without measured times."""
    return [{name: value for name, value in epoch.items() if name not in TIMES} for epoch in epochs]
