import pytest
from models import make_joined_record, make_record

from charlm.errors import RequestError
from charlm.web.plots import (
    PlotSettings,
    draw_context,
    draw_plot,
    epoch_at,
    sample_card,
    settings_of,
    tabulate,
)


def test_what_is_drawn_are_the_numbers_of_the_record_and_the_settings():
    record = make_record((2.0, 1.5, 1.75))
    drawn = draw_plot([("small", record)], PlotSettings("perplexity", "seconds", "log"))
    ((name, curves),) = drawn["records"]
    assert (name, curves["best"]) == ("small", record["best"])
    assert [epoch["val_loss"] for epoch in curves["epochs"]] == [2.0, 1.5, 1.75]
    assert [epoch["train_loss"] for epoch in curves["epochs"]] == pytest.approx([1.8, 1.35, 1.575])
    assert all("sample" not in epoch for epoch in curves["epochs"])  # it would be sent at each change of a setting
    assert [drawn[name] for name in ("unit", "axis", "scale")] == ["perplexity", "seconds", "log"]


def test_no_models_leave_an_empty_plot():
    assert draw_plot([])["records"] == []


@pytest.mark.parametrize("wrong", [{"unit": "joules"}, {"axis": None}, {"scale": ["log"]}, {"unit": "x" * 10**6}])
def test_a_setting_that_does_not_exist_is_refused(wrong):
    with pytest.raises(RequestError, match="is not one of") as caught:
        PlotSettings(**wrong)
    assert len(str(caught.value)) < 300


def test_a_change_within_rounding_is_not_drawn():
    (curve,) = draw_context([("small", [0.5, 1e-3, 1e-12])], floor=1e-9)["series"]
    assert curve["points"] == [[1, 0.5], [2, 1e-3], [3, None]]


def test_the_table_has_a_row_for_every_epoch():
    rows = tabulate([("one", make_record((2.0, 1.5))), ("two", make_record((1.0,)))])
    assert [row[:2] + row[3:4] for row in rows] == [["one", 1, 2.0], ["one", 2, 1.5], ["two", 1, 1.0]]


def test_samples_are_those_after_the_epoch_or_the_last_before_it():
    long, short = make_record((2.0, 1.5, 1.2)), make_record((3.0,))
    for epoch in long["epochs"]:
        epoch["sample"] = f"sample {epoch['epoch']}"
    found = [sample_card(name, epoch_at(record, 2)) for name, record in (("long", long), ("short", short))]
    assert [(card["title"], card["text"]) for card in found] == [("long", "sample 2"), ("short", "a cab\nbade")]
    assert found[0]["about"] == "after epoch 2: training 1.3500, validation 1.5000"
    assert sample_card("long", epoch_at(long, 0))["text"] == "sample 1"


def test_earlier_runs_are_drawn_tabulated_and_shown_with_the_last_one():
    record = make_joined_record((2.0, 1.5, 1.75), (1.4, 1.3))
    record["earlier_runs"][0]["epochs"][1]["sample"] = "early"
    ((_, curves),) = draw_plot([("net", record)])["records"]
    assert [epoch["val_loss"] for epoch in curves["epochs"]] == [2.0, 1.5, 1.4, 1.3]
    assert (curves["run_starts"], curves["best"]["epoch"]) == ([3], 4)
    assert [row[1:4:2] for row in tabulate([("net", record)])] == [[1, 2.0], [2, 1.5], [3, 1.4], [4, 1.3]]
    assert sample_card("net", epoch_at(record, 2))["text"] == "early"
    assert sample_card("net", epoch_at(record, 9))["about"].startswith("after epoch 4: ")


def test_settings_stand_side_by_side():
    rows = settings_of([("one", make_record(lr=0.1)), ("two", make_record(dropout=0.5))])
    table = {row[0]: row[1:] for row in rows}
    assert table["lr"] == ["0.1", ""]
    assert table["dropout"] == ["", "0.5"]
    assert table["split.train_chars"] == ["900", "900"]
