"""config.json: what a model is, apart from its weights."""

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from reprlib import repr as short_repr  # for values from files: the repr of a long string can be ten times as long
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from charlm.damage import explain_json
from charlm.errors import CharLMError, ModelFileError
from charlm.messages import counted
from charlm.model.cells import CELLS, Cell
from charlm.vocab import Vocab

Weights = dict[str, NDArray[np.float32]]  # with the names and shapes of `ModelConfig.tensor_shapes`
LAYER_TENSORS = "weight_ih", "weight_hh", "bias_ih", "bias_hh"  # of each recurrent layer, as torch.nn names them

CONFIG_FILE = "config.json"
MODEL_TYPE = "charlm"
FORMAT_VERSION = 1

# A file beyond these bounds is damaged or hostile. They are checked before anything of that size is allocated.
LARGEST_SIZE = 16_384
MOST_LAYERS = 64
MOST_PARAMETERS = 1_000_000_000
MOST_SYMBOLS = 200_000  # Unicode has assigned 160,000
DEEPEST_JSON = 100  # nested lists and objects; deeper ones can be parsed, but not written again

# Within these bounds, parsing any JSON text takes at most 40 MB of memory and a tenth of a second. One emoji makes
# Python store the text and each string with four bytes a character; a value of two bytes becomes an object of sixty, a
# key of three one of 250. A training record of 1,000 epochs has 1 MB and 9,000 of the values that are counted here.
LARGEST_JSON = 4 * 1024 * 1024  # bytes
MOST_VALUES = 60_000  # strings, and as many other values: these are counted by the comma or bracket before each

LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # in a Python string a surrogate pair is one character


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
            raise ModelFileError(f"cell is {short_repr(self.cell)}; charlm knows {', '.join(CELLS)}")
        _check_vocab(self.vocab)
        _check_int("embedding_size", self.embedding_size, LARGEST_SIZE)
        _check_int("hidden_size", self.hidden_size, LARGEST_SIZE)
        _check_int("num_layers", self.num_layers, MOST_LAYERS)
        if not is_number(self.dropout) or not 0 <= self.dropout < 1:
            raise ModelFileError(f"dropout is {short_repr(self.dropout)}; it must be a number from 0 to below 1")
        if self.parameters > MOST_PARAMETERS:
            raise ModelFileError(f"this describes {self.parameters:,} parameters; charlm stops at {MOST_PARAMETERS:,}")

    @property
    def kind(self) -> Cell:
        """The entry of CELLS for this model's cell."""
        return CELLS[self.cell]

    @property
    def start(self) -> str:
        """The symbol that an empty prompt stands for: the end of a line, if the model knows lines."""
        return "\n" if "\n" in self.vocab else self.vocab[0]

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

    @property
    def sizes(self) -> str:
        """What a card says of the model: its layers, units, embedding, parameters and symbols."""
        units = "unit" if self.hidden_size == 1 else "units"
        return (
            f"{counted(self.num_layers, 'layer')} of {self.hidden_size} {self.cell.upper()} {units} over an embedding "
            f"of {self.embedding_size}, {self.parameters:,} parameters, {len(self.vocab):,} symbols"
        )

    def to_json(self, weights_sha256: str) -> str:
        """Return the text of config.json for weights with that SHA-256."""
        values = {"model_type": MODEL_TYPE, "format_version": FORMAT_VERSION, **asdict(self)}
        return json.dumps({**values, "weights_sha256": weights_sha256}, ensure_ascii=False, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> tuple["ModelConfig", str]:
        """Read config.json; return the config and the SHA-256 (hex) that the weights must have.

        Raises ModelFileError if a field is missing, of the wrong type or out of bounds, or if a newer
        charlm wrote the file. Unknown fields are ignored.
        """
        values = parse_json_object(text, CONFIG_FILE)
        if values.get("model_type") != MODEL_TYPE:
            model_type = short_repr(values.get("model_type"))
            raise ModelFileError(f"{CONFIG_FILE} says model_type {model_type}: not a charlm model")
        check_format_version(values, CONFIG_FILE)
        fields = cls.__dataclass_fields__
        if missing := [name for name in [*fields, "weights_sha256"] if name not in values]:
            raise ModelFileError(f"{CONFIG_FILE} lacks {', '.join(missing)}")
        sha256 = values["weights_sha256"]
        if not isinstance(sha256, str):
            raise ModelFileError(f"{CONFIG_FILE}: weights_sha256 must be a string of hexadecimal digits")
        try:
            return cls(**{name: values[name] for name in fields}), sha256
        except ModelFileError as error:
            raise ModelFileError(f"{CONFIG_FILE}: {error}") from None


def parse_json_object(text: str, name: str) -> dict[str, Any]:
    """Parse a JSON object. Raises ModelFileError, naming the file, for anything else, and for one too large."""
    _check_amount(text, name)
    try:
        values = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_make_object)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{name} is not valid JSON: {explain_json(text) or error}") from None
    if not isinstance(values, dict):
        raise ModelFileError(f"{name} must hold a JSON object")
    if next(islice(values_by_nesting(values), DEEPEST_JSON + 1, None), None):
        raise ModelFileError(f"{name} nests lists and objects more than {DEEPEST_JSON} deep")
    return values


def _check_amount(text: str, name: str) -> None:
    """Raise ModelFileError if a JSON text holds too many values. They are counted: parsing would take the memory."""
    content = text.encode(errors="surrogatepass")
    if len(content) > LARGEST_JSON:
        raise ModelFileError(f"{name} is larger than the {LARGEST_JSON:,} bytes that it can need")
    # without escapes, each quotation mark begins or ends a string
    bare = content.replace(rb"\\", b"").replace(rb"\"", b"")
    if bare.count(b'"') <= 2 * MOST_VALUES:
        outside = b"".join(bare.split(b'"')[::2])
        if sum(map(outside.count, (b"[", b"{", b","))) <= MOST_VALUES:
            return
    raise ModelFileError(f"{name} holds more than {MOST_VALUES:,} values")


def values_by_nesting(value: object) -> Iterator[list[Any]]:
    """Yield the parts of a JSON value by depth of nesting: the value, its items, their items; keys are among them."""
    parts = [value]
    while parts:
        yield parts
        nested = [part for part in parts if isinstance(part, dict | list)]
        parts = [item for part in nested for item in part]
        parts += [item for part in nested if isinstance(part, dict) for item in part.values()]


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number that JSON knows")


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):  # JSON parsers differ in which of two values they keep
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {short_repr(twice)} stands twice in one object")
    return values


def check_format_version(values: dict[str, Any], name: str) -> None:
    """Raise ModelFileError unless this charlm can read the file's `format_version`."""
    version = values.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ModelFileError(f"{name} says format_version {short_repr(version)}; it must be a whole number from 1")
    if version > FORMAT_VERSION:
        raise ModelFileError(
            f"{name} has format_version {short_repr(version)}, written by a newer charlm; "
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
        raise ModelFileError(f"{name} is {short_repr(value)}; it must be a whole number from 1 to {most:,}")


def is_number(value: object) -> TypeGuard[int | float]:
    """Tell whether a value from JSON is a finite number: Python reads 1e999 as infinity, and its True is an int."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
