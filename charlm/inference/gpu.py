"""The torch network as a backend: writes batches of streams on a GPU, and reads texts for scoring on any device.

On a GPU the time of a small kernel is that of launching it. So STEPS_PER_CALL steps, the drawing included, are captured
as one CUDA graph and launched at once. A graph is captured for a fixed number of slots; a batch takes the next larger
one and leaves the slots beyond its streams unused. On other devices the same steps run one by one.

A stream draws the random numbers that it would draw on the CPU, so it becomes the same text, except where rounding
decides a draw. The same holds of a stream alone and in a batch: cuBLAS may sum a product with another number of rows in
another order, so on CUDA equality to the last bit is likely but not guaranteed. Captured or not, the operations of a
step are the same.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from charlm.inference.sampling import ANY_COUNT, LOWEST_TEMPERATURE, MOST_LOGITS, Sampler, Surprisals, check_finite, cut
from charlm.inference.scoring import surprisals
from charlm.model.config import LAYER_TENSORS
from charlm.model.network import Network, State, from_torch, to_torch
from charlm.vocab import Ids

STEPS_PER_CALL = 64  # symbols of each stream
MOST_PREFILLED = 4096  # symbols of a prompt that are read in one pass
LOWEST_FLOAT32_TEMPERATURE = 1e-30  # LOWEST_TEMPERATURE where the device has no float64: no quotient overflows
SLOTS_GROWTH = 4  # graphs have 1, 4, 16, … slots
MOST_CANDIDATES = 1024  # likeliest symbols that top-k and top-p choose from; if these are too few, all are sorted

# Captures and passes through the network take turns, one thread at a time: the GPU does one thing at a time anyway.
_gpu_lock = Lock()

Layers = Sequence[State]  # for each layer its state alone, (S, H)


@dataclass(frozen=True)
class GpuState:
    """Where S streams stand: the logits (S, V) of their next symbols, and the network's state, tensors (L, S, H)."""

    logits: Tensor
    state: State

    def take(self, slots: Sequence[int]) -> "GpuState":
        """Return some of the streams, copied."""
        index = torch.tensor(slots, dtype=torch.long, device=self.logits.device)
        return GpuState(self.logits.index_select(0, index), tuple(part.index_select(1, index) for part in self.state))

    @classmethod
    def join(cls, parts: Sequence["GpuState"]) -> "GpuState":
        """Put streams side by side."""
        state = zip(*(part.state for part in parts), strict=True)
        return cls(torch.cat([part.logits for part in parts]), tuple(torch.cat(each, dim=1) for each in state))


class GpuBackend:
    """A network as a backend of the batch scheduler."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._loops: dict[tuple[int, bool, int], _DecodingLoop] = {}

    @torch.inference_mode()
    def prefill(self, prompt: Ids) -> GpuState:
        """See Backend."""
        with _gpu_lock:
            return self.read(prompt, self.network.zero_state(1))

    def read(self, prompt: Ids, state: State) -> GpuState:
        """Read one or more ids (T,) of one stream, from the state before them. The caller has the lock."""
        for start in range(0, len(prompt), MOST_PREFILLED):
            ids = torch.from_numpy(prompt[start : start + MOST_PREFILLED, None]).to(self.network.device)
            with _in_float32():
                hidden, state = self.network.read(ids, state)
        # only the last position is predicted from: (T, 1, H), then (1, H) → (1, V)
        return GpuState(self.network.head(hidden[-1]), state)

    def start_batch(self) -> "_GpuBatch":
        """See Backend."""
        return _GpuBatch(self)

    def most_workers(self) -> int:
        """See Backend. A second batch would wait for the first."""
        return 1

    def count_workers(self, streams: int, most: int) -> int:
        """See Backend."""
        return 1

    def loop(self, streams: int, is_limited: bool, candidates: int = MOST_CANDIDATES) -> "_DecodingLoop":
        """Return the decoding loop with enough slots, which is captured at its first use.

        is_limited, candidates: see `draw`.
        """
        slots = 1
        while slots < streams:
            slots *= SLOTS_GROWTH
        key = slots, is_limited, candidates
        if key not in self._loops:
            self._loops[key] = _DecodingLoop(self.network, *key)
        return self._loops[key]


class _GpuBatch:
    """See charlm.inference.batching.Batch."""

    def __init__(self, backend: GpuBackend) -> None:
        self._backend = backend
        self._streams: GpuState | None = None
        self._samplers: list[Sampler] = []
        self._candidates = MOST_CANDIDATES

    @torch.inference_mode()
    def join(self, prefilled: Sequence[GpuState], samplers: Sequence[Sampler]) -> None:
        """See Batch."""
        with _gpu_lock:
            self._streams = GpuState.join([*([self._streams] if self._streams else []), *prefilled])
        self._samplers += samplers
        self._candidates = MOST_CANDIDATES

    @torch.inference_mode()
    def write(self, left: Sequence[int], most: int, should_stop: Callable[[], bool]) -> tuple[Ids, Surprisals]:
        """See Batch. N is the least of STEPS_PER_CALL, `most` and the largest of `left`."""
        assert self._streams is not None, "a batch without streams has nothing to write"
        is_limited = any(sampler.settings.is_limited for sampler in self._samplers)
        # a stream takes no more random numbers than it has symbols left; the zeros behind them draw what is ignored
        count = min(STEPS_PER_CALL, most, max(left))
        goes_on = max(left) > count
        taken = [list(islice(each.randoms, min(count, own))) for each, own in zip(self._samplers, left, strict=True)]
        randoms = [own + [0.0] * (count - len(own)) for own in taken]
        with _gpu_lock:
            loop = self._backend.loop(len(left), is_limited, self._candidates)
            ids, surprisals, after, is_exact = loop.write(self._streams, self._samplers, randoms, goes_on)
            if not is_exact:  # the same again with all symbols as candidates, until other streams are in the batch
                self._candidates = len(self._backend.network.config.vocab)
                loop = self._backend.loop(len(left), is_limited, self._candidates)
                ids, surprisals, after, _ = loop.write(self._streams, self._samplers, randoms, goes_on)
            self._streams = after
        if not np.isfinite(surprisals).all():
            check_finite(math.nan)
        return ids, surprisals

    @torch.inference_mode()
    def force(self, slot: int, id: int) -> float:
        """See Batch."""
        assert self._streams is not None, "a batch without streams has nothing to write"
        self._samplers[slot].skip(1)
        with _gpu_lock:
            alone = self._streams.take([slot])
            surprisal = -float(alone.logits.log_softmax(1)[0, id])
            after = self._backend.read(np.array([id]), alone.state)
            index = torch.tensor([slot], device=after.logits.device)
            self._streams.logits.index_copy_(0, index, after.logits)
            for here, there in zip(self._streams.state, after.state, strict=True):
                here.index_copy_(1, index, there)
        return check_finite(surprisal)

    @torch.inference_mode()
    def keep(self, slots: Sequence[int]) -> None:
        """See Batch."""
        if self._streams is not None and len(slots) < len(self._samplers):
            with _gpu_lock:
                self._streams = self._streams.take(slots)
            self._samplers = [self._samplers[slot] for slot in slots]
            self._candidates = MOST_CANDIDATES


class _DecodingLoop:
    """STEPS_PER_CALL times: draw a symbol in each of P slots and read it. On CUDA a captured graph.

    A graph works on fixed addresses. So its inputs and outputs have tensors of their own, and the streams' states are
    copied there and back. Drawing takes memory for MOST_LOGITS logits at a time, or those of one slot.
    """

    def __init__(self, network: Network, slots: int, is_limited: bool, candidates: int) -> None:
        """is_limited, candidates: see `draw`."""
        config, device = network.config, network.device
        self._network, self._is_limited, self._candidates = network, is_limited, candidates
        self._cells = [_single_step_cell(network, layer) for layer in range(config.num_layers)]
        self._logits = torch.zeros(slots, len(config.vocab), device=device)
        self._state = network.zero_state(slots)
        has_float64 = device.type != "mps"
        self._lowest_temperature = LOWEST_TEMPERATURE if has_float64 else LOWEST_FLOAT32_TEMPERATURE
        dtype = torch.float64 if has_float64 else torch.float32
        self._settings = torch.ones(4, slots, 1, dtype=dtype, device=device)  # see _column
        self._randoms = torch.zeros(STEPS_PER_CALL, slots, 1, dtype=dtype, device=device)
        self._ids = torch.zeros(STEPS_PER_CALL, slots, dtype=torch.long, device=device)
        self._surprisals = torch.zeros(STEPS_PER_CALL, slots, device=device)
        self._is_exact = torch.ones((), dtype=torch.bool, device=device)  # see `draw`
        self._graph = self._capture() if device.type == "cuda" else None

    def write(
        self, streams: GpuState, samplers: Sequence[Sampler], randoms: Sequence[Sequence[float]], goes_on: bool
    ) -> tuple[Ids, Surprisals, GpuState, bool]:
        """Write N symbols of S streams; return their ids (N, S), their surprisals (N, S), and where the streams stand.

        The last value tells whether top-k and top-p were exact; if not, there were too few candidates.
        randoms: the numbers to draw with, (S, N). goes_on: whether it matters where the streams stand after N symbols.
        """
        size, count = len(randoms), len(randoms[0])
        # 1) copy the inputs to the loop's tensors
        self._settings[:, :size, 0] = self._on_device([self._column(sampler) for sampler in samplers]).T
        self._settings[:, size:] = 1  # unused slots take the likeliest symbol, for which one candidate is enough
        self._randoms[:count, :size, 0] = self._on_device(randoms).T
        self._logits[:size] = streams.logits
        for here, there in zip(self._state, streams.state, strict=True):
            here[:, :size] = there
        # 2) draw and read; a graph always makes STEPS_PER_CALL steps, so it takes the streams that far
        if self._graph and (count == STEPS_PER_CALL or not goes_on):
            self._graph.replay()
        else:
            self._run(count)
        # 3) copy the outputs back; the first copy to the CPU waits for the GPU
        after = GpuState(self._logits[:size].clone(), tuple(part[:, :size].clone() for part in self._state))
        ids: Ids = self._ids[:count, :size].cpu().numpy().copy()
        return ids, self._surprisals[:count, :size].cpu().double().numpy(), after, bool(self._is_exact)

    def _on_device(self, numbers: Sequence[Sequence[float]]) -> Tensor:
        return torch.tensor(numbers, dtype=self._randoms.dtype).to(self._randoms.device)

    def _column(self, sampler: Sampler) -> tuple[float, float, float, float]:
        """Return what `_settings` holds of a stream: temperature, top-k, top-p, and 1 for the likeliest symbol only."""
        settings = sampler.settings
        temperature = max(settings.temperature, self._lowest_temperature)
        return temperature, min(settings.top_k or ANY_COUNT, ANY_COUNT), settings.top_p, settings.temperature == 0

    def _run(self, count: int) -> None:
        """Draw and read so many symbols in each slot."""
        logits = self._logits
        layers: Layers = list(zip(*self._state, strict=True))
        self._is_exact.fill_(True)
        for step in range(count):
            for part in cut(*logits.shape):
                settings, randoms = self._settings[:, part], self._randoms[step, part]
                ids, is_exact = draw(logits[part], settings, randoms, self._is_limited, self._candidates)  # (P, 1)
                self._ids[step, part] = ids[:, 0]
                self._surprisals[step, part] = -logits[part].log_softmax(1).gather(1, ids)[:, 0]
                self._is_exact.logical_and_(is_exact)
            logits, layers = self._read(self._ids[step], layers)
        self._logits.copy_(logits)
        for here, parts in zip(self._state, zip(*layers, strict=True), strict=True):
            here.copy_(torch.stack(parts))

    def _read(self, ids: Tensor, layers: Layers) -> tuple[Tensor, Layers]:
        """Read ids (P,); return the logits (P, V) and the layers' states."""
        inputs, after = self._network.embedding(ids), []
        for cell, state in zip(self._cells, layers, strict=True):
            after.append(from_torch(cell(inputs, to_torch(state))))
            inputs = after[-1][0]
        return self._network.head(inputs), after

    def _capture(self) -> torch.cuda.CUDAGraph:
        """Capture all steps as a graph."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._run(1)  # the libraries' set-up at the first calls must not be captured
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            self._run(STEPS_PER_CALL)
        return graph


def _single_step_cell(network: Network, layer: int) -> nn.Module:
    """Return a layer of the network as a cell of torch.nn, which in a graph is faster than cuDNN for a single step."""
    config = network.config
    kind: type[nn.RNNCellBase] = getattr(nn, config.kind.torch_class + "Cell")
    with torch.device("meta"):
        cell = kind(config.hidden_size if layer else config.embedding_size, config.hidden_size)  # type: ignore[call-arg]
    for name in LAYER_TENSORS:
        setattr(cell, name, getattr(network.recurrent, f"{name}_l{layer}"))
    return cell


def draw(
    logits: Tensor, settings: Tensor, random: Tensor, is_limited: bool, candidates: int = MOST_CANDIDATES
) -> tuple[Tensor, Tensor]:
    """Return an id (P, 1) for each row of logits (P, V), as `charlm.inference.sampling.BatchSampler` draws it.

    The second tensor, (), tells whether top-k and top-p are exact: if not, there were too few candidates.

    settings: temperature, top-k, top-p and whether to take the likeliest, (4, P, 1). random: numbers in [0, 1), (P, 1).
    is_limited: whether top-k and top-p are applied.
    candidates: how many of the likeliest symbols they choose from. From V on all symbols are sorted, which is exact.
    """
    temperature, top_k, top_p, takes_likeliest = settings
    weights = torch.softmax(logits / temperature, 1)
    is_exact = torch.ones((), dtype=torch.bool, device=weights.device)
    if is_limited:
        weights, exact_rows = _limit(weights, top_k, top_p, candidates)
        is_exact = (exact_rows | (takes_likeliest > 0)).all()
    cumulative = weights.cumsum(1)
    # a little below the total, so that no symbol of weight 0 is drawn, however the product is rounded
    target = random * (1 - torch.finfo(weights.dtype).eps) * cumulative[:, -1:]
    drawn = torch.searchsorted(cumulative, target, right=True).clamp(max=weights.shape[1] - 1)
    return torch.where(takes_likeliest > 0, logits.argmax(1, keepdim=True), drawn), is_exact


def _limit(weights: Tensor, top_k: Tensor, top_p: Tensor, candidates: int) -> tuple[Tensor, Tensor]:
    """Set to 0 what top-k and top-p (P, 1) exclude of weights (P, V).

    The second tensor, (P, 1), tells for which rows that is exact: for the others there were too few candidates.
    """
    symbols = weights.shape[1]
    # 1) the candidates, largest first, the first of equals before the others
    places = _largest(weights, candidates) if candidates < symbols else None
    ranked, order = (weights if places is None else weights.gather(1, places)).sort(dim=1, descending=True, stable=True)
    if places is not None:
        order = places.gather(1, order)
    # 2) top-k, then top-p of what that leaves: without top-k, of all symbols
    ranked = ranked.where(torch.arange(ranked.shape[1], device=ranked.device) < top_k, 0)
    cumulative = ranked.cumsum(1)
    keeps_all, excludes = top_k >= symbols, top_p < 1
    total = cumulative[:, -1:] if places is None else torch.where(keeps_all, weights.sum(1, True), cumulative[:, -1:])
    wanted = top_p * total
    ranked[:, 1:].masked_fill_(((cumulative >= wanted) & excludes)[:, :-1], 0)
    limited = torch.zeros_like(weights).scatter_(1, order, ranked)
    if places is None:
        return limited, torch.ones_like(keeps_all)
    # 3) the sum of all depends on their order by at most this factor: is the end of top-p the same in any order?
    error = 2 * symbols * torch.finfo(weights.dtype).eps
    reached = cumulative[:, -1:] >= wanted * (1 + error)
    is_certain = reached & ((cumulative >= wanted * (1 - error)) == (cumulative >= wanted * (1 + error))).all(1, True)
    is_exact = torch.where(keeps_all, ~excludes | is_certain, top_k <= candidates)
    return torch.where(keeps_all & ~excludes, weights, limited), is_exact


def _largest(weights: Tensor, count: int) -> Tensor:
    """Return the places (P, count) of the largest of weights (P, V), the first of equals, in ascending order.

    No shape depends on a value, as capturing a graph demands.
    """
    smallest = weights.topk(count, dim=1).values[:, -1:]
    larger, equal = weights > smallest, weights == smallest
    is_taken = larger | (equal & (equal.cumsum(1) <= count - larger.sum(1, keepdim=True)))
    # whatever is not taken is written to one more column, which is dropped
    column = (is_taken.cumsum(1) - 1).where(is_taken, count)
    places = column.new_zeros(len(weights), count + 1)
    every = torch.arange(weights.shape[1], device=weights.device).expand_as(column)
    return places.scatter_(1, column, every)[:, :count]


def _in_float32() -> AbstractContextManager[None]:
    """Return a context in which recurrent layers run in float32: cuDNN's TF32 has a mantissa of only 10 bits."""
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    return flags


@dataclass(frozen=True)
class NetworkState:
    """The state of S texts as a network has it: tensors (L, S, H)."""

    parts: State

    def take(self, places: Sequence[int]) -> "NetworkState":
        """Return some of the texts, copied."""
        return NetworkState(tuple(part[:, places] for part in self.parts))

    def put(self, places: Sequence[int], state: "NetworkState") -> None:
        """Overwrite some of the texts."""
        for ours, theirs in zip(self.parts, state.parts, strict=True):
            ours[:, places] = theirs

    def same(self, other: "NetworkState", tolerance: float) -> NDArray[np.bool_]:
        """Return for each text, (S,), whether no unit differs by more than `tolerance`."""
        pairs = zip(self.parts, other.parts, strict=True)
        near = [((ours - theirs).abs() <= tolerance).all(2).all(0) for ours, theirs in pairs]
        both: NDArray[np.bool_] = torch.stack(near).all(0).cpu().numpy()
        return both


class NetworkReader:
    """A network as the scorer's BlockReader (`charlm.inference.scoring`).

    stretches: all worth it when they are short, since the time of a call of a torch layer hardly depends on them.
    longest_stretch, check_interval: longer than the engine's, since each such call takes a while to begin.
    many_stretches: as many as the first, so that nothing is tried out.
    in_order: not on a GPU, where reading all stretches again takes as long as reading one.
    """

    stretches = first_stretches = many_stretches = 32
    long_stretch = 2**15
    longest_stretch = 2**15
    check_interval = 256

    def __init__(self, network: Network, release: Callable[[], None] = lambda: None) -> None:
        """release: called after each pass, to give back the memory of a text that is mapped from a file."""
        self._network, self._release, self.symbols = network, release, len(network.config.vocab)
        self.in_order = network.device.type == "cpu"

    def zero_state(self) -> NetworkState:
        """See BlockReader."""
        return NetworkState(self._network.zero_state(1))

    def join(self, states: Sequence[NetworkState]) -> NetworkState:
        """See BlockReader."""
        return NetworkState(
            tuple(torch.cat(parts, dim=1) for parts in zip(*(state.parts for state in states), strict=True))
        )

    @torch.inference_mode()
    def read(self, ids: Ids, state: NetworkState) -> tuple[Surprisals, NetworkState]:
        """See BlockReader. Surprisals that are not finite are returned as they are.

        A pass makes at most MOST_LOGITS logits: a vocabulary may have thousands of symbols, and Ctrl-C waits for the
        end of a pass.
        """
        steps = max(1, MOST_LOGITS // (ids.shape[1] * len(self._network.config.vocab)))
        scores, parts = [np.empty((0, ids.shape[1]))], state.parts
        for first in range(0, len(ids) - 1, steps):
            part = ids[first : first + steps + 1]
            with _gpu_lock:
                symbols = torch.from_numpy(np.ascontiguousarray(part)).to(self._network.device)
                with _in_float32():
                    logits, parts = self._network(symbols[:-1], parts)  # (T, S, V)
                each = cross_entropy(logits.flatten(0, 1), symbols[1:].flatten(), reduction="none")
                scores.append(each.view(len(part) - 1, -1).cpu().double().numpy())
            self._release()
        return np.concatenate(scores), NetworkState(parts)

    def count_threads(self, stretches: int) -> int:
        """See BlockReader. torch shares out the work itself."""
        return 1


def score(network: Network, pieces: Iterable[Ids]) -> Iterator[Surprisals]:
    """Yield the surprisals of a text as `charlm.inference.scoring.surprisals` does.

    Raises ModelFileError if the logits are not finite.
    """
    for part in surprisals(NetworkReader(network), pieces):
        if not np.isfinite(part).all():
            check_finite(math.nan)
        yield part
