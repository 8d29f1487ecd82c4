"""What a training on the page leaves: a model, its folder as a zip, a page with the model in it, and a command."""

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from charlm.browser.page import PageModel, export_html
from charlm.errors import CharLMError
from charlm.lm import CharLM
from charlm.model.config import CONFIG_FILE
from charlm.model.folder import MODEL_FILES, read_usable_model
from charlm.model.weights import WEIGHTS_FILE
from charlm.web.training.process import Ending

NAME = "my-model"  # of the folder in the zip, and of both files
LARGEST_PAGE_WEIGHTS = 32 << 20  # bytes of weights that are put into a page
LONGEST_REPO = 60  # characters of the name that is proposed for a repository


@dataclass(frozen=True)
class Result:
    """What a training leaves.

    message: a line about it. lm: the model of its best epoch, None if there is none.
    package: a zip of the model's folder. page: one HTML file with the model in it. Both may be missing.
    offers_cpu: whether to offer a training on the CPU, since a GPU was not available.
    """

    message: str
    lm: CharLM | None = None
    package: Path | None = None
    page: Path | None = None
    offers_cpu: bool = False


def finish(run: Path, ending: Ending, device: str) -> Result:
    """Return what a training has left in its folder `run`; the zip and the page are written beside this folder.

    ending: how it ended. device: that the model runs on.
    """
    if not (run / CONFIG_FILE).exists():
        return Result(ending.without_model, offers_cpu=ending.offers_cpu)
    try:
        lm = CharLM.from_pretrained(run, device=device)
    except CharLMError:
        return Result("the training failed: its model cannot be read")
    if lm.history is None:
        message = f"{ending.with_model}: the model is there, but its training record cannot be read"
    else:
        best = lm.history["best"]
        about = f"epoch {best['epoch']}, validation loss {best['val_loss']:.4f}"
        message = f"{ending.with_model}: the model is that of {about}"
    try:
        return Result(message, lm, pack(run, run.with_name(f"{NAME}.zip")), export(run, run.with_name(f"{NAME}.html")))
    except OSError as error:
        return Result(message + no_download(error), lm)


def no_download(error: OSError) -> str:
    """Say why a model that was trained cannot be downloaded."""
    return f"; its download cannot be written ({error.strerror or type(error).__name__})"


def pack(folder: Path, path: Path) -> Path:
    """Write a zip of a model folder: its five files in one folder, ready for the command `push`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        for name in MODEL_FILES:
            package.write(folder / name, f"{path.stem}/{name}")
    return path


def export(folder: Path, path: Path) -> Path | None:
    """Write the page without a server with a model in it, as `charlm export` does; None if the model is too large."""
    if (folder / WEIGHTS_FILE).stat().st_size > LARGEST_PAGE_WEIGHTS:
        return None
    try:
        content = export_html([PageModel.from_model(path.stem, read_usable_model(folder), license="")])
    except CharLMError:  # the loaded model has been accepted, but its files may have changed
        return None
    path.write_bytes(content)
    return path


def publish_command(text_name: object, lm: CharLM) -> str:
    """Return the command that publishes the unpacked zip, in a repository named after the text and the cell.

    text_name: of the file that the text came from, or anything else.
    """
    words = re.findall("[A-Za-z0-9]+", text_name.rpartition(".")[0] or text_name) if isinstance(text_name, str) else []
    name = "-".join([*words, lm.config.cell] if words else ["my-text", lm.config.cell]).lower()
    return f"charlm push {NAME} USER/{name[-LONGEST_REPO:].strip('-')}"
