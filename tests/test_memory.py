"""What each operation takes in memory beside the model, with the vocabulary of a long Chinese novel and the largest.

The bounds count logits: symbols read, or streams, times the vocabulary.
"""

import tracemalloc

import numpy as np
import pytest
from models import make_config, make_weights

from charlm.inference.batching import EngineBackend
from charlm.inference.compiled_model import PANEL
from charlm.inference.engine import LARGEST_TABLE, Engine
from charlm.inference.sampling import MOST_LOGITS, BatchSampler, Sampler, SamplingSettings
from charlm.lm import CharLM
from charlm.model.config import MOST_SYMBOLS

SYMBOLS = 6_000
VOCAB = "".join(chr(0x4E00 + number) for number in range(SYMBOLS))
TEXT = "".join(np.random.default_rng(0).choice(list(VOCAB), 30_000))
MOST_BYTES = 12 * 4 * MOST_LOGITS  # twelve arrays in float32, or six in float64: 50 MB


@pytest.fixture(scope="module")
def lm():
    config = make_config("rnn", VOCAB, num_layers=1)
    model = CharLM(config, make_weights(config), device="cpu")
    model.generate(TEXT[:10], 10)
    model.score(TEXT[:10])
    return model


def peak_bytes(call):
    """The most memory that a call has at a time."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


OPERATIONS = {
    "inspect": lambda lm: lm.inspect(TEXT[:5_000]),
    "effective_context": lambda lm: lm.effective_context(TEXT[:1_200]),
    "effective_context, long": lambda lm: lm.effective_context(TEXT),
    "unit_gates": lambda lm: lm.unit_gates(lm.inspect(TEXT[:5_000]), 0, 0),
    "influence": lambda lm: lm.influence(TEXT[:301]),
    "find_pattern": lambda lm: lm.find_pattern(lm.inspect(TEXT[:100]), 50, 51, -0.9, within=TEXT),
    "find_units": lambda lm: lm.find_units(TEXT[:5_000]),
    "score": lambda lm: lm.score(TEXT),
    "generate": lambda lm: lm.generate(TEXT[:20_000], 2, seed=1),
    "stream_scored": lambda lm: list(lm.stream_scored(TEXT[:20_000], 500, SamplingSettings(top_k=50, top_p=0.9))),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATIONS)
def test_what_is_taken_beside_the_model_does_not_grow_with_length_times_vocabulary(lm, name):
    assert peak_bytes(lambda: OPERATIONS[name](lm)) < MOST_BYTES


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"top_k": 5}, {"top_p": 0.9}, {"top_k": 4_000, "top_p": 0.999}], ids=str)
def test_draws_of_many_streams_take_no_more_than_those_of_few(settings):
    streams = 1_000
    logits = np.random.default_rng(0).normal(0, 2, (streams, SYMBOLS)).astype(np.float32)
    sampler = BatchSampler([Sampler(SamplingSettings(**settings, seed=seed)) for seed in range(streams)])
    assert peak_bytes(lambda: sampler.draw(logits)) < MOST_BYTES


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_the_largest_vocabulary_takes_its_head_and_a_table_of_bounded_size(cell):
    vocab = "".join(chr(0x10000 + number) for number in range(MOST_SYMBOLS))
    config = make_config(cell, vocab, embedding_size=1, hidden_size=1, num_layers=1)
    weights = {name: np.ones(shape, np.float32) for name, shape in config.tensor_shapes.items()}
    head, spare = 4 * PANEL * MOST_SYMBOLS, 20e6
    assert peak_bytes(lambda: Engine(config, weights)) < head + 4 * LARGEST_TABLE + spare
    lm = CharLM(config, weights, device="cpu")
    text = vocab[:200]  # 40 times MOST_LOGITS
    for call in (lm.inspect, lm.score):
        call(text[:20])  # what is made at the first call
    for call in (lm.inspect, lm.score, lambda text: lm.effective_context(text, 10)):
        assert peak_bytes(lambda call=call: call(text)) < MOST_BYTES


@pytest.mark.slow
def test_64_streams_of_the_largest_vocabulary_take_no_more_than_a_few():
    vocab = "".join(chr(0x10000 + number) for number in range(MOST_SYMBOLS))
    config = make_config("lstm", vocab, embedding_size=1, hidden_size=1, num_layers=1)
    lm = CharLM(config, make_weights(config), device="cpu")
    backend = EngineBackend(lm.engine)

    def write(streams):
        batch = backend.start_batch()
        samplers = [Sampler(SamplingSettings(top_k=seed, top_p=0.9, seed=seed)) for seed in range(streams)]
        batch.join([backend.prefill(np.array([seed])) for seed in range(streams)], samplers)
        for staying in (streams, streams - 1):  # whoever stays is put into other arrays
            batch.write([3] * len(samplers), 3, lambda: False)
            batch.keep(range(staying))

    write(2)  # what is made at the first call
    for streams in (2, 64):
        assert peak_bytes(lambda streams=streams: write(streams)) < MOST_BYTES
