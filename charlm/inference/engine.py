"""The model as it runs on a CPU: S texts read side by side, so that each weight is read from memory once for all.

With x the input of a layer, h its hidden state and c the LSTM's cell state, and ∘ the product unit by unit, a step is

    RNN     h' = tanh(W x + U h + b)
    LSTM    i, f, o = sigmoid(W x + U h + b), for each gate its own; g = tanh(W x + U h + b)
            c' = f ∘ c + i ∘ g;  h' = o ∘ tanh(c')
    GRU     r, z = sigmoid(W x + U h + b); n = tanh(W x + b + r ∘ (U h + d));  h' = (1 - z) ∘ n + z ∘ h

with the weights of `torch.nn`, and b the sum of its two biases except in n. The logits are a linear map of the last h.
The first layer's W x + b takes only as many values as there are symbols, so it is looked up in a table, unless that
would have more than LARGEST_TABLE numbers.

The arithmetic is done by compiled kernels where they can be had, and else by numpy. The kernels make every sum in a
stated order (see kernels.c): a text is the same to the last bit alone or in a batch, on any number of threads and on
any processor. `charlm.inference.numpy_model` says what is left of that without them.

Letters for shapes, besides those of `charlm.model.network`: S texts; R rows of a product; U units of a layer as its
states are kept, H or more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm.errors import ModelFileError
from charlm.inference.compiled import load_kernels
from charlm.inference.compiled_model import CompiledModel
from charlm.inference.numpy_model import NumpyModel
from charlm.inference.sampling import BatchSampler
from charlm.model.config import ModelConfig, Weights
from charlm.vocab import Ids

Array = NDArray[np.float32]

LARGEST_WEIGHT = 1e15  # its square, times the number of terms in a sum, is a finite float32
LARGEST_TABLE = 2**23  # numbers, 32 MB; 65 symbols and an LSTM of 512 units have 2**17
THREAD_WORK = 1_000_000  # multiplications of a step that are worth a thread
ROWS_PER_READ = 1024  # symbols whose hidden states are kept at a time while logits or surprisals are computed


class Engine:
    """The weights of a model, arranged for reading. It never changes, so threads may share one.

    It takes the memory of the model, half of it where the weights fit bfloat16, with units and symbols padded to
    multiples of 16. The table of the first layer takes 32 MB at most.
    """

    def __init__(self, config: ModelConfig, weights: Weights) -> None:
        """weights: float32 arrays with the names and shapes of `config.tensor_shapes`.

        Raises ModelFileError if some are so large that a logit might not be finite.
        """
        if any(max(array.max(), -array.min()) > LARGEST_WEIGHT for array in weights.values()):
            raise ModelFileError(
                f"the model has weights over {LARGEST_WEIGHT:.0e}, as after a training that diverged; use another model"
            )
        self.symbols = len(config.vocab)  # V
        self.units = config.hidden_size  # H
        self.num_layers = config.num_layers  # L
        self.has_cell_state = config.kind.states > 1
        kernels = load_kernels()
        self.model: CompiledModel | NumpyModel = (
            NumpyModel(config, weights, LARGEST_TABLE)
            if kernels is None
            else CompiledModel(kernels, config, weights, LARGEST_TABLE)
        )
        matrices = [array for name, array in weights.items() if array.ndim == 2 and not name.startswith("embedding")]
        self.work = sum(array.size for array in matrices)  # multiplications of a step of one text, at most

    def zero_state(self, texts: int) -> "State":
        """Return the state before the first symbol."""
        shape = self.num_layers, texts, self.model.units
        return State(
            np.zeros(shape, np.float32), np.zeros(shape if self.has_cell_state else (0, *shape[1:]), np.float32)
        )

    def count_threads(self, texts: int, most: int) -> int:
        """Return over how many threads, at most `most`, to spread texts that are read side by side."""
        return max(1, min(most, texts, texts * self.work // THREAD_WORK))

    def units_of(self, state: "State") -> tuple[Array, Array | None]:
        """Return the hidden states (L, S, H) as torch.nn defines them, and the LSTM's cell states (L, S, H)."""
        hidden, cell_state = (part[..., : self.units] for part in state.parts)
        return hidden, cell_state if self.has_cell_state else None


@dataclass(frozen=True)
class State:
    """The recurrent state of S texts.

    hidden: (L, S, U).
    cell_state: (L, S, U), of the LSTM; the other cells have none, (0, S, U).
    """

    hidden: Array
    cell_state: Array

    def take(self, places: Sequence[int]) -> "State":
        """Return some of the texts, copied."""
        return State(self.hidden.take(places, axis=1), self.cell_state.take(places, axis=1))

    def put(self, places: Sequence[int], state: "State") -> None:
        """Overwrite some of the texts."""
        self.hidden[:, places], self.cell_state[:, places] = state.hidden, state.cell_state

    def same(self, other: "State", tolerance: float) -> NDArray[np.bool_]:
        """Return for each text, (S,), whether no unit differs by more than `tolerance`."""
        near = [np.abs(ours - theirs) <= tolerance for ours, theirs in zip(self.parts, other.parts, strict=True)]
        return np.array(np.concatenate(near).all(axis=(0, 2)))

    @property
    def parts(self) -> tuple[Array, Array]:
        """Both arrays."""
        return self.hidden, self.cell_state

    @classmethod
    def join(cls, parts: Sequence["State"]) -> "State":
        """Put texts side by side."""
        hidden, cell_state = zip(*(part.parts for part in parts), strict=True)
        return cls(np.concatenate(hidden, axis=1), np.concatenate(cell_state, axis=1))


class Reader:
    """Reads S texts side by side and keeps their state."""

    def __init__(self, engine: Engine, start: State | int = 1) -> None:
        """start: the state to begin with, or how many texts begin from the zero state."""
        self._engine = engine
        self._state = engine.zero_state(start) if isinstance(start, int) else State(*map(np.array, start.parts))

    @property
    def texts(self) -> int:
        """How many texts are read, S."""
        return int(self._state.hidden.shape[1])

    @property
    def state(self) -> State:
        """The present state, copied."""
        return State(*map(np.array, self._state.parts))

    def advance(self, ids: Ids | Sequence[int]) -> None:
        """Read a symbol of each text, ids (S,), without predicting the next."""
        self._engine.model.read(np.asarray(ids, np.int64)[None], *self._state.parts)

    def prefill(self, ids: Ids) -> None:
        """Read several symbols of each text, ids (T, S), without predicting any."""
        self._engine.model.read(ids, *self._state.parts)

    def logits(self) -> Array:
        """Return the logits (S, V) of the present state."""
        return self._engine.model.logits(self._state.hidden[-1])

    def surprisals(self, ids: Ids) -> NDArray[np.float64]:
        """Return the surprisals (S,) in nats that ids (S,) would have as the next symbols.

        Raises ModelFileError if a logit is not finite.
        """
        return self._engine.model.score(self._state.hidden[-1], ids)

    def read(self, ids: Ids) -> Array:
        """Read several symbols of each text, ids (T, S); return the logits (T, S, V)."""
        return self._engine.model.logits(self._read(ids))

    def score(self, ids: Ids) -> NDArray[np.float64]:
        """Read all but the last of ids (T + 1, S); return the surprisals (T, S) in nats of all but the first.

        Raises ModelFileError if a logit is not finite.
        """
        surprisals = np.empty((len(ids) - 1, self.texts))
        steps = max(1, ROWS_PER_READ // max(1, self.texts))
        for first in range(0, len(surprisals), steps):
            part = ids[first : first + steps + 1]
            top = self._read(part[:-1])
            surprisals[first : first + steps] = self._engine.model.score(top, part[1:])
        return surprisals

    def write(self, steps: int, sampler: BatchSampler) -> tuple[Ids, NDArray[np.float64]]:
        """Draw N = `steps` symbols of each text, the first from the present state, and read all but the last.

        Return their ids (N, S) and surprisals (N, S) in nats. Raises ModelFileError if a logit is not finite.
        """
        return self._engine.model.write(steps, *self._state.parts, sampler)

    def _read(self, ids: Ids) -> Array:
        """Read ids (T, S); return the outputs of the last layer, (T, S, U)."""
        top = np.empty((*ids.shape, self._engine.model.units), np.float32)
        self._engine.model.read(ids, *self._state.parts, top)
        return top
