"""The model folder: five files, written all or none, and read as files that anyone may have made."""

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from charlm.damage import explain_missing_file, explain_text
from charlm.errors import ModelFileError, RequestError
from charlm.messages import printable, show
from charlm.model.config import CONFIG_FILE, LARGEST_JSON, ModelConfig, Weights
from charlm.model.history import HISTORY_FILE, HistoryRecord, read_history, write_history
from charlm.model.kept import KEPT_FILE, history_until, kept_epochs, kept_file, kept_sha256
from charlm.model.weights import WEIGHTS_FILE, pack_weights, read_weights

PICTURE_FILE = "loss.png"
CARD_FILE = "README.md"
MODEL_FILES = (CONFIG_FILE, WEIGHTS_FILE, HISTORY_FILE, PICTURE_FILE, CARD_FILE)

LONGEST_MESSAGE = 400  # characters of an error: it may quote from the files
LEFTOVER_PREFIX = ".writing-"  # of the folder with the new files, which a killed write leaves behind


@dataclass(frozen=True)
class Model:
    """A model as its folder holds it.

    history: None if there is no record of its training, or if that is damaged.
    record_problem: what is wrong with the record; empty if nothing is.
    weights_sha256: of the file that the weights were read from, in hex; empty if they were not read from one.
    """

    config: ModelConfig
    weights: Weights
    history: HistoryRecord | None
    record_problem: str = ""
    weights_sha256: str = ""


def read_model(folder: Path, name: str | None = None) -> Model:
    """Read a model folder and check all of it. name: what an error calls it, the folder's path by default.

    Whatever its files hold, memory grows by at most 64 MB beyond the model's size (four bytes for each parameter that
    config.json describes), and reading takes at most a second plus one for each GB of that size, most of it for the
    SHA-256: `benchmarks/hostile.py` measures both with the worst files that we know. Symbolic links are followed.
    Files of other names are not read.

    Raises ModelFileError if a needed file is missing, config.json names another SHA-256 than that of the weights, or a
    tensor has another name, shape or type than the configuration demands or holds a NaN or an infinity, or the record
    is damaged.
    """
    return _read_model(folder, name, needs_record=True)


def read_usable_model(folder: Path, name: str | None = None) -> Model:
    """Read a model folder as `read_model` does, but where only its record is damaged, return the model without it."""
    return _read_model(folder, name, needs_record=False)


def _read_model(folder: Path, name: str | None, *, needs_record: bool) -> Model:
    history, record_problem = None, ""
    try:
        config, sha256 = ModelConfig.from_json(_read_text(folder / CONFIG_FILE))
        # before the weights: a fault in it is found without reading gigabytes
        if os.path.lexists(folder / HISTORY_FILE):
            try:
                history = read_history(_read_text(folder / HISTORY_FILE))
            except ModelFileError as error:
                if needs_record:
                    raise ModelFileError(f"{error}; the model loads if {HISTORY_FILE} is mended or removed") from None
                record_problem = _in_one_line(str(error))
        with _open(folder / WEIGHTS_FILE) as file:
            weights = read_weights(file, config, sha256)
    except ModelFileError as error:
        raise ModelFileError(f"{name or folder}: {_in_one_line(str(error))}") from None
    return Model(config, weights, history, record_problem, sha256)


def read_epoch(folder: Path, model: Model, epoch: int, name: str | None = None) -> Model:
    """Return a model as it was after an epoch, with the record up to then, from the weights that its folder kept.

    model: as it was read from the folder. name: as for `read_model`.
    Raises what `check_epoch` does, and ModelFileError if the file with the weights is missing or damaged.
    """
    sha256, file = check_epoch(model, epoch, name or folder), kept_file(epoch)
    assert model.history is not None  # it names the SHA-256
    try:
        with _open(folder / file, file) as opened:
            weights = read_weights(opened, model.config, sha256, file, HISTORY_FILE)
    except ModelFileError as error:
        raise ModelFileError(f"{name or folder}: {_in_one_line(str(error))}") from None
    return replace(model, weights=weights, history=history_until(model.history, epoch), weights_sha256=sha256.lower())


def find_kept(folder: Path, history: HistoryRecord | None) -> list[int]:
    """Return the epochs whose weights a record names and a folder has, whole."""
    return [
        epoch
        for epoch, sha256 in kept_epochs(history).items()
        if (file := folder / kept_file(epoch)).is_file()
        and hashlib.sha256(file.read_bytes()).hexdigest() == sha256.lower()
    ]


def check_epoch(model: Model, epoch: int, name: object) -> str:
    """Return the SHA-256 of the weights that were kept of an epoch. name: of the model, for the message.

    Raises RequestError if they were not kept, ModelFileError if the record that would say so is damaged.
    """
    if model.record_problem:
        raise ModelFileError(
            f"{name}: {model.record_problem}; it names the weights of epochs: mend it, or leave the epoch out"
        )
    return kept_sha256(model.history, epoch, name)


def is_model_file(path: str) -> bool:
    """Tell whether a path in a model folder or repository is that of a file of the model."""
    return path in MODEL_FILES or KEPT_FILE.fullmatch(path) is not None


def write_model(folder: Path, model: Model, card: str, picture: bytes | None = None) -> None:
    """Write a model folder, replacing those of its files that are there.

    card: the text of README.md. picture: the content of loss.png; None for none.
    On failure the folder is as it was; after a kill it is that, or complete, or refused by `read_model`. Weights are
    stored as bfloat16 if that loses nothing, else as float32. A history.json or loss.png that is there and was not
    given is deleted. Raises RequestError if the folder cannot be made.
    """
    packed = pack_weights(model.weights)
    history = None if model.history is None else write_history(model.history).encode()
    # weights first and their SHA-256 last: if a kill leaves new and old files mixed, it is that of other weights
    files = {
        WEIGHTS_FILE: packed,
        HISTORY_FILE: history,
        PICTURE_FILE: picture,
        CARD_FILE: card.encode(),
        CONFIG_FILE: model.config.to_json(hashlib.sha256(packed).hexdigest()).encode(),
    }
    replace_files(folder, files)


def replace_files(folder: Path, files: Mapping[str, bytes | None]) -> None:
    """Write files into a folder, which is made if need be; a file whose content is None is deleted.

    All of them are flushed to disk in a temporary folder before the first is moved to its place, in the order of
    `files`. On failure the folder is as it was; after a kill, the first of the files may be the new ones and the
    rest the old. Raises RequestError if the folder cannot be made.
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
    """Make a folder unless it is there. Raises RequestError if it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        there = next((each for each in (folder, *folder.parents) if os.path.lexists(each)), folder)
        reason = error.strerror if there.is_dir() else "it is a file" if there == folder else f"{there} is a file"
        raise RequestError(f"cannot make the folder {folder} ({reason}); choose another place") from None
    except ValueError:  # a zero byte, or half of a surrogate pair
        raise RequestError(f"{show(str(folder))} cannot be the name of a folder; choose another") from None


def clear_leftovers(folder: Path) -> None:
    """Delete the temporary folder of a `replace_files` that was killed; none may be at work in the folder."""
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
    """Move a file to its place; if there is no such file, delete the one in that place."""
    if os.path.lexists(path):
        os.replace(path, place)
    else:
        place.unlink(missing_ok=True)


def _in_one_line(message: str) -> str:
    """Return a message cut to what a line can hold, with escapes for what cannot be printed."""
    shown = printable(message[: LONGEST_MESSAGE + 1])
    return shown if len(shown) <= LONGEST_MESSAGE else shown[: LONGEST_MESSAGE - 1] + "…"


def _read_text(path: Path) -> str:
    with _open(path) as file:
        content = file.read(LARGEST_JSON + 1)
    if len(content) > LARGEST_JSON:
        raise ModelFileError(f"{path.name} is larger than the {LARGEST_JSON:,} bytes that it can need")
    try:
        return content.decode()
    except UnicodeDecodeError:
        cause = explain_text(content) or "an editor may have saved it in another encoding; save it as UTF-8"
        raise ModelFileError(f"{path.name} is not UTF-8 text: {cause}") from None


@contextmanager
def _open(path: Path, kept: str | None = None) -> Iterator[BinaryIO]:
    """Open a regular file. Raises ModelFileError if it is not one, or if opening it or reading in the block fails.

    kept: what errors call a file without which the model is whole.
    """
    name = kept or path.name
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ModelFileError(f"{name} cannot be read: it is a pipe or a device, not a file")
            yield file
    except FileNotFoundError:
        cause = explain_missing_file(path)
        hint = f"; {cause}" if cause else ""
        need = "this is not a whole model folder" if kept is None else "get it again, or leave the epoch out"
        raise ModelFileError(f"{name} is missing: {need}{hint}") from None
    except OSError as error:
        raise ModelFileError(f"{name} cannot be read: {error.strerror}") from None


def _open_without_waiting(path: str, flags: int) -> int:
    # opening a pipe blocks until another process writes to it; Windows has neither these flags nor such files
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))
