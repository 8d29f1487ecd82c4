"""Losses that others have published on the texts that models are often trained on, each with its source."""

from dataclasses import dataclass
from typing import Any

from charlm.model.history import HistoryRecord

# What the `run` of a record has if its validation loss is on the last tenth of tinyshakespeare, as char-rnn and nanoGPT
# split it.
TINYSHAKESPEARE: dict[str, Any] = {
    "text_sha256": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    "protocol": "holdout",
    "split": {"train_chars": 1_003_854, "val_chars": 111_540},
}


@dataclass(frozen=True)
class PublishedLoss:
    """A validation loss in nats per character. name: of the model. source: who says so, and how it was measured."""

    name: str
    loss: float
    source: str


ON_TINYSHAKESPEARE = (
    PublishedLoss("nanoGPT", 1.4697, "its README: 10.65 M parameters, random windows of 256"),
    PublishedLoss("minGRU", 1.548, "arXiv 2410.01201"),
)


def published_losses(history: HistoryRecord) -> tuple[PublishedLoss, ...]:
    """Return the losses that the validation loss of a record can be compared with: of the same text and split."""
    same = all(history["run"].get(name) == value for name, value in TINYSHAKESPEARE.items())
    return ON_TINYSHAKESPEARE if same else ()
