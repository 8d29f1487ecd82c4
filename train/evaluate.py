"""Losses of a network on a text, in nats per character."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from charlm.model.network import Network
from train.encode import SmallIds

RESET_WINDOW = 256
READERS = 32  # places of a long text that are read side by side
WARM_UP = 1024  # characters that a reader reads before those that it measures
SAME_STATE = 1e-4  # the largest difference between two states for which their losses are the same to six digits
LONGEST_PASS = 4096  # characters of a stream
MOST_LOGITS = 2**20  # numbers in one pass: a vocabulary may have thousands of symbols, and Ctrl-C waits for its end


def _keep() -> None:
    """Release nothing: the text is in memory."""


@torch.inference_mode()
def carried_loss(network: Network, ids: SmallIds, release: Callable[[], None] = _keep) -> float:
    """Return the mean loss of the N - 1 predictions in a text (N,), read in order from a zero state that is carried.

    A long text is cut into parts that are read side by side, each by a reader that began WARM_UP characters
    earlier, from the zero state. If it did not come to the state in which the reader before it ended, its
    part is read again from that: the result is that of reading in order.

    release: gives back the memory that reading a mapped text takes.
    """
    predictions = len(ids) - 1
    part = predictions // READERS
    if part < 2 * WARM_UP:
        losses, _ = _read(network, ids, np.zeros(1, np.int64), predictions, None, release)
        return float(losses.sum()) / predictions
    starts = part * np.arange(READERS)
    _, warm = _read(network, ids, starts[1:] - WARM_UP, WARM_UP, None, release)
    begun = [torch.cat([torch.zeros_like(kept[:, :1]), kept], dim=1) for kept in warm]  # the first reader's is zero
    losses, ended = _read(network, ids, starts, part, begun, release)
    for reader in range(1, READERS):
        before, own = slice(reader - 1, reader), slice(reader, reader + 1)
        both = zip(ended, begun, strict=True)
        if any((end[:, before] - start[:, own]).abs().max() > SAME_STATE for end, start in both):
            losses[own], end = _read(network, ids, starts[own], part, [kept[:, before] for kept in ended], release)
            for kept, new in zip(ended, end, strict=True):
                kept[:, own] = new
    left_over, _ = _read(
        network, ids, starts[-1:] + part, predictions - READERS * part, [kept[:, -1:] for kept in ended], release
    )
    return float(losses.sum() + left_over.sum()) / predictions


def reset_loss(network: Network, ids: SmallIds, release: Callable[[], None] = _keep) -> float:
    """Return the mean loss over the same predictions with the state zero at the start of every RESET_WINDOW.

    Every position counts, as in projects whose models see at most that many characters.
    """
    predictions = len(ids) - 1
    whole = predictions // RESET_WINDOW
    total = whole * RESET_WINDOW * windows_loss(network, ids, RESET_WINDOW * np.arange(whole), RESET_WINDOW, release)
    # the last window, cut short by the end of the text
    rest, _ = _read(network, ids, np.array([whole * RESET_WINDOW]), predictions % RESET_WINDOW, None, release)
    return (total + float(rest.sum())) / predictions


def windows_loss(
    network: Network, ids: SmallIds, starts: NDArray[np.int64], window: int, release: Callable[[], None] = _keep
) -> float:
    """Return the mean loss over windows of a text that start at `starts` (M,), each from the zero state; 0 if none."""
    if not len(starts):
        return 0.0
    at_once = max(1, MOST_LOGITS // (window * len(network.config.vocab)))
    parts = (starts[first : first + at_once] for first in range(0, len(starts), at_once))
    total = sum(float(_read(network, ids, part, window, None, release)[0].sum()) for part in parts)
    return total / (window * len(starts))


@torch.inference_mode()
def _read(
    network: Network,
    ids: SmallIds,
    starts: NDArray[np.int64],
    length: int,
    state: list[Tensor] | None,
    release: Callable[[], None],
) -> tuple[NDArray[np.float64], list[Tensor]]:
    """Read `length` symbols from each of B places side by side.

    state: the tensors (L, B, H) that the cell keeps; None is zero. Return the sum (B,) of each place's losses, and
    the state afterwards.
    """
    losses = np.zeros(len(starts))
    at_once = min(LONGEST_PASS, max(1, MOST_LOGITS // (len(starts) * len(network.config.vocab))))
    kept = None if state is None else tuple(part.contiguous() for part in state)
    for first in range(0, length, at_once):
        steps = min(at_once, length - first)
        places = starts + (first + np.arange(steps + 1)[:, None])  # (T + 1, B)
        symbols = torch.from_numpy(ids[places].astype(np.int64)).to(network.device)
        logits, after = network(symbols[:-1], kept if kept is None or len(kept) > 1 else kept[0])  # (T, B, V)
        each = cross_entropy(logits.flatten(0, 1), symbols[1:].flatten(), reduction="none").view(steps, -1)
        losses += each.cpu().double().sum(0).numpy()
        kept = after if isinstance(after, tuple) else (after,)
        release()
    return losses, list(kept or [])
