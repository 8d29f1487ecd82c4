"""The map of the modules in CONTRIBUTING.md: the first sentence of each docstring, in the order of imports.

`python docs/map.py` prints it, `python docs/map.py --write` puts it into CONTRIBUTING.md.
"""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
BEGIN, END = "<!-- map: python docs/map.py --write -->\n", "<!-- end of the map -->\n"


def modules() -> list[Path]:
    """Return the modules in the order of tests/test_imports.py, each after those it imports, and the benchmarks."""
    tree = ast.parse((ROOT / "tests" / "test_imports.py").read_text(encoding="utf-8"))
    assigned = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
    names: list[str] = ast.literal_eval(assigned["ORDER"])
    paths = [ROOT.joinpath(*name.split(".")).with_suffix(".py") for name in names]
    return [*paths, *sorted((ROOT / "benchmarks").glob("*.py"))]


def first_sentence(path: Path) -> str:
    """Return the first sentence of a module's docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "(no docstring)"
    text = " ".join(docstring.split("\n\n")[0].split()).replace("|", "\\|")
    return re.split(r"(?<=\.) ", text)[0]


def scripts() -> list[Path]:
    """Return the JavaScript modules of the pages."""
    return sorted((ROOT / "charlm").rglob("*.js"))


def first_sentence_of_script(path: Path) -> str:
    """Return the first sentence of the comment that a script begins with."""
    comment = path.read_text(encoding="utf-8").partition("*/")[0]
    text = " ".join(re.sub(r"^ *(?:/\*+|\*)", "", comment, flags=re.MULTILINE).split("\n\n")[0].split())
    return re.split(r"(?<=\.) ", text)[0].replace("|", "\\|")


def make_map() -> str:
    """Return the map as Markdown: a table with a bold row for each package before the first of its modules."""
    lines = ["| module | what it does |", "| --- | --- |"]
    named: set[Path] = set()
    for path in modules():
        package = path.parent / "__init__.py"
        if package.exists() and package not in named:
            lines.append(f"| **`{path.parent.relative_to(ROOT).as_posix()}/`** | {first_sentence(package)} |")
            named.add(package)
        lines.append(f"| `{path.relative_to(ROOT).as_posix()}` | {first_sentence(path)} |")
    lines.append("| **JavaScript** | What the pages load, module by module or joined by `charlm/browser/scripts.py`. |")
    lines += [f"| `{path.relative_to(ROOT).as_posix()}` | {first_sentence_of_script(path)} |" for path in scripts()]
    return "\n".join(lines) + "\n"


def write_map() -> None:
    """Put the map into CONTRIBUTING.md."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + make_map() + END + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        write_map()
    else:
        sys.stdout.write(make_map())
