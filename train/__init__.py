"""Training: from a text to a model folder. `python -m train --help` shows the commands."""
