"""The command `export`: models from folders and from the Hub, put into one page."""

import errno
import warnings
from collections.abc import Sequence
from pathlib import Path

from charlm.browser.lesson import chosen_lesson
from charlm.browser.page import PageModel, export_html, is_page
from charlm.errors import HubError, ModelFileError, RequestError
from charlm.messages import printable
from charlm.model.folder import CARD_FILE, Model, read_usable_model, replace_files
from charlm.model.published_card import read_license
from charlm.model_name import choose_names, explain_missing, parse_hub_name

LARGEST_CARD = 1 << 20  # bytes of a README.md in which a licence is looked for


def export(wanted: Sequence[str], path: Path) -> list[PageModel]:
    """Write a page with some models to a file, and return them.

    wanted: named as `charlm.model_name` reads them. path: of a new file, or of a page that an export wrote before,
        which is replaced once the new one is whole.
    The page has the lesson of `charlm.browser.lesson.chosen_lesson`.
    Raises RequestError if the path is that of anything else, or cannot be written, or the lesson cannot be read,
    ModelFileError and HubError as `CharLM.from_pretrained`.
    """
    _check_place(path)  # before models are downloaded
    lesson = chosen_lesson()
    models = [_read(name, place) for name, place in choose_names(wanted).items()]
    content = export_html(models, lesson)
    _check_place(path)  # what came there meanwhile is not lost, either
    try:
        replace_files(path.parent, {path.name: content})
    except OSError as error:  # which names a temporary file, or none
        instead = "make room, or " if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise RequestError(
            f"{path} cannot be written ({error.strerror or error}); {instead}choose another place for --html"
        ) from None
    return models


def _check_place(path: Path) -> None:
    if path.is_dir():
        raise RequestError(f"{path} is a folder; name a file in it: --html {path / 'page.html'}")
    try:
        if path.exists() and not (path.is_file() and is_page(path)):
            raise RequestError(
                f"{path} is not a page that this command made, and is kept; choose another name for --html"
            )
    except OSError as error:
        raise RequestError(f"{path} cannot be read ({error.strerror}); choose another name for --html") from None


def _read(name: str, place: Path | str) -> PageModel:
    if isinstance(place, Path):
        model = read_usable_model(place)
        page_model = PageModel.from_model(name, model, _license_of(place))
    else:
        model, page_model = _fetch(name, place)
    if model.record_problem:
        warnings.warn(f"{name}: {model.record_problem}; the page shows the model without its curves", stacklevel=3)
    return page_model


def _fetch(name: str, place: str) -> tuple[Model, PageModel]:
    from charlm import hub  # here, because exporting folders needs no huggingface_hub

    found = parse_hub_name(place)
    assert found is not None
    try:
        fetched = hub.fetch(found.repo_id, found.revision)
    except HubError as error:
        raise explain_missing(place, error) from None
    source = f"{found.repo_id}, commit {fetched.revision[:7]}"
    return fetched.model, PageModel.from_model(name, fetched.model, fetched.license, source)


def _license_of(folder: Path) -> str | None:
    """Return the licence in the card of a folder, empty if that states none; None without a card that can be read."""
    try:
        with open(folder / CARD_FILE, "rb") as file:
            return printable(read_license(file.read(LARGEST_CARD).decode()))
    except (OSError, UnicodeDecodeError, ModelFileError):
        return None
