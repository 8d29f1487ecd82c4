"""Losses of a model on a text, in nats per character."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from charlm.errors import ModelFileError
from charlm.inference.compiled import load_kernels
from charlm.inference.gpu import NetworkReader
from charlm.inference.sampling import MOST_LOGITS
from charlm.inference.scoring import BlockReader, EngineReader, count_scoring_threads, surprisals
from charlm.lm import CharLM

from .encode import SmallIds

RESET_WINDOW = 256


def fastest_reader(lm: CharLM, release: Callable[[], None]) -> BlockReader[Any]:
    """Return what reads a text fastest for the functions below: on a CPU the engine, with its compiled kernels.

    torch takes twice as long for a GRU there, and for one that remembers long eight times. The engine reads on as many
    threads as torch would.

    release: gives back the memory that reading a mapped text takes.
    """
    if lm.device == "cpu" and load_kernels() is not None:
        with suppress(ModelFileError):  # its weights are too large for the engine; perhaps its losses are numbers
            return EngineReader(lm.engine, release, min(count_scoring_threads(), torch.get_num_threads()))
    return NetworkReader(lm.network, release)


def carried_loss(reader: BlockReader[Any], ids: SmallIds) -> float:
    """Return the mean loss of the N - 1 predictions in a text (N,), read in order from a zero state that is carried.

    `charlm.inference.scoring` says how a long text is read in stretches side by side.
    """
    return sum(_carried_sums(reader, ids, len(ids))) / (len(ids) - 1)


def carried_losses_of_halves(reader: BlockReader[Any], ids: SmallIds) -> tuple[float, float]:
    """Return the mean losses of the first N // 2 symbols of a text (N,), N ≥ 4, and of the others.

    The first symbol is not predicted. The state is carried from the first half to the second: both come from the one
    pass that `carried_loss` makes.
    """
    half = len(ids) // 2
    first, second = _carried_sums(reader, ids, half)
    return first / (half - 1), second / (len(ids) - half)


def _carried_sums(reader: BlockReader[Any], ids: SmallIds, cut: int) -> tuple[float, float]:
    """Return the sums of the losses of the symbols before `cut` and from there on, as `carried_loss` reads them."""
    block = reader.stretches * reader.longest_stretch  # copied from the mapped text, and released by its first pass
    pieces = (ids[first : first + block].astype(np.int64) for first in range(0, len(ids), block))
    before, after, place = 0.0, 0.0, 1  # the first symbol is not predicted
    for losses in surprisals(reader, pieces):
        inside = max(0, cut - place)
        before += float(losses[:inside].sum())
        after += float(losses[inside:].sum())
        place += len(losses)
    return before, after


def reset_loss(reader: BlockReader[Any], ids: SmallIds) -> float:
    """Return the mean loss over the same predictions with the state zero at the start of every RESET_WINDOW.

    Every position counts, as in projects whose models see at most that many characters.
    """
    predictions = len(ids) - 1
    whole = predictions // RESET_WINDOW
    starts = RESET_WINDOW * np.arange(whole)
    total = RESET_WINDOW * whole * windows_loss(reader, ids, starts, RESET_WINDOW)
    rest = predictions % RESET_WINDOW  # the last window, cut short by the end of the text
    if rest:
        total += rest * windows_loss(reader, ids, np.array([whole * RESET_WINDOW]), rest)
    return total / predictions


def windows_loss(reader: BlockReader[Any], ids: SmallIds, starts: NDArray[np.int64], window: int) -> float:
    """Return the mean loss over windows of a text that start at `starts` (M,), each from the zero state; 0 if none."""
    if not len(starts):
        return 0.0
    per_pass = max(1, MOST_LOGITS // (window * reader.symbols))  # windows side by side
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
