"""How long a model remembers: what a changed symbol does to the predictions after it, and what moved one prediction."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from charlm.checks import check_whole
from charlm.errors import RequestError
from charlm.inference.engine import Array, Engine, Reader, State
from charlm.inference.sampling import check_finite, log_softmax
from charlm.vocab import Ids

if TYPE_CHECKING:
    from charlm.model.network import Network

Curve = NDArray[np.float64]

LONGEST = 256  # symbols
PLACES = 64  # where a symbol is changed
WARM_UP = 64  # symbols that are read before the first change, so that the state is a settled one
AT_ONCE = 32  # symbols for which predictions are compared at a time
# nats. Of logits that differ by rounding, the divergence is half the variance of what they differ by: from the same
# models in double precision, up to 5e-5 in a logit, 1e-12 to 5e-12 on average.
ROUNDING = 1e-10
FORGOTTEN = 0.01  # nats: below that, a change makes no difference that a reader would see


def measure_effective_context(
    engine: Engine, ids: Ids, longest: int = LONGEST, places: int = PLACES, seed: int = 0
) -> Curve:
    """Return how much a changed symbol alters the prediction d symbols later, in nats, for d = 1 … longest, (longest,).

    It is the mean over some places of the text, ids (T,), of the Kullback-Leibler divergence of the prediction after
    the changed text from that after the true one; d = 1 is the prediction right after the change. The symbols that take
    their place are drawn from the text. Values below ROUNDING are noise. Of a text so long that what is read around the
    places does not overlap, no more is read.

    Raises RequestError if the text is too short, or of one symbol only, or for a number out of bounds.
    """
    longest, places = check_whole("longest", longest, 1), check_whole("places", places, 1)
    random = np.random.default_rng(check_whole("seed", seed, 0))
    around = WARM_UP + longest
    if len(ids) < around + places:
        raise RequestError(
            f"the text has {len(ids):,} characters that the model knows; to look {longest:,} back takes at least "
            f"{around + places:,}"
        )
    changed_at = np.linspace(WARM_UP, len(ids) - longest, places).astype(np.int64)
    changed = _draw_others(ids, changed_at, random)
    if len(ids) > places * around:
        stretches = ids[changed_at - WARM_UP + np.arange(around)[:, None]]  # (around, places)
        steps, texts = np.full(places, WARM_UP), np.arange(places)
    else:
        stretches, steps, texts = ids[:, None], changed_at, np.zeros(places, np.int64)
    logits, start = _read(engine, stretches, steps, texts)
    reader, curve = Reader(engine, start), np.empty(longest)
    for first in range(0, longest, AT_ONCE):
        distances = np.arange(first, min(first + AT_ONCE, longest))
        later = steps + distances[:, None]  # (distances, places)
        read = stretches[later, texts]
        if first == 0:
            read[0] = changed
        expected, found = log_softmax(logits[later, texts]), log_softmax(reader.read(read))
        curve[distances] = (np.exp(found) * (found - expected)).sum(axis=-1).mean(axis=1)
    return np.maximum(curve, 0)  # rounding can leave some -1e-16


def context_length(curve: Curve, threshold: float = FORGOTTEN) -> int:
    """Return the largest distance at which the curve is above a threshold in nats; 0 if it is nowhere."""
    above = np.flatnonzero(curve > threshold)
    return int(above[-1]) + 1 if len(above) else 0


def measure_influence(network: "Network", ids: Ids) -> NDArray[np.float64]:
    """Return how strongly each symbol moved the prediction of the last of ids (T,), (T - 1,).

    It is the length of the gradient of the log-probability of that last symbol by the embedding of each earlier one,
    read from the zero state (Madsen, "Visualizing memorization in RNNs", Distill, 2019, has it of the logit).

    Raises RequestError for fewer than two symbols, ModelFileError if a gradient is no finite number.
    """
    if len(ids) < 2:
        raise RequestError("there is nothing that could have moved the prediction of a first character")
    import torch

    # in double precision: in single, the gradient of an RNN is 0 after some 200 symbols, by way of denormal numbers,
    # which a CPU may be slow with
    double = type(network).from_weights(network.config, network.export_weights()).double()
    inputs = double.embedding(torch.from_numpy(ids[:-1, None])).requires_grad_()  # (T - 1, 1, E)
    hidden, _ = double.recurrent(inputs)
    log_probability = double.head(hidden[-1, 0]).log_softmax(-1)[int(ids[-1])]
    (gradient,) = torch.autograd.grad(log_probability, inputs)
    norms: NDArray[np.float64] = gradient[:, 0].norm(dim=-1).numpy()
    check_finite(float(norms.max()))  # NaN, too, if any of them is
    return norms


def _draw_others(ids: Ids, places: Ids, random: np.random.Generator) -> Ids:
    """Draw for each place a symbol of the text that does not stand there."""
    symbols = np.unique(ids)
    if len(symbols) < 2:
        raise RequestError("the text has only one kind of character: there is no other to put in its place")
    drawn = symbols[random.integers(len(symbols) - 1, size=len(places))]
    return np.where(drawn == ids[places], symbols[-1], drawn)  # any of the others, all equally likely


def _read(engine: Engine, stretches: Ids, steps: Ids, texts: Ids) -> tuple[Array, State]:
    """Read stretches (N, S) side by side; return the logits (N, S, V), and the states before some places, in order.

    A place is a step, rising, and a text: one of each in steps and texts (places,).
    """
    reader, logits, states, last = Reader(engine, stretches.shape[1], alone=True), [], [], 0
    for step in np.unique(steps).tolist():
        logits.append(reader.read(stretches[last:step]))
        states.append(reader.state.take(texts[steps == step].tolist()))
        last = step
    logits.append(reader.read(stretches[last:]))
    return np.concatenate(logits), State.join(states)
