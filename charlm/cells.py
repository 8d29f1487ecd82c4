"""All that differs between the recurrent cells. A new cell is one more entry of CELLS."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """One kind of recurrent cell.

    label: what people call a character model of it.
    torch_class: the class of torch.nn that computes it and lays out its weights.
    gates: how many blocks of `hidden_size` rows its weight matrices stack.
    learning_rate, dropout: what trained it best on tinyshakespeare, used unless a run says otherwise.
    """

    label: str
    torch_class: str
    gates: int
    learning_rate: float
    dropout: float


CELLS = {
    "rnn": Cell("CharRNN", "RNN", gates=1, learning_rate=0.001, dropout=0.3),
    "lstm": Cell("CharLSTM", "LSTM", gates=4, learning_rate=0.003, dropout=0.5),
    "gru": Cell("CharGRU", "GRU", gates=3, learning_rate=0.002, dropout=0.5),
}
