"""Loading from the Hub, with the real huggingface_hub client and a server that speaks its protocol."""

import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hub_client import FIVE, TOKEN, log_in, write
from hub_server import Response
from huggingface_hub import (
    HfApi,
    close_session,
    constants,
    hf_hub_download,
    snapshot_download,
)
from models import contents, keep_epochs

from charlm.errors import HubError, HubUnavailableError, ModelFileError, RequestError
from charlm.hub import describe, describe_dataset_file, describe_public, download_dataset_file, search
from charlm.lm import CharLM
from charlm.model.folder import Model
from charlm.model_name import DatasetFile
from charlm.publishing import push_folder

pytestmark = pytest.mark.usefixtures("waits")

WEIGHTS = "GET .*/resolve/.*/model.safetensors"


def assert_is(lm, model):
    """The model that was loaded is that one: its configuration, each bit of its weights, its record."""
    assert lm.config == model.config
    assert lm.history == model.history
    weights = lm.network.export_weights()
    assert weights.keys() == model.weights.keys()
    assert all(np.array_equal(weights[name], model.weights[name]) for name in weights)


def change_info(hub, change):
    """Let `change` alter what the Hub tells of a repository."""

    def changed(answer):
        response = answer()
        info = json.loads(response.body)
        change(info)
        return Response(response.status, json.dumps(info).encode(), {})

    hub.on("GET /api/models/", changed)


def set_size(name, size):
    def change(info):
        next(sibling for sibling in info["siblings"] if sibling["rfilename"] == name)["size"] = size

    return change


# Fetching


@pytest.mark.slow
def test_a_model_comes_back_from_the_hub_as_it_was_pushed(ada, folder, model):
    push_folder(folder, "ada/tiny")
    lm = CharLM.from_pretrained("ada/tiny")
    assert_is(lm, model)
    assert (lm.source, lm.revision) == ("hub", ada.repos["ada/tiny"].refs["main"])


@pytest.mark.slow
def test_commands_push_a_folder_and_write_with_what_they_pushed(ada, folder):
    def run(*command):
        return subprocess.run([sys.executable, "-m", *command], capture_output=True, encoding="utf-8", check=False)

    pushed = run("train", "push", folder, "ada/tiny", "--private")
    assert pushed.stdout == f"{ada.url}/ada/tiny/commit/{ada.repos['ada/tiny'].refs['main']}\n"
    assert ada.repos["ada/tiny"].private
    arguments = ("--length", "40", "--seed", "3")
    from_hub = run("charlm", "generate", "ada/tiny", *arguments)
    assert from_hub.stdout == run("charlm", "generate", folder, *arguments).stdout
    assert len(from_hub.stdout) == 41


def test_only_three_files_are_downloaded_and_no_pickle_among_them(hub, files):
    pickles = {"pytorch_model.bin": b"evil", "model.pkl": b"evil", "training_args.bin": b"evil"}
    hub.add_repo("ada/tiny", files | pickles)
    CharLM.from_pretrained("ada/tiny")
    asked = [request.path.rsplit("/", 1)[1] for request in hub.asked("GET .*/resolve/")]
    assert sorted(asked) == ["config.json", "history.json", "model.safetensors"]


@pytest.fixture
def kept(hub, folder):
    """A repository whose model has kept the weights of epochs 1 and 3, by epoch."""
    kept = keep_epochs(folder, 1, 3)
    names = [*FIVE, "epochs/0001.safetensors", "epochs/0003.safetensors"]
    hub.add_repo("ada/kept", {name: (folder / name).read_bytes() for name in names})
    return kept


def has_weights(lm, weights):
    loaded = lm.network.export_weights()
    return all(np.array_equal(loaded[name], weights[name]) for name in weights)


def test_a_model_at_an_epoch_comes_from_the_hub_and_without_it_from_the_cache(hub, kept):
    lm = CharLM.from_pretrained("ada/kept", epoch=3)
    assert has_weights(lm, kept[3]) and lm.history["best"]["epoch"] == 3
    assert (lm.source, lm.revision) == ("hub", hub.repos["ada/kept"].refs["main"])
    asked = {request.path.split("/resolve/")[1].split("/", 1)[1] for request in hub.asked("GET .*/resolve/")}
    assert asked == {"config.json", "history.json", "model.safetensors", "epochs/0003.safetensors"}
    hub.on(".*", lambda answer: Response(503, b"", {}))
    with pytest.warns(UserWarning, match="using the copy in the cache"):
        lm = CharLM.from_pretrained("ada/kept", epoch=3)
    assert has_weights(lm, kept[3]) and lm.source == "cache"
    with pytest.raises(
        HubUnavailableError, match=r"copy in the cache cannot be used: .*epochs/0001.safetensors is miss"
    ):
        CharLM.from_pretrained("ada/kept", epoch=1)


def test_an_epoch_that_the_hub_has_not_is_refused_with_those_that_it_has(hub, kept):
    with pytest.raises(RequestError) as caught:
        CharLM.from_pretrained("ada/kept", epoch=2)
    assert str(caught.value) == "ada/kept has not kept the weights of epoch 2; choose one of 1, 3"
    assert not hub.asked("GET .*/epochs/")


def test_weights_of_an_epoch_that_arrive_damaged_are_downloaded_once_more(hub, kept):
    hub.on("GET .*/epochs/", lambda answer: cut(answer()), times=1)
    assert has_weights(CharLM.from_pretrained("ada/kept", epoch=1), kept[1])


def cut(response):
    return Response(response.status, b"x" * len(response.body), response.headers)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (b"x" * 100, ModelFileError, r"epochs/0001.safetensors is not the file that history.json describes"),
        (
            b"x" * 2_000_000,
            ModelFileError,
            "epochs/0001.safetensors is larger than the model that",
        ),
        (None, HubError, "ada/kept has no epochs/0001.safetensors, which its record names; leave the epoch out"),
    ],
    ids=["other", "large", "missing"],
)
def test_weights_of_an_epoch_that_no_training_kept_are_refused(hub, kept, change, kind, message):
    repo = hub.repos["ada/kept"]
    if change is None:
        files = {name: content for name, content in repo.files.items() if name != "epochs/0001.safetensors"}
        hub.add_repo("ada/kept", files)
    else:
        repo.commit({"epochs/0001.safetensors": change})
    with pytest.raises(kind, match=message):
        CharLM.from_pretrained("ada/kept", epoch=1)
    if change is None or len(change) > 100:
        assert not hub.asked("GET .*/epochs/")


@pytest.mark.parametrize(
    "odd", [{"rfilename": ["epochs/0001.safetensors"]}, {"size": -1}, {"size": "1"}, {"size": None}]
)
def test_what_the_hub_tells_of_the_weights_of_an_epoch_is_read_field_by_field(hub, kept, odd):
    def change(info):
        next(each for each in info["siblings"] if each["rfilename"] == "epochs/0001.safetensors").update(odd)

    change_info(hub, change)
    assert has_weights(CharLM.from_pretrained("ada/kept", epoch=3), kept[3])
    with pytest.raises(HubError, match=r"has no epochs/0001.safetensors"):
        CharLM.from_pretrained("ada/kept", epoch=1)


def test_how_much_a_model_transfers_does_not_count_the_weights_of_epochs(hub, kept):
    described = describe("ada/kept")
    assert described.sizes.keys() == {"config.json", "history.json", "model.safetensors"}
    assert described.kept_sizes.keys() == {"epochs/0001.safetensors", "epochs/0003.safetensors"}


@pytest.mark.slow
@pytest.mark.parametrize("step", ["GET /api/", "HEAD .*config", "GET .*config", "GET .*history", "HEAD .*safetensors"])
def test_a_push_in_between_never_mixes_two_models(hub, files, other_files, model, other_model, step):
    repo = hub.add_repo("ada/tiny", files)
    before = repo.refs["main"]

    def push_after(answer):
        response = answer()
        repo.commit(other_files)
        return response

    hub.on(step, push_after, times=1)
    lm = CharLM.from_pretrained("ada/tiny")
    assert_is(lm, model)
    assert lm.revision == before != repo.refs["main"]
    assert_is(CharLM.from_pretrained("ada/tiny"), other_model)


@pytest.mark.parametrize("kind", ["main", "branch", "branch/with/slashes", "v1.0", "refs/pr/1", "commit", "short"])
def test_a_revision_may_be_a_branch_a_tag_or_a_commit(hub, files, other_files, model, other_model, kind):
    repo = hub.add_repo("ada/tiny", files)
    wanted = repo.refs["main"]
    repo.refs |= {"branch": wanted, "branch/with/slashes": wanted, "v1.0": wanted, "refs/pr/1": wanted}
    if kind != "main":
        repo.commit(other_files)
        assert_is(CharLM.from_pretrained("ada/tiny"), other_model)
    revision = {"commit": wanted, "short": wanted[:7]}.get(kind, kind)
    lm = CharLM.from_pretrained("ada/tiny", revision=revision)
    assert_is(lm, model)
    assert (lm.source, lm.revision) == ("hub", wanted)
    hub.close()
    with pytest.warns(UserWarning, match="using the copy in the cache"):
        cached = CharLM.from_pretrained("ada/tiny", revision=revision)
    assert_is(cached, model)
    assert (cached.source, cached.revision) == ("cache", wanted)


def test_a_second_load_asks_one_question_and_downloads_nothing(hub, files):
    hub.add_repo("ada/tiny", files)
    CharLM.from_pretrained("ada/tiny")
    hub.requests.clear()
    lm = CharLM.from_pretrained("ada/tiny")
    assert [(request.method, request.path) for request in hub.requests] == [("GET", "/api/models/ada/tiny?blobs=true")]
    assert lm.source == "hub"


def test_after_a_push_only_what_changed_is_downloaded(hub, files, other_files, other_model):
    repo = hub.add_repo("ada/tiny", files | {"history.json": other_files["history.json"]})
    CharLM.from_pretrained("ada/tiny")
    repo.commit(other_files)
    hub.requests.clear()
    assert_is(CharLM.from_pretrained("ada/tiny"), other_model)
    asked = [request.path.rsplit("/", 1)[1] for request in hub.asked("GET .*/resolve/")]
    assert sorted(asked) == ["config.json", "model.safetensors"]


def test_the_cache_is_the_hubs_own_and_other_tools_find_the_model_there(hub, files):
    hub.add_repo("ada/tiny", files)
    CharLM.from_pretrained("ada/tiny")
    hub.close()
    path = Path(hf_hub_download("ada/tiny", "model.safetensors", local_files_only=True))
    assert path.read_bytes() == files["model.safetensors"]
    assert contents(Path(constants.HF_HUB_CACHE, "models--ada--tiny", "refs")).keys() == {"main"}


def test_what_another_tool_downloaded_serves_when_the_hub_is_gone(hub, files, model):
    hub.add_repo("ada/tiny", files)
    snapshot_download("ada/tiny")
    hub.close()
    with pytest.warns(UserWarning, match="using the copy in the cache"):
        assert_is(CharLM.from_pretrained("ada/tiny"), model)


TROUBLES = {
    "gone": (lambda hub: hub.close(), "check the network"),
    "503": (lambda hub: hub.fail("", 503), "the Hub answered 503 for ada/tiny; try again later"),
    "500": (lambda hub: hub.fail("", 500), "the Hub answered 500 for ada/tiny; try again later"),
    "429": (lambda hub: hub.fail("", 429, retry_after="300"), "the Hub answered 429 for ada/tiny; try again later"),
    "hangs up": (lambda hub: hub.hang_up(""), "check the network"),
    "portal": (
        lambda hub: hub.on("", lambda _: Response(200, b"<html>Log in to the hotel's WiFi")),
        "check the network",
    ),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_without_the_hub_the_cached_model_is_used_with_a_warning_and_no_wait(hub, files, model, waits, trouble):
    repo = hub.add_repo("ada/tiny", files)
    CharLM.from_pretrained("ada/tiny")
    start, message = TROUBLES[trouble]
    start(hub)
    with pytest.warns(UserWarning, match=f"{message}; using the copy in the cache") as caught:
        lm = CharLM.from_pretrained("ada/tiny")
    assert caught[0].filename == __file__  # it points at the line that asked for the model
    assert_is(lm, model)
    assert (lm.source, lm.revision) == ("cache", repo.refs["main"])
    assert waits == []


@pytest.mark.parametrize("trouble", TROUBLES)
def test_without_the_hub_and_a_cached_model_it_says_why_in_one_line_and_at_once(hub, files, waits, trouble):
    hub.add_repo("ada/tiny", files)
    start, message = TROUBLES[trouble]
    start(hub)
    with pytest.raises(HubUnavailableError, match=message) as error:
        CharLM.from_pretrained("ada/tiny")
    assert error.value.exit_status == 1
    assert "\n" not in str(error.value)
    assert waits == []


def test_a_cached_revision_does_not_stand_in_for_another(hub, files):
    repo = hub.add_repo("ada/tiny", files)
    repo.commit({"notes.txt": b"later"}, branch="dev")
    CharLM.from_pretrained("ada/tiny")
    hub.close()
    for revision in ("dev", repo.refs["dev"], "0" * 40):
        with pytest.raises(HubUnavailableError, match="check the network"):
            CharLM.from_pretrained("ada/tiny", revision=revision)


@pytest.mark.parametrize("name", ["config.json", "history.json", "model.safetensors"])
def test_a_hub_that_fails_in_the_middle_leaves_the_older_model_in_use(hub, files, other_files, model, waits, name):
    repo = hub.add_repo("ada/tiny", files)
    before = repo.refs["main"]
    CharLM.from_pretrained("ada/tiny")
    repo.commit(other_files)
    hub.fail(f"HEAD .*{name}", 503)
    with pytest.warns(UserWarning, match="the Hub answered 503 for ada/tiny.*using the copy in the cache"):
        lm = CharLM.from_pretrained("ada/tiny")
    assert_is(lm, model)
    assert (lm.source, lm.revision) == ("cache", before)
    assert sum(waits) < 30  # how long a user would have waited


@pytest.mark.parametrize("name", ["config.json", "history.json", "model.safetensors"])
def test_wrong_bytes_of_the_right_size_are_downloaded_afresh(hub, files, model, name):
    hub.add_repo("ada/tiny", files)
    hub.corrupt(f"GET .*/resolve/.*{name}", times=1)
    assert_is(CharLM.from_pretrained("ada/tiny"), model)
    assert len(hub.asked(f"GET .*/resolve/.*{name}")) == 2


def test_a_record_that_stays_wrong_is_left_out_with_a_warning_and_the_weights_are_not_asked_for_again(
    hub, files, model
):
    hub.add_repo("ada/tiny", files | {"history.json": b"{}"})
    with pytest.warns(UserWarning, match="^ada/tiny: history.json.*; the model is used without its training record"):
        lm = CharLM.from_pretrained("ada/tiny")
    assert lm.history is None
    assert lm.generate("a", 20, seed=0) == CharLM(model.config, model.weights).generate("a", 20, seed=0)
    assert len(hub.asked("GET .*/resolve/.*history.json")) == 2
    assert len(hub.asked(WEIGHTS)) == 1
    hub.close()
    with (
        pytest.warns(UserWarning, match="using the copy in the cache"),
        pytest.warns(UserWarning, match="the model is used without its training record"),
    ):
        assert CharLM.from_pretrained("ada/tiny").source == "cache"


def test_bytes_that_stay_wrong_are_refused_after_the_second_try(hub, files, model):
    repo = hub.add_repo("ada/tiny", files)
    hub.corrupt(WEIGHTS, times=2)
    with pytest.raises(ModelFileError, match="^ada/tiny: .* not the file that config.json describes") as error:
        CharLM.from_pretrained("ada/tiny")
    assert constants.HF_HUB_CACHE not in str(error.value)  # it may be shown on a page to strangers
    assert len(hub.asked(WEIGHTS)) == 2
    assert_is(CharLM.from_pretrained("ada/tiny"), model)  # and do no harm once the Hub is well again
    cached = Path(constants.HF_HUB_CACHE, "models--ada--tiny", "snapshots", repo.refs["main"], "model.safetensors")
    assert hashlib.sha256(cached.read_bytes()).digest() == hashlib.sha256(files["model.safetensors"]).digest()


def test_a_damaged_cache_is_repaired_by_the_hub(hub, files, model):
    repo = hub.add_repo("ada/tiny", files)
    CharLM.from_pretrained("ada/tiny")
    write(Path(constants.HF_HUB_CACHE, "models--ada--tiny", "snapshots", repo.refs["main"], "model.safetensors"), b"x")
    assert_is(CharLM.from_pretrained("ada/tiny"), model)


def test_a_damaged_cache_cannot_stand_in_for_the_hub(hub, files):
    repo = hub.add_repo("ada/tiny", files)
    CharLM.from_pretrained("ada/tiny")
    write(Path(constants.HF_HUB_CACHE, "models--ada--tiny", "snapshots", repo.refs["main"], "model.safetensors"), b"x")
    hub.close()
    with pytest.raises(HubUnavailableError, match="check the network; the copy in the cache cannot be used: .*SHA-256"):
        CharLM.from_pretrained("ada/tiny")


def test_a_download_that_breaks_off_goes_on_where_it_stopped(hub, files, model, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 500)  # what came before the last whole chunk is kept
    hub.add_repo("ada/tiny", files)
    hub.cut(WEIGHTS, at=1200, times=1)
    assert_is(CharLM.from_pretrained("ada/tiny"), model)
    assert [request.status for request in hub.asked(WEIGHTS)] == [200, 206]


def test_a_download_that_never_gets_anywhere_is_given_up(hub, files, waits):
    hub.add_repo("ada/tiny", files)
    hub.cut(WEIGHTS, at=0)
    with pytest.raises(HubUnavailableError, match="check the network"):
        CharLM.from_pretrained("ada/tiny")
    assert sum(waits) < 30
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.incomplete"))


def test_a_repository_needs_no_training_record(hub, files, model):
    hub.add_repo("ada/tiny", {name: files[name] for name in ("config.json", "model.safetensors")})
    assert_is(CharLM.from_pretrained("ada/tiny"), Model(model.config, model.weights, None))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_repository_without_a_needed_file_is_no_charlm_model(hub, files, name):
    hub.add_repo("ada/tiny", {other: files[other] for other in FIVE - {name}})
    with pytest.raises(HubError, match=f"ada/tiny has no {name}: it is not a charlm model"):
        CharLM.from_pretrained("ada/tiny")
    assert not hub.asked(".*/resolve/")


def test_the_config_of_another_library_is_no_charlm_model_and_its_weights_stay_there(hub, files):
    hub.add_repo("ada/tiny", files | {"config.json": b'{"model_type": "gpt2"}'})
    with pytest.raises(ModelFileError, match="model_type 'gpt2': not a charlm model"):
        CharLM.from_pretrained("ada/tiny")
    assert not hub.asked(WEIGHTS)


@pytest.mark.parametrize(
    ("name", "size"), [("config.json", 10**9), ("history.json", 10**9), ("model.safetensors", 10**11)]
)
def test_a_file_larger_than_any_model_needs_is_refused_before_it_is_downloaded(hub, files, name, size):
    hub.add_repo("ada/tiny", files)
    change_info(hub, set_size(name, size))
    with pytest.raises(ModelFileError, match=f"ada/tiny: {name} has 1.*,000 bytes, more than any charlm model needs"):
        CharLM.from_pretrained("ada/tiny")
    assert not hub.asked(".*/resolve/")


def test_weights_larger_than_the_config_describes_are_refused_before_they_are_downloaded(hub, files):
    hub.add_repo("ada/tiny", files)
    change_info(hub, set_size("model.safetensors", 10**9))
    with pytest.raises(ModelFileError, match="model.safetensors is larger than the model that config.json describes"):
        CharLM.from_pretrained("ada/tiny")
    assert not hub.asked(WEIGHTS)


@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_repository_that_is_not_there_is_named_and_what_to_do(hub, token):
    hub.add_user("ada", TOKEN)
    with pytest.raises(
        HubError, match="no repository ada/tiny, or it is private: check the name, or run `hf auth login`"
    ):
        CharLM.from_pretrained("ada/tiny", token=token)


def test_a_repository_that_is_gone_is_not_replaced_by_the_cached_one(hub, files):
    hub.add_repo("ada/tiny", files)
    CharLM.from_pretrained("ada/tiny")
    del hub.repos["ada/tiny"]
    with pytest.raises(HubError, match="no repository ada/tiny"):
        CharLM.from_pretrained("ada/tiny")


@pytest.mark.parametrize("revision", ["mian", "v9", "0" * 40, "a/b", "äö"])
def test_a_revision_that_is_not_there_is_named(hub, files, revision):
    hub.add_repo("ada/tiny", files)
    with pytest.raises(HubError, match=f"ada/tiny has no revision '{revision}'; name a branch, tag or commit"):
        CharLM.from_pretrained("ada/tiny", revision=revision)


def test_a_wrong_device_is_refused_before_anything_is_asked_or_downloaded(hub, files):
    hub.add_repo("ada/tiny", files)
    described = describe("ada/tiny")
    hub.requests.clear()
    with pytest.raises(RequestError, match="device is 'tpu'"):
        CharLM.from_pretrained("ada/tiny", device="tpu")
    with pytest.raises(RequestError, match="device is 'tpu'"):
        CharLM.from_description(described, device="tpu")
    assert hub.requests == []


@pytest.mark.parametrize("revision", ["/etc/hostname", "../../x", "", "\udcff", "ä ö", "a.lock", "a" * 256])
def test_a_revision_that_git_cannot_have_is_refused_before_the_hub_or_its_cache_is_looked_at(hub, files, revision):
    hub.add_repo("ada/tiny", files)
    with pytest.raises(
        RequestError, match=r"^revision is '.*, which git does not allow as a name; give a branch, a tag or a com"
    ):
        CharLM.from_pretrained("ada/tiny", revision=revision)
    assert hub.requests == []


def test_a_file_that_is_listed_and_not_there_is_reported(hub, files):
    hub.add_repo("ada/tiny", files)
    hub.fail("HEAD .*history", 404, x_error_code="EntryNotFound")
    with pytest.raises(HubError, match="ada/tiny lacks a file that it lists; try again or tell its owner"):
        CharLM.from_pretrained("ada/tiny")


# Who may read


def test_a_stale_stored_token_does_not_close_a_public_repository(hub, files, model):
    hub.add_repo("ada/tiny", files)
    log_in("hf_stale")
    assert_is(CharLM.from_pretrained("ada/tiny"), model)
    assert {request.token for request in hub.requests} == {None}


def test_a_stale_stored_token_is_named_where_one_is_needed(hub, files):
    hub.add_repo("ada/tiny", files, private=True)
    log_in("hf_stale")
    with pytest.raises(HubError, match="does not accept the token: run `hf auth login`"):
        CharLM.from_pretrained("ada/tiny")


def test_a_hub_that_has_answered_too_many_strangers_is_asked_again_with_the_stored_token(ada, files, model):
    ada.add_repo("ada/tiny", files)
    ada.fail("GET /api/models/", 429, times=1)
    assert_is(CharLM.from_pretrained("ada/tiny"), model)
    assert [request.token for request in ada.asked("GET /api/models/")] == [None, TOKEN]


def test_a_stale_stored_token_does_not_hide_that_the_hub_has_answered_too_many(hub, files):
    hub.add_repo("ada/tiny", files)
    log_in("hf_stale")
    hub.fail("GET /api/models/", 429, times=1)
    with pytest.raises(HubUnavailableError, match="the Hub answered 429 for ada/tiny; try again later"):
        CharLM.from_pretrained("ada/tiny")


def test_a_token_that_was_given_is_used_and_refused_if_it_is_wrong(hub, files):
    hub.add_repo("ada/tiny", files)
    with pytest.raises(HubError, match="does not accept the token"):
        CharLM.from_pretrained("ada/tiny", token="hf_wrong")


@pytest.mark.parametrize("given", [None, True, TOKEN])
def test_a_private_repository_opens_to_its_owners_token(ada, files, model, given):
    ada.add_repo("ada/tiny", files, private=True)
    assert_is(CharLM.from_pretrained("ada/tiny", token=given), model)
    assert {request.token for request in ada.asked(".*/resolve/")} == {TOKEN}


@pytest.mark.parametrize("token", [None, False, "hf_bob"])
def test_a_private_repository_is_closed_to_others(hub, files, token):
    hub.add_user("bob", "hf_bob")
    hub.add_repo("ada/tiny", files, private=True)
    with pytest.raises(HubError, match="no repository ada/tiny, or it is private.*`hf auth login`"):
        CharLM.from_pretrained("ada/tiny", token=token)


def test_a_stored_token_stays_here_if_that_was_asked_for(ada, files):
    ada.add_repo("ada/tiny", files, private=True)
    with pytest.raises(HubError, match="or it is private"):
        CharLM.from_pretrained("ada/tiny", token=False)
    assert {request.token for request in ada.requests} == {None}


def test_asking_for_the_stored_token_where_there_is_none_says_how_to_get_one(hub, files):
    hub.add_repo("ada/tiny", files)
    with pytest.raises(HubError, match="no token for the Hub: run `hf auth login`"):
        CharLM.from_pretrained("ada/tiny", token=True)


@pytest.mark.parametrize("token", [None, True, "hf_bob"])
def test_a_gated_repository_opens_to_a_reader_it_admits(hub, files, model, token):
    hub.add_user("bob", "hf_bob")
    log_in("hf_bob")
    hub.add_repo("ada/tiny", files, gated=True, readers={"bob"})
    assert_is(CharLM.from_pretrained("ada/tiny", token=token), model)


@pytest.mark.parametrize("stored", [None, "hf_bob"])
def test_a_gated_repository_tells_others_to_ask_for_access(hub, files, stored):
    hub.add_user("bob", "hf_bob")
    hub.add_repo("ada/tiny", files, gated=True)
    if stored:
        log_in(stored)
    with pytest.raises(HubError, match="access to ada/tiny is gated: ask for it on its page on the Hub"):
        CharLM.from_pretrained("ada/tiny")


# Without a network, or with a difficult disk


@pytest.mark.usefixtures("certificates")
@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "HF_HUB_USER_AGENT_ORIGIN"])
def test_what_keeps_requests_from_being_sent_is_named(hub_environment, tmp_path, name):
    (tmp_path / "\u00e9").write_bytes(b"no certificate")
    for value in (tmp_path / "\u00e9", tmp_path / "\u00e9" / "nothing"):
        hub_environment(**{name: value}, HF_ENDPOINT="https://127.0.0.1:9")
        close_session()
        with pytest.raises(HubError, match=name):
            CharLM.from_pretrained("hf://ada/tiny")
    hub_environment(**{name: None})
    close_session()


@pytest.mark.parametrize("address", ["", "127.0.0.1:9", "ftp://127.0.0.1"])
def test_an_address_of_the_hub_that_is_none_is_named(hub_environment, address):
    hub_environment(HF_ENDPOINT=address)
    with pytest.raises(HubError, match=f"HF_ENDPOINT is '{address}', which is not a web address; write https://HOST"):
        CharLM.from_pretrained("hf://ada/tiny")


def test_offline_mode_uses_the_cache_and_asks_nothing(hub, files, model, hub_environment):
    hub.add_repo("ada/tiny", files)
    CharLM.from_pretrained("ada/tiny")
    hub.requests.clear()
    hub_environment(HF_HUB_OFFLINE="1")
    lm = CharLM.from_pretrained("ada/tiny")  # and without a warning: it was asked for
    assert_is(lm, model)
    assert lm.source == "cache"
    assert hub.requests == []


@pytest.mark.parametrize("fault", ["damaged", "of another user"])
def test_a_note_of_a_commit_that_cannot_be_read_counts_as_none(hub, files, hub_environment, monkeypatch, fault):
    read_text = Path.read_text

    def deny(path, *args, **settings):
        if Path(path).name in ("main", "texts"):  # the note, or the name of the data set
            raise PermissionError(13, "Permission denied")
        return read_text(path, *args, **settings)

    hub.add_repo("ada/tiny", files)
    hub.add_repo("ada/texts", {"a.txt": b"a text"}, kind="dataset")
    text = DatasetFile("ada/texts", None, "a.txt")
    CharLM.from_pretrained("ada/tiny")
    download_dataset_file(describe_dataset_file(text))
    hub_environment(HF_HUB_OFFLINE="1")
    if fault == "damaged":
        for folder in ("models--ada--tiny", "datasets--ada--texts"):
            Path(constants.HF_HUB_CACHE, folder, "refs", "main").write_bytes(b"\xff\xfe")
    else:  # whoever runs the tests may be allowed to read all files
        monkeypatch.setattr(Path, "read_text", deny)
        monkeypatch.setattr("charlm.hub.try_to_load_from_cache", deny)
    for read in (lambda: CharLM.from_pretrained("ada/tiny"), lambda: describe_dataset_file(text)):
        with pytest.raises(HubUnavailableError, match="cannot be asked for .* while HF_HUB_OFFLINE is set: unset it"):
            read()


def test_offline_mode_says_what_it_keeps_from_happening(ada, files, folder, hub_environment):
    ada.add_repo("ada/tiny", files)
    hub_environment(HF_HUB_OFFLINE="1")
    for act in (lambda: CharLM.from_pretrained("ada/tiny"), lambda: push_folder(folder, "ada/tiny")):
        with pytest.raises(
            HubUnavailableError, match="cannot be asked for ada/tiny while HF_HUB_OFFLINE is set: unset"
        ):
            act()
    assert ada.requests == []


def test_a_cache_that_cannot_note_the_branch_serves_all_the_same(hub, files, model):
    hub.add_repo("ada/tiny", files)
    CharLM.from_pretrained("ada/tiny")
    refs = Path(constants.HF_HUB_CACHE, "models--ada--tiny", "refs")
    shutil.rmtree(refs)
    refs.write_bytes(b"in the way")
    lm = CharLM.from_pretrained("ada/tiny")
    assert_is(lm, model)
    assert lm.source == "hub"


def test_without_a_home_no_folder_of_the_name_tilde_appears(hub, files, hub_environment, monkeypatch, tmp_path):
    hub.add_repo("ada/tiny", files)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does where nothing tells the home
    hub_environment(HF_HOME=None, XDG_CACHE_HOME=None)
    with pytest.raises(HubError, match="there is no home directory to keep ada/tiny in; set HF_HOME to a folder$"):
        CharLM.from_pretrained("ada/tiny")
    assert not (tmp_path / "~").exists()


def test_a_cache_that_cannot_be_written_is_named_and_not_the_network(hub, files, hub_environment, tmp_path):
    hub.add_repo("ada/tiny", files)
    write(tmp_path / "file", b"")
    hub_environment(HF_HOME=tmp_path / "file")
    with pytest.raises(HubUnavailableError, match="cannot be kept in the cache .*; make room, or set HF_HOME") as error:
        CharLM.from_pretrained("ada/tiny")
    assert str(tmp_path) not in str(error.value)


@pytest.mark.parametrize("status", [401, 403])
def test_who_sends_no_token_is_not_told_about_theirs(hub, files, status):
    hub.add_repo("ada/tiny", files)
    hub.fail("", status)
    with pytest.raises(HubError, match="the Hub shows ada/tiny to no one without a token"):
        CharLM.from_pretrained("ada/tiny", token=False)


def test_a_test_that_asks_for_no_server_reaches_no_hub(tmp_path_factory):
    with pytest.raises(HubUnavailableError, match="check the network"):
        CharLM.from_pretrained("ada/tiny")
    assert HfApi().endpoint == "http://127.0.0.1:9"
    assert Path(constants.HF_HUB_CACHE).is_relative_to(tmp_path_factory.getbasetemp())
    assert Path(constants.HF_TOKEN_PATH).is_relative_to(tmp_path_factory.getbasetemp())


@pytest.mark.parametrize("number", [1, 2])
def test_each_test_begins_with_an_empty_home_and_without_a_token(ada, number):
    assert contents(Path(constants.HF_HOME)) == {"token": TOKEN.encode()}  # that `ada` has just written
    write(Path(constants.HF_HUB_CACHE, "left by another test"), b"")
    os.environ["HF_HUB_OFFLINE"] = "1"
    importlib.reload(constants)


# Searching and describing


@pytest.fixture
def library(hub, files):
    """A Hub with two models of charlm and one of another library, all of Ada's."""
    hub.add_user("ada", TOKEN)
    hub.add_repo("ada/poems", files)
    hub.add_repo("ada/prose", files, downloads=9)
    hub.add_repo("ada/poems-bert", {"README.md": b"---\nlibrary_name: transformers\n---\n", "config.json": b"{}"})
    return hub


def test_a_search_finds_models_of_charlm_only_the_most_downloaded_first(library):
    assert search("ada") == ["ada/prose", "ada/poems"]
    assert search("poems") == ["ada/poems"]
    assert search("nothing like it") == []
    assert search("ada", most=1) == ["ada/prose"]


def test_what_stands_in_the_card_is_told_before_anything_is_downloaded(library):
    found = describe_public("ada/poems")
    files = library.repos["ada/poems"].files
    assert found.bytes == sum(len(files[name]) for name in ("config.json", "history.json", "model.safetensors"))
    assert found.revision == library.repos["ada/poems"].commits[-1].id
    assert 1.5 in found.figures.values()  # the best validation loss of the record
    assert not any("/resolve/" in request.path for request in library.requests)


def test_visitors_never_read_with_the_owners_token(library, hub_environment):
    hub_environment(HF_TOKEN="hf_ada")
    library.add_repo("ada/secret", {"README.md": b"---\nlibrary_name: charlm\n---\n"}, private=True)
    assert "ada/secret" not in search("ada")
    for name in ("ada/secret", "ada/none"):
        with pytest.raises(HubError) as refused:
            describe_public(name)
        assert str(refused.value) == (
            f"the Hub has no public repository {name}: check the name. Private and gated models are not loaded here"
        )
    assert {request.token for request in library.requests} == {None}


@pytest.mark.parametrize("refused_with", [None, 401, 403])
def test_a_gated_model_is_refused_to_visitors_before_anything_is_downloaded(library, files, refused_with):
    library.add_repo("ada/gated", files, gated=True)
    if refused_with:
        library.fail("GET /api/models/ada/gated", refused_with)
    with pytest.raises(HubError, match=r"Private and gated models are not loaded here$") as refused:
        describe_public("ada/gated")
    assert "hf auth login" not in str(refused.value)
    assert not library.asked("GET .*/resolve/")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ada/none", "no public repository ada/none"),
        ("ada/poems-bert", "model.safetensors"),
        ("ada/bare", "carry the tag"),
    ],
)
def test_what_is_no_model_of_charlm_is_refused(library, name, message):
    library.add_repo("ada/bare", {"config.json": b"{}", "model.safetensors": b"x"})
    with pytest.raises(HubError, match=message):
        describe_public(name)


FAULTS = {
    "down": lambda answer: Response(503, b"", {}),
    "busy": lambda answer: Response(429, b"", {"Retry-After": "60"}),
    "gone": lambda answer: Response(hang_up=True),
    "a page": lambda answer: Response(200, b"<html>hello</html>", {"Content-Type": "text/html"}),
    "cut": lambda answer: Response(200, b'[{"id": "ada/poems"}]', {}, cut=5),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_hub_that_gives_no_answer_is_told_and_not_asked_again_and_again(library, fault):
    library.on("GET /api/models", FAULTS[fault])
    for ask in (lambda: search("ada"), lambda: describe_public("ada/poems")):
        with pytest.raises(HubUnavailableError):
            ask()
    assert len(library.requests) <= 2


def test_a_silent_hub_is_waited_for_no_longer_than_a_question_may_take(library, monkeypatch):
    released = threading.Event()
    monkeypatch.setattr("charlm.hub.QUESTION_SECONDS", 0.2)
    library.on("GET /api/models", lambda answer: released.wait(60) and answer())
    with pytest.raises(HubUnavailableError):
        search("ada")
    released.set()


@pytest.mark.parametrize(
    "answer",
    [b"{}", b"null", b'["ada/poems", null, 5, [], {}]', b'[{"id": null}, {"id": ["a/b"]}, {"id": "../../etc"}]'],
)
def test_whatever_a_search_answers_only_names_of_repositories_come_out(library, answer):
    library.on("GET /api/models", lambda _: Response(200, answer, {"Content-Type": "application/json"}))
    assert search("ada") == []


@pytest.mark.parametrize(
    "card",
    [
        "model-index: 5",
        "model-index: [{}]",
        "model-index: [{name: x, results: [{source: a page, task: t, dataset: 5, metrics: [{type: ok, value: 2.5}]}]}]",
        "model-index: [{results: {metrics: 1}}, 5, {results: [7, {metrics: {type: ok, value: 1}}]}]",
        "model-index: [{results: [{metrics: [{type: [a], value: 1}, {name: {}, value: 1}, {type: n, value: '1'}]}]}]",
        "tags: 5",
        "tags: [5, {a: b}]",
        "license: [1, 2]",
        "license: '" + "x" * 10_000 + "'",
        "model-index: [{name: x, results: [{task: {type: t}, dataset: {type: d, name: n}, metrics: "
        "[{type: loss, value: .nan}, {type: loss, name: " + "n" * 500 + ", value: 1e999}, {type: ok, value: 2.5}]}]}]",
    ],
)
def test_whatever_a_card_says_the_description_is_short_and_of_finite_numbers(library, card):
    library.repos["ada/poems"].commit({"README.md": f"---\nlibrary_name: charlm\n{card}\n---\n".encode()})
    found = describe_public("ada/poems")
    assert len(found.license) <= 60
    assert all(len(name) <= 60 and value == 2.5 for name, value in found.figures.items())


def test_a_figure_is_told_although_other_fields_of_the_card_are_of_wrong_types(library):
    card = "model-index: [{results: [{source: a page, task: t, dataset: 5, metrics: [{type: loss, value: 2.5}]}]}]"
    library.repos["ada/poems"].commit({"README.md": f"---\nlibrary_name: charlm\n{card}\n---\n".encode()})
    assert describe_public("ada/poems").figures == {"loss": 2.5}


@pytest.mark.parametrize(
    ("card", "license"),
    [
        ("license: mit", "mit"),
        ("license: other\nlicense_name: not-stated", "not-stated"),
        ("license: other", "other"),
        ("license: other\nlicense_name: [1]", ""),
        ("license: mit\nlicense_name: another", "mit"),
    ],
)
def test_a_licence_that_the_hub_does_not_list_is_described_by_its_name(library, card, license):
    library.repos["ada/poems"].commit({"README.md": f"---\nlibrary_name: charlm\n{card}\n---\n".encode()})
    assert describe_public("ada/poems").license == license


@pytest.mark.parametrize(
    "fields",
    [
        {"tags": 5},
        {"tags": None, "library_name": "charlm"},
        {"library_name": ["charlm"]},
        {"cardData": "a card"},
        {"cardData": None},
        {"gated": {"a": 1}, "lastModified": 5, "evalResults": 7, "safetensors": "x", "transformersInfo": [1]},
    ],
    ids=str,
)
def test_a_field_of_a_wrong_type_does_not_keep_a_model_from_being_described_and_loaded(library, model, fields):
    change_info(library, lambda info: info.update(fields))
    found = describe_public("ada/poems")
    assert found.bytes > 0
    assert_is(CharLM.from_description(found), model)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"siblings": None}, "ada/poems has no config.json: it is not a charlm model"),
        ({"siblings": 5}, "ada/poems has no config.json: it is not a charlm model"),
        ({"siblings": ["config.json", {}, {"rfilename": []}]}, "ada/poems has no config.json"),
        ({"siblings": [{"rfilename": "config.json", "size": "9"}]}, "the Hub does not tell the size of config.json"),
        ({"siblings": [{"rfilename": "config.json", "size": -9}]}, "the Hub does not tell the size of config.json"),
        ({"siblings": [{"rfilename": "config.json"}]}, "the Hub does not tell the size of config.json"),
        ({"sha": None}, "the Hub gave no usable answer for ada/poems .its answer names no commit"),
        ({"sha": "../../main"}, "the Hub gave no usable answer for ada/poems .its answer names no commit"),
    ],
    ids=str,
)
def test_a_description_without_what_loading_needs_is_refused(library, fields, message):
    change_info(library, lambda info: info.update(fields))
    for ask in (describe_public, CharLM.from_pretrained):
        with pytest.raises(HubError, match=message):
            ask("ada/poems")
    assert not library.asked(".*/resolve/")


@pytest.mark.parametrize("answer", [b"5", b"[]", b"null", b'"ada"', b"[" * 100_000])
def test_an_answer_that_is_no_object_describes_nothing(library, answer):
    library.on("GET /api/models", lambda _: Response(200, answer, {"Content-Type": "application/json"}))
    with pytest.raises(HubUnavailableError, match="the Hub gave no usable answer for ada/poems"):
        describe("ada/poems")


def test_the_model_that_was_described_is_the_one_that_is_loaded_and_its_commit_is_asked_for_once(
    library, model, other_files
):
    repo = library.repos["ada/poems"]
    found = describe("ada/poems")
    repo.commit(other_files)  # somebody publishes another model in the meantime
    lm = CharLM.from_description(found, device="cpu")
    assert_is(lm, model)
    assert (lm.source, lm.revision, lm.device) == ("hub", found.revision, "cpu")
    assert found.revision != repo.refs["main"]
    assert len(library.asked("GET /api/")) == 1
    assert {request.path.split("/")[4] for request in library.asked(".*/resolve/")} == {found.revision}


def test_what_was_described_and_loaded_is_in_the_cache_under_its_branch(library, model):
    CharLM.from_description(describe("ada/poems"))
    library.close()
    with pytest.warns(UserWarning, match="using the copy in the cache"):
        assert_is(CharLM.from_pretrained("ada/poems"), model)


def test_a_hub_that_fails_after_the_description_is_told(library):
    found = describe("ada/poems")
    library.fail(".*/resolve/", 503)
    with pytest.raises(HubUnavailableError, match="the Hub answered 503 for ada/poems; try again later"):
        CharLM.from_description(found)


def test_a_description_does_not_show_the_token_that_opens_the_repository(library, files):
    library.add_repo("ada/secret", files, private=True)
    found = describe("ada/secret", token=TOKEN)
    assert found.token == TOKEN and TOKEN not in repr(found)
