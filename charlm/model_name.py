"""What the name of a model means: a folder here, or a repository on the Hub at a revision; and that of a data set."""

import os
import re
import tarfile
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from charlm.checks import check_string
from charlm.errors import CharLMError, HubError, HubUnavailableError, ModelFileError, RequestError
from charlm.messages import show
from charlm.nearest import nearest_path, path_in_subfolder

HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")  # and the host of HF_ENDPOINT
LONGEST_HUB_NAME = 500  # characters of a repository with its revision or its web address
_PART = r"(?!.*(?:--|\.\.))(?:[A-Za-z0-9_]|[A-Za-z0-9_][\w.-]{0,94}[A-Za-z0-9_])"  # of USER/REPO
REPO_ID = re.compile(rf"{_PART}/(?!.*\.git$){_PART}", re.ASCII)
# What git allows in the name of a branch, nearly. Nothing else may become the path of a file in the Hub's cache.
REVISION = re.compile(
    r"(?![/.])(?!.*(?:\.\.|//|/\.|@\{|[./]$|\.lock(?:/|$)))[^\s\\^~:?*\[,@\x00-\x1f\x7f\ud800-\udfff]{1,255}"
)
MAIN_BRANCH = "main"
DATASETS = "hf://datasets/"
NOT_MODELS = ("datasets", "spaces")  # with one of these, a name is that of another kind of repository


@dataclass(frozen=True)
class HubName:
    """A repository of the Hub, USER/REPO, and one of its branches, tags or commits; None is its main branch."""

    repo_id: str
    revision: str | None = None

    def __str__(self) -> str:
        """Return USER/REPO, or USER/REPO@REVISION."""
        return self.repo_id if self.revision is None else f"{self.repo_id}@{self.revision}"


@dataclass(frozen=True)
class DatasetFile:
    """A file of a data set on the Hub, and the branch, tag or commit that it is of; None is the main branch.

    path: in the repository; empty for none.
    """

    repo_id: str
    revision: str | None
    path: str

    def __str__(self) -> str:
        """Return hf://datasets/USER/NAME/FILE, or hf://datasets/USER/NAME@REVISION/FILE."""
        at = "" if self.revision is None else f"@{quote(self.revision, safe='')}"
        return f"{DATASETS}{self.repo_id}{at}/{self.path}"


def is_repo_id(name: str) -> bool:
    """Tell whether a string has the form of a repository's name, USER/REPO."""
    return REPO_ID.fullmatch(name) is not None


def check_revision(revision: object) -> str:
    """Return `revision` if git allows it as the name of a branch. Raises RequestError if not."""
    revision = check_string("revision", revision)
    if not REVISION.fullmatch(revision):
        raise RequestError(
            f"revision is {show(revision)}, which git does not allow as a name; give a branch, a tag or a commit, "
            "such as main, v1.0 or refs/pr/1"
        )
    return revision


def parse_hub_name(name: str) -> HubName | None:
    """Read USER/REPO, USER/REPO@REVISION, hf://USER/REPO[@REVISION] or the web address of a repository.

    Returns None for a string of another form. Folders are not looked at.
    """
    if len(name) > LONGEST_HUB_NAME:
        return None
    scheme, separator, rest = name.partition("://")
    if separator and scheme.lower() in ("http", "https"):
        return _parse_address(name)
    if separator and scheme.lower() != "hf":
        return None
    if not separator and name.split("/")[0].lower() in HUB_HOSTS:  # an address copied without https://
        return _parse_address(f"https://{name}")
    repo_id, at, revision = (rest if separator else name).partition("@")
    if not is_repo_id(repo_id) or repo_id.split("/")[0] in NOT_MODELS or (at and not REVISION.fullmatch(revision)):
        return None
    return HubName(repo_id, revision if at else None)


def parse_dataset_file(name: str) -> DatasetFile | None:
    """Read hf://datasets/USER/NAME[@REVISION]/FILE, or the web address of such a file; None for another form.

    A / in a revision is written as %2F.
    """
    found = _dataset_address(name)
    if found is None:
        return None
    owner, dataset, *path = found.split("/")
    dataset, at, revision = dataset.partition("@")
    revision = unquote(revision)
    if not is_repo_id(f"{owner}/{dataset}") or (at and not REVISION.fullmatch(revision)):
        return None
    return DatasetFile(f"{owner}/{dataset}", revision if at else None, "/".join(path).strip("/"))


def _dataset_address(name: str) -> str | None:
    """Return USER/NAME[@REVISION]/FILE of the address of a data set, None for another form."""
    if name.lower().startswith(DATASETS):
        address = name[len(DATASETS) :]
    else:
        scheme, separator, rest = name.partition("://")
        host, _, address = rest.partition("/")
        if not separator or scheme.lower() not in ("http", "https") or not _is_hub_host(host):
            return None
        folder, *parts = address.split("?")[0].split("/")
        if folder != "datasets" or len(parts) < 2:
            return None
        owner, dataset, *page = parts
        at = f"@{page[1]}" if len(page) > 1 and page[0] in ("blob", "resolve", "raw", "tree") else ""
        address = "/".join([owner, dataset + at, *map(unquote, page[2:])])
    return address if "/" in address else None


def _parse_address(address: str) -> HubName | None:
    """Read https://huggingface.co/USER/REPO, also with /tree/REVISION or the path of a file behind it."""
    try:
        parts = urlsplit(address)
    except ValueError:  # brackets that enclose no IPv6 address
        return None
    if not _is_hub_host(parts.netloc):
        return None
    path = [unquote(part) for part in parts.path.strip("/").split("/")]
    repo_id, page = "/".join(path[:2]), path[2:4]
    if not is_repo_id(repo_id) or path[0] in NOT_MODELS:
        return None
    if len(page) < 2 or page[0] not in ("tree", "blob", "resolve", "commit", "commits"):
        return HubName(repo_id)
    return HubName(repo_id, page[1]) if REVISION.fullmatch(page[1]) else None


def _is_hub_host(host: str) -> bool:
    own = os.environ.get("HF_ENDPOINT", "").partition("://")[2].split("/")[0]
    return host != "" and host.lower() in (*HUB_HOSTS, own.lower())


def parse_model_name(name: object) -> tuple[Path | HubName, str | None]:
    """Return the folder or the repository that a name means, and a warning or None.

    A Path, and a string that begins with ./ or ~ or is absolute, is always a folder; a name with hf:// or a web address
    is always a repository. Any other name is the folder of that name if there is one, and else a repository.

    Raises RequestError for what is neither a string nor a Path, ModelFileError for a name that means neither a folder
    here nor a repository.
    """
    if isinstance(name, Path):
        name = Path(os.path.expanduser(name))
        return _check_folder(name, str(name), _no_model(str(name))), None
    if not isinstance(name, str):
        raise RequestError(f"a model is a folder or USER/NAME on the Hub, not {name!r}")
    if "://" in name:
        found = parse_hub_name(name)
        if found is None:
            raise RequestError(f"{name!r:.200} is not the address of a model on the Hub; write hf://USER/NAME")
        return found, None
    name = os.path.expanduser(name)
    found = None if _can_only_be_a_folder(name) else parse_hub_name(name)
    if found is None or _exists(name):
        folder = _check_folder(Path(name), name, _no_model(name))
        if found is None:
            return folder, None
        return folder, (
            f"{name} is a folder here, and could be a repository on the Hub: the folder is used; "
            f"write ./{name} or hf://{found} to say which"
        )
    return found, None


def choose_names(wanted: Sequence[str]) -> dict[str, Path | str]:
    """Return what to load by the name under which a page shows it: a folder, or the name of a repository.

    A folder is named by its last part and a repository in full, unless two would share a name: then as `wanted` has it.
    """
    places: dict[Path | HubName, str] = {}
    for each in wanted:
        place, warning = parse_model_name(each)
        if warning:
            warnings.warn(warning, stacklevel=3)
        places.setdefault(place, each)
    names = [place.resolve().name if isinstance(place, Path) else str(place) for place in places]
    # a full name may equal another short one, so repeat; this ends, since the names in `wanted` all differ
    while len(set(names)) < len(names):
        names = [name if names.count(name) == 1 else each for name, each in zip(names, places.values(), strict=True)]
    loaded = [place if isinstance(place, Path) else each for place, each in places.items()]
    return dict(zip(names, loaded, strict=True))


def parse_push_target(name: object) -> str:
    """Return USER/REPO of the repository to publish to, which may be named in each way of `parse_hub_name`.

    Raises HubError for a name of another form, and for one with a revision: a push goes to the main branch.
    """
    found = parse_hub_name(name) if isinstance(name, str) else None
    if found is None:
        raise HubError(f"{name!r:.200} is not the name of a repository; give it as USER/NAME")
    if found.revision not in (None, MAIN_BRANCH):
        raise HubError(
            f"{name} names the revision {found.revision}, and a push goes to the main branch: give {found.repo_id}"
        )
    return found.repo_id


def parse_space_name(name: object) -> str:
    """Return USER/SPACE of a Space that is named so, as hf://spaces/USER/SPACE or by its web address.

    Raises HubError for a name of another form.
    """
    path = name if isinstance(name, str) else ""
    scheme, separator, rest = path.partition("://")
    if separator and scheme.lower() == "hf":
        path = rest
    elif separator and scheme.lower() in ("http", "https"):
        host, _, path = rest.split("?")[0].partition("/")
        path = path.rstrip("/") if _is_hub_host(host) and path.startswith("spaces/") else ""
    space = path.removeprefix("spaces/")
    if not is_repo_id(space) or space.split("/")[0] in NOT_MODELS:
        raise HubError(f"{name!r:.200} is not the name of a Space; give it as USER/SPACE")
    return space


def explain_missing(name: str, error: HubError) -> CharLMError:
    """Return the error about a name that is no folder here. error: the Hub's, about the repository of that name.

    It is a ModelFileError if a folder has a similar name, since the user probably meant that folder; then a Hub that
    gave no answer is not mentioned, because the network is not what to look at.
    """
    if "://" in name:
        return error
    if hint := _similar_folder(name):
        return ModelFileError(hint if isinstance(error, HubUnavailableError) else f"{hint} As a repository: {error}")
    return type(error)(f"there is no folder {name} here, and {error}")


def parse_folder(name: object) -> Path:
    """Return the path of a folder, there or not, that a caller names; ~ is the home folder, as in a shell.

    Raises RequestError for what is neither a string nor a Path, or empty.
    """
    if not isinstance(name, str | Path) or not str(name):
        raise RequestError(f"folder is {show(name)}; name a folder, or '.' for the current one")
    return Path(os.path.expanduser(name))


def check_folder(folder: Path) -> Path:
    """Return a folder that has to exist: no repository is meant instead. Raises ModelFileError if it does not."""
    return _check_folder(folder, str(folder), f"there is no folder {folder} here; check the path")


def _similar_folder(name: str) -> str | None:
    """Return a message with the folder that was probably meant: of nearly that name, or of that name in a subfolder."""
    path = Path(name)
    similar = nearest_path(path, Path.is_dir) if name else None
    if similar is None and len(path.parts) == 1:
        similar = path_in_subfolder(name, lambda folder: (folder / "config.json").is_file())
    return f"there is no folder {name} here; did you mean {similar}?" if similar else None


def _can_only_be_a_folder(name: str) -> bool:
    starts = ("./", "../", ".\\", "..\\", "~")
    return name.startswith(starts) or name in (".", "..") or os.path.isabs(name)


def _no_model(name: str) -> str:
    return f"{name!r} is neither a folder here nor the name of a Hub repository (USER/NAME); check the path"


def _exists(name: str) -> bool:
    return os.path.lexists(name)  # unlike a method of Path, without an error for a name that is too long


def _check_folder(folder: Path, name: str, missing: str) -> Path:
    """Return the path of a folder. Raises ModelFileError if there is none: `missing`, unless another seems meant."""
    if os.path.isdir(name):  # not that of the Path: Path("") is the current folder
        return folder
    if _exists(name):
        raise ModelFileError(f"{name} is {_describe_file(folder)}")
    raise ModelFileError(_similar_folder(name) or missing)


def _describe_file(path: Path) -> str:
    """Say what stands in the place of a folder, and what to do instead."""
    try:
        if zipfile.is_zipfile(path) or tarfile.is_tarfile(path):
            return "an archive: unpack it, and name the folder that comes out"
    except OSError:
        return "neither a folder nor a file that can be read; check the path"
    return f"a file: name the folder that holds the model's files, perhaps {path.parent}"
