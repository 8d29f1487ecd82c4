"""What is installed here: the name of the training package, how charlm is called, where the bundled models are."""

import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGE = Path(__file__).parent


def training_package() -> str:
    """Return the name of the training package: `charlm.train` where charlm is installed, `train` in a clone."""
    return "charlm.train" if find_spec("charlm.train") else "train"


def bundled_models() -> Path:
    """Return the folder of the models that come with charlm; in a clone it is beside the package."""
    installed = PACKAGE / "weights"
    return installed if installed.is_dir() else PACKAGE.parent / "weights"


def program() -> str:
    """Return how the program is called here: by its command where that was run, else as a module."""
    return "charlm" if Path(sys.argv[0]).stem == "charlm" else "python -m charlm"
