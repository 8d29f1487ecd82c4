import json

import pytest
from browser import ROOT
from hypothesis import given
from hypothesis import strategies as st
from models import any_text, laws, make_joined_record, make_record

from charlm.analysis import diagnosis
from charlm.analysis.diagnosis import LEAST_FLUCTUATION, Place, find_leak, find_rise, find_spike, fluctuation
from charlm.model.history import join_runs


def record(val, train=None, unseen=None, **run):
    """A record of the given losses, epoch by epoch."""
    made = make_record(tuple(val), **run)
    for epoch, train_loss, unseen_loss in zip(
        made["epochs"], train or [0.9 * loss for loss in val], unseen or [None] * len(val), strict=True
    ):
        epoch |= {"train_loss": train_loss, "unseen_loss": unseen_loss}
    return made


def read_curves(records):
    """What is said of each model as one paragraph, then each comparison."""
    remarks = diagnosis.read_curves(records)
    own = [" ".join(each.text for each in remarks if each.model == name) for name, _ in records]
    return own + [each.text for each in remarks if not each.model]


def bundled(name):
    return json.loads((ROOT / "weights" / name / "history.json").read_text(encoding="utf-8"))


OVERFITTED = record([2.0, 1.6, 1.5, 1.55, 1.65, 1.8], [1.9, 1.5, 1.3, 1.1, 0.9, 0.7])
# what the homework reported of its CharRNN: the best epoch is the third, and then both of its losses rise
HOMEWORK_RNN = record(
    [1.30, 1.24, 1.2271, 1.235, 1.27, 1.31, 1.36, 1.42, 1.47, 1.52],
    [1.45, 1.27, 1.21, 1.22, 1.25, 1.29, 1.34, 1.40, 1.45, 1.49],
    protocol="windows",
)


def test_a_rise_while_the_training_loss_falls_is_overfitting():
    rise = find_rise(OVERFITTED["epochs"])
    assert (rise.kind, rise.best, rise.last) == ("overfitting", 3, 6)
    assert (rise.val, rise.train) == ((1.5, 1.8), (1.3, 0.7))
    assert "that is overfitting" in read_curves([("net", OVERFITTED)])[0]


def test_a_rise_while_the_training_loss_rises_too_is_divergence():
    """What the homework took for overfitting."""
    rise = find_rise(HOMEWORK_RNN["epochs"])
    assert (rise.kind, rise.best, rise.last) == ("divergence", 3, 10)
    (said,) = read_curves([("CharRNN", HOMEWORK_RNN)])
    assert "its training loss rose too, from 1.2100 to 1.4900: that is divergence, not overfitting" in said
    assert "its validation loss leaks" in said


def test_a_loss_that_only_fluctuates_has_not_risen():
    jumping = [1.5 + 0.02 * (-1) ** place for place in range(12)] + [1.51]
    assert fluctuation(jumping) > 0.03
    assert find_rise(record(jumping)["epochs"]) is None
    assert find_rise(record([1.5, 1.4, 1.4 + LEAST_FLUCTUATION / 2])["epochs"]) is None


def test_a_steady_fall_does_not_count_as_fluctuation():
    assert fluctuation([3.0 - 0.1 * place for place in range(20)]) == LEAST_FLUCTUATION


@pytest.mark.parametrize("val", [[2.0], [2.0, 1.9], [2.0, 1.8, 1.7]])
def test_a_loss_that_falls_to_the_end_has_no_rise(val):
    assert find_rise(record(val)["epochs"]) is None


def test_a_jump_that_comes_down_again_is_a_spike():
    assert find_spike(record([2.0, 1.8, 1.7, 2.4, 1.65, 1.6, 1.55])["epochs"]) == 4
    assert find_spike(record([2.0, 1.8, 1.7, 1.65, 1.6])["epochs"]) is None
    assert "jumped up in epoch 4" in read_curves([("net", record([2.0, 1.8, 1.7, 2.4, 1.65, 1.6, 1.55]))])[0]


def test_a_loss_that_still_falls_asks_for_more_epochs_and_one_that_does_not_does_not():
    assert "more epochs would lower it" in read_curves([("net", record([2.0, 1.8, 1.7, 1.6]))])[0]
    flat = read_curves([("net", record([2.0, 1.6, 1.5, 1.4995, 1.4991, 1.499, 1.4989, 1.4988]))])[0]
    assert "more epochs" not in flat
    assert "changed by less than" in flat


def test_unseen_text_that_costs_more_than_validation_text_shows_a_leak():
    leaking = record([1.0, 0.8, 0.6], unseen=[1.9, 2.2, 2.6], protocol="windows")
    assert find_leak(leaking) == (0.6, 2.6)
    (said,) = read_curves([("net", leaking)])
    assert "leaks: 0.6000, against 2.6000" in said
    assert "from 1.9000 after epoch 1 to 2.6000 after epoch 3" in said
    assert "more epochs" not in said
    assert find_leak(record([1.5, 1.4], unseen=[1.52, 1.43])) is None


def test_dropout_explains_a_training_loss_above_the_validation_loss():
    above = record([1.6, 1.5], [1.8, 1.7], dropout=0.5)
    assert "Its training loss is 0.2000 higher, for it is measured with dropout on." in read_curves([("net", above)])[0]
    without = record([1.6, 1.5], [1.8, 1.7], dropout=0.0)
    assert "dropout" not in read_curves([("net", without)])[0]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ((4_000_000, 1_000_000), "4.0 times the"),
        ((1_000_000, 4_000_000), "0.2 times the"),
        ((100_000, 3_300_000), "0.03 times the"),
        ((1_000_000, 1_001_000), "about as many"),
        ((1_000_000, 1_000_000), "as many"),
    ],
)
def test_the_sizes_of_two_models_are_compared(parameters, said):
    better, worse = (record([1.7, loss], parameters=each) for loss, each in zip((1.3, 1.5), parameters, strict=True))
    assert any(f", with {said} parameters." in line for line in read_curves([("a", better), ("b", worse)]))


def test_the_better_model_is_named_with_the_size_of_the_difference():
    small, large = record([1.7, 1.5], parameters=1_000_000), record([1.6, 1.3], parameters=4_000_000)
    expected = (
        "large is better than small, 1.3000 nats per character against 1.5000: 0.2885 bits less, "
        "a perplexity lower by 18.1 %, with 4.0 times the parameters."
    )
    assert read_curves([("small", small), ("large", large)])[2] == expected
    assert read_curves([("large", large), ("small", small)])[2] == expected


def test_a_difference_that_another_seed_makes_is_none():
    said = read_curves([("one", record([1.5000])), ("two", record([1.5090]))])
    assert "one and two are level, 1.5000 and 1.5090: other seeds alone can differ by that much." in said[2]


def test_a_head_start_is_told():
    said = read_curves([("slow", record([2.0, 1.8, 1.7])), ("quick", record([1.9, 1.65, 1.5]))])
    assert said[-1] == "quick was below the best of slow after epoch 2 of 3."


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"text_sha256": "other"}, "different texts"),
        ({"protocol": "windows"}, "different protocols"),
        ({"split": {"train_chars": 5, "val_chars": 5}}, "different splits of the text"),
    ],
)
def test_losses_that_do_not_mean_the_same_are_not_compared(change, reason):
    said = read_curves([("one", record([1.5])), ("two", record([1.2], **change))])
    assert said[2:] == [f"The losses of one and two cannot be compared: they come from {reason}."]


def test_of_three_that_differ_each_is_named_with_what_sets_it_apart_from_the_one_before():
    said = read_curves(
        [("one", record([1.5])), ("two", record([1.2], text="poems")), ("leaky", record([0.5], protocol="windows"))]
    )
    assert said[3:] == [
        "The losses of one and two cannot be compared: they come from different texts.",
        "The losses of two and leaky cannot be compared: they come from different texts and protocols.",
    ]


def test_what_can_be_compared_is_compared_all_the_same():
    others = record([0.5], protocol="windows")
    said = read_curves([("one", record([1.5])), ("two", record([1.2])), ("leaky", others)])
    assert "cannot be compared" in said[3]
    assert said[4].startswith("two is better than one")


def test_a_training_loss_on_written_text_is_no_gap():
    alone, taught = record([1.5, 1.4], [1.3, 1.2]), record([1.5, 1.4], [1.3, 1.2], teachers_write=6_000_000)
    assert "0.2000 lower: that much is memorised" in read_curves([("net", alone)])[0]
    (said,) = read_curves([("net", taught)])
    assert "that much is memorised" not in said and "is also that of text that teachers wrote" in said


@pytest.mark.parametrize("before", [None, 3, {}, {"val_loss": None}, {"val_loss": "1.6"}, {"val_loss": True}])
def test_a_training_that_began_with_a_model_says_how_good_that_was(before):
    start = "It began with the weights of another model, whose validation loss on this text was 1.6000."
    assert start in read_curves([("net", record([1.5, 1.4], before={"val_loss": 1.6}))])[0]
    assert "began" not in read_curves([("net", record([1.5, 1.4], before=before))])[0]


def test_our_own_models_are_read_right():
    said = read_curves([(name, bundled(f"shakespeare-{name}")) for name in ("rnn", "lstm", "gru")])
    assert any(each.startswith("lstm and gru are level, 1.3482 and 1.3537") for each in said)
    assert any(each.startswith("gru is better than rnn, 1.3537") for each in said)
    assert not any(word in " ".join(said) for word in ("leak", "divergence", "overfitting", "jumped"))


def test_the_homework_is_seen_through():
    said = read_curves([(name, bundled(f"homework-{name}")) for name in ("rnn", "lstm")])
    assert "Its validation loss leaks: 0.8621, against 2.3385" in said[0]
    assert "Its validation loss leaks: 0.4705, against 3.3760" in said[1]
    assert all("On unseen text it got worse as it trained" in each for each in said[:2])
    assert not any("divergence" in each for each in said)  # that is what clipping and a falling rate prevented
    assert said[-1].startswith("On unseen text the order differs: rnn is best there")


def test_each_remark_names_the_places_on_the_curves_that_it_is_about():
    leaking = record([1.0, 0.8, 0.6], unseen=[1.9, 2.2, 2.6], protocol="windows")
    remarks = diagnosis.read_curves([("net", OVERFITTED)]) + diagnosis.read_curves([("leaky", leaking)])
    places = {" ".join(remark.text.split()[:4]): remark.places for remark in remarks}
    assert places["From epoch 3 to"] == (Place("net", "val_loss", 3, 6), Place("net", "train_loss", 3, 6))
    assert places["Its best validation loss"] == (Place("leaky", "val_loss", 3, 3),)
    assert places["On unseen text it"] == (Place("leaky", "unseen_loss", 1, 3),)
    slow, quick = record([2.0, 1.8, 1.7]), record([1.9, 1.65, 1.5])
    remarks = diagnosis.read_curves([("slow", slow), ("quick", quick)])
    assert remarks[-1].places == (Place("quick", "val_loss", 2, 2), Place("slow", "val_loss", 3, 3))
    named = "x" * 80  # which is shortened where it is shown, not where it is looked up
    assert {place.model for place in diagnosis.read_curves([(named, slow)])[0].places} == {named}


# Runs that went on from others


def test_the_epochs_of_earlier_runs_count_and_where_a_run_begins_no_step_was_too_large():
    joined = make_joined_record((2.0, 1.8, 1.7, 1.65, 1.6, 1.58), (2.4, 1.55, 1.5), protocol="holdout")
    assert find_spike(join_runs(joined)["epochs"]) == 7
    (said,) = read_curves([("net", joined)])
    assert said.startswith("Its curves show 2 runs. Each but the first began with the best weights of the run before.")
    assert "after epoch 9 of 9" in said and "jumped" not in said
    places = {place for remark in diagnosis.read_curves([("net", joined)]) for place in remark.places}
    assert Place("net", "val_loss", 7, 7) in places and Place("net", "val_loss", 9, 9) in places


def test_whether_the_loss_still_falls_or_rises_is_told_of_the_last_run_alone():
    (said,) = read_curves([("net", make_joined_record((2.0, 1.8, 1.5), (1.4999, 1.4998, 1.4997)))])
    assert "Over the last 2 epochs it changed by less than" in said
    rises = make_joined_record((1.3, 1.2, 1.1), (1.5, 1.4, 1.3))  # above what it began with, but falling
    assert "rose" not in read_curves([("net", rises)])[0]


def test_a_last_run_that_made_the_model_worse_is_told():
    worse = make_joined_record((2.0, 1.5), (1.7, 1.6))
    assert (
        "1.6000 nats per character, after epoch 4 of 4. The last run made it worse: it began with 1.5000."
        in (read_curves([("net", worse)])[0])
    )
    assert "worse" not in read_curves([("net", make_joined_record((2.0, 1.5), (1.7, 1.4)))])[0]


def test_a_model_is_not_compared_with_itself_as_another_went_on_from_it():
    records = [("base", make_record((2.0, 1.5))), ("on", make_joined_record((2.0, 1.5), (1.6, 1.45, 1.4)))]
    assert "on was below the best of base after epoch 4 of 5." in read_curves(records)


def test_a_model_is_ahead_from_the_epoch_of_the_run_that_was():
    records = [("quick", make_joined_record((2.0, 1.6), (1.5, 1.4))), ("slow", make_record((2.2, 1.9, 1.7)))]
    assert "quick was below the best of slow after epoch 2 of 4." in read_curves(records)


number = st.floats(allow_nan=False, allow_infinity=False)
anything = st.recursive(st.none() | st.booleans() | number | any_text(), lambda inner: st.lists(inner, max_size=3))


@st.composite
def wild_record(draw):
    count = draw(st.integers(1, 12))
    losses = draw(st.lists(number, min_size=count, max_size=count))
    made = make_record(tuple(losses))
    for epoch in made["epochs"]:
        epoch["train_loss"] = draw(number)
        epoch["unseen_loss"] = draw(st.none() | number)
    made["best"] = {"epoch": draw(st.integers(1, count)), "val_loss": draw(number)}
    made["run"] = draw(
        st.dictionaries(st.sampled_from(["protocol", "parameters", "split", "dropout", "text"]), anything)
    )
    return made | ({"earlier_runs": [{"name": "before", "epochs": made["epochs"]}]} if draw(st.booleans()) else {})


@pytest.mark.slow
@laws
@given(st.lists(st.tuples(any_text(max_size=200), wild_record()), max_size=4))
def test_whatever_stands_in_a_record_can_be_read(records):
    for said in read_curves(records):
        assert isinstance(said, str)
        assert 0 < len(said) < 1500
