"""The models that the demo serves, and how it finds them."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from charlm.errors import CharLMError, RequestError
from charlm.hub import is_repo_id
from charlm.lm import CharLM

# How the page says where weights came from.
SOURCES = {
    "hub": "from the Hub",
    "cache": "from the Hub's cache on this machine",
    "bundled": "bundled with the app",
    "folder": "from a folder",
}


@dataclass(frozen=True)
class ServedModel:
    """A model under the name that visitors choose it by. source: a key of SOURCES."""

    name: str
    lm: CharLM
    source: str

    def __str__(self) -> str:
        """Return the line about the model: cell, size, where its weights came from, device."""
        config = self.lm.config
        commit = f", commit {self.lm.revision[:7]}" if self.lm.revision else ""
        return " · ".join(
            [
                f"{config.kind.label} {config.num_layers}×{config.hidden_size}",
                f"{config.parameters:,} parameters",
                f"{len(self.lm.vocab)} symbols",
                SOURCES[self.source] + commit,
                f"runs on {self.lm.device.upper()}",
            ]
        )


class Collection:
    """The served models by name, at least one of them, and what went wrong with those that could not be had."""

    def __init__(self, models: Iterable[ServedModel], problems: Sequence[str] = ()) -> None:
        self._models = {model.name: model for model in models}
        self.problems = tuple(problems)
        assert self._models, "a collection needs a model"

    @property
    def names(self) -> list[str]:
        """The names to choose from, in the order they were asked for."""
        return list(self._models)

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def __getitem__(self, name: object) -> ServedModel:
        """Return the model of that name. Raises RequestError if there is none."""
        if isinstance(name, str) and name in self._models:
            return self._models[name]
        raise RequestError(f"there is no model {name!r:.100} here; choose one of {', '.join(self._models)}")


def load_collection(wanted: Sequence[str], bundled: Path, device: str) -> Collection:
    """Load the wanted model folders and Hub repositories; all folders of `bundled` if none are named.

    A repository that cannot be had is left out and its problem kept; if nothing else is left, the
    bundled models stand in. Raises ModelFileError for a folder that is not a sound model,
    RequestError if there is nothing to serve.
    """
    loaded: list[ServedModel] = []
    problems: list[str] = []
    names = _short_names(wanted)
    with ThreadPoolExecutor(max_workers=8) as threads:  # several silent repositories are waited for together
        for outcome in threads.map(lambda each: _load(each, names[each], bundled, device), names):
            loaded.append(outcome) if isinstance(outcome, ServedModel) else problems.append(str(outcome))
    if not loaded:
        folders = sorted(path.parent for path in bundled.glob("*/config.json"))
        loaded = sorted((_load_folder(folder, folder.name, bundled, device) for folder in folders), key=_place)
    if not loaded:
        reasons = "".join(f"{problem}; " for problem in problems)
        raise RequestError(
            f"{reasons}there is no model to serve: name one with --model FOLDER_OR_REPO, "
            "or train one with `python -m train fit`"
        )
    return Collection(loaded, problems)


def _place(model: ServedModel) -> tuple[bool, bool]:
    """Order bundled models: the page opens with the first two, an LSTM and an RNN that were measured on unseen text."""
    run = model.lm.history["run"] if model.lm.history else {}
    return run.get("protocol") == "windows", model.lm.config.cell not in ("lstm", "rnn")


def _short_names(wanted: Sequence[str]) -> dict[str, str]:
    """Name each folder by its last part, unless two would share it, and each repository in full."""
    unique = list(dict.fromkeys(wanted))
    short = [Path(each).resolve().name if Path(each).is_dir() else each for each in unique]
    return {each: name if short.count(name) == 1 else each for each, name in zip(unique, short, strict=True)}


def _load(wanted: str, name: str, bundled: Path, device: str) -> ServedModel | CharLMError:
    if Path(wanted).is_dir():
        return _load_folder(Path(wanted), name, bundled, device)
    try:
        lm = CharLM.from_pretrained(wanted, device=device)
    except CharLMError as error:
        if is_repo_id(wanted):
            return error
        raise
    return ServedModel(name, lm, lm.source)


def _load_folder(folder: Path, name: str, bundled: Path, device: str) -> ServedModel:
    source = "bundled" if folder.resolve().parent == bundled.resolve() else "folder"
    return ServedModel(name, CharLM.from_pretrained(folder, device=device), source)
