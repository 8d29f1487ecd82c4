import numpy as np
import pytest
import torch
from models import make_config

from charlm.model.cells import CELLS
from charlm.model.network import Network
from train import head
from train.head import MOST_TRAINING_LOGITS, head_losses
from train.network import TrainingNetwork
from train.recurrence import RecurrentLayer

LARGE_VOCAB = "".join(map(chr, range(0x100, 0x120)))  # 32 symbols, more than twice the embedding

cells = pytest.mark.parametrize("cell", CELLS)
layers = pytest.mark.parametrize("num_layers", [1, 2, 3])
vocabs = pytest.mark.parametrize("vocab", ["abcdefg", LARGE_VOCAB], ids=["small", "large"])


@pytest.fixture(autouse=True)
def _own_random_numbers():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def make_network(
    cell="lstm", batch_size=4, own_streams=slice(None), embedding_dropout=0.0, dtype=torch.float32, **sizes
):
    config = make_config(cell, **({"dropout": 0.0} | sizes))
    return TrainingNetwork(config, embedding_dropout, "cpu", dtype, batch_size, own_streams)


def plain_network(network):
    return Network.from_weights(network._config, network.export_weights())


def random_ids(network, steps=6, streams=4, seed=5):
    drawn = np.random.default_rng(seed).integers(len(network._config.vocab), size=(steps, streams))
    return torch.from_numpy(drawn)


def random_states(network, streams=4):
    size = network._config.hidden_size
    return [[torch.randn(streams, size) for _ in range(network._config.kind.states)] for _ in network.layers]


def stacked(states):
    """The states as charlm.model.network has them, (L, B, H)."""
    return tuple(torch.stack(part) for part in zip(*states, strict=True))


# Sums of some ten products of numbers below 1, each rounded in the 7th place.
def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@cells
@layers
@vocabs
def test_undropped_logits_and_states_are_those_of_the_model_that_is_exported(cell, num_layers, vocab):
    network = make_network(cell, num_layers=num_layers, vocab=vocab)
    ids, states = random_ids(network), random_states(network)
    logits, after = network(ids, states)
    expected, expected_after = plain_network(network)(ids, stacked(states))
    close(logits, expected)
    close(stacked(after), expected_after)


def losses_and_gradients(network, ids, targets, states):
    network.zero_grad(set_to_none=True)
    loss, _, after = network.mean_losses(ids, targets, states)
    loss.backward()
    return loss.detach(), {name: each.grad.clone() for name, each in network.exported_parameters().items()}, after


@cells
@vocabs
@pytest.mark.parametrize("most", [1, 3 * 32, 23 * 32, 2**26], ids="{} logits at a time".format)
def test_a_loss_in_parts_and_its_gradients_are_those_of_all_logits_in_torch(cell, vocab, most, monkeypatch):
    monkeypatch.setitem(MOST_TRAINING_LOGITS, "cpu", most)
    network = make_network(cell, vocab=vocab)
    ids, targets, states = random_ids(network), random_ids(network, seed=6), random_states(network)
    loss, gradients, after = losses_and_gradients(network, ids, targets, states)
    plain = plain_network(network).requires_grad_()
    logits, expected_after = plain(ids, stacked(states))
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    expected.backward()
    close(loss, expected.detach())
    close(stacked(after), expected_after)
    for name, parameter in plain.named_parameters():
        close(gradients[name], parameter.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loss_in_parts_drops_and_rounds_what_a_whole_one_does(dtype, monkeypatch):
    """The dropout masks are drawn once for the step."""
    results = []
    for most in (2**26, 5 * 7):
        monkeypatch.setitem(MOST_TRAINING_LOGITS, "cpu", most)
        torch.manual_seed(1)
        network = make_network(dropout=0.5, dtype=dtype, embedding_dropout=0.3)
        torch.manual_seed(2)
        results.append(
            losses_and_gradients(network, random_ids(network), random_ids(network, seed=6), network.zero_states(4))
        )
    (loss, gradients, _), (expected, expected_gradients, _) = results
    close(loss, expected)
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            gradient, expected_gradients[name], rtol=1e-2 if dtype == torch.bfloat16 else 1e-4, atol=1e-4
        )


@pytest.mark.parametrize("most", [1, 5 * 32, 2**21], ids="{} logits at a time".format)
def test_distributions_are_learnt_as_torch_learns_them(most, monkeypatch):
    """Each distribution sums to 1.001, since probabilities in float16 do not quite sum to 1."""
    monkeypatch.setitem(MOST_TRAINING_LOGITS, "cpu", most)
    rows, weight, bias = torch.randn(12, 6), torch.randn(32, 6), torch.randn(32)
    taught, ids = torch.rand(12, 32).softmax(1) * 1.001, torch.randint(32, (12,))
    ours, plain = ([each.clone().requires_grad_() for each in (rows, weight, bias)] for _ in range(2))
    learnt, loss = head_losses(*ours, [taught, ids], torch.float32)
    (3 * learnt).backward()
    logits = torch.nn.functional.linear(*plain)
    expected = torch.nn.functional.cross_entropy(logits, taught, reduction="sum")
    (3 * expected).backward()
    close(learnt.detach(), expected.detach())
    close(loss.detach(), torch.nn.functional.cross_entropy(logits, ids, reduction="sum").detach())
    for one, other in zip(ours, plain, strict=True):
        close(one.grad, other.grad)


def test_in_bf16_the_loss_is_nearly_that_of_float32_and_no_other_products_change():
    before = torch.backends.mkldnn.matmul.fp32_precision
    rows, weight, bias, ids = torch.randn(200, 64), 2 * torch.randn(32, 64), torch.zeros(32), torch.randint(32, (200,))
    losses = [head_losses(rows, weight, bias, [ids], dtype)[0] for dtype in (torch.bfloat16, torch.float32)]
    assert abs(losses[0] - losses[1]) < 1e-3 * losses[1]  # where the CPU rounds operands, as it may
    assert torch.backends.mkldnn.matmul.fp32_precision == before


def test_a_step_of_training_holds_the_logits_of_a_part_at_a_time(monkeypatch):
    """Whatever autograd saves for the backward pass is seen by its hook."""
    monkeypatch.setitem(MOST_TRAINING_LOGITS, "cpu", 64)
    network = make_network(vocab=LARGE_VOCAB)
    saved, made, replace = [], [], head._replace_by_gradient
    monkeypatch.setattr(
        head, "_replace_by_gradient", lambda logits, *wanted: made.append(logits.shape) or replace(logits, *wanted)
    )
    with torch.autograd.graph.saved_tensors_hooks(lambda each: saved.append(each.shape) or each, lambda each: each):
        loss, *_ = network.mean_losses(random_ids(network), random_ids(network, seed=6), random_states(network))
        loss.backward()
    assert made == [(2, 32)] * 12
    assert not [shape for shape in saved if len(shape) > 1 and shape[-1] == 32]


@cells
@vocabs
def test_gradients_are_those_of_the_model_that_is_exported(cell, vocab):
    network = make_network(cell, vocab=vocab)
    ids, targets, states = random_ids(network), random_ids(network, seed=6), random_states(network)
    plain = plain_network(network).requires_grad_()
    for model, before in (network, states), (plain, stacked(states)):
        logits, _ = model(ids, before)
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    expected = dict(plain.named_parameters())
    for name, parameter in network.exported_parameters().items():
        close(parameter.grad, expected[name].grad)


@pytest.mark.parametrize(("symbols", "by_table"), [(10, True), (11, False)])
def test_a_vocabulary_up_to_twice_the_embedding_is_multiplied_once(monkeypatch, symbols, by_table):
    network = make_network(vocab=LARGE_VOCAB[:symbols], embedding_size=5)
    given = []
    forward = RecurrentLayer.forward
    monkeypatch.setattr(
        RecurrentLayer, "forward", lambda layer, *inputs: given.append(len(inputs)) or forward(layer, *inputs)
    )
    network(random_ids(network), network.zero_states(4))
    assert given == [3 if by_table else 2, 2]  # with ids or without


@cells
@layers
def test_weights_are_exported_as_config_json_describes_them(cell, num_layers):
    network = make_network(cell, num_layers=num_layers)
    exported = network.export_weights()
    assert {name: array.shape for name, array in exported.items()} == network._config.tensor_shapes
    assert {array.dtype for array in exported.values()} == {np.dtype(np.float32)}
    assert sum(parameter.numel() for parameter in network.parameters()) == network._config.parameters


def test_exported_weights_are_a_copy_and_exported_parameters_are_not():
    network = make_network()
    exported, parameters = network.export_weights(), network.exported_parameters()
    before = {name: array.copy() for name, array in exported.items()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    for name, array in exported.items():
        np.testing.assert_array_equal(array, before[name])
        np.testing.assert_array_equal(parameters[name].detach(), before[name] + np.float32(1))


@cells
def test_the_states_returned_hang_on_no_graph(cell):
    network = make_network(cell, dropout=0.5)
    logits, states = network(random_ids(network), network.zero_states(4))
    assert logits.requires_grad
    assert not any(part.requires_grad or part.grad_fn for state in states for part in state)
    assert [len(state) for state in states] == [CELLS[cell].states] * 2


@cells
def test_a_text_begins_with_states_of_zeros(cell):
    network = make_network(cell)
    ids = random_ids(network, streams=3)
    close(network(ids, network.zero_states(3))[0], plain_network(network)(ids)[0])


@pytest.mark.parametrize("cell", ["rnn", "gru"])
def test_a_sequence_in_parts_gives_what_it_gives_whole(cell):
    network = make_network(cell)
    ids = random_ids(network, steps=9)
    whole = network(ids, network.zero_states(4))[0].detach().clone()
    states, parts = network.zero_states(4), []
    for piece in ids.split([2, 6, 1]):
        logits, states = network(piece, states)
        parts.append(logits.detach())
    close(torch.cat(parts), whole)


# What is dropped

SHARE = 0.25


def locked(streams=200, hidden=50, steps=3, share=SHARE):
    network = make_network(batch_size=streams, hidden_size=hidden, dropout=share)
    return network.variational_dropout(torch.ones(steps, streams, hidden)).detach()


def test_the_same_units_are_dropped_at_every_step_and_others_in_each_stream():
    dropped = locked() == 0
    assert (dropped == dropped[0]).all()
    assert len(dropped[0].unique(dim=0)) == 200
    assert not torch.equal(locked() == 0, dropped)  # drawn anew at every call


def test_the_share_is_dropped_and_the_rest_scaled_so_that_the_mean_stays():
    outputs = locked()[0]
    assert outputs.unique().tolist() == pytest.approx([0, 1 / (1 - SHARE)])
    # of 10,000 units, within five standard deviations
    assert float((outputs == 0).float().mean()) == pytest.approx(SHARE, abs=5 * (SHARE * (1 - SHARE) / 10_000) ** 0.5)


def test_outputs_in_bfloat16_keep_their_mean():
    network = make_network(batch_size=200, hidden_size=50, dropout=0.4)  # 1 / 0.6 = 1.66667, in bfloat16 1.66406
    outputs = torch.rand(50, 200, 50).bfloat16()
    kept = network.variational_dropout(outputs)
    assert kept.dtype == torch.bfloat16
    assert float(kept.double().sum() / outputs.double()[kept != 0].sum()) == pytest.approx(1 / 0.6, rel=1e-4)


def test_units_are_dropped_between_the_layers_and_before_the_head_but_not_in_the_state(monkeypatch):
    network = make_network(num_layers=3, dropout=SHARE)
    calls = []
    monkeypatch.setattr(network, "variational_dropout", lambda outputs: calls.append(outputs.shape) or outputs * 0)
    ids = random_ids(network)
    logits, states = network(ids, network.zero_states(4))
    assert calls == [(6, 4, 8)] * 3
    close(logits, network.head.bias.expand(6, 4, -1))
    # the first layer carries its own outputs on whole
    _, (hidden, _) = plain_network(network)(ids)
    close(states[0][0], hidden[0])


@vocabs
def test_of_the_embedding_single_numbers_of_a_symbol_are_dropped_wherever_it_is_read(monkeypatch, vocab):
    network = make_network(num_layers=1, vocab=vocab, embedding_size=12, embedding_dropout=SHARE)
    torch.nn.init.ones_(network.embedding.weight)
    inputs = []
    forward = RecurrentLayer.forward

    def spy(layer, rows, state, ids=None):
        inputs.append((rows if ids is None else rows[ids]).detach())
        return forward(layer, rows, state, ids)

    monkeypatch.setattr(RecurrentLayer, "forward", spy)
    ids = torch.arange(len(vocab)).repeat(2)[:, None].expand(-1, 4)  # every symbol twice in each of four streams
    network(ids, network.zero_states(4))
    by_symbol = inputs[0][: len(vocab), 0]  # (V, E)
    assert torch.equal(inputs[0], by_symbol[ids])
    assert by_symbol.unique().tolist() == pytest.approx([0, 1 / (1 - SHARE)])
    assert len(by_symbol.unique(dim=0)) > 4 and len(by_symbol.unique(dim=1)[0]) > 4


@cells
@vocabs
def test_two_halves_of_a_batch_give_together_what_the_whole_gives(cell, vocab):
    sizes = {"vocab": vocab, "dropout": 0.5, "embedding_dropout": 0.3, "num_layers": 3, "batch_size": 6}
    whole = make_network(cell, **sizes)
    ids, states = random_ids(whole, streams=6), random_states(whole, streams=6)

    def read(network, share):
        torch.manual_seed(7)
        logits, after = network(ids[:, share], [[part[share] for part in state] for state in states])
        logits.square().sum().backward()
        return logits.detach(), after, {name: tensor.grad for name, tensor in network.exported_parameters().items()}

    logits, after, grads = read(whole, slice(None))
    halves = []
    for share in slice(0, 3), slice(3, 6):
        half = make_network(cell, own_streams=share, **sizes)
        half.load_state_dict(whole.state_dict())
        halves.append(read(half, share))
    close(torch.cat([half[0] for half in halves], dim=1), logits)
    for layer, state in enumerate(after):
        for place, part in enumerate(state):
            close(torch.cat([half[1][layer][place] for half in halves]), part)
    for name, grad in grads.items():
        torch.testing.assert_close(halves[0][2][name] + halves[1][2][name], grad, rtol=1e-3, atol=1e-4)


def test_where_nothing_is_dropped_nothing_is_drawn():
    network = make_network()
    before = torch.get_rng_state()
    network(random_ids(network), network.zero_states(4))
    assert torch.equal(torch.get_rng_state(), before)


@cells
def test_bf16_products_leave_weights_logits_and_states_in_float32_and_logits_close(cell):
    network = make_network(cell, dtype=torch.bfloat16)
    ids = random_ids(network)
    logits, states = network(ids, network.zero_states(4))
    assert {logits.dtype, *(part.dtype for state in states for part in state)} == {torch.float32}
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    expected = plain_network(network)(ids)[0]
    assert not torch.equal(logits, expected)
    torch.testing.assert_close(logits, expected, rtol=0, atol=0.01)  # bfloat16 keeps 8 binary digits of numbers below 1
