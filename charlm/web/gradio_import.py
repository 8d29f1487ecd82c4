"""Import Gradio without the type stubs that it writes at each import, which take two fifths of the time.

Whenever the class of a component is made, Gradio reads the source of its module and writes a `.pyi` file beside it, for
editors. At each start that is done for 81 classes, and two starts at the same time may write the same file.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

WRITER = "gradio.component_meta"  # the module that writes the stubs


def skip_stubs() -> None:
    """Let Gradio write no stubs in this process. Call it before Gradio is imported, or it has no effect."""
    if WRITER not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds the module that writes the stubs where Python would, for another loader; leaves the others to Python.

    The module cannot be changed after its import: Gradio makes its components while it is imported itself.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != WRITER:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(fullname, spec.origin)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        vars(module)["create_or_modify_pyi"] = _write_no_stub


def _write_no_stub(component: type, name: str, events: Sequence[object]) -> None:
    """Take the place of Gradio's function that writes a stub, with its arguments, and write none."""
