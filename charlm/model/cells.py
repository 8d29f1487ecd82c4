"""All that differs between the recurrent cells. A new cell is one more entry of CELLS."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """One kind of recurrent cell.

    label: what people call a character model of it.
    torch_class: the class of torch.nn that computes it and lays out its weights.
    gates: how many blocks of `hidden_size` rows its weight matrices stack.
    states: how many vectors of `hidden_size` a layer keeps from one symbol to the next.
    recipe: of the settings tried on tinyshakespeare, those that trained it best; used unless a run says otherwise.
    """

    label: str
    torch_class: str
    gates: int
    states: int
    recipe: "Recipe"


@dataclass(frozen=True)
class Recipe:
    """Settings of training that suit one cell and not another; `train.config` says what they are."""

    lr: float
    weight_decay: float
    dropout: float
    embedding_dropout: float


CELLS = {
    "rnn": Cell("CharRNN", "RNN", gates=1, states=1, recipe=Recipe(0.002, 0.2, 0.2, 0.0)),
    "lstm": Cell("CharLSTM", "LSTM", gates=4, states=2, recipe=Recipe(0.003, 0.5, 0.4, 0.3)),
    "gru": Cell("CharGRU", "GRU", gates=3, states=1, recipe=Recipe(0.003, 0.5, 0.4, 0.3)),
}
