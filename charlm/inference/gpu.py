"""Writing on a GPU, many steps handed over at once, so that nothing waits for a symbol on its way; scoring there."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from charlm.inference.sampling import COLDEST, MANY, Sampler, check_finite, surprisals_of
from charlm.model.network import Network, State
from charlm.vocab import Ids

AT_ONCE = 64  # symbols between two looks at what the GPU has written
READ_LENGTH = 4096  # symbols of a prompt, or of a text that is scored, in one pass
COLDEST_IN_FLOAT32 = 1e-30  # COLDEST where the GPU has no float64: no logit divided by it overflows
NOT_FINITE = -1  # what stands in the place of ids that were drawn from logits which are no finite numbers

# While a graph is captured, CUDA refuses calls of other threads that wait. So one thread at a time uses the GPU, which
# does one thing at a time anyhow.
_turn = Lock()


class GpuWriter:
    """Continues texts with a network, the drawing of symbols included. Threads may use it at the same time.

    A text draws the same random numbers as on the CPU, so it is the same except where rounding tips a draw.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._passages: dict[Draw, _Passage] = {}

    @torch.inference_mode()
    def write(self, prompt: Ids, length: int, sampler: Sampler) -> Iterator[int]:
        """Read a prompt (T,), then yield `length` ids drawn one after another."""
        with _turn:
            text = self._start(prompt)
        for start in range(0, length, AT_ONCE):
            with _turn:
                ids = self._passage(sampler).write(text, min(AT_ONCE, length - start), sampler)
            yield from ids

    def _start(self, prompt: Ids) -> list[Tensor]:
        """Return where a text is after its prompt: the logits (1, V) and the parts of the state, each (L, 1, H)."""
        state: State = None
        for start in range(0, len(prompt), READ_LENGTH):
            logits, state = _read(self._network, prompt[start : start + READ_LENGTH], state)
        assert state is not None, "a prompt has at least one symbol"
        return [logits[-1:].clone(), *(state if isinstance(state, tuple) else (state,))]

    def _passage(self, sampler: Sampler) -> "_Passage":
        """Return what writes with such a sampler, which is prepared once and then serves all texts."""
        limited = 0 < sampler.top_k < len(self._network.config.vocab) or sampler.top_p < 1
        draw = draw_likeliest if sampler.temperature == 0 else draw_limited if limited else draw_any
        if draw not in self._passages:
            self._passages[draw] = _Passage(self._network, draw)
        return self._passages[draw]


class _Passage:
    """AT_ONCE steps of a text; on CUDA, captured as one graph that is replayed.

    A graph knows addresses only. So what the steps read and write stays where it is, and a text is copied there and
    back.
    """

    def __init__(self, network: Network, draw: "Draw") -> None:
        config, device = network.config, network.device
        self._network, self._draw = network, draw
        self._cells = [_cell(network, layer) for layer in range(config.num_layers)]
        self._logits = torch.zeros(1, len(config.vocab), device=device)
        shape = config.num_layers, 1, config.hidden_size
        self._state = [torch.zeros(shape, device=device) for _ in range(config.kind.states)]
        self._ids = torch.zeros(AT_ONCE, dtype=torch.long, device=device)
        is_mps = device.type == "mps"
        self._coldest = COLDEST_IN_FLOAT32 if is_mps else COLDEST
        dtype = torch.float32 if is_mps else torch.float64
        self._numbers = torch.zeros(len(Settings._fields) + AT_ONCE, dtype=dtype, device=device)
        self._settings = Settings(*self._numbers[: len(Settings._fields), None])
        self._randoms = self._numbers[len(Settings._fields) :]
        self._graph = self._captured() if device.type == "cuda" else None

    def write(self, text: list[Tensor], count: int, sampler: Sampler) -> list[int]:
        """Draw and read `count` symbols, AT_ONCE at most, from where `text` is, which is behind them then."""
        settings = Settings(max(sampler.temperature, self._coldest), sampler.top_k or MANY, sampler.top_p)
        numbers = torch.tensor([*settings, *islice(sampler.randoms, count)], dtype=self._numbers.dtype)
        self._numbers[: len(numbers)] = numbers.to(self._numbers.device)
        for here, there in zip((self._logits, *self._state), text, strict=True):
            here.copy_(there)
        if self._graph:
            self._graph.replay()
        else:
            self._run(count)
        for here, there in zip((self._logits, *self._state), text, strict=True):
            there.copy_(here)
        ids = self._ids[:count].tolist()  # the only wait
        if ids[0] == NOT_FINITE:
            check_finite(math.nan)
        return ids

    def _run(self, count: int) -> None:
        """Draw and read so many symbols."""
        logits, seen = self._logits, []
        layers = list(zip(*self._state, strict=True))
        for place in range(count):
            seen.append(logits)
            id = self._ids[place : place + 1]
            id.copy_(self._draw(logits[0], self._settings, self._randoms[place : place + 1]))
            logits, layers = self._read(id, layers)
        self._ids.masked_fill_(~torch.cat(seen).isfinite().all(), NOT_FINITE)
        self._logits.copy_(logits)
        for here, part in zip(self._state, zip(*layers, strict=True), strict=True):
            torch.stack(part, out=here)

    def _read(self, id: Tensor, layers: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
        """Read an id (1,); return the logits (1, V) and each layer's state, whose parts are (1, H)."""
        inputs, after = self._network.embedding(id), []
        for cell, state in zip(self._cells, layers, strict=True):
            read = cell(inputs, state if len(state) > 1 else state[0])
            after.append(read if isinstance(read, tuple) else (read,))
            inputs = after[-1][0]
        return self._network.head(inputs), after

    def _captured(self) -> torch.cuda.CUDAGraph:
        """Capture the steps as a graph."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._run(1)  # what is set up at the first calls must not be captured
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            self._run(AT_ONCE)
        return graph


def _cell(network: Network, layer: int) -> nn.Module:
    """Return a layer of the network as what makes a single step: in a graph, cuDNN's layers are slower at it."""
    config = network.config
    kind: type[nn.RNNCellBase] = getattr(nn, config.kind.torch_class + "Cell")
    with torch.device("meta"):
        cell = kind(config.hidden_size if layer else config.embedding_size, config.hidden_size)  # type: ignore[call-arg]
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        setattr(cell, name, getattr(network.recurrent, f"{name}_l{layer}"))
    return cell


# How a symbol is drawn, as `charlm.inference.sampling.Samplers` does


class Settings(NamedTuple):
    """A sampler's settings, each a number or one in a tensor (1,)."""

    temperature: Any
    top_k: Any
    top_p: Any


Draw = Callable[[Tensor, Settings, Tensor], Tensor]


def draw_likeliest(logits: Tensor, settings: Settings, random: Tensor) -> Tensor:
    """Return the id (1,) of the highest of logits (V,)."""
    return logits.argmax(keepdim=True)


def draw_any(logits: Tensor, settings: Settings, random: Tensor) -> Tensor:
    """Return the id (1,) that a random number (1,) picks from all symbols, for logits (V,)."""
    return _pick(torch.softmax(logits / settings.temperature, 0), random)


def draw_limited(logits: Tensor, settings: Settings, random: Tensor) -> Tensor:
    """Return the id (1,) that a random number (1,) picks from those that top-k and top-p leave, for logits (V,)."""
    weights = torch.softmax(logits / settings.temperature, 0)
    ranked, order = weights.sort(descending=True, stable=True)
    ranks = torch.arange(len(ranked), device=ranked.device)
    ranked = ranked.where(ranks < settings.top_k, 0)
    reached = ranked.cumsum(0)
    is_enough = (reached >= settings.top_p * reached[-1]) & (settings.top_p < 1)
    ranked[1:].masked_fill_(is_enough[:-1], 0)
    return _pick(torch.zeros_like(weights).scatter_(0, order, ranked), random)


def _pick(weights: Tensor, random: Tensor) -> Tensor:
    cumulative = weights.cumsum(0)
    # a little less than the total at most, whatever is rounded: no symbol of weight 0 is drawn
    target = random * (1 - torch.finfo(weights.dtype).eps) * cumulative[-1]
    return torch.searchsorted(cumulative, target, right=True).clamp(max=len(weights) - 1)


def score(network: Network, pieces: Iterable[Ids]) -> Iterator[NDArray[np.float64]]:
    """Yield what `charlm.inference.scoring.surprisals` does, with a network that reads one symbol after another."""
    state: State = None
    last = np.zeros(0, np.int64)
    for piece in pieces:
        ids = np.concatenate([last, piece])
        for start in range(0, len(ids) - 1, READ_LENGTH):
            part = ids[start : start + READ_LENGTH + 1]
            with _turn, torch.inference_mode():
                logits, state = _read(network, part[:-1], state)
                on_cpu = logits.cpu().numpy()
            yield surprisals_of(part[1:], on_cpu)
        last = ids[-1:]


def _read(network: Network, ids: Ids, state: State) -> tuple[Tensor, State]:
    """Read ids (T,) from `state`; return the logits (T, V) and the state after the last.

    In float32: left to itself, cuDNN rounds to TF32 on the way, whose numbers have 10 bits.
    """
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        logits, state = network(torch.from_numpy(ids[:, None]).to(network.device), state)
    return logits[:, 0], state


def seconds_per_symbol(network: Network, symbols: int = 256) -> float:
    """Measure how long a symbol takes to write."""
    written = GpuWriter(network).write(np.zeros(1, np.int64), 2 * symbols, Sampler(seed=0))
    for _ in range(symbols):
        next(written)
    begin = time.perf_counter()
    for _ in written:
        pass
    return (time.perf_counter() - begin) / symbols
