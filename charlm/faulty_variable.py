"""The environment variable that made a library fail, found from the exception, so that an error can name it.

Libraries read some hundred variables, most of them when they are imported, and raise Python's own errors for bad ones.
"""

import linecache
import os
import re
import traceback
from collections.abc import Mapping
from pathlib import Path

from charlm.installation import source_folders
from charlm.messages import one_line

NAME = re.compile(r"\b[A-Z][A-Z0-9_]{3,}\b")
NEARBY = 4  # lines of source code around the one that failed: a call may take several
SHORTEST_VALUE = 3  # characters of a value that is searched for in a message
SHORTEST_ENDING = 6  # characters of a name without its beginning: PATH ends too many
SECRETS = re.compile("TOKEN|KEY|SECRET|PASSWORD|CREDENTIAL")
OURS = {source_folders()[name] for name in ("charlm", "train")}
LONGEST_REASON = 200


def explain_by_environment(error: Exception, environment: Mapping[str, str] = os.environ) -> str | None:
    """Say which variable a library failed to use, and the way out; None if it failed for another reason.

    It is a variable that is set, and named in the message or near a line of the library that failed. If the library was
    being imported, it may also be one whose value the message quotes, or whose name the message or the line shortens
    (ENDPOINT for HF_ENDPOINT). Names of one word, such as HOME, are not considered; an ImportError has other causes.
    """
    if isinstance(error, ImportError):
        return None
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_ours(frame.filename)]
    lines = [
        linecache.getline(frame.filename, number)
        for frame in frames
        for number in range((frame.lineno or 0) - NEARBY, (frame.lineno or 0) + NEARBY + 1)
    ]
    written = dict.fromkeys(NAME.findall("".join([*lines, str(error)])))
    names = [name for name in written if name in environment and "_" in name]
    if not names and any(frame.name == "<module>" for frame in frames):  # it was being imported
        names = [
            name
            for name, value in environment.items()
            if (len(value) >= SHORTEST_VALUE and value in str(error))
            or name.endswith(tuple(f"_{end}" for end in written if len(end) >= SHORTEST_ENDING))
        ]
    if not names:
        return None
    reason = one_line(error)[:LONGEST_REASON]
    if any(SECRETS.search(name) for name in names):
        reason = type(error).__name__  # the message may quote the value
    variables = " or ".join(names)
    return f"a library cannot use the environment variable {variables} ({reason}); unset it or give it another value"


def _is_ours(file: str) -> bool:
    return not OURS.isdisjoint(Path(file).parents)
