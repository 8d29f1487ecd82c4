"""The model folder: five files, written so that a failure never leaves half of one, read so that none is trusted."""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from charlm.config import ModelConfig
from charlm.errors import ModelFileError
from charlm.history import HistoryRecord, draw_curves, read_history, write_history

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
HISTORY_FILE = "history.json"
PICTURE_FILE = "loss.png"
CARD_FILE = "README.md"
MODEL_FILES = (CONFIG_FILE, WEIGHTS_FILE, HISTORY_FILE, PICTURE_FILE, CARD_FILE)

LARGEST_JSON = 64 * 1024 * 1024  # bytes; a record of 1,000 epochs with samples takes one
LARGEST_HEADER = 1024 * 1024  # bytes of model.safetensors before its numbers

Weights = dict[str, NDArray[np.float32]]


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
        raise ModelFileError(f"{folder}: {error}") from None
    return Model(config, weights, history)


def write_model(folder: Path, model: Model, card: str) -> None:
    """Write a model folder, `card` as its README.md, replacing those files if they are there.

    Every file is written whole beside its place before the first one is moved there. Weights are
    stored as bfloat16 if that loses nothing, else as float32.
    """
    packed = pack_weights(model.weights)
    files = {WEIGHTS_FILE: packed, CARD_FILE: card.encode()}
    if model.history is not None:
        title = f"{model.config.kind.label} on {model.history['run'].get('text', 'a text')}"
        files[HISTORY_FILE] = write_history(model.history).encode()
        files[PICTURE_FILE] = draw_curves(model.history, title)
    files[CONFIG_FILE] = model.config.to_json(hashlib.sha256(packed).hexdigest()).encode()
    folder.mkdir(parents=True, exist_ok=True)
    replace_files(folder, files)


def replace_files(folder: Path, files: dict[str, bytes]) -> None:
    """Write files into a folder: all of them flushed to disk under other names first, then renamed in order.

    On failure nothing but the temporary files has changed, and those are removed.
    """
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as beside:
        for name, content in files.items():
            with open(Path(beside, name), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for name in files:
            os.replace(Path(beside, name), folder / name)


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
    if int.from_bytes(packed[:8], "little") > LARGEST_HEADER:
        raise ModelFileError(f"{WEIGHTS_FILE} has a header of over {LARGEST_HEADER:,} bytes: not a charlm model")
    try:
        tensors = safetensors.deserialize(packed)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise ModelFileError(f"{WEIGHTS_FILE} cannot be read: {error}") from None
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


def _read_text(path: Path) -> str:
    try:
        return _read_bytes(path, LARGEST_JSON).decode()
    except UnicodeDecodeError:
        raise ModelFileError(f"{path.name} is not UTF-8 text") from None


def _read_bytes(path: Path, most: int) -> bytes:
    """Read a file of at most that many bytes, whole and away from the disk, so that no later change to it shows."""
    try:
        with open(path, "rb") as file:
            content = file.read(most + 1)
    except FileNotFoundError:
        raise ModelFileError(f"{path.name} is missing: this is not a whole model folder") from None
    except OSError as error:
        raise ModelFileError(f"{path.name} cannot be read: {error.strerror}") from None
    if len(content) > most:
        raise ModelFileError(f"{path.name} is larger than the {most:,} bytes that it can need")
    return content
