"""The page's address: which view it opens, and the settings of a shared text."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from charlm.checks import check_whole
from charlm.errors import CharLMError, RequestError
from charlm.messages import show
from charlm.web.answers.learn import LARGEST_WHOLE, MOST_MODELS
from charlm.web.answers.write import FIELDS, SIDES, Forced, WriteSettings, check_forced, check_known
from charlm.web.models import ModelRegistry, ServedModel
from charlm.web.plots import PlotSettings
from charlm.web.training import texts
from charlm.web.training.settings import DEFAULT_MINUTES, SHORTEST_TEXT, TIMED, fit_settings

EMBEDDED = ("write", "learn", "inside")  # views that an address can show without the rest of the page
VIEWS = {"write": "Write", "learn": "Learn", "inside": "Look inside", "train": "Train"}

# The parameters of a share link, in the order of FIELDS, and how their values are read.
PARAMETERS: Mapping[str, Callable[[str], Any]] = {
    "a": str,
    "b": str,
    "prompt": str,
    "length": int,
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "seed": str,
}


# The parameters of the view *Learn*, which are fields of its LearnView; `models` are joined by commas.
LEARN_FIELDS = ("models", "unit", "axis", "scale", "epoch")
# Those of *Look inside*, which are fields of its InsideView. The place is read by the browser alone.
INSIDE_FIELDS = ("a", "b", "colour", "text")
# Those of *Train*, which are fields of its `Fields`. A text that the visitor pasted is too long for an address, so only
# the name of a text to try stands there, as `example`.
TRAIN_FIELDS = ("example", "start", "cell", "size", "minutes")


@dataclass(frozen=True)
class Address:
    """The view to open, the settings of a shared text if there is one, and what is wrong with the link.

    learn, inside, train: values of the fields of these views, by LEARN_FIELDS, INSIDE_FIELDS and TRAIN_FIELDS.
    """

    view: str
    settings: WriteSettings | None = None
    problems: list[str] = field(default_factory=list)
    learn: dict[str, Any] = field(default_factory=dict)
    inside: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)

    @property
    def models(self) -> list[str]:
        """The names of the models that it holds."""
        written = self.settings.models if self.settings else ()
        named = [self.inside.get("a"), self.inside.get("b"), self.train.get("start")]
        return [*written, *self.learn.get("models", []), *filter(None, named)]


def read_address(query: Mapping[str, str], registry: ModelRegistry) -> Address:
    """Read the parameters of an address."""
    view = query["embed"] if query.get("embed") in EMBEDDED else query.get("view", "write")
    if view == "learn":
        return _read_learn(query, registry)
    if view == "inside":
        return _read_inside(query, registry)
    if view == "train":
        return _read_train(query, registry)
    return _read_text(view if view in VIEWS else "write", query, registry)


def _read_text(view: str, query: Mapping[str, str], registry: ModelRegistry) -> Address:
    """Read the settings of a shared text. A link with only some of PARAMETERS shares none."""
    if not all(name in query for name in PARAMETERS):
        return Address(view)
    try:
        values = [read(query[name]) for name, read in PARAMETERS.items()]
        settings = WriteSettings.from_fields(dict(zip(FIELDS, values, strict=True)))
        models = [registry[name] for name in settings.models]
    except (ValueError, OverflowError):
        return Address(view, problems=["The link is damaged: one of its numbers cannot be read."])
    except CharLMError as error:
        return Address(view, problems=[f"The link cannot be opened here: {error}."])
    try:
        written = [query.get(f"f{side}", "") for side in SIDES]
        forced = [_read_forced(text, model, settings.length) for text, model in zip(written, models, strict=True)]
    except (ValueError, OverflowError):
        return Address(view, settings, ["The link's choices are damaged; the texts are shown without them."])
    except CharLMError as error:
        return Address(view, settings, [f"The link's choices cannot be applied: {error}. The texts are without them."])
    return Address(view, replace(settings, forced=tuple(forced)))


def _read_forced(text: str, model: ServedModel, length: int) -> Forced:
    """Return the choices in a model's text of some length, as an address has them.

    text: PLACE.CODEPOINT in hexadecimal for each choice, joined by `-`. Raises ValueError or OverflowError if it cannot
    be read, RequestError for what `check_forced` refuses or a place behind the end, VocabError for an unknown symbol.
    """
    pairs = [part.split(".") for part in text.split("-")] if text else []
    forced = check_forced([[int(place), chr(int(code, 16))] for place, code in pairs])
    check_known(model, forced)
    if forced and forced[-1][0] >= length:
        raise RequestError(f"one is for character {forced[-1][0] + 1}, behind the end of the text")
    return forced


def _read_inside(query: Mapping[str, str], registry: ModelRegistry) -> Address:
    inside = {name: query[name] for name in INSIDE_FIELDS if query.get(name)}
    try:
        for side in SIDES:
            _ = registry[inside.get(side, registry.names[0])]
    except CharLMError as error:
        return Address("inside", problems=[f"The link cannot be opened here: {error}."])
    return Address("inside", inside=inside)  # whoever reads the text checks it, and the colour


def _read_learn(query: Mapping[str, str], registry: ModelRegistry) -> Address:
    learn: dict[str, Any] = {name: query[name] for name in LEARN_FIELDS if query.get(name)}
    try:
        if "models" in learn:
            learn["models"] = [model.name for model in registry.choose(learn["models"].split(","), MOST_MODELS)]
        PlotSettings(**{name: learn[name] for name in ("unit", "axis", "scale") if name in learn})
        if "epoch" in learn:
            learn["epoch"] = check_whole("epoch", int(learn["epoch"]), 1, LARGEST_WHOLE)
    except (ValueError, OverflowError):
        return Address("learn", problems=["The link is damaged: its epoch cannot be read."])
    except CharLMError as error:
        return Address("learn", problems=[f"The link cannot be opened here: {error}."])
    return Address("learn", learn=learn)


def _read_train(query: Mapping[str, str], registry: ModelRegistry) -> Address:
    train: dict[str, Any] = {name: query[name] for name in TRAIN_FIELDS if query.get(name)}
    try:
        if train.get("example", texts.KINDS[0]) not in texts.KINDS:
            raise RequestError(f"there is no text to try {show(train['example'])}; choose {', '.join(texts.KINDS)}")
        if "start" in train and train["start"] not in registry:
            raise RequestError(f"there is no model {show(train['start'])} here to start from")
        if "minutes" in train:
            train["minutes"] = float(train["minutes"])
        cell, size, minutes = train.get("cell", "lstm"), train.get("size", TIMED), train.get("minutes", DEFAULT_MINUTES)
        fit_settings(SHORTEST_TEXT, cell, size, minutes)  # how many are too many is told when the training is asked for
    except ValueError:
        return Address("train", problems=["The link is damaged: its minutes cannot be read."])
    except CharLMError as error:
        return Address("train", problems=[f"The link cannot be opened here: {error}."])
    return Address("train", train=train)
