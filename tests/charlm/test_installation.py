import ast
import re
import sys
import tomllib

import pytest
from browser import ROOT
from models import make_lm, make_record
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from charlm import CharLM, cli, installation
from charlm.device import has_cuda, pick_device
from charlm.errors import CharLMError, MissingPackageError
from charlm.installation import EXTRAS, optional_packages
from charlm.model.history import draw_curves
from train import config

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture
def without(monkeypatch):
    """A function after which packages cannot be imported, and neither can modules of charlm that import them first."""

    def block(*packages):
        loaded = [name for name in sys.modules if name.split(".")[0] in packages]
        for name in [*packages, *loaded]:  # a part that was imported before would be found without its package
            monkeypatch.setitem(sys.modules, name, None)
        for name in ("charlm.model.network", "charlm.inference.gpu"):
            monkeypatch.delitem(sys.modules, name, raising=False)

    return block


def says(package, extra):
    return re.escape(
        f"this needs {package}, which is not installed; the extra [{extra}] brings it: "
        f'run pip install "{ROOT}[{extra}]"'
    )


# What the base cannot do is refused with the extra that can


@pytest.mark.slow
def test_without_torch_a_model_loads_writes_scores_inspects_finds_units_and_tells_influence(without):
    without("torch", "matplotlib", "tqdm", "gradio", "uvicorn")
    lm = CharLM.from_pretrained(ROOT / "weights" / "shakespeare-rnn")
    assert lm.generate("ROMEO:", 20, seed=7) == "".join(lm.stream("ROMEO:", 20, seed=7))
    assert len(lm.score("To be, or not")) == 12
    assert lm.inspect("To be").surprisals[1:] == pytest.approx(lm.score("To be"), rel=1e-6)
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert lm.find_units(lm.vocab.keep_known(text)[0])
    assert len(lm.influence("To be")) == 4


@pytest.mark.parametrize(
    "use",
    [
        lambda lm: lm.network,
        lambda lm: pick_device("auto"),
        lambda lm: CharLM.from_pretrained(ROOT / "weights" / "shakespeare-rnn", device="cuda"),
    ],
    ids=["network", "a device for training", "cuda"],
)
def test_what_needs_torch_says_which_extra_brings_it(without, use):
    lm = make_lm("gru")
    without("torch")
    with pytest.raises(MissingPackageError, match=f"^{says('torch', 'train')}$"):
        use(lm)


def test_a_driver_of_cuda_is_of_no_use_without_torch(without, monkeypatch):
    monkeypatch.setattr("charlm.device.ctypes.CDLL", lambda name: None)
    without("torch")
    assert not has_cuda()
    assert CharLM.from_pretrained(ROOT / "weights" / "shakespeare-rnn").device == "cpu"


def test_a_picture_of_the_curves_needs_matplotlib(without, tmp_path):
    lm = make_lm("rnn")
    without("matplotlib")
    with pytest.raises(MissingPackageError, match=says("matplotlib", "train")):
        draw_curves(make_record(), "title")
    with pytest.raises(MissingPackageError, match=says("matplotlib", "train")):
        lm.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("package", EXTRAS["train"])
def test_training_is_refused_before_it_begins(without, package, monkeypatch, capsys, tmp_path):
    from train.__main__ import main

    without(package)
    (tmp_path / "text.txt").write_text("a bad cab\n" * 200)
    arguments = ["fit", "--cell", "rnn", "--text", str(tmp_path / "text.txt"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["train", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert re.fullmatch(f"error: {says(package, 'train')}\n", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("package", EXTRAS["app"])
def test_a_command_that_misses_a_package_of_the_page_ends_with_the_line_for_it(without, package, capsys):
    without(package)
    assert cli.run(lambda: __import__(f"{package}.part")) == 2
    assert re.fullmatch(f"error: {says(package, 'app')}\n", capsys.readouterr().err)


def test_another_package_that_is_missing_is_a_mistake_of_ours():
    with pytest.raises(ModuleNotFoundError, match="no_such_package"), optional_packages():
        import no_such_package  # noqa: F401


def test_where_charlm_is_installed_the_command_names_the_distribution(monkeypatch, without):
    monkeypatch.setattr(installation, "distribution", lambda name: name)
    without("torch")
    with pytest.raises(CharLMError, match=re.escape('run pip install "charlm-rnn[train]"')):
        pick_device("auto")


# What the code imports is what pyproject.toml declares


def imported(*places):
    """The packages that the code in some places imports, as Python calls them."""
    paths = [path for place in places for path in (place.rglob("*.py") if place.is_dir() else [place])]
    found = set()
    for node in (node for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"charlm", "train"}


def declared(extra=None):
    lines = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    return {canonicalize_name(Requirement(line).name) for line in lines}


def test_the_package_declares_all_that_its_code_imports_and_nothing_else():
    names = {"yaml": "pyyaml", "huggingface_hub": "huggingface-hub"}  # of distributions, where they differ
    used = {names.get(name, name) for name in imported(ROOT / "charlm", ROOT / "train", ROOT / "app.py")}
    assert used - {"spaces"} == declared() | declared("train") | declared("app")  # which ZeroGPU has, and nobody else


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_message_names_the_extra_that_declares_the_package(extra):
    assert set(EXTRAS[extra]) == declared(extra)


def test_the_extra_all_is_all_of_them():
    (everything,) = PROJECT["optional-dependencies"]["all"]
    assert Requirement(everything).name == PROJECT["name"] == installation.DISTRIBUTION
    assert Requirement(everything).extras == set(EXTRAS)


def test_libraries_whose_private_names_we_use_have_a_ceiling():
    lines = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["app"]]
    bounds = {(each := Requirement(line)).name: str(each.specifier) for line in lines}
    for name in ("huggingface-hub", "gradio", "uvicorn", "h11"):
        assert "<" in bounds[name]


# Where things are


def test_in_a_clone_the_training_package_and_the_models_lie_beside_charlm():
    assert installation.training_package() == "train"
    assert installation.bundled_models() == ROOT / "weights"


def test_a_file_called_train_in_the_current_folder_is_not_taken_for_ours(monkeypatch, tmp_path):
    (tmp_path / "train.py").write_text("raise SystemExit('not ours')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "train"]:
        monkeypatch.delitem(sys.modules, name)
    before = list(sys.path)
    assert installation.import_training("config").__file__ == config.__file__
    assert sys.path == before


def test_an_installed_package_has_its_models_inside(monkeypatch, tmp_path):
    for name in ("source", "train", "weights", "model"):
        (tmp_path / "charlm" / name).mkdir(parents=True)
        (tmp_path / "charlm" / name / "part.py").touch()
    monkeypatch.setattr(installation, "PACKAGE", tmp_path / "charlm")
    assert installation.training_package() == "charlm.train"
    assert installation.bundled_models() == tmp_path / "charlm" / "weights"
    ours = installation.source_files("charlm", (".py",)) | installation.source_files("train", (".py",))
    assert ours == {
        "charlm/model/part.py": tmp_path / "charlm" / "model" / "part.py",
        "train/part.py": tmp_path / "charlm" / "train" / "part.py",
    }
