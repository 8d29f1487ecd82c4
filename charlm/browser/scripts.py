"""The JavaScript modules of the pages, joined into one script where a page cannot load them, and their shared style."""

import re
from pathlib import Path

FOLDER = Path(__file__).parent
# the variables of both pages, and the style of the components that they share
THEME_STYLE = (FOLDER / "components" / "theme.css").read_text(encoding="utf-8")
COMPONENTS_STYLE = "".join(
    (FOLDER / "components" / name).read_text(encoding="utf-8") for name in ("components.css", "lesson.css")
)

IMPORT = re.compile(r'^import \{[^}]*\} from "(\.[^"]+)";\n', re.MULTILINE)
COMMENT = re.compile(r"^[ \t]*(?:/\*[\s\S]*?\*/|//[^\n]*)\n", re.MULTILINE)  # in lines of its own
EXPORT = re.compile(r"^export (?=async |class |const |function |let )", re.MULTILINE)
TOP_LEVEL = re.compile(r"^(?:async )?(?:class|const|function\*?|let) (\w+)", re.MULTILINE)


def join_modules(entry: Path) -> str:
    """Return one script that does what a module and those that it imports do, in a scope of its own.

    A page that is opened from disk can import no module, and Gradio needs its components before modules run. Modules
    import by name, from relative paths, and no two declare the same name at the top level. Comments are left out.
    """
    bodies: dict[Path, str] = {}
    _collect(entry.resolve(), bodies)
    script = '(() => {\n"use strict";\n' + "\n".join(bodies.values()) + "})();\n"
    names = TOP_LEVEL.findall(script)
    assert len(names) == len(set(names)), {name for name in names if names.count(name) > 1}
    assert "\nimport " not in script and "\nexport " not in script
    assert "</script" not in script.lower() and "<!--" not in script  # either would end or change the element
    return script


def imported(module: Path) -> list[Path]:
    """Return a module and those that it imports, each after those that it needs."""
    bodies: dict[Path, str] = {}
    _collect(module.resolve(), bodies)
    return list(bodies)


def _collect(module: Path, bodies: dict[Path, str]) -> None:
    """Add the body of a module to those of the modules that it needs, unless it is there."""
    source = module.read_text(encoding="utf-8")
    for name in IMPORT.findall(source):
        path = (module.parent / name).resolve()
        if path not in bodies:
            _collect(path, bodies)
    bodies[module] = EXPORT.sub("", IMPORT.sub("", without_comments(source))).lstrip("\n")


def without_comments(source: str) -> str:
    """Return a script without the comments that stand in lines of their own."""
    return COMMENT.sub("", source)
