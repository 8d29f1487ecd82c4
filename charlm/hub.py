"""The Hub: describe, download and search models, and what its errors mean. No answer of the Hub is trusted.

A model is loaded in two steps, so that what was described is what is loaded: `describe` asks once which commit a
revision is and what it holds, `download` brings the files of exactly that commit. `fetch` does both, and uses the
cache while the Hub cannot be reached.
"""

import contextlib
import errno
import os
import re
import ssl
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import httpx2
from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    get_session,
    get_token,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, but loaded lazily
    build_hf_headers,
    hf_raise_for_status,
)

from charlm.errors import HubError, HubUnavailableError, ModelFileError, RequestError
from charlm.messages import listed, one_line, show
from charlm.model.config import CONFIG_FILE, LARGEST_JSON, MOST_PARAMETERS, ModelConfig, is_number
from charlm.model.folder import Model, check_epoch, read_epoch, read_usable_model, replace_files
from charlm.model.history import HISTORY_FILE
from charlm.model.kept import KEPT_FILE, kept_file
from charlm.model.weights import LARGEST_HEADER, WEIGHTS_FILE
from charlm.model_name import DatasetFile, is_repo_id
from charlm.nearest import nearest

LIBRARY = "charlm"  # the tag in the card of every charlm model
COMMIT = re.compile("[0-9a-f]{40}")
DEFAULT_ENDPOINT = "https://huggingface.co"
# Where the Hub keeps files in LFS (https://huggingface.co/.well-known/meta.json), and where it kept them before.
STORES = ("https://*.hf.co", "https://*.huggingface.co")
ORIGIN = re.compile(r"https?://(?:[\w.-]+|\[[0-9a-f:.]+\])(?::\d+)?", re.ASCII | re.IGNORECASE)
QUESTION_SECONDS = 3.0  # time limit of each question; a download has none
LARGEST_FILES = {
    CONFIG_FILE: LARGEST_JSON,
    HISTORY_FILE: LARGEST_JSON,
    WEIGHTS_FILE: 4 * MOST_PARAMETERS + LARGEST_HEADER,
}
ONLY_PUBLIC = "Private and gated models are not loaded here"
MOST_FOUND = 20  # names that a search returns
MOST_FIGURES, LONGEST_FIGURE_NAME = 8, 60  # of a card's figures and the characters of their names, which a page shows
# All that huggingface_hub raises: for an answer with an error status, a failed connection, a cut or missing file, an
# answer that is not JSON, a failed upload.
CLIENT_ERRORS = (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError, RuntimeError)

Token = str | bool | None  # None: the stored one if it is needed; True: the stored one; False: none


@dataclass(frozen=True)
class Description:
    """One commit of a model repository, as the Hub describes it before anything is downloaded.

    requested: the branch, tag or commit that was asked for; None for the main branch.
    revision: the commit.
    sizes: the bytes of each file that loading needs, of those that it has.
    tagged: whether it carries the tag of charlm.
    figures: the evaluation figures of its card, losses for example, by name.
    license: as the card says, its name if it is one that the Hub does not list, or empty.
    token: what its files are read with.
    kept_sizes: the bytes of each file with the weights of an epoch.
    gated: whether only users whom the owner has admitted may download its files.
    """

    repo_id: str
    requested: str | None
    revision: str
    sizes: dict[str, int]
    tagged: bool
    figures: dict[str, float]
    license: str
    token: Token = field(repr=False)
    kept_sizes: dict[str, int] = field(default_factory=dict)
    gated: bool = False

    @property
    def bytes(self) -> int:
        """How much `download` transfers if the cache holds nothing of it."""
        return sum(self.sizes.values())


@dataclass(frozen=True)
class DatasetDescription:
    """A file of a data set at a commit, before it is downloaded.

    file: its revision is the commit. requested: the revision that was asked for. size: in bytes. token: what it is read
        with. cached: its path, where the Hub cannot be reached.
    """

    file: DatasetFile
    requested: str | None
    size: int
    token: Token = field(repr=False)
    cached: Path | None = None


@dataclass(frozen=True)
class Fetched:
    """A model from the Hub, the commit it is of, and whether that came from the `hub` now or from the `cache`.

    folder: where the cache holds its files.
    license: as `Description` has it; None from the cache, which has no card.
    """

    model: Model
    revision: str
    source: str
    folder: Path
    license: str | None = None


def describe(
    repo_id: str, revision: str | None = None, token: Token = None, *, only_public: bool = False
) -> Description:
    """Ask the Hub, once, which commit a revision of a repository is and what it holds.

    Without `token`, it is asked anonymously first, so that a stale token cannot close a public repository, and with the
    stored one if it answers that there is no such repository, or that there were too many requests.
    Raises HubError if the repository holds no model, or the Hub refuses, HubUnavailableError if the Hub gives no
    usable answer.
    """
    _check_repo_id(repo_id)
    try:
        return _read_description(repo_id, revision, *_ask_about(f"models/{repo_id}", revision, token))
    except CLIENT_ERRORS as error:
        raise explain(error, repo_id, revision, only_public=only_public) from None


def _ask_about(path: str, revision: str | None, token: Token) -> tuple[Token, Any]:
    """Return what to read the files of a repository with, and what the Hub says of it; raises one of CLIENT_ERRORS.

    path: models/USER/NAME or datasets/USER/NAME.
    """
    path += f"/revision/{quote(revision, safe='')}" if revision is not None else ""
    parameters = {"blobs": "true"}  # with the size of each file
    if token is not None or get_token() is None:
        return token, ask(path, parameters, token)
    try:
        answer = ask(path, parameters, False)
        # anyone may see what a gated repository holds, but its files need the token
        return isinstance(answer, dict) and bool(answer.get("gated")), answer
    except RepositoryNotFoundError:  # it may be private, and the stored token open it
        return True, ask(path, parameters, True)
    except HfHubHTTPError as error:
        if error.response.status_code != 429:
            raise
        too_many = error
    try:  # the Hub counts anonymous questions by address, and those with a token by user
        return True, ask(path, parameters, True)
    except HfHubHTTPError as error:
        raise (too_many if error.response.status_code == 401 else error) from None  # a stale token explains nothing


def describe_dataset_file(file: DatasetFile) -> DatasetDescription:
    """Ask the Hub which commit a file of a data set is of, and how large it is.

    Raises HubError if there is no such file, or the Hub refuses, HubUnavailableError if the Hub gives no usable answer
    and the cache has no copy; if it has one, that is described, with a warning.
    """
    path = f"datasets/{file.repo_id}"
    try:
        token, answer = _ask_about(path, file.revision, None)
        about = json_object(answer)
        commit = read_commit(about)
    except CLIENT_ERRORS as error:
        reason = explain(error, path, file.revision)
        cached = _cached_dataset_file(file) if isinstance(reason, HubUnavailableError) else None
        if cached is None:
            raise reason from None
        if not constants.is_offline_mode():
            warnings.warn(f"{reason}; using the copy in the cache", stacklevel=4)
        return cached
    found = [(entry.get("rfilename"), entry.get("size")) for entry in json_objects(about.get("siblings"))]
    sizes = {name: size for name, size in found if isinstance(name, str)}
    if file.path not in sizes:
        raise HubError(_no_such_file(file, list(sizes)))
    size = _check_size(sizes[file.path], file.path, path)
    return DatasetDescription(replace(file, revision=commit), file.revision, size, token)


def _no_such_file(file: DatasetFile, names: list[str]) -> str:
    """Return the message about a file that a data set does not have. names: of those that it has."""
    texts = [name for name in names if name.lower().endswith(".txt")] or names
    similar = nearest(file.path, names) if file.path else None
    has = f"has no file {file.path}" if file.path else "is a data set, of which one file is the text"
    hint = (
        f"did you mean {replace(file, path=similar)}?"
        if similar
        else f"name one of its files: {listed(texts) or 'it has none'}"
    )
    return f"datasets/{file.repo_id} {has}; {hint}"


def _cached_dataset_file(file: DatasetFile) -> DatasetDescription | None:
    """Describe the copy of a file that is in the cache; None if there is none."""
    try:
        found = try_to_load_from_cache(file.repo_id, file.path, revision=file.revision, repo_type="dataset")
        if not isinstance(found, str):
            return None
        size = os.path.getsize(found)
    except (OSError, UnicodeDecodeError):  # the cache is another user's, or its note of the commit is damaged
        return None
    commit = Path(found).parents[file.path.count("/")].name
    return DatasetDescription(replace(file, revision=commit), file.revision, size, False, Path(found))


def download_dataset_file(described: DatasetDescription) -> Path:
    """Return the path of the file that was described; it comes from the cache where that has it.

    Raises HubError if the Hub refuses, HubUnavailableError if it gives no usable answer.
    """
    file = described.file
    if described.cached is not None:
        return described.cached
    _check_cache(file.repo_id)
    try:
        path = hf_hub_download(
            file.repo_id,
            file.path,
            repo_type="dataset",
            revision=file.revision,
            token=described.token,
            etag_timeout=QUESTION_SECONDS,
        )
    except CLIENT_ERRORS as error:
        raise explain(error, f"datasets/{file.repo_id}", file.revision) from None
    _remember(_refs(file.repo_id, described.requested, "dataset"), file.revision)
    return Path(path)


def describe_public(repo_id: str, revision: str | None = None) -> Description:
    """Describe a charlm model that anyone may read: no stored token is sent.

    Raises what `describe` does, and HubError if the repository is gated or does not carry the tag of charlm.
    """
    found = describe(repo_id, revision, token=False, only_public=True)
    if found.gated:
        raise HubError(f"{repo_id} is gated: its owner admits each reader. {ONLY_PUBLIC}")
    if not found.tagged:
        raise HubError(f"{repo_id} does not carry the tag {LIBRARY!r}: it is not a model of charlm")
    return found


def download(described: Description) -> Fetched:
    """Return the model of the commit that was described; its files come from the cache where that has them.

    If they are not a sound model, all are downloaded afresh, once; if only the training record is damaged, that alone,
    and the model comes without it if it is damaged still. Raises HubError if the Hub refuses, HubUnavailableError if it
    gives no usable answer, ModelFileError if configuration and weights are still not a sound model.
    """
    try:
        try:
            folder = _download_files(described)
            model = read_usable_model(folder, described.repo_id)
            damaged: Collection[str] = {HISTORY_FILE} if model.record_problem else ()
        except ModelFileError:
            damaged = LARGEST_FILES
        if damaged:
            folder = _download_files(described, damaged)
            model = read_usable_model(folder, described.repo_id)
    except CLIENT_ERRORS as error:
        raise explain(error, described.repo_id, described.requested) from None
    _remember(_refs(described.repo_id, described.requested), described.revision)
    return Fetched(model, described.revision, "hub", folder, described.license)


def download_epoch(described: Description, epoch: int) -> Fetched:
    """Return the model of the commit that was described as it was after an epoch.

    Weights that are not sound are downloaded afresh, once. Raises RequestError if those of the epoch were not kept, and
    what `download` raises.
    """
    fetched = download(described)
    repo_id, file, sizes = described.repo_id, kept_file(epoch), described.kept_sizes
    check_epoch(fetched.model, epoch, repo_id)  # before its weights are asked for
    if file not in sizes:
        raise HubError(f"{repo_id} has no {file}, which its record names; leave the epoch out, or tell its owner")
    if sizes[file] > 4 * fetched.model.config.parameters + LARGEST_HEADER:
        raise ModelFileError(f"{repo_id}: {file} is larger than the model that {CONFIG_FILE} describes")
    try:
        _download_file(described, file)
        try:
            model = read_epoch(fetched.folder, fetched.model, epoch, repo_id)
        except ModelFileError:
            _download_file(described, file, afresh=True)
            model = read_epoch(fetched.folder, fetched.model, epoch, repo_id)
    except CLIENT_ERRORS as error:
        raise explain(error, repo_id, described.requested) from None
    return replace(fetched, model=model)


def endpoint() -> str:
    """Return the address of the Hub, without the name and the password that HF_ENDPOINT may hold."""
    parts = urlsplit(constants.ENDPOINT)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def folder_address(described: Description) -> str:
    """Return the address under which anyone can get the files of the commit that was described, each after a slash."""
    return f"{endpoint()}/{described.repo_id}/resolve/{described.revision}"


def download_hosts(described: Description) -> list[str]:
    """Return where the files of a model come from: the Hub, and the stores that it redirects to.

    They are written as a Content-Security-Policy names them. To which of its stores the Hub redirects depends on who
    asks from where, so that all are named; another Hub, that of HF_ENDPOINT, is asked.
    Raises HubError if the Hub refuses, HubUnavailableError if it gives no usable answer.
    """
    if constants.ENDPOINT == DEFAULT_ENDPOINT:
        return [DEFAULT_ENDPOINT, *STORES]
    url = hf_hub_url(described.repo_id, WEIGHTS_FILE, revision=described.revision)
    try:
        location = get_hf_file_metadata(url, token=described.token, timeout=QUESTION_SECONDS).location
        return list(dict.fromkeys(_read_origin(address) for address in (endpoint(), location)))
    except CLIENT_ERRORS as error:
        raise explain(error, described.repo_id, described.requested) from None


def _read_origin(address: str) -> str:
    """Return scheme, host and port of a web address. Raises ValueError for what a policy could not name."""
    parts = urlsplit(address)
    origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    if not ORIGIN.fullmatch(origin):
        raise ValueError(f"it redirects to {show(origin)}, which is not a host")
    return origin


def fetch(repo_id: str, revision: str | None = None, token: Token = None, epoch: int | None = None) -> Fetched:
    """Return a model from the Hub, all of its files at one commit; from the cache if the Hub gives no answer.

    epoch: as it was after that epoch.
    Raises RequestError if the weights of that epoch were not kept, HubError if the Hub refuses, HubUnavailableError if
    it gives no usable answer and the cache has no such model, ModelFileError if the files are not a sound model.
    """
    try:
        described = describe(repo_id, revision, token)
        return download(described) if epoch is None else download_epoch(described, epoch)
    except HubUnavailableError as reason:
        cached = _cached_folder(repo_id, revision)
        if cached is None:
            raise
        try:
            model = read_usable_model(cached, repo_id)
            model = model if epoch is None else read_epoch(cached, model, epoch, repo_id)
        except ModelFileError as damage:
            raise HubUnavailableError(f"{reason}; the copy in the cache cannot be used: {damage}") from None
        if not constants.is_offline_mode():
            warnings.warn(f"{reason}; using the copy in the cache", stacklevel=4)
        return Fetched(model, cached.name, "cache", cached)


def search(words: str, most: int = MOST_FOUND) -> list[str]:
    """Return the names of public charlm models on the Hub that contain these words, the most downloaded first.

    Raises HubError if the Hub refuses, HubUnavailableError if it gives no answer, after some seconds at most.
    """
    parameters = {"filter": LIBRARY, "search": words, "sort": "downloads", "limit": str(most)}
    try:
        found = ask("models", parameters, False)
    except CLIENT_ERRORS as error:
        raise explain(error, f"models with {show(words)}", None) from None
    names = [entry.get("id") for entry in json_objects(found)]
    return [name for name in names if isinstance(name, str) and is_repo_id(name)][:most]


def _check_repo_id(name: str) -> None:
    if not is_repo_id(name):
        raise HubError(f"{name!r} is not the name of a repository; give it as USER/NAME")


def ask(path: str, parameters: dict[str, str], token: Token) -> Any:
    """Return what the Hub's API answers, as JSON. Raises one of CLIENT_ERRORS, which `explain` puts into words.

    HfApi builds objects from the answer without checking its types, and its search has no time limit and retries.
    """
    answer = get_session().get(
        f"{constants.ENDPOINT}/api/{path}",
        params=parameters,
        headers=build_hf_headers(token=token),
        timeout=QUESTION_SECONDS,
    )
    hf_raise_for_status(answer)
    return answer.json()


def read_file(repo_id: str, path: str, commit: str, token: Token) -> bytes:
    """Return a small file of a model repository. Raises one of CLIENT_ERRORS, which `explain` puts into words."""
    url = hf_hub_url(repo_id, path, revision=commit)
    answer = get_session().get(url, headers=build_hf_headers(token=token), timeout=QUESTION_SECONDS)
    hf_raise_for_status(answer)
    return answer.content


def _read_description(repo_id: str, requested: str | None, token: Token, answer: Any) -> Description:
    """Read what the Hub says of a repository field by field. A field that is not what it should be counts as absent.

    Raises HubError if a file of a model is missing or of unknown size, ValueError if the answer names no commit.
    """
    about = json_object(answer)
    revision = read_commit(about)
    card = json_object(about.get("cardData"))
    tags, license = about.get("tags"), card.get("license")
    if license == "other":  # what the Hub does not list has a name of its own
        license = card.get("license_name", license)
    return Description(
        repo_id,
        requested,
        revision,
        _sizes(repo_id, about.get("siblings")),
        LIBRARY in [about.get("library_name"), *(tags if isinstance(tags, list) else [])],
        _figures(card.get("model-index")),
        license[:LONGEST_FIGURE_NAME] if isinstance(license, str) else "",
        token,
        _kept_sizes(about.get("siblings")),
        about.get("gated") in (True, "auto", "manual"),
    )


def read_commit(about: Mapping[str, Any]) -> str:
    """Return the commit that an answer about a repository names. Raises ValueError if it names none."""
    commit = about.get("sha")
    if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
        raise ValueError("its answer names no commit")
    return commit


def _sizes(repo_id: str, siblings: object) -> dict[str, int]:
    """Return the size of each file that loading needs, of those that a repository has."""
    sizes = {}
    for file in json_objects(siblings):
        name, size = file.get("rfilename"), file.get("size")
        if isinstance(name, str) and name in LARGEST_FILES:
            sizes[name] = _check_size(size, name, repo_id)
    if missing := [name for name in (CONFIG_FILE, WEIGHTS_FILE) if name not in sizes]:
        raise HubError(f"{repo_id} has no {missing[0]}: it is not a charlm model")
    return sizes


def _check_size(size: object, name: str, repo_id: str) -> int:
    """Return the bytes of a file that the Hub describes. Raises HubError if that is not a number of bytes."""
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise HubError(f"the Hub does not tell the size of {name} in {repo_id}; try again or tell its owner")
    return size


def _kept_sizes(siblings: object) -> dict[str, int]:
    """Return the size of each file with the weights of an epoch, of those whose size the Hub tells."""
    found = [(file.get("rfilename"), file.get("size")) for file in json_objects(siblings)]
    return {
        name: size
        for name, size in found
        if isinstance(name, str) and KEPT_FILE.fullmatch(name) and type(size) is int and size >= 0
    }


def _figures(model_index: object) -> dict[str, float]:
    """Return the figures of a card's model-index by name."""
    results = (result for model in json_objects(model_index) for result in json_objects(model.get("results")))
    metrics = (metric for result in results for metric in json_objects(result.get("metrics")))
    figures = {}
    for metric in islice(metrics, MOST_FIGURES):
        name, value = metric.get("name") or metric.get("type"), metric.get("value")
        if isinstance(name, str) and is_number(value):
            figures[name[:LONGEST_FIGURE_NAME]] = float(value)
    return figures


def json_object(value: object) -> dict[str, Any]:
    """Return what should be a JSON object, or an empty one."""
    return value if isinstance(value, dict) else {}


def json_objects(value: object) -> list[dict[str, Any]]:
    """Return the objects in what should be a JSON list of objects."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _download_files(described: Description, afresh: Collection[str] = ()) -> Path:
    """Bring the files of a commit into the cache; return their folder there. afresh: those not to take from the cache.

    Raises ModelFileError before a file is downloaded that is larger than that of any sound model.
    """
    repo_id, sizes = described.repo_id, described.sizes
    _check_cache(repo_id)
    for name, most in LARGEST_FILES.items():
        if sizes.get(name, 0) > most:
            raise ModelFileError(f"{repo_id}: {name} has {sizes[name]:,} bytes, more than any charlm model needs")

    def download_file(name: str) -> Path:
        return _download_file(described, name, afresh=name in afresh)

    with open(download_file(CONFIG_FILE), encoding="utf-8", errors="replace") as file:
        config, _ = ModelConfig.from_json(file.read(LARGEST_JSON + 1))  # which refuses what is larger
    if sizes[WEIGHTS_FILE] > 4 * config.parameters + LARGEST_HEADER:
        raise ModelFileError(f"{repo_id}: {WEIGHTS_FILE} is larger than the model that {CONFIG_FILE} describes")
    if HISTORY_FILE in sizes:
        download_file(HISTORY_FILE)
    return download_file(WEIGHTS_FILE).parent


def _download_file(described: Description, name: str, *, afresh: bool = False) -> Path:
    """Return the path of a file of a commit in the cache. afresh: download it although the cache has it."""
    path = hf_hub_download(
        described.repo_id,
        name,
        revision=described.revision,
        token=described.token,
        force_download=afresh,
        etag_timeout=QUESTION_SECONDS,
    )
    return Path(path)


def _check_cache(repo_id: str) -> None:
    if constants.HF_HUB_CACHE.startswith("~"):  # without a home directory, it would be a folder of that name here
        raise HubError(f"there is no home directory to keep {repo_id} in; set HF_HOME to a folder")


def _cache_of(repo_id: str, kind: str = "model") -> Path:
    return Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo_id, repo_type=kind))


def _refs(repo_id: str, revision: str | None, kind: str = "model") -> Path:
    return _cache_of(repo_id, kind) / "refs" / (revision or constants.DEFAULT_REVISION)


def _remember(ref: Path, commit: str | None) -> None:
    """Note in the cache which commit a branch was at, as the client does only for a download by the branch's name.

    ref: the place of the note, see `_refs`; for a commit there is none.
    """
    if commit is not None and ref.name != commit:
        with contextlib.suppress(OSError, RequestError):  # a read-only cache is no reason to fail
            replace_files(ref.parent, {ref.name: commit.encode()})


def _cached_folder(repo_id: str, revision: str | None) -> Path | None:
    """Return the folder of the cached commit of a revision, if it holds a model."""
    ref = _refs(repo_id, revision)
    try:
        commit = ref.read_text(encoding="utf-8") if ref.is_file() else revision
        if commit is None:
            return None
        folder = _cache_of(repo_id) / "snapshots" / commit
        return folder if (folder / WEIGHTS_FILE).is_file() else None
    except (OSError, UnicodeDecodeError):  # the cache is another user's, or its note of the commit is damaged
        return None


def explain(error: Exception, repo_id: str, revision: str | None, *, only_public: bool = False) -> HubError:
    """Turn what the client raised into an error that says what to do.

    only_public: whether the caller reads public repositories only; the message then does not advise a token.
    """
    while not isinstance(error, httpx2.HTTPError) and isinstance(error.__cause__, CLIENT_ERRORS):
        error = error.__cause__  # the client raises an error for the step that failed, caused by that of the request
    match error:
        case RepositoryNotFoundError() if only_public:  # also one that is gated
            return HubError(f"the Hub has no public repository {repo_id}: check the name. {ONLY_PUBLIC}")
        case HfHubHTTPError() if only_public and error.response.status_code in (401, 403):
            return HubError(f"the Hub shows {repo_id} to no one without a token. {ONLY_PUBLIC}")
        case GatedRepoError():
            return HubError(f"access to {repo_id} is gated: ask for it on its page on the Hub, then `hf auth login`")
        case RepositoryNotFoundError():
            return HubError(
                f"the Hub has no repository {repo_id}, or it is private: check the name, "
                "or run `hf auth login` with a token that may read it"
            )
        case RevisionNotFoundError():
            return HubError(f"{repo_id} has no revision {revision!r}; name a branch, tag or commit that it has")
        case RemoteEntryNotFoundError():
            return HubError(f"{repo_id} lacks a file that it lists; try again or tell its owner")
        case HfHubHTTPError() if error.response.status_code in (401, 403) and not _sent_token(error):
            return HubError(f"the Hub shows {repo_id} to no one without a token that may read it: run `hf auth login`")
        case HfHubHTTPError() if error.response.status_code == 401:
            return HubError("the Hub does not accept the token: run `hf auth login` or set HF_TOKEN to a valid one")
        case HfHubHTTPError() if error.response.status_code == 403:
            return HubError(
                f"the token has no permission for this on {repo_id}: use one with write permission, or your own name"
            )
        case HfHubHTTPError() if error.response.status_code in (409, 412) and "/commit/" in error.response.url.path:
            return HubError(
                f"somebody else changed {repo_id} during this push, so nothing was published; look at it on the Hub, "
                "then push again"
            )
        case HfHubHTTPError() if error.response.status_code not in (408, 429) and error.response.status_code < 500:
            return HubError(f"the Hub refused the request for {repo_id}: {one_line(error.server_message or error)}")
        case HfHubHTTPError():
            return HubUnavailableError(f"the Hub answered {error.response.status_code} for {repo_id}; try again later")
        case OfflineModeIsEnabled():
            return HubUnavailableError(
                f"the Hub cannot be asked for {repo_id} while HF_HUB_OFFLINE is set: unset it, or use a cached model"
            )
        case LocalTokenNotFoundError():
            return HubError("no token for the Hub: run `hf auth login` or set HF_TOKEN to a valid one")
        case UnicodeEncodeError() if not (constants.HF_HUB_USER_AGENT_ORIGIN or "").isascii():
            return HubError("HF_HUB_USER_AGENT_ORIGIN may hold ASCII characters only; set it to other ones or unset it")
        case UnicodeEncodeError() | UnicodeDecodeError() | httpx2.LocalProtocolError():  # which would quote the token
            return HubError(
                "the token for the Hub holds a character that no token has: run `hf auth login` or set HF_TOKEN to "
                "a valid one"
            )
        case httpx2.UnsupportedProtocol() | httpx2.InvalidURL():
            return HubError(
                f"HF_ENDPOINT is {constants.ENDPOINT!r}, which is not a web address; write https://HOST, or unset it"
            )
        case OSError(errno=int()) if _is_token_file(error.filename):
            return HubError(
                f"the token in {error.filename} cannot be read ({error.strerror}); run `hf auth login` "
                "or name another file in HF_TOKEN_PATH"
            )
        case ssl.SSLError() | OSError(filename=None, errno=errno.ENOENT | errno.ENOTDIR | errno.EACCES | errno.EISDIR):
            # reading certificates, Python names no file
            return HubUnavailableError(
                f"no connection to the Hub can be secured ({one_line(error)}); check SSL_CERT_FILE and SSL_CERT_DIR"
            )
        case OSError(errno=int()):
            return HubUnavailableError(
                f"{repo_id} cannot be kept in the cache ({error.strerror}); make room, or set HF_HOME to another folder"
            )
        case _:
            return HubUnavailableError(
                f"the Hub gave no usable answer for {repo_id} ({one_line(error)}); check the network"
            )


def _is_token_file(file: object) -> bool:
    """Tell whether a file that cannot be read is one of tokens; if HF_HOME is a file, that is the cause instead."""
    return file in (constants.HF_TOKEN_PATH, constants.HF_STORED_TOKENS_PATH) and not os.path.isfile(constants.HF_HOME)


def _sent_token(error: HfHubHTTPError) -> bool:
    return "authorization" in error.response.request.headers
