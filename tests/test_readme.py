"""What the README says to programs: its metadata is read by Spaces, its requirements by pip."""

import re

import yaml
from browser import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


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
