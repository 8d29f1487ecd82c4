"""What `pip install .` gives to other people's scripts."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from browser import ROOT
from models import make_model, save

from charlm.lm import CharLM


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    # built from a copy: the build leaves folders beside the sources
    copy = tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT / "charlm", copy / "charlm", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copy)
    build = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", "."]
    subprocess.run([sys.executable, *build], cwd=copy, check=True)
    return next((copy / "dist").glob("charlm-*.whl"))


def test_the_package_is_charlm_alone_and_says_that_it_is_typed(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert top == {"charlm", wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"}
    assert "charlm/py.typed" in names
    assert {f"charlm/{path.relative_to(ROOT / 'charlm')}" for path in (ROOT / "charlm").rglob("*.py")} <= set(names)


def test_a_script_elsewhere_loads_a_model_with_the_installed_package(wheel, tmp_path):
    folder = save(make_model(), tmp_path / "model")
    code = (
        f"from charlm import CharLM; print(CharLM.from_pretrained({str(folder)!r}).generate('ab', 50, seed=7), end='')"
    )
    environment = {**os.environ, "PYTHONPATH": str(wheel)}  # Python reads packages from a wheel as it is
    written = subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, env=environment)
    assert written.decode() == CharLM.from_pretrained(folder).generate("ab", 50, seed=7)
