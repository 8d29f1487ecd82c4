"""The model folder: five files, written so that a failure never leaves half of one, read so that none is trusted."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from charlm.config import ModelConfig, Weights, parse_json_object
from charlm.errors import ModelFileError, RequestError
from charlm.history import HistoryRecord, draw_curves, read_history, write_history

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
HISTORY_FILE = "history.json"
PICTURE_FILE = "loss.png"
CARD_FILE = "README.md"
MODEL_FILES = (CONFIG_FILE, WEIGHTS_FILE, HISTORY_FILE, PICTURE_FILE, CARD_FILE)

LARGEST_JSON = 64 * 1024 * 1024  # bytes; a record of 1,000 epochs with samples takes one
LONGEST_MESSAGE = 400  # characters of what is wrong with a folder, for it may quote from the files
LARGEST_HEADER = 1024 * 1024  # bytes of model.safetensors before its numbers
LEFTOVER_PREFIX = ".writing-"  # of the temporary folder that a killed write leaves behind


@dataclass(frozen=True)
class Model:
    """What a model folder holds: enough to build a network from, and the record of its training if there is one."""

    config: ModelConfig
    weights: Weights
    history: HistoryRecord | None


def read_model(folder: Path) -> Model:
    """Read a model folder and check all of it.

    Raises ModelFileError if a needed file is missing, the weights are not those that config.json
    names by their SHA-256, or a tensor has another name, shape or type than the configuration
    demands or holds a NaN or an infinity. Files of other names are not looked at.
    """
    try:
        config, sha256 = ModelConfig.from_json(_read_text(folder / CONFIG_FILE))
        packed = _read_bytes(folder / WEIGHTS_FILE, most=4 * config.parameters + LARGEST_HEADER)
        if hashlib.sha256(packed).hexdigest() != sha256.lower():
            raise ModelFileError(
                f"{WEIGHTS_FILE} is not the file that {CONFIG_FILE} describes (its SHA-256 differs): "
                "one of the two is damaged or from another model; get both again"
            )
        weights = unpack_weights(packed, config)
        has_history = (folder / HISTORY_FILE).exists()
        history = read_history(_read_text(folder / HISTORY_FILE)) if has_history else None
    except ModelFileError as error:
        raise ModelFileError(f"{folder}: {_in_one_line(str(error))}") from None
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


def unpack_weights(packed: bytes, config: ModelConfig) -> Weights:
    """Read the bytes of model.safetensors. Raises ModelFileError unless they hold the tensors of `config`."""
    header_bytes = int.from_bytes(packed[:8], "little")
    if header_bytes > LARGEST_HEADER:
        raise ModelFileError(f"{WEIGHTS_FILE} has a header of over {LARGEST_HEADER:,} bytes: not a charlm model")
    try:
        tensors = safetensors.deserialize(packed)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise ModelFileError(f"{WEIGHTS_FILE} cannot be read: {error}") from None
    # safetensors lets a name stand twice
    parse_json_object(packed[8 : 8 + header_bytes].decode(), f"the header of {WEIGHTS_FILE}")
    expected = config.tensor_shapes
    if sorted(name for name, _ in tensors) != sorted(expected):
        raise ModelFileError(f"{WEIGHTS_FILE} holds other tensors than {CONFIG_FILE} describes")
    return {name: _unpack_tensor(name, tensor, expected[name]) for name, tensor in tensors}


def _unpack_tensor(name: str, tensor: dict[str, Any], shape: tuple[int, ...]) -> NDArray[np.float32]:
    if tuple(tensor["shape"]) != shape:
        raise ModelFileError(f"{WEIGHTS_FILE}: {name} has shape {tensor['shape']}; {CONFIG_FILE} demands {list(shape)}")
    if tensor["dtype"] == "BF16":
        array = _from_bfloat16(np.frombuffer(tensor["data"], "<u2"), shape)
    elif tensor["dtype"] == "F32":
        array = np.frombuffer(tensor["data"], "<f4").astype(np.float32).reshape(shape)
    else:
        raise ModelFileError(f"{WEIGHTS_FILE}: {name} is of type {tensor['dtype']}; charlm reads F32 and BF16")
    if not np.isfinite(array).all():
        raise ModelFileError(f"{WEIGHTS_FILE}: {name} holds a NaN or an infinity")
    return array


def _to_bfloat16(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    bits = array.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def _from_bfloat16(halves: NDArray[np.uint16], shape: tuple[int, ...]) -> NDArray[np.float32]:
    return (halves.astype(np.uint32) << 16).view(np.float32).reshape(shape)


def _in_one_line(message: str) -> str:
    """Return a message cut to what a line can hold, with escapes for what cannot be printed."""
    begin = message[: LONGEST_MESSAGE + 1]
    shown = "".join(symbol if symbol.isprintable() else ascii(symbol)[1:-1] for symbol in begin)
    return shown if len(shown) <= LONGEST_MESSAGE else shown[: LONGEST_MESSAGE - 1] + "…"


def _read_text(path: Path) -> str:
    try:
        return _read_bytes(path, LARGEST_JSON).decode()
    except UnicodeDecodeError:
        raise ModelFileError(f"{path.name} is not UTF-8 text") from None


def _read_bytes(path: Path, most: int) -> bytes:
    """Read a file of at most that many bytes, whole and away from the disk, so that no later change to it shows."""
    try:
        with open(path, "rb") as file:
            # not most + 1 right away: Python sets aside what it is told to read, for a large model gigabytes
            content = file.read(min(most, os.fstat(file.fileno()).st_size) + 1)
    except FileNotFoundError:
        raise ModelFileError(f"{path.name} is missing: this is not a whole model folder") from None
    except OSError as error:
        raise ModelFileError(f"{path.name} cannot be read: {error.strerror}") from None
    if len(content) > most:
        raise ModelFileError(f"{path.name} is larger than the {most:,} bytes that it can need")
    return content
