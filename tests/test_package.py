"""What `pip install .` gives to other people's scripts."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from ctypes import CDLL
from importlib.metadata import distribution

import pytest
import yaml
from browser import ROOT, running_app
from gradio_client import Client
from models import make_model, save
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from charlm import CharLM, __version__
from charlm.inference.compiled import COMPILERS, SHIPPED, describe_engine
from train.deploy import space_files

PACKAGED = ("charlm", "train", "weights")
BESIDE = ("app.py", "requirements.txt", "pyproject.toml", "setup.py", "LICENSE", "README.md")
KERNELS = f"charlm/inference/{SHIPPED.name}"  # in a wheel that was built where there is a C compiler
needs_compiler = pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="there is no C compiler here")
SMALL = ["--epochs", "1", "--hidden-size", "8", "--embedding-size", "4", "--seq-length", "16", "--device", "cpu"]


def build_wheel(source, **environment):
    """Build the wheel of a source folder with the tools of this environment; the build leaves folders beside it.

    environment: variables, beside those of this process.
    """
    build = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", "."]
    subprocess.run([sys.executable, *build], cwd=source, env=os.environ | environment, check=True)
    (wheel,) = (source / "dist").glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    copy = tmp_path_factory.mktemp("source")
    for name in PACKAGED:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in BESIDE:
        shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture(scope="module")
def compilations(tmp_path_factory):
    """The file to which the compiler of `wheel` adds a letter each time."""
    return tmp_path_factory.mktemp("compiler") / "compilations"


@pytest.fixture(scope="module")
def wheel(source, compilations):
    found = os.environ.get("CC") or next(filter(None, map(shutil.which, COMPILERS)), None)
    if found is None:
        return build_wheel(source)
    compiler = compilations.with_name("compiler")
    compiler.write_text(f'#!/bin/sh\nprintf x >> {compilations}\nexec {found} "$@"\n')
    compiler.chmod(0o755)
    return build_wheel(source, CC=str(compiler))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The programs of an environment in which the wheel is installed and this environment's packages are, too."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel], check=True
    )
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "these.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin"


def files_of(wheel):
    """The files of a wheel, by the names that they have where it is installed, with their content."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def in_the_clone():
    """The files of a clone by the names that they have in the wheel."""
    where = {"charlm": "charlm", "train": "charlm/train", "weights": "charlm/weights"}
    listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard", *where], cwd=ROOT, text=True)
    places = {name: where[name.split("/")[0]] + name[name.index("/") :] for name in listed.splitlines()}
    places |= {name: f"charlm/source/{name}" for name in BESIDE if name != "README.md"}
    return {place: (ROOT / name).read_bytes() for name, place in places.items()}


@pytest.mark.slow
def test_the_wheel_holds_the_package_charlm_alone_with_training_models_and_licence_inside(wheel):
    files = files_of(wheel)
    about = "charlm_rnn-" + re.search(r'__version__ = "(.*)"', (ROOT / "charlm" / "__init__.py").read_text())[1]
    assert {name.split("/")[0] for name in files} == {"charlm", f"{about}.dist-info"}
    ours = {name: content for name, content in files.items() if name.startswith("charlm/")}
    assert {name: content for name, content in ours.items() if name != KERNELS} == in_the_clone()
    assert {"charlm/py.typed", "charlm/train/__main__.py", "charlm/weights/shakespeare-lstm/config.json"} <= set(ours)
    assert files[f"{about}.dist-info/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert files[f"{about}.dist-info/entry_points.txt"].decode().split() == [
        "[console_scripts]",
        *("charlm", "=", "charlm.__main__:main"),
    ]


@pytest.mark.slow
def test_the_source_distribution_gives_the_same_wheel(source, wheel, tmp_path):
    code = f"from setuptools import build_meta; print(build_meta.build_sdist({str(tmp_path)!r}))"
    name = subprocess.check_output([sys.executable, "-c", code], cwd=source, text=True).splitlines()[-1]
    assert name == wheel.name.split("-py3-none-")[0] + ".tar.gz"
    with tarfile.open(tmp_path / name) as archive:
        archive.extractall(tmp_path, filter="data")
    again = build_wheel(tmp_path / name.removesuffix(".tar.gz"))
    ours = {name: content for name, content in files_of(again).items() if name.startswith("charlm/")}
    assert (again.name, KERNELS in ours) == (wheel.name, KERNELS in files_of(wheel))
    assert {name: content for name, content in ours.items() if name != KERNELS} == in_the_clone()


@needs_compiler
@pytest.mark.slow
def test_the_wheel_brings_the_kernels_for_its_platform_and_any_python(wheel, tmp_path):
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert wheel.name.endswith(f"-py3-none-{platform}.whl")
    files = files_of(wheel)
    (about,) = (content.decode() for name, content in files.items() if name.endswith(".dist-info/WHEEL"))
    assert f"\nRoot-Is-Purelib: false\nTag: py3-none-{platform}\n" in about
    (tmp_path / SHIPPED.name).write_bytes(files[KERNELS])
    assert CDLL(str(tmp_path / SHIPPED.name)).widest_lanes() in (4, 8, 16)


@needs_compiler
@pytest.mark.slow
def test_the_kernels_are_compiled_once_though_pip_asks_for_the_metadata_first(wheel, compilations):
    assert compilations.read_text() == "x"


@needs_compiler
@pytest.mark.slow
def test_the_installed_package_compiles_nothing(installed, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shown = call(installed, "charlm", "--version", folder=tmp_path)
    assert shown.startswith(f"charlm {__version__}, compiled kernels (") and not (tmp_path / "cache").exists()


def call(installed, *command, folder):
    """Run a program of the environment with the wheel in some folder; return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    program, *arguments = map(str, command)
    ended = subprocess.run(
        [installed / program, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.slow
def test_the_installed_command_trains_measures_writes_and_scores(installed, tmp_path):
    (tmp_path / "text.txt").write_text("a bad cab\n" * 200)
    assert call(installed, "charlm", "--version", folder=tmp_path) == f"charlm {__version__}, {describe_engine()}\n"
    call(installed, "charlm", "fit", "--cell", "rnn", "--text", "text.txt", "--out", "out", *SMALL, folder=tmp_path)
    measured = json.loads(
        call(installed, "charlm", "evaluate", "./out", "--text", "text.txt", "--json", folder=tmp_path)
    )
    lm = CharLM.from_pretrained(tmp_path / "out")
    assert measured["val_loss"] == pytest.approx(lm.history["best"]["val_loss"], abs=1e-3)
    written = call(installed, "charlm", "generate", "./out", "--length", 50, "--seed", 7, folder=tmp_path)
    assert written == lm.generate("", 50, seed=7) + "\n"
    scored = json.loads(call(installed, "charlm", "score", "./out", "text.txt", "--json", folder=tmp_path))
    assert scored["nats_per_char"] == pytest.approx(lm.score("a bad cab\n" * 200).mean(), rel=1e-6)


@pytest.mark.slow
def test_a_script_elsewhere_writes_with_the_installed_package(installed, tmp_path):
    folder = save(make_model(), tmp_path / "model")
    code = (
        f"from charlm import CharLM; print(CharLM.from_pretrained({str(folder)!r}).generate('ab', 50, seed=7), end='')"
    )
    written = call(installed, "python", "-c", code, folder=tmp_path)
    assert written == CharLM.from_pretrained(folder).generate("ab", 50, seed=7)


@pytest.mark.slow
def test_no_module_of_ours_but_charlm_is_installed(installed, tmp_path):
    code = "from importlib.util import find_spec; print([name for name in ('train', 'app') if find_spec(name)])"
    assert call(installed, "python", "-c", code, folder=tmp_path) == "[]\n"


PAGE_TRAINS = """
from charlm.installation import training_package
from charlm.web.answers.train import TrainingQueue

print(training_package())
for progress in TrainingQueue().train("a bad cab\\n" * 200, "rnn", "small", "visitor"):
    if progress.epochs:
        print(progress.epochs[0]["epoch"])
        break
else:
    print(progress.message)
"""


@pytest.mark.slow
def test_the_page_of_the_installed_package_has_the_models_and_trains(installed, tmp_path):
    with running_app(command=[installed / "charlm", "serve"], PYTHONPATH="") as url:
        models = Client(url, verbose=False).predict(api_name="/models")
    assert [(model["name"], model["source"]) for model in models] == [
        (name, "bundled")
        for name in (
            *("shakespeare-lstm", "shakespeare-rnn", "shakespeare-gru"),
            *("c-lstm", "hongloumeng-lstm", "warpeace-lstm", "names-gru", "homework-lstm", "homework-rnn"),
        )
    ]
    assert call(installed, "python", "-c", PAGE_TRAINS, folder=tmp_path) == "charlm.train\n1\n"


SPACE = """
import hashlib, json
from charlm.train.deploy import space_files

files = space_files("ada/page", [], "cpu-basic")
print(json.dumps({path: hashlib.sha256(content).hexdigest() for path, content in files.items()}))
"""


@pytest.mark.slow
def test_the_installed_package_puts_the_same_files_on_a_space(installed, tmp_path):
    uploaded = json.loads(call(installed, "python", "-c", SPACE, folder=tmp_path))
    expected = space_files("ada/page", [], "cpu-basic")
    assert uploaded == {path: hashlib.sha256(content).hexdigest() for path, content in expected.items()}


@pytest.mark.slow
def test_pip_builds_the_same_package_from_what_is_on_a_space_without_a_compiler_for_all_platforms(tmp_path):
    uploaded = space_files("ada/page", [], "cpu-basic")
    for path, content in uploaded.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    wheel = build_wheel(tmp_path, PATH="", CC="")
    built = files_of(wheel)
    assert wheel.name.endswith("-py3-none-any.whl") and KERNELS not in built
    assert built["charlm/inference/kernels.c"] == (ROOT / "charlm" / "inference" / "kernels.c").read_bytes()
    code = {path: content for path, content in in_the_clone().items() if path.endswith(".py")}
    assert {path: content for path, content in built.items() if path.endswith(".py")} == code
    shown = {path.split("/")[2] for path in built if path.startswith("charlm/weights/")}
    assert shown == {"shakespeare-lstm", "shakespeare-rnn"}


def test_nothing_tells_anybody_to_install_what_is_somebody_elses():
    # on the Python Package Index `charlm` is another project
    listed = subprocess.check_output(["git", "ls-files", "*.py", "*.md", "*.toml", "*.txt"], cwd=ROOT, text=True)
    wrong = re.compile(r"pip install[^\n]* [\"']?charlm(?![\w-])" + "|charlm" + r"[=~<>]=")
    for name in listed.splitlines():
        assert not wrong.search((ROOT / name).read_text(encoding="utf-8")), name


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


def test_the_lock_is_of_the_public_index_and_ends_with_what_ci_leaves_out():
    common, cuda = (ROOT / "requirements.lock").read_text().split("\n# torch")
    names = [re.findall(r"^([\w.-]+)==(\S+)", part, re.MULTILINE) for part in (common, cuda)]
    assert not any("+" in version for part in names for _, version in part)  # such a version is of another index
    for name, _ in names[1]:
        assert name in ("torch", "triton") or name.startswith(("nvidia-", "cuda-"))
    assert "torch" in dict(names[1]) and not dict(names[0]).keys() & dict(names[1]).keys()
    assert "sed '/^# torch/,$d' requirements.lock" in (ROOT / ".ci" / "run").read_text()


def test_what_is_told_about_the_project_outside_of_it_agrees():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]["run"]
    tested = {f"Programming Language :: Python :: {version}" for version in workflow["strategy"]["matrix"]["python"]}
    assert tested == {each for each in project["classifiers"] if re.search(r"Python :: 3\.", each)}
    assert workflow["steps"][-1]["run"] == "bash .ci/run"
    wheels = yaml.safe_load((ROOT / ".github" / "workflows" / "wheels.yml").read_text(encoding="utf-8"))["jobs"]
    builder = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["cibuildwheel"]
    assert [f"cp{version.replace('.', '')}-*" for version in workflow["strategy"]["matrix"]["python"]] == builder[
        "build"
    ]
    assert (ROOT / builder["test-command"].split("{project}/")[1]).is_file()
    assert "python -m cibuildwheel" in [step.get("run") for step in wheels["compiled"]["steps"]]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["license"]) == (__version__, project["license"])
    assert [each["name"] for each in citation["authors"]] == [each["name"] for each in project["authors"]]
