"""Loading a model from the Hub because a visitor wants it."""

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock

from charlm.errors import RequestError
from charlm.hub import describe_public, is_repo_id, search
from charlm.lm import CharLM
from charlm.web.answers.write import check_text
from charlm.web.models import ModelRegistry, prepare_model

MOST_BYTES = 100 * 1024 * 1024  # of the files of a model, so that some of them fit on a small machine


@dataclass(frozen=True)
class Offer:
    """A repository that may be loaded if it `fits`, and what to say of it."""

    lines: list[str]
    fits: bool


def may_load(environment: Mapping[str, str]) -> bool:
    """Tell whether visitors may load models: at home yes, on a Space if its owner has switched it on."""
    return "SPACE_ID" not in environment or environment.get("CHARLM_ALLOW_LOADING") == "1"


class Loader:
    """What the page answers. Everything here raises RequestError for what is no name, and HubError as the Hub refuses.

    Only what anyone may read is loaded: the token of the page's owner is not for its visitors.
    """

    def __init__(self, registry: ModelRegistry, device: str) -> None:
        self._registry, self._device = registry, device
        self._lock = Lock()

    def search(self, words: object) -> list[str]:
        """Return the repository of that name, or those that the Hub finds for these words."""
        words = check_text("name", words, 200).strip()
        return [words] if "/" in words and is_repo_id(words) else search(words)

    def describe(self, name: object) -> Offer:
        """Return what is known of a repository before anything is downloaded."""
        found = describe_public(self._check(name))
        size = found.bytes / 1e6
        lines = [f"{found.repo_id}, commit {found.revision[:7]}: {size:,.1f} MB to download."]
        lines += [f"{figure}: {value:.4f}" for figure, value in found.figures.items()]
        if found.license:
            lines.append(f"licence: {found.license}")
        if found.bytes > MOST_BYTES:
            lines.append(f"That is more than the {MOST_BYTES / 1e6:,.0f} MB that this page loads.")
        return Offer(lines, found.bytes <= MOST_BYTES)

    def load(self, name: object) -> str:
        """Load a model so that the views can use it; return its name."""
        name = self._check(name)
        with self._lock:  # one download at a time; those who want the same find it there
            if name not in self._registry:
                found = describe_public(name)
                if found.bytes > MOST_BYTES:
                    raise RequestError(f"{name} is larger than the {MOST_BYTES / 1e6:,.0f} MB that this page loads")
                lm = CharLM.from_description(found, device=self._device)
                self._registry.add_visitor_model(prepare_model(name, lm, lm.source))
        return name

    def _check(self, name: object) -> str:
        if not isinstance(name, str) or len(name) > 200 or not is_repo_id(name):
            raise RequestError(
                f"{name!r:.60} is no repository: choose one that was found, or enter its name, USER/NAME"
            )
        return name
