"""The answers to *Load a model from the Hub*: search, describe before anything is downloaded, download.

Only public models are loaded: what only the owner of the page may read is not for visitors. All functions raise
RequestError for an argument that is no name, and HubError for what the Hub refuses.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock

from charlm import hub
from charlm.checks import check_text
from charlm.errors import RequestError
from charlm.lm import CharLM
from charlm.messages import show
from charlm.model_name import HubName, parse_hub_name
from charlm.web.answers.learn import record_fault
from charlm.web.answers.write import LONGEST_MODEL_NAME
from charlm.web.models import FROM_HUB, ModelRegistry, prepare_model

MOST_BYTES = 100_000_000  # of a model's files, so that several models fit into a small machine's memory


@dataclass(frozen=True)
class RepositorySummary:
    """What is known of a repository.

    fits: whether it is small enough to be loaded. commit: the one that the lines describe.
    """

    lines: list[str]
    fits: bool
    commit: str


def may_load(environment: Mapping[str, str]) -> bool:
    """Tell whether visitors may load models: at home always, on a Space if its owner allows it."""
    return "SPACE_ID" not in environment or environment.get("CHARLM_ALLOW_LOADING") == "1"


def search(words: object) -> list[str]:
    """Return the repository of that name, or those that the Hub finds for the words."""
    words = check_text("name", words, LONGEST_MODEL_NAME).strip()
    named = parse_hub_name(words)
    return hub.search(words) if named is None else [str(named)]


def describe(name: object) -> RepositorySummary:
    """Ask the Hub for size, figures and licence of a repository."""
    named = _check_name(name)
    found = hub.describe_public(named.repo_id, named.revision)
    size = found.bytes / 1e6
    lines = [f"{found.repo_id}, commit {found.revision[:7]}: {size:,.1f} MB to download."]
    lines += [f"{figure}: {value:.4f}" for figure, value in found.figures.items()]
    if found.license:
        lines.append(f"licence: {found.license}")
    if found.bytes > MOST_BYTES:
        lines.append(f"That is more than the {MOST_BYTES / 1e6:,.0f} MB that this page loads.")
    return RepositorySummary(lines, found.bytes <= MOST_BYTES, found.revision)


class Downloader:
    """Downloads visitors' models from the Hub into a registry, one at a time."""

    def __init__(self, registry: ModelRegistry, device: str) -> None:
        self._registry, self._device = registry, device
        self._lock = Lock()

    def load(self, name: object, commit: object = "") -> str:
        """Load a public model from the Hub so that the views can use it; return the name that the page gives it.

        commit: the one that was described, which is loaded even if there is a newer one by now, or another was loaded
            before; empty for none.
        """
        named = _check_name(name)
        if not isinstance(commit, str) or not re.fullmatch("([0-9a-f]{40})?", commit):
            raise RequestError(f"{show(commit)} is not a commit of a repository: choose the model again")
        shown = str(named)
        with self._lock:  # a second request for the same model waits, and then finds it in the registry
            if shown in self._registry and self._registry[shown].source not in FROM_HUB:
                shown = f"hf://{named}"  # a folder is served under that name
            if commit and shown in self._registry and self._registry[shown].lm.revision != commit:
                shown = f"{named.repo_id}@{commit[:7]}"  # another commit is served under that name
            if shown not in self._registry:
                found = hub.describe_public(named.repo_id, commit or named.revision)
                if found.bytes > MOST_BYTES:
                    raise RequestError(f"{named} is larger than the {MOST_BYTES / 1e6:,.0f} MB that this page loads")
                lm = CharLM.from_description(found, device=self._device)
                self._registry.add_visitor_model(prepare_model(shown, lm, lm.source))
        return shown

    def report(self, name: str) -> list[str]:
        """Say that a model is loaded, and what is wrong with its training record if something is."""
        fault = record_fault(self._registry[name])
        said = f"{name} is loaded: it is model A of Write, and can be chosen in the other views."
        return [said, *([fault] if fault else [])]


def _check_name(name: object) -> HubName:
    named = parse_hub_name(name) if isinstance(name, str) and len(name) <= LONGEST_MODEL_NAME else None
    if named is None:
        raise RequestError(
            f"{show(name)} is not the name of a repository: choose one that was found, or enter its name, USER/NAME"
        )
    return named
