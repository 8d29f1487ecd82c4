"""What is installed here: packages of the extras, the training package, the command's name, the bundled models."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType

from charlm.errors import MissingPackageError

DISTRIBUTION = "charlm-rnn"  # `charlm` on the Python Package Index is another project
# The packages that our code imports beyond those that charlm always brings, by the extra of pyproject.toml.
EXTRAS = {
    "train": ("torch", "matplotlib", "tqdm"),
    "app": ("gradio", "uvicorn", "h11", "fastapi", "orjson"),
}
PACKAGE = Path(__file__).parent


@contextmanager
def optional_packages() -> Iterator[None]:
    """Raise MissingPackageError where an import inside the block misses a package of EXTRAS, with the command to run.

    Every import of one of these packages stands in such a block; a command as a whole runs in one, too.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        for extra, packages in EXTRAS.items():
            if missing in packages:
                raise MissingPackageError(
                    f"this needs {missing}, which is not installed; the extra [{extra}] brings it: "
                    f'run pip install "{_how_installed()}[{extra}]"'
                ) from None
        raise


def load_extra(extra: str) -> None:
    """Import all packages of an extra, so that none is missed later. Raises MissingPackageError if one is missing."""
    with optional_packages():
        for package in EXTRAS[extra]:
            import_module(package)


def _how_installed() -> str:
    """Return what pip is to install for another extra: the distribution that is installed, or else this clone."""
    try:
        distribution(DISTRIBUTION)
    except PackageNotFoundError:
        return str(PACKAGE.parent)
    return DISTRIBUTION


def is_installed() -> bool:
    """Tell whether this is charlm as a wheel installs it, with inside what lies beside the package in a clone."""
    return (PACKAGE / "source").is_dir()


def training_package() -> str:
    """Return the name of the training package: `charlm.train` where charlm is installed, `train` in a clone."""
    return "charlm.train" if is_installed() else "train"


def import_training(module: str) -> ModuleType:
    """Import a module of the training package. In a clone that is ours, whatever else is called train here."""
    clone = [] if is_installed() else [str(PACKAGE.parent)]
    sys.path[:0] = clone  # first, since a train.py often lies in the current folder
    try:
        return import_module(f"{training_package()}.{module}")
    finally:
        for folder in clone:
            sys.path.remove(folder)


def source_folders() -> dict[str, Path]:
    """Return where the folders of a clone are here, by name: charlm, train, weights, and "" for the clone itself.

    An installed package has them inside; what lies in the clone itself is in its folder `source`.
    """
    if is_installed():
        return {"": PACKAGE / "source", "charlm": PACKAGE, "train": PACKAGE / "train", "weights": PACKAGE / "weights"}
    root = PACKAGE.parent
    return {"": root} | {name: root / name for name in ("charlm", "train", "weights")}


def source_files(folder: str, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Return the files of a folder of the clone that end so, by their path in the clone."""
    folders = source_folders()
    here = folders.pop(folder)
    inside = [other for other in folders.values() if other.is_relative_to(here)]
    return {
        f"{folder}/{path.relative_to(here).as_posix()}": path
        for path in here.rglob("*")
        if path.suffix in suffixes and not any(path.is_relative_to(other) for other in inside)
    }


def bundled_models() -> Path:
    """Return the folder of the models that come with charlm."""
    return source_folders()["weights"]


def program() -> str:
    """Return how the program is called here: by its command where that was run, else as a module."""
    return "charlm" if Path(sys.argv[0]).stem == "charlm" else "python -m charlm"
