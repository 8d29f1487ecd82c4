"""The commands and scripts of README.md, CONTRIBUTING.md, SECURITY.md and docs/*.md, run in a copy of the repository.

Every `sh` and `python` block is run, line by line, against a Hub on this machine; NOT_RUN_HERE lists the exceptions.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from browser import ROOT
from forked_programs import run_program
from models import make_lm
from torch.distributed.run import get_args_parser

from charlm.lm import CharLM
from train.__main__ import parse
from train.checkpoint import CHECKPOINT_FILE

DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")), *ROOT.glob("docs/*.md"))
}
TEXT = "Once upon a time a small network read a book. It read it once, and twice, and wrote.\n" * 60

WAR_AND_PEACE = "python benchmarks/war_and_peace.py --text warpeace.txt --only"
# Commands that take too long here or never end, and the test that runs them or the same with smaller numbers.
NOT_RUN_HERE = {
    "pip install -r requirements.txt && python app.py": ".ci/run",  # installs; tests/test_app.py starts the app
    "pip install -r requirements-dev.txt && bash tests/install_browser.sh && python -m pytest": ".ci/run",
    "python app.py --model ./runs/my-text --model ./weights/shakespeare-lstm": "tests/test_app.py",
    "python app.py --model ada/my-text": "tests/test_app.py",
    "torchrun --standalone --nproc-per-node 2 -m train fit --cell lstm --text my-text.txt --out runs/together": (
        "tests/train/test_distributed.py"
    ),
    "uv run examples/train_and_publish.py hf://datasets/ada/poems/poems.txt ada/poems-lstm --hidden-size 256": (
        "tests/test_examples.py"
    ),
    "OMP_NUM_THREADS=1 python benchmarks/train.py --symbols 65 --threads 1 --seconds 4": "tests/test_benchmarks.py",
    "python benchmarks/generate.py": "tests/test_benchmarks.py",
    "CHARLM_KERNELS=avx2 OPENBLAS_CORETYPE=Haswell ATEN_CPU_CAPABILITY=avx2 python benchmarks/generate.py": (
        "tests/test_benchmarks.py"
    ),
    f"{WAR_AND_PEACE} lstm-128-1 gru-128-1 rnn-128-1": "tests/test_benchmarks.py",
    f"{WAR_AND_PEACE} lstm-128-2 lstm-128-3 gru-128-2 gru-128-3 rnn-128-2 rnn-128-3 --epochs 8": (
        "tests/test_benchmarks.py"
    ),
    f"{WAR_AND_PEACE} lstm-128-2": "tests/test_benchmarks.py",
    f"{WAR_AND_PEACE} lstm-256-2 lstm-256-3 --epochs 10": "tests/test_benchmarks.py",
    f"{WAR_AND_PEACE} lstm-256-1 gru-256 --epochs 8": "tests/test_benchmarks.py",
    f"{WAR_AND_PEACE} rnn-256 --epochs 5": "tests/test_benchmarks.py",
    f"{WAR_AND_PEACE} lstm-512-2 --epochs 24": "tests/test_benchmarks.py",
    "python benchmarks/page.py --repeats 2": "tests/test_page_benchmark.py",
    "python benchmarks/browser.py": "tests/test_browser_benchmark.py",
    "uv run examples/names_text.py names.txt": "tests/test_examples.py",
}

# What a user waits hours for: a tiny model, and a short text in place of tinyshakespeare, which the tests may not have.
# tests/test_weights.py measures the bundled models again on the real one.
SHORT, SMALL = " --epochs 1 --seq-length 30", " --hidden-size 16 --embedding-size 16"


def blocks(document, language="sh|python"):
    """The fenced blocks of a document, as (language, code)."""
    return re.findall(rf"^```({language})\n(.*?)\n```$", DOCUMENTS[document], re.DOTALL | re.MULTILINE)


def steps(document):
    """What a reader runs, in order: a line of a `sh` block is a step, and so is a whole script, as (language, code)."""
    for language, code in blocks(document):
        yield from [("sh", line) for line in code.splitlines()] if language == "sh" else [("python", code)]


def reduce(command):
    """The same command for a tiny model and a short text; a job on the Hub is not started."""
    command = command.replace("hf jobs uv run", "hf jobs uv run --dry-run")
    command = command.replace("--text tinyshakespeare", "--text tinyshakespeare.txt")
    if "train fit" not in command:
        return command
    command = command.replace("--teachers-write 6000000", "--teachers-write 640")
    command = re.sub(r" --minutes \d+", "", command)
    return command + SHORT + ("" if "--init-from" in command else SMALL)  # a model to begin with has its size


def copy_repository(folder):
    """Copy what a clone holds, and the text that its user brings."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    for name in ("my-text.txt", "another-text.txt", "tinyshakespeare.txt", "names.txt", "lua.c.txt", "warpeace.txt"):
        (folder / name).write_text(TEXT, encoding="utf-8")
    (folder / "hongloumeng.txt").write_text("宝玉笑道：“好．”黛玉道：“来了，你去．”\n" * 200, encoding="utf-8")


def run(command, folder, environment):
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=300)
    assert ended.returncode == 0, f"{command}\n{ended.stderr}"
    return ended.stdout


def run_python(arguments, folder, environment):
    ended = run_program(arguments, folder, environment)
    assert ended.returncode == 0, f"{arguments}\n{ended.stderr}"
    return ended.stdout


def run_document(document, folder, page=None):
    """Run every step of a document in order; return what each printed. page: the address of a running app."""
    binaries = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", "HF_TOKEN": "hf_ada"}
    environment["PYTHONPATH"] = str(folder)  # modules come from the clone
    printed = []
    for language, written in steps(document):
        code = written.replace("http://127.0.0.1:7860", page or "")
        if language == "python":
            printed.append(run_python(["-c", code], folder, environment))
        elif code in NOT_RUN_HERE:
            continue
        elif code.startswith("python -m "):
            printed.append(run_python(shlex.split(reduce(code))[1:], folder, environment))
        else:
            printed.append(run(["bash", "-c", reduce(code)], folder, environment))
    return printed


@pytest.fixture
def clone(hub, tmp_path):
    """A fresh clone beside a Hub on which its user has an account."""
    hub.add_user("ada", token="hf_ada")
    copy_repository(tmp_path / "charlm")
    return tmp_path / "charlm"


@pytest.fixture
def trained(clone, hub_environment):
    """A clone in which the README's commands have been run: the model is in `runs/my-text` and on the Hub."""
    lm = make_lm("lstm", vocab="".join(sorted(set(TEXT))))
    lm.save_pretrained(clone / "runs" / "my-text")
    hub_environment(HF_TOKEN="hf_ada")
    lm.push_to_hub("ada/my-text")
    hub_environment(HF_TOKEN=None)
    return clone


@pytest.mark.slow
def test_the_readme_leads_from_a_text_to_a_published_model_and_a_script(hub, clone):
    exported, _trained, written, measured, scored, pushed, script, shipped = run_document("README.md", clone)
    assert exported.startswith("page.html: 14.") and (clone / "page.html").stat().st_size > 14e6
    assert len(written) == len("\n") + 300
    assert "val_loss_reset256" in measured
    assert "perplexity" in scored
    assert pushed.startswith(f"{hub.url}/ada/my-text/commit/")
    assert script[201:401] == script[:200]  # streamed and whole
    assert re.search(r"\d\.\d+ nats per character$", script.splitlines()[-1])
    assert "val_loss_reset256" in shipped


@pytest.mark.slow
def test_units_the_plain_script_and_the_api_work_as_written(trained, app):
    printed = run_document("docs/python.md", trained, page=app)
    several, listed, _tail, units, plain, answered, curled, completed = printed
    assert re.findall(r"^--- seed (\d), \d\.\d\d bits per character ---", several, re.MULTILINE) == ["7", "8", "9"]
    assert [json.loads(line)["seed"] for line in listed.splitlines()] == [7, 8, 9]
    assert re.search(r"^position in the line +(hidden|cell) [01]:\d+ \d\.\d{3} ", units)
    assert len(plain) == 200
    assert len(answered.split("\n", 1)[1]) == 200 + len("\n")
    assert len(json.loads(curled)["choices"][0]["text"]) == 200
    lm = CharLM.from_pretrained(ROOT / "weights" / "shakespeare-lstm")
    assert completed.startswith(lm.generate("ROMEO:", 200, 0.8, seed=7) + "\n--- seed 7, ends by ")


@pytest.mark.slow
def test_a_space_gets_the_app_and_the_names_of_its_models(hub, trained):
    _, published, deployed, pushed = run_document("docs/spaces.md", trained)
    assert published.startswith(f"{hub.url}/spaces/ada/my-static-page/commit/")
    assert "index.html" in hub.repos["spaces/ada/my-static-page"].files
    assert deployed.startswith(f"{hub.url}/spaces/ada/my-page/commit/")
    space = hub.repos["spaces/ada/my-page"]
    assert space.files["app.py"] == (ROOT / "app.py").read_bytes()
    assert space.variables == {"CHARLM_MODELS": "ada/my-text"}
    assert pushed.startswith(f"{hub.url}/ada/my-text/commit/")
    card = hub.repos["ada/my-text"].files["README.md"].decode()
    (install,) = re.findall("`(pip install .*)`", DOCUMENTS["docs/spaces.md"])
    assert f"\n    {install}\n" in card


RUN_ABOVE = {"README.md", "docs/python.md", "docs/spaces.md"}


@pytest.mark.slow
@pytest.mark.parametrize("document", sorted(name for name in DOCUMENTS.keys() - RUN_ABOVE if blocks(name)))
def test_every_command_of_the_other_documents_works_as_written(trained, document):
    shutil.rmtree(trained / "runs")  # these commands train it themselves
    run_document(document, trained)


@pytest.mark.parametrize("stopped", [False, True])
def test_the_batch_script_for_slurm_starts_a_training_and_goes_on_with_a_stopped_one(tmp_path, monkeypatch, stopped):
    (script,) = re.findall(r"^    #!/bin/bash\n(?:    .*\n|\n(?=    ))+", DOCUMENTS["docs/training.md"], re.MULTILINE)
    (tmp_path / "train.sh").write_text(textwrap.dedent(script), encoding="utf-8")
    (tmp_path / "bin").mkdir()
    programs = {
        "scontrol": '[ "$*" = "show hostnames gpu[1-2]" ] && printf "gpu1\\ngpu2\\n"',
        "srun": 'shift 2 && "$@"',  # without its option --cpus-per-task
        "torchrun": 'printf "%s\\n" "$@"',
    }
    for name, does in programs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{does}\n", encoding="utf-8")
        (tmp_path / "bin" / name).chmod(0o755)
    if stopped:
        (tmp_path / "runs" / "my-text").mkdir(parents=True)
        (tmp_path / "runs" / "my-text" / CHECKPOINT_FILE).touch()
    slurm = {"SLURM_JOB_NODELIST": "gpu[1-2]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "7"}
    environment = os.environ | slurm | {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    run(["bash", "-n", "train.sh"], tmp_path, environment)
    started = get_args_parser().parse_args(run(["bash", "train.sh"], tmp_path, environment).splitlines())
    assert (started.nnodes, started.nproc_per_node, started.module) == ("2", "4", True)
    assert (started.rdzv_id, started.rdzv_backend, started.rdzv_endpoint) == ("7", "c10d", "gpu1:29500")
    monkeypatch.setattr(sys, "argv", ["train", *started.training_script_args])
    args = parse()
    assert (started.training_script, args.text, args.out) == ("train", ["my-text.txt"], Path("runs/my-text"))
    assert args.resume == stopped


def test_every_block_is_one_that_is_run():
    for document, text in DOCUMENTS.items():
        fences = re.findall(r"^ *(?:```|~~~)(.*)$", text, re.MULTILINE)
        assert set(fences) <= {"sh", "python", ""}, f"{document} has a block that no test runs: mark it sh or python"
        assert len(fences) == 2 * len(blocks(document)), f"{document} has a block that is not read"


def test_what_is_not_run_here_stands_in_a_document_and_is_run_elsewhere():
    commands = {code for document in DOCUMENTS for language, code in steps(document) if language == "sh"}
    assert NOT_RUN_HERE.keys() <= commands
    assert all((ROOT / place).is_file() for place in NOT_RUN_HERE.values())


def test_the_commands_that_start_the_page_name_models_that_the_other_commands_made():
    made = {code.split("--out ")[1] for _, code in steps("README.md") if "train fit" in code}
    made |= {code.split()[-1] for _, code in steps("README.md") if "train push" in code}
    for command in (code for _, code in steps("README.md") if "app.py --model" in code):
        named = [name.removeprefix("./") for name in re.findall(r"--model (\S+)", command)]
        assert all(name in made or (ROOT / name / "config.json").is_file() for name in named)


@pytest.mark.parametrize("document", sorted(DOCUMENTS))
def test_every_link_and_every_path_leads_to_a_file_of_the_repository(document):
    text, folder = DOCUMENTS[document], (ROOT / document).parent
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", prose):
        path, _, heading = target.partition("#")
        linked = folder / path if path else ROOT / document
        assert linked.exists(), f"{document} links {target}"
        if heading:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings]
            assert heading in anchors, f"{document} links {target}"
    for path in re.findall(r"`((?:charlm|train|tests|benchmarks|docs|examples|weights|\.ci)/[\w./-]*)[` ]", prose):
        assert (ROOT / path).exists(), f"{document} names {path}"


def test_the_map_of_the_modules_equals_their_docstrings():
    made = subprocess.check_output([sys.executable, "docs/map.py"], cwd=ROOT, text=True)
    assert f"\n{made}<" in DOCUMENTS["CONTRIBUTING.md"], "run: python docs/map.py --write"


def test_the_readme_is_short_and_links_every_document():
    assert len(DOCUMENTS["README.md"].splitlines()) <= 200
    for document in DOCUMENTS:
        assert document == "README.md" or f"]({document})" in DOCUMENTS["README.md"]
