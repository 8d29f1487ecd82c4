from concurrent.futures import ThreadPoolExecutor

import pytest
from models import make_lm, make_model, save

from charlm.errors import CharLMError, HubError, RequestError
from charlm.publishing import push_folder
from charlm.web.answers.load import Downloader, describe, may_load, search
from charlm.web.models import MOST_VISITOR_MODELS, ModelRegistry, ServedModel, load_registry


@pytest.fixture
def ada(hub, tmp_path):
    """A Hub with a model of charlm."""
    hub.add_user("ada", "hf_ada")
    push_folder(save(make_model("gru"), tmp_path / "model"), "ada/poems", token="hf_ada")
    hub.requests.clear()
    return hub


@pytest.fixture
def registry():
    return ModelRegistry([ServedModel("small", make_lm(), "folder")])


def test_a_model_is_found_described_and_loaded(ada, registry):
    downloader = Downloader(registry, "cpu")
    assert search("poem") == ["ada/poems"]
    assert search(" ada/anything ") == ["ada/anything"]
    offer = describe("ada/poems")
    assert offer.fits
    assert offer.lines[0].startswith("ada/poems, commit ")
    assert downloader.load("ada/poems") == "ada/poems"
    assert registry["ada/poems"].lm.generate("ab", 20, seed=1) == make_lm("gru").generate("ab", 20, seed=1)
    assert {request.token for request in ada.requests} == {None}


def test_the_commit_that_was_described_is_loaded_though_there_is_a_newer_one(ada, registry, tmp_path):
    description = describe("ada/poems")
    push_folder(save(make_model("rnn"), tmp_path / "newer"), "ada/poems", token="hf_ada")
    assert describe("ada/poems").commit != description.commit
    Downloader(registry, "cpu").load("ada/poems", description.commit)
    assert (registry["ada/poems"].lm.config.cell, registry["ada/poems"].lm.revision) == ("gru", description.commit)
    with pytest.raises(RequestError, match="not a commit of a repository"):
        Downloader(registry, "cpu").load("ada/poems", "main")


def test_a_model_with_a_damaged_record_is_loaded_and_the_record_named(ada, registry):
    downloader = Downloader(registry, "cpu")
    downloader.load("ada/poems")
    assert downloader.report("ada/poems") == [
        "ada/poems is loaded: it is model A of Write, and can be chosen in the other views."
    ]
    card, files = "ada/verses", ada.repos["ada/poems"].files
    ada.add_repo(card, files | {"history.json": b"{}"})
    downloader.load(card)
    assert registry[card].lm.generate("ab", 20, seed=1) == make_lm("gru").generate("ab", 20, seed=1)
    _, fault = downloader.report(card)
    assert fault.startswith(f"{card} has a training record that cannot be shown: history.json")


def test_an_earlier_commit_that_is_loaded_already_does_not_stand_in_for_the_one_that_was_described(
    ada, registry, tmp_path
):
    downloader = Downloader(registry, "cpu")
    assert downloader.load("ada/poems", describe("ada/poems").commit) == "ada/poems"
    push_folder(save(make_model("rnn"), tmp_path / "newer"), "ada/poems", token="hf_ada")
    newer = describe("ada/poems").commit
    assert downloader.load("ada/poems", newer) == downloader.load("ada/poems", newer) == f"ada/poems@{newer[:7]}"
    loaded = registry[f"ada/poems@{newer[:7]}"].lm
    assert (loaded.config.cell, loaded.revision) == ("rnn", newer)
    assert registry["ada/poems"].lm.config.cell == "gru"


@pytest.mark.slow
@pytest.mark.parametrize("written", ["hf://ada/poems", "https://huggingface.co/ada/poems", " ada/poems@main "])
def test_a_model_may_be_named_in_any_way_that_names_a_repository(ada, registry, written):
    (name,) = search(written)
    assert name.split("@")[0] == "ada/poems"
    assert describe(name).lines[0].startswith("ada/poems, commit ")
    assert Downloader(registry, "cpu").load(name) == name
    assert registry[name].source == "hub"


def test_a_folder_of_a_repositorys_name_is_never_served_in_its_place(ada, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(make_model("rnn"), tmp_path / "ada" / "poems")
    save(make_model("rnn"), tmp_path / "bob" / "poems")
    with pytest.warns(UserWarning, match="is a folder here"):
        registry = load_registry(["ada/poems", "bob/poems"], tmp_path / "weights", "cpu")
    assert registry.names == ["ada/poems", "bob/poems"]
    downloader = Downloader(registry, "cpu")
    assert downloader.load("ada/poems") == downloader.load("ada/poems") == "hf://ada/poems"
    assert registry["hf://ada/poems"].lm.config.cell == "gru"
    assert (registry["ada/poems"].source, registry["ada/poems"].lm.config.cell) == ("folder", "rnn")


def test_a_visitors_model_is_not_listed(ada, registry):
    Downloader(registry, "cpu").load("ada/poems")
    assert registry.names == ["small"]
    assert [model.name for model in registry] == ["small"]
    with pytest.raises(RequestError, match="choose one of small$"):
        _ = registry["ada/none"]


def test_requests_for_the_same_model_download_it_once(ada, registry):
    downloader = Downloader(registry, "cpu")
    with ThreadPoolExecutor(4) as visitors:
        assert set(visitors.map(downloader.load, ["ada/poems"] * 4)) == {"ada/poems"}
    assert sum("/resolve/" in r.path and "safetensors" in r.path and r.method == "GET" for r in ada.requests) == 1


def test_a_model_that_is_too_large_is_not_downloaded(ada, registry, monkeypatch):
    monkeypatch.setattr("charlm.web.answers.load.MOST_BYTES", 1000)
    downloader = Downloader(registry, "cpu")
    offer = describe("ada/poems")
    assert not offer.fits
    assert "more than the" in offer.lines[-1]
    with pytest.raises(RequestError, match="larger than"):
        downloader.load("ada/poems")
    assert not any("/resolve/" in request.path for request in ada.requests)


@pytest.mark.slow
@pytest.mark.parametrize("name", [None, 5, ["ada/poems"], "", "poems", "../../etc/passwd", "a/b/c", "x" * 10**6])
def test_an_invalid_repository_name_is_refused_in_a_short_message(ada, registry, name):
    downloader = Downloader(registry, "cpu")
    for ask in (describe, downloader.load):
        with pytest.raises(CharLMError) as caught:
            ask(name)
        assert len(str(caught.value)) < 300
    assert ada.requests == []


def test_a_repository_that_does_not_exist_is_refused(ada, registry):
    with pytest.raises(HubError, match="no public repository ada/none"):
        Downloader(registry, "cpu").load("ada/none")


def test_the_least_recently_used_visitors_model_is_evicted():
    registry = ModelRegistry([ServedModel("small", make_lm(), "folder")])
    visitor_models = [ServedModel(f"mine {number}", make_lm(), "trained") for number in range(MOST_VISITOR_MODELS + 1)]
    for model in visitor_models[:-1]:
        registry.add_visitor_model(model)
    assert registry["mine 0"] is visitor_models[0]  # used again
    registry.add_visitor_model(visitor_models[-1])
    assert "mine 0" in registry
    assert "mine 1" not in registry
    with pytest.raises(RequestError, match="there is no model 'mine 1' here"):
        _ = registry["mine 1"]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, True),
        ({"SPACE_ID": "ada/page"}, False),
        ({"SPACE_ID": "ada/page", "CHARLM_ALLOW_LOADING": "1"}, True),
        ({"SPACE_ID": "ada/page", "CHARLM_ALLOW_LOADING": "0"}, False),
    ],
)
def test_visitors_of_a_space_may_load_only_if_its_owner_says_so(environment, expected):
    assert may_load(environment) is expected
