"""Dynamic evaluation: the losses of a model that goes on learning from the text that it is measured on.

Krause, Kahembwe, Murray and Renals, "Dynamic Evaluation of Neural Sequence Models" (2018). The text is read in
segments. Each is predicted first; then the gradient g of its mean loss changes the parameters θ, which are also pulled
back to the trained ones, θ_g:

    θ += -LEARNING_RATE g / (r + EPSILON) + min(PULL r / mean(r), 1) (θ_g - θ)

r is the root of the mean square of the gradients of segments that the model was trained on: where these are large, a
parameter matters little to any one text. g has at most LARGEST times the norm of r, since a gradient that explodes, as
those of an RNN may, would destroy the model.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from .encode import SmallIds
from .network import TrainingNetwork

SEGMENT = 64  # symbols
LEARNING_RATE, PULL = 0.0003, 0.002  # chosen by the first half of the text that validates, see docs/log.md
EPSILON = 1e-5
LARGEST = 2.0  # norm of a gradient, times that of r
SCALE_SYMBOLS = 32_768  # of trained text are enough to measure r


def dynamic_losses(network: TrainingNetwork, trained: SmallIds, ids: SmallIds) -> NDArray[np.float32]:
    """Return the losses (N - 1,) in nats of the predictions in a text (N,), by a network that learns from it meanwhile.

    network: without dropout, for one stream; its parameters change. trained: text that it was trained on, (M,), M ≥ 2,
    by which r is measured.
    """
    parameters = list(network.parameters())
    scales = _gradient_scales(network, parameters, trained)
    mean = sum(float(scale.sum()) for scale in scales) / sum(scale.numel() for scale in scales)
    pulls = [(scale * (PULL / max(mean, EPSILON))).clamp_(max=1) for scale in scales]
    largest = LARGEST * _norm(scales)
    divisors = [scale.add_(EPSILON) for scale in scales]
    begun = [parameter.detach().clone() for parameter in parameters]
    measured = []
    for losses, gradients in _read_segments(network, parameters, ids):
        measured.append(losses.cpu())
        rate = LEARNING_RATE * min(1.0, largest / max(_norm(gradients), EPSILON))
        with torch.no_grad():
            for parameter, gradient, divisor, start, pull in zip(
                parameters, gradients, divisors, begun, pulls, strict=True
            ):
                pulled = pull * (start - parameter)
                parameter.addcdiv_(gradient, divisor, value=-rate).add_(pulled)
    losses_of_all: NDArray[np.float32] = torch.cat(measured).numpy()
    return losses_of_all


def _gradient_scales(network: TrainingNetwork, parameters: Sequence[Tensor], ids: SmallIds) -> list[Tensor]:
    """Return the root of the mean square of the gradients that the segments of a text have, for each parameter."""
    squares, segments = [torch.zeros_like(parameter, requires_grad=False) for parameter in parameters], 0
    for _, gradients in _read_segments(network, parameters, ids):
        segments += 1
        for gradient, square in zip(gradients, squares, strict=True):
            square.addcmul_(gradient, gradient)
    return [square.div_(segments).sqrt_() for square in squares]


def _read_segments(
    network: TrainingNetwork, parameters: Sequence[Tensor], ids: SmallIds
) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
    """Read a text (N,) in order from the zero state; the parameters may change between two segments.

    Yield the losses (T,) of each segment, and the gradients of their mean.
    """
    states = network.zero_states(1)
    for first in range(0, len(ids) - 1, SEGMENT):
        piece = torch.from_numpy(ids[first : first + SEGMENT + 1].astype(np.int64)).to(states[0][0].device)
        logits, states = network(piece[:-1, None], states)
        losses = cross_entropy(logits[:, 0], piece[1:], reduction="none")
        yield losses.detach(), torch.autograd.grad(losses.mean(), parameters)


def _norm(tensors: Sequence[Tensor]) -> float:
    """Return the Euclidean norm of all numbers in the tensors."""
    return math.sqrt(sum(float(tensor.square().sum()) for tensor in tensors))
