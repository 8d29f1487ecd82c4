import numpy as np
import pytest
import torch
from models import make_config, make_weights
from reference import forward_by_hand

from charlm.model.cells import CELLS
from charlm.model.network import Network

every_cell = pytest.mark.parametrize("cell", CELLS)


def make_network(cell, num_layers=2, seed=0):
    config = make_config(cell, hidden_size=7, num_layers=num_layers)
    return Network.from_weights(config, make_weights(config, seed))


def random_ids(length, streams=3, symbols=10):
    return torch.from_numpy(np.random.default_rng(5).integers(symbols, size=(length, streams)))


@every_cell
@pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
def test_logits_equal_the_equations_worked_gate_by_gate(cell, num_layers):
    network, ids = make_network(cell, num_layers), random_ids(12)
    logits, _ = network(ids)
    for stream in range(ids.shape[1]):
        expected = forward_by_hand(cell, network.export_weights(), ids[:, stream])
        # float32 has 7 digits, and 12 steps through 4 layers lose 2 or 3 of them
        np.testing.assert_allclose(logits[:, stream].numpy(), expected, atol=1e-4, rtol=0)


@pytest.mark.slow
@every_cell
def test_one_long_sequence_equals_three_with_carried_state(cell):
    network, ids = make_network(cell), random_ids(30)
    whole, last_state = network(ids)
    state, parts = None, []
    for piece in ids.split([7, 13, 10]):
        logits, state = network(piece, state)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-6, rtol=0)
    torch.testing.assert_close(state, last_state, atol=1e-6, rtol=0)


@every_cell
def test_a_network_keeps_nothing_between_calls(cell):
    network, ids = make_network(cell), random_ids(10)
    first, _ = network(ids)
    network(ids.flip(0))
    assert torch.equal(network(ids)[0], first)


@every_cell
def test_exported_weights_build_the_identical_network(cell):
    torch.manual_seed(0)
    config = make_config(cell)
    network = Network(config).eval()
    torch.nn.init.normal_(network.embedding.weight)
    weights = network.export_weights()
    copy = Network.from_weights(config, weights)
    assert {name: array.shape for name, array in weights.items()} == config.tensor_shapes
    assert torch.equal(copy(random_ids(10))[0], network(random_ids(10))[0])
    assert all(np.array_equal(array, weights[name]) for name, array in copy.export_weights().items())


def test_exported_weights_do_not_change_with_the_network():
    network = Network(make_config())
    weights = network.export_weights()
    before = weights["head.bias"].copy()
    with torch.no_grad():
        network.head.bias.add_(1)
    assert np.array_equal(weights["head.bias"], before)


def test_a_network_for_reading_drops_nothing_and_tracks_no_gradients():
    network = make_network("lstm")
    assert network.config.dropout == 0.5
    first, second = network(random_ids(10))[0], network(random_ids(10))[0]
    assert torch.equal(first, second) and not first.requires_grad
