"""Publishing on the Hub, with the real huggingface_hub client and a server that speaks its protocol."""

import hashlib
import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hub_client import FIVE, TOKEN, write
from hub_server import Response
from huggingface_hub import ModelCard
from models import VOCAB, keep_epochs, make_lm, make_model, make_record, save
from reference import load_plain, log_softmax, plain_logits

from charlm.errors import HubError, HubUnavailableError, ModelFileError, RequestError
from charlm.lm import CharLM
from charlm.model.folder import read_model
from charlm.publishing import LARGEST_CARD, check_can_push, push_folder, space_hardware

pytestmark = pytest.mark.usefixtures("waits")


def test_a_push_creates_the_repository_and_makes_one_commit_of_the_five_files(ada, folder, files):
    address = push_folder(folder, "ada/tiny")
    created, pushed = ada.repos["ada/tiny"].commits
    assert pushed.files.keys() - created.files.keys() == FIVE == files.keys()
    assert all(pushed.files[name] == files[name] for name in FIVE - {"README.md"})
    assert address == f"{ada.url}/ada/tiny/commit/{pushed.id}"


def test_the_published_card_names_the_repository_where_the_folder_has_a_placeholder(ada, folder, files):
    push_folder(folder, "ada/tiny")
    card = files["README.md"].decode()
    assert card.count("USER/MODEL") >= 3
    assert ada.repos["ada/tiny"].files["README.md"].decode() == card.replace("USER/MODEL", "ada/tiny")
    assert Path(folder, "README.md").read_bytes() == files["README.md"]


@pytest.mark.parametrize("name", ["~/run", "./run", "run"])
def test_the_folder_may_be_named_by_a_string_and_from_the_home_folder(ada, folder, files, monkeypatch, name):
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.chdir(folder.parent)
    push_folder(name, "ada/tiny")
    assert ada.repos["ada/tiny"].files["model.safetensors"] == files["model.safetensors"]


@pytest.mark.parametrize("wrong", ["", None, 3, b"run"])
def test_what_is_no_folder_is_refused_before_the_hub_is_asked(ada, wrong):
    with pytest.raises(RequestError, match="folder is .*; name a folder, or '.' for the current one"):
        push_folder(wrong, "ada/tiny")
    assert not ada.requests


def test_a_second_push_of_the_same_folder_commits_and_uploads_nothing(ada, folder):
    address = push_folder(folder, "ada/tiny")
    ada.requests.clear()
    assert push_folder(folder, "ada/tiny") == address
    assert len(ada.repos["ada/tiny"].commits) == 2
    assert not ada.asked("PUT ") and not ada.asked("POST .*/commit/")


def test_a_second_push_of_another_model_is_one_commit_that_keeps_foreign_files(ada, folder, other_files):
    push_folder(folder, "ada/tiny")
    repo = ada.repos["ada/tiny"]
    repo.commit({"LICENSE": b"MIT"})
    for name, content in other_files.items():
        write(folder / name, content)
    push_folder(folder, "ada/tiny")
    assert len(repo.commits) == 4
    assert repo.files["model.safetensors"] == other_files["model.safetensors"]
    assert repo.files["LICENSE"] == b"MIT"


def test_the_weights_of_epochs_are_in_the_same_commit_and_no_strangers_files_beside_them(ada, folder):
    keep_epochs(folder, 1, 3)
    for name in ("epochs/0002.safetensors", "epochs/notes.txt", "epochs/.writing-x/new/0003.safetensors"):
        write(folder / name, b"private")
    push_folder(folder, "ada/tiny")
    created, pushed = ada.repos["ada/tiny"].commits
    kept = {"epochs/0001.safetensors", "epochs/0003.safetensors"}
    assert pushed.files.keys() - created.files.keys() == FIVE | kept
    assert all(pushed.files[name] == (folder / name).read_bytes() for name in kept)
    push_folder(folder, "ada/tiny")
    assert len(ada.repos["ada/tiny"].commits) == 2


def test_the_weights_of_epochs_of_an_earlier_model_go_with_that_model(ada, folder, other_files):
    keep_epochs(folder, 1, 3)
    push_folder(folder, "ada/tiny")
    repo = ada.repos["ada/tiny"]
    repo.commit({"epochs/readme.txt": b"by hand"})
    for name, content in other_files.items():
        write(folder / name, content)
    push_folder(folder, "ada/tiny")
    assert {name for name in repo.files if name.startswith("epochs/")} == {"epochs/readme.txt"}


def test_weights_of_an_epoch_that_somebody_else_put_there_are_told_when_a_push_deletes_them(ada, folder):
    edit(ada.add_repo("ada/tiny"), {"epochs/0007.safetensors": b"theirs"})
    with pytest.warns(UserWarning, match=r"this push replaced epochs/0007.safetensors of ada/tiny, which had changed"):
        push_folder(folder, "ada/tiny")
    assert "epochs/0007.safetensors" not in ada.repos["ada/tiny"].files


def test_damaged_weights_of_an_epoch_are_refused_before_the_hub_is_asked(ada, folder):
    keep_epochs(folder, 1)
    write(folder / "epochs/0001.safetensors", b"damaged")
    with pytest.raises(ModelFileError, match=r"epochs/0001.safetensors is not the file that history.json describes"):
        push_folder(folder, "ada/tiny")
    assert not ada.requests


def test_a_folder_without_the_weights_that_its_record_names_is_published_without_them(ada, folder):
    keep_epochs(folder, 1, 3)
    (folder / "epochs/0001.safetensors").unlink()
    push_folder(folder, "ada/tiny")
    assert "epochs/0003.safetensors" in ada.repos["ada/tiny"].files.keys() - {"epochs/0001.safetensors"}
    assert "epochs/0001.safetensors" not in ada.repos["ada/tiny"].files


@pytest.mark.parametrize("way", ["load it from the Hub and push it", "push a folder that lacks them"])
def test_the_weights_of_epochs_stay_when_their_model_is_pushed_again_without_them(ada, folder, way):
    keep_epochs(folder, 1, 3)
    push_folder(folder, "ada/tiny")
    repo = ada.repos["ada/tiny"]
    kept = {name: content for name, content in repo.files.items() if name.startswith("epochs/")}
    if "load" in way:
        CharLM.from_pretrained("ada/tiny", device="cpu").push_to_hub("ada/tiny", license="mit")
        assert "license: mit" in repo.files["README.md"].decode()
    else:
        for name in kept:
            (folder / name).unlink()
        push_folder(folder, "ada/tiny")
    assert len(kept) == 2 and kept.items() <= repo.files.items()
    assert has_weights_of(CharLM.from_pretrained("ada/tiny", epoch=3, device="cpu"), kept["epochs/0003.safetensors"])


def test_a_model_that_is_pushed_elsewhere_names_no_weights_of_epochs_that_are_not_there(ada, folder):
    keep_epochs(folder, 1, 3)
    CharLM.from_pretrained(folder, device="cpu").push_to_hub("ada/other")
    files = ada.repos["ada/other"].files
    assert not any(name.startswith("epochs/") for name in files)
    assert "epoch=" not in files["README.md"].decode() and b"weights_sha256" not in files["history.json"]


def has_weights_of(lm, content):
    return lm.weights_sha256 == hashlib.sha256(content).hexdigest()


def test_the_record_of_an_earlier_model_goes_with_that_model(ada, folder):
    push_folder(folder, "ada/tiny")
    model = make_model(history=False)
    CharLM(model.config, model.weights, device="cpu").push_to_hub("ada/tiny")
    repo = ada.repos["ada/tiny"]
    assert repo.files.keys() & FIVE == {"config.json", "model.safetensors", "README.md"}
    assert len(repo.commits) == 3
    assert CharLM.from_pretrained("ada/tiny").history is None


@pytest.mark.parametrize("private", [True, False])
def test_a_new_repository_is_private_only_if_that_was_asked_for(ada, folder, private):
    push_folder(folder, "ada/tiny", private=private)
    assert ada.repos["ada/tiny"].private is private


@pytest.mark.parametrize("way", ["a folder", "a model in memory"])
def test_a_push_that_should_be_private_publishes_nothing_in_a_public_repository(ada, folder, way):
    repo = ada.add_repo("ada/tiny")
    before = list(repo.commits)
    push = partial(push_folder, folder) if way == "a folder" else make_lm().push_to_hub
    with pytest.raises(HubError, match=r"ada/tiny exists and is public, so nothing was published: make it private in "):
        push("ada/tiny", private=True)
    assert repo.commits == before
    assert not ada.asked("PUT ") and not ada.asked("POST .*/(preupload|commit|objects)/")


@pytest.mark.parametrize("private", [True, False])
def test_a_push_leaves_a_private_repository_private(ada, folder, private):
    repo = ada.add_repo("ada/tiny", private=True)
    push_folder(folder, "ada/tiny", private=private)
    assert repo.private and repo.files.keys() > FIVE


@pytest.mark.parametrize("cell", ["rnn", "gru"])
def test_a_model_in_memory_is_published_as_plain_torch_reads_it(ada, tmp_path, cell):
    lm = make_lm(cell)
    lm.push_to_hub("ada/tiny")
    for name, content in ada.repos["ada/tiny"].files.items():
        write(tmp_path / "plain" / name, content)
    plain, vocab = load_plain(tmp_path / "plain")
    text = "a bad cab\nde한😀é"
    logits = plain_logits(plain, [vocab.index(symbol) for symbol in text])
    expected = [-log_softmax(row)[vocab.index(symbol)] for row, symbol in zip(logits, text[1:], strict=False)]
    assert vocab == VOCAB
    assert lm.score(text) == pytest.approx(expected, abs=1e-4)  # float32 against float64
    assert json.loads(ada.repos["ada/tiny"].files["history.json"]) == lm.history


def test_a_group_that_the_user_belongs_to_can_be_published_for(hub, folder):
    hub.add_user("ada", TOKEN, groups=["analysts"])
    push_folder(folder, "analysts/tiny", token=TOKEN)
    assert hub.repos["analysts/tiny"].files.keys() > FIVE


@pytest.mark.parametrize("history", [True, False])
def test_the_hub_finds_nothing_to_say_against_the_card(ada, history):
    model = make_model(history=history)
    lm = CharLM(model.config, model.weights, model.history, device="cpu")
    lm.push_to_hub("ada/tiny")  # a warning of the Hub would fail this test
    (asked,) = ada.asked("POST /api/validate-yaml")
    assert asked.status == 200 and json.loads(asked.body)["repoType"] == "model"


def test_the_hubs_own_reader_finds_the_facts_in_the_card(ada, folder, model):
    push_folder(folder, "ada/tiny")
    data = ModelCard.load("ada/tiny").data
    assert (data.library_name, data.pipeline_tag, data.license) == ("charlm", "text-generation", "mit")
    assert {"charlm", "lstm"} <= set(data.tags)
    assert data.datasets == ["karpathy/tiny_shakespeare"]
    best = model.history["best"]["val_loss"]
    figures = [result.metric_value for result in data.eval_results]
    assert figures == pytest.approx([best, best / np.log(2)], abs=1e-4)
    assert {result.dataset_name for result in data.eval_results} == {"tinyshakespeare"}


def test_a_card_that_the_hub_refuses_is_reported_in_its_words(ada, folder):
    card = (folder / "README.md").read_text(encoding="utf-8")
    (folder / "README.md").write_text(card.replace("license: mit", "license: mine"), encoding="utf-8")
    with pytest.raises(HubError, match='refused the request for ada/tiny: "license" must be a known license') as error:
        push_folder(folder, "ada/tiny")
    assert error.value.exit_status == 2
    assert not FIVE & ada.repos["ada/tiny"].files.keys()


@pytest.mark.parametrize("name", ["hf://ada/tiny", "https://huggingface.co/ada/tiny", "ada/tiny@main"])
def test_a_repository_to_publish_to_is_named_as_one_to_load(ada, folder, name):
    push_folder(folder, name)
    assert ada.repos.keys() == {"ada/tiny"}


@pytest.mark.parametrize("name", ["ada/tiny@v1", "hf://ada/tiny@v1", "https://huggingface.co/ada/tiny/tree/v1"])
def test_a_push_to_a_revision_is_refused_before_the_hub_is_asked(ada, folder, name):
    said = "names the revision v1, and a push goes to the main branch: give ada/tiny$"
    for push in (lambda: push_folder(folder, name), lambda: check_can_push(name)):
        with pytest.raises(HubError, match=said):
            push()
    assert ada.requests == []


@pytest.mark.slow
def test_a_licence_and_a_language_are_published_and_the_folder_stays_as_it_is(ada, folder, files):
    push_folder(folder, "ada/tiny", license="CC0-1.0", language="de")
    data = ModelCard.load("ada/tiny").data
    assert (data.license, data.language) == ("cc0-1.0", "de")
    assert (folder / "README.md").read_bytes() == files["README.md"]
    make_lm().push_to_hub("ada/other", license="mit", language="ko")
    data = ModelCard.load("ada/other").data
    assert (data.license, data.language) == ("mit", "ko")


@pytest.mark.parametrize("wrong", [{"license": "mti"}, {"language": "english"}])
def test_a_licence_or_a_language_that_the_hub_does_not_know_is_refused_before_it_is_asked(ada, folder, wrong):
    with pytest.raises(
        RequestError, match="is not among the licences of the Hub; did you mean mit|two or three letters"
    ):
        push_folder(folder, "ada/tiny", **wrong)
    assert ada.requests == []


@pytest.mark.parametrize(
    ("name", "files_there"),
    [
        ("ada/page", ["app.py", "pyproject.toml"]),
        ("hf://spaces/ada/page", ["index.html"]),
        ("https://huggingface.co/spaces/ada/page/", ["pyproject.toml"]),
    ],
)
def test_the_published_card_links_to_the_space_and_installs_from_it_if_that_holds_the_package(
    ada, folder, name, files_there
):
    ada.add_repo("ada/page", dict.fromkeys(files_there, b""), kind="space")
    push_folder(folder, "ada/tiny", space=name)
    card = ada.repos["ada/tiny"].files["README.md"].decode()
    assert "[ada/page](https://huggingface.co/spaces/ada/page)" in card
    install = "pip install git+https://huggingface.co/spaces/ada/page"
    assert (install in card) == ("pyproject.toml" in files_there)


def static_space(hub, pins, **files):
    """A static Space whose card names these entries; return the commit of the Space."""
    card = f"---\nsdk: static\npreload_from_hub: {json.dumps(pins)}\n---\n".encode()
    content = {"README.md": card, "index.html": b"", "charlm.js": b""}
    return hub.add_repo("ada/page", content, kind="space", sdk="static").commits[-1].id


def address_in_card(hub):
    """The address of the model that the lines for a web page load."""
    card = hub.repos["ada/tiny"].files["README.md"].decode()
    return re.search(r'CharLM.load\("https://huggingface.co/(.*?)"\)', card)[1]


def test_the_lines_for_a_web_page_load_the_model_at_the_commit_that_the_space_shows(ada, folder, other_files):
    push_folder(folder, "ada/tiny")
    commit = ada.repos["ada/tiny"].commits[-1].id
    page = static_space(ada, [f"ada/tiny model.safetensors {commit}"])
    push_folder(folder, "ada/tiny", space="ada/page")
    assert address_in_card(ada) == f"ada/tiny/resolve/{commit}"
    card = ada.repos["ada/tiny"].files["README.md"].decode()
    assert f"https://huggingface.co/spaces/ada/page/resolve/{page}/charlm.js" in card
    commits = len(ada.repos["ada/tiny"].commits)
    push_folder(folder, "ada/tiny", space="ada/page")
    assert len(ada.repos["ada/tiny"].commits) == commits  # nothing has changed
    for name, content in other_files.items():
        write(folder / name, content)
    push_folder(folder, "ada/tiny", space="ada/page")
    assert address_in_card(ada) == "ada/tiny/resolve/main"  # the Space still shows the model before


@pytest.mark.parametrize(
    "pins",
    [
        None,
        "ada/tiny model.safetensors " + "a" * 40,
        [None, 3, ["ada/tiny"]],
        ["ada/other model.safetensors " + "a" * 40],
        ["ada/tiny model.safetensors main"],
        ["ada/tiny model.safetensors " + "a" * 40],
    ],
)
def test_a_space_that_names_no_commit_of_the_model_leaves_the_lines_at_the_main_branch(ada, folder, pins):
    static_space(ada, pins)
    push_folder(folder, "ada/tiny", space="ada/page")
    assert address_in_card(ada) == "ada/tiny/resolve/main"


def test_a_gradio_space_has_the_engine_in_the_package(ada, folder):
    files = dict.fromkeys(["app.py", "pyproject.toml", "charlm/browser/charlm.js"], b"")
    commit = ada.add_repo("ada/page", files, kind="space").commits[-1].id
    push_folder(folder, "ada/tiny", space="ada/page")
    card = ada.repos["ada/tiny"].files["README.md"].decode()
    assert f"/spaces/ada/page/resolve/{commit}/charlm/browser/charlm.js" in card
    assert "With charlm, from the same Space:\n\n    pip install git+" in card


def test_a_space_that_is_not_there_is_told_before_anything_is_published(ada, folder):
    with pytest.raises(HubError) as error:
        push_folder(folder, "ada/tiny", space="ada/page")
    assert str(error.value) == (
        "the Hub has no Space ada/page, or it is private: publish the model without it, make the Space with "
        "`python -m charlm deploy ada/page --model ada/tiny`, and push again"
    )
    with pytest.raises(HubError, match="'page' is not the name of a Space; give it as USER/SPACE"):
        push_folder(folder, "ada/tiny", space="page")
    assert not ada.repos


@pytest.fixture
def poems(model, tmp_path):
    """A model folder whose card states no licence and no language."""
    return save(replace(model, history=make_record(text="poems")), tmp_path / "poems")


def card_of(folder):
    return (folder / "README.md").read_text("utf-8").replace("USER/MODEL", "ada/tiny")


def test_a_push_keeps_the_licence_the_language_and_the_space_that_an_earlier_one_has_published(ada, poems):
    static_space(ada, [])
    push_folder(poems, "ada/tiny", license="mit", language="de", space="ada/page")
    repo = ada.repos["ada/tiny"]
    first = repo.files["README.md"]
    assert all(stated in first for stated in (b"license: mit", b"language: de", b"spaces/ada/page"))
    push_folder(poems, "ada/tiny")
    assert len(repo.commits) == 2  # nothing has changed
    push_folder(poems, "ada/tiny", language="ko")
    assert repo.files["README.md"] == first.replace(b"language: de", b"language: ko")
    push_folder(poems, "ada/tiny", license="other")
    assert b"license: other\nlicense_name: not-stated\n" in repo.files["README.md"]


@pytest.mark.slow
def test_a_model_that_is_loaded_and_published_again_keeps_its_licence(ada, poems):
    push_folder(poems, "ada/tiny", license="cc0-1.0", language="de")
    CharLM.from_pretrained("ada/tiny", device="cpu").push_to_hub("ada/tiny")
    data = ModelCard.load("ada/tiny").data
    assert (data.license, data.language) == ("cc0-1.0", "de")


def test_what_the_card_of_the_folder_states_goes_before_what_is_published(ada, poems):
    push_folder(poems, "ada/tiny", license="mit", language="de")
    own = "license: other\nlicense_name: my-own\nlicense_link: LICENSE\nlanguage: ko\n"
    stated, changes = re.subn("license: other\n.*\n.*\n", own, card_of(poems))
    write(poems / "README.md", stated.encode())
    push_folder(poems, "ada/tiny")
    assert changes == 1 and ada.repos["ada/tiny"].files["README.md"].decode() == stated


def test_a_licence_of_ones_own_and_several_languages_stay_published(ada, poems):
    own = "license: other\nlicense_name: my-own\nlicense_link: https://example.org/a\nlanguage: [en, de]\n"
    edit(ada.add_repo("ada/tiny"), {"README.md": f"---\n{own}---\n".encode()})
    with pytest.warns(UserWarning, match=r"replaced README.md"):
        push_folder(poems, "ada/tiny")
    data = ModelCard.load("ada/tiny").data
    assert (data.license, data.license_name, data.license_link) == ("other", "my-own", "https://example.org/a")
    assert data.language == ["en", "de"]
    assert "has stated no licence" not in ada.repos["ada/tiny"].files["README.md"].decode()


@pytest.mark.parametrize(
    "metadata",
    [
        "license: mine\nlanguage: english",
        "license: [mit]\nlanguage: {en: de}",
        "license: other\nlicense_name: my-own\nlicense_link: 'javascript:alert(1)'\nlanguage: ['<b>', 3]",
        "license: other\nlicense_name: 'a b'\nlicense_link: LICENSE",
        "license: 3\nlanguage: 3",
    ],
)
def test_nothing_else_is_taken_from_a_card_that_somebody_wrote_on_the_hub(ada, poems, metadata):
    link = "[ada/page](https://huggingface.co/spaces/bob/page) [a b](https://huggingface.co/spaces/a b)"
    card = f"---\n{metadata}\n---\n<!-- space -->\n{link} <script>\n<!-- end of space -->\n"
    edit(ada.add_repo("ada/tiny"), {"README.md": card.encode()})
    with pytest.warns(UserWarning, match=r"replaced README.md"):
        push_folder(poems, "ada/tiny")
    assert ada.repos["ada/tiny"].files["README.md"].decode() == card_of(poems)


def test_a_card_that_is_empty_or_huge_is_not_read_for_its_link(ada, poems):
    repo = ada.add_repo("ada/tiny")
    for content in (b"", b"a" * (LARGEST_CARD + 1)):
        edit(repo, {"README.md": content})
        with pytest.warns(UserWarning, match=r"replaced README.md"):
            push_folder(poems, "ada/tiny")
    assert not ada.asked("GET .*/resolve/")


def test_the_link_to_a_space_that_is_gone_goes_with_a_word(ada, poems):
    static_space(ada, [])
    push_folder(poems, "ada/tiny", space="ada/page")
    del ada.repos["spaces/ada/page"]
    with pytest.warns(UserWarning, match="links to the Space ada/page, which the Hub no longer shows"):
        push_folder(poems, "ada/tiny")
    assert ada.repos["ada/tiny"].files["README.md"].decode() == card_of(poems)


def test_a_folder_without_a_card_is_published_with_one(ada, folder, files):
    (folder / "README.md").unlink()
    push_folder(folder, "ada/tiny", license="mit")
    assert ModelCard.load("ada/tiny").data.library_name == "charlm"
    assert not (folder / "README.md").exists()


def test_a_card_in_another_encoding_is_told_before_the_hub_is_asked(ada, folder):
    write(folder / "README.md", "# für Ädä\r\n".encode("latin-1"))
    with pytest.raises(ModelFileError, match=r"run: README.md is not UTF-8 text, as the Hub demands; save it as"):
        push_folder(folder, "ada/tiny")
    assert ada.requests == []


def test_a_folder_that_is_not_there_is_told_with_the_one_that_was_meant(ada, folder):
    with pytest.raises(ModelFileError, match=r"there is no folder .*/rnu-1 here; did you mean .*/run-1\?"):
        push_folder(folder.rename(folder.parent / "run-1").with_name("rnu-1"), "ada/tiny")
    assert ada.requests == []


def test_a_folder_that_changes_while_it_is_read_is_not_published(ada, folder, other_files, monkeypatch):
    def read_and_let_a_training_write(folder):
        model = read_model(folder)
        write(folder / "model.safetensors", other_files["model.safetensors"])
        return model

    monkeypatch.setattr("charlm.publishing.read_model", read_and_let_a_training_write)
    with pytest.raises(
        ModelFileError, match="run changed while it was read: nothing was published; push it again when"
    ):
        push_folder(folder, "ada/tiny")
    assert ada.requests == []


def test_a_damaged_record_is_not_published(ada, folder):
    write(folder / "history.json", b"{}")
    with pytest.raises(ModelFileError, match=r"history\.json.*; the model loads if history\.json is mended or removed"):
        push_folder(folder, "ada/tiny")
    assert "ada/tiny" not in ada.repos


# Who else changed the repository


def edit(repo, files, **by):
    return repo.commit(files, message="Update README.md", **by)


@pytest.mark.parametrize("step", ["POST /api/models/.*/preupload", "POST .*/verify", "POST .*/commit/"])
def test_a_change_during_a_push_is_told_and_nothing_is_lost(ada, folder, files, other_files, step):
    repo = ada.add_repo("ada/tiny", other_files)

    def edit_before(answer):
        edit(repo, {"README.md": b"mine"})
        return answer()

    ada.on(step, edit_before, times=1)
    with pytest.raises(HubError) as error:
        push_folder(folder, "ada/tiny")
    assert str(error.value) == (
        "somebody else changed ada/tiny during this push, so nothing was published; look at it on the Hub, then push "
        "again"
    )
    assert repo.files["README.md"] == b"mine" and repo.files["config.json"] == other_files["config.json"]
    with pytest.warns(UserWarning, match=r"replaced README.md of ada/tiny"):
        push_folder(folder, "ada/tiny")
    assert repo.files["model.safetensors"] == files["model.safetensors"]


def test_a_hub_that_answers_a_conflict_otherwise_is_told_in_the_same_words(ada, folder):
    ada.fail("POST .*/commit/", 409)
    with pytest.raises(HubError, match="somebody else changed ada/tiny during this push, so nothing was published"):
        push_folder(folder, "ada/tiny")


def test_a_card_that_was_edited_on_the_hub_is_told_when_a_push_replaces_it(ada, folder, other_files):
    push_folder(folder, "ada/tiny")
    repo = ada.repos["ada/tiny"]
    edited = edit(repo, {"README.md": b"my own words"})
    repo.commit({"LICENSE": b"MIT"}, message="a file that no push touches")
    head = repo.refs["main"]
    for name, content in other_files.items():
        write(folder / name, content)
    with pytest.warns(UserWarning, match="replaced") as caught:
        push_folder(folder, "ada/tiny")
    assert [str(warning.message) for warning in caught if "content=" not in str(warning.message)] == [
        "this push replaced README.md of ada/tiny, which had changed since your last push or came from elsewhere; "
        f"commit {head[:7]} still has what was there"
    ]
    assert repo.at(head).files["README.md"] == repo.at(edited).files["README.md"] == b"my own words"
    push_folder(folder, "ada/tiny")  # of which nothing is to be told


def test_a_model_that_another_member_published_in_between_is_told(hub, folder, files, other_files):
    hub.add_user("ada", TOKEN, groups=["analysts"])
    push_folder(folder, "analysts/tiny", token=TOKEN)
    repo = hub.repos["analysts/tiny"]
    repo.commit(other_files, author="bob")
    with pytest.warns(UserWarning, match=r"replaced config\.json, model\.safetensors, .* of analysts/tiny"):
        push_folder(folder, "analysts/tiny", token=TOKEN)
    assert repo.files["model.safetensors"] == files["model.safetensors"]


def test_what_another_program_put_there_before_the_first_push_is_told(ada, folder):
    repo = ada.add_repo("ada/tiny")
    edit(repo, {"README.md": b"---\nlicense: mit\n---\n", "notes.md": b"mine"})
    with pytest.warns(UserWarning, match="replaced README.md of ada/tiny"):
        push_folder(folder, "ada/tiny")
    assert repo.files["notes.md"] == b"mine"


def test_a_change_that_equals_what_is_pushed_is_not_told(ada, folder, other_files):
    push_folder(folder, "ada/tiny")
    card = ada.repos["ada/tiny"].files["README.md"]
    edit(ada.repos["ada/tiny"], {"README.md": b"my own words"})
    edit(ada.repos["ada/tiny"], {"README.md": card, "model.safetensors": (folder / "model.safetensors").read_bytes()})
    push_folder(folder, "ada/tiny")


STEPS = ["POST /api/models/.*/preupload", "POST .*/objects/batch", "PUT /lfs/", "POST .*/verify", "POST .*/commit/"]


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    ("status", "message", "exit_status"),
    [(503, "the Hub answered 503 for ada/tiny; try again later", 1), (400, "refused the request.*injected", 2)],
)
def test_a_push_that_fails_halfway_leaves_the_repository_as_it_was(
    ada, folder, other_files, step, status, message, exit_status
):
    repo = ada.add_repo("ada/tiny", other_files)
    ada.fail(step, status)
    with pytest.raises(HubError, match=message) as error:
        push_folder(folder, "ada/tiny")
    assert error.value.exit_status == exit_status
    assert len(repo.commits) == 2
    assert {name: repo.files[name] for name in FIVE} == other_files


@pytest.mark.parametrize("step", STEPS)
def test_a_push_that_was_cut_off_can_be_repeated(ada, folder, files, step):
    ada.hang_up(step)
    with pytest.raises(HubUnavailableError, match="check the network"):
        push_folder(folder, "ada/tiny")
    ada.heal()
    push_folder(folder, "ada/tiny")
    assert ada.repos["ada/tiny"].files["model.safetensors"] == files["model.safetensors"]


def test_a_folder_that_is_not_sound_is_refused_before_the_hub_is_asked(ada, folder):
    write(folder / "model.safetensors", b"damaged")
    with pytest.raises(ModelFileError, match="SHA-256 differs"):
        push_folder(folder, "ada/tiny")
    assert ada.requests == []


@pytest.mark.parametrize("name", ["", "tiny", "ada/", "/tiny", "ada/tiny/x", "../tiny", "ada/ti ny", "ada/tiny.git"])
def test_what_is_no_name_of_a_repository_is_refused_before_the_hub_is_asked(ada, folder, name):
    with pytest.raises(HubError, match="not the name of a repository; give it as USER/NAME"):
        push_folder(folder, name)
    assert ada.requests == []


def test_a_push_without_a_token_says_how_to_get_one(hub, folder):
    for token in (None, True):
        with pytest.raises(HubError, match="no token for the Hub: run `hf auth login` or set HF_TOKEN"):
            push_folder(folder, "ada/tiny", token=token)
    assert hub.requests == []


def test_a_push_with_a_token_that_the_hub_does_not_know_says_so(hub, folder):
    with pytest.raises(HubError, match="does not accept the token: run `hf auth login` or set HF_TOKEN"):
        push_folder(folder, "ada/tiny", token="hf_stale")
    assert not hub.repos


@pytest.mark.parametrize("token", ["hf_gehe\u00efm", "hf_geheim\udcff"])
def test_a_token_that_cannot_be_one_is_blamed_and_not_the_network(ada, folder, hub_environment, token):
    hub_environment(HF_TOKEN=token)
    with pytest.raises(HubError, match="the token for the Hub holds a character that no token has") as refused:
        push_folder(folder, "ada/tiny")
    assert "gehe" not in str(refused.value)


def test_a_stored_token_that_cannot_be_read_is_blamed_and_not_the_cache(ada, folder, hub_environment, tmp_path):
    hub_environment(HF_TOKEN_PATH=tmp_path, HF_TOKEN=None)
    with pytest.raises(
        HubError, match=f"the token in {tmp_path} cannot be read .*; run `hf auth login` or name another"
    ):
        push_folder(folder, "ada/tiny")


def test_a_push_with_a_token_that_may_only_read_creates_nothing(hub, folder):
    hub.add_user("ada", TOKEN, write=False)
    with pytest.raises(HubError, match="the token may only read: .* one with write permission"):
        push_folder(folder, "ada/tiny", token=TOKEN)
    assert not hub.repos


@pytest.mark.parametrize("there", ["absent", "public", "private"])
def test_a_push_under_somebody_elses_name_is_refused(ada, folder, other_files, there):
    if there != "absent":
        ada.add_repo("bob/tiny", other_files, private=there == "private")
    with pytest.raises(HubError, match="bob/tiny would be bob's, and the token is that of ada: .* your own name"):
        push_folder(folder, "bob/tiny")
    assert {len(repo.commits) for repo in ada.repos.values()} <= {2}


@pytest.mark.parametrize("odd", [{"orgs": 5}, {"orgs": ["x", {}]}, {"auth": None}, {"auth": {"accessToken": "write"}}])
def test_what_the_hub_says_of_an_account_is_read_field_by_field(monkeypatch, odd):
    monkeypatch.setattr("huggingface_hub.HfApi.whoami", lambda *_, **__: {"name": "ada", **odd})
    check_can_push("ada/tiny")
    for answer in (odd, ["ada"], None):
        monkeypatch.setattr("huggingface_hub.HfApi.whoami", lambda *_, answer=answer, **__: answer)
        with pytest.raises(HubError, match="ada/tiny would be ada's, and the token is that of None"):
            check_can_push("ada/tiny")


# Spaces


@pytest.mark.parametrize(
    ("answer", "hardware"),
    [
        (b'{"hardware": {"current": "cpu-basic", "requested": "zero-a10g"}}', "zero-a10g"),
        (b'{"hardware": {"current": "cpu-basic", "requested": null}}', "cpu-basic"),
        (b'{"hardware": {"current": null, "requested": ["t4"]}}', ""),
        (b'{"hardware": "t4-small"}', ""),
        (b"[]", ""),
    ],
)
def test_the_hardware_of_a_space_is_read_from_any_answer(hub, hub_environment, answer, hardware):
    hub.on("GET /api/spaces/ada/page/runtime", lambda _: Response(200, answer))
    assert space_hardware("ada/page") == hardware


def test_a_space_that_is_not_there_has_no_hardware(hub):
    hub.add_user("ada", TOKEN)
    assert space_hardware("ada/page") is None


def test_a_hub_that_does_not_tell_the_hardware_is_said(hub):
    hub.fail("GET /api/spaces", 503)
    with pytest.raises(HubUnavailableError, match="the Hub answered 503 for ada/page"):
        space_hardware("ada/page")


@pytest.mark.parametrize(
    ("account", "has_plan"),
    [
        ({"isPro": True}, True),
        ({"isPro": False}, False),
        ({"isPro": "yes"}, False),
        ({}, False),
        ({"plan": "free"}, False),
        ({"orgs": [{"name": "lab", "isEnterprise": True}]}, True),
        ({"orgs": [{"name": "lab", "isEnterprise": False, "plan": "team"}]}, True),
        ({"orgs": [{"name": "lab", "isEnterprise": False, "plan": None}], "isPro": True}, False),
    ],
)
def test_whoami_tells_who_pays_for_a_plan(hub, hub_environment, account, has_plan):
    hub_environment(HF_TOKEN=TOKEN)
    answer = json.dumps({"type": "user", "name": "ada", **account}).encode()
    hub.on("GET /api/whoami-v2", lambda _: Response(200, answer))
    namespace = "lab" if "orgs" in account else "ada"
    owner = check_can_push(f"{namespace}/page")
    assert (owner.name, owner.user, owner.has_plan) == (namespace, "ada", has_plan)
