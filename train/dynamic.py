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
from torch.nn.utils import clip_grad_norm_

from .encode import SmallIds
from .network import TrainingNetwork

SEGMENT = 64  # symbols
LEARNING_RATE, PULL, EPSILON = 0.0003, 0.002, 1e-5  # by the first half that validates, see docs/log.md
LARGEST = 2.0
SCALE_SYMBOLS = 32_768  # by whose gradients r is measured


def dynamic_losses(network: TrainingNetwork, trained: SmallIds, ids: SmallIds) -> NDArray[np.float32]:
    """Return the losses (N - 1,) in nats of the predictions in a text (N,), by a network that learns from it meanwhile.

    network: without dropout, for one stream; its parameters change. trained: text that it was trained on, (M,), M ≥ 2.
    """
    parameters = list(network.parameters())
    scales = _gradient_scales(network, parameters, trained[-SCALE_SYMBOLS:])
    mean = sum(float(scale.sum()) for scale in scales) / sum(scale.numel() for scale in scales)
    pulls = [(scale * (PULL / max(mean, EPSILON))).clamp_(max=1) for scale in scales]
    largest = LARGEST * math.sqrt(sum(float(scale.square().sum()) for scale in scales))
    begun = [parameter.detach().clone() for parameter in parameters]
    measured = []
    for losses in _read_segments(network, ids):
        measured.append(losses.detach().cpu())
        losses.mean().backward()  # type: ignore[no-untyped-call]
        clip_grad_norm_(parameters, largest)
        with torch.no_grad():
            for parameter, scale, start, pull in zip(parameters, scales, begun, pulls, strict=True):
                assert parameter.grad is not None
                change = parameter.grad.div_(scale + EPSILON).mul_(-LEARNING_RATE)
                parameter.add_(change.addcmul_(pull, start - parameter))
                parameter.grad = None
    losses_of_all: NDArray[np.float32] = torch.cat(measured).numpy()
    return losses_of_all


def _gradient_scales(network: TrainingNetwork, parameters: Sequence[Tensor], ids: SmallIds) -> list[Tensor]:
    """Return the root of the mean square of the gradients that the segments of a text have, for each parameter."""
    squares, segments = [torch.zeros_like(parameter) for parameter in parameters], 0
    for losses in _read_segments(network, ids):
        segments += 1
        losses.mean().backward()  # type: ignore[no-untyped-call]
        for parameter, square in zip(parameters, squares, strict=True):
            assert parameter.grad is not None
            square.addcmul_(parameter.grad, parameter.grad)
            parameter.grad = None
    return [square.div_(segments).sqrt_().detach() for square in squares]


def _read_segments(network: TrainingNetwork, ids: SmallIds) -> Iterator[Tensor]:
    """Yield the losses (T,) of each segment of a text (N,), read in order from the zero state, with their graph."""
    states = network.zero_states(1)
    for first in range(0, len(ids) - 1, SEGMENT):
        piece = torch.from_numpy(ids[first : first + SEGMENT + 1].astype(np.int64)).to(states[0][0].device)
        logits, states = network(piece[:-1, None], states)
        yield cross_entropy(logits[:, 0], piece[1:], reduction="none")
