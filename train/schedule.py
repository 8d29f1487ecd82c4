"""The schedule of a run: how many steps each epoch has, what each step reads, how far the run is, and when it must end.

Usually an epoch is one pass over the training text. A run with a time limit has epochs of any number of steps, and the
number changes when the machine turns out to be slower or faster than expected.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

CHECKS_PER_EPOCH = 8  # of the time left
TOLERANCE = 0.02  # of the time limit: a run that will end nearer to it keeps its schedule
# To end a run takes about that many times what ending an epoch takes: the best model is measured again and saved.
LAST_ENDING = 1.0


@dataclass(frozen=True)
class _Stretch:
    """The steps of an epoch from `first` on, `count` of them, which fill what is left of it.

    done: the share of the epoch before `first`.
    """

    first: int
    done: float
    count: int

    def share(self, step: int) -> float:
        """Return which share of the epoch is done before a step of this stretch."""
        return self.done + (1 - self.done) * (step - self.first) / self.count


class Schedule:
    """The steps of a run. Epochs count from 1, and the steps of each from 0.

    changes: entries `{"epoch", "step", "epoch_steps"}`, in order: from that step on, the epoch goes on as if it had so
        many steps, of which the same share is done, and later epochs have so many. The list may grow during the run.
    """

    def __init__(
        self, steps_per_pass: int, epochs: int, epoch_steps: int | None = None, changes: Sequence[dict[str, Any]] = ()
    ) -> None:
        """steps_per_pass: that read the whole training text. epoch_steps: of an epoch, by default as many."""
        self._per_pass, self._epochs, self._changes = steps_per_pass, epochs, changes
        self._epoch_steps = epoch_steps or steps_per_pass

    def steps(self, epoch: int) -> int:
        """Return how many steps an epoch has."""
        last = self._stretches(epoch)[-1]
        return last.first + last.count

    def steps_done(self, epoch: int, step: int) -> int:
        """Return how many steps there are before a step."""
        return sum(map(self.steps, range(1, epoch))) + step

    def steps_left(self, epoch: int, step: int) -> int:
        """Return how many steps there are from a step on."""
        return self.steps(epoch) - step + self._pace(epoch) * (self._epochs - epoch)

    def reads(self, epoch: int, step: int) -> tuple[int, int]:
        """Return which pass over the text, from 1, and which step of that pass a step reads."""
        if not self._changes and self._epoch_steps == self._per_pass:
            return epoch, step
        before = self.steps_done(epoch, step)
        return before // self._per_pass + 1, before % self._per_pass

    def progress(self, epoch: int, step: int) -> tuple[float, int]:
        """Return what is done of the run before a step, and the whole, both in steps of the size that they have now."""
        stretches, total = self._stretches(epoch), self.steps(epoch)
        stretch = next(each for each in reversed(stretches) if each.first <= step)
        within = stretch.share(step) * total if len(stretches) > 1 else step  # exact where nothing has changed
        return (epoch - 1) * total + within, self._epochs * total

    def change(self, epoch: int, step: int, steps_left: float) -> dict[str, Any] | None:
        """Return the entry of `changes` by which there are about so many steps from a step on; None if there are."""
        share = 1 - self._stretches(epoch)[-1].share(step)  # of the epoch
        steps = max(round(steps_left / (share + self._epochs - epoch)), 1)
        return None if steps == self._pace(epoch) else {"epoch": epoch, "step": step, "epoch_steps": steps}

    def _pace(self, epoch: int) -> int:
        """Return how many steps an epoch has by what is known when this one ends."""
        paces = [change["epoch_steps"] for change in self._changes if change["epoch"] <= epoch]
        return paces[-1] if paces else self._epoch_steps

    def _stretches(self, epoch: int) -> list[_Stretch]:
        stretches = [_Stretch(0, 0.0, self._pace(epoch - 1))]
        for change in self._changes:
            if change["epoch"] == epoch:
                done = stretches[-1].share(change["step"])
                count = max(round((1 - done) * change["epoch_steps"]), 1)
                stretches.append(_Stretch(change["step"], done, count))
        return stretches


class TimeLimit:
    """The time that a run may take, from its start to its last file, and what is left of it.

    The time before a run was interrupted counts, that until it is resumed does not, nor does that of a pause.

    ending_seconds: how long measuring and saving after an epoch take: at first an estimate, later what they took after
        the epoch before.
    """

    def __init__(self, seconds: float, begun: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """begun: when the run began, by the clock; None for now."""
        self.seconds, self.ending_seconds = seconds, 0.0
        self._clock = clock
        self._begun = clock() if begun is None else begun
        self._ended_at: float | None = None  # the steps of an epoch
        self._epoch_begun: float | None = None
        self._step_seconds = 0.0  # until it is known

    def spent(self) -> float:
        """Return the seconds since the start."""
        return self._clock() - self._begun

    def begin_epoch(self) -> None:
        """Note that the steps of an epoch begin, or go on after a break."""
        now = self._clock()
        if self._ended_at is not None:
            self.ending_seconds = now - self._ended_at
            self._ended_at = self._epoch_begun = None
        if self._epoch_begun is None:
            self._epoch_begun = now

    def end_epoch(self) -> None:
        """Note that the steps of an epoch have ended, and that it is measured and saved now."""
        self._ended_at = self._clock()

    def skip(self, seconds: float) -> None:
        """Leave out the last seconds, for which the steps of an epoch were paused."""
        assert self._epoch_begun is not None
        self._begun += seconds
        self._epoch_begun += seconds

    def steps_left(self, step: int, epochs_left: int) -> float | None:
        """Return for how many steps there is time before a step of an epoch; None if it is unknown how long one takes.

        epochs_left: that have to be ended yet.
        """
        assert self._epoch_begun is not None
        if step > 0:
            self._step_seconds = (self._clock() - self._epoch_begun) / step
        if not self._step_seconds:
            return None
        left = self.seconds - self.spent() - (epochs_left + LAST_ENDING) * self.ending_seconds
        return max(left, 0.0) / self._step_seconds

    def is_off(self, steps: float, wanted: float) -> bool:
        """Tell whether so many steps in place of those that there is time for miss the limit."""
        return abs(steps - wanted) * self._step_seconds > TOLERANCE * self.seconds

    def state(self) -> dict[str, float | None]:
        """Return what `resume` needs."""
        now = self._clock()
        epoch = None if self._epoch_begun is None or self._ended_at is not None else now - self._epoch_begun
        return {"spent": self.spent(), "ending": self.ending_seconds, "step": self._step_seconds, "epoch": epoch}

    def resume(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned; the time since then does not count."""
        now = self._clock()
        self._begun = now - state["spent"]
        self.ending_seconds, self._step_seconds = state["ending"], state["step"]
        self._epoch_begun = None if state["epoch"] is None else now - state["epoch"]
