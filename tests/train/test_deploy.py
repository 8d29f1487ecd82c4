import os
import subprocess
import sys

import pytest
import yaml
from browser import ROOT, running_app
from gradio_client import Client
from huggingface_hub import SpaceCard
from models import make_lm

from charlm.errors import HubError
from train.deploy import deploy, space_files


@pytest.fixture
def ada(hub, hub_environment):
    """A user with two models, logged in."""
    hub.add_user("ada", token="hf_ada")
    hub_environment(HF_TOKEN="hf_ada")
    for name in ("one", "two"):
        make_lm("gru").push_to_hub(f"ada/{name}")
    return hub


def test_a_space_gets_the_page_and_the_models_that_it_shows(ada):
    address = deploy("ada/page", ["ada/one", "ada/two"])
    space = ada.repos["spaces/ada/page"]
    assert address == f"{ada.url}/spaces/ada/page/commit/{space.commits[-1].id}"
    assert space.sdk == "gradio"
    assert space.variables == {"CHARLM_MODELS": "ada/one,ada/two"}
    needed = ["charlm/lm.py", "charlm/py.typed", "charlm/web/static/page.js", "charlm/web/static/scene.txt"]
    for name in ("app.py", "requirements.txt", *needed, "train/__main__.py"):  # the page trains, too
        assert space.files[name] == (ROOT / name).read_bytes()
    unneeded = [name for name in space.files if name.startswith(("tests/", "docs/", "benchmarks/", ".ci"))]
    assert unneeded == []


def test_the_card_of_a_space_names_its_models_and_what_it_was_tested_with():
    card = space_files("ada/page", ["ada/one"])["README.md"].decode()
    metadata, text = card.removeprefix("---\n").split("\n---\n", 1)
    ours = yaml.safe_load((ROOT / "README.md").read_text(encoding="utf-8").split("---\n", 2)[1])
    known = yaml.safe_load(metadata)
    assert known["title"] == "page" and known["models"] == ["ada/one"]
    for name in ("sdk", "sdk_version", "python_version", "app_file"):
        assert known[name] == ours[name]
    assert "[ada/one](https://huggingface.co/ada/one)" in text
    assert SpaceCard(card).data.to_dict() == known  # as the Hub's own library reads it


def test_a_model_may_be_pinned_to_a_revision(ada):
    commit = ada.repos["ada/one"].commits[-1].id
    deploy("ada/page", [f"hf://ada/one@{commit}", "https://huggingface.co/ada/two"])
    space = ada.repos["spaces/ada/page"]
    assert space.variables == {"CHARLM_MODELS": f"ada/one@{commit},ada/two"}
    assert yaml.safe_load(space.files["README.md"].decode().split("---\n")[1])["models"] == ["ada/one", "ada/two"]


def test_deploying_again_changes_the_models_and_leaves_what_others_put_there(ada):
    deploy("ada/page", ["ada/one"])
    space = ada.repos["spaces/ada/page"]
    space.commit({"notes.txt": b"mine", "charlm/gone.py": b"of an earlier version"})
    deploy("ada/page", ["ada/two"])
    assert space.variables == {"CHARLM_MODELS": "ada/two"}
    assert space.files["notes.txt"] == b"mine"
    assert "charlm/gone.py" not in space.files
    commits = len(space.commits)
    deploy("ada/page", ["ada/two"])
    assert len(space.commits) == commits  # nothing has changed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("space", "models", "message"),
    [
        ("page", ["ada/one"], "'page' is not the name of a repository"),
        ("ada/page", ["ada/none"], "the Hub has no repository ada/none"),
        ("ada/page", ["weights/shakespeare-lstm/"], "is not the name of a repository"),
        ("ada/page", ["ada/one", "ada/other"], "ada/other has no config.json: it is not a charlm model"),
        ("eve/page", ["ada/one"], "eve/page would be eve's"),
    ],
)
def test_what_cannot_be_deployed_is_refused_before_a_space_is_made(ada, space, models, message):
    ada.add_repo("ada/other", {"pytorch_model.bin": b"x"})
    with pytest.raises(HubError, match=message):
        deploy(space, models)
    assert not any(name.startswith("spaces/") for name in ada.repos)


@pytest.mark.slow
def test_the_command_prints_where_the_space_is(ada):
    command = [sys.executable, "-m", "train", "deploy", "ada/page", "--model", "ada/one"]
    printed = subprocess.check_output(command, cwd=ROOT, text=True)
    assert printed.startswith(f"{ada.url}/spaces/ada/page/commit/")


def put(files, folder):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def install(requirements, folder):
    """Make an environment with what a Space asks for and nothing else; return its Python.

    It takes a minute, so that it is done in CI alone. Elsewhere it is this Python, which has the same packages.
    """
    if not os.environ.get("CHARLM_FRESH_SPACE"):
        return sys.executable
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "-r", requirements], check=True)
    return python


@pytest.mark.slow
def test_what_was_uploaded_runs_where_there_is_nothing_else(ada, tmp_path):
    deploy("ada/page", ["ada/one", "ada/two"])
    space, folder = ada.repos["spaces/ada/page"], tmp_path / "space"
    put(space.files, folder)
    python = install(folder / "requirements.txt", tmp_path / "environment")
    with running_app(folder=folder, python=python, PYTHONPATH="", HF_TOKEN="", **space.variables) as url:
        models = Client(url, verbose=False).predict(api_name="/models")
    assert [(model["name"], model["source"]) for model in models] == [("ada/one", "hub"), ("ada/two", "hub")]


@pytest.mark.slow
def test_without_a_hub_the_uploaded_page_shows_what_came_with_it(tmp_path):
    put(space_files("ada/page", ["ada/one"]), tmp_path)
    with running_app(folder=tmp_path, PYTHONPATH="", HF_ENDPOINT="http://127.0.0.1:9", CHARLM_MODELS="ada/one") as url:
        models = Client(url, verbose=False).predict(api_name="/models")
    assert [(model["name"], model["source"]) for model in models] == [
        ("shakespeare-lstm", "bundled"),
        ("shakespeare-rnn", "bundled"),
    ]
