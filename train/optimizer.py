"""AdamW: the optimiser, with its moments as plain tensors that a checkpoint stores."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim.adamw import adamw

EPSILON = 1e-8


class AdamW:
    """AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019), by torch's fused kernel.

    The class of torch.optim loads torch's compiler when it is made, which takes more than a second of every start.

    state: for each parameter `step`, the number of its updates, (), and the means of its gradients and of their
        squares, `exp_avg` and `exp_avg_sq`, in the shape of the parameter.
    """

    def __init__(self, parameters: Iterable[Tensor], betas: tuple[float, float], weight_decay: float) -> None:
        """betas: decay rates of the two means. weight_decay: times the learning rate, the share that a weight loses."""
        self._parameters, self._betas, self._weight_decay = list(parameters), betas, weight_decay
        self.state = [
            {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
            }
            for parameter in self._parameters
        ]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Update the parameters by their gradients, and drop these."""
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        assert len(gradients) == len(self._parameters), "every parameter takes part in the loss"
        means, squares, steps = ([each[name] for each in self.state] for name in ("exp_avg", "exp_avg_sq", "step"))
        adamw(
            self._parameters,
            gradients,
            means,
            squares,
            [],  # of AMSGrad
            steps,
            fused=True,
            amsgrad=False,
            beta1=self._betas[0],
            beta2=self._betas[1],
            lr=learning_rate,
            weight_decay=self._weight_decay,
            eps=EPSILON,
            maximize=False,
        )
        for parameter in self._parameters:
            parameter.grad = None
