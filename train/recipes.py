"""Recipes: the settings and the size that suit a text, by its length and by how often it is read."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from charlm.model.cells import CELLS

# The best of what was tried on tinyshakespeare with 2×512 units: for up to FEW_PASSES over the text, and from
# MANY_PASSES on. docs/log.md has the losses. In between, each setting is interpolated in the logarithm of the number of
# passes.
FEW_PASSES, MANY_PASSES = 3.0, 12.0


@dataclass(frozen=True)
class TrainingRecipe:
    """Settings of a run that follow from how often the text is read; `train.config` explains them."""

    lr: float
    weight_decay: float
    dropout: float
    embedding_dropout: float
    # 64 streams of 128 characters end 0.015 to 0.03 higher, after few passes and after many
    batch_size: int = 32
    seq_length: int = 64


def _long(cell: str) -> TrainingRecipe:
    recipe = CELLS[cell].recipe
    return TrainingRecipe(recipe.lr, recipe.weight_decay, recipe.dropout, recipe.embedding_dropout)


SHORT = {
    "rnn": TrainingRecipe(0.003, 0.1, 0.05, 0.0),
    "lstm": TrainingRecipe(0.01, 0.1, 0.05, 0.0),
    "gru": TrainingRecipe(0.005, 0.1, 0.05, 0.0),
}
LONG = {cell: _long(cell) for cell in CELLS}
# Of windows, since an experiment is repeated as it was, and of runs that begin with a model.
LARGE_BATCHES = {cell: replace(recipe, batch_size=64, seq_length=128) for cell, recipe in LONG.items()}


def training_recipe(cell: str, passes: float, memorised: float | None = None) -> TrainingRecipe:
    """Return the settings for so many passes over the training text: SHORT up to FEW_PASSES, LONG from MANY_PASSES on.

    Few passes leave few updates: a high learning rate learns more. And they memorise nothing: dropout costs more than
    it saves.

    memorised: the number of passes by which dropout is chosen; by default `passes`.
    """
    short, long = SHORT[cell], LONG[cell]
    share, dropped = _share_of_long(passes), _share_of_long(passes if memorised is None else memorised)
    return TrainingRecipe(
        lr=float(f"{short.lr ** (1 - share) * long.lr**share:.2g}"),
        weight_decay=_between(short.weight_decay, long.weight_decay, share),
        dropout=_between(short.dropout, long.dropout, dropped),
        embedding_dropout=_between(short.embedding_dropout, long.embedding_dropout, dropped),
    )


def _share_of_long(passes: float) -> float:
    return math.log(min(max(passes, FEW_PASSES), MANY_PASSES) / FEW_PASSES) / math.log(MANY_PASSES / FEW_PASSES)


def _between(few: float, many: float, share: float) -> float:
    return round((1 - share) * few + share * many, 3)


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
# A pass of a smaller model teaches it less, and it memorises less: it counts as
# (parameters / REFERENCE_PARAMETERS) ** SIZE_EXPONENT passes of an LSTM of 2×512. With this exponent, 12 and 20 passes
# of 1×512 over tinyshakespeare have about the best settings that docs/log.md compares. The parameters are those of an
# LSTM of the same size, since in the runs an RNN memorised as much as that, with a quarter of the parameters.
REFERENCE_PARAMETERS, SIZE_EXPONENT = 4_260_000, 0.9
# A pass over a shorter text memorises more of it and makes fewer updates, both by
# (REFERENCE_CHARS / length) ** LENGTH_EXPONENT. So passes, dropout and learning rate are about those of the best runs
# with 18,000 and 90,000 characters in docs/log.md.
REFERENCE_CHARS, LENGTH_EXPONENT = 1_000_000, 0.4
# The loss of a model by its parameters and the characters that it has read, which count less in a deeper model:
# FLOOR + (PARAMETERS / parameters) ** PARAMETERS_EXPONENT
#       + (CHARS × CHARS_FACTOR_PER_LAYER ** (layers - 1) / characters) ** CHARS_EXPONENT
# The numbers are such that the runs in docs/training.md come out within 0.01. Only differences matter here.
FLOOR = 1.26
PARAMETERS, PARAMETERS_EXPONENT = 1250.0, 0.35
CHARS, CHARS_EXPONENT, CHARS_FACTOR_PER_LAYER = 108_000.0, 0.6, 1.45
# To read the text once more is worth less each time (Muennighoff et al., "Scaling Data-Constrained Language Models",
# 2023): however often it is read, no more is learnt than from so many texts of its length.
MOST_WORTH = 15.0
# How often a model with layers of REFERENCE_HIDDEN_SIZE, of any cell and depth, reads REFERENCE_CHARS at most. With
# larger layers or a shorter text there are fewer passes: about as many as in the best runs of docs/log.md with 900 to
# 90,000 characters.
MOST_PASSES, REFERENCE_HIDDEN_SIZE = 45.0, 512
# Parameters of a model for each character that trains. Larger ones do no better: of 90,000 characters, LSTMs with 1.4,
# 2.2 and 4.3 million parameters learn as much, the last one in three times the time.
MOST_PARAMETERS_PER_CHAR = 24
# Pairs of (training characters, hidden size): a larger model learns a shorter text by heart; docs/log.md has losses.
LARGEST_HIDDEN_SIZES = ((10_000, 128), (50_000, 256))


def suitable_hidden_size(train_chars: int) -> int | None:
    """Return the largest hidden size that is worth its time if so many characters train; None if there is no limit."""
    return next((size for chars, size in LARGEST_HIDDEN_SIZES if train_chars < chars), None)


def sizes(train_chars: int) -> list[Size]:
    """Return what suits a text of which so many characters train."""
    most = suitable_hidden_size(train_chars)
    return [size for size in SIZES if most is None or size.hidden_size <= most]


def most_chars(hidden_size: int, train_chars: int) -> float:
    """Return how many characters a model reads at most from a text of `train_chars`: more of them would hardly help."""
    return train_chars * MOST_PASSES * (REFERENCE_HIDDEN_SIZE / hidden_size) / _shortness(train_chars)


def recipe_for_text(cell: str, lstm_parameters: int, chars: float, train_chars: int) -> TrainingRecipe:
    """Return the settings for reading `chars` characters from a text of `train_chars`.

    lstm_parameters: of an LSTM that has the size of the model.
    """
    passes, shortness = chars / train_chars, _shortness(train_chars)
    counted = passes * math.pow(min(1.0, lstm_parameters / REFERENCE_PARAMETERS), SIZE_EXPONENT)
    # a text that is read only a few times is not memorised, however short it is
    return training_recipe(cell, counted / shortness, min(counted * shortness, passes))


def _shortness(train_chars: int) -> float:
    """Return how many passes over REFERENCE_CHARS memorise as much as one over a text of `train_chars`.

    And how many passes over that text count for the learning rate as one over REFERENCE_CHARS, since they make few
    updates.
    """
    return math.pow(REFERENCE_CHARS / train_chars, LENGTH_EXPONENT)


def predicted_loss(num_layers: int, parameters: int, chars: float, train_chars: int) -> float:
    """Return the expected validation loss of a model that has read `chars` characters from a text of `train_chars`."""
    again = max(chars / train_chars - 1, 0.0)
    worth = chars if again == 0 else train_chars * (1 + MOST_WORTH * (1 - math.exp(-again / MOST_WORTH)))
    needed = CHARS * math.pow(CHARS_FACTOR_PER_LAYER, num_layers - 1)
    return FLOOR + math.pow(PARAMETERS / parameters, PARAMETERS_EXPONENT) + math.pow(needed / worth, CHARS_EXPONENT)


def choose_size(chars: Mapping[Size, float], parameters: Mapping[Size, int], train_chars: int) -> Size:
    """Return the size with the lowest predicted loss.

    Sizes that have time for all passes that are worth it would end early, so only the largest of them is compared with
    the others.

    chars: how many characters each reads in the time that there is. parameters: that each has.
    """
    most = {size: most_chars(size.hidden_size, train_chars) for size in chars}
    at_most = [size for size in chars if chars[size] >= most[size]]
    largest = max(at_most, key=parameters.__getitem__, default=None)
    return min(
        [size for size in chars if size == largest or size not in at_most],
        key=lambda size: predicted_loss(size.num_layers, parameters[size], min(chars[size], most[size]), train_chars),
    )
