"""Writing on a GPU, many steps handed over at once, so that nothing waits for a symbol on its way; scoring there."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.network import Network
from charlm.sampling import COLDEST, MANY, Sampler, check_finite, surprisals_of
from charlm.vocab import Ids

AT_ONCE = 64  # symbols between two looks at what the GPU has written
READ_LENGTH = 4096  # symbols of a prompt, or of a text that is scored, in one pass


class GpuWriter:
    """Continues one text with a network, the drawing of symbols included; on CUDA, as a graph that is replayed.

    A text draws the same random numbers as on the CPU, so it is the same except where rounding tips a draw.
    """

    def __init__(self, network: Network, sampler: Sampler) -> None:
        self._network = network
        self._sampler = sampler
        device = network.device
        # what a step reads and writes stays where it is: a graph knows addresses only
        self._precise = torch.float32 if device.type == "mps" else torch.float64
        self._id = torch.zeros(1, 1, dtype=torch.long, device=device)
        self._place = torch.zeros(1, dtype=torch.long, device=device)
        self._random = torch.zeros(AT_ONCE, dtype=self._precise, device=device)
        self._ids = torch.zeros(AT_ONCE, dtype=torch.long, device=device)
        self._finite = torch.ones((), dtype=torch.bool, device=device)  # whether all logits were so far
        self._logits: Tensor
        self._states: list[Tensor]

    @torch.inference_mode()
    def write(self, prompt: Ids, length: int) -> Iterator[int]:
        """Read a prompt (T,), then yield `length` ids drawn one after another."""
        state = None
        for start in range(0, len(prompt), READ_LENGTH):
            part = torch.from_numpy(prompt[start : start + READ_LENGTH]).to(self._network.device)
            logits, state = self._network(part[:, None], state)
        self._logits = logits[-1].clone()  # (1, V)
        self._states = [part.clone() for part in (state if isinstance(state, tuple) else (state,))]
        step = self._captured() if self._network.device.type == "cuda" else self._step
        for start in range(0, length, AT_ONCE):
            count = min(AT_ONCE, length - start)
            self._place.zero_()
            randoms = torch.tensor(list(islice(self._sampler.randoms, count)), dtype=self._precise)
            self._random[:count] = randoms.to(self._random.device)
            for _ in range(count):
                step()
            ids = self._ids[:count].tolist()  # the only wait
            if not self._finite.item():
                check_finite(math.nan)
            yield from ids

    def _step(self) -> None:
        """Draw a symbol from the logits and read it."""
        self._finite.logical_and_(self._logits.isfinite().all())
        drawn = self._draw(self._logits[0])
        self._ids.index_copy_(0, self._place, drawn)
        self._id[0] = drawn
        self._place += 1
        state = tuple(self._states) if len(self._states) > 1 else self._states[0]
        logits, state = self._network(self._id, state)
        self._logits.copy_(logits[0])
        for kept, new in zip(self._states, state if isinstance(state, tuple) else (state,), strict=True):
            kept.copy_(new)

    def _draw(self, logits: Tensor) -> Tensor:
        """Return the id (1,) that `charlm.sampling.Samplers` would draw from logits (V,)."""
        sampler = self._sampler
        if sampler.temperature == 0:
            return logits.argmax(keepdim=True)
        scaled = logits.to(self._precise) / max(sampler.temperature, COLDEST)
        weights = (scaled - scaled.max()).exp()
        if 0 < sampler.top_k < len(weights) or sampler.top_p < 1:
            ranked, order = weights.sort(descending=True, stable=True)
            ranked[min(sampler.top_k or MANY, len(ranked)) :] = 0
            if sampler.top_p < 1:
                reached = ranked.cumsum(0)
                ranked[1:][reached[:-1] >= sampler.top_p * reached[-1]] = 0
            weights = torch.zeros_like(weights).scatter_(0, order, ranked)
        cumulative = weights.cumsum(0)
        # a little less than the total at most, whatever is rounded: no symbol of weight 0 is drawn
        below_one = 1 - torch.finfo(self._precise).eps
        target = self._random.index_select(0, self._place) * below_one * cumulative[-1]
        return torch.searchsorted(cumulative, target, right=True).clamp(max=len(weights) - 1)

    def _captured(self) -> Callable[[], None]:
        """Capture a step as a CUDA graph."""
        kept = [self._logits.clone(), *[part.clone() for part in self._states]]
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # what is set up at the first calls must not be captured
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step()
        for tensor, before in zip([self._logits, *self._states], kept, strict=True):
            tensor.copy_(before)
        return graph.replay


def score(network: Network, pieces: Iterable[Ids]) -> Iterator[NDArray[np.float64]]:
    """Yield what `charlm.scoring.surprisals` does, with a network that reads one symbol after another."""
    state, last = None, np.zeros(0, np.int64)
    for piece in pieces:
        ids = np.concatenate([last, piece])
        for start in range(0, len(ids) - 1, READ_LENGTH):
            part = ids[start : start + READ_LENGTH + 1]
            with torch.inference_mode():
                logits, state = network(torch.from_numpy(part[:-1, None]).to(network.device), state)
            yield surprisals_of(part[1:], logits[:, 0].cpu().numpy())
        last = ids[-1:]


def seconds_per_symbol(network: Network, symbols: int = 256) -> float:
    """Measure how long a symbol takes to write."""
    writer = GpuWriter(network, Sampler(seed=0))
    written = writer.write(torch.zeros(1, dtype=torch.long).numpy(), 2 * symbols)
    for _ in range(symbols):
        next(written)
    begin = time.perf_counter()
    for _ in written:
        pass
    return (time.perf_counter() - begin) / symbols
