"""The model in torch: an embedding, a recurrent cell of torch.nn, a linear head.

Letters for shapes, here and elsewhere: T time, B streams side by side, V symbols, E embedding, H hidden, L layers.
"""

import torch
from torch import Tensor, nn

from charlm.model.config import ModelConfig, Weights

# (L, B, H), or a pair of them for an LSTM (hidden and cell state); None is the zero state.
State = Tensor | tuple[Tensor, ...] | None


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

    def forward(self, ids: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Read ids (T, B) from `state`; return the logits (T, B, V) and the state after the last."""
        inputs = self.embedding(ids)  # (T, B) → (T, B, E)
        hidden, state = self.recurrent(inputs, state)  # (T, B, E) → (T, B, H)
        return self.head(hidden), state  # (T, B, H) → (T, B, V)

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
