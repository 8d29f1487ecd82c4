"""The model folder: five files, written so that a failure never leaves half of one, read so that none is trusted."""

import hashlib
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any, BinaryIO

import numpy as np
import safetensors
from numpy.typing import NDArray

from charlm.errors import ModelFileError, RequestError
from charlm.model.config import LARGEST_JSON, ModelConfig, Weights, parse_json_object
from charlm.model.history import HistoryRecord, draw_curves, read_history, write_history
from charlm.text import printable

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
HISTORY_FILE = "history.json"
PICTURE_FILE = "loss.png"
CARD_FILE = "README.md"
MODEL_FILES = (CONFIG_FILE, WEIGHTS_FILE, HISTORY_FILE, PICTURE_FILE, CARD_FILE)

LONGEST_MESSAGE = 400  # characters of what is wrong with a folder, for it may quote from the files
LARGEST_HEADER = 1024 * 1024  # bytes of model.safetensors before its numbers
STORED = {"F32": "<f4", "BF16": "<u2"}  # how numpy reads what model.safetensors holds
READ_AT_ONCE = 32 * 1024  # numbers: while they are hashed, widened and checked, they stay in the processor's cache
LEFTOVER_PREFIX = ".writing-"  # of the temporary folder that a killed write leaves behind


@dataclass(frozen=True)
class Model:
    """What a model folder holds: enough to build a network from, and the record of its training if there is one."""

    config: ModelConfig
    weights: Weights
    history: HistoryRecord | None


def read_model(folder: Path, name: str | None = None) -> Model:
    """Read a model folder and check all of it. name: what an error calls it, the folder's path by default.

    Whatever its files hold, memory grows by at most 64 MB beyond the model's size, which is four bytes for
    each parameter that config.json describes, and it takes at most a second, plus one for each GB of that
    size: most of it for the SHA-256. `benchmarks/hostile.py` measures both, with the worst files that we
    know. Symbolic links are followed. Files of other names are not looked at.

    Raises ModelFileError if a needed file is missing, the weights are not those that config.json
    names by their SHA-256, or a tensor has another name, shape or type than the configuration
    demands or holds a NaN or an infinity.
    """
    try:
        config, sha256 = ModelConfig.from_json(_read_text(folder / CONFIG_FILE))
        # before the weights: what is wrong with it shall not cost reading gigabytes
        has_history = os.path.lexists(folder / HISTORY_FILE)
        history = read_history(_read_text(folder / HISTORY_FILE)) if has_history else None
        weights = _read_weights(folder / WEIGHTS_FILE, config, sha256)
    except ModelFileError as error:
        raise ModelFileError(f"{name or folder}: {_in_one_line(str(error))}") from None
    return Model(config, weights, history)


def write_model(folder: Path, model: Model, card: str) -> None:
    """Write a model folder, `card` as its README.md, replacing those files if they are there.

    On failure the folder is as it was; after a kill it is that, or complete, or refused by
    `read_model`. Weights are stored as bfloat16 if that loses nothing, else as
    float32. A record that stood there goes if the model has none. Raises RequestError if there can
    be no such folder.
    """
    packed = pack_weights(model.weights)
    files: dict[str, bytes | None] = {WEIGHTS_FILE: packed, HISTORY_FILE: None, PICTURE_FILE: None}
    if model.history is not None:
        title = f"{model.config.kind.label} on {model.history['run'].get('text', 'a text')}"
        files[HISTORY_FILE] = write_history(model.history).encode()
        files[PICTURE_FILE] = draw_curves(model.history, title)
    files[CARD_FILE] = card.encode()
    # weights first and their SHA-256 last: if a kill leaves new and old files mixed, it names other weights
    files[CONFIG_FILE] = model.config.to_json(hashlib.sha256(packed).hexdigest()).encode()
    replace_files(folder, files)


def replace_files(folder: Path, files: Mapping[str, bytes | None]) -> None:
    """Write files into a folder, made if need be; None stands for a file that shall not be there.

    All of them are flushed to disk under other names before the first is moved to its place, in the
    order of `files`. On failure the folder is as it was; after a kill, the first of the files may be
    the new ones and the rest the old. Raises RequestError if there can be no such folder.
    """
    make_folder(folder)
    with tempfile.TemporaryDirectory(prefix=LEFTOVER_PREFIX, dir=folder) as beside:
        new, old = Path(beside, "new"), Path(beside, "old")
        new.mkdir()
        old.mkdir()
        for name, content in files.items():
            if content is not None:
                _write_flushed(new / name, content)
            if os.path.lexists(folder / name):
                _link(folder / name, old / name)
        try:
            for name in files:
                _move(new / name, folder / name)
        except BaseException:
            for name in files:
                _move(old / name, folder / name)
            raise


def make_folder(folder: Path) -> None:
    """Make a folder unless it is there. Raises RequestError if that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"cannot make the folder {folder} ({error.strerror}); choose another place") from None


def clear_leftovers(folder: Path) -> None:
    """Remove what `replace_files` left behind if it was killed. Nothing else may be writing into the folder."""
    for path in folder.glob(f"{LEFTOVER_PREFIX}*"):
        shutil.rmtree(path, ignore_errors=True)


def _write_flushed(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _link(path: Path, other: Path) -> None:
    try:
        os.link(path, other)
    except OSError:  # not every file system has hard links
        shutil.copyfile(path, other)


def _move(path: Path, place: Path) -> None:
    """Move a file to its place; if there is no such file, there shall be none in that place either."""
    if os.path.lexists(path):
        os.replace(path, place)
    else:
        place.unlink(missing_ok=True)


def round_to_bfloat16(weights: Weights) -> Weights:
    """Return the weights rounded to the nearest bfloat16 (ties to even), still as float32 arrays."""
    return {name: _from_bfloat16(_to_bfloat16(array), array.shape) for name, array in weights.items()}


def pack_weights(weights: Weights) -> bytes:
    """Return the bytes of model.safetensors: bfloat16 if every number fits it exactly, else float32."""
    fits = all(not (array.view(np.uint32) & 0xFFFF).any() for array in weights.values())
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
    return bytes(safetensors.serialize(specs, {"format": "pt"}))  # the format other loaders expect to be told


class _Source:
    """A file that is read once, from its beginning to where it ended when it was opened, and hashed meanwhile."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.bytes_left = os.fstat(file.fileno()).st_size
        self._sha256 = hashlib.sha256()

    def fill(self, array: NDArray[Any]) -> None:
        """Read as many bytes as an array has into it. Raises ModelFileError if the file ends before."""
        if array.nbytes > self.bytes_left or self._file.readinto(array.data) < array.nbytes:  # type: ignore[attr-defined]
            raise ModelFileError(f"{WEIGHTS_FILE} cannot be read: it ends too early")
        self.bytes_left -= array.nbytes
        self._sha256.update(array.data)

    def read(self, count: int) -> bytes:
        """Return the next bytes. Raises ModelFileError if the file ends before."""
        content = np.empty(count, np.uint8)
        self.fill(content)
        return content.tobytes()

    def finish(self) -> str:
        """Read what is left; return the SHA-256 of all, in hex."""
        while piece := self._file.read(min(READ_AT_ONCE, self.bytes_left)):
            self.bytes_left -= len(piece)
            self._sha256.update(piece)
        return self._sha256.hexdigest()


def _read_weights(path: Path, config: ModelConfig, sha256: str) -> Weights:
    """Read model.safetensors, each number straight to its place: besides the arrays, some MB are needed.

    Raises ModelFileError unless it has that SHA-256 and holds the tensors of `config`.
    """
    fault = None
    with _open(path) as file:
        source = _Source(file)
        _check_size(path, source.bytes_left, 4 * config.parameters + LARGEST_HEADER)
        try:
            types = _read_header(source, config)
            shapes = config.tensor_shapes
            weights = {name: _read_tensor(source, name, dtype, shapes[name]) for name, dtype in types.items()}
        except ModelFileError as error:
            fault = error
        except MemoryError:
            raise ModelFileError(
                f"the model takes {4 * config.parameters:,} bytes of memory, more than is free"
            ) from None
        if source.finish() != sha256.lower():  # whatever else is wrong, this tells what to do
            raise ModelFileError(
                f"{WEIGHTS_FILE} is not the file that {CONFIG_FILE} describes (its SHA-256 differs): "
                "one of the two is damaged or from another model; get both again"
            )
    if fault is not None:
        raise fault
    return weights


def _read_header(source: _Source, config: ModelConfig) -> dict[str, str]:
    """Return the type of each tensor, in the order in which their numbers follow.

    The library safetensors reads nothing but whole files from memory, and copies the numbers. Raises
    ModelFileError unless the tensors are those of `config`, and all the rest of the file.
    """
    length = int.from_bytes(source.read(8), "little")
    if length > LARGEST_HEADER:
        raise ModelFileError(f"{WEIGHTS_FILE} has a header of over {LARGEST_HEADER:,} bytes: not a charlm model")
    try:
        header = parse_json_object(source.read(length).decode(), f"the header of {WEIGHTS_FILE}")
    except UnicodeDecodeError:
        raise ModelFileError(f"{WEIGHTS_FILE} cannot be read: its header is not UTF-8 text") from None
    header.pop("__metadata__", None)  # what others want to be told
    shapes, place = config.tensor_shapes, 0
    if header.keys() != shapes.keys():
        raise ModelFileError(f"{WEIGHTS_FILE} holds other tensors than {CONFIG_FILE} describes")
    for name, shape in shapes.items():
        _check_entry(name, header[name], shape)
    in_order = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    for name, entry in in_order:
        end = place + math.prod(shapes[name]) * np.dtype(STORED[entry["dtype"]]).itemsize
        if entry["data_offsets"] != [place, end]:
            raise ModelFileError(f"{WEIGHTS_FILE} cannot be read: the numbers of {name} do not follow those before")
        place = end
    if place != source.bytes_left:
        raise ModelFileError(
            f"{WEIGHTS_FILE} cannot be read: it has {source.bytes_left:,} bytes of numbers, not {place:,}"
        )
    return {name: entry["dtype"] for name, entry in in_order}


def _check_entry(name: str, entry: object, shape: tuple[int, ...]) -> None:
    """Raise ModelFileError unless the header describes a tensor of that shape, of a type that charlm reads."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ModelFileError(f"{WEIGHTS_FILE} cannot be read: its header does not describe {name}")
    if not _are_whole(entry["shape"]) or tuple(entry["shape"]) != shape:
        raise ModelFileError(
            f"{WEIGHTS_FILE}: {name} has shape {short(entry['shape'])}; {CONFIG_FILE} demands {list(shape)}"
        )
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in STORED:
        raise ModelFileError(f"{WEIGHTS_FILE}: {name} is of type {entry['dtype']}; charlm reads F32 and BF16")
    if not _are_whole(entry["data_offsets"]):
        raise ModelFileError(f"{WEIGHTS_FILE} cannot be read: its header does not tell where {name} is")


def _are_whole(numbers: object) -> bool:
    return isinstance(numbers, list) and all(type(number) is int for number in numbers)  # True is an int, too


def _read_tensor(source: _Source, name: str, dtype: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    array = np.empty(shape, np.float32)
    numbers = array.reshape(-1)
    room = np.empty(min(READ_AT_ONCE, len(numbers)), STORED[dtype])
    for first in range(0, len(numbers), READ_AT_ONCE):
        piece = numbers[first : first + READ_AT_ONCE]
        stored = room[: len(piece)]
        source.fill(stored)
        piece[:] = _from_bfloat16(stored, piece.shape) if dtype == "BF16" else stored
        if not np.isfinite(piece).all():
            raise ModelFileError(f"{WEIGHTS_FILE}: {name} holds a NaN or an infinity")
    return array


def _to_bfloat16(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    bits = array.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def _from_bfloat16(halves: NDArray[np.uint16], shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.left_shift(halves, 16, dtype=np.uint32).view(np.float32).reshape(shape)


def _in_one_line(message: str) -> str:
    """Return a message cut to what a line can hold, with escapes for what cannot be printed."""
    shown = printable(message[: LONGEST_MESSAGE + 1])
    return shown if len(shown) <= LONGEST_MESSAGE else shown[: LONGEST_MESSAGE - 1] + "…"


def _read_text(path: Path) -> str:
    with _open(path) as file:
        content = file.read(LARGEST_JSON + 1)
    _check_size(path, len(content), LARGEST_JSON)
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ModelFileError(f"{path.name} is not UTF-8 text") from None


def _check_size(path: Path, size: int, most: int) -> None:
    if size > most:
        raise ModelFileError(f"{path.name} is larger than the {most:,} bytes that it can need")


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading. Raises ModelFileError if it is none, or cannot be read, also inside the block."""
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ModelFileError(f"{path.name} cannot be read: it is a pipe or a device, not a file")
            yield file
    except FileNotFoundError:
        raise ModelFileError(f"{path.name} is missing: this is not a whole model folder") from None
    except OSError as error:
        raise ModelFileError(f"{path.name} cannot be read: {error.strerror}") from None


def _open_without_waiting(path: str, flags: int) -> int:
    # a pipe would wait until somebody writes into it; Windows has no such flags and no such files
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))
