"""Putting the page on a Space of the Hugging Face Hub: what the Space holds."""

import re
from collections.abc import Sequence
from pathlib import Path

from charlm.errors import HubError
from charlm.hub import check_can_push, describe, push_space
from charlm.model.card import front_matter
from charlm.model.folder import MODEL_FILES
from charlm.model_name import HubName, parse_hub_name

ROOT = Path(__file__).parents[1]
FALLBACKS = ("shakespeare-lstm", "shakespeare-rnn")  # models that the page shows while the Hub cannot give it others
PYTHON_VERSION = "3.11"
SUFFIXES = (".py", ".typed", ".js", ".css", ".txt")  # of the files that the page needs
OUR_FOLDERS = ("charlm/", "train/", "weights/")  # folders of a Space that hold nothing but what `deploy` puts there

CARD = """# {name}

Character-level recurrent networks continue a text, two side by side: {models}.
The page is part of [charlm](https://huggingface.co/models?library=charlm) and was deployed by
`python -m train deploy`. The variable `CHARLM_MODELS` in the settings lists the models that it shows, with commas
between them.
"""


def deploy(space: str, models: Sequence[str]) -> str:
    """Create or update a Space that runs the page with models from the Hub; return the address of the commit.

    space: USER/NAME. models: repositories, named as `parse_hub_name` reads them. Raises HubError if the Hub refuses, or
    one of them holds no charlm model.
    """
    check_can_push(space)
    found = [_parse(model) for model in models]
    for model in found:
        describe(model.repo_id, model.revision)  # which raises HubError unless it is a model
    files = space_files(space, [model.repo_id for model in found])
    return push_space(space, files, {"CHARLM_MODELS": ",".join(map(str, found))}, OUR_FOLDERS)


def _parse(model: str) -> HubName:
    found = parse_hub_name(model)
    if found is None:
        raise HubError(f"{model!r} is not the name of a repository; give it as USER/NAME or USER/NAME@REVISION")
    return found


def space_files(space: str, models: Sequence[str]) -> dict[str, bytes]:
    """Return the files that a Space needs to run the page, by path."""
    # `train` too: visitors of the page can train a model
    package = [path for name in ("charlm", "train") for path in (ROOT / name).rglob("*") if path.suffix in SUFFIXES]
    weights = [ROOT / "weights" / name / file for name in FALLBACKS for file in MODEL_FILES]
    paths = [ROOT / "app.py", ROOT / "requirements.txt", *package, *weights]
    files = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in paths}
    return files | {"README.md": _card(space, models, files["requirements.txt"].decode()).encode()}


def _card(space: str, models: Sequence[str], requirements: str) -> str:
    gradio = re.search(r"^gradio\[\w+\]==(\S+)", requirements, re.MULTILINE)
    assert gradio is not None, "requirements.txt pins gradio"
    data = {
        "title": space.split("/")[1],
        "emoji": "📜",
        "sdk": "gradio",
        "sdk_version": gradio[1],
        "python_version": PYTHON_VERSION,
        "app_file": "app.py",
        "models": list(models),
        "tags": ["charlm", "character-level", "language-model"],
    }
    text = CARD.format(
        name=space.split("/")[1], models=", ".join(f"[{model}](https://huggingface.co/{model})" for model in models)
    )
    return f"{front_matter(data)}\n\n{text}"
