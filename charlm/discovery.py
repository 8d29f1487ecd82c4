"""Which models the Hub has, and what one is like, before it is downloaded. Nothing that the Hub says is trusted."""

from dataclasses import dataclass
from typing import Any

from huggingface_hub import ModelInfo, constants, get_session
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]  # loaded lazily

from charlm.errors import HubError
from charlm.hub import CLIENT_ERRORS, QUESTION_SECONDS, ask, explain, is_repo_id, sizes_of
from charlm.model.config import is_number
from charlm.model.folder import CONFIG_FILE, HISTORY_FILE, WEIGHTS_FILE

LIBRARY = "charlm"  # the tag that the card of every model carries
MOST_FOUND = 20
MOST_FIGURES, LONGEST_NAME = 8, 60


@dataclass(frozen=True)
class Description:
    """What is known of a repository without downloading it.

    revision: the commit. bytes: of the files that loading takes. figures: of its card, by name, such as a loss.
    license: as the card says, or empty.
    """

    repo_id: str
    revision: str
    bytes: int
    figures: dict[str, float]
    license: str


def search(words: str, most: int = MOST_FOUND) -> list[str]:
    """Return the names of public models of charlm on the Hub that have these words in them, the most downloaded first.

    Raises HubError, HubUnavailableError if the Hub refuses or gives no answer; that takes it some seconds at most.
    """
    # not HfApi.list_models, which has no time limit and asks a Hub that is down again and again
    parameters = {"filter": LIBRARY, "search": words, "sort": "downloads", "limit": str(most)}
    try:
        answer = get_session().get(
            f"{constants.ENDPOINT}/api/models",
            params=parameters,
            headers=build_hf_headers(token=False),
            timeout=QUESTION_SECONDS,
        )
        hf_raise_for_status(answer)
        found = answer.json()
    except CLIENT_ERRORS as error:
        raise explain(error, f"models with {words!r:.60}", None) from None
    entries = found if isinstance(found, list) else []
    names = [entry.get("id") for entry in entries if isinstance(entry, dict)]
    return [name for name in names if isinstance(name, str) and is_repo_id(name)][:most]


def describe(repo_id: str) -> Description:
    """Ask the Hub about a public repository. Raises HubError if it is none of charlm, or the Hub refuses."""
    try:
        info, _ = ask(repo_id, None, False)
    except CLIENT_ERRORS as error:
        raise explain(error, repo_id, None) from None
    sizes = sizes_of(repo_id, info)
    if LIBRARY not in (info.library_name, *(info.tags or [])):
        raise HubError(f"{repo_id} does not carry the tag {LIBRARY!r}: it is not a model of charlm")
    needed = [sizes.get(name) or 0 for name in (CONFIG_FILE, HISTORY_FILE, WEIGHTS_FILE)]
    license = getattr(info.card_data, "license", None)
    return Description(
        repo_id,
        str(info.sha),
        sum(needed),
        _figures(info),
        license[:LONGEST_NAME] if isinstance(license, str) else "",
    )


def _figures(info: ModelInfo) -> dict[str, float]:
    """Return the figures of a card's model-index."""
    results: Any = getattr(info.card_data, "eval_results", None) or []
    figures = {}
    for result in results[:MOST_FIGURES]:
        name, value = result.metric_name or result.metric_type, result.metric_value
        if isinstance(name, str) and is_number(value):
            figures[name[:LONGEST_NAME]] = float(value)
    return figures
