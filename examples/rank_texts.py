"""Order the lines of a file by how well a model predicts them: the likeliest text first.

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
    ids, unknown = lm.vocab.encode_known("\n" + line + "\n")  # as a line of a text, from its beginning to its end
    if line and not unknown:
        ranked.append((lm.score(lm.vocab.decode(ids)).mean(), line))
    elif line:
        print(f"left out, as the model does not know {unknown!r}: {line}", file=sys.stderr)
for nats, line in sorted(ranked):
    print(f"{math.exp(nats):8.2f}  {line}")
