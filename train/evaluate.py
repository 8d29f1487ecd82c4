"""Losses of a network on a text, in nats per character."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.inference.engine import Engine
from charlm.inference.gpu import NetworkReader
from charlm.inference.sampling import MOST_LOGITS
from charlm.inference.scoring import BlockReader, EngineReader, surprisals
from charlm.model.network import Network

from .encode import SmallIds

RESET_WINDOW = 256


def _keep() -> None:
    """Release nothing: the text is in memory."""


def carried_loss(
    network: Network, ids: SmallIds, release: Callable[[], None] = _keep, engine: Engine | None = None
) -> float:
    """Return the mean loss of the N - 1 predictions in a text (N,), read in order from a zero state that is carried.

    `charlm.inference.scoring` says how a long text is read in stretches side by side.

    release: gives back the memory that reading a mapped text takes.
    engine: the same model for a CPU, which reads a text in about half the time.
    """
    return sum(_carried_sums(network, ids, len(ids), release, engine)) / (len(ids) - 1)


def carried_losses_of_halves(
    network: Network, ids: SmallIds, release: Callable[[], None] = _keep, engine: Engine | None = None
) -> tuple[float, float]:
    """Return the mean losses of the first N // 2 symbols of a text (N,), N ≥ 4, and of the others.

    The first symbol is not predicted. The state is carried from the first half to the second: both come from the one
    pass that `carried_loss` makes.

    release, engine: as in `carried_loss`.
    """
    half = len(ids) // 2
    first, second = _carried_sums(network, ids, half, release, engine)
    return first / (half - 1), second / (len(ids) - half)


def _carried_sums(
    network: Network, ids: SmallIds, cut: int, release: Callable[[], None], engine: Engine | None
) -> tuple[float, float]:
    """Return the sums of the losses of the symbols before `cut` and from there on, as `carried_loss` reads them."""
    reader = _reader(network, release, engine)
    block = reader.stretches * reader.longest_stretch  # copied from the mapped text, and released by its first pass
    pieces = (ids[first : first + block].astype(np.int64) for first in range(0, len(ids), block))
    before, after, place = 0.0, 0.0, 1  # the first symbol is not predicted
    for losses in surprisals(reader, pieces):
        inside = max(0, cut - place)
        before += float(losses[:inside].sum())
        after += float(losses[inside:].sum())
        place += len(losses)
    return before, after


def reset_loss(
    network: Network, ids: SmallIds, release: Callable[[], None] = _keep, engine: Engine | None = None
) -> float:
    """Return the mean loss over the same predictions with the state zero at the start of every RESET_WINDOW.

    Every position counts, as in projects whose models see at most that many characters.

    release, engine: as in `carried_loss`.
    """
    predictions = len(ids) - 1
    whole = predictions // RESET_WINDOW
    starts = RESET_WINDOW * np.arange(whole)
    total = RESET_WINDOW * whole * windows_loss(network, ids, starts, RESET_WINDOW, release, engine)
    rest = predictions % RESET_WINDOW  # the last window, cut short by the end of the text
    if rest:
        total += rest * windows_loss(network, ids, np.array([whole * RESET_WINDOW]), rest, release, engine)
    return total / predictions


def windows_loss(
    network: Network,
    ids: SmallIds,
    starts: NDArray[np.int64],
    window: int,
    release: Callable[[], None] = _keep,
    engine: Engine | None = None,
) -> float:
    """Return the mean loss over windows of a text that start at `starts` (M,), each from the zero state; 0 if none.

    release, engine: as in `carried_loss`.
    """
    if not len(starts):
        return 0.0
    per_pass = max(1, MOST_LOGITS // (window * len(network.config.vocab)))  # windows side by side
    reader = _reader(network, release, engine)
    zero = reader.zero_state()

    def read(first: int) -> float:
        windows = starts[first : first + per_pass] + np.arange(window + 1)[:, None]  # (T + 1, B)
        losses, _ = reader.read(ids[windows].astype(np.int64), reader.join([zero] * windows.shape[1]))
        return float(losses.sum())

    passes, count = range(0, len(starts), per_pass), reader.count_threads(per_pass)
    if count == 1:  # on this thread, where torch does without denormals
        losses = list(map(read, passes))
    else:
        with ThreadPoolExecutor(count) as threads:
            losses = list(threads.map(read, passes))
    return sum(losses) / (window * len(starts))


def _reader(network: Network, release: Callable[[], None], engine: Engine | None) -> BlockReader[Any]:
    """Return what reads a text: the engine where there is one, else the network. Each has states of its own type."""
    return NetworkReader(network, release) if engine is None else EngineReader(engine, release)
