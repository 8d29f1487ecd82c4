"""A run that ends after a given time: its size and its settings are chosen by how fast this machine trains."""

import statistics
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

from charlm.errors import RequestError
from charlm.messages import counted

from .config import TrainConfig, suitable_batch_size
from .distributed import SINGLE_PROCESS
from .protocols import Protocol
from .recipes import LONG, MOST_PARAMETERS_PER_CHAR, Size, choose_size, most_chars, sizes
from .report import Report, format_time
from .schedule import LAST_ENDING, TimeLimit
from .teachers import TaughtTargets
from .trainer import Trainer, seeded

MEASURED_STEPS = 3  # of each size, after a first one, which takes longer
MEASURING_SHARE = 0.03  # of the time that is left: then larger sizes are no longer tried
# Of the time that is left, what the ends of epochs may take, in which the model is measured and saved.
ENDING_SHARE = 0.08
MOST_MEASURED = 24  # epochs
# To end an epoch: seconds, and what validating a character takes of what training with one does.
ENDING_SECONDS, VALIDATION_COST = 0.5, 0.6

PLANNED_SETTINGS = ("epochs", "num_layers", "hidden_size", "embedding_size", *asdict(LONG["lstm"]))


@dataclass(frozen=True)
class Budget:
    """The time for a run. given: the settings that the user gave, which are kept."""

    minutes: float
    limit: TimeLimit
    given: frozenset[str] = frozenset()

    def keep(self, config: TrainConfig, run: dict[str, Any]) -> TrainConfig:
        """Return the settings with what was chosen for a run that is resumed. run: of its history.json."""
        return replace(
            config, **{name: run[name] for name in PLANNED_SETTINGS if name not in self.given and name in run}
        )


def check_protocol(config: TrainConfig) -> None:
    """Raise RequestError unless the protocol is holdout: the other repeats an experiment whose size is fixed."""
    if config.protocol != "holdout":
        raise RequestError(f"--minutes is for the protocol holdout; with {config.protocol}, give --epochs")


def plan(
    budget: Budget, config: TrainConfig, protocol: Protocol, report: Report, taught: TaughtTargets | None = None
) -> tuple[TrainConfig, int]:
    """Return the settings for the time that is left, and how many steps an epoch has; say what was chosen, and why.

    taught: what the steps learn, if there are teachers.
    """
    train_chars, val_chars = protocol.split["train_chars"], protocol.split["val_chars"]
    limit = budget.limit
    begun = limit.spent()
    seconds_left = limit.seconds - begun

    # 1) which size learns most in this time, from the smallest on
    chars, parameters = dict[Size, float](), dict[Size, int]()
    for size in _candidates(budget, config, train_chars):
        sized = replace(config, **asdict(size))
        parameters[size] = sized.model(protocol.vocab).parameters
        if chars and parameters[size] > MOST_PARAMETERS_PER_CHAR * train_chars:
            continue
        resolved = _with_recipe(budget, sized, protocol, 1.0).resolve(protocol)
        steps = (limit.seconds - limit.spent()) / step_seconds(resolved, protocol, taught)
        chars[size] = max(steps, 1.0) * _step_chars(resolved)
        if limit.spent() - begun > MEASURING_SHARE * seconds_left:
            break
    size = choose_size(chars, parameters, train_chars)
    most = most_chars(size.hidden_size, train_chars)

    # 2) the recipe for so many passes over the text, and how long its steps take
    config = _with_recipe(budget, replace(config, **asdict(size)), protocol, min(chars[size], most))
    resolved = config.resolve(protocol)
    seconds = step_seconds(resolved, protocol, taught)

    # 3) the steps for which there is time, in epochs between which the model is measured
    ending = ENDING_SECONDS + VALIDATION_COST * val_chars * seconds / _step_chars(resolved)
    epochs = min(max(int(ENDING_SHARE * seconds_left / ending), 1), MOST_MEASURED)
    limit.ending_seconds = ending
    left = limit.seconds - limit.spent() - (epochs + LAST_ENDING) * ending
    most_steps = most / _step_chars(resolved)
    epoch_steps = max(int(min(left / seconds, most_steps) / epochs), 1)
    config = replace(config, epochs=epochs)
    resolved = replace(resolved, epochs=epochs)
    ends_early = left / seconds > most_steps
    report.say(_describe(resolved, epoch_steps, seconds, train_chars, list(chars), ends_early=ends_early))
    return config, epoch_steps


def _candidates(budget: Budget, config: TrainConfig, train_chars: int) -> list[Size]:
    """Return the sizes to choose from, each with what the user gave, in their order."""
    given = {name: getattr(config, name) for name in asdict(sizes(train_chars)[0]) if name in budget.given}
    return list(dict.fromkeys(replace(size, **given) for size in sizes(train_chars)))


def _with_recipe(budget: Budget, config: TrainConfig, protocol: Protocol, chars: float) -> TrainConfig:
    """Return the settings with the recipe for reading `chars` characters, as far as the user gave no others."""
    recipe = asdict(config.recipe(protocol.vocab, chars, protocol.split["train_chars"]))
    config = replace(config, **{name: value for name, value in recipe.items() if name not in budget.given})
    if "batch_size" in budget.given:
        return config
    assert config.batch_size is not None and config.seq_length is not None
    return replace(
        config, batch_size=suitable_batch_size(config.batch_size, protocol.max_batch_size(config.seq_length))
    )


def _step_chars(config: TrainConfig) -> int:
    assert config.batch_size is not None and config.seq_length is not None
    return config.batch_size * config.seq_length


def step_seconds(config: TrainConfig, protocol: Protocol, taught: TaughtTargets | None = None) -> float:
    """Return how long a training step with these settings takes here: the median of MEASURED_STEPS.

    config: with every choice made. taught: what the step learns, if there are teachers. The random numbers of the run
    are not touched.
    """
    with seeded(config.seed, config.device):
        trainer = Trainer(config, protocol, {}, Report(), SINGLE_PROCESS, taught=taught)
        clock = TimeLimit(0.0)
        ends = [clock.spent()]
        for _ in range(1 + MEASURED_STEPS):
            trainer.train_step()
            trainer.step %= trainer.batches.steps_per_epoch
            float(trainer.loss_sum)  # on a GPU, waits for the step
            ends.append(clock.spent())
    return statistics.median(end - begin for begin, end in pairwise(ends[1:]))


def _describe(
    config: TrainConfig, epoch_steps: int, seconds: float, train_chars: int, tried: list[Size], *, ends_early: bool
) -> str:
    """Return the line that says what was chosen, and why."""
    total = config.epochs * epoch_steps * _step_chars(config)
    sizes = ", ".join(f"{size.num_layers}×{size.hidden_size}" for size in tried)
    why = f", of which the lowest loss is expected among {sizes} at their speeds here" if len(tried) > 1 else ""
    early = ", and ends then, since reading it more often would hardly help" if ends_early else ""
    return (
        f"chosen: {config.num_layers}×{config.hidden_size}{why}; in "
        f"{format_time(total / _step_chars(config) * seconds)} it reads {total:,} characters, the text "
        f"{_times(total / train_chars)}, in {counted(config.epochs, 'epoch')}{early}; learning rate {config.lr:g}, "
        f"dropout {config.dropout:g}, weight decay {config.weight_decay:g}, "
        f"batches of {config.batch_size} × {config.seq_length}"
    )


def _times(passes: float) -> str:
    """Return how often a text is read: `1.5 times`, `126 times`."""
    return f"{passes:.0f} times" if passes >= 10 else f"{passes:.2g} times"
