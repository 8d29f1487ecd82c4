"""The models that the demo serves: the registry of them, and how it is filled from folders and the Hub."""

import time
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from threading import Lock, Thread

from charlm.errors import CharLMError, HubUnavailableError, ModelFileError, RequestError
from charlm.installation import program
from charlm.lm import CharLM
from charlm.messages import printable, show
from charlm.model.kept import kept_epochs
from charlm.model_name import choose_names, parse_hub_name
from charlm.web.load_once import LoadOnce

# What the page says about where weights came from.
SOURCES = {
    "hub": "from the Hub",
    "cache": "from the Hub's cache on this machine",
    "bundled": "bundled with the app",
    "folder": "from a folder",
    "trained": "trained on this page",
}

SHORT_SOURCES = {**SOURCES, "cache": "from the Hub's cache", "bundled": "bundled"}

FROM_HUB = ("hub", "cache")
MOST_VISITOR_MODELS = 8
MOST_LOADED_EPOCHS = 6  # models as they were after an epoch that stay in memory
FIRST_WAITS, LATER_WAIT = (30.0, 60.0, 120.0, 300.0), 600.0  # seconds between the retries of `retry_hub`


_loaded_epochs: LoadOnce[Hashable, CharLM] = LoadOnce(MOST_LOADED_EPOCHS)


@dataclass(frozen=True)
class ServedModel:
    """A model under the name that visitors choose it by. source: a key of SOURCES.

    place: where it was loaded from, a folder or a name on the Hub; None for a visitor's model.
    """

    name: str
    lm: CharLM
    source: str
    place: Path | str | None = None

    @property
    def epochs(self) -> list[int]:
        """The epochs of its training after which it can write, since their weights were kept."""
        return list(kept_epochs(self.lm.history)) if self.place is not None else []

    def at_epoch(self, epoch: int) -> CharLM:
        """Return the model as it was after one of its `epochs`. Raises what `CharLM.from_pretrained` does."""
        assert self.place is not None
        found = parse_hub_name(self.place) if isinstance(self.place, str) else None
        place = self.place if found is None else f"hf://{found.repo_id}"
        revision, device = self.lm.revision, self.lm.device
        load = partial(CharLM.from_pretrained, place, revision=revision, epoch=epoch, device=device)
        return _loaded_epochs.get((place, revision, epoch, device), load)

    def __str__(self) -> str:
        """Return the line about the model: cell, size, validation loss, where its weights came from, device."""
        history = self.lm.history
        losses = [f"validation loss {history['best']['val_loss']:.3f}"] if history else []
        commit = f", commit {self.lm.revision[:7]}" if self.lm.revision else ""
        symbols, device = f"{len(self.lm.vocab)} symbols", f"runs on {self.lm.device.upper()}"
        return " · ".join([self._size, *losses, symbols, SOURCES[self.source] + commit, device])

    @property
    def about(self) -> str:
        """What half of *Write* has room for of that line."""
        history = self.lm.history
        losses = [f"loss {history['best']['val_loss']:.2f}"] if history else []
        return " · ".join([self._size, *losses, SHORT_SOURCES[self.source]])

    @property
    def _size(self) -> str:
        config = self.lm.config
        return f"{config.kind.label} {config.num_layers}×{config.hidden_size} · {config.parameters:,} parameters"


class ModelRegistry:
    """The served models by name, at least one, and the errors of those that could not be loaded.

    Besides them there are visitors' models, loaded or trained on the page: they are found by name but not listed, and
    the least recently used one is evicted when there are more than MOST_VISITOR_MODELS.
    """

    def __init__(self, models: Iterable[ServedModel], problems: Mapping[str, CharLMError] | None = None) -> None:
        """problems: the errors by the name of the model that could not be loaded."""
        self._models = {model.name: model for model in models}
        self._problems = dict(problems or {})
        assert self._models, "a registry needs a model"
        self._visitor_models: OrderedDict[str, ServedModel] = OrderedDict()
        self._lock = Lock()

    @property
    def names(self) -> list[str]:
        """The names of the listed models, in the order they were asked for."""
        return list(self._models)

    @property
    def problems(self) -> tuple[str, ...]:
        """The messages about the models that could not be loaded."""
        return tuple(map(str, self._problems.values()))

    @property
    def to_retry(self) -> list[str]:
        """The repositories for which the Hub gave no answer, including those loaded from the cache instead."""
        unanswered = [name for name, error in self._problems.items() if isinstance(error, HubUnavailableError)]
        return unanswered + [model.name for model in self if model.source == "cache"]

    def put(self, model: ServedModel) -> None:
        """List a model, or replace the one of that name. Requests that hold the replaced one keep it until they end."""
        # replaced as a whole, never changed, so that other threads can read the tables without a lock
        self._models = self._models | {model.name: model}
        self._problems = {name: error for name, error in self._problems.items() if name != model.name}

    def add_visitor_model(self, model: ServedModel) -> None:
        """Add a visitor's model and evict the least recently used one if there are too many.

        Requests that hold the evicted model keep it alive until they end.
        """
        with self._lock:
            self._visitor_models[model.name] = model
            self._visitor_models.move_to_end(model.name)
            while len(self._visitor_models) > MOST_VISITOR_MODELS:
                self._visitor_models.popitem(last=False)

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def choose(self, names: object, most: int) -> list[ServedModel]:
        """Return the models of some names, each once. Raises RequestError for over `most` names or an unknown one."""
        if not isinstance(names, list) or len(names) > most:
            raise RequestError(f"choose up to {most} models")
        return [self[name] for name in dict.fromkeys(map(str, names))]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._models or name in self._visitor_models)

    def __getitem__(self, name: object) -> ServedModel:
        """Return the model of that name. Raises RequestError if there is none."""
        if isinstance(name, str) and name in self._models:
            return self._models[name]
        with self._lock:
            if isinstance(name, str) and name in self._visitor_models:
                self._visitor_models.move_to_end(name)
                return self._visitor_models[name]
        raise RequestError(f"there is no model {show(name)} here; choose one of {', '.join(self._models)}")


def retry_hub(registry: ModelRegistry, device: str, waits: Iterable[float] | None = None) -> Thread:
    """Try again, in a background thread, to load what the Hub did not answer for, until nothing is left.

    waits: seconds before each try; by default FIRST_WAITS, then LATER_WAIT again and again.
    """

    def retry() -> None:
        for seconds in waits or chain(FIRST_WAITS, repeat(LATER_WAIT)):
            if not registry.to_retry:
                return
            time.sleep(seconds)
            for name in registry.to_retry:
                outcome = _load(name, f"hf://{name}", Path(), device)
                if isinstance(outcome, ServedModel) and outcome.source == "hub":
                    registry.put(outcome)

    thread = Thread(target=retry, daemon=True)
    thread.start()
    return thread


def load_registry(wanted: Sequence[str], bundled: Path, device: str, *, required: bool = False) -> ModelRegistry:
    """Load the wanted models, which are named as in `charlm.model_name`; all folders of `bundled` if none are named.

    A model that cannot be loaded is left out and its error kept, whatever is wrong with it. If no model is left, the
    bundled ones are served. Raises ModelFileError for a name that means nothing, and for a folder that is not a sound
    model if no other is left; RequestError if there is nothing to serve.

    required: raise the error of the wanted model, or all errors in one, rather than serve the bundled ones.
    """
    named = choose_names(wanted)
    models, problems = _load_all(named, bundled, device)
    if required and named and not models:
        raise _combine_errors(list(problems.values()))
    if not models:
        for name, problem in problems.items():
            if isinstance(named[name], Path):
                raise problem
        folders = {path.parent.name: path.parent for path in sorted(bundled.glob("*/config.json"))}
        models, damaged = _load_all(folders, bundled, device)
        models.sort(key=_rank)
        problems |= damaged
    if not models:
        reasons = "".join(f"{problem}; " for problem in problems.values())
        raise RequestError(
            f"{reasons}there is no model to serve: name one with --model FOLDER_OR_REPO, "
            f"or train one with `{program()} fit`"
        )
    return ModelRegistry(models, problems)


def _combine_errors(errors: Sequence[CharLMError]) -> CharLMError:
    """Return one error for several; its exit status says that the request has to change if that of any one does."""
    first = next((error for error in errors if error.exit_status == RequestError.exit_status), errors[0])
    if len(errors) == 1:
        return first
    return type(first)("none of the models can be served: " + "; ".join(map(str, errors)))


def _rank(model: ServedModel) -> tuple[bool, bool, bool]:
    """Sort bundled models: the page opens with the first two, an LSTM and an RNN of plays, validated without a leak."""
    run = model.lm.history["run"] if model.lm.history else {}
    leaks, is_other = run.get("protocol") == "windows", run.get("text") != "tinyshakespeare"
    return leaks, is_other, model.lm.config.cell not in ("lstm", "rnn")


def _load_all(
    places: Mapping[str, Path | str], bundled: Path, device: str
) -> tuple[list[ServedModel], dict[str, CharLMError]]:
    """Load models by name; return them in their order, and the errors by name of those that cannot be loaded."""

    def load(name: str) -> ServedModel | CharLMError:
        return _load(name, places[name], bundled, device)

    with ThreadPoolExecutor(max_workers=8) as threads:  # so that time limits of the Hub do not add up
        outcomes = dict(zip(places, threads.map(load, places), strict=True))
    models = [outcome for outcome in outcomes.values() if isinstance(outcome, ServedModel)]
    return models, {name: error for name, error in outcomes.items() if isinstance(error, CharLMError)}


def _load(name: str, place: Path | str, bundled: Path, device: str) -> ServedModel | CharLMError:
    try:
        lm = CharLM.from_pretrained(place, device=device)
        is_bundled = isinstance(place, Path) and place.resolve().parent == bundled.resolve()
        return prepare_model(name, lm, "bundled" if is_bundled else lm.source, place)
    except CharLMError as error:
        return error
    except MemoryError:
        return ModelFileError(f"{name} needs more memory than is free; close other programs, or serve fewer models")


def prepare_model(name: str, lm: CharLM, source: str, place: Path | str | None = None) -> ServedModel:
    """Build the engine of a model, so that the first visitor does not wait for it. source, place: of ServedModel."""
    if lm.device == "cpu":
        _ = lm.engine
    return ServedModel(printable(name), lm, source, place)
