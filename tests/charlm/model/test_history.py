import copy
import io
import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import any_text, laws, make_joined_record, make_record
from PIL import Image

from charlm.errors import ModelFileError
from charlm.model.config import LARGEST_JSON
from charlm.model.history import (
    LONGEST_RUN_NAME,
    MOST_EARLIER_RUNS,
    MOST_RECORDED_EPOCHS,
    _draw,
    draw_curves,
    earlier_epochs,
    join_runs,
    longest_sample,
    make_history,
    measured_by,
    perplexity,
    read_history,
    runs_until_best,
    write_history,
)


class Missing:
    """Stands for a field that is not there. Its repr names the test, the same in every process."""

    def __repr__(self):
        return "missing"


MISSING = Missing()

numbers = st.floats(allow_nan=False, allow_infinity=False)
epoch_records = st.fixed_dictionaries(
    {
        "train_loss": numbers,
        "val_loss": numbers,
        "unseen_loss": st.none() | numbers,
        "learning_rate": numbers,
        "seconds": numbers,
        "chars_per_second": numbers,
        "sample": any_text(),
    }
)
settings_of_runs = st.dictionaries(
    any_text().filter(lambda name: name not in ("text", "split", "lr_edits")),
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | numbers | any_text(),
)


def changed(record, path, value):
    """Return a copy of a record with one field replaced, or without it."""
    record = copy.deepcopy(record)
    *parents, name = path
    parent = record
    for key in parents:
        parent = parent[key]
    if value is MISSING:
        del parent[name]
    else:
        parent[name] = value
    return record


def fails(text):
    with pytest.raises(ModelFileError) as caught:
        read_history(text)
    assert str(caught.value).startswith("history.json")
    return str(caught.value)


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).reshape(-1, 3)


# The file


@laws
@given(settings_of_runs, st.lists(epoch_records, min_size=1, max_size=4))
def test_reading_undoes_writing(run, epochs):
    record = make_history(run, [{"epoch": number, **epoch} for number, epoch in enumerate(epochs, 1)])
    assert read_history(write_history(record)) == record


def test_the_file_is_json_laid_out_as_the_contract_says():
    record = json.loads(write_history(make_record((2.0, 1.5))))
    assert list(record) == ["format_version", "run", "epochs", "best"]
    assert record["format_version"] == 1
    assert record["run"]["split"] == {"train_chars": 900, "val_chars": 100}
    assert [epoch["epoch"] for epoch in record["epochs"]] == [1, 2]
    assert record["epochs"][0] == {
        "epoch": 1,
        "train_loss": 1.8,
        "val_loss": 2.0,
        "unseen_loss": None,
        "learning_rate": 0.003,
        "seconds": 12.5,
        "chars_per_second": 80_000.0,
        "sample": "a cab\nbade",
    }
    assert record["best"] == {"epoch": 2, "val_loss": 1.5}


def test_symbols_of_any_script_stand_in_the_file_as_they_are():
    assert '"sample": "한😀é"' in write_history(make_record(sample="한😀é"))


@pytest.mark.parametrize(
    ("losses", "epoch"),
    [((1.0,), 1), ((3.0, 2.0, 1.0), 3), ((2.0, 1.0, 3.0), 2), ((2.0, 1.0, 1.0), 2), ((1.0, 1.0, 1.0), 1)],
)
def test_the_best_epoch_has_the_lowest_validation_loss_and_is_the_first_of_equals(losses, epoch):
    assert make_record(losses)["best"] == {"epoch": epoch, "val_loss": min(losses)}


def test_the_training_loss_has_no_say_in_which_epoch_is_best():
    epochs = make_record((2.0, 1.0))["epochs"]
    epochs[0]["train_loss"] = 0.1
    assert make_history({}, epochs)["best"]["epoch"] == 2


@pytest.mark.parametrize("path", [("added",), ("run", "added"), ("epochs", 1, "added"), ("best", "added")])
def test_fields_that_charlm_does_not_know_are_kept(path):
    record = changed(make_record(), path, {"by": ["someone", None, 1.5]})
    assert json.loads(write_history(read_history(json.dumps(record)))) == record


def test_what_a_run_need_not_have_may_be_missing():
    record = changed(changed(make_record(), ("run",), {}), ("epochs", 0, "unseen_loss"), MISSING)
    assert read_history(json.dumps(record)) == record


# Files that are wrong


NO_RUNS = "earlier_runs must be a list of up to 50 objects with epochs and a name of up to 200 characters"
NOT_NUMBERS = [MISSING, None, "1.5", True, [1.5], {}]


@pytest.mark.parametrize("value", NOT_NUMBERS, ids=repr)
@pytest.mark.parametrize("name", ["train_loss", "val_loss", "learning_rate", "seconds", "chars_per_second"])
def test_a_number_that_is_none_is_named_with_its_epoch(name, value):
    message = fails(json.dumps(changed(make_record(), ("epochs", 2, name), value)))
    shown = None if value is MISSING else value
    assert message == f"history.json: epochs[2].{name} is {shown!r}; it must be a number"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("format_version",), MISSING, "history.json says format_version None; it must be a whole number from 1"),
        (("format_version",), "1", "history.json says format_version '1'"),
        (("format_version",), 0, "history.json says format_version 0"),
        (("format_version",), True, "history.json says format_version True"),
        (("format_version",), 2, "format_version 2, written by a newer charlm; this one reads up to 1: update charlm"),
        (("run",), MISSING, "run must be an object"),
        (("run",), [], "run must be an object"),
        (("run", "text"), None, "run.text must be a string"),
        (("run", "text"), 5, "run.text must be a string"),
        (("run", "split"), None, "run.split must be an object with the numbers train_chars and val_chars"),
        (("run", "split", "train_chars"), "900", "run.split must be an object with the numbers train_chars"),
        (("run", "split", "test_chars"), "9", "run.split must be an object with the numbers train_chars"),
        (("run", "lr_edits"), 3, "run.lr_edits must be a list of objects with the numbers epoch and lr"),
        (("run", "lr_edits"), [3], "run.lr_edits must be a list of objects"),
        (("run", "lr_edits"), [{"epoch": 1}], "run.lr_edits must be a list of objects"),
        (("run", "lr_edits"), [{"epoch": True, "lr": 0.1}], "run.lr_edits must be a list of objects"),
        (("run", "split", "val_chars"), None, "run.split must be an object with the numbers train_chars"),
        (("epochs",), MISSING, "epochs must be a list of 1 to 5,000 objects"),
        (("epochs",), [], "epochs must be a list of 1 to 5,000 objects"),
        (("epochs",), {"0": {}}, "epochs must be a list of 1 to 5,000 objects"),
        (("epochs",), [0] * 5_001, "epochs must be a list of 1 to 5,000 objects"),
        (("epochs", 1), None, "epochs[1] must be an object with its number in `epoch`"),
        (("epochs", 1, "epoch"), MISSING, "epochs[1] must be an object with its number in `epoch`"),
        (("epochs", 1, "epoch"), "2", "epochs[1] must be an object with its number in `epoch`"),
        (("epochs", 1, "epoch"), True, "epochs[1] must be an object with its number in `epoch`"),
        (("epochs", 1, "epoch"), 2.0, "epochs[1] must be an object with its number in `epoch`"),
        (("epochs", 1, "unseen_loss"), "2", "epochs[1].unseen_loss must be a number or null"),
        (("epochs", 1, "unseen_loss"), False, "epochs[1].unseen_loss must be a number or null"),
        (("epochs", 1, "sample"), MISSING, "epochs[1].sample must be a string"),
        (("epochs", 1, "sample"), ["a"], "epochs[1].sample must be a string"),
        (("best",), MISSING, "best must be an object with epoch and val_loss"),
        (("best",), [1, 1.5], "best must be an object with epoch and val_loss"),
        (("best", "val_loss"), MISSING, "best must be an object with epoch and val_loss"),
        (("best", "val_loss"), "1.5", "best must be an object with epoch and val_loss"),
        (("best", "val_loss_reset256"), None, "best.val_loss_reset256 must be a number"),
        (("best", "test_loss"), "1.5", "best.test_loss must be a number"),
        (("best", "epoch"), MISSING, "best.epoch None is not among the epochs"),
        (("best", "epoch"), 4, "best.epoch 4 is not among the epochs"),
        (("best", "epoch"), True, "best.epoch True is not among the epochs"),
        (("best", "epoch"), 2.0, "best.epoch 2.0 is not among the epochs"),
        (("best", "epoch"), [2], "best.epoch [2] is not among the epochs"),
    ],
)
def test_a_wrong_field_is_named(path, value, message):
    assert message in fails(json.dumps(changed(make_record(), path, value)))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ((), None, NO_RUNS),
        ((), {}, NO_RUNS),
        ((), [{"name": "a", "epochs": []}] * 51, NO_RUNS),
        ((0,), 1, NO_RUNS),
        ((0, "name"), MISSING, NO_RUNS),
        ((1, "name"), 5, NO_RUNS),
        ((1, "name"), "n" * 201, NO_RUNS),
        ((0, "epochs"), MISSING, "earlier_runs[0].epochs must be a list of 1 to 5,000 objects"),
        ((0, "epochs"), [], "earlier_runs[0].epochs must be a list of 1 to 5,000 objects"),
        ((1, "epochs"), [{}] * 5_001, "earlier_runs[1].epochs must be a list of 1 to 5,000 objects"),
        ((1, "epochs"), make_record([1.5] * 4_999, "")["epochs"], "its runs have 5,002 epochs together; they may have"),
        ((1, "epochs", 0, "epoch"), 3, "earlier_runs[1].epochs[0].epoch is 3; epochs are numbered 1, 2, 3 …"),
        ((0, "epochs", 1, "val_loss"), "1", "earlier_runs[0].epochs[1].val_loss is '1'; it must be a number"),
        ((0, "epochs", 1, "sample"), None, "earlier_runs[0].epochs[1].sample must be a string"),
    ],
)
def test_a_wrong_field_of_an_earlier_run_is_named(path, value, message):
    record = make_joined_record((2.0, 1.5), (1.4,), (1.3,))
    assert message in fails(json.dumps(changed(record, ("earlier_runs", *path), value)))


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([-2, -1], "epochs[0].epoch is -2; epochs are numbered 1, 2, 3 …: it must be 1"),
        ([0, 1], "epochs[0].epoch is 0; epochs are numbered 1, 2, 3 …: it must be 1"),
        ([1, 3], "epochs[1].epoch is 3; epochs are numbered 1, 2, 3 …: it must be 2"),
        ([2, 1], "epochs[0].epoch is 2; epochs are numbered 1, 2, 3 …: it must be 1"),
        ([1, 1], "epochs[1].epoch is 1; epochs are numbered 1, 2, 3 …: it must be 2"),
    ],
    ids=str,
)
def test_epochs_that_are_not_numbered_from_one_are_refused(numbers, message):
    record = make_record((2.0, 1.5))
    for number, epoch in zip(numbers, record["epochs"], strict=True):
        epoch["epoch"] = number
    record["best"]["epoch"] = numbers[1]
    assert message in fails(json.dumps(record))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_json_does_not_know_is_refused(number):
    text = write_history(make_record()).replace("1.75", number)
    assert f"is not valid JSON: {number} is not a number that JSON knows" in fails(text)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" + "0" * 400])
def test_a_number_too_large_for_a_float_is_refused(number):
    assert "epochs[2].val_loss is " in fails(write_history(make_record()).replace("1.75", number))


def test_half_of_a_surrogate_pair_is_refused_wherever_it_hides():
    for path in (("epochs", 0, "sample"), ("run", "text"), ("run", "added")):
        text = json.dumps(changed(make_record(), path, "\ud83d"))
        assert fails(text) == "history.json holds a lone surrogate, which is not a character"


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '"a"', "[" * 100_000])
def test_what_is_no_json_object_is_refused(text):
    fails(text)


def test_a_key_that_stands_twice_is_refused():
    text = write_history(make_record()).replace('"best":', '"run": {}, "best":')
    assert "the key 'run' stands twice in one object" in fails(text)


# How much it may hold


@pytest.mark.parametrize(("epochs", "symbol"), [(5_000, "a"), (2_200, "한"), (1_700, "😀")])
def test_thousands_of_epochs_with_samples_of_500_characters_can_be_read(epochs, symbol):
    record = make_record([1.2345678901234567] * epochs, sample=symbol * 500)
    assert read_history(write_history(record)) == record


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [1, 1000, 1213, 1214, 2000, 4999, MOST_RECORDED_EPOCHS])
def test_a_record_of_any_number_of_epochs_can_be_read_if_its_samples_are_no_longer_than_allowed(epochs):
    longest = min(10_000, longest_sample(epochs))
    assert longest >= 70 and (longest >= 500 or epochs > 1000)
    record = make_record([-2.2250738585072014e-308] * epochs, sample="\x01" * longest, text="\x01" * 10_000)
    for epoch in record["epochs"]:  # the longest that Python writes
        epoch |= {name: -2.2250738585072014e-308 for name, value in epoch.items() if isinstance(value, float | None)}
    text = write_history(record)
    assert text.startswith('{\n  "format_version": 1')  # laid out for people, all the same
    assert read_history(text) == record


def test_one_epoch_more_is_too_many():
    record = make_record([1.5] * (MOST_RECORDED_EPOCHS + 1), sample="")
    with pytest.raises(ModelFileError, match="epochs must be a list of 1 to 5,000 objects"):
        write_history(record)


@pytest.mark.parametrize(
    "value",
    ["[" + "[]," * 60_000 + "1]", "[" + '"",' * 60_000 + '""]', '{"":1},' * 60_000, "[" + "1," * 60_000 + "1]"],
    ids=lambda value: value[:9],
)
def test_more_values_than_a_record_needs_are_refused_before_they_are_made(value):
    text = write_history(make_record())[:-2] + f',"added": {value}}}'
    assert fails(text) == "history.json holds more than 60,000 values"


def test_what_stands_in_a_string_is_no_value():
    sample = '[{",":"\\"},\\' * 10_000
    record = make_record(sample=sample)
    assert read_history(write_history(record)) == record
    assert fails(write_history(record) + '"' + sample).startswith("history.json is not valid JSON: Extra data")


def test_a_larger_text_than_can_be_read_is_refused():
    record = make_record(sample="a" * (LARGEST_JSON // 3))
    with pytest.raises(ModelFileError, match="history.json is larger than the 4,194,304 bytes that it can need"):
        write_history(record)
    record["epochs"] = record["epochs"][:-1]
    assert read_history(write_history(record)) == record


@pytest.mark.slow
def test_the_largest_record_with_the_most_earlier_runs_can_be_read():
    longest = longest_sample(MOST_RECORDED_EPOCHS, MOST_EARLIER_RUNS)
    record = make_record([-2.2250738585072014e-308] * 100, sample="\x01" * longest, text="\x01" * 10_000)
    for epoch in record["epochs"]:
        epoch |= {name: -2.2250738585072014e-308 for name, value in epoch.items() if isinstance(value, float | None)}
    runs = [{"name": "\x01" * LONGEST_RUN_NAME, "epochs": record["epochs"][:98]}] * MOST_EARLIER_RUNS
    record |= {"earlier_runs": runs}
    assert earlier_epochs(record) + 100 == MOST_RECORDED_EPOCHS
    assert longest >= 65 and read_history(write_history(record)) == record


# Earlier runs


def test_what_a_run_went_on_from_is_recorded_up_to_the_epoch_that_it_began_with():
    record = make_joined_record((2.0, 1.5, 1.75), (1.6, 1.4), (1.3,))
    assert [each["name"] for each in record["earlier_runs"]] == ["run-0", "run-1"]
    losses = [[epoch["val_loss"] for epoch in run["epochs"]] for run in record["earlier_runs"]]
    assert losses == [[2.0, 1.5], [1.6, 1.4]]
    assert read_history(write_history(record)) == record


def test_of_an_earlier_run_nothing_is_copied_but_what_charlm_records():
    record = make_joined_record((2.0, 1.5), (1.4,))
    for epoch in [*record["epochs"], *record["earlier_runs"][0]["epochs"]]:
        epoch |= {"weights_sha256": "0" * 64, "added": "x" * 10**6}
    record["earlier_runs"][0] |= {"name": "n" * 1000, "added": 1}
    del record["epochs"][0]["unseen_loss"]
    first, second = runs_until_best(record, "model")
    assert (set(first), len(first["name"]), second["name"]) == ({"name", "epochs"}, 200, "model")
    clean = make_joined_record((2.0, 1.5), (1.4,))
    assert first["epochs"] == clean["earlier_runs"][0]["epochs"]
    assert second["epochs"] == [{n: value for n, value in clean["epochs"][0].items() if n != "unseen_loss"}]


def test_the_epochs_of_joined_runs_are_numbered_consecutively():
    record = make_joined_record((2.0, 1.5, 1.75), (1.6, 1.4), (1.35, 1.3, 1.4), lr_edits=[{"epoch": 2, "lr": 0.1}])
    before = copy.deepcopy(record)
    joined = join_runs(record)
    assert record == before
    assert [epoch["epoch"] for epoch in joined["epochs"]] == [1, 2, 3, 4, 5, 6, 7]
    assert [epoch["val_loss"] for epoch in joined["epochs"]] == [2.0, 1.5, 1.6, 1.4, 1.35, 1.3, 1.4]
    assert joined["run_starts"] == [3, 5]
    assert earlier_epochs(record) == 4
    assert joined["best"] == {"epoch": 6, "val_loss": 1.3}
    assert joined["run"] == record["run"] | {"lr_edits": [{"epoch": 6, "lr": 0.1}]}
    assert "earlier_runs" not in joined


def test_a_run_that_began_with_random_weights_is_joined_to_nothing():
    record = make_record()
    assert join_runs(record) == record | {"run_starts": []}
    assert earlier_epochs(record) == 0
    assert "earlier_runs" not in make_history(record["run"], record["epochs"], [])


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"lr": 0.5, "seed": 3}, True),
        ({"text": "a copy"}, True),  # with the same SHA-256
        ({"text_sha256": "b" * 64}, False),
        ({"lowercase": True}, False),
        ({"min_count": 5}, False),
        ({"protocol": "windows"}, False),
        ({"split": {"train_chars": 800, "val_chars": 200}}, False),
        ({"split": {"val_chars": 100, "train_chars": 900, "shares": "0.90,0.10"}}, True),
    ],
)
def test_losses_can_be_compared_if_text_protocol_and_split_are_the_same(change, same):
    run = make_record(text_sha256="a" * 64, protocol="holdout")["run"]
    assert (measured_by(run) == measured_by(run | change)) == same


# The picture


def test_the_picture_shows_where_a_further_run_begins():
    joined, alone = make_joined_record((2.0, 1.5), (1.6, 1.4)), make_record((2.0, 1.5, 1.6, 1.4))
    one, other = (pixels(draw_curves(record, "title")).reshape(504, 840, 3) for record in (joined, alone))
    changed_pixels = np.any(one != other, axis=2).sum(axis=0)  # (width,): in each column
    middle = changed_pixels[400:520]  # between epochs 2 and 3
    assert middle.max() > 100 and np.count_nonzero(middle) <= 4


def test_the_picture_is_a_png_of_840_by_504_pixels():
    png = draw_curves(make_record(), "CharLSTM on tinyshakespeare")
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    with Image.open(io.BytesIO(png)) as picture:
        picture.verify()
        assert picture.size == (840, 504)


@pytest.mark.parametrize("losses", [(1.46, 1.375), (1.39, 1.38), (1.3852, 1.3847), (1e6, 2.0), (1236.0, 1234.5)])
def test_what_stands_beside_the_axis_is_in_the_picture_whole(losses):
    record = make_record(losses)
    for epoch in record["epochs"]:
        epoch["train_loss"] = epoch["val_loss"]
    with Image.open(io.BytesIO(draw_curves(record, ""))) as picture:
        edges = [picture.convert("L").crop(box) for box in ((0, 0, 4, 504), (836, 0, 840, 504), (0, 500, 840, 504))]
    assert [edge.getextrema() for edge in edges] == [(255, 255)] * 3


@pytest.mark.slow
def test_the_same_record_gives_the_same_bytes_and_another_record_others():
    png = draw_curves(make_record((2.0, 1.5, 1.75)), "title")
    _draw.cache_clear()
    assert draw_curves(make_record((2.0, 1.5, 1.75)), "title") == png
    assert draw_curves(make_record((2.0, 1.5, 1.7)), "title") != png
    assert draw_curves(make_record((2.0, 1.5, 1.75)), "another") != png


def test_the_same_curves_are_drawn_once(monkeypatch):
    record = make_record((2.0, 1.5, 1.25))
    png = draw_curves(record, "title")
    monkeypatch.setattr("matplotlib.figure.Figure", lambda **_: pytest.fail("they were drawn again"))
    record["run"]["seed"], record["epochs"][0]["sample"] = 7, "another"
    assert draw_curves(record, "title") is png


def test_a_curve_of_the_unseen_text_is_drawn_where_it_was_measured():
    green = (0x2C, 0xA0, 0x2C)  # the third colour of matplotlib's cycle
    record = make_record()
    assert not (pixels(draw_curves(record, "")) == green).all(axis=1).any()
    record["epochs"][0]["unseen_loss"] = 2.25
    record["epochs"][2]["unseen_loss"] = 1.75
    assert (pixels(draw_curves(record, "")) == green).all(axis=1).any()


def left_edge(png):
    """The column of the left side of the frame: the first one that is black from top to bottom."""
    columns = pixels(png).reshape(504, 840, 3).max(axis=2) < 60
    return int(np.argmax(columns.sum(axis=0) > 300))


def test_the_plot_is_as_wide_whichever_epoch_is_the_best():
    courses = [(1.5, 2.0, 2.5), (2.5, 1.5, 2.0), (2.5, 2.0, 1.5)]
    edges = {left_edge(draw_curves(make_record(losses), "")) for losses in courses}
    assert len(edges) == 1 and 0 < edges.pop() < 120


@pytest.mark.parametrize("losses", [(1.5,), (0.0,), (1e6, 1e-6), (1.0,) * 500], ids=len)
def test_any_course_can_be_drawn(losses):
    assert 0 < left_edge(draw_curves(make_record(losses), "title")) < 150


@pytest.mark.slow
# a warning, such as that of a missing glyph, fails a test
@pytest.mark.parametrize(
    "title", ["$", r"$\frac{$", "100 $ or 200 $", "소나기 한글 😀", "a\nb\tc\0", "x" * 1000, ""], ids=ascii
)
def test_any_title_is_drawn_without_a_warning(title):
    blank = pixels(draw_curves(make_record(), ""))
    assert np.array_equal(pixels(draw_curves(make_record(), title)), blank) == (title == "")


# Perplexity


@pytest.mark.parametrize(
    ("nats", "expected"), [(0.0, 1), (0.6931471805599453, 2), (2.302585092994046, 10), (1.5, 4.48168907)]
)
def test_perplexity_worked_by_hand(nats, expected):
    assert perplexity(nats) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("nats", [709.78, 710.0, 1e6, 1e308])
def test_perplexity_is_finite_however_bad_the_model(nats):
    assert perplexity(nats) == pytest.approx(sys.float_info.max, rel=0.01)
