"""Pull a model from the Hub, or take one from a folder, and let it write.

python examples/generate.py ada/my-text "Once upon a time"
"""

import sys

from charlm import CharLM

model, prompt = sys.argv[1:]
lm = CharLM.from_pretrained(model)
print(prompt, end="")
for piece in lm.stream(prompt, length=300, temperature=0.8):
    print(piece, end="", flush=True)
print()
