"""The recurrent cells, as far as the files of a model and its training settings depend on them.

A new cell takes an entry in CELLS here, in STEPS of charlm/inference/numpy_model.py, in CELL_NUMBERS of
charlm/inference/compiled_model.py and in the functions of kernels.c that take a cell, in GATES of
charlm/analysis/gates.py, in UNROLLED_CELLS of train/recurrence.py, and in CELLS and CELL_STEPS of
charlm/browser/charlm.js.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """One kind of recurrent cell.

    label: the common name of a character model with this cell.
    torch_class: the class of torch.nn that defines its mathematics and the layout of its weights.
    gates: how many blocks of `hidden_size` rows its weight matrices stack.
    states: how many vectors of `hidden_size` a layer carries from one symbol to the next: the hidden state, and for an
        LSTM the cell state.
    recipe: its default training settings, the best of those tried on tinyshakespeare.
    """

    label: str
    torch_class: str
    gates: int
    states: int
    recipe: "Recipe"


@dataclass(frozen=True)
class Recipe:
    """Default training settings that differ between cells; `train.config` explains them."""

    lr: float
    weight_decay: float
    dropout: float
    embedding_dropout: float


CELLS = {
    "rnn": Cell("CharRNN", "RNN", gates=1, states=1, recipe=Recipe(0.002, 0.2, 0.2, 0.0)),
    "lstm": Cell("CharLSTM", "LSTM", gates=4, states=2, recipe=Recipe(0.003, 0.5, 0.4, 0.3)),
    "gru": Cell("CharGRU", "GRU", gates=3, states=1, recipe=Recipe(0.003, 0.5, 0.4, 0.3)),
}
