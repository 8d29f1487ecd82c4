"""The recurrent layers of torch.nn written out for training on a CPU, forward and backward through time.

They compute what torch.nn.RNN, LSTM and GRU compute, and are faster for these reasons:

- The first layer's input product is made once for each symbol of the vocabulary, V rows, rather than for
  every symbol read, T × B rows.
- The gradient of the recurrent matrix is one product over the whole sequence rather than T small ones.
- Every large array is kept from one call to the next: fresh memory costs a page fault for every 4 kB.
- tanh is computed from the sigmoid: torch's own takes six times as long on an AMD CPU.
- In bf16, matrix products alone are made in bfloat16. States, gates and their gradients stay float32, so
  that a memory cell does not lose what is small beside it.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
tanh_backward = torch.ops.aten.tanh_backward.grad_input


class Workspace:
    """Arrays that keep their place in memory: taking one again under its name overwrites what it held.

    dtype: of the operands of matrix products, float32 or bfloat16. Each product reads arrays of this type;
    where it is float32, an array and its rounded copy are one and the same.
    """

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self._arrays: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Return an array of that shape with any content; its type is that of new tensors unless given."""
        array = self._arrays.get(name)
        if array is None or array.shape != shape:
            array = self._arrays[name] = torch.empty(shape, dtype=dtype)
        return array

    def take_rounded(self, name: str, array: Tensor) -> Tensor:
        """Return the array that holds the rounded copy of `array`, still to be filled with `round`."""
        return array if array.dtype == self.dtype else self.take(f"{name}, rounded", *array.shape, dtype=self.dtype)

    def round(self, array: Tensor, rounded: Tensor) -> None:
        """Fill a rounded copy."""
        if rounded.dtype != array.dtype:
            rounded.copy_(array)

    def rounded(self, array: Tensor) -> Tensor:
        """Return a copy of `array` for a matrix product, laid out row by row."""
        return array.to(self.dtype).contiguous()

    def add_product(self, total: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """Add the product of two rounded matrices to `total`, in place."""
        if left.dtype == total.dtype:
            return total.addmm_(left, right)
        product = self.take(f"product {total.shape}", *total.shape, dtype=self.dtype)
        return total.add_(torch.mm(left, right, out=product))


class RNNSteps:
    """h = tanh(x + h W), where x (T, B, H) is the input's part with both biases.

    The other cells follow the same plan. `forward` overwrites x by the gates' activations; `backward`
    goes through the same arrays, which stand in the workspace.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._activations = torch.empty(0)
        self._states: list[Tensor] = []

    @staticmethod
    def folded_bias(bias_ih: Tensor, bias_hh: Tensor) -> Tensor:
        """Return what of the biases is the same at every step, and so is added to the input's part."""
        return bias_ih + bias_hh

    def forward(self, x: Tensor, weight_hh: Tensor, bias_hh: Tensor, state: list[Tensor]) -> list[Tensor]:
        """Run from `state` over x (T, B, G H); return the states (T + 1, B, H), the hidden state first."""
        workspace, size = self._workspace, weight_hh.shape[1]
        self._activations = x
        self._states = [workspace.take(f"state {place}", len(x) + 1, x.shape[1], size) for place in range(len(state))]
        for states, start in zip(self._states, state, strict=True):
            states[0] = start
        hidden, recurrent = self._states[0], workspace.rounded(weight_hh.T)
        rounded = self.rounded_hidden()
        workspace.round(hidden[0], rounded[0])
        for step in range(len(x)):
            self._step(step, rounded[step], recurrent, bias_hh)
            workspace.round(hidden[step + 1], rounded[step + 1])
        return self._states

    def rounded_hidden(self) -> Tensor:
        """Return the hidden states (T + 1, B, H) of the last `forward`, as products read them."""
        return self._workspace.take_rounded("state 0", self._states[0])

    def _step(self, step: int, hidden: Tensor, recurrent: Tensor, _bias_hh: Tensor) -> None:
        x = self._workspace.add_product(self._activations[step], hidden, recurrent)
        _tanh(x, out=self._states[0][step + 1])

    def backward(self, grad_outputs: Tensor, weight_hh: Tensor) -> tuple[Tensor, Tensor]:
        """Go back through the last `forward` from the gradients of its outputs (T, B, H).

        Return the gradients (T, B, G H), rounded for products, of x and of what is added to it, h W.
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
            self._step_back(step, grad_hidden, carried, input_grads[step], hidden_grads[step])
        return input_grads, hidden_grads

    def _take_hidden_grads(self, input_grads: Tensor) -> Tensor:
        return input_grads  # the same, since x and h W are added

    def _step_back(self, step: int, grad: Tensor, _carried: Tensor, grad_x: Tensor, _grad_product: Tensor) -> None:
        """Fill grad_x and grad_product (B, G H) from the gradient (B, H) of a step's hidden state.

        carried (2, B, H): the gradient that reaches the hidden state before other than through h W, and that of the
        cell state.
        """
        exact = self._exact(grad_x)
        tanh_backward(grad, self._states[0][step + 1], grad_input=exact)
        self._workspace.round(exact, grad_x)

    def _exact(self, rounded: Tensor) -> Tensor:
        """Return the float32 array whose rounded copy `rounded` shall hold."""
        if rounded.dtype == self._activations.dtype:
            return rounded
        return self._workspace.take(f"exact {rounded.shape}", *rounded.shape)


class LSTMSteps(RNNSteps):
    """i, f, g, o = the four gates of x + h W (T, B, 4 H); c = f c + i g; h = o tanh(c)."""

    def forward(self, x: Tensor, weight_hh: Tensor, bias_hh: Tensor, state: list[Tensor]) -> list[Tensor]:
        """See RNNSteps.forward."""
        self._squashed = self._workspace.take("squashed", *x.shape[:2], weight_hh.shape[1])  # tanh(c)
        return super().forward(x, weight_hh, bias_hh, state)

    def _step(self, step: int, hidden: Tensor, recurrent: Tensor, _bias_hh: Tensor) -> None:
        gates = self._workspace.add_product(self._activations[step], hidden, recurrent)
        hidden_states, cells = self._states
        i, f, g, o = gates.chunk(4, dim=1)
        gates[:, : 2 * g.shape[1]].sigmoid_()  # i and f
        _tanh(g, out=g)
        o.sigmoid_()
        torch.mul(f, cells[step], out=cells[step + 1]).addcmul_(i, g)
        _tanh(cells[step + 1], out=self._squashed[step])
        torch.mul(o, self._squashed[step], out=hidden_states[step + 1])

    def _step_back(self, step: int, grad: Tensor, carried: Tensor, grad_x: Tensor, _grad_product: Tensor) -> None:
        cells, squashed, grad_cell = self._states[1], self._squashed[step], carried[1]
        gates, exact = self._activations[step], self._exact(grad_x)
        i, f, g, o = gates.chunk(4, dim=1)
        grad_i, grad_f, grad_g, grad_o = exact.chunk(4, dim=1)
        i_and_f = slice(2 * g.shape[1])
        torch.mul(grad, o, out=grad_g)  # a place for what reaches tanh(c)
        grad_cell += tanh_backward(grad_g, squashed, grad_input=grad_g)
        torch.mul(grad_cell, g, out=grad_i)
        torch.mul(grad_cell, cells[step], out=grad_f)
        torch.mul(grad_cell, i, out=grad_g)
        torch.mul(grad, squashed, out=grad_o)
        sigmoid_backward(exact[:, i_and_f], gates[:, i_and_f], grad_input=exact[:, i_and_f])
        tanh_backward(grad_g, g, grad_input=grad_g)
        sigmoid_backward(grad_o, o, grad_input=grad_o)
        grad_cell *= f
        self._workspace.round(exact, grad_x)


class GRUSteps(RNNSteps):
    """r, z = two gates of x + h W; n = tanh(x + r (h W + b)); h = (1 - z) n + z h. x and h W are (T, B, 3 H)."""

    @staticmethod
    def folded_bias(bias_ih: Tensor, bias_hh: Tensor) -> Tensor:
        """See RNNSteps.folded_bias; the last third of `bias_hh` is scaled by the gate r."""
        shared = 2 * len(bias_hh) // 3
        return torch.cat([bias_ih[:shared] + bias_hh[:shared], bias_ih[shared:]])

    def forward(self, x: Tensor, weight_hh: Tensor, bias_hh: Tensor, state: list[Tensor]) -> list[Tensor]:
        """See RNNSteps.forward."""
        self._scaled = self._workspace.take("scaled", *x.shape[:2], weight_hh.shape[1])  # by r: h W + b of n
        return super().forward(x, weight_hh, bias_hh, state)

    def _step(self, step: int, hidden: Tensor, recurrent: Tensor, bias_hh: Tensor) -> None:
        gates, scaled, states = self._activations[step], self._scaled[step], self._states[0]
        r_and_z = slice(2 * scaled.shape[1])
        self._workspace.add_product(gates[:, r_and_z], hidden, recurrent[:, r_and_z]).sigmoid_()
        scaled.copy_(bias_hh[r_and_z.stop :])
        self._workspace.add_product(scaled, hidden, recurrent[:, r_and_z.stop :])
        r, z, n = gates.chunk(3, dim=1)
        _tanh(n.addcmul_(r, scaled), out=n)
        torch.sub(states[step], n, out=states[step + 1]).mul_(z).add_(n)

    def _take_hidden_grads(self, input_grads: Tensor) -> Tensor:
        return self._workspace.take("hidden gradients", *input_grads.shape, dtype=input_grads.dtype)

    def _step_back(self, step: int, grad: Tensor, carried: Tensor, grad_x: Tensor, grad_product: Tensor) -> None:
        gates, exact = self._activations[step], self._exact(grad_x)
        r, z, n = gates.chunk(3, dim=1)
        grad_r, grad_z, grad_n = exact.chunk(3, dim=1)
        r_and_z = slice(2 * n.shape[1])
        torch.mul(grad, z, out=carried[0])
        torch.sub(grad, carried[0], out=grad_n)
        tanh_backward(grad_n, n, grad_input=grad_n)
        torch.mul(grad_n, self._scaled[step], out=grad_r)
        torch.sub(self._states[0][step], n, out=grad_z).mul_(grad)
        sigmoid_backward(exact[:, r_and_z], gates[:, r_and_z], grad_input=exact[:, r_and_z])
        self._workspace.round(exact, grad_x)
        grad_product.copy_(grad_x)
        grad_product[:, r_and_z.stop :] = grad_n.mul_(r) if grad_n.dtype != grad_x.dtype else grad_n * r


STEPS = {"rnn": RNNSteps, "lstm": LSTMSteps, "gru": GRUSteps}


class RecurrentLayer(torch.nn.Module):
    """A layer of torch.nn.RNN, LSTM or GRU, with its parameters under the same names, computed as described above."""

    def __init__(self, cell: str, torch_layer: torch.nn.RNNBase, dtype: torch.dtype = torch.float32) -> None:
        """torch_layer: a single layer, whose parameters are taken over. dtype: of the operands of matrix products."""
        super().__init__()
        for name, parameter in torch_layer.named_parameters():
            self.register_parameter(name, parameter)
        self._steps = STEPS[cell](workspace := Workspace(dtype))
        self._workspace = workspace

    def forward(self, rows: Tensor, state: list[Tensor], ids: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Read inputs from `state`; return the outputs (T, B, H) and the state after the last, which has no gradient.

        rows: the inputs (T, B, I); with ids (T, B), a table (V, I) whose row ids[t, b] is the input at t, b.
        state: the tensors (B, H) that the cell keeps.

        The outputs stand in memory that the next call overwrites: the backward pass must come before it.
        """
        weights = self._parameters.values()  # in torch's order: weight_ih, weight_hh, bias_ih, bias_hh
        inputs = (self._steps, self._workspace, ids, rows, *weights, *state)
        hidden, *last = _Recurrence.apply(*inputs)  # type: ignore[no-untyped-call]
        return hidden, last


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        steps: RNNSteps,
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
        rounded_rows, bias = workspace.rounded(rows.flatten(0, -2)), steps.folded_bias(bias_ih, bias_hh)
        product = torch.mm(rounded_rows, workspace.rounded(weight_ih).T)
        if ids is None:
            x.flatten(0, 1).copy_(product).add_(bias)
        else:
            torch.index_select(product + bias, 0, ids.flatten(), out=x.flatten(0, 1))
        states = steps.forward(x, weight_hh, bias_hh, list(state))
        ctx.steps, ctx.workspace = steps, workspace
        ctx.save_for_backward(ids, rows, rounded_rows, weight_ih, weight_hh)
        last = [part[-1].clone() for part in states]
        ctx.mark_non_differentiable(*last)
        return states[0][1:], *last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_outputs: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        ids, rows, rounded_rows, weight_ih, weight_hh = ctx.saved_tensors
        input_grads, hidden_grads = (grads.flatten(0, 1) for grads in ctx.steps.backward(grad_outputs, weight_hh))
        hidden = ctx.steps.rounded_hidden()[:-1].flatten(0, 1)  # (T B, H)
        grad_weight_hh, grad_bias_hh = hidden_grads.T @ hidden, _sum(hidden_grads)
        if ids is not None:  # a symbol's gradient is the sum over the places where it was read: (T B, G H) → (V, G H)
            places = input_grads.new_zeros(len(rows), len(input_grads)).scatter_(0, ids.reshape(1, -1), 1)
            input_grads = places @ input_grads
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
    """Sum (N, G H) over N: as a product, for torch's own sum of bfloat16 takes eight times as long."""
    return grads.new_ones(1, len(grads)).mm(grads)[0]
