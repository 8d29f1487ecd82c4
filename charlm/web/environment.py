"""The environment of the page: which of Gradio's variables it obeys, and how many threads its libraries start.

Gradio reads some forty variables when it is imported. Several put another server in front of the guard, open further
ports, share the page, or keep the process from ending. The page obeys those of OBEYED; the others are removed.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import MutableMapping

from charlm.errors import RequestError

OBEYED = {
    "GRADIO_SERVER_NAME",  # the default of --host
    "GRADIO_SERVER_PORT",  # the default of --port
    "GRADIO_ROOT_PATH",  # the default of --root-path
    "GRADIO_TEMP_DIR",  # where models that visitors trained wait for their download
    "GRADIO_SHARE_SERVER_ADDRESS",  # another server for --share
}


def prepare(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set the variables that Gradio and the numeric libraries read. Call it before any of them is imported.

    Raises RequestError if there is no folder for temporary files, or the one that GRADIO_TEMP_DIR names is not usable.
    """
    for name in [name for name in environment if name.startswith("GRADIO_")]:
        if name not in OBEYED or not environment[name]:  # an empty variable means none
            del environment[name]
    # with analytics on, a silent network keeps the process from ending
    environment["GRADIO_ANALYTICS_ENABLED"] = "False"
    if "GRADIO_TEMP_DIR" in environment:
        _check_temporary_folder(environment["GRADIO_TEMP_DIR"])
    else:
        environment["GRADIO_TEMP_DIR"] = _make_temporary_folder()
    # a text is written one character after another: more threads for each would only slow the other visitors down
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        environment.setdefault(name, "1")


def _check_temporary_folder(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RequestError(
            f"GRADIO_TEMP_DIR is {folder!r}, where nothing can be written ({error.strerror}); "
            "name another folder or unset it"
        ) from None


def _make_temporary_folder() -> str:
    """Make a folder that goes when the process ends. Gradio's own may belong to another user of this computer."""
    try:
        folder = tempfile.mkdtemp(prefix="charlm-")
    except OSError as error:
        raise RequestError(
            f"there is no folder for temporary files ({error.strerror}); set TMPDIR to one that can be written"
        ) from None
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
