"""What a model computes while it reads a text: its predictions, and the activations of its units."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm.inference.engine import Array, Engine, Reader
from charlm.inference.sampling import log_softmax, surprisals_of
from charlm.vocab import Ids, Vocab

SHOWN_SYMBOLS = 5  # of the likeliest, in each place


@dataclass(frozen=True)
class Inspection:
    """What a model computed while it read a text of N symbols; V, L, H as in `charlm.model.network`.

    text: the symbols.
    surprisals: of each symbol, in nats, (N,); NaN for the first, which nothing predicts.
    likeliest: the ids of the likeliest symbols in each place, likeliest first, (N, 5); fewer if V is below 5.
    probabilities: of those, (N, 5). For the first place, ids are 0 and probabilities NaN.
    hidden: the hidden state after each symbol, (N, L, H), between -1 and 1.
    cell: the cell state of an LSTM, (N, L, H); None for other cells.
    """

    text: str
    surprisals: NDArray[np.float64]
    likeliest: Ids
    probabilities: NDArray[np.float64]
    hidden: Array
    cell: Array | None


def inspect(engine: Engine, vocab: Vocab, ids: Ids) -> Inspection:
    """Read ids (N,) from the zero state."""
    logits, hidden, cell = read_units(engine, ids[:, None])
    log_probabilities = log_softmax(logits[:-1, 0])  # (N - 1, V)
    shown = min(SHOWN_SYMBOLS, len(vocab))
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
    """Return the likeliest symbols in each of N places with their probabilities; an empty list for the first."""
    expected = zip(inspection.likeliest[1:].tolist(), inspection.probabilities[1:].tolist(), strict=True)
    named = [
        [(vocab.symbols[id], probability) for id, probability in zip(ids, probabilities, strict=True)]
        for ids, probabilities in expected
    ]
    return [[], *named][: len(inspection.text)]


def read_units(engine: Engine, ids: Ids) -> tuple[Array, Array, Array | None]:
    """Read texts side by side from the zero state, ids (T, S).

    Return the logits (T, S, V), and after each step the hidden states (T, L, S, H) and the LSTM's cell states.
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
