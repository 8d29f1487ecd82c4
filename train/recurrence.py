"""The recurrent layers of torch.nn with forward pass and backpropagation through time written out, for a CPU.

A cell computes, at each step t, its gates from a_t = x_t + W_hh h_{t-1}, where x_t = W_ih input_t + b. The classes
below give each cell's equations, forward and backward; dy stands for the gradient of the loss with respect to y, and
products of vectors are elementwise. The results are those of torch.nn.RNN, LSTM and GRU, in less time because:

- W_ih input of the first layer is computed once for each symbol of the vocabulary, V rows, rather than for every
  symbol read, T × B rows.
- The gradient of W_hh is one product over the whole sequence rather than T small ones.
- Large arrays are reused from one call to the next: fresh memory costs a page fault for every 4 kB.
- tanh is computed from the sigmoid: torch's own takes six times as long on an AMD CPU.

In bf16, matrix products have bfloat16 operands and results, and what enters a product, such as the gradients of the
gates, is kept rounded. States, gates and the sums that lead from step to step stay float32: a cell state in bfloat16
would lose small additions.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
tanh_backward = torch.ops.aten.tanh_backward.grad_input


class Workspace:
    """Named arrays that are allocated once: `take` returns the same memory again for the same name and shape.

    dtype: of the operands of matrix products, float32 or bfloat16. A "rounded" array is a copy in this type; if it is
    the array's own type, the array itself.
    """

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self._arrays: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Return an array of that shape, its content undefined, in `dtype` or else torch's default type."""
        array = self._arrays.get(name)
        if array is None or array.shape != shape:
            array = self._arrays[name] = torch.empty(shape, dtype=dtype)
        return array

    def take_rounded(self, name: str, array: Tensor) -> Tensor:
        """Return the array for the rounded copy of `array`; `round` fills it."""
        return array if array.dtype == self.dtype else self.take(f"{name}, rounded", *array.shape, dtype=self.dtype)

    def round(self, array: Tensor, rounded: Tensor) -> None:
        """Copy `array` into its rounded copy, unless they are the same."""
        if rounded.dtype != array.dtype:
            rounded.copy_(array)

    def rounded(self, array: Tensor) -> Tensor:
        """Return a contiguous copy of `array` in the type of products."""
        return array.to(self.dtype).contiguous()

    def add_product(self, total: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """Add the product of two rounded matrices to `total`, in place."""
        if left.dtype == total.dtype:
            return total.addmm_(left, right)
        product = self.take(f"product {total.shape}", *total.shape, dtype=self.dtype)
        return total.add_(torch.mm(left, right, out=product))


class UnrolledRNN:
    """h_t = tanh(a_t), a_t = x_t + W_hh h_{t-1}. Backward: da_t = dh_t (1 - h_t²), dh_{t-1} += W_hhᵀ da_t.

    Unrolled: computed over a whole sequence. The other cells have G gates in a_t (B, G H) and override the steps.
    `forward` overwrites x with the activations of the gates, which `backward` reads in the same arrays.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._activations = torch.empty(0)
        self._states: list[Tensor] = []

    @staticmethod
    def folded_bias(bias_ih: Tensor, bias_hh: Tensor) -> Tensor:
        """Return b: those of the two biases that add up to a constant of x_t."""
        return bias_ih + bias_hh

    def forward(self, x: Tensor, weight_hh: Tensor, bias_hh: Tensor, state: list[Tensor]) -> list[Tensor]:
        """Return the states at all steps, (T + 1, B, H) each: the hidden and, of an LSTM, the cell states.

        x: (T, B, G H), overwritten. state: what row 0 of the states is, (B, H) each.
        """
        workspace, size = self._workspace, weight_hh.shape[1]
        self._activations = x
        self._states = [workspace.take(f"state {place}", len(x) + 1, x.shape[1], size) for place in range(len(state))]
        for states, start in zip(self._states, state, strict=True):
            states[0] = start
        hidden, recurrent = self._states[0], workspace.rounded(weight_hh.T)
        rounded = self.rounded_hidden()
        workspace.round(hidden[0], rounded[0])
        for step in range(len(x)):
            self._forward_step(step, rounded[step], recurrent, bias_hh)
            workspace.round(hidden[step + 1], rounded[step + 1])
        return self._states

    def rounded_hidden(self) -> Tensor:
        """Return the hidden states (T + 1, B, H) of the last `forward`, rounded for products."""
        return self._workspace.take_rounded("state 0", self._states[0])

    def _forward_step(self, step: int, hidden: Tensor, recurrent: Tensor, _bias_hh: Tensor) -> None:
        """Compute the states of row step + 1. hidden: of row `step`, rounded; recurrent: W_hhᵀ (H, G H), rounded."""
        x = self._workspace.add_product(self._activations[step], hidden, recurrent)
        _tanh(x, out=self._states[0][step + 1])

    def backward(self, grad_outputs: Tensor, weight_hh: Tensor) -> tuple[Tensor, Tensor]:
        """Backpropagate through the last `forward`, given the gradients of its outputs (T, B, H).

        Return the gradients (T, B, G H), rounded for products, of x_t and of W_hh h_{t-1}.
        """
        workspace, shape = self._workspace, self._activations.shape
        input_grads = workspace.take("input gradients", *shape, dtype=workspace.dtype)
        hidden_grads = self._take_hidden_grads(input_grads)
        recurrent = workspace.rounded(weight_hh)
        grad_hidden = workspace.take("hidden gradient", *grad_outputs.shape[1:])
        carried = workspace.take("carried gradients", 2, *grad_outputs.shape[1:]).zero_()
        for step in reversed(range(len(grad_outputs))):
            torch.add(grad_outputs[step], carried[0], out=grad_hidden)
            if step + 1 < len(grad_outputs):
                workspace.add_product(grad_hidden, hidden_grads[step + 1], recurrent)
            self._backward_step(step, grad_hidden, carried, input_grads[step], hidden_grads[step])
        return input_grads, hidden_grads

    def _take_hidden_grads(self, input_grads: Tensor) -> Tensor:
        return input_grads  # the same: x_t and W_hh h_{t-1} are summands of a_t

    def _backward_step(self, step: int, grad: Tensor, _carried: Tensor, grad_x: Tensor, _grad_product: Tensor) -> None:
        """Fill grad_x and grad_product (B, G H), of x_t and W_hh h_{t-1}, from the gradient dh_t (B, H).

        carried: (2, B, H), from step to step: the part of dh_{t-1} that does not pass through W_hh, and dc_{t-1}.
        """
        exact = self._exact(grad_x)
        tanh_backward(grad, self._states[0][step + 1], grad_input=exact)
        self._workspace.round(exact, grad_x)

    def _exact(self, rounded: Tensor) -> Tensor:
        """Return the array in full precision that is to be rounded into `rounded`."""
        if rounded.dtype == self._activations.dtype:
            return rounded
        return self._workspace.take(f"exact {rounded.shape}", *rounded.shape)


class UnrolledLSTM(UnrolledRNN):
    """c_t = f c_{t-1} + i g, h_t = o tanh(c_t), where i, f, o = σ and g = tanh of the four parts of a_t (B, 4 H).

    Backward: dc_t += dh_t o (1 - tanh²(c_t)); di = dc_t g, df = dc_t c_{t-1}, dg = dc_t i, do = dh_t tanh(c_t), and
    through σ and tanh to da_t; dc_{t-1} = dc_t f.
    """

    def forward(self, x: Tensor, weight_hh: Tensor, bias_hh: Tensor, state: list[Tensor]) -> list[Tensor]:
        """See UnrolledRNN.forward."""
        self._tanh_cells = self._workspace.take("tanh of cells", *x.shape[:2], weight_hh.shape[1])
        return super().forward(x, weight_hh, bias_hh, state)

    def _forward_step(self, step: int, hidden: Tensor, recurrent: Tensor, _bias_hh: Tensor) -> None:
        gates = self._workspace.add_product(self._activations[step], hidden, recurrent)
        hidden_states, cells = self._states
        i, f, g, o = gates.chunk(4, dim=1)
        gates[:, : 2 * g.shape[1]].sigmoid_()  # i and f
        _tanh(g, out=g)
        o.sigmoid_()
        torch.mul(f, cells[step], out=cells[step + 1]).addcmul_(i, g)
        _tanh(cells[step + 1], out=self._tanh_cells[step])
        torch.mul(o, self._tanh_cells[step], out=hidden_states[step + 1])

    def _backward_step(self, step: int, grad: Tensor, carried: Tensor, grad_x: Tensor, _grad_product: Tensor) -> None:
        cells, tanh_cell, grad_cell = self._states[1], self._tanh_cells[step], carried[1]
        gates, exact = self._activations[step], self._exact(grad_x)
        i, f, g, o = gates.chunk(4, dim=1)
        grad_i, grad_f, grad_g, grad_o = exact.chunk(4, dim=1)
        i_and_f = slice(2 * g.shape[1])
        torch.mul(grad, o, out=grad_g)  # for now the gradient of tanh(c_t)
        grad_cell += tanh_backward(grad_g, tanh_cell, grad_input=grad_g)
        torch.mul(grad_cell, g, out=grad_i)
        torch.mul(grad_cell, cells[step], out=grad_f)
        torch.mul(grad_cell, i, out=grad_g)
        torch.mul(grad, tanh_cell, out=grad_o)
        sigmoid_backward(exact[:, i_and_f], gates[:, i_and_f], grad_input=exact[:, i_and_f])
        tanh_backward(grad_g, g, grad_input=grad_g)
        sigmoid_backward(grad_o, o, grad_input=grad_o)
        grad_cell *= f
        self._workspace.round(exact, grad_x)


class UnrolledGRU(UnrolledRNN):
    """h_t = (1 - z) n + z h_{t-1}, where r, z = σ of the first two parts of a_t (B, 3 H), n = tanh(x_n + r m).

    x_n is the third part of x_t, and m = W_n h_{t-1} + b_n that of the recurrent product with its own bias.
    Backward: dn = dh_t (1 - z), dz = dh_t (h_{t-1} - n), through tanh to dx_n; dr = dx_n m, dm = dx_n r; and
    dh_{t-1} += dh_t z besides what passes through W_hh.
    """

    @staticmethod
    def folded_bias(bias_ih: Tensor, bias_hh: Tensor) -> Tensor:
        """See UnrolledRNN.folded_bias; b_n, the last third of `bias_hh`, is multiplied by r."""
        shared = 2 * len(bias_hh) // 3
        return torch.cat([bias_ih[:shared] + bias_hh[:shared], bias_ih[shared:]])

    def forward(self, x: Tensor, weight_hh: Tensor, bias_hh: Tensor, state: list[Tensor]) -> list[Tensor]:
        """See UnrolledRNN.forward."""
        self._recurrent_n = self._workspace.take("recurrent part of n", *x.shape[:2], weight_hh.shape[1])  # m
        return super().forward(x, weight_hh, bias_hh, state)

    def _forward_step(self, step: int, hidden: Tensor, recurrent: Tensor, bias_hh: Tensor) -> None:
        gates, m, states = self._activations[step], self._recurrent_n[step], self._states[0]
        r_and_z = slice(2 * m.shape[1])
        self._workspace.add_product(gates[:, r_and_z], hidden, recurrent[:, r_and_z]).sigmoid_()
        m.copy_(bias_hh[r_and_z.stop :])
        self._workspace.add_product(m, hidden, recurrent[:, r_and_z.stop :])
        r, z, n = gates.chunk(3, dim=1)
        _tanh(n.addcmul_(r, m), out=n)
        torch.sub(states[step], n, out=states[step + 1]).mul_(z).add_(n)

    def _take_hidden_grads(self, input_grads: Tensor) -> Tensor:
        return self._workspace.take("hidden gradients", *input_grads.shape, dtype=input_grads.dtype)

    def _backward_step(self, step: int, grad: Tensor, carried: Tensor, grad_x: Tensor, grad_product: Tensor) -> None:
        gates, exact = self._activations[step], self._exact(grad_x)
        r, z, n = gates.chunk(3, dim=1)
        grad_r, grad_z, grad_n = exact.chunk(3, dim=1)
        r_and_z = slice(2 * n.shape[1])
        torch.mul(grad, z, out=carried[0])
        torch.sub(grad, carried[0], out=grad_n)
        tanh_backward(grad_n, n, grad_input=grad_n)
        torch.mul(grad_n, self._recurrent_n[step], out=grad_r)
        torch.sub(self._states[0][step], n, out=grad_z).mul_(grad)
        sigmoid_backward(exact[:, r_and_z], gates[:, r_and_z], grad_input=exact[:, r_and_z])
        self._workspace.round(exact, grad_x)
        grad_product.copy_(grad_x)
        grad_product[:, r_and_z.stop :] = grad_n.mul_(r) if grad_n.dtype != grad_x.dtype else grad_n * r


UNROLLED_CELLS = {"rnn": UnrolledRNN, "lstm": UnrolledLSTM, "gru": UnrolledGRU}


class RecurrentLayer(torch.nn.Module):
    """A single layer of torch.nn.RNN, LSTM or GRU with the same parameter names, computed as this module describes."""

    def __init__(self, cell: str, torch_layer: torch.nn.RNNBase, dtype: torch.dtype = torch.float32) -> None:
        """torch_layer: a single layer whose parameters become this one's. dtype: of the operands of matrix products."""
        super().__init__()
        for name, parameter in torch_layer.named_parameters():
            self.register_parameter(name, parameter)
        self._cell = UNROLLED_CELLS[cell](workspace := Workspace(dtype))
        self._workspace = workspace

    def forward(self, rows: Tensor, state: list[Tensor], ids: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Return the outputs (T, B, H), and the state after the last step, detached.

        rows: the inputs (T, B, I); with ids (T, B), a table (V, I) of which row ids[t, b] is the input at t, b.
        state: the state before the first step, (B, H) each: the hidden and, of an LSTM, the cell state.

        The next call overwrites the outputs, so the backward pass must come before it.
        """
        weights = self._parameters.values()  # in torch's order: weight_ih, weight_hh, bias_ih, bias_hh
        inputs = (self._cell, self._workspace, ids, rows, *weights, *state)
        hidden, *last = _Recurrence.apply(*inputs)  # type: ignore[no-untyped-call]
        return hidden, last


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        cell: UnrolledRNN,
        workspace: Workspace,
        ids: Tensor | None,
        rows: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias_ih: Tensor,
        bias_hh: Tensor,
        *state: Tensor,
    ) -> tuple[Tensor, ...]:
        x = workspace.take("activations", *(rows if ids is None else ids[..., None]).shape[:2], len(weight_ih))
        rounded_rows, bias = workspace.rounded(rows.flatten(0, -2)), cell.folded_bias(bias_ih, bias_hh)
        product = torch.mm(rounded_rows, workspace.rounded(weight_ih).T)  # (T B, G H), or (V, G H) with ids
        if ids is None:
            x.flatten(0, 1).copy_(product).add_(bias)
        else:
            torch.index_select(product + bias, 0, ids.flatten(), out=x.flatten(0, 1))
        states = cell.forward(x, weight_hh, bias_hh, list(state))  # (T + 1, B, H) each
        ctx.cell, ctx.workspace = cell, workspace
        ctx.save_for_backward(ids, rows, rounded_rows, weight_ih, weight_hh)
        last = [part[-1].clone() for part in states]
        ctx.mark_non_differentiable(*last)
        return states[0][1:], *last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_outputs: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        ids, rows, rounded_rows, weight_ih, weight_hh = ctx.saved_tensors
        input_grads, hidden_grads = (grads.flatten(0, 1) for grads in ctx.cell.backward(grad_outputs, weight_hh))
        hidden = ctx.cell.rounded_hidden()[:-1].flatten(0, 1)  # (T B, H)
        grad_weight_hh, grad_bias_hh = hidden_grads.T @ hidden, _sum(hidden_grads)
        if ids is not None:  # sum over the positions at which each symbol was read: (T B, G H) → (V, G H)
            one_hot = input_grads.new_zeros(len(rows), len(input_grads)).scatter_(0, ids.reshape(1, -1), 1)
            input_grads = one_hot @ input_grads
        grad_weight_ih, grad_bias_ih = input_grads.T @ rounded_rows, _sum(input_grads)
        grad_rows = None
        if ctx.needs_input_grad[3]:
            grad_rows = (input_grads @ ctx.workspace.rounded(weight_ih)).view_as(rows).to(rows.dtype)
        grads = [grad.to(rows.dtype) for grad in (grad_weight_ih, grad_weight_hh, grad_bias_ih, grad_bias_hh)]
        return None, None, None, grad_rows, *grads, *(None for _ in ctx.needs_input_grad[8:])


def _tanh(x: Tensor, out: Tensor) -> Tensor:
    """Compute tanh x as 2 sigmoid(2 x) - 1."""
    return torch.mul(x, 2, out=out).sigmoid_().mul_(2).sub_(1)


def _sum(grads: Tensor) -> Tensor:
    """Sum (N, G H) over N by a matrix product: torch's sum takes eight times as long in bfloat16."""
    return grads.new_ones(1, len(grads)).mm(grads)[0]
