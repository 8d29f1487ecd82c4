"""The README's commands and scripts, run in its order in a copy of the repository, against a Hub on this machine."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from browser import ROOT, running_app

README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXT = "Once upon a time a small network read a book. It read it once, and twice, and wrote.\n" * 60

# The page is tested in test_app.py, several processes in train/test_distributed.py; the last one runs the tests.
ELSEWHERE = ("python app.py", "torchrun", "pip install")
# What a user waits hours for; everything else is run as it stands.
SMALL = " --epochs 1 --hidden-size 16 --embedding-size 16 --seq-length 32"


def blocks(language, section):
    body = README.split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(rf"```{language}\n(.*?)\n```", body, re.DOTALL)


def commands(section):
    lines = "\n".join(blocks("sh", section)).splitlines()
    return [line + SMALL if "train fit" in line else line for line in lines if not line.startswith(ELSEWHERE)]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """What a clone holds, and the text that its user brings."""
    folder = tmp_path_factory.mktemp("clone") / "charlm"
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    (folder / "my-text.txt").write_text(TEXT, encoding="utf-8")
    return folder


def run(command, folder):
    binaries = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", "HF_TOKEN": "hf_ada"}
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_everything_from_training_to_a_script_and_a_space_works_as_written(hub, checkout):
    hub.add_user("ada", token="hf_ada")
    printed = [
        run(["bash", "-c", command], checkout)
        for section in ("Train on your own text", "Publish it")
        for command in commands(section)
    ]
    _trained, written, measured, scored, pushed = printed
    assert len(written) == len("\n") + 300
    assert "val_loss_reset256" in measured
    assert "perplexity" in scored
    assert pushed.startswith(f"{hub.url}/ada/my-text/commit/")

    ours, plain, _api = blocks("python", "Use it in your own script")
    printed = run([sys.executable, "-c", ours], checkout)
    once, score = printed[:200], printed.splitlines()[-1]
    assert printed[201:401] == once
    assert re.search(r"\d\.\d+ nats per character$", score)
    assert len(run([sys.executable, "-c", plain], checkout)) == 200

    for command in commands("Put it on a Space"):
        run(["bash", "-c", command], checkout)
    space = hub.repos["spaces/ada/my-page"]
    assert space.files["app.py"] == (ROOT / "app.py").read_bytes()
    assert space.variables == {"CHARLM_MODELS": "ada/my-text"}


def test_the_script_that_asks_the_page_works_as_written():
    script = blocks("python", "Use it in your own script")[2]
    with running_app() as url:
        printed = run([sys.executable, "-c", script.replace("http://127.0.0.1:7860", url)], ROOT)
    assert len(printed.split("\n", 1)[1]) == 200 + len("\n")


def test_the_commands_of_the_page_name_models_that_the_other_commands_made():
    shown = [
        line for line in "\n".join(re.findall(r"```sh\n(.*?)\n```", README, re.DOTALL)).splitlines() if "app.py" in line
    ]
    assert shown == [
        "pip install -r requirements.txt && python app.py",
        "python app.py --model runs/my-text --model weights/shakespeare-lstm",
        "python app.py --model ada/my-text",
    ]


def test_the_space_gets_the_gradio_and_the_python_that_were_tested():
    metadata = yaml.safe_load(README.split("---\n", 2)[1])
    pinned = dict(
        re.findall(
            r"^([\w-]+)(?:\[\w+\])?==(\S+)", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE
        )
    )
    assert metadata["sdk"] == "gradio"
    assert metadata["sdk_version"] == pinned["gradio"]
    assert metadata["app_file"] == "app.py"
    assert metadata["python_version"] in ("3.11", "3.12", "3.13")


def test_requirements_are_pinned_exactly():
    for name in ("requirements.txt", "requirements-dev.txt"):
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        wanted = [line for line in lines if line and not line.startswith(("#", "-r"))]
        assert all(re.fullmatch(r"[\w-]+(\[\w+\])?==[\d.]+(  #.*)?", line) for line in wanted)
