"""What `pip install .` gives to other people's scripts."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distribution

import pytest
from browser import ROOT
from models import make_model, save
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


@pytest.mark.slow
def test_the_package_is_charlm_alone_and_says_that_it_is_typed(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert top == {"charlm", wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"}
    assert "charlm/py.typed" in names
    assert {f"charlm/{path.relative_to(ROOT / 'charlm')}" for path in (ROOT / "charlm").rglob("*.py")} <= set(names)


@pytest.mark.slow
def test_a_script_elsewhere_loads_a_model_with_the_installed_package(wheel, tmp_path):
    folder = save(make_model(), tmp_path / "model")
    code = (
        f"from charlm import CharLM; print(CharLM.from_pretrained({str(folder)!r}).generate('ab', 50, seed=7), end='')"
    )
    environment = {**os.environ, "PYTHONPATH": str(wheel)}  # Python reads packages from a wheel as it is
    written = subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, env=environment)
    assert written.decode() == CharLM.from_pretrained(folder).generate("ab", 50, seed=7)


def needed():
    """What the requirements of the app and the tests bring along here: the versions of all packages, by name."""
    lines = (ROOT / "requirements.txt").read_text() + (ROOT / "requirements-dev.txt").read_text()
    open_ones = [Requirement(line) for line in re.sub("(#.*|^-r.*)", "", lines, flags=re.MULTILINE).split("\n") if line]
    seen, versions = set(), {}
    while open_ones:
        wanted = open_ones.pop()
        if str(wanted) in seen:
            continue
        seen.add(str(wanted))
        package = distribution(wanted.name)
        versions[canonicalize_name(wanted.name)] = package.version
        for each in map(Requirement, package.requires or []):
            if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ["", *wanted.extras]):
                open_ones.append(each)
    return versions


def test_everything_that_is_installed_is_locked_with_hashes():
    entries = re.split(r"\n(?=\S)", (ROOT / "requirements.lock").read_text())
    locked = {entry.split()[0]: re.findall(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries}
    for name, version in needed().items():
        hashes = [
            locked[entry] for entry in (f"{name}=={version}", f"{name}=={version.split('+')[0]}") if entry in locked
        ]
        assert hashes and all(hashes), f"{name} {version}: run .ci/lock"
