"""How long a model remembers: what a changed symbol does to the predictions after it, and what moved one prediction."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from charlm.engine import Engine, Reader, States
from charlm.errors import RequestError
from charlm.sampling import log_softmax
from charlm.vocab import Ids

if TYPE_CHECKING:
    from charlm.network import Network

Curve = NDArray[np.float64]

LONGEST = 256  # symbols
PLACES = 64  # where a symbol is changed
WARM_UP = 64  # symbols that are read before the first change, so that the state is a settled one
AT_ONCE = 32  # symbols for which predictions are held at a time
# What rounding alone makes of a change that is long forgotten: some 1e-6 in the logits; the divergence is its square.
ROUNDING = 1e-9
FORGOTTEN = 0.01  # nats: below that, a change makes no difference that a reader would see


def measure_memory(engine: Engine, ids: Ids, longest: int = LONGEST, places: int = PLACES, seed: int = 0) -> Curve:
    """Return how much a changed symbol alters the prediction d symbols later, in nats, for d = 1 … longest, (longest,).

    It is the mean over some places of the text, ids (T,), of the Kullback-Leibler divergence of the prediction after
    the changed text from that after the true one; d = 1 is the prediction right after the change. The symbols that take
    their place are drawn from the text. Values below ROUNDING are noise.

    Raises RequestError if the text is too short, or of one symbol only.
    """
    if len(ids) < WARM_UP + longest + places:
        raise RequestError(
            f"the text has {len(ids):,} characters that the model knows; to look {longest} back takes at least "
            f"{WARM_UP + longest + places:,}"
        )
    changed_at = np.linspace(WARM_UP, len(ids) - longest, places).astype(np.int64)
    changed = _draw_others(ids, changed_at, np.random.default_rng(seed))
    start = _states_before(engine, ids, changed_at)
    true, altered = Reader(engine, start), Reader(engine, start)
    curve = np.empty(longest)
    for first in range(0, longest, AT_ONCE):
        steps = np.arange(first, min(first + AT_ONCE, longest))
        read = ids[changed_at + steps[:, None]]  # (steps, places)
        instead = np.where(steps[:, None] == 0, changed, read)
        expected, found = log_softmax(true.read(read)), log_softmax(altered.read(instead))
        curve[steps] = (np.exp(found) * (found - expected)).sum(axis=-1).mean(axis=1)
    return np.maximum(curve, 0)


def horizon(curve: Curve, threshold: float = FORGOTTEN) -> int:
    """Return the largest distance at which a curve of `measure_memory` is above a threshold in nats; 0 if none is."""
    above = np.flatnonzero(curve > threshold)
    return int(above[-1]) + 1 if len(above) else 0


def measure_influence(network: "Network", ids: Ids) -> NDArray[np.float64]:
    """Return how strongly each symbol moved the prediction of the last of ids (T,), (T - 1,).

    It is the length of the gradient of the log-probability of that last symbol by the embedding of each earlier one
    (Madsen, "Visualizing memorization in RNNs", Distill, 2019). Raises RequestError for fewer than two symbols.
    """
    if len(ids) < 2:
        raise RequestError("there is nothing that could have moved the prediction of a first character")
    import torch

    # in double precision, where a gradient that fades has no denormal numbers, which a CPU is twenty times as slow with
    double = type(network).from_weights(network.config, network.export_weights()).double()
    inputs = double.embedding(torch.from_numpy(ids[:-1, None])).requires_grad_()  # (T - 1, 1, E)
    hidden, _ = double.recurrent(inputs)
    log_probability = double.head(hidden[-1, 0]).log_softmax(-1)[int(ids[-1])]
    (gradient,) = torch.autograd.grad(log_probability, inputs)
    norms: NDArray[np.float64] = gradient[:, 0].norm(dim=-1).numpy()
    return norms


def _draw_others(ids: Ids, places: Ids, random: np.random.Generator) -> Ids:
    """Draw for each place a symbol of the text that does not stand there."""
    symbols = np.unique(ids)
    if len(symbols) < 2:
        raise RequestError("the text has only one kind of character: there is no other to put in its place")
    drawn = symbols[random.integers(len(symbols) - 1, size=len(places))]
    return np.where(drawn == ids[places], symbols[-1], drawn)  # any of the others, all equally likely


def _states_before(engine: Engine, ids: Ids, places: Ids) -> States:
    """Return where a reader of the text stands before each of the places, side by side."""
    reader, found, last = Reader(engine), [], 0
    for place in places.tolist():
        reader.read(ids[last:place, None])
        found.append(reader.states)
        last = place
    return States.join(found)
