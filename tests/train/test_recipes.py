import dataclasses
from itertools import pairwise

import pytest

from charlm.model.cells import CELLS
from train.config import TrainConfig
from train.recipes import (
    FEW_PASSES,
    MANY_PASSES,
    REFERENCE_CHARS,
    REFERENCE_PARAMETERS,
    SIZES,
    choose_size,
    most_chars,
    predicted_loss,
    recipe_for_text,
    training_recipe,
)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("epochs", [14, 24, 25, 5_000])
def test_many_epochs_have_the_recipe_of_the_cell_to_the_last_bit(cell, epochs):
    chosen, recipe = training_recipe(cell, epochs), CELLS[cell].recipe
    assert dataclasses.asdict(chosen) == dataclasses.asdict(recipe) | {"batch_size": 32, "seq_length": 64}
    assert TrainConfig(cell).epochs >= MANY_PASSES


@pytest.mark.parametrize("cell", CELLS)
def test_fewer_epochs_have_a_higher_rate_less_dropout_and_less_decay(cell):
    chosen = [training_recipe(cell, epochs) for epochs in range(1, 25)]
    for fewer, more in pairwise(chosen):
        assert fewer.lr >= more.lr
        for name in ("dropout", "embedding_dropout", "weight_decay"):
            assert getattr(fewer, name) <= getattr(more, name)
    assert chosen[0] == chosen[int(FEW_PASSES) - 1] != chosen[int(FEW_PASSES)]
    assert chosen[0].lr > 1.4 * chosen[-1].lr and chosen[0].dropout < chosen[-1].dropout / 2


def test_half_way_between_few_and_many_in_the_logarithm_stands_the_mean():
    # sqrt(3 × 12) = 6 epochs: dropout (0.05 + 0.4) / 2, rate sqrt(0.01 × 0.003) = 0.00548
    chosen = training_recipe("lstm", (FEW_PASSES * MANY_PASSES) ** 0.5)
    assert (chosen.dropout, chosen.embedding_dropout, chosen.lr) == (0.225, 0.15, 0.0055)


# What was measured on tinyshakespeare: layers, parameters, characters read, loss (docs/training.md)
MEASURED = [
    (1, 559_681, 3_011_562, 1.5204),
    (1, 771_617, 2_007_708, 1.5452),
    (2, 1_086_017, 2_007_708, 1.5769),
    (2, 4_269_121, 24_092_496, 1.3877),
    (2, 4_269_121, 27_967_488, 1.3847),
]


@pytest.mark.parametrize(("layers", "parameters", "chars", "loss"), MEASURED)
def test_the_predicted_losses_are_those_that_were_measured(layers, parameters, chars, loss):
    assert predicted_loss(layers, parameters, chars, 1_003_854) == pytest.approx(loss, abs=0.01)


def test_more_text_more_passes_and_more_parameters_are_expected_to_help_a_little_less_each_time():
    text = 1_000_000
    by_chars = [predicted_loss(1, 500_000, passes * text, text) for passes in (0.5, 1, 2, 4, 8, 16, 32, 64)]
    by_size = [predicted_loss(1, parameters, 3 * text, text) for parameters in (10**5, 10**6, 10**7)]
    by_text = [predicted_loss(1, 500_000, 10**6, chars) for chars in (10**4, 10**5, 10**6)]
    for losses in (by_chars, by_size, by_text):
        assert losses == sorted(losses, reverse=True)
    assert by_chars[0] - by_chars[1] > 10 * (by_chars[-2] - by_chars[-1])


def test_the_size_is_the_one_with_the_lowest_predicted_loss_at_its_speed():
    small, large = SIZES[0], SIZES[-1]
    parameters = {small: 120_000, large: 4_269_121}
    assert choose_size({small: 2e6, large: 6e4}, parameters, 10**6) == small
    assert choose_size({small: 4e8, large: 1.2e7}, parameters, 10**6) == large


def test_of_sizes_that_have_time_for_all_that_is_worth_reading_the_largest_is_chosen():
    parameters = {size: 120_000 + 300_000 * place for place, size in enumerate(SIZES)}
    assert choose_size(dict.fromkeys(SIZES, 1e9), parameters, 20_000) == SIZES[-1]
    assert choose_size(dict.fromkeys(SIZES[:2], 1e9) | {SIZES[2]: 1.0}, parameters, 20_000) == SIZES[1]


@pytest.mark.parametrize("cell", CELLS)
def test_a_shorter_text_is_read_more_often_with_more_dropout_and_a_smaller_model_more_often(cell):
    def passes(chars, hidden_size):
        return most_chars(hidden_size, chars) / chars

    lengths = (10**4, 10**5, 10**6, 10**7)
    assert [passes(chars, 512) for chars in lengths] == sorted(passes(chars, 512) for chars in lengths)
    assert passes(10**5, 128) > passes(10**5, 512)
    # eight passes of each text, from the shortest on
    chosen = [recipe_for_text(cell, 10**6, 8 * chars, chars) for chars in lengths]
    assert [each.dropout for each in chosen] == sorted((each.dropout for each in chosen), reverse=True)
    assert [each.lr for each in chosen] == sorted((each.lr for each in chosen), reverse=True)


@pytest.mark.parametrize(("hidden_size", "chars", "passes"), [(512, 10**6, 45), (512, 90_000, 17), (256, 18_000, 18)])
def test_a_text_is_read_as_often_as_the_document_says(hidden_size, chars, passes):
    assert round(most_chars(hidden_size, chars) / chars) == passes


def test_passes_over_a_million_characters_by_2x512_units_have_the_recipe_of_as_many_epochs():
    for passes in (1, 5, 8, 28):
        for cell in CELLS:
            assert recipe_for_text(
                cell, REFERENCE_PARAMETERS, passes * REFERENCE_CHARS, REFERENCE_CHARS
            ) == training_recipe(cell, passes)
