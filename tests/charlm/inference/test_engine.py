import math
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import laws, make_config, make_sampler, read_next
from reference import PlainModel, forward_by_hand

from charlm.errors import ModelFileError
from charlm.inference import engine as engine_module
from charlm.inference.compiled_model import CompiledModel
from charlm.inference.engine import Engine, Reader, State
from charlm.inference.sampling import BatchSampler, surprisals_of
from charlm.model.cells import CELLS
from charlm.model.weights import round_to_bfloat16

pytestmark = pytest.mark.usefixtures("small_steps")

every_cell = pytest.mark.parametrize("cell", CELLS)


def make_vocab(symbols):
    return "".join(chr(0x4E00 + number) for number in range(symbols))


def describe(cell, hidden_size, num_layers=2, symbols=65, embedding_size=9):
    return make_config(cell, make_vocab(symbols), embedding_size, hidden_size, num_layers)


def calm_weights(config, seed=0):
    """Random weights as a trained model may have them: no chaos, in which float32 would soon be lost in float64."""
    random = np.random.default_rng(seed)
    weights = {}
    for name, shape in config.tensor_shapes.items():
        gain = 3 if "head" in name else 0.8
        spread = 0.3 if "bias" in name else 1 if "embedding" in name else gain * shape[1] ** -0.5
        weights[name] = (spread * random.standard_normal(shape)).astype(np.float32)
    return weights


@cache
def make_engine(cell, hidden_size=70, num_layers=2, symbols=65):
    config = describe(cell, hidden_size, num_layers, symbols)
    return Engine(config, calm_weights(config))


def in_torch(config, weights):
    model = PlainModel(vars(config))
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return model.double().eval().requires_grad_(False)


def random_ids(*shape, symbols=65, seed=5):
    return np.random.default_rng(seed).integers(symbols, size=shape)


def read_alone(engine, ids):
    """Return the logits (T, S, V) of texts (T, S), each read by a reader of its own, a symbol at a time."""
    return np.stack([step_by_step(Reader(engine), text[:, None])[:, 0] for text in ids.T], axis=1)


def step_by_step(reader, ids):
    return np.array([read_next(reader, step) for step in ids])


@pytest.fixture(params=["kernels", "numpy"])
def arithmetic(request, monkeypatch):
    """Once with the compiled kernels, once with numpy."""
    if request.param == "numpy":
        monkeypatch.setattr(engine_module, "load_kernels", lambda: None)
    return request.param


either_arithmetic = pytest.mark.usefixtures("arithmetic")


def test_the_kernels_run_here():
    """Without a compiler most of this file would test numpy."""
    assert isinstance(make_engine("rnn").model, CompiledModel)


# What it computes


@pytest.mark.slow
@either_arithmetic
@every_cell
@pytest.mark.parametrize(("num_layers", "hidden_size"), [(1, 100), (2, 64), (3, 33), (4, 20)])
def test_logits_stay_those_of_torch_along_10_000_characters(cell, num_layers, hidden_size):
    config = describe(cell, hidden_size, num_layers)
    weights, ids = calm_weights(config), random_ids(10_000)
    expected = in_torch(config, weights)(torch.from_numpy(ids))[0].numpy()
    np.testing.assert_allclose(Reader(Engine(config, weights)).read(ids[:, None])[:, 0], expected, atol=1e-4, rtol=0)


@pytest.mark.slow
@every_cell
def test_logits_of_bfloat16_weights_stay_those_of_torch_along_10_000_characters(cell):
    config = describe(cell, hidden_size=48)
    weights, ids = round_to_bfloat16(calm_weights(config)), random_ids(10_000)
    expected = in_torch(config, weights)(torch.from_numpy(ids))[0].numpy()
    np.testing.assert_allclose(Reader(Engine(config, weights)).read(ids[:, None])[:, 0], expected, atol=1e-4, rtol=0)


SIZES = [
    # hidden, layers, symbols, embedding: about the sizes at which padding, panels and blocks change
    (1, 1, 2, 1),
    (15, 1, 16, 17),
    (16, 2, 33, 15),
    (20, 4, 65, 64),
    (63, 2, 16, 20),
    (64, 2, 1, 64),
    (65, 3, 17, 100),
    (100, 2, 112, 30),
    (300, 1, 113, 130),
    (512, 1, 128, 48),
    (513, 1, 129, 8),
    (520, 2, 65, 48),
    (600, 1, 300, 33),
    (1025, 1, 65, 8),
]


@pytest.mark.slow
@either_arithmetic
@every_cell
@pytest.mark.parametrize("is_bfloat16", [False, True])
@pytest.mark.parametrize(("hidden_size", "num_layers", "symbols", "embedding_size"), SIZES)
def test_logits_of_a_model_of_any_size_equal_the_equations(
    cell, hidden_size, num_layers, symbols, embedding_size, is_bfloat16
):
    config = describe(cell, hidden_size, num_layers, symbols, embedding_size)
    weights, ids = calm_weights(config), random_ids(4, 2, symbols=symbols)
    if is_bfloat16:
        weights = round_to_bfloat16(weights)
    expected = np.stack([forward_by_hand(cell, weights, text) for text in ids.T], axis=1)
    engine = Engine(config, weights)
    logits = Reader(engine, 2).read(ids)
    assert getattr(engine.model, "is_bfloat16", is_bfloat16) == is_bfloat16
    assert logits.dtype == np.float32 and logits.shape == (4, 2, symbols)
    np.testing.assert_allclose(logits, expected, atol=2e-5, rtol=0)


@either_arithmetic
@every_cell
def test_weights_as_large_as_can_be_give_finite_logits_and_larger_ones_are_refused(cell):
    config = describe(cell, 70, symbols=5)
    random = np.random.default_rng(0)
    weights = {
        name: random.choice(np.array([-1e15, 1e15], np.float32), shape) for name, shape in config.tensor_shapes.items()
    }
    assert np.isfinite(Reader(Engine(config, weights), 2).read(random_ids(20, 2, symbols=5))).all()
    for name in weights:
        for large in (1.1e15, -1.1e15, np.inf):
            larger = weights[name].copy()
            larger.flat[-1] = large
            with pytest.raises(ModelFileError, match="as after a training that diverged; use another model"):
                Engine(config, weights | {name: larger})


@either_arithmetic
@every_cell
@pytest.mark.parametrize("num_layers", [1, 3])
def test_units_are_those_of_torch(cell, num_layers):
    config = describe(cell, 100, num_layers)
    weights, ids = calm_weights(config), random_ids(20, 3)
    engine = Engine(config, weights)
    reader = Reader(engine, 3)
    reader.read(ids)
    hidden, cell_state = engine.units_of(reader.state)
    _, expected = in_torch(config, weights)(torch.from_numpy(ids))
    expected_hidden, expected_cell_state = expected if cell == "lstm" else (expected, None)
    np.testing.assert_allclose(hidden, expected_hidden.numpy(), atol=1e-5, rtol=0)
    if expected_cell_state is None:
        assert cell_state is None
    else:
        np.testing.assert_allclose(cell_state, expected_cell_state.numpy(), atol=1e-5, rtol=0)


@every_cell
def test_units_begin_at_zero(cell):
    engine = make_engine(cell)
    hidden, cell_state = engine.units_of(Reader(engine, 3).state)
    assert hidden.shape == (2, 3, 70) and not hidden.any()
    assert cell_state is None or (cell_state.shape == (2, 3, 70) and not cell_state.any())


@every_cell
@pytest.mark.parametrize("hidden_size", [64, 250, 400, 520])
def test_a_text_is_the_same_in_any_place(cell, hidden_size):
    """The same texts in every place."""
    engine, ids = make_engine(cell, hidden_size, 2, 90), np.repeat(random_ids(3, 1), 40, axis=1)
    logits = Reader(engine, 40).read(ids)
    assert (logits == logits[:, :1]).all()


# Without a table of the first layer


@pytest.mark.slow
@either_arithmetic
@every_cell
@pytest.mark.parametrize(("hidden_size", "num_layers", "symbols", "embedding_size"), SIZES)
def test_a_model_without_a_table_equals_the_equations(
    cell, hidden_size, num_layers, symbols, embedding_size, monkeypatch
):
    monkeypatch.setattr(engine_module, "LARGEST_TABLE", 0)
    config = describe(cell, hidden_size, num_layers, symbols, embedding_size)
    weights, ids = calm_weights(config), random_ids(4, 2, symbols=symbols)
    expected = np.stack([forward_by_hand(cell, weights, text) for text in ids.T], axis=1)
    np.testing.assert_allclose(Reader(Engine(config, weights), 2).read(ids), expected, atol=2e-5, rtol=0)


@pytest.mark.slow
@every_cell
@pytest.mark.parametrize("embedding_size", [9, 130, 600])
def test_a_model_without_a_table_has_the_logits_of_one_with_a_table_to_the_last_bit(cell, embedding_size, monkeypatch):
    config = describe(cell, 70, 2, 65, embedding_size)
    weights, ids = calm_weights(config), random_ids(12, 40)
    with_table = read_alone(Engine(config, weights), ids)
    monkeypatch.setattr(engine_module, "LARGEST_TABLE", 0)
    engine = Engine(config, weights)
    assert np.array_equal(read_alone(engine, ids), with_table)
    for texts in (2, 5, 16, 17, 40):
        assert np.array_equal(Reader(engine, texts).read(ids[:, :texts]), with_table[:, :texts])
        assert np.array_equal(step_by_step(Reader(engine, texts), ids[:, -texts:]), with_table[:, -texts:])


# Many steps at once


@pytest.mark.slow
@every_cell
@laws
@given(st.lists(st.integers(0, 40), max_size=5), st.integers(1, 70))
def test_reading_in_parts_of_any_size_is_reading_step_by_step_to_the_last_bit(cell, cuts, texts):
    engine, ids = make_engine(cell), random_ids(40, texts)
    reader, stepping = Reader(engine, texts), Reader(engine, texts)
    parts = [reader.read(ids[start:end]) for start, end in pairwise(sorted({0, 40, *cuts}))]
    assert np.array_equal(np.concatenate(parts), step_by_step(stepping, ids))
    assert reader.state.same(stepping.state, 0).all()


@pytest.mark.slow
@every_cell
@pytest.mark.parametrize(("texts", "steps"), [(1, 135), (3, 400), (17, 70), (33, 40), (65, 5)])
def test_reading_a_large_model_at_once_is_reading_step_by_step_to_the_last_bit(cell, texts, steps):
    engine, ids = make_engine(cell, 520, 2, 130), random_ids(steps, texts, symbols=130)
    assert np.array_equal(Reader(engine, texts).read(ids), step_by_step(Reader(engine, texts), ids))


def test_steps_and_reading_at_once_may_take_turns():
    engine, ids = make_engine("lstm"), random_ids(30, 3)
    reader = Reader(engine, 3)
    parts = [reader.read(ids[:10]), step_by_step(reader, ids[10:15]), reader.read(ids[15:])]
    assert np.array_equal(np.concatenate(parts), step_by_step(Reader(engine, 3), ids))


@every_cell
def test_reading_nothing_gives_no_logits_and_changes_nothing(cell):
    reader = Reader(make_engine(cell), 3)
    reader.read(random_ids(5, 3))
    before = reader.state
    assert reader.read(random_ids(0, 3)).shape == (0, 3, 65)
    assert reader.state.same(before, 0).all()


# Texts side by side


@pytest.mark.slow
@every_cell
@pytest.mark.parametrize("sizes", [(70, 2, 65), (100, 3, 113), (520, 1, 300)], ids=str)
def test_a_text_is_the_same_alone_and_in_any_place_of_any_batch_to_the_last_bit(cell, sizes):
    engine, ids = make_engine(cell, *sizes), random_ids(6, 64)
    alone = read_alone(engine, ids)
    for texts in (2, 3, 4, 5, 7, 8, 9, 16, 17, 33, 64):
        assert np.array_equal(Reader(engine, texts).read(ids[:, :texts]), alone[:, :texts])
        assert np.array_equal(step_by_step(Reader(engine, texts), ids[:, -texts:]), alone[:, -texts:])


# What happens between two steps: texts leave, others come, all change places.
scenes = st.lists(
    st.tuples(
        st.sets(st.integers(0, 40)),  # the places whose texts leave
        st.integers(0, 18),  # how many come
        st.integers(0, 3),  # after how many symbols, read elsewhere
        st.randoms(use_true_random=False),  # in which order all go on
        st.integers(1, 3),  # for how many steps
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.slow
@every_cell
@laws
@given(scenes)
def test_a_text_is_the_same_whichever_others_join_and_leave_to_the_last_bit(cell, scenes):
    engine, ids = make_engine(cell), random_ids(40, 120)
    alone = lone_logits(cell)
    reader, texts, read = Reader(engine, 0), [], np.zeros(120, int)
    for leaving, coming, ahead, order, steps in scenes:
        staying = [place for place in range(len(texts)) if place not in leaving]
        new = [max([-1, *texts]) + 1 + number for number in range(coming)]
        elsewhere = Reader(engine, coming)
        if coming:
            elsewhere.read(ids[:ahead, new])
            read[new] = ahead
        states = State.join([reader.state.take(staying), elsewhere.state])
        texts = [texts[place] for place in staying] + new
        places = list(range(len(texts)))
        order.shuffle(places)
        texts = [texts[place] for place in places]
        reader = Reader(engine, states.take(places))
        for _ in range(steps):
            logits = read_next(reader, ids[read[texts], texts])
            assert np.array_equal(logits, alone[read[texts], texts].reshape(-1, 65))
            read[texts] += 1


@cache
def lone_logits(cell):
    return read_alone(make_engine(cell), random_ids(40, 120))


@every_cell
def test_a_text_put_in_anothers_place_goes_on_as_itself(cell):
    engine, ids = make_engine(cell), random_ids(20, 5)
    alone = read_alone(engine, ids)
    reader = Reader(engine, 3)
    reader.read(ids[:10, [0, 1, 2]])
    others = Reader(engine, 2)
    others.read(ids[:10, [3, 4]])
    states = reader.state
    states.put([2, 0], others.state)
    assert np.array_equal(Reader(engine, states).read(ids[10:, [4, 1, 3]]), alone[10:, [4, 1, 3]])


@either_arithmetic
def test_a_reader_may_have_no_texts():
    config = describe("gru", 70)
    engine = Engine(config, calm_weights(config))
    empty = Reader(engine, 0)
    assert empty.texts == 0 and read_next(empty, []).shape == (0, 65)
    joined = Reader(engine, State.join([empty.state, Reader(engine, 2).state, empty.state]))
    assert joined.texts == 2
    assert read_next(Reader(engine, joined.state.take([])), []).shape == (0, 65)


@every_cell
def test_states_are_the_same_text_by_text_within_a_tolerance(cell):
    engine = make_engine(cell)
    zero = Reader(engine, 4).state
    assert zero.same(zero, 0).tolist() == [True] * 4
    moved = zero.take(range(4))
    moved.hidden[1, 1, 5] = 0.01
    moved.hidden[0, 2, 69] = -0.003
    if cell == "lstm":
        moved.cell_state[0, 3, 7] = 0.01
    assert zero.same(moved, 0.005).tolist() == [True, False, True, cell != "lstm"]
    moved.hidden[0, 0, 0] = np.nan
    assert not moved.same(moved, 1)[0]


# What stays as it is


@every_cell
def test_building_an_engine_leaves_the_weights_as_they_are(cell):
    for hidden_size in (64, 70):  # that need no padding, and that do
        config = describe(cell, hidden_size)
        weights = calm_weights(config)
        before = {name: array.copy() for name, array in weights.items()}
        for array in weights.values():
            array.setflags(write=False)
        Engine(config, weights)
        assert all(np.array_equal(array, before[name]) for name, array in weights.items())


@every_cell
def test_nothing_in_an_engine_changes_when_it_reads(cell):
    for hidden_size in (64, 70):
        engine = make_engine(cell, hidden_size)
        before = [array.copy() for array in engine.model.arrays]
        for texts in (1, 2, 20):
            reader = Reader(engine, texts)
            reader.read(random_ids(5, texts))
            read_next(reader, random_ids(texts))
        assert all(map(np.array_equal, engine.model.arrays, before))


@every_cell
def test_readers_of_one_engine_do_not_disturb_each_other(cell):
    engine, ids = make_engine(cell), random_ids(20, 2)
    alone = read_alone(engine, ids)
    one, other = Reader(engine), Reader(engine)
    for step, (symbol, others) in enumerate(ids):
        assert np.array_equal(read_next(one, [symbol])[0], alone[step, 0])
        assert np.array_equal(other.read(np.array([[others]]))[0, 0], alone[step, 1])


@every_cell
def test_threads_may_share_an_engine(cell):
    engine, ids = make_engine(cell, 100, 3, 113), random_ids(60, 8)
    alone = read_alone(engine, ids)
    with ThreadPoolExecutor(8) as threads:
        stepped = list(threads.map(lambda text: step_by_step(Reader(engine), text[:, None])[:, 0], ids.T))
        read = list(threads.map(lambda text: Reader(engine).read(text[:, None])[:, 0], ids.T))
    assert np.array_equal(np.stack(stepped, axis=1), alone)
    assert np.array_equal(np.stack(read, axis=1), alone)


@every_cell
def test_what_a_reader_gave_and_what_it_was_given_do_not_change_as_it_reads_on(cell):
    engine, ids = make_engine(cell), random_ids(3, 2)
    first = Reader(engine, 2)
    logits, states = read_next(first, ids[0]), first.state
    kept = logits.copy(), states.take([0, 1])
    second = Reader(engine, states)
    read_next(second, ids[1])
    first.read(ids[1:])
    assert np.array_equal(logits, kept[0])
    assert states.same(kept[1], 0).all()
    first.state.put([0], states.take([1]))
    assert not first.state.same(states, 0).any()


# On and on


@pytest.mark.slow
def test_writing_on_and_on_takes_no_more_memory():
    texts = 2
    reader = Reader(make_engine("lstm", 4, 1, 3), texts)
    samplers = BatchSampler([make_sampler(1.0, 2 * number, 1 - number / 4, seed=number) for number in range(texts)])
    logits = read_next(reader, [0] * texts)

    def write(steps):
        nonlocal logits
        for _ in range(steps):
            logits = read_next(reader, samplers.draw(logits))

    write(100)
    tracemalloc.start()
    try:
        write(100)
        few, few_at_most = tracemalloc.get_traced_memory()
        write(22_000)
        many, many_at_most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # a byte for each symbol of a text would be 22,000 in all; threads that other tests left may need some thousand
    assert many - few < 20_000 and many_at_most - few_at_most < 20_000


# Drawing


@pytest.mark.slow
@every_cell
@laws
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 1e-300, 0.5, 1.0, 2.5, 1e6]),  # temperature
            st.sampled_from([0, 1, 2, 5, 64, 65, 100]),  # top_k
            st.sampled_from([0, 0.3, 0.9, 0.999, 1.0]) | st.floats(0, 1),  # top_p
            st.integers(0, 2**64),  # seed
        ),
        min_size=1,
        max_size=40,
    ),
    st.integers(1, 6),
)
def test_what_is_drawn_is_what_the_sampler_in_numpy_draws(cell, texts, steps):
    engine = make_engine(cell)
    ids, surprisals = Reader(engine, len(texts)).write(steps, BatchSampler([make_sampler(*text) for text in texts]))
    assert ids.shape == surprisals.shape == (steps, len(texts))
    reader, sampler = Reader(engine, len(texts)), BatchSampler([make_sampler(*text) for text in texts])
    logits = reader.logits()
    for drawn, costs in zip(ids, surprisals, strict=True):
        assert sampler.draw(logits) == drawn.tolist()
        np.testing.assert_allclose(costs, surprisals_of(drawn, logits), rtol=1e-5, atol=1e-6)
        logits = read_next(reader, drawn)


@pytest.mark.slow
@laws
@given(
    st.sampled_from([1, 2, 15, 16, 17, 600, 3_000]),  # symbols
    st.sampled_from([0, 1e-3, 1, 3, 30, 1e4]),  # how far the logits lie apart
    st.sampled_from([1, 2, 10, 10_000]),  # how many different ones there are
    st.sampled_from([0, 1, 2, 127, 400, 10_000]) | st.integers(0, 3_000),  # top_k
    st.sampled_from([0, 0.3, 0.9, 0.999, 1 - 1e-12, 1.0]) | st.floats(0, 1),  # top_p
    st.integers(0, 100),
)
def test_ties_and_limits_are_drawn_as_the_sampler_in_numpy_draws_them(symbols, far, different, top_k, top_p, seed):
    random = np.random.default_rng(seed)
    biases = random.choice(random.normal(0, far, different), symbols).astype(np.float32)
    config = describe("rnn", 1, 1, symbols, 1)
    weights = {name: np.zeros(shape, np.float32) for name, shape in config.tensor_shapes.items()}
    engine = Engine(config, weights | {"head.bias": biases})  # so the logits are the biases
    ids, _ = Reader(engine).write(20, BatchSampler([make_sampler(1.0, top_k, top_p, seed)]))
    sampler = make_sampler(1.0, top_k, top_p, seed)
    assert ids[:, 0].tolist() == [sampler.draw(biases) for _ in range(20)]


@either_arithmetic
@every_cell
def test_scores_are_the_surprisals_of_the_logits(cell):
    config = describe(cell, 70)
    engine = Engine(config, calm_weights(config))
    ids = random_ids(400, 5)
    reader, other = Reader(engine, 5), Reader(engine, 5)
    scores = reader.score(ids)
    np.testing.assert_allclose(scores, surprisals_of(ids[1:], other.read(ids[:-1])), rtol=1e-5, atol=1e-5)
    assert reader.state.same(other.state, 1e-5).all()
    assert Reader(engine, 5).score(ids[:1]).shape == (0, 5)


@either_arithmetic
def test_logits_that_are_no_finite_numbers_are_refused(monkeypatch):
    monkeypatch.setattr(engine_module, "LARGEST_WEIGHT", math.inf)
    config = describe("gru", 70)
    for bad in (math.nan, math.inf, -math.inf):
        weights = calm_weights(config)
        weights["head.bias"][3] = bad
        engine = Engine(config, weights)
        with pytest.raises(ModelFileError, match="outputs are not finite numbers"):
            Reader(engine).write(2, BatchSampler([make_sampler(1.0, seed=0)]))
        if bad != -math.inf:  # a symbol that never comes leaves the others their surprisals
            with pytest.raises(ModelFileError, match="outputs are not finite numbers"):
                Reader(engine).score(random_ids(5, 1))


# Threads


@pytest.mark.parametrize(
    ("cell", "size", "texts", "most", "threads"),
    [
        ("rnn", 256, 4, 2, 1),  # 214,272 multiplications a text: not much for two threads
        ("rnn", 256, 64, 2, 2),
        ("rnn", 256, 64, 16, 13),
        ("lstm", 1024, 1, 16, 1),  # a text is not shared out
        ("lstm", 1024, 3, 16, 3),
        ("lstm", 1024, 0, 16, 1),
    ],
)
def test_a_thread_is_started_when_it_has_enough_to_do(cell, size, texts, most, threads):
    config = make_config(cell, vocab="".join(map(chr, range(97, 162))), hidden_size=size, embedding_size=4)
    weights = {name: np.zeros(shape, np.float32) for name, shape in config.tensor_shapes.items()}
    assert Engine(config, weights).count_threads(texts, most) == threads
