"""What runs on a GPU, run on the CPU: the same steps, but not captured as a graph, which only CUDA can."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from models import laws, make_config, make_lm, make_sampler, make_weights, save
from reference import load_plain, sampling_distribution

from charlm import CharLM
from charlm.errors import ModelFileError
from charlm.inference.batching import BatchScheduler, EngineBackend, measure_chars_per_second, write_alone
from charlm.inference.gpu import MOST_CANDIDATES, STEPS_PER_CALL, GpuBackend, _DecodingLoop, draw
from charlm.inference.sampling import ANY_COUNT
from charlm.model.cells import CELLS
from charlm.model.folder import Model
from charlm.model.network import Network

SETTINGS = [
    {"temperature": 0},
    {"temperature": 0.5},
    {"temperature": 1.0},
    {"temperature": 1.5, "top_k": 3},
    {"temperature": 1.0, "top_p": 0.7},
    {"temperature": 1.3, "top_k": 6, "top_p": 0.9},
]
PROMPT = "bad cab\nde한😀é"

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="only CUDA captures a graph")
every_cell = pytest.mark.parametrize("cell", CELLS)


def make(cell, hidden_size=8, **sizes):
    """A model that forgets, so that rounding does not grow, and yet tells symbols apart."""
    config = make_config(cell, hidden_size=hidden_size, **sizes)
    weights = make_weights(config, scale=0.8 * hidden_size**-0.5)
    weights["head.weight"] *= 4
    return CharLM(config, weights, device="cpu")


pytestmark = pytest.mark.usefixtures("small_steps")


@pytest.fixture(scope="module")
def lms():
    return {cell: make(cell) for cell in CELLS}


def write(lm, prompt, length, seed=0, **settings):
    """The text that a GPU would write for one stream alone."""
    ids = write_alone(GpuBackend(lm.network), lm.vocab.encode(prompt), length, make_sampler(**settings, seed=seed))
    return "".join(lm.vocab.symbols[id] for id in ids)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@every_cell
def test_it_is_the_text_that_the_cpu_writes(lms, cell, settings):
    length = 2 * STEPS_PER_CALL + 20
    for seed in (0, 7, 2**40):
        text = write(lms[cell], PROMPT, length, seed, **settings)
        assert len(text) == length
        assert text == lms[cell].generate(PROMPT, length, seed=seed, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS[1:], ids=str)
@every_cell
def test_each_symbol_is_the_one_that_the_seeds_next_number_picks(tmp_path, lms, cell, settings):
    """Done over with plain torch, the naive filter and numpy's own generator."""
    lm = lms[cell]
    plain, vocab = load_plain(save(Model(lm.config, lm._weights, None), tmp_path / "model"))
    random, text = np.random.Generator(np.random.PCG64(11)), ""
    logits, state = plain(torch.tensor([vocab.index(symbol) for symbol in PROMPT]))
    for _ in range(STEPS_PER_CALL + 5):
        distribution = sampling_distribution(logits[-1].tolist(), **settings)
        u, reached = random.random(), itertools.accumulate(distribution)
        drawn = next(symbol for symbol, total in enumerate(reached) if u < total)
        text += vocab[drawn]
        logits, state = plain(torch.tensor([drawn]), state)
    assert write(lm, PROMPT, STEPS_PER_CALL + 5, 11, **settings) == text


@pytest.mark.parametrize(
    "length", [0, 1, 2, *(calls * STEPS_PER_CALL + more for calls in (1, 2) for more in (-1, 0, 1))]
)
def test_a_text_has_any_length(lms, length):
    longer = lms["gru"].generate("a", 3 * STEPS_PER_CALL, 1.0, seed=3)
    assert write(lms["gru"], "a", length, 3, temperature=1.0) == longer[:length]


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 7, 1000])
@every_cell
def test_how_many_symbols_are_written_at_once_changes_nothing(lms, monkeypatch, cell, at_once):
    expected = write(lms[cell], PROMPT, 150, 5, temperature=1.0)
    monkeypatch.setattr("charlm.inference.gpu.STEPS_PER_CALL", at_once)
    assert write(lms[cell], PROMPT, 150, 5, temperature=1.0) == expected


@pytest.mark.parametrize("read_length", [1, 2, 5, len(PROMPT) - 1, len(PROMPT), len(PROMPT) + 1])
@every_cell
def test_a_prompt_read_in_stretches_is_the_same_prompt(lms, monkeypatch, cell, read_length):
    expected = lms[cell].generate(PROMPT, 80, 1.0, seed=5)
    monkeypatch.setattr("charlm.inference.gpu.MOST_PREFILLED", read_length)
    assert write(lms[cell], PROMPT, 80, 5, temperature=1.0) == expected


@pytest.mark.slow
@every_cell
def test_more_layers_and_units_and_symbols_than_a_few(cell):
    vocab = "".join(map(chr, range(0x4E00, 0x4E00 + 130)))
    lm = make(cell, vocab=vocab, hidden_size=40, num_layers=3)
    for settings in SETTINGS:
        assert write(lm, vocab[5:9], 80, 2, **settings) == lm.generate(vocab[5:9], 80, seed=2, **settings)


def test_a_text_uses_one_random_number_for_each_symbol(lms):
    sampler, random = make_sampler(1.0, seed=4), np.random.Generator(np.random.PCG64(4))
    length = STEPS_PER_CALL + 11
    assert len(list(write_alone(GpuBackend(lms["rnn"].network), np.zeros(1, np.int64), length, sampler))) == length
    random.random(length)
    assert next(sampler.randoms) == random.random()


def test_texts_that_are_written_in_turn_are_what_each_is_alone(lms):
    lm, seeds = lms["lstm"], range(len(SETTINGS))
    backend, prompt = GpuBackend(lm.network), lm.vocab.encode("a cab")
    written = [write_alone(backend, prompt, 100, make_sampler(**SETTINGS[seed], seed=seed)) for seed in seeds]
    texts = [lm.vocab.decode(np.array(text)) for text in zip(*zip(*written, strict=True), strict=True)]
    assert texts == [lm.generate("a cab", 100, seed=seed, **SETTINGS[seed]) for seed in seeds]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
def test_texts_that_threads_write_at_the_same_time_are_what_each_is_alone(device):
    """Also the first ones: what writes them is prepared while others already ask."""
    lm = make("lstm")
    expected = [lm.generate("a cab", 100, seed=seed, **SETTINGS[seed % 6]) for seed in range(24)]
    scheduler = BatchScheduler(GpuBackend(Network.from_weights(lm.config, lm._weights, device)))
    prompt = lm.vocab.encode("a cab")

    def text(seed):
        pieces = scheduler.write(prompt, 100, make_sampler(**SETTINGS[seed % 6], seed=seed))
        return lm.vocab.decode(np.array([id for ids, _ in pieces for id in ids]))

    with ThreadPoolExecutor(12) as threads:
        assert list(threads.map(text, range(24))) == expected


@needs_cuda
def test_models_can_be_scored_while_others_write():
    lms = [CharLM(lm.config, lm._weights, device="cuda") for lm in map(make, CELLS)]
    text = "bad cab\nde" * 900
    expected = [CharLM(lm.config, lm._weights, device="cpu").score(text).sum() for lm in lms]
    with ThreadPoolExecutor(6) as threads:
        written = [threads.submit(lm.generate, "a", 200, seed=1) for lm in lms]
        scored = [threads.submit(lm.score, text) for lm in lms]
        np.testing.assert_allclose([each.result().sum() for each in scored], expected, rtol=1e-5)
        assert [each.result() for each in written] == [lm.generate("a", 200, seed=1) for lm in lms]


def test_a_closed_text_changes_nothing_for_the_next(lms):
    lm = lms["gru"]
    backend, prompt = GpuBackend(lm.network), lm.vocab.encode("a cab")
    closed = write_alone(backend, prompt, 100, make_sampler(1.0, seed=1))
    next(closed)
    closed.close()
    ids = [*write_alone(backend, prompt, 30, make_sampler(1.0, seed=2))]
    assert lm.vocab.decode(np.array(ids)) == lm.generate("a cab", 30, 1.0, seed=2)


# How a symbol is drawn

logit = st.one_of(st.sampled_from([-1.0, 0.0, 0.25, 3.0]), st.floats(-30, 30, width=32))


@laws
@given(
    st.lists(logit, min_size=1, max_size=12),
    st.sampled_from([0, 1e-300, 0.1, 0.77, 1, 13.7]),
    st.sampled_from([0, 1, 2, 5, 100, 2**70]),
    st.sampled_from([0, 1e-9, 0.317, 0.773, 0.9993, 1]),
    st.integers(0, 2**32),
)
@example([0.0, 0.0, 0.0], 1, 1, 1, 0)
@example([0.0, 0.0, 0.0], 0, 0, 1, 0)
@example([3.0, 3.0, -1.0, 3.0], 1, 2, 1, 3)
@example([0.0, 0.0], 1, 0, 0.5, 0)  # the first of these reaches 0.5
@example([0.0, 0.0, 0.0, 0.0], 1, 0, 0.75, 4)
def test_a_symbol_is_drawn_as_on_the_cpu(logits, temperature, top_k, top_p, seed):
    logits = np.array(logits, np.float32)
    network = Network(make_config("rnn", "".join(map(chr, range(97, 97 + len(logits))))))
    sampler = make_sampler(temperature, top_k, top_p, seed)
    network.head.weight.data.zero_()
    network.head.bias.data.copy_(torch.from_numpy(logits))
    same = make_sampler(temperature, top_k, top_p, seed)
    assert list(write_alone(GpuBackend(network), np.zeros(1, np.int64), 1, same)) == [sampler.draw(logits)]


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_weights_whose_outputs_overflow_are_reported_not_sampled_from(temperature):
    lm = make_lm("rnn")
    lm._weights["head.weight"][:] = 3e38
    with pytest.raises(ModelFileError, match="use another model"):
        write(lm, "a", 5, temperature=temperature)


def column(settings):
    """What `draw` takes of a stream's settings."""
    ours = make_sampler(**settings).settings
    return [max(ours.temperature, 1e-250), min(ours.top_k or ANY_COUNT, ANY_COUNT), ours.top_p, ours.temperature == 0]


WIDE = 3 * MOST_CANDIDATES  # symbols
WIDE_LOGITS = {
    "peaked": np.random.default_rng(0).normal(0, 4, WIDE),
    "flat": np.random.default_rng(1).normal(0, 0.1, WIDE),
    "ties": np.random.default_rng(2).integers(0, 4, WIDE),
    "all equal": np.zeros(WIDE),
    "two values, the larger rare and late": np.r_[np.zeros(WIDE - 5), np.ones(5)],
}
WIDE_SETTINGS = {
    "likeliest": ({"temperature": 0, "top_p": 0.99}, True),
    "no limits": ({"temperature": 0.9}, True),
    "top_k": ({"temperature": 1.0, "top_k": 7}, True),
    "top_k of all candidates": ({"temperature": 1.0, "top_k": MOST_CANDIDATES}, True),
    "top_k of more": ({"temperature": 1.0, "top_k": MOST_CANDIDATES + 1}, False),
    "top_k of all symbols": ({"temperature": 1.0, "top_k": WIDE}, True),
    "small top_p": ({"temperature": 1.0, "top_p": 0.03}, None),
    "top_p 0": ({"temperature": 1.0, "top_p": 0}, True),
    "large top_p": ({"temperature": 1.0, "top_p": 0.97}, None),
    "both": ({"temperature": 1.0, "top_k": 900, "top_p": 0.7}, True),
    "a tie at the end": ({"temperature": 1.0, "top_k": 4, "top_p": 0.75}, True),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WIDE_SETTINGS)
@pytest.mark.parametrize("logits", WIDE_LOGITS.values(), ids=WIDE_LOGITS)
def test_a_selection_of_the_likeliest_excludes_what_sorting_all_would(logits, name):
    """Compared with the drawing on the CPU, beside rows of other settings: what is drawn tells what was excluded."""
    settings, is_exact = WIDE_SETTINGS[name]
    randoms = [0.0, *np.random.default_rng(3).random(30), 1 - 2**-53]
    logits = logits.astype(np.float32)
    expected = []
    for random in randoms:
        sampler = make_sampler(**settings)
        sampler.randoms = iter([random])
        expected.append(sampler.draw(logits))
    rows = torch.from_numpy(np.stack([logits] * len(randoms)))
    columns = torch.tensor([column(settings)] * len(randoms), dtype=torch.float64).T[..., None]
    numbers = torch.tensor(randoms, dtype=torch.float64)[:, None]
    ids, selected_all = draw(rows, columns, numbers, True)
    sorted_ids, is_always_right = draw(rows, columns, numbers, True, WIDE)
    assert is_always_right and sorted_ids[:, 0].tolist() == expected
    assert is_exact is None or bool(selected_all) == is_exact
    assert not selected_all or ids[:, 0].tolist() == expected


@pytest.mark.slow
def test_where_the_candidates_are_too_few_all_symbols_are_sorted():
    """An almost uniform distribution over many symbols, beside a stream whose candidates are enough."""
    vocab = "".join(map(chr, range(0x4E00, 0x4E00 + WIDE)))
    lm = make("gru", vocab=vocab)
    for settings in ({"top_p": 0.9}, {"top_k": MOST_CANDIDATES + 5}, {"top_k": 5}, {"top_p": 0.99, "temperature": 2}):
        assert write(lm, vocab[5:9], 70, 2, **settings) == lm.generate(vocab[5:9], 70, seed=2, **settings)
    backend = GpuBackend(lm.network)
    batch, kinds = backend.start_batch(), [{"top_k": 5}, {"top_p": 0.9}]
    batch.join([backend.prefill(np.array([3]))] * 2, [make_sampler(**kind, seed=1) for kind in kinds])
    for left in (70, 6):
        ids, _ = batch.write([left, left], left, lambda: False)
        batch.keep([0, 1])
    whole = [lm.generate(vocab[3], 70, seed=1, **kind) for kind in kinds]
    assert [lm.vocab.decode(ids[:, slot]) for slot in (0, 1)] == [text[-6:] for text in whole]


@pytest.mark.parametrize("most", [1, 40])
def test_slots_that_are_drawn_for_in_parts_are_the_same(lms, monkeypatch, most):
    def texts():
        batch = WrittenBatch(lms["lstm"])
        batch.join(*range(6), length=30)
        batch.write()
        return batch.texts

    expected = texts()
    monkeypatch.setattr("charlm.inference.sampling.MOST_LOGITS", most)
    assert texts() == expected


# Streams side by side


class WrittenBatch:
    """Streams that join a batch, leave it and are written as the test says."""

    def __init__(self, lm):
        self.lm, self._backend = lm, GpuBackend(lm.network)
        self._batch = self._backend.start_batch()
        self.streams, self.texts, self.surprisals = [], {}, {}

    def join(self, *seeds, length):
        samplers = [make_sampler(**SETTINGS[seed % 6], seed=seed) for seed in seeds]
        self._batch.join(
            [self._backend.prefill(self.lm.vocab.encode(PROMPT[: 1 + seed % 9])) for seed in seeds], samplers
        )
        for seed in seeds:
            self.streams.append((seed, length))
            self.texts[seed], self.surprisals[seed] = "", np.zeros(0)

    def write(self):
        left = [length - len(self.texts[seed]) for seed, length in self.streams]
        ids, surprisals = self._batch.write(left, max(left), lambda: False)
        assert ids.shape == surprisals.shape == (min(STEPS_PER_CALL, max(left)), len(left))
        for slot, ((seed, _), own) in enumerate(zip(self.streams, left, strict=True)):
            self.texts[seed] += self.lm.vocab.decode(ids[:own, slot])
            self.surprisals[seed] = np.concatenate([self.surprisals[seed], surprisals[:own, slot]])
        staying = [slot for slot, (seed, length) in enumerate(self.streams) if len(self.texts[seed]) < length]
        self.streams = [self.streams[slot] for slot in staying]
        self._batch.keep(staying)


@pytest.mark.slow
@every_cell
def test_a_stream_becomes_the_same_text_whatever_joins_and_leaves_its_batch(lms, cell):
    batch, lengths = WrittenBatch(lms[cell]), {}
    for seeds, length in ((range(3), 150), (range(3, 4), 20), (range(4, 11), 90)):
        lengths |= dict.fromkeys(seeds, length)
        batch.join(*seeds, length=length)
        batch.write()
    while batch.streams:
        batch.write()
    for seed, length in lengths.items():
        alone = write(lms[cell], PROMPT[: 1 + seed % 9], length, seed, **SETTINGS[seed % 6])
        assert batch.texts[seed] == alone and len(alone) == length


@every_cell
@pytest.mark.parametrize("captured", [False, True])
def test_forced_symbols_stand_in_their_places_as_on_the_cpu(lms, cell, captured, monkeypatch):
    """captured: as on CUDA, where a graph makes the same number of steps whenever it is replayed."""
    lm, forced = lms[cell], {0: 2, 30: 1, 31: 4, STEPS_PER_CALL + 5: 3, STEPS_PER_CALL + 8: 0}

    if captured:
        make_loop = GpuBackend.loop

        def replaying(backend, *args):
            loop = make_loop(backend, *args)
            loop._graph = SimpleNamespace(replay=lambda: loop._run(STEPS_PER_CALL))
            return loop

        monkeypatch.setattr(GpuBackend, "loop", replaying)

    def pieces(backend, seed, forced=None):
        sampler = make_sampler(**SETTINGS[seed], seed=seed)
        written = list(BatchScheduler(backend).write(lm.vocab.encode(PROMPT), STEPS_PER_CALL + 9, sampler, forced))
        return [id for ids, _ in written for id in ids], np.concatenate([costs for _, costs in written])

    for seed in range(6):
        ids, costs = pieces(GpuBackend(lm.network), seed, forced)
        expected, expected_costs = pieces(EngineBackend(lm.engine), seed, forced)
        assert ids == expected and {place: ids[place] for place in forced} == forced
        np.testing.assert_allclose(costs, expected_costs, atol=1e-4)


@every_cell
def test_the_surprisals_are_those_of_the_logits_without_temperature_and_limits(lms, cell):
    lm, batch = lms[cell], WrittenBatch(lms[cell])
    batch.join(*range(6), length=STEPS_PER_CALL + 9)
    while batch.streams:
        batch.write()
    for seed in range(6):
        prompt, text = PROMPT[: 1 + seed % 9], batch.texts[seed]
        np.testing.assert_allclose(batch.surprisals[seed], lm.score(prompt + text)[len(prompt) - 1 :], atol=1e-4)


def test_an_unused_slot_changes_nothing(lms):
    """Five streams take sixteen slots, of which other streams were in use before."""
    batch = WrittenBatch(lms["lstm"])
    batch.join(*range(100, 116), length=10)
    batch.write()
    assert batch.streams == []
    batch.join(*range(5), length=40)
    batch.write()
    expected = [write(lms["lstm"], PROMPT[: 1 + seed % 9], 40, seed, **SETTINGS[seed % 6]) for seed in range(5)]
    assert [batch.texts[seed] for seed in range(5)] == expected


@pytest.mark.parametrize(("streams", "slots"), [(1, 1), (2, 4), (4, 4), (5, 16), (16, 16), (17, 64)])
def test_a_batch_takes_the_next_larger_number_of_slots(lms, streams, slots):
    backend = GpuBackend(lms["gru"].network)
    loop = backend.loop(streams, is_limited=False)
    assert loop._ids.shape == (STEPS_PER_CALL, slots)
    assert backend.loop(slots, is_limited=False) is loop and backend.loop(slots, is_limited=True) is not loop


def test_a_prompt_keeps_no_logits_but_those_after_its_last_symbol(lms):
    state = GpuBackend(lms["rnn"].network).prefill(np.zeros(500, np.int64))
    assert state.logits.shape == (1, len(lms["rnn"].vocab))


# How fast


def test_the_speed_is_that_of_all_streams_in_the_best_round(lms, monkeypatch):
    monkeypatch.setattr("charlm.inference.batching.MEASURED_STREAMS", 3)
    monkeypatch.setattr("charlm.inference.batching.MEASURED_LENGTH", 20)
    monkeypatch.setattr("charlm.inference.batching.MEASURED_ROUNDS", 2)
    clock = iter([100.0, 106.0, 200.0, 204.0])

    class Silent:
        """The workers look at another clock."""

        def perf_counter(self):
            return next(clock) if threading.current_thread() is threading.main_thread() else time.perf_counter()

    monkeypatch.setattr("charlm.inference.batching.time", Silent())
    assert measure_chars_per_second(GpuBackend(lms["rnn"].network)) == pytest.approx(3 * 20 / 4)


# Where there is a GPU


@needs_cuda
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@every_cell
def test_what_a_graph_writes_is_what_its_steps_write_one_by_one(lms, monkeypatch, cell, settings):
    lm = CharLM(lms[cell].config, lms[cell]._weights, device="cuda")
    captured = write(lm, PROMPT, 150, **settings)
    monkeypatch.setattr(_DecodingLoop, "_capture", lambda loop: None)
    assert captured == write(lm, PROMPT, 150, **settings)


@needs_cuda
@every_cell
def test_a_gpu_scores_as_the_cpu_does(cell):
    """In float32: cuDNN would take TF32, whose numbers have 10 bits."""
    lm, text = make(cell, hidden_size=256), "bad cab\nde" * 50
    on_gpu = CharLM(lm.config, lm._weights, device="cuda").score(text)
    np.testing.assert_allclose(on_gpu, lm.score(text), atol=2e-5)
