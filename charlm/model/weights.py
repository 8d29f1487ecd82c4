"""model.safetensors: eight bytes with the length of the header, the header in JSON, then the numbers of each tensor.

It is written with the library safetensors. It is read without it: the library needs the whole file in memory and
copies the numbers, and this file may come from a stranger.
"""

import contextlib
import hashlib
import math
import os
from reprlib import repr as short_repr
from typing import Any, BinaryIO, TypeGuard

import numpy as np
import safetensors
from numpy.typing import NDArray

from charlm.damage import explain_weights
from charlm.errors import ModelFileError
from charlm.model.config import CONFIG_FILE, ModelConfig, Weights, parse_json_object

WEIGHTS_FILE = "model.safetensors"
LARGEST_HEADER = 1024 * 1024  # bytes
NUMPY_TYPES = {"F32": "<f4", "BF16": "<u2"}  # numpy has no bfloat16: its bits are read as whole numbers
CHUNK_NUMBERS = 32 * 1024  # few enough to stay in the processor's cache while they are hashed, widened and checked


def check_tensors(config: ModelConfig, weights: Weights) -> None:
    """Raise ModelFileError unless weights have the names and shapes of the tensors of a configuration."""
    shapes = config.tensor_shapes
    if others := weights.keys() ^ shapes.keys():
        name = min(map(str, others))
        raise ModelFileError(
            f"the weights have no {name}, which the configuration demands"
            if name in shapes
            else f"the weights have {name}, which the configuration does not describe"
        )
    for name, shape in shapes.items():
        if (found := np.shape(weights[name])) != shape:
            raise ModelFileError(f"{name} has shape {list(found)}; the configuration demands {list(shape)}")


def check_numbers(weights: Weights) -> None:
    """Raise ModelFileError if a weight is not a finite number."""
    for name, array in weights.items():
        if not np.isfinite(array).all():
            raise ModelFileError(
                f"{name} holds a NaN or an infinity, as after a training that diverged: such a model cannot be loaded "
                "again, so train with a lower --lr"
            )


def round_to_bfloat16(weights: Weights) -> Weights:
    """Return the weights rounded to the nearest bfloat16 (ties to even), still as float32 arrays."""
    return {name: _from_bfloat16(_to_bfloat16(array), array.shape) for name, array in weights.items()}


def fits_bfloat16(array: NDArray[np.float32]) -> bool:
    """Tell whether every number of an array fits bfloat16 exactly."""
    return not (np.ascontiguousarray(array).view(np.uint32) & 0xFFFF).any()


def pack_weights(weights: Weights) -> bytes:
    """Return the bytes of model.safetensors: bfloat16 if every number fits it exactly, else float32."""
    fits = all(map(fits_bfloat16, weights.values()))
    # a TensorSpec holds a bare pointer, so the arrays must stay alive in this variable until all is packed
    arrays = {
        name: np.ascontiguousarray(_to_bfloat16(array) if fits else array.astype("<f4"))
        for name, array in weights.items()
    }
    specs = {
        name: safetensors.TensorSpec(
            dtype="bfloat16" if fits else "float32",
            shape=array.shape,
            data_ptr=array.ctypes.data,
            data_len=array.nbytes,
        )
        for name, array in arrays.items()
    }
    return bytes(safetensors.serialize(specs, {"format": "pt"}))  # transformers refuses files without this note


def read_weights(
    file: BinaryIO, config: ModelConfig, sha256: str, name: str = WEIGHTS_FILE, described_in: str = CONFIG_FILE
) -> Weights:
    """Read model.safetensors into float32 arrays; besides these it takes some MB of memory.

    name: what errors call the file. described_in: the file that names its SHA-256.

    Raises ModelFileError unless the file has that SHA-256 (hex) and holds the tensors of `config`, all of them finite.
    """
    fault = None
    source = _Source(file, name)
    most = 4 * config.parameters + LARGEST_HEADER
    if source.bytes_left > most:
        raise ModelFileError(f"{name} is larger than the {most:,} bytes that it can need")
    try:
        types = _read_header(source, config)
        shapes = config.tensor_shapes
        weights = {tensor: _read_tensor(source, tensor, dtype, shapes[tensor]) for tensor, dtype in types.items()}
    except ModelFileError as error:
        fault = error
    except MemoryError:
        raise ModelFileError(f"the model takes {4 * config.parameters:,} bytes of memory, more than is free") from None
    if source.finish() != sha256.lower():  # reported before any other fault, because it says what to do
        cause = _explain(file, config) or "one of the two is damaged or from another model; get both again"
        raise ModelFileError(f"{name} is not the file that {described_in} describes (its SHA-256 differs): {cause}")
    if fault is not None:
        raise fault
    return weights


def _explain(file: BinaryIO, config: ModelConfig) -> str | None:
    """Recognise the cause of a wrong SHA-256."""
    file.seek(0)
    start = file.read(LARGEST_HEADER)
    # in bfloat16; an offset may be a number of more digits than Python prints
    least, most = 2 * config.parameters, 4 * config.parameters + LARGEST_HEADER
    length = int.from_bytes(start[:8], "little")
    with contextlib.suppress(UnicodeDecodeError, ModelFileError):  # a header that is damaged, too
        for entry in parse_json_object(start[8 : 8 + length].decode(), "the header").values():
            offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
            if _are_whole(offsets) and len(offsets) == 2:
                least = max(least, min(8 + length + offsets[1], most))
    return explain_weights(start, os.fstat(file.fileno()).st_size, least)


class _Source:
    """A file read once, from its beginning to where it ended when it was opened, and hashed while it is read."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        """name: what errors call the file."""
        self._file = file
        self.name = name
        self.bytes_left = os.fstat(file.fileno()).st_size
        self._sha256 = hashlib.sha256()

    def fill(self, array: NDArray[Any]) -> None:
        """Read as many bytes as an array has into it. Raises ModelFileError if the file ends before."""
        if array.nbytes > self.bytes_left or self._file.readinto(array.data) < array.nbytes:  # type: ignore[attr-defined]
            raise ModelFileError(f"{self.name} cannot be read: it ends too early")
        self.bytes_left -= array.nbytes
        self._sha256.update(array.data)

    def read(self, count: int) -> bytes:
        """Return the next bytes. Raises ModelFileError if the file ends before."""
        content = np.empty(count, np.uint8)
        self.fill(content)
        return content.tobytes()

    def finish(self) -> str:
        """Read what is left; return the SHA-256 of all, in hex."""
        while piece := self._file.read(min(CHUNK_NUMBERS, self.bytes_left)):
            self.bytes_left -= len(piece)
            self._sha256.update(piece)
        return self._sha256.hexdigest()


def _read_header(source: _Source, config: ModelConfig) -> dict[str, str]:
    """Return the type of each tensor, in the order in which their numbers follow.

    Raises ModelFileError unless the header describes the tensors of `config` and their numbers are exactly the rest of
    the file.
    """
    length = int.from_bytes(source.read(8), "little")
    if length > LARGEST_HEADER:
        raise ModelFileError(f"{source.name} has a header of over {LARGEST_HEADER:,} bytes: not a charlm model")
    try:
        header = parse_json_object(source.read(length).decode(), f"the header of {source.name}")
    except UnicodeDecodeError:
        raise ModelFileError(f"{source.name} cannot be read: its header is not UTF-8 text") from None
    header.pop("__metadata__", None)  # notes for other loaders
    shapes, place = config.tensor_shapes, 0
    if header.keys() != shapes.keys():
        raise ModelFileError(f"{source.name} holds other tensors than {CONFIG_FILE} describes")
    for name, shape in shapes.items():
        _check_entry(source.name, name, header[name], shape)
    in_order = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    for name, entry in in_order:
        end = place + math.prod(shapes[name]) * np.dtype(NUMPY_TYPES[entry["dtype"]]).itemsize
        if entry["data_offsets"] != [place, end]:
            raise ModelFileError(f"{source.name} cannot be read: the numbers of {name} do not follow those before")
        place = end
    if place != source.bytes_left:
        raise ModelFileError(
            f"{source.name} cannot be read: it has {source.bytes_left:,} bytes of numbers, not {place:,}"
        )
    return {name: entry["dtype"] for name, entry in in_order}


def _check_entry(file: str, name: str, entry: object, shape: tuple[int, ...]) -> None:
    """Raise ModelFileError unless a header's entry describes a tensor of that shape, of a type that charlm reads."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ModelFileError(f"{file} cannot be read: its header does not describe {name}")
    if not _are_whole(entry["shape"]) or tuple(entry["shape"]) != shape:
        raise ModelFileError(
            f"{file}: {name} has shape {short_repr(entry['shape'])}; {CONFIG_FILE} demands {list(shape)}"
        )
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in NUMPY_TYPES:
        raise ModelFileError(f"{file}: {name} is of type {entry['dtype']}; charlm reads F32 and BF16")
    if not _are_whole(entry["data_offsets"]):
        raise ModelFileError(f"{file} cannot be read: its header does not tell where {name} is")


def _are_whole(numbers: object) -> TypeGuard[list[int]]:
    # by type, because True is an instance of int
    return isinstance(numbers, list) and all(type(number) is int for number in numbers)


def _read_tensor(source: _Source, name: str, dtype: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Read the next tensor. Raises ModelFileError if one of its numbers is not finite."""
    array = np.empty(shape, np.float32)
    numbers = array.reshape(-1)
    buffer = np.empty(min(CHUNK_NUMBERS, len(numbers)), NUMPY_TYPES[dtype])
    for first in range(0, len(numbers), CHUNK_NUMBERS):
        piece = numbers[first : first + CHUNK_NUMBERS]
        stored = buffer[: len(piece)]
        source.fill(stored)
        piece[:] = _from_bfloat16(stored, piece.shape) if dtype == "BF16" else stored
        if not np.isfinite(piece).all():
            raise ModelFileError(f"{source.name}: {name} holds a NaN or an infinity")
    return array


def _to_bfloat16(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    bits = array.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def _from_bfloat16(halves: NDArray[np.uint16], shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.left_shift(halves, 16, dtype=np.uint32).view(np.float32).reshape(shape)
