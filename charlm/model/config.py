"""config.json: what a model is, apart from its weights."""

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from reprlib import repr as short  # of a value from a file: that of a long string could be ten times as long
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from charlm.errors import CharLMError, ModelFileError
from charlm.model.cells import CELLS, Cell
from charlm.vocab import Vocab

Weights = dict[str, NDArray[np.float32]]  # with the names and shapes of `ModelConfig.tensor_shapes`

MODEL_TYPE = "charlm"
FORMAT_VERSION = 1

# Beyond these a file is damaged or hostile: they are checked before anything of that size is allocated.
LARGEST_SIZE = 16_384
MOST_LAYERS = 64
MOST_PARAMETERS = 1_000_000_000
MOST_SYMBOLS = 200_000  # Unicode has assigned 160,000
DEEPEST_JSON = 100  # lists and objects in one another: what is deeper may be read, but not shown or written again

# Within these, parsing a JSON text takes 40 MB of memory, whatever it holds, and a tenth of a second. One emoji makes
# Python take four bytes for each character, of the text and then of its strings; a value of two bytes becomes one of
# sixty, a name of three one of 250. A training record of 1,000 epochs has 1 MB, and 9,000 of what is counted here.
LARGEST_JSON = 4 * 1024 * 1024  # bytes
MOST_VALUES = 60_000  # strings; and apart from those, commas and opening brackets: each value follows one

LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # Python makes one character of a pair


@dataclass(frozen=True)
class ModelConfig:
    """The architecture of a model and its vocabulary (`vocab`: every symbol once, in id order).

    Raises ModelFileError when built with values that no model can have.
    """

    cell: str
    vocab: str
    embedding_size: int
    hidden_size: int
    num_layers: int
    dropout: float

    def __post_init__(self) -> None:
        if not isinstance(self.cell, str) or self.cell not in CELLS:
            raise ModelFileError(f"cell is {short(self.cell)}; charlm knows {', '.join(CELLS)}")
        _check_vocab(self.vocab)
        _check_int("embedding_size", self.embedding_size, LARGEST_SIZE)
        _check_int("hidden_size", self.hidden_size, LARGEST_SIZE)
        _check_int("num_layers", self.num_layers, MOST_LAYERS)
        if not is_number(self.dropout) or not 0 <= self.dropout < 1:
            raise ModelFileError(f"dropout is {short(self.dropout)}; it must be a number from 0 to below 1")
        if self.parameters > MOST_PARAMETERS:
            raise ModelFileError(f"this describes {self.parameters:,} parameters; charlm stops at {MOST_PARAMETERS:,}")

    @property
    def kind(self) -> Cell:
        """The entry of CELLS that this model is made of."""
        return CELLS[self.cell]

    @property
    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """The name and shape of every tensor of model.safetensors, as torch.nn lays them out."""
        rows = self.kind.gates * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (len(self.vocab), self.embedding_size)}
        for layer in range(self.num_layers):
            inputs = self.hidden_size if layer else self.embedding_size
            shapes[f"recurrent.weight_ih_l{layer}"] = (rows, inputs)
            shapes[f"recurrent.weight_hh_l{layer}"] = (rows, self.hidden_size)
            shapes[f"recurrent.bias_ih_l{layer}"] = (rows,)
            shapes[f"recurrent.bias_hh_l{layer}"] = (rows,)
        shapes["head.weight"] = (len(self.vocab), self.hidden_size)
        shapes["head.bias"] = (len(self.vocab),)
        return shapes

    @property
    def parameters(self) -> int:
        """How many numbers the weights hold."""
        return sum(math.prod(shape) for shape in self.tensor_shapes.values())

    def to_json(self, weights_sha256: str) -> str:
        """Return the text of config.json for weights with that SHA-256."""
        values = {"model_type": MODEL_TYPE, "format_version": FORMAT_VERSION, **asdict(self)}
        return json.dumps({**values, "weights_sha256": weights_sha256}, ensure_ascii=False, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> tuple["ModelConfig", str]:
        """Read config.json; return the config and the SHA-256 (hex) that the weights must have.

        Raises ModelFileError if a field is missing, of the wrong type or out of bounds, or if a newer
        charlm wrote the file. Fields that it does not know are ignored.
        """
        values = parse_json_object(text, "config.json")
        if values.get("model_type") != MODEL_TYPE:
            raise ModelFileError(f"config.json says model_type {short(values.get('model_type'))}: not a charlm model")
        check_format_version(values, "config.json")
        fields = cls.__dataclass_fields__
        if missing := [name for name in [*fields, "weights_sha256"] if name not in values]:
            raise ModelFileError(f"config.json lacks {', '.join(missing)}")
        sha256 = values["weights_sha256"]
        if not isinstance(sha256, str):
            raise ModelFileError("config.json: weights_sha256 must be a string of hexadecimal digits")
        try:
            return cls(**{name: values[name] for name in fields}), sha256
        except ModelFileError as error:
            raise ModelFileError(f"config.json: {error}") from None


def parse_json_object(text: str, name: str) -> dict[str, Any]:
    """Parse a JSON object. Raises ModelFileError, naming the file, for anything else, and for one too large."""
    _check_amount(text, name)
    try:
        values = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_make_object)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{name} is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise ModelFileError(f"{name} must hold a JSON object")
    if next(islice(levels(values), DEEPEST_JSON + 1, None), None):
        raise ModelFileError(f"{name} nests lists and objects more than {DEEPEST_JSON} deep")
    return values


def _check_amount(text: str, name: str) -> None:
    """Raise ModelFileError if a JSON text holds too much. It is counted, not parsed: that is what takes the memory."""
    content = text.encode(errors="surrogatepass")
    if len(content) > LARGEST_JSON:
        raise ModelFileError(f"{name} is larger than the {LARGEST_JSON:,} bytes that it can need")
    bare = content.replace(rb"\\", b"").replace(rb"\"", b"")  # each quotation mark that is left begins or ends a string
    if bare.count(b'"') <= 2 * MOST_VALUES:
        outside = b"".join(bare.split(b'"')[::2])
        if sum(map(outside.count, (b"[", b"{", b","))) <= MOST_VALUES:
            return
    raise ModelFileError(f"{name} holds more than {MOST_VALUES:,} values")


def levels(value: object) -> Iterator[list[Any]]:
    """Yield what a JSON value is made of, level by level: itself, what it holds, what that holds; keys included."""
    level = [value]
    while level:
        yield level
        nested = [item for item in level if isinstance(item, dict | list)]
        level = [inner for item in nested for inner in item]
        level += [inner for item in nested if isinstance(item, dict) for inner in item.values()]


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number that JSON knows")


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):  # which of the two is meant, readers would answer differently
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {short(twice)} stands twice in one object")
    return values


def check_format_version(values: dict[str, Any], name: str) -> None:
    """Raise ModelFileError unless this charlm can read the file's `format_version`."""
    version = values.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ModelFileError(f"{name} says format_version {short(version)}; it must be a whole number from 1")
    if version > FORMAT_VERSION:
        raise ModelFileError(
            f"{name} has format_version {short(version)}, written by a newer charlm; "
            f"this one reads up to {FORMAT_VERSION}: update charlm"
        )


def _check_vocab(vocab: object) -> None:
    if not isinstance(vocab, str):
        raise ModelFileError("vocab must be one string that holds every symbol once")
    if len(vocab) > MOST_SYMBOLS:
        raise ModelFileError(f"vocab has {len(vocab):,} symbols; charlm stops at {MOST_SYMBOLS:,}")
    if LONE_SURROGATE.search(vocab):
        raise ModelFileError("vocab holds a lone surrogate, which is not a character")
    try:
        Vocab(vocab)
    except CharLMError as error:
        raise ModelFileError(f"vocab: {error}") from None


def _check_int(name: str, value: object, most: int) -> None:
    if not is_number(value) or not isinstance(value, int) or not 1 <= value <= most:
        raise ModelFileError(f"{name} is {short(value)}; it must be a whole number from 1 to {most:,}")


def is_number(value: object) -> TypeGuard[int | float]:
    """Tell whether a value read from JSON is a finite number; in Python True would pass for one, and 1e999 is read."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
