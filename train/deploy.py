"""Putting the page on a Space of the Hugging Face Hub: on which hardware, and what the Space holds.

Since July 2026 the Hub gives a free account no Gradio Space on a CPU, but two on ZeroGPU, which lends a GPU to marked
functions only: https://huggingface.co/docs/hub/spaces-zerogpu.
"""

import os
import re
import shlex
from collections.abc import Sequence

from charlm.errors import HubError, RequestError, SpaceRefusedError
from charlm.hub import Description, describe
from charlm.installation import program, source_files, source_folders
from charlm.model.card import front_matter
from charlm.model.folder import MODEL_FILES
from charlm.model_name import HubName, parse_hub_name, parse_space_name
from charlm.publishing import INSTALLED_BY, Owner, check_can_push, push_space, request_space, space_hardware

FALLBACKS = ("shakespeare-lstm", "shakespeare-rnn")  # models that the page shows while the Hub cannot give it others
SUFFIXES = (".py", ".typed", ".js", ".css", ".txt")  # of the files that the page needs
OUR_FOLDERS = ("charlm/", "train/", "weights/")  # folders of a Space that hold nothing but what `deploy` puts there

CPU, ZERO_GPU = "cpu-basic", "zero-a10g"  # the Hub's names of the hardware that may be free
PYTHON_VERSION = "3.12"  # one of the two that ZeroGPU has
ZERO_GPU_PACKAGES = "torch==2.11.0  # the newest that ZeroGPU has\nspaces>=0.51  # which lends the GPU\n"
CPU_INDEX = "--extra-index-url https://download.pytorch.org/whl/cpu  # torch without CUDA, a tenth of the size\n"

CARD = """# {name}

Character-level recurrent networks continue a text, two side by side: {models}.
The page is part of [charlm](https://huggingface.co/models?library=charlm), whose command `deploy` put it here. The
variable `CHARLM_MODELS` in the settings names the models that it shows, with commas between them.
"""


def deploy(space: str, models: Sequence[str], sdk: str = "gradio", hardware: str | None = None) -> str:
    """Create or update a Space that runs the page with models from the Hub; return the address of the commit.

    space, models: named as `parse_space_name` and `parse_hub_name` read them. sdk: gradio or static. hardware: as the
        Hub names it. None keeps that of a Space that exists; a new one gets what its owner can have free.
    Raises HubError if the Hub refuses or a repository holds no charlm model, RequestError for an SDK that is not there.
    """
    if sdk != "gradio":
        raise RequestError(f"--sdk {sdk} is not there yet, since the page needs its Python server; leave --sdk out")
    space = parse_space_name(space)
    owner = check_can_push(space)
    names, described = zip(*map(_describe, models), strict=True)
    present = space_hardware(space)
    wanted = hardware or present or (CPU if owner.has_plan or owner.name != owner.user else ZERO_GPU)
    files = space_files(space, described, wanted)
    if wanted != present:
        try:
            request_space(space, wanted, exists=present is not None)
        except SpaceRefusedError as refused:
            raise HubError(_ways_out(refused, owner, space, models, wanted, exists=present is not None)) from None
    try:
        return push_space(space, files, {"CHARLM_MODELS": ",".join(map(str, names))}, OUR_FOLDERS)
    except HubError as error:
        raise type(error)(f"{error}; the Space {space} is not complete: run the same command again") from None


def _describe(model: str) -> tuple[HubName, Description]:
    """Return the repository that a name means, and what it holds. Raises HubError unless it is a charlm model."""
    found = parse_hub_name(model)
    try:
        if found is None:
            raise HubError(f"{model!r} is not the name of a repository; give it as USER/NAME or USER/NAME@REVISION")
        return found, describe(found.repo_id, found.revision)
    except HubError as error:
        if not os.path.isdir(model):
            raise
        raise type(error)(
            f"{model} is a folder here, and a Space shows models of the Hub: "
            f"`{program()} push {shlex.quote(model)} USER/NAME` publishes it ({error})"
        ) from None


def _ways_out(
    refused: SpaceRefusedError, owner: Owner, space: str, models: Sequence[str], hardware: str, *, exists: bool
) -> str:
    """Say why the Hub does not give a Space this hardware, what it gives without payment, and with which command."""
    name, shown = space.split("/")[1], " ".join(f"--model {shlex.quote(model)}" for model in models)

    def command(space: str, hardware: str = "") -> str:
        return f"`{program()} deploy {space} {shown}" + (f" --hardware {hardware}`" if hardware else "`")

    if refused.status == 409:
        return f"the Hub has something else named {space} ({refused.said}); choose another name, as in " + command(
            f"{space}-2", hardware
        )
    reason = f"the Hub refuses {space} the hardware {hardware} ({refused.said})"
    if exists:
        return f"{reason}; the Space keeps what it has with {command(space)}"
    if owner.name != owner.user:
        return f"{reason}; under your own name ZeroGPU is free: {command(f'{owner.user}/{name}', ZERO_GPU)}"
    if hardware != ZERO_GPU:
        kind, free = ("cpu-basic", CPU) if owner.has_plan and hardware != CPU else ("ZeroGPU", ZERO_GPU)
        return f"{reason}; {kind} is free: {command(space, free)}"
    if not owner.is_confirmed:
        return (
            f"{reason}; two ZeroGPU Spaces are free once you have confirmed your e-mail address at "
            f"https://huggingface.co/settings/account: then run {command(space, ZERO_GPU)}"
        )
    return (
        f"{reason}; free are two ZeroGPU Spaces for an account older than 30 days: put the page on one that you have, "
        f"{command(f'{owner.user}/ITS-NAME')}, or show it from this computer, `{program()} serve {shown} --share`"
    )


def space_files(space: str, models: Sequence[Description], hardware: str) -> dict[str, bytes]:
    """Return the files that a Space needs to run the page on this hardware, by path."""
    here = source_folders()
    package = source_files("charlm", SUFFIXES) | source_files("train", SUFFIXES)  # visitors of the page train, too
    weights = {f"weights/{name}/{file}": here["weights"] / name / file for name in FALLBACKS for file in MODEL_FILES}
    others = {name: here[""] / name for name in ("app.py", INSTALLED_BY, "LICENSE")}  # pip can install from the Space
    files = {path: source.read_bytes() for path, source in (package | weights | others).items()}
    requirements = (here[""] / "requirements.txt").read_text(encoding="utf-8")
    return files | {
        "requirements.txt": _requirements(requirements, hardware).encode(),
        "README.md": _card(space, models, hardware, requirements).encode(),
    }


def _requirements(ours: str, hardware: str) -> str:
    """Return the requirements of the page, with the build of torch that this hardware runs."""
    if hardware.startswith("zero-"):
        return re.sub(r"^torch==.*\n", ZERO_GPU_PACKAGES, ours, flags=re.MULTILINE)
    return CPU_INDEX + ours if hardware.startswith("cpu-") else ours  # from PyPI, torch brings CUDA


def _card(space: str, models: Sequence[Description], hardware: str, requirements: str) -> str:
    gradio = re.search(r"^gradio\[\w+\]==(\S+)", requirements, re.MULTILINE)
    assert gradio is not None, "requirements.txt pins gradio"
    name, repositories = space.split("/")[1], list(dict.fromkeys(model.repo_id for model in models))
    data = {
        "title": name,
        "emoji": "📜",
        "colorFrom": "blue",
        "colorTo": "yellow",
        "sdk": "gradio",
        "sdk_version": gradio[1],
        "python_version": PYTHON_VERSION,
        "app_file": "app.py",
        "suggested_hardware": hardware,
        "short_description": "Character-level language models, side by side",
        "license": "mit",
        "models": repositories,
        # when the Space is built, without a token: what only a token may read is left out
        "preload_from_hub": [_preload(model) for model in models if not model.token],
        "tags": ["charlm", "character-level", "language-model", "mcp-server"],
    }
    text = CARD.format(name=name, models=", ".join(f"[{each}](https://huggingface.co/{each})" for each in repositories))
    return f"{front_matter({key: value for key, value in data.items() if value})}\n\n{text}"


def _preload(model: Description) -> str:
    """Return the entry for the files of a model that loading needs: repository, files, revision."""
    files = ",".join(model.sizes)
    return f"{model.repo_id} {files}" + (f" {model.requested}" if model.requested else "")
