"""Which part of the code may use which: the arrows that keep it readable, checked."""

import ast
import re
import subprocess
import sys
from functools import cache

import pytest
from browser import ROOT

# Each module may import those before it. A folder is a room: its modules come after those of the rooms before it.
ORDER = [
    "charlm.errors",
    "charlm.installation",
    "charlm.nearest",
    "charlm.messages",
    "charlm.checks",
    "charlm.faulty_variable",
    "charlm.cli",
    "charlm.zero_gpu",
    "charlm.device",
    "charlm.damage",
    "charlm.text",
    "charlm.vocab",
    "charlm.model_name",
    "charlm.locks",
    "charlm.model.cells",
    "charlm.model.config",
    "charlm.model.history",
    "charlm.model.kept",
    "charlm.model.weights",
    "charlm.model.folder",
    "charlm.model.card",
    "charlm.model.published_card",
    "charlm.model.network",
    "charlm.inference.sampling",
    "charlm.inference.compiled",
    "charlm.inference.compiled_model",
    "charlm.inference.numpy_model",
    "charlm.inference.engine",
    "charlm.inference.prefixes",
    "charlm.inference.scoring",
    "charlm.inference.streams",
    "charlm.inference.batching",
    "charlm.inference.gpu",
    "charlm.analysis.gates",
    "charlm.analysis.inspection",
    "charlm.analysis.units",
    "charlm.analysis.context",
    "charlm.analysis.influence",
    "charlm.analysis.pattern",
    "charlm.analysis.diagnosis",
    "charlm.analysis.published",
    "charlm.hub",
    "charlm.publishing",
    "charlm.lm",
    "charlm.browser.scripts",
    "charlm.browser.lesson",
    "charlm.browser.page",
    "charlm.browser.export",
    "charlm.web.load_once",
    "charlm.web.models",
    "charlm.web.heat",
    "charlm.web.readings",
    "charlm.web.plots",
    "charlm.web.training.settings",
    "charlm.web.training.process",
    "charlm.web.training.result",
    "charlm.web.training.progress",
    "charlm.web.training.texts",
    "charlm.web.answers.write",
    "charlm.web.answers.draws",
    "charlm.web.answers.learn",
    "charlm.web.answers.examples",
    "charlm.web.answers.inside",
    "charlm.web.answers.train",
    "charlm.web.answers.load",
    "charlm.web.answers.api",
    "charlm.web.answers.completions",
    "charlm.web.address",
    "charlm.web.components",
    "charlm.web.errors",
    "charlm.web.environment",
    "charlm.web.gradio_import",
    "charlm.web.guard",
    "charlm.web.completions",
    "charlm.web.gradio_internals",
    "charlm.web.server",
    "charlm.web.theme",
    "charlm.web.views.write_parts",
    "charlm.web.views.write",
    "charlm.web.views.learn",
    "charlm.web.views.inside",
    "charlm.web.views.train_parts",
    "charlm.web.views.train",
    "charlm.web.views.load",
    "charlm.web.page",
    "charlm.web.launch",
    "charlm.__main__",
    "app",
    "train.precision",
    "train.encode",
    "train.data",
    "train.batches",
    "train.evaluate",
    "train.recurrence",
    "train.head",
    "train.network",
    "train.dynamic",
    "train.split",
    "train.protocols",
    "train.recipes",
    "train.config",
    "train.control",
    "train.init_from",
    "train.optimizer",
    "train.checkpoint",
    "train.interrupts",
    "train.launcher",
    "train.distributed",
    "train.curve",
    "train.report",
    "train.tracking",
    "train.advice",
    "train.run_folder",
    "train.deploy",
    "train.teachers",
    "train.schedule",
    "train.trainer",
    "train.budget",
    "train.loop",
    "train.events",
    "train.__main__",
]
# Each of these libraries is the business of one place.
ONLY_IN = {
    "torch": {
        "charlm.device",
        "charlm.model.network",
        "charlm.inference.gpu",
        "charlm.lm",
        "train",
    },
    "gradio": {
        "charlm.web.components",
        "charlm.web.errors",
        "charlm.web.views",
        "charlm.web.page",
        "charlm.web.server",
        "charlm.web.theme",
        "charlm.web.gradio_internals",
    },
    "huggingface_hub": {"charlm.hub", "charlm.publishing"},
    "matplotlib": {"charlm.model.history"},
}

SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in [ROOT / "app.py", *(ROOT / "charlm").rglob("*.py"), *(ROOT / "train").rglob("*.py")]
    if path.name != "__init__.py"
}


@cache
def imports(module):
    """The names that a module imports, and the modules from which it imports them."""
    names = set()
    for node in ast.walk(ast.parse(SOURCES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            source = ".".join([*package, *([node.module] if node.module else [])])
            names |= {source, *(f"{source}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def test_every_module_has_its_place_in_the_order():
    assert sorted(SOURCES) == sorted(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_what_stands_before_it(module):
    later = set(ORDER[ORDER.index(module) :])
    if module.startswith("train"):
        later |= {name for name in ORDER if name.startswith(("charlm.web", "app"))}
    assert later.isdisjoint(imports(module))


@pytest.mark.parametrize("module", [name for name in ORDER if name.startswith("train.")])
def test_the_training_package_has_no_name_for_itself_as_it_is_charlm_train_where_it_is_installed(module):
    tree = ast.walk(ast.parse(SOURCES[module].read_text(encoding="utf-8")))
    named = [node.module for node in tree if isinstance(node, ast.ImportFrom) and not node.level]
    assert not any(name.split(".")[0] == "train" or name.startswith("charlm.train") for name in named)


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_imported_only_where_it_belongs(library):
    users = {module for module in ORDER if any(name.split(".")[0] == library for name in imports(module))}
    assert users
    assert all(any(f"{user}.".startswith(f"{place}.") for place in ONLY_IN[library]) for user in users)


HEAVY = {"torch", "gradio", "matplotlib", "huggingface_hub"}


def run(code):
    return subprocess.check_output([sys.executable, "-c", f"import sys\n{code}"], cwd=ROOT, text=True)


def test_tab_completion_offers_charlm_before_its_first_use():
    code = "import charlm, sys; print(set(charlm.__all__) - set(dir(charlm)), 'charlm.lm' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "set() False\n"


def test_importing_charlm_loads_no_torch_and_no_gradio():
    assert run(f"import charlm\nprint({HEAVY} & sys.modules.keys())") == "set()\n"


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_writing_and_scoring_on_a_cpu_loads_no_torch_and_no_gradio(device):
    code = f"""
import ctypes

class Library(ctypes.CDLL):
    def __init__(self, name, *arguments, **options):
        if "cuda" in name:
            raise OSError  # as where there is no CUDA driver
        super().__init__(name, *arguments, **options)

ctypes.CDLL = Library
from charlm import CharLM

for folder in {[str(folder) for folder in sorted((ROOT / "weights").iterdir())]}:
    lm = CharLM.from_pretrained(folder, device={device!r})
    text = lm.generate("ROMEO", 20, seed=1)
    assert [sample.text for sample in lm.generate_many("ROMEO", length=20, seed=1)] == [text]
    assert len(text) == 20 and len(lm.score(text)) == 19 and lm.device == "cpu"
print({HEAVY} & sys.modules.keys())
"""
    assert run(code) == "set()\n"


@pytest.mark.parametrize("command", ["--help", "push", "push --help", "deploy --help", "fit --help", "fit --epochs 0"])
def test_commands_that_train_nothing_load_no_torch(command):
    code = f"""
import contextlib, io
from train.__main__ import main

sys.argv = ["train", *{command.split()}]
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(sys.stdout):
    main()
print("torch" in sys.modules)
"""
    assert run(code) == "False\n"


HELP = [
    "",
    *(f"{name} " for name in ["fit", "evaluate", "push", "deploy", "generate", "score", "units", "export", "serve"]),
]


def test_help_loads_no_library():
    code = f"""
import contextlib, io
from charlm.__main__ import main

for command in {HELP}:
    sys.argv = ["charlm", *f"{{command}}--help".split()]
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as shown:
        main()
    assert f"usage: charlm {{command}}" in shown.getvalue(), command
print({HEAVY | {"numpy", "tqdm", "safetensors", "yaml"}} & sys.modules.keys())
"""
    assert run(code) == "set()\n"


@pytest.mark.parametrize("module", ["charlm.publishing", "train.deploy"])
def test_what_publishes_a_model_or_a_page_loads_no_torch(module):
    assert run(f"import {module}\nprint({{'torch', 'gradio', 'matplotlib'}} & sys.modules.keys())") == "set()\n"


def test_every_export_of_the_pages_is_used_by_another_module_or_a_test():
    scripts = [path for folder in ("charlm/browser", "charlm/web/static") for path in (ROOT / folder).rglob("*.js")]
    sources = {path: path.read_text(encoding="utf-8") for path in [*scripts, *(ROOT / "tests").rglob("test_*.py")]}
    words = {path: set(re.findall(r"\w+", source)) for path, source in sources.items()}
    exported = re.compile(r"^export (?:async )?(?:class|const|function\*?|let) (\w+)", re.MULTILINE)
    unused = [
        f"{path.name}: {name}"
        for path in scripts
        if path.name != "charlm.js"  # a library, which other pages import
        for name in exported.findall(sources[path])
        if not any(name in words[other] for other in words if other != path)
    ]
    assert unused == []
