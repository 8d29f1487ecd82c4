"""The Hub: fetch a model at one commit and trust none of it; publish a model folder in one commit."""

import contextlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import httpx2
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelInfo,
    constants,
    get_token,
    hf_hub_download,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, but loaded lazily

from charlm.errors import HubError, HubUnavailableError, ModelFileError, RequestError
from charlm.model.card import REPO_PLACEHOLDER
from charlm.model.config import LARGEST_JSON, MOST_PARAMETERS, ModelConfig
from charlm.model.folder import (
    CARD_FILE,
    CONFIG_FILE,
    HISTORY_FILE,
    LARGEST_HEADER,
    MODEL_FILES,
    WEIGHTS_FILE,
    Model,
    read_model,
    replace_files,
)

QUESTION_SECONDS = 3.0  # for the one question that decides whether the Hub or the cache is used
LARGEST_FILES = {
    CONFIG_FILE: LARGEST_JSON,
    HISTORY_FILE: LARGEST_JSON,
    WEIGHTS_FILE: 4 * MOST_PARAMETERS + LARGEST_HEADER,
}
# All that the client raises: answers that refuse, broken transport, a cut or missing file, an answer that is no JSON,
# an upload that failed.
CLIENT_ERRORS = (httpx2.HTTPError, OSError, ValueError, RuntimeError)

Token = str | bool | None


@dataclass(frozen=True)
class Fetched:
    """A model from the Hub, the commit it is of, and whether that came from the `hub` now or from the `cache`."""

    model: Model
    revision: str
    source: str


def is_repo_id(name: str) -> bool:
    """Tell whether a string has the form of a repository's name, USER/NAME."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1


def _check_repo_id(name: str) -> None:
    if not is_repo_id(name):
        raise HubError(f"{name!r} is not the name of a repository; give it as USER/NAME")


def fetch(repo_id: str, revision: str | None = None, token: Token = None) -> Fetched:
    """Get a model from the Hub, all of its files at one commit; from the cache if the Hub gives no answer.

    A file that is not what its repository describes is downloaded afresh, once. Without `token`, a
    repository is read anonymously first, so that a stale token cannot close a public one.

    Raises HubError if the Hub refuses, HubUnavailableError if it gives no usable answer and the
    cache has no such model, ModelFileError if what it gave is not a sound model.
    """
    try:
        info, token = ask(repo_id, revision, token)
        assert info.sha is not None
        try:
            folder = _download(repo_id, info, token)
            model = read_model(folder, repo_id)
        except ModelFileError:
            folder = _download(repo_id, info, token, force=True)
            model = read_model(folder, repo_id)
        _remember(repo_id, revision, info.sha)
        return Fetched(model, info.sha, "hub")
    except CLIENT_ERRORS as error:
        reason = explain(error, repo_id, revision)
        if not isinstance(reason, HubUnavailableError):
            raise reason from None
        cached = _cached_folder(repo_id, revision)
        if cached is None:
            raise reason from None
        try:
            model = read_model(cached, repo_id)
        except ModelFileError as damage:
            raise HubUnavailableError(f"{reason}; the copy in the cache cannot stand in: {damage}") from None
        if not isinstance(error, OfflineModeIsEnabled):
            warnings.warn(f"{reason}; using the copy in the cache", stacklevel=3)
        return Fetched(model, cached.name, "cache")


def check_can_push(repo_id: str, token: Token = None) -> None:
    """Raise HubError unless `repo_id` is USER/NAME and the token one of that user, or of a member, that may write."""
    _check_repo_id(repo_id)
    try:
        account = HfApi().whoami(token=token)
    except CLIENT_ERRORS as error:
        raise explain(error, repo_id, None) from None
    if account.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise HubError("the token may only read: run `hf auth login` or set HF_TOKEN to one with write permission")
    namespace, groups = repo_id.split("/")[0], [group["name"] for group in account.get("orgs", [])]
    if namespace not in (account["name"], *groups):
        raise HubError(
            f"{repo_id} would be {namespace}'s, and the token is that of {account['name']}: publish under your own "
            "name, or that of an organization that you are in"
        )


def check_is_model(repo_id: str, token: Token = None) -> None:
    """Raise HubError unless the Hub has that repository and it holds the files of a model."""
    _check_repo_id(repo_id)
    try:
        info, _ = ask(repo_id, None, token)
    except CLIENT_ERRORS as error:
        raise explain(error, repo_id, None) from None
    sizes_of(repo_id, info)


def push_folder(folder: Path, repo_id: str, *, private: bool = False, token: Token = None) -> str:
    """Publish a model folder as a repository, created if need be, in one commit; return the commit's address.

    Only the files of a model travel; those that the repository has of an earlier model and this one
    lacks, such as its training record, go. If nothing has changed since the last commit, none is made.
    Raises ModelFileError if the folder is not a sound model, HubError if the Hub refuses.
    """
    read_model(folder)
    check_can_push(repo_id, token)
    files = {name: (folder / name).read_bytes() for name in MODEL_FILES if (folder / name).is_file()}
    if CARD_FILE in files:
        files[CARD_FILE] = files[CARD_FILE].replace(REPO_PLACEHOLDER.encode(), repo_id.encode())
    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        of_another = set(api.list_repo_files(repo_id)) & (set(MODEL_FILES) - set(files))
        added = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()]
        deleted = [CommitOperationDelete(path_in_repo=name) for name in of_another]
        commit = api.create_commit(repo_id, [*added, *deleted], commit_message="Publish the model")
    except CLIENT_ERRORS as error:
        raise explain(error, repo_id, None) from None
    return commit.commit_url


def ask(repo_id: str, revision: str | None, token: Token) -> tuple[ModelInfo, Token]:
    """Ask which commit a revision is and which files it has; return that and the token that may read it.

    Raises what the client raises, which `explain` puts into words.
    """

    def ask_with(token: Token) -> ModelInfo:
        return HfApi().model_info(
            repo_id, revision=revision, timeout=QUESTION_SECONDS, files_metadata=True, token=token
        )

    if token is not None or get_token() is None:
        return ask_with(token), token
    try:
        info = ask_with(False)
    except RepositoryNotFoundError:  # perhaps the stored token opens it
        return ask_with(True), True
    return info, bool(info.gated)  # anyone may see what a gated repository holds, but its files need the token


def _download(repo_id: str, info: ModelInfo, token: Token, force: bool = False) -> Path:
    """Bring the files of a commit into the cache; return their folder there.

    Raises ModelFileError before anything is downloaded that no sound model could need.
    """
    sizes = sizes_of(repo_id, info)
    for name, most in LARGEST_FILES.items():
        if (sizes.get(name) or 0) > most:
            raise ModelFileError(f"{repo_id}: {name} has {sizes[name]:,} bytes, more than any charlm model needs")

    def download(name: str) -> Path:
        path = hf_hub_download(
            repo_id, name, revision=info.sha, token=token, force_download=force, etag_timeout=QUESTION_SECONDS
        )
        return Path(path)

    config_path = download(CONFIG_FILE)
    with open(config_path, encoding="utf-8", errors="replace") as file:
        config, _ = ModelConfig.from_json(file.read(LARGEST_JSON + 1))  # which refuses what is larger
    if (sizes[WEIGHTS_FILE] or 0) > 4 * config.parameters + LARGEST_HEADER:
        raise ModelFileError(f"{repo_id}: {WEIGHTS_FILE} is larger than the model that {CONFIG_FILE} describes")
    if HISTORY_FILE in sizes:
        download(HISTORY_FILE)
    return download(WEIGHTS_FILE).parent


def sizes_of(repo_id: str, info: ModelInfo) -> dict[str, int | None]:
    """Return the size of each file of a repository. Raises HubError if those of a model are not among them."""
    sizes = {sibling.rfilename: sibling.size for sibling in info.siblings or []}
    if missing := [name for name in (CONFIG_FILE, WEIGHTS_FILE) if name not in sizes]:
        raise HubError(f"{repo_id} has no {missing[0]}: it is not a charlm model")
    return sizes


def _refs(repo_id: str, revision: str | None) -> Path:
    cached = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo_id, repo_type="model"))
    return cached / "refs" / (revision or constants.DEFAULT_REVISION)


def _remember(repo_id: str, revision: str | None, commit: str) -> None:
    """Note which commit a branch was at. The client does so only when asked for the branch, and we ask for commits."""
    ref = _refs(repo_id, revision)
    if revision != commit:
        with contextlib.suppress(OSError, RequestError):  # a cache that is read-only serves all the same
            replace_files(ref.parent, {ref.name: commit.encode()})


def _cached_folder(repo_id: str, revision: str | None) -> Path | None:
    """Return the folder of the cached commit of a revision, if it holds a model."""
    ref = _refs(repo_id, revision)
    commit = ref.read_text() if ref.is_file() else revision
    if commit is None:
        return None
    folder = ref.parents[1 + (revision or "").count("/")] / "snapshots" / commit
    return folder if (folder / WEIGHTS_FILE).is_file() else None


def explain(error: Exception, repo_id: str, revision: str | None) -> HubError:
    """Turn what the client raised into an error that says what to do."""
    while not isinstance(error, httpx2.HTTPError) and isinstance(error.__cause__, CLIENT_ERRORS):
        error = error.__cause__  # the client names the step that failed and chains what the Hub or the network said
    match error:
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
        case HfHubHTTPError() if error.response.status_code not in (408, 429) and error.response.status_code < 500:
            return HubError(f"the Hub refused the request for {repo_id}: {_one_line(error.server_message or error)}")
        case HfHubHTTPError():
            return HubUnavailableError(f"the Hub answered {error.response.status_code} for {repo_id}; try again later")
        case OfflineModeIsEnabled():
            return HubUnavailableError(
                f"the Hub cannot be asked for {repo_id} while HF_HUB_OFFLINE is set: unset it, or use a cached model"
            )
        case LocalTokenNotFoundError():
            return HubError("no token for the Hub: run `hf auth login` or set HF_TOKEN to a valid one")
        case OSError(errno=int()):
            return HubUnavailableError(
                f"{repo_id} cannot be kept in the cache ({error.strerror}); make room, or set HF_HOME to another folder"
            )
        case _:
            return HubUnavailableError(
                f"the Hub gave no usable answer for {repo_id} ({_one_line(error)}); check the network"
            )


def _sent_token(error: HfHubHTTPError) -> bool:
    return "authorization" in error.response.request.headers


def _one_line(message: object) -> str:
    return " ".join(str(message).split())
