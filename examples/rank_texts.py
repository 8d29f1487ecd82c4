"""Order the lines of a file by how well a model predicts them, whatever their length.

The number before each line is its perplexity per character; the lowest comes first.

python examples/rank_texts.py weights/shakespeare-lstm lines.txt
"""

import math
import sys
from pathlib import Path

from charlm import CharLM

model, path = sys.argv[1:]
lm = CharLM.from_pretrained(model)
ranked = []
for line in Path(path).read_text(encoding="utf-8").splitlines():
    in_a_text = f"\n{line}\n"  # from the beginning of a line to its end
    _, unknown = lm.vocab.encode_known(in_a_text)
    if line and not unknown:
        ranked.append((lm.score(in_a_text).mean(), line))
    elif line:
        print(f"left out, as the model does not know {unknown!r}: {line}", file=sys.stderr)
for nats, line in sorted(ranked):
    print(f"{math.exp(nats):8.2f}  {line}")
