import shutil

import pytest
from models import make_model, save


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return save(make_model("gru"), tmp_path_factory.mktemp("sound"))


@pytest.fixture
def folder(sound, tmp_path):
    """A sound model folder, to be damaged."""
    return shutil.copytree(sound, tmp_path / "model")
