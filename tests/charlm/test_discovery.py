import pytest
from hub_server import Response
from models import make_model, save

from charlm.discovery import describe, search
from charlm.errors import HubError, HubUnavailableError
from charlm.hub import push_folder


@pytest.fixture
def ada(hub, tmp_path, monkeypatch):
    """A Hub with two models of charlm and one that is none."""
    hub.add_user("ada", "hf_ada")
    save(make_model("lstm"), tmp_path / "model")
    for name in ("ada/poems", "ada/prose"):
        push_folder(tmp_path / "model", name, token="hf_ada")
    hub.repos["ada/prose"].downloads = 9
    hub.add_repo("ada/poems-bert", {"README.md": b"---\nlibrary_name: transformers\n---\n", "config.json": b"{}"})
    hub.requests.clear()
    return hub


def test_a_search_finds_models_of_charlm_only_the_most_downloaded_first(ada):
    assert search("ada") == ["ada/prose", "ada/poems"]
    assert search("poems") == ["ada/poems"]
    assert search("nothing like it") == []
    assert search("ada", most=1) == ["ada/prose"]


def test_what_stands_in_the_card_is_told_before_anything_is_downloaded(ada):
    found = describe("ada/poems")
    files = ada.repos["ada/poems"].files
    assert found.bytes == sum(len(files[name]) for name in ("config.json", "history.json", "model.safetensors"))
    assert found.revision == ada.repos["ada/poems"].commits[-1].id
    assert 1.5 in found.figures.values()  # the best validation loss of the record
    assert not any("/resolve/" in request.path for request in ada.requests)


def test_visitors_never_read_with_the_owners_token(ada, hub_environment):
    hub_environment(HF_TOKEN="hf_ada")
    ada.add_repo("ada/secret", {"README.md": b"---\nlibrary_name: charlm\n---\n"}, private=True)
    assert "ada/secret" not in search("ada")
    with pytest.raises(HubError, match="no repository ada/secret, or it is private"):
        describe("ada/secret")
    assert {request.token for request in ada.requests} == {None}


@pytest.mark.parametrize(
    ("name", "message"),
    [("ada/none", "no repository ada/none"), ("ada/poems-bert", "model.safetensors"), ("ada/bare", "carry the tag")],
)
def test_what_is_no_model_of_charlm_is_refused(ada, name, message):
    ada.add_repo("ada/bare", {"config.json": b"{}", "model.safetensors": b"x"})
    with pytest.raises(HubError, match=message):
        describe(name)


FAULTS = {
    "down": lambda answer: Response(503, b"", {}),
    "busy": lambda answer: Response(429, b"", {"Retry-After": "60"}),
    "gone": lambda answer: Response(hang_up=True),
    "a page": lambda answer: Response(200, b"<html>hello</html>", {"Content-Type": "text/html"}),
    "cut": lambda answer: Response(200, b'[{"id": "ada/poems"}]', {}, cut=5),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_hub_that_gives_no_answer_is_told_and_not_asked_again_and_again(ada, fault):
    ada.on("GET /api/models", FAULTS[fault])
    for ask in (lambda: search("ada"), lambda: describe("ada/poems")):
        with pytest.raises(HubUnavailableError):
            ask()
    assert len(ada.requests) <= 2


def test_a_silent_hub_is_waited_for_no_longer_than_a_question_may_take(ada, monkeypatch):
    import threading

    released = threading.Event()
    monkeypatch.setattr("charlm.discovery.QUESTION_SECONDS", 0.2)
    ada.on("GET /api/models", lambda answer: released.wait(60) and answer())
    with pytest.raises(HubUnavailableError):
        search("ada")
    released.set()


@pytest.mark.parametrize(
    "answer",
    [b"{}", b"null", b'["ada/poems", null, 5, [], {}]', b'[{"id": null}, {"id": ["a/b"]}, {"id": "../../etc"}]'],
)
def test_whatever_a_search_answers_only_names_of_repositories_come_out(ada, answer):
    ada.on("GET /api/models", lambda _: Response(200, answer, {"Content-Type": "application/json"}))
    assert search("ada") == []


@pytest.mark.parametrize(
    "card",
    [
        "model-index: 5",
        "model-index: [{}]",
        "license: [1, 2]",
        "license: '" + "x" * 10_000 + "'",
        "model-index: [{name: x, results: [{task: {type: t}, dataset: {type: d, name: n}, metrics: "
        "[{type: loss, value: .nan}, {type: loss, name: " + "n" * 500 + ", value: 1e999}, {type: ok, value: 2.5}]}]}]",
    ],
)
def test_whatever_a_card_says_the_description_is_short_and_of_finite_numbers(ada, card):
    ada.repos["ada/poems"].commit({"README.md": f"---\nlibrary_name: charlm\n{card}\n---\n".encode()})
    found = describe("ada/poems")
    assert len(found.license) <= 60
    assert all(len(name) <= 60 and value == 2.5 for name, value in found.figures.items())
