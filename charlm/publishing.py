"""Publish a model or a Space on the Hub. How the Hub is asked, and what its errors mean, stands in charlm.hub."""

import hashlib
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from charlm.errors import HubError, HubUnavailableError, ModelFileError, SpaceRefusedError
from charlm.hub import (
    CLIENT_ERRORS,
    COMMIT,
    Token,
    ask,
    explain,
    json_object,
    json_objects,
    read_commit,
    read_file,
)
from charlm.installation import program
from charlm.messages import one_line
from charlm.model.card import model_card
from charlm.model.config import CONFIG_FILE, ModelConfig
from charlm.model.folder import CARD_FILE, MODEL_FILES, is_model_file, read_epoch, read_model
from charlm.model.history import HistoryRecord
from charlm.model.kept import kept_epochs, kept_file
from charlm.model.published_card import Publication, keep_published, published_card, read_space
from charlm.model.weights import WEIGHTS_FILE
from charlm.model_name import MAIN_BRANCH, check_folder, parse_folder, parse_push_target, parse_space_name

PUSH_TITLE = "Publish the model"  # of the commit of a push, by which a later one knows it
LARGEST_CARD = 1 << 20  # bytes of a published README.md in which a link to a Space is looked for
INSTALLED_BY = "pyproject.toml"  # the file that a Space holds if pip can install charlm from it
ENGINES = ("charlm.js", "charlm/browser/charlm.js")  # where a static and a Gradio Space have charlm.js


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


def check_can_push(repo: str, token: Token = None) -> Owner:
    """Return whose repository `repo` is, or would be.

    Raises HubError unless it names a repository and the token may write there, as that user or a member.
    """
    repo_id = parse_push_target(repo)
    try:
        account = json_object(HfApi().whoami(token=token))
    except CLIENT_ERRORS as error:
        raise explain(error, repo_id, None) from None
    if json_object(json_object(account.get("auth")).get("accessToken")).get("role") == "read":
        raise HubError("the token may only read: run `hf auth login` or set HF_TOKEN to one with write permission")
    namespace, user = repo_id.split("/")[0], account.get("name")
    found = [each for each in (account, *json_objects(account.get("orgs"))) if each.get("name") == namespace]
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
    folder: str | Path,
    repo: str,
    *,
    private: bool = False,
    license: str | None = None,
    language: str | None = None,
    space: str | None = None,
    token: Token = None,
) -> str:
    """Publish a model folder as a repository, created if need be, in one commit; return the commit's address.

    Only the files of a model are uploaded; of the weights that were kept of epochs, those that its record names. Files
    that the repository has of an earlier model and this one lacks, its training record for example, are deleted; the
    weights of epochs that the record names stay, also where the folder lacks them. If nothing has changed since the
    last commit, none is made. If it replaces files that are not as this account's last push left them, a warning names
    them.

    What `license`, `language` and `space` leave out stays as it is published: a licence and a language that the
    folder's own card lacks, and the link to a Space. A warning says if that Space is gone, and so the link.

    repo: named in any way of `parse_hub_name`, without a revision. private: whether a repository that has to be created
        is private; one that is there and public is refused. license, language: written into the metadata of the
        published card; the folder stays as it is. space: USER/SPACE that shows the model, to which the card links.
    Raises ModelFileError if the folder is not a sound model, RequestError for what is no path and for an unknown
    licence or language, HubError if the Hub refuses, or somebody else changes the repository meanwhile, or it is public
    and should be private.
    """
    repo_id, publication = parse_push_target(repo), Publication(license, language)
    space = None if space is None else parse_space_name(space)
    files, history = _read_files(check_folder(parse_folder(folder)))
    account = check_can_push(repo_id, token).user
    shown = None if space is None else _read_space(space, repo_id, token)
    published_card(files[CARD_FILE].decode(), repo_id, publication)  # fails before there is a repository
    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        there = _read_contents(repo_id, None, token)
        if private and not there.is_private:  # it existed: create_repo changes nothing then, and says nothing
            raise HubError(
                f"{repo_id} exists and is public, so nothing was published: make it private in its settings on the "
                "Hub, or push without private"
            )
        if shown is None:
            shown = _find_published_space(repo_id, there, token)
        if shown is not None:
            publication = replace(
                publication,
                space=shown.name,
                installs=INSTALLED_BY in shown.files,
                engine=shown.engine,
                revision=_find_revision(shown.pins.get(repo_id), repo_id, files, token),
            )
        card = keep_published(files[CARD_FILE].decode(), there.card, publication)
        files[CARD_FILE] = published_card(card, repo_id, publication).encode()
        stays = set(map(kept_file, _kept_among(there.ids, history))) - set(files)
        others = {name: id for name, id in there.ids.items() if name not in stays}
        replaced = _find_replaced(repo_id, files, account, there.commit, others, token)
        outdated = set(filter(is_model_file, others)) - set(files)
        operations = _operations(files, outdated)
        commit = api.create_commit(repo_id, operations, commit_message=PUSH_TITLE, parent_commit=there.commit)
    except CLIENT_ERRORS as error:
        raise explain(error, repo_id, None) from None
    if replaced:
        warnings.warn(
            f"this push replaced {', '.join(replaced)} of {repo_id}, which had changed since your last push or came "
            f"from elsewhere; commit {there.commit[:7]} still has what was there",
            stacklevel=2,
        )
    return commit.commit_url


def published_epochs(repo: str, history: HistoryRecord | None, token: Token = None) -> list[int]:
    """Return the epochs whose weights a record names and a repository has; none if there is no such repository.

    repo: named as for `push_folder`. Raises HubError if the Hub refuses to say.
    """
    repo_id = parse_push_target(repo)
    if not kept_epochs(history):
        return []
    try:
        there = _read_contents(repo_id, None, token)
    except RepositoryNotFoundError:
        return []
    except CLIENT_ERRORS as error:
        raise explain(error, repo_id, None) from None
    return _kept_among(there.ids, history)


def _kept_among(present: Mapping[str, str], history: HistoryRecord | None) -> list[int]:
    """Return the epochs of a record whose weights a repository has. present: `_Contents.ids` of the repository."""
    kept = kept_epochs(history)
    return [epoch for epoch, sha256 in kept.items() if present.get(kept_file(epoch)) == sha256.lower()]


def _read_files(folder: Path) -> tuple[dict[str, bytes], HistoryRecord | None]:
    """Return the files of a model folder by name, and its training record. A card is made if the folder has none.

    Raises ModelFileError if they are not a sound model, or the card is not UTF-8.
    """
    model = read_model(folder)
    files = {CARD_FILE: model_card(model.config, model.history).encode()}
    files |= {name: (folder / name).read_bytes() for name in MODEL_FILES if (folder / name).is_file()}
    _, sha256 = ModelConfig.from_json(files[CONFIG_FILE].decode())
    sha256s = {WEIGHTS_FILE: sha256}
    for epoch, sha256 in kept_epochs(model.history).items():
        if os.path.lexists(folder / (path := kept_file(epoch))):
            read_epoch(folder, model, epoch)
            files[path], sha256s[path] = (folder / path).read_bytes(), sha256
    if any(hashlib.sha256(files[path]).hexdigest() != sha256.lower() for path, sha256 in sha256s.items()):
        raise ModelFileError(
            f"{folder} changed while it was read: nothing was published; push it again when no training writes to it"
        )
    try:
        files[CARD_FILE].decode()
    except UnicodeDecodeError:
        raise ModelFileError(f"{folder}: {CARD_FILE} is not UTF-8 text, as the Hub demands; save it as UTF-8") from None
    return files, model.history


@dataclass(frozen=True)
class _Space:
    """A Space, as the Hub describes it.

    name: USER/SPACE. files: their paths. pins: the commit of each repository whose model it shows at one.
    """

    name: str
    commit: str
    files: list[str]
    pins: dict[str, str]

    @property
    def engine(self) -> str:
        """The commit of the Space and the path of charlm.js in it, as in its address; empty if it has none."""
        found = [path for path in ENGINES if path in self.files]
        return f"{self.commit}/{found[0]}" if found else ""


def _read_space(space: str, repo_id: str, token: Token) -> _Space:
    """Describe a Space. Raises HubError unless the token may see one of that name."""
    try:
        answer = ask(f"spaces/{space}", {}, token)
        commit = read_commit(json_object(answer))
    except RepositoryNotFoundError:
        raise HubError(
            f"the Hub has no Space {space}, or it is private: publish the model without it, make the Space with "
            f"`{program()} deploy {space} --model {repo_id}`, and push again"
        ) from None
    except CLIENT_ERRORS as error:
        raise explain(error, space, None) from None
    about = json_object(answer)
    files = [str(file.get("rfilename")) for file in json_objects(about.get("siblings"))]
    return _Space(space, commit, files, _read_pins(json_object(about.get("cardData")).get("preload_from_hub")))


def _find_published_space(repo_id: str, there: "_Contents", token: Token) -> _Space | None:
    """Return the Space to which the published card links; None if there is none.

    Raises one of CLIENT_ERRORS if the card cannot be read, HubUnavailableError if the Hub does not tell of the Space.
    """
    if not 0 < there.card_bytes <= LARGEST_CARD:
        return None
    card = read_file(repo_id, CARD_FILE, there.commit, token).decode(errors="replace")
    if (space := read_space(card)) is None:
        return None
    try:
        return _read_space(space, repo_id, token)
    except HubUnavailableError:
        raise
    except HubError:  # it was deleted, or made private
        warnings.warn(
            f"the published card links to the Space {space}, which the Hub no longer shows: the link is left out",
            stacklevel=3,
        )
        return None


def _read_pins(preloaded: object) -> dict[str, str]:
    """Return the commits that a Space's card names, by repository, from entries such as `ada/one config.json COMMIT`.

    preloaded: what the card says of the files that the Space is built with, by the owner of the Space.
    """
    entries = [each.split() for each in preloaded if isinstance(each, str)] if isinstance(preloaded, list) else []
    return {entry[0]: entry[2] for entry in entries if len(entry) == 3 and COMMIT.fullmatch(entry[2])}


def _find_revision(pin: str | None, repo_id: str, files: Mapping[str, bytes], token: Token) -> str:
    """Return the commit at which a Space shows a model if that is the model that is pushed, or else the main branch."""
    if pin is None:
        return MAIN_BRANCH
    try:
        present = _read_contents(repo_id, pin, token).ids
    except CLIENT_ERRORS:  # the commit or the repository is gone
        return MAIN_BRANCH
    is_same = all(present.get(name) in _ids(files[name]) for name in (CONFIG_FILE, WEIGHTS_FILE))
    return pin if is_same else MAIN_BRANCH


@dataclass(frozen=True)
class _Contents:
    """One commit of a repository.

    ids: by path the SHA-256 of each file in LFS and the git id of each other.
    card, card_bytes: the metadata of its README.md, by whoever wrote that, and its size; 0 without one.
    """

    commit: str
    ids: dict[str, str]
    is_private: bool
    card: dict[str, Any]
    card_bytes: int


def _read_contents(repo_id: str, revision: str | None, token: Token) -> _Contents:
    """Ask the Hub which commit a revision is, what it holds, and whether the repository is private."""
    at = f"/revision/{revision}" if revision else ""
    about = json_object(ask(f"models/{repo_id}{at}", {"blobs": "true"}, token))
    ids, card_bytes = {}, 0
    for file in json_objects(about.get("siblings")):
        if isinstance(name := file.get("rfilename"), str):
            ids[name] = str(json_object(file.get("lfs")).get("sha256") or file.get("blobId"))
            if name == CARD_FILE and type(size := file.get("size")) is int:
                card_bytes = size
    card = json_object(about.get("cardData"))
    return _Contents(read_commit(about), ids, about.get("private") is True, card, card_bytes)


def _find_replaced(
    repo_id: str, files: Mapping[str, bytes], account: str, head: str, present: Mapping[str, str], token: Token
) -> list[str]:
    """Return the files that a push replaces or deletes although they are not as this account's last push left them.

    head, present: the last commit, and the ids of what it holds that may be replaced.
    """
    found = [*(name for name in MODEL_FILES if name in present), *sorted(set(present) - set(MODEL_FILES))]
    replaced = [name for name in found if is_model_file(name) and present[name] not in _ids(files.get(name))]
    if not replaced:
        return []
    commits = json_objects(ask(f"models/{repo_id}/commits/main", {}, token))  # the newest first
    ours = [commit for commit in commits if commit.get("title") == PUSH_TITLE and account in _users(commit)]
    last = str(ours[0].get("id")) if ours else ""
    if last == head:
        return []
    pushed = _read_contents(repo_id, last, token).ids if COMMIT.fullmatch(last) else {}
    return [name for name in replaced if present[name] != pushed.get(name)]


def _ids(content: bytes | None) -> tuple[str, ...]:
    """Return the SHA-256 and the git id of a file; nothing for none."""
    if content is None:
        return ()
    git_id = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    return hashlib.sha256(content).hexdigest(), git_id


def _users(commit: Mapping[str, Any]) -> list[object]:
    return [author.get("user") for author in json_objects(commit.get("authors"))]


def space_hardware(space: str) -> str | None:
    """Return the hardware that a Space runs on or has asked for, empty if it needs none; None if there is no Space.

    Raises HubError if the Hub refuses to say.
    """
    try:
        hardware = json_object(json_object(ask(f"spaces/{space}/runtime", {}, None)).get("hardware"))
    except RepositoryNotFoundError:
        return None
    except CLIENT_ERRORS as error:
        raise explain(error, space, None) from None
    named = [hardware.get(name) for name in ("requested", "current")]
    return next((name for name in named if isinstance(name, str)), "")


def request_space(space: str, hardware: str | None, *, exists: bool) -> None:
    """Create an empty Gradio Space on this hardware, or ask for the hardware if the Space exists.

    hardware: None creates a static Space, which needs none, unless it exists.
    Raises SpaceRefusedError if the Hub wants payment, does not permit it, or has something else of that name; HubError
    if it refuses for another reason.
    """
    api = HfApi()
    try:
        if hardware is None and not exists:
            api.create_repo(space, repo_type="space", space_sdk="static")
        elif hardware is not None and exists:
            api.request_space_hardware(space, hardware)  # type: ignore[arg-type]  # any name that the Hub knows
        elif hardware is not None:
            api.create_repo(space, repo_type="space", space_sdk="gradio", space_hardware=hardware)  # type: ignore[arg-type]
    except CLIENT_ERRORS as error:
        if isinstance(error, HfHubHTTPError) and error.response.status_code in (402, 403, 409):
            said = one_line(error.server_message or "no reason given")
            raise SpaceRefusedError(error.response.status_code, said.rstrip(".")) from None
        raise explain(error, space, None) from None


def push_space(space: str, files: Mapping[str, bytes], variables: Mapping[str, str], ours: Sequence[str]) -> str:
    """Set the variables of a Space and update its files in one commit; return the commit's address.

    variables: what its program finds in the environment. ours: paths of files, and folders with a slash at their end,
    that hold nothing but what is pushed: what the Space has of them beside `files` is deleted, and all else stays.
    Raises HubError if the Hub refuses.
    """
    api = HfApi()
    try:
        for name, value in variables.items():  # before the files, because their commit starts the Space
            api.add_space_variable(space, name, value)
        present = api.list_repo_files(space, repo_type="space")
        folders = tuple(path for path in ours if path.endswith("/"))
        outdated = {name for name in present if name in ours or name.startswith(folders)} - set(files)
        operations = _operations(files, outdated)
        commit = api.create_commit(space, operations, commit_message="Deploy the page", repo_type="space")
    except CLIENT_ERRORS as error:
        raise explain(error, space, None) from None
    return commit.commit_url


def _operations(files: Mapping[str, bytes], outdated: set[str]) -> list[CommitOperationAdd | CommitOperationDelete]:
    added = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()]
    return [*added, *(CommitOperationDelete(path_in_repo=name) for name in sorted(outdated))]
