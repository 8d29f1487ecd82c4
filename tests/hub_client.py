"""What the tests of the Hub share, beside the fixtures in tests/charlm/conftest.py."""

from pathlib import Path

from huggingface_hub import constants

FIVE = {"config.json", "model.safetensors", "history.json", "loss.png", "README.md"}
TOKEN = "hf_ada"


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def log_in(token):
    """Leave a token where `hf auth login` does."""
    write(Path(constants.HF_TOKEN_PATH), token.encode())
