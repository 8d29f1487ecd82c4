"""The linear head and its cross-entropy, computed together with their gradients.

The loss is the last thing that a step computes, so its gradient with respect to the logits, softmax - target, is known
as soon as the logits are. They are computed for a part of the rows at a time, turned into that gradient where they
stand, and dropped: of a large vocabulary, all logits of a step would be its largest array by far. Liger Kernel (Hsu et
al., 2024) does the same on a GPU.

In bf16, the products that give gradients have bfloat16 operands. The logits themselves stay float32, since a logit of
10 in bfloat16 is wrong by up to 0.03; their products have float32 operands, too, except on a CPU with AMX (see
`_fast_products`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from charlm.inference.sampling import cut

# Logits at a time. On a CPU they stay in its cache: 8 MB in float32. On a GPU, small parts would not keep it busy.
MOST_TRAINING_LOGITS = {"cpu": 2**21, "cuda": 2**26, "mps": 2**26}


def head_losses(rows: Tensor, weight: Tensor, bias: Tensor, targets: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Return two summed cross-entropies (2,) of N outputs (N, H), of any type: for the first and the last of `targets`.

    Only the first has gradients. weight, bias: of the head, (V, H) and (V,), in float32.
    targets: what each output predicts, as distributions (N, V) or as ids (N,); the last one, as ids.
    dtype: of the operands of the products that give gradients.
    """
    losses: Tensor = _HeadLosses.apply(rows.float(), weight, bias, dtype, *targets)  # type: ignore[no-untyped-call]
    return losses


class _HeadLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype, *targets: Tensor) -> Tensor:
        rounded_weight = weight.to(dtype)
        grad_rows, grad_weight, grad_bias = torch.empty_like(rows), torch.zeros_like(weight), torch.zeros_like(bias)
        losses = rows.new_zeros(2)
        for part in cut(len(rows), len(weight), MOST_TRAINING_LOGITS[rows.device.type]):
            with _fast_products(dtype):
                logits = torch.addmm(bias, rows[part], weight.T)
            losses += _replace_by_gradient(logits, *(each[part] for each in targets))
            grad_logits = logits.to(dtype)
            grad_rows[part] = grad_logits @ rounded_weight
            grad_weight += grad_logits.T @ rows[part].to(dtype)
            grad_bias += logits.sum(0)
        ctx.grads = grad_rows, grad_weight, grad_bias
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_losses: Tensor) -> tuple[Tensor | None, ...]:
        grads, ctx.grads = ctx.grads, ()  # which are scaled in place, so there is no second backward pass
        return *(grad.mul_(grad_losses[0]) for grad in grads), *(None for _ in ctx.needs_input_grad[len(grads) :])


def _replace_by_gradient(logits: Tensor, *targets: Tensor) -> Tensor:
    """Replace the logits of a part (N, V), in place, by the gradient of its first loss; return the losses, (2,)."""
    ids = targets[-1][:, None]
    logits -= logits.amax(1, keepdim=True)
    of_ids = logits.gather(1, ids)
    of_taught = None if len(targets) == 1 else (targets[0] * logits).sum()
    totals = logits.exp_().sum(1, keepdim=True)
    logits /= totals
    log_totals = totals.log_()
    loss = (log_totals - of_ids).sum()
    if of_taught is None:
        logits.scatter_add_(1, ids, logits.new_full((), -1.0).expand_as(ids))
        return torch.stack([loss, loss])
    shares = targets[0].sum(1, keepdim=True)  # 1, but for rounding
    logits.mul_(shares).sub_(targets[0])
    return torch.stack([(shares * log_totals).sum() - of_taught, loss])


@contextmanager
def _fast_products(dtype: torch.dtype) -> Iterator[None]:
    """Let oneDNN multiply in float32, if products may be in bfloat16: on an AMD CPU, MKL takes twice as long.

    It may then round operands to bfloat16, as it does where the CPU has AMX. Before torch 2.9 there is no choice.
    """
    products: Any = getattr(torch.backends.mkldnn, "matmul", None)
    if products is None or dtype != torch.bfloat16:
        yield
        return
    before = products.fp32_precision
    products.fp32_precision = "bf16"
    try:
        yield
    finally:
        products.fp32_precision = before
