from dataclasses import replace

import pytest
from browser import ROOT

from charlm.model.config import ModelConfig
from charlm.model.history import make_history, read_history
from train.advice import (
    CurveAdvice,
    advise,
    core_seconds,
    explain_rare,
    explain_untrained,
)
from train.recipes import LARGEST_HIDDEN_SIZES, suitable_hidden_size

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
        "better, in about 2 min in place of 4 min on one CPU core; --minutes M in place of --epochs chooses a size for "
        "M minutes"
    )


def test_on_a_gpu_the_advice_names_no_time_since_it_was_measured_on_a_cpu():
    advice = advise(RUN | {"device": "cuda"}, LARGE)
    assert "as well or better; --minutes M" in advice and " min " not in advice


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
    assert sorted(LARGEST_HIDDEN_SIZES) == list(LARGEST_HIDDEN_SIZES)


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
        "untrained; each time costs about 12 nats, together they add about 0.0240 to the loss"
    )
    many = explain_untrained({chr(0x4E00 + number): 1 for number in range(11)}, split)
    assert "11 symbols stand" in many and many.count("'") == 20 and ", …)" in many
    assert explain_untrained({"é": 1}, split) == (
        "note: 1 symbol stands only in the text that validates or tests, 1 time ('é'): in the vocabulary, but "
        "untrained; this costs about 12 nats, and adds about 0.0060 to the loss"
    )
    assert explain_untrained({}, split) is None


def test_symbols_that_were_too_rare_are_counted():
    run = RUN | {"min_count": 5, "rare": {"symbols": 1_200, "chars": 3}}
    assert explain_rare(run) == (
        "note: 1,200 symbols occur fewer than 5 times, 3 characters in all: they are read as U+FFFD"
    )
    assert explain_rare(run | {"rare": {"symbols": 1, "chars": 1}}) == (
        "note: 1 symbol occurs fewer than 5 times, 1 character in all: it is read as U+FFFD"
    )
    assert explain_rare(run | {"rare": {"symbols": 0, "chars": 0}}) is explain_rare(RUN) is None


def test_a_model_that_a_training_begins_with_has_its_size():
    assert advise(RUN | {"init_from": {"name": "poems"}}, LARGE) is None


def record(losses, epochs=24):
    """The record of a run whose epochs had these training and validation losses."""
    rest = {"unseen_loss": None, "learning_rate": 0.001, "seconds": 1.0, "chars_per_second": 10.0, "sample": "a"}
    made = [
        {"epoch": number, "train_loss": train, "val_loss": val, **rest} for number, (train, val) in enumerate(losses, 1)
    ]
    return make_history(RUN | {"epochs": epochs}, made)


def follow(history, resumed_after=()):
    """The lines of advice after each epoch of a run, by epoch."""
    advice, given = CurveAdvice(), {}
    for last in range(1, len(history["epochs"]) + 1):
        so_far = make_history(history["run"], history["epochs"][:last])
        if lines := advice.after_epoch(so_far):
            given[last] = lines
        if last in resumed_after:
            advice = CurveAdvice(so_far)
    return given


FALLING = [(2.0, 1.9), (1.8, 1.7), (1.6, 1.5), (1.4, 1.4), (1.3, 1.3)]
FLAT = [(1.3, 1.3), (1.3, 1.2999), (1.3, 1.2998), (1.3, 1.2997), (1.3, 1.2996)]
OVERFITTING = [(2.0, 1.9), (1.7, 1.8), (1.4, 1.75), (1.2, 1.9), (1.0, 2.1), (0.8, 2.4), (0.6, 2.8)]
DIVERGING = [(2.0, 1.9), (1.8, 1.7), (2.2, 2.1), (2.6, 2.5), (2.7, 2.6)]


def test_a_loss_that_falls_gets_no_advice():
    assert follow(record(FALLING)) == {}


def test_a_loss_that_stops_falling_is_told_once_after_three_epochs():
    assert follow(record(FALLING + FLAT)) == {
        7: [
            "note: the validation loss has stopped falling: over the last 3 epochs it fell by less than 0.002 an "
            "epoch; the best model so far is saved, so Ctrl-C loses nothing, and fewer --epochs do next time"
        ]
    }


def test_a_gap_and_a_text_that_is_too_short_are_told_once_each():
    given = follow(record(OVERFITTING))
    assert given == {
        2: [
            "note: the training loss is 0.1000 lower than the validation loss (epoch 2): that much is memorised "
            "training text; if this gap grows and the validation loss stops falling, a higher --dropout or more text "
            "helps"
        ],
        5: [
            "note: the validation loss rose from 1.7500 (epoch 3) to 2.1000 while the training loss went from 1.4000 "
            "to 1.0000: the text is too short for this model; more text, a higher --dropout or a smaller --hidden-size "
            "helps; the best model so far is saved"
        ],
    }


def test_steps_that_are_too_large_are_told_once():
    (lines,) = follow(record(DIVERGING)).values()
    assert lines == [
        "note: the validation loss rose from 1.7000 (epoch 2) to 2.5000 and the training loss from 1.8000 to 2.6000: "
        "the steps are too large; a lower --lr helps, or a lower --clip-norm (0 turns it off)"
    ]


def test_a_run_that_goes_on_at_a_higher_rate_is_not_told_that_its_losses_rose():
    higher_again = [(1.35, 1.36), (1.33, 1.34), (1.30, 1.31), (1.27, 1.29), (1.25, 1.27)]
    history = record(FALLING + higher_again)
    assert follow(history) != {}
    for number, epoch in enumerate(history["epochs"]):
        epoch["learning_rate"] = 0.004 - 0.0007 * number if number < len(FALLING) else 0.006 - 0.0006 * number
    assert follow(history) == {}


@pytest.mark.parametrize("losses", [FALLING + FLAT, OVERFITTING, DIVERGING])
def test_a_resumed_run_gets_the_advice_of_one_that_was_never_interrupted(losses):
    history = record(losses)
    assert follow(history, resumed_after=range(1, 20)) == follow(history) != {}


def test_after_the_last_epoch_there_is_no_advice_for_the_run():
    assert follow(record(OVERFITTING, epochs=5)).keys() == {2}


def test_the_trainings_of_the_models_here_are_not_told_that_their_text_is_too_short():
    histories = {
        path.parent.name: read_history(path.read_text("utf-8")) for path in ROOT.glob("weights/*/history.json")
    }
    assert len(histories) == 9
    for name, history in histories.items():
        advice = [line for lines in follow(history).values() for line in lines]
        assert not any("too short" in line or "too large" in line for line in advice), name
        assert not advice or not name.startswith("homework")  # a loss that leaks shows no gap
