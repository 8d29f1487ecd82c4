"""The model in torch: an embedding, a recurrent cell of torch.nn, a linear head.

Letters for shapes, here and elsewhere: T time, B streams side by side, V symbols, E embedding, H hidden, L layers.
"""

import torch
from torch import Tensor, nn

from charlm.model.config import ModelConfig, Weights

State = tuple[Tensor, ...]  # (L, B, H): the hidden state and, of an LSTM, the cell state


class Network(nn.Module):
    """A character model of any cell, for inference: it returns the next symbol's logits for every symbol it reads.

    `train.network` has the one for training.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        # nn.Embedding() draws numbers, for which a meta tensor loads torch's compiler: that takes more than a second
        zeros = torch.zeros(len(config.vocab), config.embedding_size)
        self.embedding = nn.Embedding.from_pretrained(zeros)  # type: ignore[no-untyped-call]
        self.recurrent = getattr(nn, config.kind.torch_class)(
            config.embedding_size, config.hidden_size, config.num_layers
        )
        self.head = nn.Linear(config.hidden_size, len(config.vocab))

    def forward(self, ids: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Read ids (T, B) from `state`, by default zero; return the logits (T, B, V) and the state after the last."""
        before = self.zero_state(ids.shape[1]) if state is None else state
        hidden, after = self.read(ids, before)  # (T, B) → (T, B, H)
        return self.head(hidden), after  # (T, B, H) → (T, B, V)

    def read(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """Read ids (T, B) from `state`; return the hidden states of the last layer (T, B, H), and the state after."""
        return run_recurrent(self.recurrent, self.embedding(ids), state)  # (T, B) → (T, B, E) → (T, B, H)

    def zero_state(self, streams: int) -> State:
        """Return the state before the first symbol."""
        shape = self.config.num_layers, streams, self.config.hidden_size
        return tuple(self.head.weight.new_zeros(shape) for _ in range(self.config.kind.states))

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.head.weight.device

    def export_weights(self) -> Weights:
        """Return a copy of the weights as float32 arrays, named as in model.safetensors."""
        return {name: tensor.detach().float().cpu().numpy().copy() for name, tensor in self.named_parameters()}

    @classmethod
    def from_weights(cls, config: ModelConfig, weights: Weights, device: torch.device | str = "cpu") -> "Network":
        """Build a network on `device` from exported weights; they have no gradients."""
        with torch.device("meta"):  # allocates and initializes no weights, which the next line replaces
            network = cls(config)
        network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()}, assign=True)
        return network.to(device).eval().requires_grad_(False)


def run_recurrent(layers: nn.Module, inputs: Tensor, state: State) -> tuple[Tensor, State]:
    """Run recurrent layers of torch.nn; return their outputs and the state after the last input."""
    outputs, after = layers(inputs, to_torch(state))
    return outputs, from_torch(after)


def to_torch(state: State) -> Tensor | State:
    """Return a state as torch.nn takes it, in layers and in cells: of an LSTM a tuple, of the others a tensor alone."""
    return state if len(state) > 1 else state[0]


def from_torch(state: Tensor | State) -> State:
    """Return what torch.nn returned as a state: the inverse of `to_torch`."""
    return state if isinstance(state, tuple) else (state,)
