import pytest
from models import make_record

from charlm.web.curves import draw_plot


def traces(*records):
    return {trace.name: trace for trace in draw_plot(records).data}


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


def test_models_without_a_record_leave_an_empty_plot():
    assert len(draw_plot([("one", None), ("two", None)]).data) == 0


def test_a_name_cannot_bring_markup_into_the_plot():
    assert all("<" not in trace.name for trace in draw_plot([("<a href='x'>", make_record())]).data)


@pytest.mark.parametrize(("epochs", "step"), [(3, 1), (6, 1), (7, 2), (20, 5), (31, 10), (200, 50)])
def test_ticks_stand_at_round_epochs_and_are_never_more_than_six(epochs, step):
    figure = draw_plot([("small", make_record((2.0,) * epochs))])
    assert figure.layout.xaxis.dtick == step
