"""The golden texts: what each bundled model writes with the compiled kernels, on every processor.

    PYTHONPATH=. python tests/golden.py            compares what is written here with golden.json
    PYTHONPATH=. python tests/golden.py --write    stores it there

It needs nothing but the package, so that the wheels can be tested with it on the systems that they are for.
"""

import hashlib
import json
import sys
from pathlib import Path

from charlm import CharLM
from charlm.inference.compiled import describe_engine
from charlm.installation import bundled_models

STORED = Path(__file__).with_name("golden.json")
SEED, TEXTS, LENGTH = 1, 3, 2000
SETTINGS = (
    {"temperature": 1.0},
    {"temperature": 0.5},
    {"temperature": 1.0, "top_k": 10},
    {"temperature": 0.8, "top_p": 0.9},
)


def texts(lm, settings):
    """The texts of a model, of the seeds from SEED on."""
    return [sample.text for sample in lm.generate_many("", TEXTS, LENGTH, **settings, seed=SEED)]


def digests(model, some=SETTINGS):
    """The SHA-256 of each text of a bundled model, by its settings."""
    lm = CharLM.from_pretrained(bundled_models() / model, device="cpu")
    return {
        json.dumps(settings): [hashlib.sha256(text.encode()).hexdigest() for text in texts(lm, settings)]
        for settings in some
    }


def main():
    models = sorted(folder.name for folder in bundled_models().iterdir() if folder.is_dir())
    written = {model: digests(model) for model in models}
    if "--write" in sys.argv:
        STORED.write_text(json.dumps(written, indent=1) + "\n")
    stored = json.loads(STORED.read_text())
    wrong = [model for model in stored | written if stored.get(model) != written.get(model)]
    if wrong:
        sys.exit(f"{describe_engine()}: {', '.join(wrong)} did not write the golden texts")
    print(f"{describe_engine()}: {', '.join(models)} wrote the golden texts")


if __name__ == "__main__":
    main()
