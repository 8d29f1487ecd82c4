"""A look inside a model while it reads: what it expected, and what each of its units did."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm.inference.engine import Array, Engine, Reader
from charlm.inference.sampling import log_softmax, surprisals_of
from charlm.vocab import Ids, Vocab

LIKELIEST = 5


@dataclass(frozen=True)
class Inspection:
    """What went on while a text of N symbols was read; V, L, H as in `charlm.model.network`.

    text: the symbols.
    surprisals: of each symbol, in nats, (N,); of the first there is none, which is NaN.
    likeliest: before each symbol, the likeliest in its place, likeliest first, (N, 5), as ids; fewer if V is below 5.
    probabilities: of those, (N, 5). Before the first symbol nothing was read, and both mean nothing: 0 and NaN.
    hidden: the hidden state after each symbol, (N, L, H), between -1 and 1.
    cell: the cell state of an LSTM, (N, L, H); of other cells, None.
    """

    text: str
    surprisals: NDArray[np.float64]
    likeliest: Ids
    probabilities: NDArray[np.float64]
    hidden: Array
    cell: Array | None


def inspect(engine: Engine, vocab: Vocab, ids: Ids) -> Inspection:
    """Read ids (N,) from the zero state and keep all that there is to see."""
    logits, hidden, cell = read_units(engine, ids[:, None])
    log_probabilities = log_softmax(logits[:-1, 0])  # (N - 1, V)
    shown = min(LIKELIEST, len(vocab))
    order = np.argsort(-log_probabilities, axis=1, kind="stable")[:, :shown]
    surprisals = np.full(len(ids), np.nan)
    likeliest, probabilities = np.zeros((len(ids), shown), np.int64), np.full((len(ids), shown), np.nan)
    surprisals[1:] = surprisals_of(ids[1:], logits[:-1, 0])
    likeliest[1:] = order
    probabilities[1:] = np.exp(np.take_along_axis(log_probabilities, order, axis=1))
    return Inspection(
        vocab.decode(ids),
        surprisals,
        likeliest,
        probabilities,
        hidden[:, :, 0],
        None if cell is None else cell[:, :, 0],
    )


def name_likeliest(inspection: Inspection, vocab: Vocab) -> list[list[tuple[str, float]]]:
    """Return the symbols that were likeliest in each of N places, with their probabilities; none for the first."""
    expected = zip(inspection.likeliest[1:].tolist(), inspection.probabilities[1:].tolist(), strict=True)
    named = [
        [(vocab.symbols[id], probability) for id, probability in zip(ids, probabilities, strict=True)]
        for ids, probabilities in expected
    ]
    return [[], *named][: len(inspection.text)]


def read_units(engine: Engine, ids: Ids) -> tuple[Array, Array, Array | None]:
    """Read texts side by side from the zero state, ids (T, S).

    Return the logits (T, S, V) and the states after each step: hidden (T, L, S, H), and the LSTM's cell states.
    """
    steps, texts = ids.shape
    reader = Reader(engine, texts)
    logits = np.empty((steps, texts, engine.symbols), np.float32)
    hidden = np.empty((steps, len(engine.layers), texts, engine.units), np.float32)
    cell = np.empty_like(hidden) if engine.cell.has_cell_state else None
    for step in range(steps):
        logits[step] = reader.step(ids[step])
        hidden[step], cells = engine.units_of(reader.state)
        if cell is not None:
            cell[step] = cells
    return logits, hidden, cell
