"""The Hub: describe, load and search models, publish a model or a Space. No answer of the Hub is trusted.

A model is loaded in two steps, so that what was described is what is loaded: `describe` asks once which commit a
revision is and what it holds, `download` brings the files of exactly that commit. `fetch` does both, and uses the
cache while the Hub cannot be reached.
"""

import contextlib
import errno
import hashlib
import re
import ssl
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_session,
    get_token,
    hf_hub_download,
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

from charlm.errors import HubError, HubUnavailableError, ModelFileError, RequestError, SpaceRefusedError
from charlm.installation import program
from charlm.model.card import model_card
from charlm.model.config import CONFIG_FILE, LARGEST_JSON, MOST_PARAMETERS, ModelConfig, is_number
from charlm.model.folder import CARD_FILE, MODEL_FILES, Model, read_model, read_usable_model, replace_files
from charlm.model.history import HISTORY_FILE
from charlm.model.published_card import Publication, published_card
from charlm.model.weights import LARGEST_HEADER, WEIGHTS_FILE
from charlm.model_name import check_folder, is_repo_id, parse_push_target, parse_space_name

LIBRARY = "charlm"  # the tag in the card of every charlm model
COMMIT = re.compile("[0-9a-f]{40}")
PUSH_TITLE = "Publish the model"  # of the commit of a push, by which a later one knows it
INSTALLED_BY = "pyproject.toml"  # the file that a Space holds if pip can install charlm from it
QUESTION_SECONDS = 3.0  # time limit of each question; a download has none
LARGEST_FILES = {
    CONFIG_FILE: LARGEST_JSON,
    HISTORY_FILE: LARGEST_JSON,
    WEIGHTS_FILE: 4 * MOST_PARAMETERS + LARGEST_HEADER,
}
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
    """

    repo_id: str
    requested: str | None
    revision: str
    sizes: dict[str, int]
    tagged: bool
    figures: dict[str, float]
    license: str
    token: Token = field(repr=False)

    @property
    def bytes(self) -> int:
        """How much `download` transfers if the cache holds nothing of it."""
        return sum(self.sizes.values())


@dataclass(frozen=True)
class Owner:
    """The user or the organization that a repository belongs to, as the Hub describes them to one of their tokens.

    user: whose token it is; another name than `name` if that is an organization.
    has_plan: whether they pay for PRO, Team or Enterprise.
    is_confirmed: False if the user has not confirmed the e-mail address.
    """

    name: str
    user: str
    has_plan: bool
    is_confirmed: bool


@dataclass(frozen=True)
class Fetched:
    """A model from the Hub, the commit it is of, and whether that came from the `hub` now or from the `cache`."""

    model: Model
    revision: str
    source: str


def describe(repo_id: str, revision: str | None = None, token: Token = None) -> Description:
    """Ask the Hub, once, which commit a revision of a repository is and what it holds.

    Without `token`, it is asked anonymously first, so that a stale token cannot close a public repository.
    Raises HubError if the repository holds no model, or the Hub refuses, HubUnavailableError if the Hub gives no
    usable answer.
    """
    _check_repo_id(repo_id)
    path = f"models/{repo_id}" + (f"/revision/{quote(revision, safe='')}" if revision is not None else "")
    parameters = {"blobs": "true"}  # with the size of each file
    try:
        if token is not None or get_token() is None:
            answer = _get(path, parameters, token)
        else:
            try:
                answer = _get(path, parameters, False)
                # anyone may see what a gated repository holds, but its files need the token
                token = isinstance(answer, dict) and bool(answer.get("gated"))
            except RepositoryNotFoundError:  # it may be private, and the stored token open it
                token = True
                answer = _get(path, parameters, token)
        return _read_description(repo_id, revision, token, answer)
    except CLIENT_ERRORS as error:
        raise _explain(error, repo_id, revision) from None


def describe_public(repo_id: str, revision: str | None = None) -> Description:
    """Describe a charlm model that anyone may read: no stored token is sent.

    Raises what `describe` does, and HubError if the repository does not carry the tag of charlm.
    """
    found = describe(repo_id, revision, token=False)
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
            model = read_usable_model(_download_files(described), described.repo_id)
            damaged: Collection[str] = {HISTORY_FILE} if model.record_problem else ()
        except ModelFileError:
            damaged = LARGEST_FILES
        if damaged:
            model = read_usable_model(_download_files(described, damaged), described.repo_id)
    except CLIENT_ERRORS as error:
        raise _explain(error, described.repo_id, described.requested) from None
    _remember(described)
    return Fetched(model, described.revision, "hub")


def fetch(repo_id: str, revision: str | None = None, token: Token = None) -> Fetched:
    """Return a model from the Hub, all of its files at one commit; from the cache if the Hub gives no answer.

    Raises HubError if the Hub refuses, HubUnavailableError if it gives no usable answer and the cache has no such
    model, ModelFileError if the files are not a sound model.
    """
    try:
        return download(describe(repo_id, revision, token))
    except HubUnavailableError as reason:
        cached = _cached_folder(repo_id, revision)
        if cached is None:
            raise
        try:
            model = read_usable_model(cached, repo_id)
        except ModelFileError as damage:
            raise HubUnavailableError(f"{reason}; the copy in the cache cannot be used: {damage}") from None
        if not constants.is_offline_mode():
            warnings.warn(f"{reason}; using the copy in the cache", stacklevel=4)
        return Fetched(model, cached.name, "cache")


def search(words: str, most: int = MOST_FOUND) -> list[str]:
    """Return the names of public charlm models on the Hub that contain these words, the most downloaded first.

    Raises HubError if the Hub refuses, HubUnavailableError if it gives no answer, after some seconds at most.
    """
    parameters = {"filter": LIBRARY, "search": words, "sort": "downloads", "limit": str(most)}
    try:
        found = _get("models", parameters, False)
    except CLIENT_ERRORS as error:
        raise _explain(error, f"models with {words!r:.60}", None) from None
    names = [entry.get("id") for entry in _objects(found)]
    return [name for name in names if isinstance(name, str) and is_repo_id(name)][:most]


def check_can_push(repo: str, token: Token = None) -> Owner:
    """Return whose repository `repo` is, or would be.

    Raises HubError unless it names a repository and the token may write there, as that user or a member.
    """
    repo_id = parse_push_target(repo)
    try:
        account = _object(HfApi().whoami(token=token))
    except CLIENT_ERRORS as error:
        raise _explain(error, repo_id, None) from None
    if _object(_object(account.get("auth")).get("accessToken")).get("role") == "read":
        raise HubError("the token may only read: run `hf auth login` or set HF_TOKEN to one with write permission")
    namespace, user = repo_id.split("/")[0], account.get("name")
    found = [each for each in (account, *_objects(account.get("orgs"))) if each.get("name") == namespace]
    if not found:
        raise HubError(
            f"{repo_id} would be {namespace}'s, and the token is that of {user}: publish under your own "
            "name, or that of an organization that you are in"
        )
    return Owner(namespace, str(user), _has_plan(found[0]), account.get("emailVerified") is not False)


def _has_plan(account: dict[str, Any]) -> bool:
    """Tell whether a user or an organization, as `whoami` describes it, pays for a plan."""
    plan = account.get("plan")
    return any(account.get(name) is True for name in ("isPro", "isEnterprise")) or plan not in (None, "", "free")


def push_folder(
    folder: Path,
    repo: str,
    *,
    private: bool = False,
    license: str | None = None,
    language: str | None = None,
    space: str | None = None,
    token: Token = None,
) -> str:
    """Publish a model folder as a repository, created if need be, in one commit; return the commit's address.

    Only the files of a model are uploaded; those that the repository has of an earlier model and this one
    lacks, its training record for example, are deleted. If nothing has changed since the last commit, none is made.
    If the push replaces what came into the repository otherwise than by this account's last push, a warning says so.

    repo: named in any way of `parse_hub_name`, without a revision. license, language: written into the metadata of the
        published card; the folder stays as it is. space: USER/SPACE that shows the model, to which the card links.
    Raises ModelFileError if the folder is not a sound model, RequestError for an unknown licence or language, HubError
    if the Hub refuses, or somebody else changes the repository meanwhile.
    """
    repo_id, publication = parse_push_target(repo), Publication(license, language)
    space = None if space is None else parse_space_name(space)
    files = _read_files(folder)
    account = check_can_push(repo_id, token).user
    if space is not None:
        installs = INSTALLED_BY in _read_space(space, repo_id, token)
        publication = Publication(license, language, space, installs)
    files[CARD_FILE] = published_card(files[CARD_FILE].decode(), repo_id, publication).encode()
    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        head, present = _list_contents(repo_id, None, token)
        replaced = _find_replaced(repo_id, files, account, head, present, token)
        outdated = set(present) & (set(MODEL_FILES) - set(files))
        operations = _operations(files, outdated)
        commit = api.create_commit(repo_id, operations, commit_message=PUSH_TITLE, parent_commit=head)
    except CLIENT_ERRORS as error:
        raise _explain(error, repo_id, None) from None
    if replaced:
        warnings.warn(
            f"this push replaced {', '.join(replaced)} of {repo_id}, which had changed since your last push or came "
            f"from elsewhere; commit {head[:7]} still has what was there",
            stacklevel=2,
        )
    return commit.commit_url


def _read_files(folder: Path) -> dict[str, bytes]:
    """Return the files of a model folder by name, with a card made anew if it has none.

    Raises ModelFileError if they are not a sound model, or the card is not UTF-8.
    """
    model = read_model(check_folder(folder))
    files = {CARD_FILE: model_card(model.config, model.history).encode()}
    files |= {name: (folder / name).read_bytes() for name in MODEL_FILES if (folder / name).is_file()}
    _, sha256 = ModelConfig.from_json(files[CONFIG_FILE].decode())
    if hashlib.sha256(files[WEIGHTS_FILE]).hexdigest() != sha256:
        raise ModelFileError(
            f"{folder} changed while it was read: nothing was published; push it again when no training writes to it"
        )
    try:
        files[CARD_FILE].decode()
    except UnicodeDecodeError:
        raise ModelFileError(f"{folder}: {CARD_FILE} is not UTF-8 text, as the Hub demands; save it as UTF-8") from None
    return files


def _read_space(space: str, repo_id: str, token: Token) -> list[str]:
    """Return the names of the files of a Space. Raises HubError unless the token may see one of that name."""
    try:
        answer = _get(f"spaces/{space}", {}, token)
    except RepositoryNotFoundError:
        raise HubError(
            f"the Hub has no Space {space}, or it is private: publish the model without it, make the Space with "
            f"`{program()} deploy {space} --model {repo_id}`, and push again"
        ) from None
    except CLIENT_ERRORS as error:
        raise _explain(error, space, None) from None
    return [str(file.get("rfilename")) for file in _objects(_object(answer).get("siblings"))]


def _list_contents(repo_id: str, revision: str | None, token: Token) -> tuple[str, dict[str, str]]:
    """Return the commit of a revision, and by path the SHA-256 of each file in LFS and the git id of each other."""
    at = f"/revision/{revision}" if revision else ""
    about = _object(_get(f"models/{repo_id}{at}", {"blobs": "true"}, token))
    ids = {}
    for file in _objects(about.get("siblings")):
        if isinstance(name := file.get("rfilename"), str):
            ids[name] = str(_object(file.get("lfs")).get("sha256") or file.get("blobId"))
    return _read_commit(about), ids


def _find_replaced(
    repo_id: str, files: Mapping[str, bytes], account: str, head: str, present: Mapping[str, str], token: Token
) -> list[str]:
    """Return the files that a push replaces or deletes although they are not as this account's last push left them.

    head, present: the last commit, and what it holds, as `_list_contents` returns them.
    """
    replaced = [name for name in MODEL_FILES if name in present and present[name] not in _ids(files.get(name))]
    if not replaced:
        return []
    commits = _objects(_get(f"models/{repo_id}/commits/main", {}, token))  # the newest first
    ours = [commit for commit in commits if commit.get("title") == PUSH_TITLE and account in _users(commit)]
    last = str(ours[0].get("id")) if ours else ""
    if last == head:
        return []
    pushed = _list_contents(repo_id, last, token)[1] if COMMIT.fullmatch(last) else {}
    return [name for name in replaced if present[name] != pushed.get(name)]


def _ids(content: bytes | None) -> tuple[str, ...]:
    """Return the SHA-256 and the git id of a file; nothing for none."""
    if content is None:
        return ()
    git_id = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    return hashlib.sha256(content).hexdigest(), git_id


def _users(commit: Mapping[str, Any]) -> list[object]:
    return [author.get("user") for author in _objects(commit.get("authors"))]


def space_hardware(space: str) -> str | None:
    """Return the hardware that a Space runs on or has asked for, empty if it needs none; None if there is no Space.

    Raises HubError if the Hub refuses to say.
    """
    try:
        hardware = _object(_object(_get(f"spaces/{space}/runtime", {}, None)).get("hardware"))
    except RepositoryNotFoundError:
        return None
    except CLIENT_ERRORS as error:
        raise _explain(error, space, None) from None
    named = [hardware.get(name) for name in ("requested", "current")]
    return next((name for name in named if isinstance(name, str)), "")


def request_space(space: str, hardware: str, *, exists: bool) -> None:
    """Create an empty Gradio Space on this hardware, or ask for the hardware if the Space exists.

    Raises SpaceRefusedError if the Hub wants payment, does not permit it, or has something else of that name; HubError
    if it refuses for another reason.
    """
    api = HfApi()
    try:
        if exists:
            api.request_space_hardware(space, hardware)  # type: ignore[arg-type]  # any name that the Hub knows
        else:
            api.create_repo(space, repo_type="space", space_sdk="gradio", space_hardware=hardware)  # type: ignore[arg-type]
    except CLIENT_ERRORS as error:
        if isinstance(error, HfHubHTTPError) and error.response.status_code in (402, 403, 409):
            said = _one_line(error.server_message or "no reason given")
            raise SpaceRefusedError(error.response.status_code, said.rstrip(".")) from None
        raise _explain(error, space, None) from None


def push_space(space: str, files: Mapping[str, bytes], variables: Mapping[str, str], folders: Sequence[str]) -> str:
    """Set the variables of a Space and update its files in one commit; return the commit's address.

    variables: what its program finds in the environment. folders: in these, files that are not among `files` are
    deleted; files elsewhere in the Space stay. Raises HubError if the Hub refuses.
    """
    api = HfApi()
    try:
        for name, value in variables.items():  # before the files, because their commit starts the Space
            api.add_space_variable(space, name, value)
        present = api.list_repo_files(space, repo_type="space")
        outdated = {name for name in present if name.startswith(tuple(folders))} - set(files)
        operations = _operations(files, outdated)
        commit = api.create_commit(space, operations, commit_message="Deploy the page", repo_type="space")
    except CLIENT_ERRORS as error:
        raise _explain(error, space, None) from None
    return commit.commit_url


def _operations(files: Mapping[str, bytes], outdated: set[str]) -> list[CommitOperationAdd | CommitOperationDelete]:
    added = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()]
    return [*added, *(CommitOperationDelete(path_in_repo=name) for name in sorted(outdated))]


def _check_repo_id(name: str) -> None:
    if not is_repo_id(name):
        raise HubError(f"{name!r} is not the name of a repository; give it as USER/NAME")


def _get(path: str, parameters: dict[str, str], token: Token) -> Any:
    """Return what the Hub's API answers, as JSON. Raises one of CLIENT_ERRORS, which `_explain` puts into words.

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


def _read_description(repo_id: str, requested: str | None, token: Token, answer: Any) -> Description:
    """Read what the Hub says of a repository field by field. A field that is not what it should be counts as absent.

    Raises HubError if a file of a model is missing or of unknown size, ValueError if the answer names no commit.
    """
    about = _object(answer)
    revision = _read_commit(about)
    card = _object(about.get("cardData"))
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
    )


def _read_commit(about: Mapping[str, Any]) -> str:
    """Return the commit that an answer about a repository names. Raises ValueError if it names none."""
    commit = about.get("sha")
    if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
        raise ValueError("its answer names no commit")
    return commit


def _sizes(repo_id: str, siblings: object) -> dict[str, int]:
    """Return the size of each file that loading needs, of those that a repository has."""
    sizes = {}
    for file in _objects(siblings):
        name, size = file.get("rfilename"), file.get("size")
        if isinstance(name, str) and name in LARGEST_FILES:
            if type(size) is not int or size < 0:
                raise HubError(f"the Hub does not tell the size of {name} in {repo_id}; try again or tell its owner")
            sizes[name] = size
    if missing := [name for name in (CONFIG_FILE, WEIGHTS_FILE) if name not in sizes]:
        raise HubError(f"{repo_id} has no {missing[0]}: it is not a charlm model")
    return sizes


def _figures(model_index: object) -> dict[str, float]:
    """Return the figures of a card's model-index by name."""
    results = (result for model in _objects(model_index) for result in _objects(model.get("results")))
    metrics = (metric for result in results for metric in _objects(result.get("metrics")))
    figures = {}
    for metric in islice(metrics, MOST_FIGURES):
        name, value = metric.get("name") or metric.get("type"), metric.get("value")
        if isinstance(name, str) and is_number(value):
            figures[name[:LONGEST_FIGURE_NAME]] = float(value)
    return figures


def _object(value: object) -> dict[str, Any]:
    """Return what should be a JSON object, or an empty one."""
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> list[dict[str, Any]]:
    """Return the objects in what should be a JSON list of objects."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _download_files(described: Description, afresh: Collection[str] = ()) -> Path:
    """Bring the files of a commit into the cache; return their folder there. afresh: those not to take from the cache.

    Raises ModelFileError before a file is downloaded that is larger than that of any sound model.
    """
    repo_id, sizes = described.repo_id, described.sizes
    if constants.HF_HUB_CACHE.startswith("~"):  # without a home directory, it would be a folder of that name here
        raise HubError(f"there is no home directory to keep {repo_id} in; set HF_HOME to a folder")
    for name, most in LARGEST_FILES.items():
        if sizes.get(name, 0) > most:
            raise ModelFileError(f"{repo_id}: {name} has {sizes[name]:,} bytes, more than any charlm model needs")

    def download_file(name: str) -> Path:
        path = hf_hub_download(
            repo_id,
            name,
            revision=described.revision,
            token=described.token,
            force_download=name in afresh,
            etag_timeout=QUESTION_SECONDS,
        )
        return Path(path)

    with open(download_file(CONFIG_FILE), encoding="utf-8", errors="replace") as file:
        config, _ = ModelConfig.from_json(file.read(LARGEST_JSON + 1))  # which refuses what is larger
    if sizes[WEIGHTS_FILE] > 4 * config.parameters + LARGEST_HEADER:
        raise ModelFileError(f"{repo_id}: {WEIGHTS_FILE} is larger than the model that {CONFIG_FILE} describes")
    if HISTORY_FILE in sizes:
        download_file(HISTORY_FILE)
    return download_file(WEIGHTS_FILE).parent


def _refs(repo_id: str, revision: str | None) -> Path:
    cached = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo_id, repo_type="model"))
    return cached / "refs" / (revision or constants.DEFAULT_REVISION)


def _remember(described: Description) -> None:
    """Note in the cache which commit a branch was at, as the client does only for a download by the branch's name."""
    ref = _refs(described.repo_id, described.requested)
    if described.requested != described.revision:
        with contextlib.suppress(OSError, RequestError):  # a read-only cache is no reason to fail
            replace_files(ref.parent, {ref.name: described.revision.encode()})


def _cached_folder(repo_id: str, revision: str | None) -> Path | None:
    """Return the folder of the cached commit of a revision, if it holds a model."""
    ref = _refs(repo_id, revision)
    commit = ref.read_text() if ref.is_file() else revision
    if commit is None:
        return None
    folder = ref.parents[1 + (revision or "").count("/")] / "snapshots" / commit
    return folder if (folder / WEIGHTS_FILE).is_file() else None


def _explain(error: Exception, repo_id: str, revision: str | None) -> HubError:
    """Turn what the client raised into an error that says what to do."""
    while not isinstance(error, httpx2.HTTPError) and isinstance(error.__cause__, CLIENT_ERRORS):
        error = error.__cause__  # the client raises an error for the step that failed, caused by that of the request
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
        case HfHubHTTPError() if error.response.status_code in (409, 412) and "/commit/" in error.response.url.path:
            return HubError(
                f"somebody else changed {repo_id} during this push, so nothing was published; look at it on the Hub, "
                "then push again"
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
        case UnicodeEncodeError() if not (constants.HF_HUB_USER_AGENT_ORIGIN or "").isascii():
            return HubError("HF_HUB_USER_AGENT_ORIGIN may hold ASCII characters only; set it to other ones or unset it")
        case UnicodeEncodeError() | UnicodeDecodeError() | httpx2.LocalProtocolError():  # which would quote the token
            return HubError(
                "the token for the Hub holds a character that no token has: run `hf auth login` or set HF_TOKEN to "
                "a valid one"
            )
        case httpx2.UnsupportedProtocol() | httpx2.InvalidURL():
            return HubError(
                f"HF_ENDPOINT is {constants.ENDPOINT!r}, which is no web address; write https://HOST, or unset it"
            )
        case OSError(errno=int()) if error.filename in (constants.HF_TOKEN_PATH, constants.HF_STORED_TOKENS_PATH):
            return HubError(
                f"the token in {error.filename} cannot be read ({error.strerror}); run `hf auth login` "
                "or name another file in HF_TOKEN_PATH"
            )
        case ssl.SSLError() | OSError(filename=None, errno=errno.ENOENT | errno.ENOTDIR | errno.EACCES | errno.EISDIR):
            # reading certificates, Python names no file
            return HubUnavailableError(
                f"no connection to the Hub can be secured ({_one_line(error)}); check SSL_CERT_FILE and SSL_CERT_DIR"
            )
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
