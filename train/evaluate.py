"""The protocols: from a model and a text to nats per character."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from charlm.errors import ModelFileError, RequestError
from charlm.lm import CharLM
from charlm.network import Network, State
from charlm.vocab import Ids
from train.data import Text, split_holdout

RESET_WINDOW = 256
CHUNK = 4096  # characters in one pass of a single stream: bounds the memory for logits
MOST_LOGITS = 2**24  # numbers in one pass of windows side by side: a vocabulary may have thousands of symbols


def evaluate_holdout(lm: CharLM, text: Text) -> tuple[dict[str, float], int]:
    """Measure a model on the validation part of a text, as the protocol `holdout` does.

    Return val_loss and val_loss_reset256 in nats per character, and how many characters were left
    out because the model does not know them. Raises RequestError if hardly any is left,
    ModelFileError if the model's outputs are no finite numbers.
    """
    ids, skipped = lm.vocab.encode_known(split_holdout(text.content)[1])
    if len(ids) < 2:
        raise RequestError(f"the model knows no more than {len(ids)} characters of {text.name}'s validation part")
    with flushed_denormals():
        losses = {"val_loss": carried_loss(lm.network, ids), "val_loss_reset256": reset_loss(lm.network, ids)}
    if not all(map(math.isfinite, losses.values())):
        raise ModelFileError("the model's losses are no finite numbers, as after a training that diverged")
    return losses, len(skipped)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Have the CPU take denormal floats as 0: fading states and gradients are a hundred times slower to multiply."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def carried_loss(network: Network, ids: Ids) -> float:
    """Return the mean loss of the N - 1 predictions in a text (N,), read in order from a zero state that is carried."""
    sequence = torch.from_numpy(ids).to(network.device)[:, None]  # (N, 1)
    total, state = 0.0, None
    for start in range(0, len(ids) - 1, CHUNK):
        inputs = sequence[start : min(start + CHUNK, len(ids) - 1)]
        loss, state = _summed_loss(network, inputs, sequence[start + 1 : start + 1 + len(inputs)], state)
        total += loss
    return total / (len(ids) - 1)


def reset_loss(network: Network, ids: Ids, window: int = RESET_WINDOW) -> float:
    """Return the mean loss over the same predictions with the state zero at the start of every window.

    Every position counts, as in projects whose models see at most `window` characters.
    """
    sequence = torch.from_numpy(ids).to(network.device)
    whole = (len(ids) - 1) // window * window
    inputs = sequence[:whole].view(-1, window).T  # (T, B): windows side by side
    targets = sequence[1 : whole + 1].view(-1, window).T
    at_once = max(1, MOST_LOGITS // (window * len(network.config.vocab)))
    total = 0.0
    for start in range(0, inputs.shape[1], at_once):
        part = slice(start, start + at_once)
        total += _summed_loss(network, inputs[:, part], targets[:, part])[0]
    if whole < len(ids) - 1:  # the last window, cut short by the end of the text
        total += _summed_loss(network, sequence[whole:-1, None], sequence[whole + 1 :, None])[0]
    return total / (len(ids) - 1)


@torch.inference_mode()
def _summed_loss(network: Network, inputs: Tensor, targets: Tensor, state: State = None) -> tuple[float, State]:
    logits, state = network(inputs, state)  # (T, B) → (T, B, V)
    losses = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return losses.sum(dtype=torch.float64 if network.device.type != "mps" else None).item(), state
