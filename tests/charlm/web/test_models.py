import json

import pytest
from hub_client import FIVE
from models import keep_epochs, make_lm, make_model, save

from charlm.errors import HubError, HubUnavailableError, ModelFileError, RequestError
from charlm.lm import CharLM
from charlm.web import models as models_module
from charlm.web.answers import learn
from charlm.web.models import ModelRegistry, ServedModel, load_registry, retry_hub


@pytest.fixture
def bundled(tmp_path):
    for cell in ("rnn", "lstm"):
        save(make_model(cell), tmp_path / "weights" / f"small-{cell}")
    return tmp_path / "weights"


@pytest.fixture
def hub_of(monkeypatch):
    """Let CharLM find repositories in a table: a model's name → what loading it gives or raises."""

    def install(table):
        load = CharLM.from_pretrained

        def from_pretrained(place, **options):
            name = str(place).removeprefix("hf://")
            if name not in table:
                return load(place, **options)
            if isinstance(table[name], Exception):
                raise table[name]
            return table[name]

        monkeypatch.setattr(models_module.CharLM, "from_pretrained", from_pretrained)

    return install


def from_hub(source, revision):
    lm = make_lm("gru")
    lm.source, lm.revision = source, revision
    return lm


def sources(registry):
    return {model.name: model.source for model in registry}


def test_nothing_named_serves_every_bundled_folder_in_order(bundled):
    registry = load_registry([], bundled, "cpu")
    assert sources(registry) == {"small-lstm": "bundled", "small-rnn": "bundled"}
    assert registry.names == ["small-lstm", "small-rnn"]
    assert registry.problems == ()


@pytest.mark.slow
def test_bundled_models_start_with_an_lstm_and_an_rnn_of_plays_and_end_with_those_whose_loss_leaks(tmp_path):
    for name, cell, protocol, text in [
        ("a-lstm", "lstm", "windows", "tinyshakespeare"),
        ("b-rnn", "rnn", "windows", "tinyshakespeare"),
        ("b-lstm", "lstm", "holdout", "c"),
        ("c-gru", "gru", "holdout", "tinyshakespeare"),
        ("d-lstm", "lstm", "holdout", "tinyshakespeare"),
        ("e-rnn", "rnn", "holdout", "tinyshakespeare"),
    ]:
        model = make_model(cell)
        model.history["run"] |= {"protocol": protocol, "text": text}
        save(model, tmp_path / name)
    assert load_registry([], tmp_path, "cpu").names == ["d-lstm", "e-rnn", "c-gru", "b-lstm", "a-lstm", "b-rnn"]


def test_named_folders_are_served_in_their_order_by_their_last_part(bundled, tmp_path):
    mine = save(make_model("gru"), tmp_path / "mine")
    registry = load_registry([str(mine), str(bundled / "small-rnn")], bundled, "cpu")
    assert sources(registry) == {"mine": "folder", "small-rnn": "bundled"}
    assert registry["mine"].lm.config.cell == "gru"


def test_two_folders_of_the_same_last_part_are_told_apart(bundled, tmp_path):
    folders = [str(save(make_model(cell), tmp_path / cell / "model")) for cell in ("rnn", "lstm")]
    registry = load_registry(folders, bundled, "cpu")
    assert registry.names == folders
    assert [model.lm.config.cell for model in registry] == ["rnn", "lstm"]


def test_a_model_named_twice_is_served_once(bundled):
    assert load_registry([str(bundled / "small-rnn")] * 2, bundled, "cpu").names == ["small-rnn"]


def test_a_repository_is_served_under_its_full_name_with_its_commit(bundled, hub_of):
    hub_of({"ada/poems": from_hub("hub", "0123456789abcdef"), "ada/prose": from_hub("cache", "fedcba9876543210")})
    registry = load_registry(["ada/poems", "ada/prose"], bundled, "cpu")
    assert sources(registry) == {"ada/poems": "hub", "ada/prose": "cache"}
    assert "from the Hub, commit 0123456 " in str(registry["ada/poems"])
    assert "from the Hub's cache on this machine, commit fedcba9 " in str(registry["ada/prose"])
    assert registry["ada/poems"].about.endswith(" · from the Hub")


def test_a_repository_that_cannot_be_loaded_becomes_a_problem_and_the_rest_is_served(bundled, hub_of):
    hub_of({"ada/gone": HubUnavailableError("the Hub is away")})
    registry = load_registry(["ada/gone", str(bundled / "small-rnn")], bundled, "cpu")
    assert registry.names == ["small-rnn"]
    assert registry.problems == ("the Hub is away",)


def test_when_no_named_repository_can_be_loaded_the_bundled_models_are_served(bundled, hub_of):
    hub_of({"ada/gone": HubUnavailableError("the Hub is away"), "ada/bad": ModelFileError("the weights are damaged")})
    registry = load_registry(["ada/gone", "ada/bad"], bundled, "cpu")
    assert registry.names == ["small-lstm", "small-rnn"]
    assert registry.problems == ("the Hub is away", "the weights are damaged")


def test_a_model_that_is_required_and_cannot_be_loaded_is_an_error_and_no_other_is_shown_instead(bundled, hub_of):
    problem = HubUnavailableError("the Hub is away")
    hub_of({"ada/gone": problem})
    with pytest.raises(HubUnavailableError) as error:
        load_registry(["ada/gone"], bundled, "cpu", required=True)
    assert error.value is problem


def test_of_several_required_models_those_that_can_be_loaded_are_served_and_the_others_told(bundled, hub_of):
    hub_of({"ada/gone": HubUnavailableError("the Hub is away")})
    registry = load_registry(["ada/gone", str(bundled / "small-rnn")], bundled, "cpu", required=True)
    assert (registry.names, registry.problems) == (["small-rnn"], ("the Hub is away",))


@pytest.mark.parametrize(("refused", "status"), [(HubError("it is private"), 2), (HubUnavailableError("busy"), 1)])
def test_if_none_of_several_required_models_can_be_loaded_one_line_says_why_for_each(bundled, hub_of, refused, status):
    hub_of({"ada/gone": HubUnavailableError("the Hub is away"), "ada/refused": refused})
    with pytest.raises(type(refused), match=f"^none of the models can be served: the Hub is away; {refused}$") as error:
        load_registry(["ada/gone", "ada/refused"], bundled, "cpu", required=True)
    assert error.value.exit_status == status


def test_without_a_required_name_the_bundled_models_are_served(bundled):
    assert load_registry([], bundled, "cpu", required=True).names == ["small-lstm", "small-rnn"]


def test_a_folder_that_holds_no_sound_model_is_the_users_mistake(bundled, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelFileError, match=r"config\.json is missing"):
        load_registry([str(tmp_path / "empty")], bundled, "cpu")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_damaged_folder_is_told_and_the_rest_served(bundled, tmp_path, file):
    damaged = save(make_model("gru"), tmp_path / "mine")
    (damaged / file).write_text("{")
    registry = load_registry([str(damaged), str(bundled / "small-rnn")], bundled, "cpu")
    assert registry.names == ["small-rnn"]
    (problem,) = registry.problems
    assert problem.startswith(f"{damaged}: {file} ")
    assert registry.to_retry == []


def test_a_damaged_record_among_the_bundled_ones_is_told_and_its_model_served_without(bundled):
    record = json.loads((bundled / "small-rnn" / "history.json").read_text(encoding="utf-8"))
    for number, epoch in enumerate(record["epochs"]):
        epoch["epoch"] = number - 3
    record["best"]["epoch"] = -1
    (bundled / "small-rnn" / "history.json").write_text(json.dumps(record), encoding="utf-8")
    said = (
        r"small-rnn: history\.json: epochs\[0\]\.epoch is -3; epochs are numbered 1, 2, 3 .*; the model is used without"
    )
    with pytest.warns(UserWarning, match=said):
        registry = load_registry([], bundled, "cpu")
    assert registry.names == ["small-lstm", "small-rnn"]  # which writes without its record
    assert registry.problems == ()
    (notice,) = learn.unshown(registry)
    assert notice.startswith(
        "small-rnn has a training record that cannot be shown: history.json: epochs[0].epoch is -3; epochs are numbered"
    )


def test_a_model_too_large_for_the_memory_is_told_and_the_rest_served(bundled, hub_of):
    hub_of({"ada/large": MemoryError()})
    registry = load_registry(["ada/large", str(bundled / "small-rnn")], bundled, "cpu")
    assert registry.names == ["small-rnn"]
    assert registry.problems[0].startswith("ada/large needs more memory than is free")


def test_one_model_under_several_names_is_served_once(bundled, hub_of):
    hub_of({"ada/poems": from_hub("hub", "1" * 40)})
    assert load_registry(["ada/poems", "hf://ada/poems"], bundled, "cpu").names == ["ada/poems"]


def test_a_repository_that_is_named_as_one_is_not_the_folder_of_that_name(tmp_path, monkeypatch, hub_of):
    save(make_model("rnn"), tmp_path / "ada" / "poems")
    monkeypatch.chdir(tmp_path)
    hub_of({"ada/poems": from_hub("hub", "1" * 40)})
    assert sources(load_registry(["hf://ada/poems"], tmp_path / "weights", "cpu")) == {"ada/poems": "hub"}


def test_a_name_that_is_neither_folder_nor_repository_is_the_users_mistake(bundled):
    with pytest.raises(ModelFileError, match="neither a folder here nor the name of a Hub repository"):
        load_registry(["no such folder"], bundled, "cpu")


def test_with_nothing_to_serve_the_message_tells_how_to_get_a_model(tmp_path, hub_of):
    hub_of({"ada/gone": HubUnavailableError("the Hub is away")})
    with pytest.raises(RequestError, match="^the Hub is away; there is no model to serve: name one with --model"):
        load_registry(["ada/gone"], tmp_path / "weights", "cpu")


def test_an_unknown_model_is_refused():
    registry = ModelRegistry([ServedModel("small", make_lm(), "folder")])
    with pytest.raises(RequestError, match="there is no model 'large' here; choose one of small"):
        registry["large"]


def test_repositories_are_loaded_in_the_background_once_the_hub_answers(bundled, hub_of):
    table = {
        "ada/gone": HubUnavailableError("the Hub is away"),
        "ada/kept": from_hub("cache", "0123456789abcdef"),
        "ada/refused": HubError("it is private"),
    }
    hub_of(table)
    registry = load_registry(["ada/gone", "ada/kept", "ada/refused"], bundled, "cpu")
    assert sources(registry) == {"ada/kept": "cache"}
    assert registry.to_retry == ["ada/gone", "ada/kept"]
    asked = []

    def waits():
        """Let the Hub answer after the second question."""
        for number in range(9):
            asked.append((number, sources(registry), registry.problems))
            if number == 1:
                table["ada/gone"] = from_hub("hub", "1" * 40)
                table["ada/kept"] = from_hub("hub", "2" * 40)
            yield 0

    thread = retry_hub(registry, "cpu", waits())
    thread.join(60)
    assert not thread.is_alive()
    # nothing had changed after the first question, and a third was not needed
    before = {"ada/kept": "cache"}, ("the Hub is away", "it is private")
    assert asked[:2] == [(0, *before), (1, *before)] and len(asked) <= 3
    assert sources(registry) == {"ada/kept": "hub", "ada/gone": "hub"}
    assert registry["ada/kept"].lm.revision == "2" * 40
    assert registry.problems == ("it is private",)
    assert registry.to_retry == []


def test_a_hub_that_gave_everything_is_not_asked_again(bundled):
    registry = load_registry([], bundled, "cpu")
    thread = retry_hub(registry, "cpu", iter([0.0]))
    thread.join(60)
    assert not thread.is_alive() and registry.names == ["small-lstm", "small-rnn"]


@pytest.mark.parametrize("name", ["ada/kept", "ada/kept@v1"])
def test_a_model_of_the_hub_is_had_at_an_epoch_of_the_commit_that_is_served(hub, tmp_path, name):
    folder = save(make_model(), tmp_path / "kept")
    keep_epochs(folder, 1, 3)
    names = [*FIVE, "epochs/0001.safetensors", "epochs/0003.safetensors"]
    repo = hub.add_repo("ada/kept", {name: (folder / name).read_bytes() for name in names})
    served = repo.refs["v1"] = repo.refs["main"]
    (model,) = load_registry([name], tmp_path / "none", "cpu")
    repo.commit({"history.json": b"{}"})
    assert (model.epochs, model.lm.revision) == ([1, 3], served)
    lm = model.at_epoch(3)
    assert lm.revision == served
    assert lm.generate(length=30, seed=1) == CharLM.from_pretrained(folder, epoch=3).generate(length=30, seed=1)
    assert model.at_epoch(3) is lm


def test_a_visitors_model_writes_at_no_epoch(tmp_path):
    folder = save(make_model(), tmp_path / "kept")
    keep_epochs(folder, 1)
    assert ServedModel("mine", CharLM.from_pretrained(folder), "trained").epochs == []


def test_the_line_about_a_model_says_what_it_is_and_how_good():
    trained = ServedModel("one", make_lm("gru", hidden_size=16), "folder")
    parameters = trained.lm.config.parameters
    assert str(trained).startswith(
        f"CharGRU 2×16 · {parameters:,} parameters · validation loss 1.500 · 10 symbols · from"
    )
    without = ServedModel("one", CharLM(trained.lm.config, trained.lm._weights, device="cpu"), "folder")
    assert "loss" not in str(without)
