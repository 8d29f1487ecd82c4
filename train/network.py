"""The network for training: the model of charlm.model.network with dropout, in the layers that are fastest here.

Letters in the shapes of train/: T steps, B streams, V symbols, E embedding size, H hidden size, L layers.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from charlm.lm import CharLM
from charlm.model.config import ModelConfig, Weights
from charlm.model.network import run_recurrent

from .head import head_losses
from .recurrence import RecurrentLayer

# For each layer its state, (B, H) each: the hidden and, of an LSTM, the cell state.
LayerStates = list[list[Tensor]]


class TrainingNetwork(nn.Module):
    """Embedding, recurrent layers and a linear head, with variational dropout between them.

    Between the layers and before the head, the same units are dropped at every step of a sequence (Gal and
    Ghahramani, "A Theoretically Grounded Application of Dropout in Recurrent Neural Networks", 2016); of the
    embedding, the same numbers wherever a symbol occurs.
    """

    def __init__(
        self,
        config: ModelConfig,
        embedding_dropout: float,
        device: str,
        dtype: torch.dtype,
        batch_size: int,
        own_streams: slice,
    ) -> None:
        """config: the model; its `dropout` is the share of each layer's outputs dropped. dtype: of matrix products.

        own_streams: those of the batch that this process reads. Dropout masks are drawn for all streams, so that
        several processes drop what a single one would.
        """
        super().__init__()
        self._batch_size = batch_size
        self._own_streams = own_streams
        self._config = config
        self._embedding_dropout = embedding_dropout
        self._dtype = dtype
        self.embedding = nn.Embedding(len(config.vocab), config.embedding_size)
        single_layer = getattr(nn, config.kind.torch_class)
        layers = [
            single_layer(config.hidden_size if place else config.embedding_size, config.hidden_size)
            for place in range(config.num_layers)
        ]
        if device == "cpu":
            layers = [RecurrentLayer(config.cell, layer, dtype) for layer in layers]
        self.layers = nn.ModuleList(layers)
        self.head = nn.Linear(config.hidden_size, len(config.vocab))
        self.to(device)

    def forward(self, ids: Tensor, states: LayerStates) -> tuple[Tensor, LayerStates]:
        """Return the logits (T, B, V) for ids (T, B) and states; and the states after the last step, detached."""
        outputs, after = self._read(ids, states)
        return self.head(outputs.float()), after  # (T, B, H) → (T, B, V)

    def mean_losses(
        self, ids: Tensor, targets: Tensor, states: LayerStates, taught: Tensor | None = None
    ) -> tuple[Tensor, Tensor, LayerStates]:
        """Return two mean cross-entropies of the logits for ids (T, B), () each, and the states.

        The first has the gradients: it is that for the distributions `taught`, (T, B, V), if there are any. The second
        is that for the targets, (T, B); without `taught` both are the same.

        The logits are those that `forward` returns.
        """
        outputs, after = self._read(ids, states)
        head_targets = [targets.flatten()] if taught is None else [taught.flatten(0, 1), targets.flatten()]
        rows = outputs.flatten(0, 1)  # (T, B, H) → (T B, H)
        learnt, loss = head_losses(rows, self.head.weight, self.head.bias, head_targets, self._dtype) / len(rows)
        return learnt, loss.detach(), after

    def _read(self, ids: Tensor, states: LayerStates) -> tuple[Tensor, LayerStates]:
        """Return the outputs of the last layer (T, B, H) for ids (T, B) and states; and the states, as `forward`."""
        table = self._dropout(self.embedding.weight, self._embedding_dropout)  # (V, E)
        with self._autocast():
            outputs, state = self._first_layer(table, ids, states[0])  # (T, B, H)
            after = [state]
            for layer, before in zip(self.layers[1:], states[1:], strict=True):
                outputs, state = self._run(layer, self.variational_dropout(outputs), before)
                after.append(state)
            return self.variational_dropout(outputs), after

    def _autocast(self) -> torch.autocast:
        # RecurrentLayer rounds its operands itself
        is_needed = self._dtype != torch.float32 and not isinstance(self.layers[0], RecurrentLayer)
        return torch.autocast(self.head.weight.device.type, self._dtype, enabled=is_needed)

    def zero_states(self, streams: int) -> LayerStates:
        """Return the states, all zero, from which a text is read."""
        zero = self.head.weight.new_zeros(streams, self._config.hidden_size)
        return [[zero] * self._config.kind.states for _ in self.layers]

    def export_weights(self) -> Weights:
        """Return a copy of the weights as float32 arrays, named as in model.safetensors."""
        parameters = self.exported_parameters().items()
        return {name: tensor.detach().float().cpu().numpy().copy() for name, tensor in parameters}

    @classmethod
    def from_model(cls, lm: CharLM, device: str, dtype: torch.dtype, streams: int) -> "TrainingNetwork":
        """Return a network without dropout that has the weights of a model. It draws no numbers of torch's generator.

        device, dtype: as for a new one. streams: that it reads side by side.
        """
        with torch.random.fork_rng(devices=[]):  # for the initial weights, which are replaced
            network = cls(replace(lm.config, dropout=0.0), 0.0, device, dtype, streams, slice(streams))
        network.load_weights(lm.network.export_weights())
        return network

    @torch.no_grad()
    def load_weights(self, weights: Weights | dict[str, Tensor]) -> None:
        """Replace the parameters by weights with the names that they have in model.safetensors."""
        for name, parameter in self.exported_parameters().items():
            parameter.copy_(torch.as_tensor(weights[name]))

    def exported_parameters(self) -> dict[str, Tensor]:
        """Return the parameters by their names in model.safetensors."""
        parameters = {"embedding.weight": self.embedding.weight}
        for place, layer in enumerate(self.layers):
            # torch names the parameters of a single layer weight_ih_l0 and so on
            parameters |= {f"recurrent.{name[:-1]}{place}": tensor for name, tensor in layer.named_parameters()}
        return parameters | {f"head.{name}": tensor for name, tensor in self.head.named_parameters()}

    def _first_layer(self, table: Tensor, ids: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        # one product for each symbol of the vocabulary pays while V is not much larger than E
        if isinstance(self.layers[0], RecurrentLayer) and len(table) <= 2 * table.shape[1]:
            outputs, after = self.layers[0](table, state, ids)
            return outputs, after
        return self._run(self.layers[0], embedding(ids, table), state)

    def _run(self, layer: nn.Module, inputs: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        if isinstance(layer, RecurrentLayer):
            outputs, after = layer(inputs, state)
            return outputs, after
        outputs, parts = run_recurrent(layer, inputs, tuple(part[None] for part in state))  # of one layer, (1, B, H)
        return outputs, [part[0].detach().float() for part in parts]

    def variational_dropout(self, outputs: Tensor) -> Tensor:
        """Drop units of the outputs (T, B, H): the same ones at every step."""
        if self._config.dropout == 0:
            return outputs
        # float32: 1 / (1 - rate) rounded to bfloat16 would make all outputs larger, or all smaller
        ones = outputs.new_ones(self._batch_size, outputs.shape[2], dtype=torch.float32)
        kept = self._dropout(ones, self._config.dropout)
        return (outputs * kept[self._own_streams]).to(outputs.dtype)

    @staticmethod
    def _dropout(values: Tensor, rate: float) -> Tensor:
        """Set a random share `rate` of the values to 0 and divide the others by 1 - rate."""
        return nn.functional.dropout(values, rate) if rate > 0 else values
