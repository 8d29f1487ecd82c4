import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import laws
from reference import TORCH_CLASSES

from charlm.model.cells import CELLS
from train.recurrence import RecurrentLayer

cells = pytest.mark.parametrize("cell", CELLS)

# Products are summed in another order, and tanh comes from the sigmoid: a few units in the last of 16 places.
ROUNDING = {"rtol": 1e-9, "atol": 1e-11}


@pytest.fixture(autouse=True, scope="module")
def _double_by_default():
    """What a layer works on is of the default type: in double, a mistake cannot pass for rounding."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def _float_by_default(_double_by_default):
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(torch.float64)


class Pair:
    """The same layer as torch.nn has it and as it is written out, in the default type."""

    def __init__(self, cell, inputs=4, hidden=5, seed=0, scale=0.7, products=None):
        self.random = torch.Generator().manual_seed(seed)
        self.states, self.inputs, self.hidden = CELLS[cell].states, inputs, hidden
        self.plain, ours = (TORCH_CLASSES[cell](inputs, hidden) for _ in range(2))
        for parameter in self.plain.parameters():  # large enough for every gate to matter
            torch.nn.init.normal_(parameter, std=scale, generator=self.random)
        ours.load_state_dict(self.plain.state_dict())
        self.layer = RecurrentLayer(cell, ours, products or torch.get_default_dtype())

    def draw(self, *shape):
        return torch.randn(*shape, generator=self.random)

    def draw_state(self, streams):
        return [self.draw(streams, self.hidden) for _ in range(self.states)]

    def run_plain(self, inputs, state):
        before = tuple(part[None] for part in state)
        outputs, after = self.plain(inputs, before if len(before) > 1 else before[0])
        return outputs, [part[0] for part in (after if isinstance(after, tuple) else (after,))]

    def assert_equal(self, rows, state, ids=None, tolerance=ROUNDING):
        """Compare outputs, last state and every gradient of a weighted sum of the outputs."""
        ours, plain = rows.clone().requires_grad_(), rows.clone().requires_grad_()
        outputs, last = self.layer(ours, state, ids)
        expected, expected_last = self.run_plain(plain if ids is None else plain[ids], state)
        close(outputs, expected, tolerance)
        for part, expected_part in zip(last, expected_last, strict=True):
            close(part, expected_part, tolerance)
        for part in self.layer, self.plain:
            part.zero_grad()
        upstream = self.draw(*expected.shape)
        (outputs * upstream).sum().backward()
        (expected * upstream).sum().backward()
        close(ours.grad, plain.grad, tolerance)
        expected_grads = dict(self.plain.named_parameters())
        assert [name for name, _ in self.layer.named_parameters()] == list(expected_grads)
        for name, parameter in self.layer.named_parameters():
            close(parameter.grad, expected_grads[name].grad, tolerance)


def close(found, expected, tolerance=ROUNDING):
    torch.testing.assert_close(found, expected, **tolerance)


sizes = st.tuples(*[st.integers(1, most) for most in (6, 4, 5, 7)])  # T, B, I, H


@cells
@laws
@given(sizes, st.integers(0, 1000))
def test_rows_are_read_as_torch_reads_them_forward_and_backward(cell, sizes, seed):
    steps, streams, inputs, hidden = sizes
    pair = Pair(cell, inputs, hidden, seed)
    pair.assert_equal(pair.draw(steps, streams, inputs), pair.draw_state(streams))


@cells
@laws
@given(sizes, st.integers(1, 9), st.integers(0, 1000))
def test_a_table_of_symbols_gives_what_its_rows_would(cell, sizes, symbols, seed):
    steps, streams, inputs, hidden = sizes
    pair = Pair(cell, inputs, hidden, seed)
    ids = torch.randint(symbols, (steps, streams), generator=pair.random)
    pair.assert_equal(pair.draw(symbols, inputs), pair.draw_state(streams), ids)


@cells
def test_ids_may_be_a_share_of_the_streams_of_a_batch(cell):
    pair = Pair(cell)
    ids = torch.randint(6, (3, 8), generator=pair.random)[:, 2:4]
    assert not ids.is_contiguous()
    pair.assert_equal(pair.draw(6, pair.inputs), pair.draw_state(2), ids)


@cells
def test_a_layer_reads_batches_of_any_shape_one_after_another(cell):
    pair = Pair(cell)
    for steps, streams in [(3, 2), (5, 4), (1, 1), (2, 3), (3, 2), (3, 2)]:
        pair.assert_equal(pair.draw(steps, streams, pair.inputs), pair.draw_state(streams))
        ids = torch.randint(6, (steps, streams), generator=pair.random)
        pair.assert_equal(pair.draw(6, pair.inputs), pair.draw_state(streams), ids)


@cells
def test_gradients_add_up_over_calls_whose_backward_passes_come_in_time(cell):
    pair = Pair(cell)
    state = pair.draw_state(2)
    rows = pair.draw(7, 2, pair.inputs)
    whole, parts = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    pair.layer(parts[:3], state)[0].sum().backward()
    pair.layer(parts[3:], state)[0].sum().backward()
    (pair.run_plain(whole[:3], state)[0].sum() + pair.run_plain(whole[3:], state)[0].sum()).backward()
    close(parts.grad, whole.grad)
    for ours, plain in zip(pair.layer.parameters(), pair.plain.parameters(), strict=True):
        close(ours.grad, plain.grad)


@cells
def test_one_long_sequence_equals_three_with_carried_state(cell):
    pair = Pair(cell)
    rows, state = pair.draw(12, 3, pair.inputs), pair.draw_state(3)
    outputs, last = pair.layer(rows, state)
    outputs = outputs.detach().clone()  # the next call overwrites them
    parts, carried = [], state
    for piece in rows.split([5, 1, 6]):
        read, carried = pair.layer(piece, carried)
        parts.append(read.detach().clone())
    close(torch.cat(parts), outputs)
    for part, whole in zip(carried, last, strict=True):
        close(part, whole)


@cells
def test_the_state_that_is_returned_stays_as_it_is_and_has_no_gradient(cell):
    pair = Pair(cell)
    rows = pair.draw(3, 2, pair.inputs).requires_grad_()
    _, last = pair.layer(rows, pair.draw_state(2))
    before = [part.clone() for part in last]
    pair.layer(pair.draw(3, 2, pair.inputs), pair.draw_state(2))
    assert not any(part.requires_grad for part in last)
    assert all(torch.equal(part, same) for part, same in zip(last, before, strict=True))


@cells
def test_the_states_and_inputs_that_are_given_are_left_alone(cell):
    pair = Pair(cell)
    given_tensors = [pair.draw(3, 2, pair.inputs), *pair.draw_state(2)]
    before = [tensor.clone() for tensor in given_tensors]
    pair.layer(given_tensors[0].requires_grad_(), given_tensors[1:])[0].sum().backward()
    assert all(torch.equal(tensor, same) for tensor, same in zip(given_tensors, before, strict=True))


@cells
@pytest.mark.parametrize("by_table", [False, True])
def test_gradients_are_those_of_small_differences(cell, by_table):
    pair = Pair(cell, inputs=2, hidden=3)
    ids = torch.tensor([[0, 2], [2, 2]]) if by_table else None
    rows = pair.draw(*(3, 2) if by_table else (2, 2, 2))
    names, weights = zip(*pair.layer.named_parameters(), strict=True)

    def outputs(rows, *weights):
        for name, weight in zip(names, weights, strict=True):
            pair.layer._parameters[name] = weight
        return pair.layer(rows, state, ids)[0].clone()

    state = pair.draw_state(2)
    inputs = [rows.requires_grad_(), *(weight.detach().clone().requires_grad_() for weight in weights)]
    assert torch.autograd.gradcheck(outputs, inputs)


@cells
@pytest.mark.parametrize("large", [30.0, 1000.0])
def test_gates_that_are_quite_open_or_shut_give_numbers(cell, large):
    pair = Pair(cell)
    rows = large * pair.draw(4, 3, pair.inputs).sign()
    pair.assert_equal(rows, pair.draw_state(3))


# Other types than double


def relative_errors(cell, by_table, products):
    """How far a layer is from torch's in double: outputs, last state, gradients of inputs and parameters."""
    pair = Pair(cell, 32, 48, scale=0.14, products=products)  # torch's own scale: units seldom saturate
    ids = torch.randint(20, (12, 8), generator=pair.random) if by_table else None
    ours = pair.draw(*(20, 32) if by_table else (12, 8, 32)).requires_grad_()
    plain = ours.detach().double().requires_grad_()
    state = pair.draw_state(8)
    outputs, last = pair.layer(ours, state, ids)
    pair.plain.double()
    expected, expected_last = pair.run_plain(plain if ids is None else plain[ids], [part.double() for part in state])
    upstream = pair.draw(*expected.shape)
    (outputs * upstream).sum().backward()
    (expected * upstream).sum().backward()
    found = [outputs, *last, *(tensor.grad for tensor in (ours, *pair.layer.parameters()))]
    assert {tensor.dtype for tensor in found} == {torch.float32}
    exact = [expected, *expected_last, *(tensor.grad for tensor in (plain, *pair.plain.parameters()))]
    return [((mine - theirs).norm() / theirs.norm()).item() for mine, theirs in zip(found, exact, strict=True)]


@cells
@pytest.mark.parametrize("by_table", [False, True])
@pytest.mark.usefixtures("_float_by_default")
def test_in_float32_only_the_last_digits_are_lost(cell, by_table):
    assert max(relative_errors(cell, by_table, torch.float32)) < 1e-6  # some ten times 2 ** -24


@cells
@pytest.mark.parametrize("by_table", [False, True])
@pytest.mark.usefixtures("_float_by_default")
def test_bf16_products_leave_gradients_within_two_percent_and_states_in_float32(cell, by_table):
    # bfloat16 keeps 8 binary digits, 0.4 percent; what it loses in one step is read in the next
    assert max(relative_errors(cell, by_table, torch.bfloat16)) < 0.02


@pytest.mark.usefixtures("_float_by_default")
def test_a_memory_cell_in_bf16_keeps_what_is_small_beside_it():
    plain = torch.nn.LSTM(1, 1)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.zero_()
        # i = 0.001, f = 1, g = 1: the cell counts steps in thousandths
        plain.bias_ih_l0.copy_(torch.tensor([np.log(1e-3 / (1 - 1e-3)), 40.0, 40.0, 0.0]))
    layer = RecurrentLayer("lstm", plain, torch.bfloat16)
    _, (_, cell) = layer(torch.zeros(100, 1, 1), [torch.zeros(1, 1), torch.full((1, 1), 8.0)])
    assert cell.item() == pytest.approx(8.1, abs=1e-4)  # in bfloat16, 8 + 0.001 is 8
