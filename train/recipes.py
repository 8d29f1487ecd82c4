"""Recipes: the settings that suit how often the text is read, between those of short and of long trainings."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from charlm.model.cells import CELLS

# The best of what was tried on tinyshakespeare: for up to FEW passes over the text, and for MANY. docs/log.md has the
# losses. In between, each setting is interpolated in the logarithm of the number of passes.
FEW, MANY = 3.0, 12.0


@dataclass(frozen=True)
class TrainingRecipe:
    """Settings of a run that follow from how often the text is read; `train.config` explains them."""

    lr: float
    weight_decay: float
    dropout: float
    embedding_dropout: float
    batch_size: int
    seq_length: int


def _long(cell: str) -> TrainingRecipe:
    recipe = CELLS[cell].recipe
    return TrainingRecipe(recipe.lr, recipe.weight_decay, recipe.dropout, recipe.embedding_dropout, 64, 128)


SHORT = {
    "rnn": TrainingRecipe(0.005, 0.1, 0.05, 0.0, 32, 64),
    "lstm": TrainingRecipe(0.01, 0.1, 0.05, 0.0, 32, 64),
    "gru": TrainingRecipe(0.008, 0.1, 0.05, 0.0, 32, 64),
}
LONG = {cell: _long(cell) for cell in CELLS}


def training_recipe(cell: str, passes: float) -> TrainingRecipe:
    """Return the settings for reading the training text so many times: SHORT up to FEW, LONG from MANY on.

    Few passes leave few updates and memorise nothing: a high learning rate in small batches learns more, and dropout
    costs more than it saves.
    """
    short, long = SHORT[cell], LONG[cell]
    share = math.log(min(max(passes, FEW), MANY) / FEW) / math.log(MANY / FEW)

    def between(few: float, many: float) -> float:
        return round((1 - share) * few + share * many, 3)

    return TrainingRecipe(
        lr=float(f"{short.lr ** (1 - share) * long.lr**share:.2g}"),
        weight_decay=between(short.weight_decay, long.weight_decay),
        dropout=between(short.dropout, long.dropout),
        embedding_dropout=between(short.embedding_dropout, long.embedding_dropout),
        # one of two, since a step of twice the size is computed better than one of 1.4 times
        batch_size=short.batch_size if share < 0.5 else long.batch_size,
        seq_length=short.seq_length if share < 0.5 else long.seq_length,
    )


@dataclass(frozen=True)
class Size:
    """The size of a model."""

    num_layers: int
    hidden_size: int
    embedding_size: int


# What `fit --minutes` chooses from, from the cheapest to the dearest. One layer learns faster than two of as many
# parameters; a small embedding costs it nothing.
SIZES = (
    Size(1, 128, 64),
    Size(1, 256, 128),
    Size(1, 384, 128),
    Size(1, 512, 128),
    Size(2, 384, 256),
    Size(2, 512, 512),
)
LARGE, SMALLER = 4_260_000, 0.5  # parameters of 2×512, and the power by which fewer of them count
# The loss of a model by its parameters and the characters that it has read, which count less in a deeper model:
# FLOOR + (PARAMETERS / parameters) ** PARAMETERS_POWER + (CHARS × DEEPER ** (layers - 1) / characters) ** CHARS_POWER
# The numbers are such that the runs in docs/training.md come out within 0.01. Only differences matter here.
FLOOR = 1.26
PARAMETERS, PARAMETERS_POWER = 1250.0, 0.35
CHARS, CHARS_POWER, DEEPER = 108_000.0, 0.6, 1.45
# To read the text once more is worth less each time (Muennighoff et al., "Scaling Data-Constrained Language Models",
# 2023): however often it is read, no more is learnt than from so many texts of its length.
MOST_WORTH = 15.0
# Passes of 2×512 in the longest run that `fit --minutes` plans, as many as in the longest run of an LSTM in
# docs/log.md: on a long text its last epoch was the best, on short ones that after a third of them.
MOST_PASSES = 28.0
# Pairs of (training characters, hidden size): a larger model learns a shorter text by heart; docs/log.md has losses.
SUITABLE = ((10_000, 128), (50_000, 256))


def suitable_hidden_size(train_chars: int) -> int | None:
    """Return the largest hidden size that is worth its time if so many characters train; None if there is no limit."""
    return next((size for chars, size in SUITABLE if train_chars < chars), None)


def sizes(train_chars: int) -> list[Size]:
    """Return what suits a text of which so many characters train."""
    most = suitable_hidden_size(train_chars)
    return [size for size in SIZES if most is None or size.hidden_size <= most]


def effective_passes(passes: float, parameters: int) -> float:
    """Return how many passes over a text by a 2×512 model memorise as much of it as so many by this one.

    A smaller model memorises less in each.
    """
    return passes * math.pow(min(1.0, parameters / LARGE), SMALLER)


def most_chars(parameters: int, train_chars: int) -> float:
    """Return the most characters that a plan lets a model read from a text of `train_chars`, however often."""
    return train_chars * MOST_PASSES / effective_passes(1.0, parameters)


def predicted_loss(num_layers: int, parameters: int, chars: float, train_chars: int) -> float:
    """Return the expected validation loss of a model that has read `chars` characters from a text of `train_chars`."""
    again = max(chars / train_chars - 1, 0.0)
    worth = chars if again == 0 else train_chars * (1 + MOST_WORTH * (1 - math.exp(-again / MOST_WORTH)))
    needed = CHARS * math.pow(DEEPER, num_layers - 1)
    return FLOOR + math.pow(PARAMETERS / parameters, PARAMETERS_POWER) + math.pow(needed / worth, CHARS_POWER)


def choose_size(chars: Mapping[Size, float], parameters: Mapping[Size, int], train_chars: int) -> Size:
    """Return the size with the lowest predicted loss.

    chars: how many characters each reads in the time that there is. parameters: that each has.
    """
    return min(chars, key=lambda size: predicted_loss(size.num_layers, parameters[size], chars[size], train_chars))
