import tracemalloc
from contextlib import contextmanager
from functools import cache
from itertools import chain, pairwise, repeat
from threading import Event

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import laws, make_config, make_weights, read_next
from reference import forward_by_hand, log_softmax

from charlm.errors import ModelFileError
from charlm.inference import scoring
from charlm.inference.engine import Engine, Reader
from charlm.inference.scoring import EngineReader, count_scoring_threads, surprisals
from charlm.model.cells import CELLS

every_cell = pytest.mark.parametrize("cell", CELLS)

VOCAB = "abcdef"
LENGTH = 600  # symbols, which `cut` makes into three blocks

# A text that comes in pieces, and how it is cut into stretches.
lengths = st.integers(0, LENGTH)
places = st.lists(lengths, max_size=8)
sizes = st.fixed_dictionaries(
    {
        "longest": st.integers(1, 70),
        "shortest": st.integers(1, 70),
        "at_once": st.integers(1, 40),
        "last_check": st.integers(0, 70),
        "workers": st.integers(1, 5),
        "most_rows": st.integers(1, 17),
        "fewest_rows": st.integers(1, 9),
        "probe": st.integers(2, 70),
    }
)


@contextmanager
def cut(longest=32, shortest=16, at_once=4, last_check=24, workers=2, most_rows=4, fewest_rows=1, probe=24):
    """Cut texts small, so that a short one makes many stretches and several blocks."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(EngineReader, "longest_stretch", longest)
        monkeypatch.setattr(scoring, "SHORTEST_STRETCH", shortest)
        monkeypatch.setattr(EngineReader, "long_stretch", shortest)
        monkeypatch.setattr(EngineReader, "check_interval", at_once)
        monkeypatch.setattr(scoring, "LAST_CHECK", last_check)
        monkeypatch.setattr(scoring, "MOST_STRETCHES_PER_THREAD", most_rows)
        monkeypatch.setattr(scoring, "FEWEST_STRETCHES", fewest_rows)
        monkeypatch.setattr(scoring, "PROBE", probe)
        monkeypatch.setattr(scoring, "count_scoring_threads", lambda: workers)
        monkeypatch.setattr("charlm.inference.engine.THREAD_WORK", 1)  # each stretch is worth a thread
        yield


class Counted(np.ndarray):
    """Ids that count how often somebody asks how many they are."""

    asked = 0

    def __len__(self):
        Counted.asked += 1
        return super().__len__()


def test_pieces_of_one_symbol_are_counted_once_each(monkeypatch):
    monkeypatch.setattr(Counted, "asked", 0)
    engine, ids = Engine(make_config(vocab=VOCAB), make_weights(make_config(vocab=VOCAB))), random_ids()
    pieces = [piece.view(Counted) for piece in np.split(ids, LENGTH)]
    whole = np.concatenate(list(surprisals(EngineReader(engine), [ids])))
    scored = np.concatenate(list(surprisals(EngineReader(engine), pieces)))
    assert scored.tolist() == whole.tolist()
    assert Counted.asked <= 2 * LENGTH


def score(engine, ids, cuts=()):
    pieces = [ids[start:end] for start, end in pairwise(sorted({0, len(ids), *(min(cut, len(ids)) for cut in cuts)}))]
    return np.concatenate([np.zeros(0), *surprisals(EngineReader(engine), pieces)])


def surprisals_by_hand(config, weights, ids):
    return pick(forward_by_hand(config.cell, weights, ids[:-1]), ids)


def pick(logits, ids):
    """Return the surprisals of all symbols but the first, given the logits after all but the last."""
    return -log_softmax(logits)[np.arange(len(ids) - 1), ids[1:]]


def random_ids(length=LENGTH):
    return np.random.default_rng(3).integers(len(VOCAB), size=length)


@cache
def forgetful(cell):
    """A network that forgets within some ten symbols, and the surprisals of random ones."""
    config = make_config(cell, VOCAB)
    weights = make_weights(config)
    return Engine(config, weights), surprisals_by_hand(config, weights, random_ids())


@cache
def unforgetting(cell):
    """A network of one unit that a or b sets and that holds it; an LSTM's counts instead."""
    config = make_config(cell, VOCAB, embedding_size=len(VOCAB), hidden_size=1, num_layers=1)
    weights = {name: np.zeros(shape, np.float32) for name, shape in config.tensor_shapes.items()}
    inputs, bias = weights["recurrent.weight_ih_l0"], weights["recurrent.bias_ih_l0"]
    weights["embedding.weight"][:] = np.eye(len(VOCAB))
    weights["head.weight"][:, 0] = [2, -1, 0.5, -2, 1, -0.5]
    if cell == "rnn":
        inputs[0, :2] = 10, -10
        weights["recurrent.weight_hh_l0"][:] = 3
    elif cell == "lstm":
        bias[[0, 1, 3]] = 50  # all gates stand open
        inputs[2, :4] = 0.5, -0.5, 0.25, -0.25
    else:
        bias[1] = 50  # what is there is kept,
        inputs[1, :2] = -100  # unless one of the two comes
        inputs[2, :2] = 10, -10
    return config, weights, Engine(config, weights)


def chaotic(cell):
    """A network in which the smallest difference grows until nothing is alike."""
    config = make_config(cell, VOCAB, 5, 32, 1)
    weights = make_weights(config)
    weights["recurrent.weight_hh_l0"] *= 5
    return config, weights, Engine(config, weights)


# A text is scored as if it were read one symbol after another


@pytest.mark.slow
@every_cell
@laws
@given(lengths, places, sizes)
def test_a_text_of_any_length_in_any_pieces_is_scored_as_symbol_by_symbol(cell, length, cuts, sizes):
    engine, expected = forgetful(cell)
    with cut(**sizes):
        scores = score(engine, random_ids()[:length], cuts)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, expected[: max(0, length - 1)], atol=2e-4, rtol=0)


@pytest.mark.slow
@every_cell
@pytest.mark.parametrize("length", [0, 1, 2, 3, 100, 2 * scoring.SHORTEST_STRETCH - 1, 5000])
def test_a_text_is_scored_as_symbol_by_symbol_with_the_sizes_as_they_are(cell, length):
    config = make_config(cell, VOCAB)
    weights, ids = make_weights(config), random_ids(length)
    expected = surprisals_by_hand(config, weights, ids) if length > 1 else np.zeros(0)
    np.testing.assert_allclose(score(Engine(config, weights), ids), expected, atol=2e-4, rtol=0)


@pytest.mark.slow
@every_cell
@laws
@given(st.lists(st.tuples(lengths, st.booleans()), max_size=12), lengths, places, sizes)
def test_where_a_network_does_not_forget_a_text_is_scored_as_symbol_by_symbol(cell, events, length, cuts, sizes):
    config, weights, engine = unforgetting(cell)
    ids = 2 + random_ids() % 4  # that leave alone what was set,
    for place, is_a in events:
        ids[place : place + 1] = 0 if is_a else 1  # which happens here
    ids = ids[:length]
    with cut(**sizes):
        scores = score(engine, ids, cuts)
    if length > 1:
        np.testing.assert_allclose(scores, surprisals_by_hand(config, weights, ids), atol=2e-4, rtol=0)


@every_cell
def test_what_was_set_once_is_known_to_all_stretches_and_blocks(cell):
    config, weights, engine = unforgetting(cell)
    ids = np.full(LENGTH, 5)
    ids[0] = 0
    expected = surprisals_by_hand(config, weights, ids)
    with cut():
        np.testing.assert_allclose(score(engine, ids), expected, atol=1e-5, rtol=0)
        # without that past the same symbols would surprise it otherwise
        assert np.abs(score(engine, ids[1:]) - expected[1:]).min() > 0.1


@every_cell
def test_where_a_network_is_chaotic_a_text_is_scored_as_symbol_by_symbol(cell):
    _, _, engine = chaotic(cell)
    ids = random_ids()
    reader, late = Reader(engine), Reader(engine)
    expected = pick(np.array([read_next(reader, ids[[place]])[0] for place in range(LENGTH - 1)], np.float64), ids)
    with cut():
        # no tolerance would do if a single rounding differed
        np.testing.assert_allclose(score(engine, ids), expected, rtol=0, atol=1e-6)
    unlike = np.abs(pick(late.read(ids[1:-1, None])[:, 0].astype(np.float64), ids[1:]) - expected[1:])
    assert unlike[-100:].max() > 0.1


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_the_number_of_threads_does_not_matter(workers):
    engine, expected = forgetful("gru")
    with cut(workers=workers):
        np.testing.assert_allclose(score(engine, random_ids()), expected, atol=2e-4, rtol=0)


def test_a_small_difference_in_a_count_is_not_forgotten_while_the_count_is_large():
    config, weights, _ = unforgetting("lstm")
    inputs = weights["recurrent.weight_ih_l0"].copy()
    inputs[2, :3] = 10, -10, np.arctanh(0.02)  # a counts up by 1, b down, c up a little
    weights = weights | {"recurrent.weight_ih_l0": inputs}
    up_and_down = [2] + [0] * 500 + [1] * 500 + [0, 1] * 12
    ids = np.array(up_and_down * 3 + [0])  # three stretches, the first of which ends at 0.02, the next at 0.04
    scores, expected = score(Engine(config, weights), ids), surprisals_by_hand(config, weights, ids)
    np.testing.assert_allclose(scores, expected, atol=1e-3, rtol=0)


def test_a_symbol_that_can_hardly_be_is_as_surprising_as_that():
    config, weights, _ = unforgetting("rnn")
    weights = weights | {"head.bias": np.array([0, 0, 0, 0, 0, -1e15], np.float32)}
    assert score(Engine(config, weights), np.array([2, 3, 5, 2]))[1] == pytest.approx(1e15)


def test_logits_that_are_no_numbers_are_refused():
    config, weights, _ = unforgetting("rnn")
    weights = weights | {"head.bias": np.full(6, np.nan, np.float32)}
    with cut(), pytest.raises(ModelFileError, match="outputs are not finite numbers"):
        score(Engine(config, weights), random_ids())


# What that costs


def count_read(engine, ids):
    """Return how many symbols are read to score a text, for each of it."""
    counts = []

    class Counting(Reader):
        def score(self, ids):
            counts.append(ids[1:].size)
            return super().score(ids)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(scoring, "Reader", Counting)
        score(engine, ids)
    return sum(counts) / len(ids)


@every_cell
def test_where_a_network_forgets_little_is_read_twice(cell):
    # a stretch has 1000 symbols or more, and is read again until the first check
    assert count_read(forgetful(cell)[0], random_ids(20_000)) < 1.2


@pytest.mark.slow
@every_cell
@pytest.mark.parametrize(("workers", "least", "most"), [(1, 1, 1.1), (2, 1.4, 1.6), (8, 1.8, 3)])
def test_where_a_network_does_not_forget_each_thread_reads_one_stretch(cell, workers, least, most, monkeypatch):
    monkeypatch.setattr(scoring, "count_scoring_threads", lambda: workers)
    ids = 2 + random_ids(300_000) % 4
    ids[0] = 0
    # but for the first, a stretch is read from zero, and then as often as the one before has changed, at most twice
    assert least < count_read(unforgetting(cell)[2], ids) < most


@pytest.mark.slow
@pytest.mark.parametrize("piece", [100_000, 200_000])
def test_it_is_tried_out_once_how_long_a_network_remembers(piece, monkeypatch):
    monkeypatch.setattr(scoring, "count_scoring_threads", lambda: 1)
    monkeypatch.setattr(EngineReader, "longest_stretch", 4096)
    tried, try_out = [], scoring._StretchChoice._try_out
    monkeypatch.setattr(
        scoring._StretchChoice, "_try_out", lambda choice, ids: tried.append(len(ids)) or try_out(choice, ids)
    )
    engine, _ = forgetful("lstm")
    for _ in surprisals(EngineReader(engine), [random_ids(piece)] * 3):
        pass
    assert len(tried) == 1


def test_an_interrupt_does_not_wait_for_the_threads(monkeypatch):
    engine, _ = forgetful("lstm")
    read, begun = [], Event()

    class Waiting(EngineReader):
        def read(self, ids, state):
            read.append(ids.shape)
            begun.set()
            return super().read(ids, state)

    def interrupted(threads, work, parts):
        for part in parts:
            threads.submit(work, part)
        begun.wait()
        raise KeyboardInterrupt

    monkeypatch.setattr(scoring.ThreadPoolExecutor, "map", interrupted)
    with cut(shortest=10, longest=10_000, at_once=1), pytest.raises(KeyboardInterrupt):
        list(surprisals(Waiting(engine), [random_ids(100_000)]))
    assert len(read) < 50_000


def test_a_text_without_end_is_scored_as_it_comes():
    engine, expected = forgetful("rnn")
    ids = random_ids()
    with cut():
        first = next(surprisals(EngineReader(engine), chain([ids[:200], ids[200:]], repeat(ids))))
    assert 200 < len(first) < LENGTH
    np.testing.assert_allclose(first, expected[: len(first)], atol=2e-4, rtol=0)


def test_nothing_is_read_before_it_is_asked_for():
    def pieces():
        raise AssertionError
        yield

    surprisals(EngineReader(forgetful("rnn")[0]), pieces())


@pytest.mark.parametrize("most", [1, 200, 5_000])
def test_a_text_is_scored_the_same_however_many_logits_there_are_at_a_time(most, monkeypatch):
    engine, expected = forgetful("lstm")
    monkeypatch.setattr("charlm.inference.sampling.MOST_LOGITS", most)
    monkeypatch.setattr(scoring, "MOST_LOGITS", most)
    assert score(engine, random_ids()) == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_a_longer_text_takes_no_more_memory():
    engine, _ = forgetful("gru")

    def peak(pieces):
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        for _ in surprisals(EngineReader(engine), (random_ids(3_000) for _ in range(pieces))):
            pass
        return tracemalloc.get_traced_memory()[1] - before

    tracemalloc.start()
    try:
        with cut(longest=640, at_once=32, workers=1):
            peak(5)
            assert peak(60) < 1.2 * peak(6)
    finally:
        tracemalloc.stop()


def test_as_many_threads_read_as_there_are_cores_up_to_eight(monkeypatch):
    for cores, workers in ((1, 1), (3, 3), (8, 8), (200, 8)):
        monkeypatch.setattr(scoring, "count_cores", lambda cores=cores: cores)
        assert count_scoring_threads() == workers
