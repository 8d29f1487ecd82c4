"""What a model computes while it reads a text: its predictions, and the activations of its units."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from charlm.analysis.gates import GatesByName, read_gates, saturation
from charlm.checks import check_whole
from charlm.errors import RequestError
from charlm.inference.engine import Array, Engine, Reader, State
from charlm.inference.sampling import cut, log_softmax, surprisals_of
from charlm.model.config import ModelConfig, Weights
from charlm.vocab import Ids, Vocab

SHOWN_SYMBOLS = 5  # of the likeliest, in each place
INSPECTIONS_AT_ONCE = 4  # that share MOST_LOGITS, since visitors of a page inspect texts at the same time


@dataclass(frozen=True)
class Inspection:
    """What a model computed while it read a text of N symbols; V, L, H as in `charlm.model.network`.

    text: the symbols.
    surprisals: of each symbol, in nats, (N,); NaN for the first, which nothing predicts.
    likeliest: the ids of the likeliest symbols in each place, likeliest first, (N, 5); fewer if V is below 5.
    probabilities: of those, (N, 5). For the first place, ids are 0 and probabilities NaN.
    hidden: the hidden state after each symbol, (N, L, H), between -1 and 1.
    cell_state: that of an LSTM, (N, L, H); None for other cells.
    gates: if they were asked for, (N, L, H) each, by the names of torch's documentation: i, f, g, o, c and h of an
        LSTM; r, z, n and h of a GRU; of an RNN the sum before the tanh, `sum`, and h. c and h are `cell_state` and
        `hidden`.
    """

    text: str
    surprisals: NDArray[np.float64]
    likeliest: Ids
    probabilities: NDArray[np.float64]
    hidden: Array
    cell_state: Array | None
    gates: GatesByName | None = None


@dataclass(frozen=True)
class UnitGates:
    """What one unit computed at each of N symbols.

    cell: the kind of cell, `rnn`, `lstm` or `gru`. layer, unit: from 0.
    gates: (N,) each, by the names of `Inspection.gates`.
    saturation: for each gate between 0 and 1, in which share of the symbols it is below 0.1, left-saturated, and in
        which above 0.9, right-saturated (Karpathy, Johnson and Fei-Fei, 2015).
    """

    cell: str
    layer: int
    unit: int
    gates: GatesByName
    saturation: dict[str, tuple[float, float]]


def inspect(engine: Engine, vocab: Vocab, ids: Ids) -> Inspection:
    """Read ids (N,) from the zero state.

    Beside what is returned, this takes memory for a share of `sampling.MOST_LOGITS` logits in some arrays, however long
    the text and however large the vocabulary is.
    """
    shown = min(SHOWN_SYMBOLS, len(vocab))
    surprisals = np.full(len(ids), np.nan)
    likeliest, probabilities = np.zeros((len(ids), shown), np.int64), np.full((len(ids), shown), np.nan)

    def reduce(first: int, logits: Array) -> None:
        """Keep what is shown of the predictions, (T, 1, V), that follow the symbols from `first` on."""
        places = slice(first + 1, min(first + 1 + len(logits), len(ids)))  # nothing follows the last symbol
        predictions = logits[: places.stop - places.start, 0]
        surprisals[places] = surprisals_of(ids[places], predictions)
        likeliest[places], log_probs = _find_likeliest(log_softmax(predictions), shown)
        probabilities[places] = np.exp(log_probs)

    hidden, cell = read_units(engine, ids[:, None], reduce)
    return Inspection(
        vocab.decode(ids),
        surprisals,
        likeliest,
        probabilities,
        hidden[:, :, 0],
        None if cell is None else cell[:, :, 0],
    )


def read_all_gates(config: ModelConfig, weights: Weights, ids: Ids, seen: Inspection) -> Inspection:
    """Return what was seen at ids (N,) with the gates of all units, which take as much memory each as `hidden`."""
    layers = [read_gates(config.cell, weights, layer, ids, seen.hidden) for layer in range(config.num_layers)]
    gates = {name: np.stack([layer[name] for layer in layers], axis=1) for name in layers[0]}
    return replace(seen, gates=gates | _states_by_name(seen))


def read_unit_gates(
    config: ModelConfig, weights: Weights, ids: Ids, seen: Inspection, layer: int, unit: int
) -> UnitGates:
    """Return the gates of one unit at each of ids (N,), which takes memory for some numbers for each of them.

    Raises RequestError if there is no such unit, or the text is empty.
    """
    if not len(ids):
        raise RequestError("the text is empty, so no gate was computed; inspect a text first")
    layer = check_whole("layer", layer, 0, config.num_layers - 1)
    unit = check_whole("unit", unit, 0, config.hidden_size - 1)
    gates = read_gates(config.cell, weights, layer, ids, seen.hidden, units=slice(unit, unit + 1))
    states = {name: state[:, layer, unit] for name, state in _states_by_name(seen).items()}
    named = {name: values[:, 0] for name, values in gates.items()} | states
    return UnitGates(config.cell, layer, unit, named, saturation(config.cell, named))


def _states_by_name(seen: Inspection) -> GatesByName:
    return {"h": seen.hidden} if seen.cell_state is None else {"c": seen.cell_state, "h": seen.hidden}


def name_likeliest(inspection: Inspection, vocab: Vocab) -> list[list[tuple[str, float]]]:
    """Return the likeliest symbols in each of N places with their probabilities; an empty list for the first."""
    expected = zip(inspection.likeliest[1:].tolist(), inspection.probabilities[1:].tolist(), strict=True)
    named = [
        [(vocab.symbols[id], probability) for id, probability in zip(ids, probabilities, strict=True)]
        for ids, probabilities in expected
    ]
    return [[], *named][: len(inspection.text)]


def read_units(
    engine: Engine, ids: Ids, reduce: Callable[[int, Array], object] | None = None
) -> tuple[Array, Array | None]:
    """Read texts side by side from the zero state, ids (T, S).

    Return after each step the hidden states (T, L, S, H) and the LSTM's cell states.

    reduce: called for one part of the steps after another with the place of its first step and its logits (T', S, V),
        of which there are at most `sampling.MOST_LOGITS`, unless one step has more. None: nothing is predicted.
    """
    steps, texts = ids.shape
    reader = Reader(engine, texts)
    hidden = np.empty((steps, engine.num_layers, texts, engine.units), np.float32)
    cell = np.empty_like(hidden) if engine.has_cell_state else None
    for part in cut(steps, INSPECTIONS_AT_ONCE * texts * engine.symbols):
        logits = np.empty((part.stop - part.start if reduce else 0, texts, engine.symbols), np.float32)
        for step in range(part.start, part.stop):
            reader.advance(ids[step])
            if reduce:
                logits[step - part.start] = reader.logits()
            hidden[step], cells = engine.units_of(reader.state)
            if cell is not None:
                cell[step] = cells
        if reduce:
            reduce(part.start, logits)
    return hidden, cell


def read_around(engine: Engine, ids: Ids, places: Ids, warm_up: int) -> State:
    """Return the states before S places of a text, ids (T,), each read from `warm_up` symbols before it, side by side.

    They are nearly those that reading from the beginning would give: a model forgets how it began.
    """
    reader = Reader(engine, len(places))
    reader.prefill(ids[places - warm_up + np.arange(warm_up)[:, None]])
    return reader.state


class PredictionReader:
    """Reads a text in pieces, and returns how likely each symbol was and which were the likeliest in its place."""

    def __init__(self, engine: Engine, context: Ids) -> None:
        """context: what precedes the text, (T,), read from the zero state."""
        self._shown = min(SHOWN_SYMBOLS, engine.symbols)
        self._reader = Reader(engine)
        self._reader.prefill(context[:, None])
        self._logits = self._reader.logits().copy()  # (1, V), which predict the next symbol

    def read(self, ids: Ids) -> tuple[NDArray[np.float64], Ids, NDArray[np.float64]]:
        """Read ids (N,).

        Return their log-probabilities (N,), and in each place the likeliest ids (N, 5) with theirs (N, 5), likeliest
        first, or fewer than 5 if the vocabulary has fewer. Logarithms are natural.
        """
        chosen = np.empty(len(ids))
        likeliest, log_probs = np.empty((len(ids), self._shown), np.int64), np.empty((len(ids), self._shown))
        for part in cut(len(ids), INSPECTIONS_AT_ONCE * self._logits.shape[1]):
            after = self._reader.read(ids[part, None])[:, 0]  # (T, V)
            predicted = log_softmax(np.concatenate([self._logits, after[:-1]]))
            self._logits = after[-1:].copy()
            chosen[part] = np.take_along_axis(predicted, ids[part, None], axis=1)[:, 0]
            likeliest[part], log_probs[part] = _find_likeliest(predicted, self._shown)
        return chosen, likeliest, log_probs


def _find_likeliest(log_probs: NDArray[np.float64], count: int) -> tuple[Ids, NDArray[np.float64]]:
    """Return the likeliest symbols, the first of equals first, and their log-probabilities, (N, count) both.

    log_probs: of all symbols, (N, V), which are overwritten. One symbol after another is found and taken out, which is
    faster than sorting and takes no memory for an order of them all.
    """
    rows = np.arange(len(log_probs))
    ids, found_log_probs = np.empty((len(log_probs), count), np.int64), np.empty((len(log_probs), count))
    for rank in range(count):
        ids[:, rank] = found = log_probs.argmax(axis=1)
        found_log_probs[:, rank] = log_probs[rows, found]
        log_probs[rows, found] = -np.inf
    return ids, found_log_probs
