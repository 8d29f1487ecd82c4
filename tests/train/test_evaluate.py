import numpy as np
import pytest
import torch
from models import VOCAB, count_symbols, make_config, make_model, make_weights, save, uniform_lm
from reference import load_plain, log_softmax, mean_loss

from charlm.inference import scoring
from charlm.inference.compiled import load_kernels
from charlm.inference.gpu import NetworkReader
from charlm.inference.scoring import SHORTEST_STRETCH, EngineReader
from charlm.lm import CharLM
from charlm.model.cells import CELLS
from charlm.model.folder import Model
from train import evaluate
from train.evaluate import carried_loss, reset_loss, windows_loss
from train.precision import flushed_denormals


def random_ids(length, seed=3):
    return np.random.default_rng(seed).integers(len(VOCAB), size=length).astype(np.uint8)


def load_both(model, folder):
    """The same model as charlm loads it, and as plain torch does."""
    save(model, folder)
    return CharLM.from_pretrained(folder, device="cpu").network, load_plain(folder)[0]


@pytest.fixture(params=CELLS)
def both(request, tmp_path):
    return load_both(make_model(request.param), tmp_path / "model")


@pytest.fixture
def forgetful(tmp_path):
    """A model to which what it read twenty symbols ago makes no difference."""
    config = make_config("rnn")
    weights = make_weights(config)
    for name in weights:
        if "weight_hh" in name:
            weights[name] /= 8
    return load_both(Model(config, weights, None), tmp_path / "forgetful")


@pytest.fixture
def mindful(tmp_path):
    """A model that remembers for ever what came with the symbol 0, and nothing else."""
    config = make_config("lstm", num_layers=1)
    weights = make_weights(config)
    weights["embedding.weight"][:, 0] = np.arange(len(VOCAB)) == 0
    weights["recurrent.weight_hh_l0"][:] = 0
    opening, bias = weights["recurrent.weight_ih_l0"], weights["recurrent.bias_ih_l0"]
    opening[:16] = 0
    opening[:8, 0], bias[:8] = 40, -20  # the input gates open for the symbol 0 alone
    bias[8:16] = 20  # the forget gates are open
    return load_both(Model(config, weights, None), tmp_path / "mindful")


def loss_in_one_pass(plain, ids):
    """What `mean_loss` returns, in less time."""
    ids = ids.astype(np.int64)
    logits = plain(torch.from_numpy(ids[:-1]))[0].numpy()
    return -log_softmax(logits)[np.arange(len(ids) - 1), ids[1:]].mean()


# Read in order

STRETCHES = NetworkReader.stretches


@pytest.mark.slow
@pytest.mark.parametrize("longest_pass", [1, 7, 64, 4096])
def test_the_carried_loss_is_that_of_one_symbol_after_another_however_it_is_cut(both, monkeypatch, longest_pass):
    network, plain = both
    monkeypatch.setattr("charlm.inference.gpu.MOST_LOGITS", longest_pass * len(VOCAB))
    ids = random_ids(65)
    assert carried_loss(NetworkReader(network), ids) == pytest.approx(mean_loss(plain, ids), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("more", [0, 1, 31])
def test_a_long_text_is_read_side_by_side_to_the_loss_of_reading_it_in_order(forgetful, more):
    network, plain = forgetful
    ids = random_ids(2 * SHORTEST_STRETCH * STRETCHES + 1 + more)
    counts = count_symbols(network)
    assert carried_loss(NetworkReader(network), ids) == pytest.approx(loss_in_one_pass(plain, ids), abs=1e-5)
    # nothing is read again after the first check
    assert sum(counts) == len(ids) - 1 + (STRETCHES - 1) * NetworkReader.check_interval
    assert max(counts) > STRETCHES


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_the_engine_reads_to_the_same_loss_and_releases_the_text_after_every_pass(tmp_path, monkeypatch, cell):
    monkeypatch.setattr("charlm.inference.scoring.SHORTEST_STRETCH", 16)
    monkeypatch.setattr(EngineReader, "long_stretch", 16)
    monkeypatch.setattr(EngineReader, "longest_stretch", 64)
    save(make_model(cell), tmp_path / "model")
    lm, releases = CharLM.from_pretrained(tmp_path / "model", device="cpu"), []
    ids = random_ids(10_000)
    loss = carried_loss(EngineReader(lm.engine, lambda: releases.append(0)), ids)
    assert loss == pytest.approx(loss_in_one_pass(load_plain(tmp_path / "model")[0], ids), abs=1e-5)
    assert len(releases) > 10


def test_a_text_of_less_than_two_stretches_is_read_from_its_beginning(forgetful):
    network, plain = forgetful
    ids = random_ids(2 * SHORTEST_STRETCH)
    counts = count_symbols(network)
    assert carried_loss(NetworkReader(network), ids) == pytest.approx(loss_in_one_pass(plain, ids), abs=1e-5)
    assert sum(counts) == len(ids) - 1


@pytest.mark.slow
@pytest.mark.parametrize("length", [129, 130, 400, 1000])
@pytest.mark.parametrize("interval", [1, 2])
def test_stretches_that_do_not_agree_yet_are_read_on(both, monkeypatch, length, interval):
    network, plain = both
    monkeypatch.setattr("charlm.inference.scoring.SHORTEST_STRETCH", 4)
    monkeypatch.setattr(NetworkReader, "check_interval", interval)
    ids = random_ids(length)
    counts = count_symbols(network)
    assert carried_loss(NetworkReader(network), ids) == pytest.approx(mean_loss(plain, ids), abs=1e-5)
    assert sum(counts) > length - 1 + (STRETCHES - 1) * interval


@pytest.mark.slow
def test_a_cell_state_that_never_fades_is_carried_to_the_end(mindful, monkeypatch):
    network, plain = mindful
    ids = random_ids(2 * SHORTEST_STRETCH * STRETCHES + 20).clip(1)
    ids[10:12] = 0
    expected = loss_in_one_pass(plain, ids)
    assert carried_loss(NetworkReader(network), ids) == pytest.approx(expected, abs=1e-5)
    # on a GPU, all stretches are read again until none has changed
    reader = NetworkReader(network)
    reader.in_order = False
    assert carried_loss(reader, ids) == pytest.approx(expected, abs=1e-5)
    monkeypatch.setattr("charlm.inference.scoring.STATE_TOLERANCE", float("inf"))  # nothing is read to its end again
    assert abs(carried_loss(NetworkReader(network), ids) - expected) > 1e-3


@pytest.mark.slow
def test_a_text_longer_than_a_block_is_carried_from_block_to_block(both, monkeypatch):
    network, plain = both
    monkeypatch.setattr("charlm.inference.scoring.SHORTEST_STRETCH", 4)
    monkeypatch.setattr(NetworkReader, "longest_stretch", 5)
    monkeypatch.setattr(NetworkReader, "check_interval", 2)
    ids = random_ids(4 * 5 * STRETCHES + 7)
    assert carried_loss(NetworkReader(network), ids) == pytest.approx(mean_loss(plain, ids), abs=1e-5)


def test_the_loss_of_a_diverged_network_is_nan_after_one_reading(both):
    network, _ = both
    network.head.bias.fill_(float("nan"))
    ids = random_ids(2 * SHORTEST_STRETCH * STRETCHES)
    counts = count_symbols(network)
    assert np.isnan(carried_loss(NetworkReader(network), ids))
    assert sum(counts) == len(ids) - 1


def test_the_reference_that_reads_in_one_pass_is_the_one_that_reads_symbol_by_symbol(both):
    ids = random_ids(100)
    assert loss_in_one_pass(both[1], ids) == pytest.approx(mean_loss(both[1], ids), abs=1e-12)


# Read in windows


@pytest.mark.slow
@pytest.mark.parametrize("length", [2, 17, 33, 34, 50, 64])
@pytest.mark.parametrize("most_logits", [1, 2**24])
def test_the_reset_loss_counts_every_position_of_every_window_the_last_short_one_too(
    both, monkeypatch, length, most_logits
):
    network, plain = both
    monkeypatch.setattr(evaluate, "MOST_LOGITS", most_logits)
    monkeypatch.setattr(evaluate, "RESET_WINDOW", 16)
    ids = random_ids(length)
    assert reset_loss(NetworkReader(network), ids) == pytest.approx(mean_loss(plain, ids, reset_every=16), abs=1e-5)


@pytest.mark.slow
def test_the_state_is_zero_again_after_256_symbols(both):
    network, plain = both
    ids = random_ids(600)
    assert reset_loss(NetworkReader(network), ids) == pytest.approx(mean_loss(plain, ids, reset_every=256), abs=1e-5)


def test_a_text_shorter_than_a_window_is_read_from_one_zero_state(both):
    network, _ = both
    ids = random_ids(40)
    assert reset_loss(NetworkReader(network), ids) == pytest.approx(carried_loss(NetworkReader(network), ids), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("most_logits", [1, 150, 2**24])  # 150: two windows at a time
def test_the_loss_over_windows_is_the_mean_of_their_own(both, monkeypatch, most_logits):
    network, plain = both
    monkeypatch.setattr(evaluate, "MOST_LOGITS", most_logits)
    ids, starts = random_ids(40), np.array([0, 30, 7, 8, 7])
    expected = np.mean([mean_loss(plain, ids[start : start + 8]) for start in starts])
    assert windows_loss(NetworkReader(network), ids, starts, 7) == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("threads", [1, 2])
def test_the_engine_reads_windows_to_the_same_loss(tmp_path, monkeypatch, cell, threads):
    monkeypatch.setattr(evaluate, "MOST_LOGITS", 500)
    monkeypatch.setattr(evaluate, "RESET_WINDOW", 16)
    monkeypatch.setattr(EngineReader, "count_threads", lambda self, stretches: threads)
    save(make_model(cell), tmp_path / "model")
    lm, plain = CharLM.from_pretrained(tmp_path / "model", device="cpu"), load_plain(tmp_path / "model")[0]
    ids, starts, releases = random_ids(200), np.array([0, 30, 7, 8, 7] * 20), []
    expected = np.mean([mean_loss(plain, ids[start : start + 8]) for start in starts])
    loss = windows_loss(EngineReader(lm.engine, lambda: releases.append(0)), ids, starts, 7)
    assert loss == pytest.approx(expected, abs=1e-5)
    assert len(releases) > 5
    assert reset_loss(EngineReader(lm.engine), ids) == pytest.approx(mean_loss(plain, ids, reset_every=16), abs=1e-5)


def test_no_windows_lose_nothing(both):
    assert windows_loss(NetworkReader(both[0]), random_ids(9), np.zeros(0, np.int64), 3) == 0


# All of them


def test_the_engine_reads_on_as_many_threads_as_torch(monkeypatch):
    if load_kernels() is None:
        pytest.skip("no compiler here")
    monkeypatch.setattr(scoring, "count_cores", lambda: 4)
    for threads, expected in ((1, 1), (3, 3), (9, 4)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert evaluate.fastest_reader(uniform_lm("abcd"), lambda: None).first_stretches == expected


@pytest.mark.parametrize("kernels", [True, False])
def test_on_a_cpu_the_engine_reads_if_its_kernels_are_compiled(monkeypatch, kernels):
    if not kernels:
        monkeypatch.setattr(evaluate, "load_kernels", lambda: None)
    elif load_kernels() is None:
        pytest.skip("no compiler here")
    reader = evaluate.fastest_reader(uniform_lm("abcd"), lambda: None)
    assert isinstance(reader, EngineReader if kernels else NetworkReader)
    assert carried_loss(reader, random_ids(30) % 4) == pytest.approx(np.log(4))


def test_weights_too_large_for_the_engine_are_read_by_torch():
    if load_kernels() is None:
        pytest.skip("no compiler here")
    config = make_config("rnn")
    weights = make_weights(config)
    weights["embedding.weight"][:] = 1e38
    assert isinstance(evaluate.fastest_reader(CharLM(config, weights, device="cpu"), lambda: None), NetworkReader)


MEASURES = {
    "carried": carried_loss,
    "reset": reset_loss,
    "windows": lambda reader, ids: windows_loss(reader, ids, np.arange(50), 12),
}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_a_model_that_knows_nothing_loses_the_logarithm_of_its_symbols(measure):
    reader = NetworkReader(uniform_lm("abcd").network)
    assert measure(reader, random_ids(300) % 4) == pytest.approx(np.log(4))


@pytest.mark.slow
@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_the_memory_of_the_text_is_given_back_after_every_pass(both, monkeypatch, measure):
    monkeypatch.setattr(evaluate, "MOST_LOGITS", 500)
    monkeypatch.setattr("charlm.inference.gpu.MOST_LOGITS", 500)
    network, _ = both
    passes, releases = count_symbols(network), []
    measure(NetworkReader(network, lambda: releases.append(len(passes))), random_ids(300))
    assert len(passes) > 5
    assert releases == list(range(1, len(passes) + 1))
    assert max(passes) * len(VOCAB) <= 500  # what bounds the memory for logits


def test_denormals_are_zero_while_a_model_is_measured_and_numbers_again_afterwards():
    denormal = torch.tensor([1e-40])
    with flushed_denormals():
        assert (denormal * 1).item() == 0
    assert (denormal * 1).item() > 0
