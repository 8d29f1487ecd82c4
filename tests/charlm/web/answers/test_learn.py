import json
from itertools import product

import pytest
from models import make_model, make_record

from charlm.errors import RequestError
from charlm.lm import CharLM
from charlm.model.history import draw_curves, read_history
from charlm.web.answers import learn
from charlm.web.answers.learn import MOST_MODELS
from charlm.web.models import ModelRegistry, ServedModel
from charlm.web.plots import AXES, COLUMNS, LOSS_UNITS, SCALES, PlotSettings


def make_registry(**records):
    served = []
    for name, record in records.items():
        model = make_model()
        served.append(ServedModel(name, CharLM(model.config, model.weights, record, device="cpu"), "folder"))
    return ModelRegistry(served)


REGISTRY = make_registry(one=make_record((2.0, 1.5, 1.2)), two=make_record((1.8, 1.7)), bare=None)


def test_any_number_of_models_is_drawn_and_those_without_a_record_are_named():
    names = [trace.name for trace in learn.plot(REGISTRY, ["two", "one", "bare"], PlotSettings()).data]
    assert {name.split(",")[0] for name in names} == {"one", "two"}
    assert learn.plot(REGISTRY, [], PlotSettings()).data == ()
    assert learn.read_curves(REGISTRY, ["bare", "one"])[0] == "bare came without a training record."


def test_a_model_that_is_named_twice_is_drawn_once():
    assert len(learn.plot(REGISTRY, ["one", "one"], PlotSettings()).data) == 3


def test_what_the_curves_say_comes_from_their_figures():
    said = " ".join(learn.read_curves(REGISTRY, ["one", "two"]))
    assert "1.2000" in said
    assert "1.7000" in said


def test_the_slider_reaches_to_the_last_epoch_of_all():
    assert learn.last_epoch(REGISTRY, ["one", "two"]) == 3
    assert learn.last_epoch(REGISTRY, ["bare"]) == 1
    assert [card["about"].split(":")[0] for card in learn.samples(REGISTRY, ["one", "two"], 3)] == [
        "after epoch 3",
        "after epoch 2",
    ]


def test_tables_have_a_heading_for_every_column():
    table, settings = learn.table(REGISTRY, ["one", "two"]), learn.run_settings(REGISTRY, ["one", "two"])
    assert table["headers"] == ["model", *COLUMNS]
    assert len(table["data"]) == 5
    assert settings["headers"] == ["setting", "one", "two"]
    assert all(len(row) == 3 for row in settings["data"])
    assert learn.csv(REGISTRY, ["two"]).splitlines()[0] == "model," + ",".join(COLUMNS)


@pytest.mark.parametrize("names", [None, "one", {"one": 1}, ["nobody"], [None], [["one"]], ["one"] * (MOST_MODELS + 1)])
def test_an_invalid_choice_of_models_is_refused(names):
    for ask in (
        learn.read_curves,
        learn.table,
        learn.csv,
        learn.run_settings,
        learn.last_epoch,
        lambda registry, names: learn.samples(registry, names, 1),
        lambda registry, names: learn.plot(registry, names, PlotSettings()),
    ):
        with pytest.raises(RequestError):
            ask(REGISTRY, names)


@pytest.mark.parametrize("epoch", [None, -1, 1.5, "2", True])
def test_an_invalid_epoch_is_refused(epoch):
    with pytest.raises(RequestError, match="epoch"):
        learn.samples(REGISTRY, ["one"], epoch)


LARGEST = 10**308  # written as a whole number of 309 digits
FIGURES = ("train_loss", "val_loss", "unseen_loss", "learning_rate", "seconds", "chars_per_second")


@pytest.mark.parametrize(
    "values", [(LARGEST, -LARGEST, LARGEST), (1e308, LARGEST, 0), (-1, -2, -3), (0, 0, 0)], ids=repr
)
def test_every_record_that_is_accepted_can_be_shown(values):
    record = make_record((1.0, 1.0, 1.0))
    for epoch, value in zip(record["epochs"], values, strict=True):
        epoch |= dict.fromkeys(FIGURES, value)
    record["best"]["val_loss"] = values[0]
    record["run"] |= {"text": "", "protocol": ["windows"], "seed": {"a": [None]}}
    registry = make_registry(odd=read_history(json.dumps(record)), one=make_record())
    names = registry.names
    for settings in product(LOSS_UNITS, AXES, SCALES):
        assert learn.plot(registry, names, PlotSettings(*settings)).to_json()
    assert learn.last_epoch(registry, names) == 3
    assert [card["title"] for card in learn.samples(registry, names, 3)] == names
    assert len(learn.table(registry, names)["data"]) == 6
    assert learn.read_curves(registry, names) and learn.csv(registry, names) and learn.run_settings(registry, names)
    assert draw_curves(registry["odd"].lm.history, "")
