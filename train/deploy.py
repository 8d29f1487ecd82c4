"""Putting the page on a Space of the Hugging Face Hub."""

import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, SpaceCard, SpaceCardData

from charlm.hub import CLIENT_ERRORS, check_can_push, check_is_model, explain
from charlm.model.folder import MODEL_FILES

ROOT = Path(__file__).parents[1]
FALLBACKS = ("shakespeare-lstm", "shakespeare-rnn")  # what the page shows as long as the Hub has nothing for it
PYTHON_VERSION = "3.11"
KINDS = (".py", ".typed", ".js", ".css", ".txt")  # of files that the page needs
OURS = ("charlm/", "train/", "weights/")  # folders of a Space in which nothing else is kept

CARD = """# {name}

Character-level recurrent networks that continue a text, two side by side: {models}.
The page is [charlm](https://huggingface.co/models?library=charlm), put here by `python -m train deploy`. The variable
`CHARLM_MODELS`, in the settings, says which models it shows, with commas between them.
"""


def deploy(space: str, models: Sequence[str]) -> str:
    """Create or update a Space that runs the page with models from the Hub; return the address of the commit.

    space, models: USER/NAME each. Raises HubError if the Hub refuses, or a repository is no model of charlm.
    """
    check_can_push(space)
    for model in models:
        check_is_model(model)
    files = space_files(space, models)
    api = HfApi()
    try:
        api.create_repo(space, repo_type="space", space_sdk="gradio", exist_ok=True)
        # before the files: with them the Space starts
        api.add_space_variable(space, "CHARLM_MODELS", ",".join(models))
        present = api.list_repo_files(space, repo_type="space")
        stale = [name for name in present if name.startswith(OURS) and name not in files]
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()]
        removals = [CommitOperationDelete(path_in_repo=name) for name in stale]
        commit = api.create_commit(space, [*operations, *removals], commit_message="Deploy the page", repo_type="space")
    except CLIENT_ERRORS as error:
        raise explain(error, space, None) from None
    return commit.commit_url


def space_files(space: str, models: Sequence[str]) -> dict[str, bytes]:
    """Return what a Space needs to run the page, by its path there."""
    # the page trains, too
    package = [path for name in ("charlm", "train") for path in (ROOT / name).rglob("*") if path.suffix in KINDS]
    weights = [ROOT / "weights" / name / file for name in FALLBACKS for file in MODEL_FILES]
    paths = [ROOT / "app.py", ROOT / "requirements.txt", *package, *weights]
    files = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in paths}
    return files | {"README.md": _card(space, models, files["requirements.txt"].decode()).encode()}


def _card(space: str, models: Sequence[str], requirements: str) -> str:
    gradio = re.search(r"^gradio\[\w+\]==(\S+)", requirements, re.MULTILINE)
    assert gradio is not None, "requirements.txt pins gradio"
    data = SpaceCardData(
        title=space.split("/")[1],
        emoji="📜",
        sdk="gradio",
        sdk_version=gradio[1],
        python_version=PYTHON_VERSION,
        app_file="app.py",
        models=list(models),
        tags=["charlm", "character-level", "language-model"],
    )
    text = CARD.format(
        name=space.split("/")[1], models=", ".join(f"[{model}](https://huggingface.co/{model})" for model in models)
    )
    return str(SpaceCard(f"---\n{data.to_yaml()}\n---\n\n{text}"))
