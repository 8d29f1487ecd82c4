"""Trainings that are interrupted or diverge, and what has to be the same as without the interruption."""

import math
from typing import Any

from train.report import Report
from train.trainer import Trainer

TIMES = ("seconds", "chars_per_second")
TRAIN_STEP = Trainer.train_step


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


def overflow(trainer: Trainer, stop: bool) -> bool:
    """In place of Trainer.train_step: with a loss that is no longer a number."""
    trainer.loss_sum += math.nan
    return TRAIN_STEP(trainer, stop)


def without_times(epochs: list[Any]) -> list[Any]:
    """Return the records of epochs without measured times."""
    return [{name: value for name, value in epoch.items() if name not in TIMES} for epoch in epochs]
