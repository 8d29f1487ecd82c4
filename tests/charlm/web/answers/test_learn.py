import json
from itertools import product

import orjson
import pytest
from loops import run_async
from models import keep_epochs, make_model, make_record, save

from charlm.errors import RequestError
from charlm.lm import CharLM
from charlm.model.history import draw_curves, read_history, runs_until_best
from charlm.web.answers import learn
from charlm.web.answers.learn import MOST_MODELS
from charlm.web.models import ModelRegistry, ServedModel, load_registry
from charlm.web.page import build_page
from charlm.web.plots import AXES, COLUMNS, LOSS_UNITS, SCALES, PlotSettings


def make_registry(**records):
    served = []
    for name, record in records.items():
        model = make_model()
        served.append(ServedModel(name, CharLM(model.config, model.weights, record, device="cpu"), "folder"))
    return ModelRegistry(served)


REGISTRY = make_registry(one=make_record((2.0, 1.5, 1.2)), two=make_record((1.8, 1.7)), bare=None)


def texts(registry, names):
    """What is said of the curves, without the places on them."""
    return [remark["text"] for remark in learn.read_curves(registry, names)]


def names_of(chart):
    return [name for name, _ in chart["records"]]


def curves(registry, names):
    """What draws the loss curves, without what is said of them."""
    return {name: value for name, value in learn.chart(registry, names, PlotSettings()).items() if name != "reading"}


def test_any_number_of_models_is_drawn_and_those_without_a_record_are_named():
    assert names_of(learn.chart(REGISTRY, ["two", "one", "bare"], PlotSettings())) == ["two", "one"]
    assert names_of(learn.chart(REGISTRY, [], PlotSettings())) == []
    assert texts(REGISTRY, ["bare", "one"])[0] == "bare came without a training record."


def spoilt(**values):
    """A record whose epochs hold these values."""
    record = make_record((2.0, 1.5))
    for number, epoch in enumerate(record["epochs"]):
        epoch.update({name: given[number] for name, given in values.items()})
    return record | {"best": {"epoch": record["epochs"][1]["epoch"], "val_loss": 1.5}}


HOSTILE = {
    "negative epochs": spoilt(epoch=(-2, -1)),
    "an epoch that no browser can count": spoilt(epoch=(1, 10**30)),
    "a loss that no browser can hold": spoilt(train_loss=(1.0, 10**300)),
    "a text for a number": spoilt(val_loss=(1.5, "1.5")),
    "a field that is missing": make_record() | {"epochs": [{"epoch": 2, "val_loss": 1.5}]},
    "no epochs": make_record() | {"epochs": []},
    "settings that are a list": make_record() | {"run": []},
}


@pytest.mark.slow
@pytest.mark.parametrize("record", HOSTILE.values(), ids=HOSTILE)
def test_a_record_that_cannot_be_shown_is_named_and_the_others_are_shown(record):
    registry, names = make_registry(one=REGISTRY["one"].lm.history, hostile=record), ["hostile", "one"]
    said = texts(registry, names)
    assert said[0].startswith("hostile has a training record that cannot be shown: ")
    assert said[1:] == texts(REGISTRY, ["one"])
    assert curves(registry, names) == curves(REGISTRY, ["one"])
    assert learn.last_epoch(registry, names) == 3
    assert learn.samples(registry, names, 3) == learn.samples(REGISTRY, ["one"], 3)
    assert learn.table(registry, names) == learn.table(REGISTRY, ["one"])
    assert learn.run_settings(registry, names) == learn.run_settings(REGISTRY, ["one"])
    assert learn.unshown(registry) == said[:1]
    assert learn.unshown(REGISTRY) == []


def test_a_record_that_could_not_be_read_is_named_like_one_that_cannot_be_shown():
    registry = make_registry(one=REGISTRY["one"].lm.history, damaged=None)
    registry["damaged"].lm.record_problem = "history.json: epochs must be a list"
    said = texts(registry, ["damaged", "one"])
    assert said[0] == "damaged has a training record that cannot be shown: history.json: epochs must be a list."
    assert learn.unshown(registry) == said[:1]
    assert curves(registry, ["damaged", "one"]) == curves(REGISTRY, ["one"])


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, -1], ids=["hostile records last", "hostile records first"])
def test_the_page_is_built_and_can_be_sent_whatever_the_records_hold(order):
    records = list({"one": make_record(), **HOSTILE}.items())[::order]

    async def build():  # inside of an event loop: outside of one, Gradio makes loops that nobody closes
        return build_page(make_registry(**dict(records)), "cpu")

    page = run_async(build())
    sent = orjson.dumps(page.get_config_file(), option=orjson.OPT_SERIALIZE_NUMPY, default=str).decode()
    assert [name for name in HOSTILE if f"{name} has a training record that cannot be shown" in sent] == [*HOSTILE]


def test_models_of_another_text_or_protocol_are_not_drawn_beside_the_first():
    others = {"text": make_record(text="names"), "protocol": make_record(protocol="windows"), "bare": None}
    registry = make_registry(**others, first=make_record(text="verse"), second=make_record(text="verse"))
    assert learn.comparable(registry, 3) == ["text"]
    registry = make_registry(first=make_record(), **others, second=make_record(), third=make_record())
    assert learn.comparable(registry, 3) == ["first", "second", "third"]
    assert learn.comparable(registry, 2) == ["first", "second"]


def test_a_model_that_is_named_twice_is_drawn_once():
    assert names_of(learn.chart(REGISTRY, ["one", "one"], PlotSettings())) == ["one"]


def test_what_the_curves_say_comes_from_their_figures():
    said = " ".join(texts(REGISTRY, ["one", "two"]))
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


@pytest.mark.parametrize("names", [None, "one", {"one": 1}, ["nobody"], [None], [["one"]], ["one"] * (MOST_MODELS + 1)])
def test_an_invalid_choice_of_models_is_refused(names):
    for ask in (
        learn.read_curves,
        learn.table,
        learn.run_settings,
        learn.last_epoch,
        lambda registry, names: learn.samples(registry, names, 1),
        lambda registry, names: learn.chart(registry, names, PlotSettings()),
    ):
        with pytest.raises(RequestError):
            ask(REGISTRY, names)


@pytest.mark.parametrize("epoch", [None, -1, 1.5, "2", True])
def test_an_invalid_epoch_is_refused(epoch):
    with pytest.raises(RequestError, match="epoch"):
        learn.samples(REGISTRY, ["one"], epoch)


LARGEST = 10**308  # written as a whole number of 309 digits
FIGURES = ("train_loss", "val_loss", "unseen_loss", "learning_rate", "seconds", "chars_per_second")


@pytest.mark.slow
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
        assert json.dumps(learn.chart(registry, names, PlotSettings(*settings)), allow_nan=False)
    assert learn.last_epoch(registry, names) == 3
    assert [card["title"] for card in learn.samples(registry, names, 3)] == names
    assert len(learn.table(registry, names)["data"]) == 6
    assert learn.read_curves(registry, names) and learn.run_settings(registry, names)
    assert draw_curves(registry["odd"].lm.history, "")


FIELDS = {"prompt": "a bad", "length": 40, "temperature": 0.7, "top_k": 3, "top_p": 0.9, "seed": "7"}


@pytest.fixture
def folder(tmp_path):
    """A model of three epochs, the second of them the best, that has kept the weights of epochs 1 and 3."""
    folder = save(make_model("lstm"), tmp_path / "kept")
    keep_epochs(folder, 1, 3)
    return folder


@pytest.fixture
def registry(folder, tmp_path):
    save(make_model("gru"), tmp_path / "plain")
    return load_registry([str(folder), str(tmp_path / "plain")], tmp_path / "none", "cpu")


def names(registry):
    (kept, plain) = registry.names
    return kept, plain


def test_at_a_kept_epoch_a_model_writes_as_it_was_then_and_as_it_is_with_the_settings_of_write(registry, folder):
    kept, plain = names(registry)
    early, late, stored = learn.samples(registry, [kept, plain], 1, FIELDS)
    for card, epoch in ((early, 1), (late, None)):
        lm = CharLM.from_pretrained(folder, epoch=epoch, device="cpu")
        assert card["title"] == kept
        assert card["text"] == "a bad" + lm.generate("a bad", 40, 0.7, top_k=3, top_p=0.9, seed=7)
    assert early["text"] != late["text"]
    assert early["about"] == "after epoch 1: training 1.8000, validation 2.0000 · written now, seed 7"
    assert late["about"] == "the best, after epoch 2: training 1.3500, validation 1.5000 · written now, seed 7"
    assert stored == learn.samples(registry, [plain], 1)[0]


def test_at_other_epochs_and_without_the_settings_of_write_the_samples_of_the_record_are_shown(registry):
    kept, plain = names(registry)
    assert learn.samples(registry, [kept, plain], 2, FIELDS) == learn.samples(registry, [kept, plain], 2)
    assert [card["text"] for card in learn.samples(registry, [kept], 1)] == ["a cab\nbade"]


def test_kept_epochs_are_numbered_behind_those_of_earlier_runs(folder, tmp_path):
    path = folder / "history.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(record | {"earlier_runs": runs_until_best(make_record((3.0, 2.5)), "before")}))
    registry = load_registry([str(folder)], tmp_path / "none", "cpu")
    assert learn.last_epoch(registry, registry.names) == 5
    assert "has checkpoints of epochs 3, 5: " in learn.kept(registry, registry.names)[0]
    assert len(learn.samples(registry, registry.names, 1, FIELDS)) == 1
    early, late = learn.samples(registry, registry.names, 3, FIELDS)
    assert early["text"] == "a bad" + CharLM.from_pretrained(folder, epoch=1, device="cpu").generate(
        "a bad", 40, 0.7, top_k=3, top_p=0.9, seed=7
    )
    assert early["about"].startswith("after epoch 3: training 1.8000") and late["about"].startswith(
        "the best, after epoch 4: "
    )


def test_the_last_epoch_writes_where_the_slider_goes_beyond_it(registry):
    kept, _ = names(registry)
    assert learn.samples(registry, [kept], 9, FIELDS) == learn.samples(registry, [kept], 3, FIELDS)
    assert learn.samples(registry, [kept], 3, FIELDS)[0]["about"].startswith("after epoch 3: ")


def test_without_a_seed_both_texts_are_drawn_with_the_same_one(registry):
    kept, _ = names(registry)
    early, late = learn.samples(registry, [kept], 1, FIELDS | {"seed": ""})
    assert early["about"].split("seed ")[1] == late["about"].split("seed ")[1]


def test_at_the_best_epoch_a_model_writes_once(folder, tmp_path):
    keep_epochs(folder, 2)
    registry = load_registry([str(folder)], tmp_path / "none", "cpu")
    assert len(learn.samples(registry, registry.names, 2, FIELDS)) == 1


def test_what_is_written_for_a_position_of_the_slider_has_a_bound(registry, monkeypatch):
    kept, _ = names(registry)
    early, late = learn.samples(registry, [kept], 1, FIELDS | {"length": 5000, "prompt": ""})
    assert len(early["text"]) == len(late["text"]) == learn.LONGEST_SAMPLE
    monkeypatch.setattr(learn, "MOST_WRITTEN", 20)
    assert len(learn.samples(registry, [kept], 1, FIELDS | {"prompt": ""})[0]["text"]) == 10


def test_symbols_of_the_prompt_that_a_model_does_not_know_are_left_out(registry):
    kept, _ = names(registry)
    assert learn.samples(registry, [kept], 1, FIELDS | {"prompt": "a Zbad"}) == learn.samples(
        registry, [kept], 1, FIELDS
    )


def test_weights_that_cannot_be_used_leave_the_sample_of_the_record_and_say_why(registry, folder):
    kept, _ = names(registry)
    (folder / "epochs" / "0003.safetensors").write_bytes(b"damaged")
    (card,) = learn.samples(registry, [kept], 3, FIELDS)
    assert card["text"] == "a cab\nbade"
    assert "Its record's sample, since it cannot write: " in card["about"]
    assert "epochs/0003.safetensors is not the file that history.json describes" in card["about"]


@pytest.mark.parametrize("wrong", [{"seed": "x"}, {"length": 0}, {"temperature": "hot"}, {"prompt": None}])
def test_settings_of_write_that_cannot_be_are_refused_only_where_a_model_writes(registry, wrong):
    kept, plain = names(registry)
    with pytest.raises(RequestError):
        learn.samples(registry, [kept], 1, FIELDS | wrong)
    assert learn.samples(registry, [plain], 1, FIELDS | wrong) == learn.samples(registry, [plain], 1)


@pytest.mark.slow
def test_the_page_says_which_epochs_were_kept_and_passes_the_settings_of_write(registry):
    kept, plain = names(registry)
    assert learn.kept(registry, [plain]) == []
    (said,) = learn.kept(registry, [kept, plain])
    assert said.startswith(f"{kept} has checkpoints of epochs 1, 3: at these it writes a new text")

    async def build():
        return build_page(registry, "cpu")

    page = run_async(build())
    (event,) = [each for each in page.fns.values() if "samples" in [out.elem_id for out in each.outputs]]
    fields = ["prompt", "length", "temperature", "top-k", "top-p", "seed"]
    assert [each.elem_id for each in event.inputs] == ["learn-models", "epoch", *fields]
    # for_page and Gradio wrap the function; the settings in the order of the fields
    assert learn.samples(registry, [kept], 1, FIELDS) == event.fn([kept], 1, *FIELDS.values())
