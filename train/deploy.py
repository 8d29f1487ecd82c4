"""Putting the page on a Space of the Hugging Face Hub: on which hardware, and what the Space holds.

A static Space has the page that needs no server, and costs nobody anything. A Gradio Space has the page with all views;
since July 2026 the Hub gives a free account none on a CPU, but two on ZeroGPU, which lends a GPU to marked functions
only: https://huggingface.co/docs/hub/spaces-zerogpu.
"""

import os
import re
import shlex
import warnings
from collections.abc import Mapping, Sequence

from charlm.browser.lesson import BUNDLED, chosen_lesson, lesson_file
from charlm.browser.page import PageModel, static_files
from charlm.errors import HubError, RequestError, SpaceRefusedError
from charlm.hub import Description, describe, download, download_hosts, endpoint, folder_address
from charlm.installation import program, source_files, source_folders
from charlm.model.card import front_matter
from charlm.model.config import CONFIG_FILE, ModelConfig
from charlm.model.folder import MODEL_FILES
from charlm.model.weights import WEIGHTS_FILE
from charlm.model_name import HubName, parse_hub_name, parse_space_name
from charlm.publishing import INSTALLED_BY, Owner, check_can_push, push_space, request_space, space_hardware

FALLBACKS = ("shakespeare-lstm", "shakespeare-rnn")  # models that the page shows while the Hub cannot give it others
SUFFIXES = (".py", ".typed", ".js", ".css", ".html", ".txt", ".wat", ".c")  # of the files that the page needs
OUR_FOLDERS = ("charlm/", "train/", "weights/")  # folders of a Space that hold nothing but what `deploy` puts there
BUILT_BY = (INSTALLED_BY, "setup.py")
GRADIO_FILES = ("app.py", "requirements.txt", *BUILT_BY)  # of a Gradio Space, which a static one has no use for
LARGEST_WEIGHTS = 100_000_000  # bytes of a model on a static Space; what a visitor may load has the same bound

CPU, ZERO_GPU = "cpu-basic", "zero-a10g"  # the Hub's names of the hardware that may be free
PYTHON_VERSION = "3.12"  # one of the two that ZeroGPU has
ZERO_GPU_PACKAGES = "torch==2.11.0  # the newest that ZeroGPU has\nspaces>=0.51  # which lends the GPU\n"
CPU_INDEX = "--extra-index-url https://download.pytorch.org/whl/cpu  # torch without CUDA, a tenth of the size\n"

CARD = """# {name}

Character-level recurrent networks continue a text, two side by side: {models}.
The page is part of [charlm](https://huggingface.co/models?library=charlm), whose command `deploy` put it here. The
variable `CHARLM_MODELS` in the settings names the models that it shows, with commas between them.
"""

LOOK = {"emoji": "📜", "colorFrom": "blue", "colorTo": "yellow"}  # of the Space in a list of Spaces
STATIC_CARD = """# {name}

Character-level recurrent networks continue a text, two side by side: {models}. They run in your browser, which fetches
them from the Hub once and keeps them. What you type stays there.

The page is part of [charlm](https://huggingface.co/models?library=charlm), whose command `deploy` put it here. With
`?model=USER/NAME` in its address it loads any public model of charlm, with `?embed=write` it shows one view, for an
`<iframe>` in another page.
"""


def deploy(space: str, models: Sequence[str], sdk: str = "gradio", hardware: str | None = None) -> str:
    """Create or update a Space that shows models from the Hub; return the address of the commit.

    space, models: named as `parse_space_name` and `parse_hub_name` read them. sdk: gradio for the page with its server,
        static for the one that needs none. hardware: of a Gradio Space, as the Hub names it. None keeps that of a Space
        that exists; a new one gets what its owner can have free.
    The Space has the lesson of `charlm.browser.lesson.chosen_lesson`.
    Raises HubError if the Hub refuses or a repository holds no charlm model, ModelFileError if that of a static Space
    is not sound, RequestError for hardware of a static Space, or a lesson that cannot be read.
    """
    space = parse_space_name(space)
    chosen_lesson()  # before the Hub is asked for anything
    if sdk == "static":
        return _deploy_static(space, models, hardware)
    owner = check_can_push(space)
    names, described = zip(*map(_describe, models), strict=True)
    present = space_hardware(space)
    wanted = hardware or present or (CPU if owner.has_plan or owner.name != owner.user else ZERO_GPU)
    files = space_files(space, described, wanted)
    if wanted != present:
        try:
            request_space(space, wanted, exists=present is not None)
        except SpaceRefusedError as refused:
            raise HubError(_ways_out(refused, owner, space, models, wanted, has_hardware=bool(present))) from None
    return _push(space, files, {"CHARLM_MODELS": ",".join(map(str, names))}, OUR_FOLDERS)


def _deploy_static(space: str, models: Sequence[str], hardware: str | None) -> str:
    if hardware is not None:
        raise RequestError(
            f"--hardware {hardware} does not go with --sdk static: the models of a static Space run in the browsers of "
            "its visitors; leave --hardware out"
        )
    check_can_push(space)
    described = dict(map(_describe, models))  # each model once
    files = static_space_files(space, described)
    try:
        request_space(space, None, exists=space_hardware(space) is not None)
    except SpaceRefusedError as refused:
        shown = _options(models)
        if refused.status == 409:
            raise HubError(
                f"the Hub has something else named {space} ({refused.said}); choose another name, as in "
                f"`{program()} deploy {space}-2 {shown} --sdk static`"
            ) from None
        exported = " ".join(shlex.quote(model) for model in models)
        raise HubError(
            f"the Hub refuses the static Space {space} ({refused.said}); the same page as one file needs no Space: "
            f"`{program()} export {exported} --html page.html`"
        ) from None
    return _push(space, files, {}, (*OUR_FOLDERS, *GRADIO_FILES))


def _push(space: str, files: Mapping[str, bytes], variables: Mapping[str, str], ours: Sequence[str]) -> str:
    try:
        return push_space(space, files, variables, ours)
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
    refused: SpaceRefusedError, owner: Owner, space: str, models: Sequence[str], hardware: str, *, has_hardware: bool
) -> str:
    """Say why the Hub does not give a Space this hardware, what it gives without payment, and with which command.

    has_hardware: whether the Space exists and has other hardware; a static Space has none.
    """
    name, shown = space.split("/")[1], _options(models)

    def command(space: str, hardware: str = "") -> str:
        return f"`{program()} deploy {space} {shown}" + (f" --hardware {hardware}`" if hardware else "`")

    if refused.status == 409:
        return f"the Hub has something else named {space} ({refused.said}); choose another name, as in " + command(
            f"{space}-2", hardware
        )
    reason = f"the Hub refuses {space} the hardware {hardware} ({refused.said})"
    if has_hardware:
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


def _options(models: Sequence[str]) -> str:
    """Return models as the options of a command."""
    return " ".join(f"--model {shlex.quote(model)}" for model in models)


def static_space_files(space: str, models: Mapping[HubName, Description]) -> dict[str, bytes]:
    """Return the files of a static Space that shows these models, by path.

    Its page fetches their weights from the Hub, at the commits that were described.
    Raises HubError for a model that only a token opens or that is too large, ModelFileError for one that is not sound.
    """
    pages = [_page_model(name, described) for name, described in models.items()]
    hosts = {host: None for described in models.values() for host in download_hosts(described)}
    card = _static_card(space, list(models.values()))
    licence = source_folders()[""] / "LICENSE"
    return static_files(pages, endpoint(), list(hosts), chosen_lesson(), space) | {
        "README.md": card.encode(),
        "LICENSE": licence.read_bytes(),
    }


def _page_model(name: HubName, described: Description) -> PageModel:
    """Download a model and return what its page shows of it."""
    if described.token:
        raise HubError(
            f"{name} is private or gated, and the page of a static Space has no token to load it with: make it public, "
            "or leave --sdk static out"
        )
    size = described.sizes[WEIGHTS_FILE]
    if size > LARGEST_WEIGHTS:
        raise HubError(
            f"{name} has {size / 1e6:,.0f} MB of weights, and a browser is given up to {LARGEST_WEIGHTS / 1e6:,.0f} MB "
            "for each model: show a smaller one, or leave --sdk static out"
        )
    fetched = download(described)
    if fetched.model.record_problem:
        problem = fetched.model.record_problem
        warnings.warn(f"{name}: {problem}; the page shows the model without its curves", stacklevel=5)
    _, sha256 = ModelConfig.from_json((fetched.folder / CONFIG_FILE).read_text(encoding="utf-8"))
    return PageModel(
        str(name),
        fetched.model.config,
        size,
        sha256,
        fetched.model.history,
        described.license,
        f"{described.repo_id}@{described.revision}",
        address=folder_address(described),
    )


def _static_card(space: str, models: Sequence[Description]) -> str:
    name, repositories = space.split("/")[1], list(dict.fromkeys(model.repo_id for model in models))
    data = {
        "title": name,
        **LOOK,
        "sdk": "static",
        "app_file": "index.html",
        "short_description": "Character-level language models in your browser",
        "license": "mit",
        "models": repositories,
        # tells `push --space` at which commit the page shows a model; nothing is built, so nothing is preloaded
        "preload_from_hub": [f"{model.repo_id} {WEIGHTS_FILE} {model.revision}" for model in models],
        "tags": ["charlm", "character-level", "language-model"],
    }
    shown = ", ".join(f"[{model.repo_id}]({_commit_page(model)})" for model in models)
    return f"{front_matter(data)}\n\n{STATIC_CARD.format(name=name, models=shown)}"


def _commit_page(model: Description) -> str:
    return f"https://huggingface.co/{model.repo_id}/tree/{model.revision}"


def space_files(space: str, models: Sequence[Description], hardware: str) -> dict[str, bytes]:
    """Return the files that a Space needs to run the page on this hardware, by path."""
    here = source_folders()
    package = source_files("charlm", SUFFIXES) | source_files("train", SUFFIXES)  # visitors of the page train, too
    weights = {f"weights/{name}/{file}": here["weights"] / name / file for name in FALLBACKS for file in MODEL_FILES}
    others = {name: here[""] / name for name in ("app.py", *BUILT_BY, "LICENSE")}  # pip can install from the Space
    lesson = {f"charlm/browser/{BUNDLED.name}": lesson_file()}  # a teacher's own takes the place of ours
    files = {path: source.read_bytes() for path, source in (package | weights | others | lesson).items()}
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
        **LOOK,
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
