"""The fixtures of the tests of loading from the Hub and of publishing there."""

import time
from types import SimpleNamespace

import pytest
from hub_client import TOKEN, log_in, write
from huggingface_hub import file_download
from huggingface_hub.utils import _http
from models import contents, make_model, make_record, save

from charlm.model.folder import Model


@pytest.fixture
def waits(monkeypatch):
    """The seconds that the client would have slept between its tries."""
    slept = []
    clock = SimpleNamespace(**vars(time) | {"sleep": slept.append})
    monkeypatch.setattr(_http, "time", clock)
    monkeypatch.setattr(file_download, "time", clock)
    return slept


@pytest.fixture
def ada(hub):
    """A Hub with the account of Ada, who is logged in."""
    hub.add_user("ada", TOKEN)
    log_in(TOKEN)
    return hub


@pytest.fixture(scope="module")
def model():
    return make_model("lstm")


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    """The five files of `model`."""
    return contents(save(model, tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def other_model():
    """Another model of the same shape, so that files of the two could be mixed."""
    return Model(make_model("lstm").config, make_model("lstm", seed=1).weights, make_record((1.25, 1.0)))


@pytest.fixture(scope="module")
def other_files(other_model, tmp_path_factory):
    return contents(save(other_model, tmp_path_factory.mktemp("other")))


@pytest.fixture
def folder(files, tmp_path):
    """A model folder of the test's own, beside things that must not be published."""
    for name, content in files.items():
        write(tmp_path / "run" / name, content)
    for name in ("checkpoint.safetensors", "notes.txt", ".env", "optimizer.pt", "sub/config.json"):
        write(tmp_path / "run" / name, b"private")
    return tmp_path / "run"
