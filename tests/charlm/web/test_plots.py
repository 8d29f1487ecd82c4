import csv
import io
import math

import pytest
from models import make_record

from charlm.errors import RequestError
from charlm.web.plots import (
    AXES,
    LOSS_UNITS,
    PlotSettings,
    draw_context,
    draw_plot,
    samples_at,
    settings_of,
    tabulate,
    write_csv,
)


def traces(*records, **settings):
    return {trace.name: trace for trace in draw_plot(records, PlotSettings(**settings)).data}


def test_the_curves_are_the_numbers_of_the_record():
    found = traces(("small", make_record((2.0, 1.5, 1.75))))
    assert list(found["small, validation"].x) == [1, 2, 3]
    assert list(found["small, validation"].y) == [2.0, 1.5, 1.75]
    assert list(found["small, training"].y) == pytest.approx([1.8, 1.35, 1.575])


def test_the_best_epoch_is_marked_where_its_validation_loss_lies():
    star = traces(("small", make_record((2.0, 1.5, 1.75))))["small, best: 1.5000 at epoch 2"]
    assert (list(star.x), list(star.y), star.marker.symbol) == ([2], [1.5], "star")


def test_a_loss_that_was_not_recorded_has_no_curve_and_one_that_was_has():
    record = make_record((2.0, 1.5))
    assert "small, unseen text" not in traces(("small", record))
    record["epochs"][1]["unseen_loss"] = 3.0
    unseen = traces(("small", record))["small, unseen text"]
    assert (list(unseen.x), list(unseen.y)) == ([2], [3.0])


def test_each_model_has_a_colour_of_its_own_for_all_its_curves():
    found = traces(("one", make_record()), ("two", make_record()))
    colours = {name: trace.line.color or trace.marker.color for name, trace in found.items()}
    assert len({colours[name] for name in colours if name.startswith("one")}) == 1
    assert len(set(colours.values())) == 2


def test_a_single_epoch_shows_as_a_point():
    assert "markers" in traces(("small", make_record((2.0,))))["small, validation"].mode


def test_no_models_leave_an_empty_plot():
    assert len(draw_plot([]).data) == 0


@pytest.mark.parametrize(
    ("unit", "losses"),
    [
        ("nats per character", [2.0, 1.5]),
        ("bits per character", [2.0 / math.log(2), 1.5 / math.log(2)]),
        ("perplexity", [math.e**2, math.e**1.5]),
    ],
)
def test_losses_are_shown_in_the_unit_that_is_asked_for(unit, losses):
    found = traces(("small", make_record((2.0, 1.5))), unit=unit)
    assert list(found["small, validation"].y) == pytest.approx(losses)
    (best,) = (trace for name, trace in found.items() if "best" in name)
    assert list(best.y) == pytest.approx(losses[1:])


@pytest.mark.parametrize(
    ("axis", "places"),
    [("epochs", [1, 2, 3]), ("seconds", [12.5, 25, 37.5]), ("characters read", [1e6, 2e6, 3e6])],
)
def test_losses_are_shown_over_what_is_asked_for(axis, places):
    found = traces(("small", make_record((2.0, 1.5, 1.75))), axis=axis)
    assert list(found["small, validation"].x) == pytest.approx(places)
    (best,) = (trace for name, trace in found.items() if "best" in name)
    assert list(best.x) == pytest.approx(places[1:2])


def test_the_loss_may_have_a_logarithmic_scale():
    assert draw_plot([("small", make_record())], PlotSettings(scale="log")).layout.yaxis.type == "log"


@pytest.mark.parametrize("wrong", [{"unit": "joules"}, {"axis": None}, {"scale": ["log"]}, {"unit": "x" * 10**6}])
def test_a_setting_that_does_not_exist_is_refused(wrong):
    with pytest.raises(RequestError, match="is not one of") as caught:
        PlotSettings(**wrong)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("unit", LOSS_UNITS)
@pytest.mark.parametrize("axis", AXES)
def test_the_wildest_figures_can_be_drawn(unit, axis):
    record = make_record((1e308, -1e308, 0.0))
    for epoch in record["epochs"]:
        epoch["seconds"] = epoch["chars_per_second"] = 1e200
    assert draw_plot([("wild", record)], PlotSettings(unit, axis)).to_json()


def test_twenty_models_are_drawn():
    assert len(draw_plot([(f"model {number}", make_record()) for number in range(20)]).data) == 60


def test_a_change_within_rounding_is_not_drawn():
    (curve,) = draw_context([("small", [0.5, 1e-3, 1e-12])], floor=1e-9).data
    assert (list(curve.x), list(curve.y)) == ([1, 2, 3], [0.5, 1e-3, None])


def test_the_table_has_a_row_for_every_epoch():
    rows = tabulate([("one", make_record((2.0, 1.5))), ("two", make_record((1.0,)))])
    assert [row[:2] + row[3:4] for row in rows] == [["one", 1, 2.0], ["one", 2, 1.5], ["two", 1, 1.0]]


def test_a_spreadsheet_reads_the_csv_back():
    records = [('a "name", with\nall', make_record((2.0, 1.5)))]
    rows = list(csv.DictReader(io.StringIO(write_csv(records))))
    assert [row["model"] for row in rows] == ['a "name", with\nall'] * 2
    assert [float(row["val_loss"]) for row in rows] == [2.0, 1.5]
    assert rows[0]["unseen_loss"] == ""


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_a_spreadsheet_reads_no_name_as_a_formula(name):
    assert write_csv([(name, make_record((2.0,)))]).splitlines()[1].startswith(f"'{name}")


def test_samples_are_those_after_the_epoch_or_the_last_before_it():
    long, short = make_record((2.0, 1.5, 1.2)), make_record((3.0,))
    for epoch in long["epochs"]:
        epoch["sample"] = f"sample {epoch['epoch']}"
    found = samples_at([("long", long), ("short", short)], 2)
    assert [(card["title"], card["text"]) for card in found] == [("long", "sample 2"), ("short", "a cab\nbade")]
    assert found[0]["about"] == "after epoch 2: training 1.3500, validation 1.5000"
    assert samples_at([("long", long)], 0)[0]["text"] == "sample 1"


def test_settings_stand_side_by_side():
    rows = settings_of([("one", make_record(lr=0.1)), ("two", make_record(dropout=0.5))])
    table = {row[0]: row[1:] for row in rows}
    assert table["lr"] == ["0.1", ""]
    assert table["dropout"] == ["", "0.5"]
    assert table["split.train_chars"] == ["900", "900"]


def test_a_name_cannot_bring_markup_into_the_plot():
    assert all("<" not in trace.name for trace in draw_plot([("<a href='x'>", make_record())]).data)


@pytest.mark.parametrize(("epochs", "step"), [(3, 1), (6, 1), (7, 2), (20, 5), (31, 10), (200, 50)])
def test_ticks_stand_at_round_epochs_and_are_never_more_than_six(epochs, step):
    figure = draw_plot([("small", make_record((2.0,) * epochs))])
    assert figure.layout.xaxis.dtick == step
