from dataclasses import replace

import pytest

from charlm.model.config import ModelConfig
from train.advice import SUITABLE, advise, core_seconds, explain_rare, explain_untrained, suitable_hidden_size

LARGE = ModelConfig("lstm", "".join(map(chr, range(32, 92))), 512, 512, 2, 0.4)
RUN = {
    "protocol": "holdout",
    "epochs": 24,
    "device": "cpu",
    "batch_size": 3,
    "split": {"train_chars": 16_200, "val_chars": 1_800},
}


def test_a_text_of_18_kb_is_told_that_the_default_is_too_large_and_which_size_and_time_suit_it():
    assert advise(RUN, LARGE) == (
        "note: 16,200 characters are few for 4,263,996 parameters; --hidden-size 256 predicts such a text as well or "
        "better, in about 2 min in place of 4 min on one CPU core"
    )


def test_on_a_gpu_the_advice_names_no_time_since_it_was_measured_on_a_cpu():
    assert advise(RUN | {"device": "cuda"}, LARGE).endswith("as well or better")


def test_a_text_of_5_kb_suits_a_smaller_model_still():
    run = RUN | {"batch_size": 1, "split": {"train_chars": 4_500, "val_chars": 500}}
    for hidden_size, told in [(512, "--hidden-size 128"), (256, "--hidden-size 128"), (128, None)]:
        advice = advise(run, replace(LARGE, hidden_size=hidden_size))
        assert advice is None if told is None else told in advice


@pytest.mark.parametrize(
    ("run", "model"),
    [
        (RUN, replace(LARGE, hidden_size=256)),
        (RUN, replace(LARGE, hidden_size=8)),
        (RUN | {"split": {"train_chars": 1_003_854, "val_chars": 111_540}}, LARGE),
        (RUN | {"protocol": "windows"}, LARGE),
    ],
)
def test_there_is_no_advice_where_none_is_needed(run, model):
    assert advise(run, model) is None


def test_a_longer_text_never_suits_a_smaller_model():
    sizes = [suitable_hidden_size(chars) or 512 for chars in range(0, 300_000, 100)]
    assert sizes == sorted(sizes)
    assert sorted(SUITABLE) == list(SUITABLE)


# CPU seconds of runs of 24 epochs, as docs/log.md has them
@pytest.mark.parametrize(
    ("train_chars", "batch_size", "hidden_size", "measured"),
    [
        (4_500, 1, 128, 57),
        (4_500, 1, 256, 83),
        (4_500, 1, 512, 142),
        (16_200, 3, 128, 73),
        (16_200, 3, 256, 102),
        (16_200, 3, 512, 211),
        (90_000, 21, 128, 93),
        (90_000, 21, 256, 168),
    ],
)
def test_the_times_are_those_that_were_measured(train_chars, batch_size, hidden_size, measured):
    model = replace(LARGE, hidden_size=hidden_size)
    assert core_seconds(24 * train_chars, batch_size, model.parameters) == pytest.approx(measured, rel=0.15)


def test_symbols_that_nothing_trains_are_counted_with_what_they_cost():
    split = {"train_chars": 20_000, "val_chars": 1_000, "test_chars": 1_000}
    assert explain_untrained({"é": 3, "\n": 1}, split) == (
        "note: 2 symbols stand only in the text that validates or tests, 4 times ('é', '\\n'): in the vocabulary, but "
        "untrained; each time costs about 12 nats, in all 0.0240 of a loss"
    )
    many = explain_untrained({chr(0x4E00 + number): 1 for number in range(11)}, split)
    assert "11 symbols stand" in many and many.count("'") == 20 and ", …)" in many
    assert "1 symbol stands only" in explain_untrained({"é": 1}, split)
    assert explain_untrained({}, split) is None


def test_symbols_that_were_too_rare_are_counted():
    run = RUN | {"min_count": 5, "rare": {"symbols": 1_200, "chars": 3}}
    assert explain_rare(run) == (
        "note: 1,200 symbols occur fewer than 5 times, 3 characters in all: they are read as U+FFFD"
    )
    assert explain_rare(run | {"rare": {"symbols": 0, "chars": 0}}) is explain_rare(RUN) is None


def test_a_model_that_a_training_begins_with_has_its_size():
    assert advise(RUN | {"init_from": {"name": "poems"}}, LARGE) is None
