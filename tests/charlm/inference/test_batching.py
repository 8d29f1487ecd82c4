import itertools
import math
import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from threading import Condition, Event, Semaphore, Thread

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import VOCAB, laws, make_lm, make_sampler, make_scheduler, read_next, stream_shared

from charlm.errors import ModelFileError, RequestError
from charlm.inference.batching import EngineBackend, _Stream, _Worker, measure_chars_per_second
from charlm.inference.engine import Engine, Reader
from charlm.model.cells import CELLS

WAIT = 60  # seconds until a test gives up
FOREVER = 10**9  # symbols
SETTINGS = [
    {},
    {"temperature": 0},
    {"temperature": 1.5},
    {"temperature": 2.0, "top_k": 3},
    {"temperature": 1.0, "top_p": 0.7},
    {"temperature": 1.3, "top_k": 6, "top_p": 0.9},
]
MANY_SYMBOLS = "\n" + "".join(map(chr, range(0x4E00, 0x4E00 + 129)))
MODELS = {
    **{cell: {"cell": cell} for cell in CELLS},
    "more symbols than a block has columns": {"cell": "lstm", "vocab": MANY_SYMBOLS, "hidden_size": 70},
    "more units than a chunk has": {"cell": "gru", "hidden_size": 520, "num_layers": 1},
}


@pytest.fixture(autouse=True)
def workers_threads(monkeypatch, scheduler_threads):
    """The threads that schedulers start; at the end all of them have ended, as no stream is left.

    Waiting for a piece ends after WAIT seconds.
    """

    class Impatient(SimpleQueue):
        def get(self):
            return super().get(timeout=WAIT)

    monkeypatch.setattr("charlm.inference.batching.SimpleQueue", Impatient)
    yield scheduler_threads
    await_end(scheduler_threads)


class Gate:
    """Blocks every step of a Reader until it is opened, and counts the streams and workers that arrive meanwhile.

    steps: how many texts each step was for.
    error: what blocked steps raise when the gate opens, if not None.
    """

    def __init__(self, monkeypatch):
        self.steps, self.error = [], None
        self._open, self._waiting, self._joined = Event(), Semaphore(0), Semaphore(0)
        step, join = Reader.advance, _Worker.join

        def hold(reader, ids):
            self._waiting.release()
            assert self._open.wait(WAIT)
            if self.error:
                raise self.error
            self.steps.append(reader.texts)
            return step(reader, ids)

        def count(worker, text):
            join(worker, text)
            self._joined.release()

        monkeypatch.setattr(Reader, "advance", hold)
        monkeypatch.setattr(_Worker, "join", count)

    def await_texts(self, count):
        """Wait until so many more streams have joined."""
        assert all(self._joined.acquire(timeout=WAIT) for _ in range(count))

    def await_workers(self, count):
        """Wait until so many more workers are blocked."""
        assert all(self._waiting.acquire(timeout=WAIT) for _ in range(count))

    def open(self):
        self._open.set()


@pytest.fixture
def closed_gate(monkeypatch, workers_threads):
    """A function that closes a gate once all earlier streams have ended; the gate is opened at the end of the test."""
    gates = []

    def close():
        await_end(workers_threads)
        gates.append(Gate(monkeypatch))
        return gates[-1]

    yield close
    for gate in gates:
        gate.open()


def await_end(threads):
    deadline = time.monotonic() + WAIT
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    assert not any(thread.is_alive() for thread in threads)


def on_a_thread(call):
    """The Future of what a call on a thread of its own returns or raises."""
    future = Future()

    def run():
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future


@pytest.fixture(autouse=True)
def small_calls(monkeypatch):
    """Spread streams over threads, and write a symbol in each call of the engine, however small the model is."""
    monkeypatch.setattr("charlm.inference.engine.THREAD_WORK", 1)
    monkeypatch.setattr("charlm.inference.batching.CALL_SECONDS", 0)


def scheduled(workers, cell="lstm", **sizes):
    """A model whose scheduler has so many workers."""
    lm = make_lm(cell, **sizes)
    lm._scheduler = make_scheduler(lm, workers)
    return lm


def counts(lm):
    """How many texts each worker has."""
    return [len(worker) for worker in lm._scheduler._workers]


def together(lm, arguments):
    return "".join(stream_shared(lm, **arguments))


def alone(lm, arguments):
    """The text that a model writes without other streams."""
    return lm.generate(**arguments)


def requests(lm, count, longest, seed=0):
    """Arguments for texts of all kinds."""
    random, symbols = np.random.default_rng(seed), list(lm.vocab.symbols)
    return [
        {
            "prompt": "".join(random.choice(symbols, random.integers(0, 30))),
            "length": int(random.integers(0, longest + 1)),
            "seed": int(random.integers(2**40)),
            **SETTINGS[number % len(SETTINGS)],
        }
        for number in range(count)
    ]


# What a text becomes


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("seconds", [0, 1e-4, 10])
def test_streams_are_the_same_to_the_last_bit_however_many_symbols_a_call_writes(monkeypatch, cell, seconds):
    lm = make_lm(cell)
    asked = requests(lm, 40, longest=12)
    monkeypatch.setattr("charlm.inference.batching.CALL_SECONDS", seconds)

    def write():
        """The ids and surprisals of all texts, written in one batch."""
        backend = EngineBackend(lm.engine)
        batch = backend.start_batch()
        settings = [{name: each[name] for name in each if name not in ("prompt", "length")} for each in asked]
        prompts = [backend.prefill(lm.vocab.encode(each["prompt"] or "\n")) for each in asked]
        batch.join(prompts, [make_sampler(**each) for each in settings])
        for length in (1, 1, 7, 3):
            yield batch.write([length] * len(asked), length, lambda: False)
            batch.keep(range(len(asked)))

    ids, surprisals = (np.concatenate(parts) for parts in zip(*write(), strict=True))
    assert ids.shape == (12, 40)
    for place, each in enumerate(asked):
        text = lm.generate(**each | {"length": 12})
        assert lm.vocab.decode(ids[:, place]) == text
        np.testing.assert_allclose(surprisals[:, place], lm.score((each["prompt"] or "\n") + text)[-12:], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("model", MODELS)
def test_a_stream_is_the_same_text_whichever_others_join_and_leave_its_batch(monkeypatch, model, workers):
    """64 texts join, each when another that is drawn has come to a place that is drawn; some leave on the way."""
    monkeypatch.setattr("charlm.inference.batching.DELIVERY_SECONDS", 0)  # so that they join at every symbol
    lm = scheduled(workers, **MODELS[model])
    texts = requests(lm, 64, longest=60 if model in CELLS else 20)
    expected = [alone(lm, arguments) for arguments in texts]
    random = np.random.default_rng(1)
    # some leave early
    reads = [
        int(random.integers(1, text["length"])) if number % 3 == 0 and text["length"] > 1 else text["length"]
        for number, text in enumerate(texts)
    ]
    before = [int(random.integers(max(0, number - 8), number)) if number else 0 for number in range(len(texts))]
    moments = [int(random.integers(reads[other] + 1)) for other in before]
    read, progress = [0] * len(texts), Condition()

    def write(number):
        with progress:
            assert progress.wait_for(lambda: read[before[number]] >= moments[number] or number == 0, WAIT)
        stream, text = stream_shared(lm, **texts[number]), ""
        while len(text) < reads[number]:
            text += next(stream)
            with progress:
                read[number] = len(text)
                progress.notify_all()
        if reads[number] < texts[number]["length"]:
            stream.close()
        else:
            assert next(stream, None) is None
        return text

    companions = [stream_shared(lm, "", FOREVER, seed=number) for number in range(workers)]
    begun = [next(companion) for companion in companions]  # so that no stream is ever alone in its batch
    futures = [on_a_thread(lambda number=number: write(number)) for number in range(len(texts))]
    for future, whole, wanted in zip(futures, expected, reads, strict=True):
        text = future.result(WAIT)
        assert len(text) >= wanted and whole.startswith(text)
    for number, (companion, beginning) in enumerate(zip(companions, begun, strict=True)):
        companion.close()
        assert alone(lm, {"length": len(beginning), "seed": number}) == beginning


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_64_texts_are_written_in_as_many_steps_as_the_longest_takes(closed_gate, workers_threads, cell):
    lm = scheduled(1, cell)
    texts = [arguments | {"length": max(3, arguments["length"])} for arguments in requests(lm, 64, longest=50)]
    expected = [alone(lm, arguments) for arguments in texts]
    gate = closed_gate()
    futures = [on_a_thread(lambda: together(lm, texts[0]))]
    gate.await_workers(1)
    futures += [on_a_thread(lambda arguments=arguments: together(lm, arguments)) for arguments in texts[1:]]
    gate.await_texts(64)
    assert counts(lm) == [64]
    gate.open()
    assert [future.result(WAIT) for future in futures] == expected
    await_end(workers_threads)
    first, *others = (arguments["length"] for arguments in texts)
    assert len(gate.steps) == max(first, 1 + max(others))  # the first was a symbol ahead
    assert gate.steps[:2] == [1, 64] and gate.steps[-1] == 0 and gate.steps[1:] == sorted(gate.steps[1:], reverse=True)


@st.composite
def companies(draw):
    """Texts as (prompt, length, number of the settings, seed), and whose next piece is read, in order."""
    text = st.tuples(
        st.text(st.sampled_from(VOCAB), max_size=5),
        st.integers(0, 30),
        st.integers(0, len(SETTINGS) - 1),
        st.integers(0, 2**64),
    )
    texts = draw(st.lists(text, min_size=1, max_size=6))
    return texts, draw(st.lists(st.integers(0, len(texts) - 1), max_size=40)), draw(st.sets(st.integers(0, 5)))


@pytest.fixture(scope="module")
def lm_of_two_workers():
    return scheduled(2)


@pytest.mark.slow
@laws
@given(companies())
def test_a_thread_that_reads_many_streams_gets_each_as_it_is_alone(lm_of_two_workers, drawn):
    """It reads them in any order, and closes some."""
    texts, order, left = drawn
    lm = lm_of_two_workers
    arguments = [
        {"prompt": prompt, "length": length, "seed": seed, **SETTINGS[settings]}
        for prompt, length, settings, seed in texts
    ]
    streams = [stream_shared(lm, **each) for each in arguments]
    read = [""] * len(texts)
    for place in order:
        read[place] += next(streams[place], "")
    for place, each in enumerate(arguments):
        if place in left:
            streams[place].close()
            assert alone(lm, each).startswith(read[place])
        else:
            assert read[place] + "".join(streams[place]) == alone(lm, each)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("prompt", ["", "a", "bad cab\nde"], ids=ascii)
def test_no_symbol_and_one_symbol(workers, prompt):
    lm = scheduled(workers)
    companion = stream_shared(lm, "b", FOREVER)
    next(companion)
    for _ in range(2):
        assert list(stream_shared(lm, prompt, 0)) == []
        for seed in range(5):
            arguments = {"prompt": prompt, "length": 1, "seed": seed}
            assert list(stream_shared(lm, **arguments)) == [alone(lm, arguments)]
    companion.close()


def test_a_text_is_delivered_whole_and_not_before_something_is_written(monkeypatch):
    lm = scheduled(1)
    ids, expected = lm.vocab.encode("a cab"), lm.vocab.encode(alone(lm, {"prompt": "a cab", "length": 50, "seed": 3}))
    for seconds in (0, math.inf):
        monkeypatch.setattr("charlm.inference.batching.DELIVERY_SECONDS", seconds)
        pieces = [drawn for drawn, _ in lm._scheduler.write(ids, 50, make_sampler(seed=3))]
        assert all(pieces) and list(itertools.chain(*pieces)) == expected.tolist()
    assert len(pieces) <= 2  # after the first symbol, which is delivered at once, nothing was due before the end


def test_a_text_that_is_far_from_its_end_is_delivered_on_the_way():
    lm = scheduled(1)
    stream = stream_shared(lm, "a", FOREVER, seed=1)
    begun = next(stream) + next(stream)
    stream.close()
    assert len(begun) >= 2 and begun == alone(lm, {"prompt": "a", "length": len(begun), "seed": 1})


# Workers and slots


def test_texts_spread_over_the_workers(closed_gate):
    lm = scheduled(3)
    gate = closed_gate()
    futures = []
    for number in range(7):
        futures.append(on_a_thread(lambda number=number: together(lm, {"length": 20 + number})))
        gate.await_texts(1)
    assert sorted(counts(lm)) == [2, 2, 3]
    gate.open()
    assert [len(future.result(WAIT)) for future in futures] == [20, 21, 22, 23, 24, 25, 26]


def test_as_many_workers_write_as_the_texts_keep_busy(monkeypatch, closed_gate):
    lm = scheduled(3)
    monkeypatch.setattr("charlm.inference.engine.THREAD_WORK", 3 * lm.engine.work)
    gate = closed_gate()
    futures, seen = [], []
    for _ in range(11):
        futures.append(on_a_thread(lambda: together(lm, {"length": 20})))
        gate.await_texts(1)
        seen.append(counts(lm))
    assert seen[4] == [5, 0, 0]
    assert seen[5] == [5, 1, 0] and seen[7] == [5, 3, 0]
    assert seen[8] == [5, 3, 1] and seen[10] == [5, 3, 3]
    gate.open()
    assert [len(future.result(WAIT)) for future in futures] == [20] * 11


def test_there_is_a_worker_for_each_core():
    lm = make_lm()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert counts(lm) == [0] * cores


def end(stream):
    return sum(map(len, stream))


def close(stream):
    stream.close()


def forget(_):
    """Only drop the last reference."""


@pytest.mark.parametrize("leave", [end, close, forget])
def test_a_stream_that_ends_or_is_closed_or_dropped_frees_its_slot(workers_threads, leave):
    lm = scheduled(1)
    for number in range(3):
        stream = stream_shared(lm, "a", 1000 if leave is end else FOREVER, seed=number)
        assert next(stream)
        assert leave is end or counts(lm) == [1]
        leave(stream)
        del stream
        await_end(workers_threads)  # a worker ends with its last stream
        assert counts(lm) == [0]
    assert len(workers_threads) == 3


def test_a_stream_that_is_not_begun_takes_no_slot(workers_threads):
    lm = scheduled(2)
    stream = stream_shared(lm, "a", 10)
    assert counts(lm) == [0, 0]
    stream.close()
    assert list(stream) == [] and workers_threads == []


def test_a_closed_stream_frees_its_slot_while_others_go_on():
    lm = scheduled(1)
    leaving, staying = (stream_shared(lm, "a", FOREVER, seed=seed) for seed in range(2))
    begun = next(leaving), next(staying)
    assert all(begun) and counts(lm) == [2]
    leaving.close()
    # all but the first few of the next pieces were written without the closed stream
    assert any(counts(lm) == [1] for _ in itertools.islice(staying, 100))
    staying.close()


@pytest.mark.parametrize("way", ["generate_many", "measure_chars_per_second"])
def test_a_ctrl_c_ends_all_streams_although_its_traceback_is_kept(monkeypatch, workers_threads, way):
    lm, received, receive = scheduled(2), itertools.count(), _Stream.receive

    def interrupted(stream):
        if next(received) == 10:
            raise KeyboardInterrupt
        return receive(stream)

    monkeypatch.setattr(_Stream, "receive", interrupted)
    monkeypatch.setattr("charlm.inference.batching.MEASURED_LENGTH", FOREVER)
    use = partial(lm.generate_many, "a", 4, FOREVER)
    with pytest.raises(KeyboardInterrupt) as caught:
        (use if way == "generate_many" else partial(measure_chars_per_second, EngineBackend(lm.engine)))()
    await_end(workers_threads)  # a worker ends with its last stream
    assert workers_threads and caught.tb


def ends_well(process):
    """Whether a process ends by itself, and with status 0."""
    process.start()
    process.join(WAIT)
    process.kill()
    process.join()
    return process.exitcode == 0


def test_a_fork_at_any_moment_finds_a_stream_that_is_not_delivered_whole():
    """What goes on is failed in a forked process; what does not must have been delivered to its end."""
    stream, seen = _Stream(None, 2, make_sampler(), {}), []

    class Queue:
        def put(self, pieces):
            seen.append(stream.goes_on)

    stream._delivered = Queue()
    for _ in range(2):
        stream.add(([1], np.zeros(1)), is_due=False)
    assert seen == [True, True] and not stream.goes_on


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_that_is_forked_while_streams_are_written_writes_texts_of_its_own():
    lm = scheduled(1)
    arguments = {"prompt": "bad cab\nde" * 10, "length": 40, "seed": 3}
    expected = alone(lm, arguments)
    inherited = stream_shared(lm, "a", FOREVER)
    assert next(inherited)

    def write():
        assert counts(lm) == [0]
        assert together(lm, arguments) == expected

    def read_on():
        with pytest.raises(RequestError, match="forked while this text was written.*ask for the text again"):
            list(inherited)

    fork = multiprocessing.get_context("fork")
    assert ends_well(fork.Process(target=write)) and ends_well(fork.Process(target=read_on))
    assert next(inherited)  # here it is written on
    inherited.close()


def test_a_slow_reader_delays_no_other_stream_and_gets_the_whole_text_later(workers_threads):
    lm = scheduled(1)
    slow, others = requests(lm, 1, longest=0)[0] | {"length": 3000}, requests(lm, 12, longest=60, seed=1)
    expected = [alone(lm, arguments) for arguments in (slow, *others)]
    stream = stream_shared(lm, **slow)
    begun = next(stream)
    futures = [on_a_thread(lambda arguments=arguments: together(lm, arguments)) for arguments in others]
    assert [future.result(WAIT) for future in futures] == expected[1:]
    await_end(workers_threads)  # symbols are written whether or not they are read
    assert counts(lm) == [0]
    assert begun + "".join(stream) == expected[0]


def test_a_prompt_is_read_once_by_the_thread_that_asks(monkeypatch):
    lm = scheduled(1)
    reads, prefill = [], Reader.prefill
    monkeypatch.setattr(Reader, "prefill", lambda self, ids: reads.append(ids[:, 0].tolist()) or prefill(self, ids))
    prompts = ["a cab", "bad\n", "한😀é"]
    for prompt in prompts:
        assert len(together(lm, {"prompt": prompt, "length": 40})) == 40
    assert reads == [[VOCAB.index(symbol) for symbol in prompt] for prompt in prompts]


# What goes wrong


def broken_outputs(lm, monkeypatch):
    """From now on until undone, the model's logits are not finite numbers."""
    monkeypatch.setattr("charlm.inference.engine.LARGEST_WEIGHT", math.inf)
    bias = np.full_like(lm._weights["head.bias"], math.inf)
    monkeypatch.setattr(lm.engine, "model", Engine(lm.config, lm._weights | {"head.bias": bias}).model)


def test_an_error_of_the_model_reaches_every_reader_and_the_next_stream_starts_afresh(closed_gate, workers_threads):
    lm = scheduled(1)
    arguments = {"prompt": "a cab", "length": 40, "seed": 3}
    expected = alone(lm, arguments)
    gate = closed_gate()
    futures = [on_a_thread(lambda: together(lm, arguments))]
    gate.await_workers(1)  # this one is being written
    gate.await_texts(1)
    futures += [on_a_thread(lambda: together(lm, arguments)) for _ in range(8)]
    gate.await_texts(8)  # these wait to join
    with pytest.MonkeyPatch.context() as monkeypatch:
        broken_outputs(lm, monkeypatch)
        gate.open()
        for future in futures:
            with pytest.raises(ModelFileError, match="outputs are not finite numbers.*use another model"):
                future.result(WAIT)
    await_end(workers_threads)
    assert counts(lm) == [0]
    assert together(lm, arguments) == expected


def test_an_error_in_a_step_reaches_streams_that_wait_to_join_too(closed_gate, workers_threads):
    lm = scheduled(1)
    arguments = {"prompt": "a cab", "length": 40, "seed": 3}
    expected = alone(lm, arguments)
    gate = closed_gate()
    futures = [on_a_thread(lambda: together(lm, arguments))]
    gate.await_workers(1)
    futures += [on_a_thread(lambda: together(lm, arguments)) for _ in range(8)]
    gate.await_texts(9)
    gate.error = MemoryError("no room")
    gate.open()
    errors = [future.exception(WAIT) for future in futures]
    assert [repr(error) for error in errors] == ["MemoryError('no room')"] * 9
    assert len(set(map(id, errors))) == 9  # each reader has a traceback of its own
    await_end(workers_threads)
    assert counts(lm) == [0]
    gate.error = None
    assert together(lm, arguments) == expected


def test_an_error_of_one_worker_does_not_reach_the_streams_of_others(monkeypatch):
    lm = scheduled(2)
    arguments = {"prompt": "a cab", "seed": 3}
    stream = stream_shared(lm, **arguments, length=2000)
    begun = next(stream)
    start_batch, broken = EngineBackend.start_batch, make_lm("lstm")
    broken_outputs(broken, monkeypatch)
    with monkeypatch.context() as patch:  # the first worker has its batch, and may write on meanwhile
        patch.setattr(EngineBackend, "start_batch", lambda _: start_batch(EngineBackend(broken.engine)))
        with pytest.raises(ModelFileError):
            together(lm, {"length": 5})
    assert begun + "".join(stream) == alone(lm, arguments | {"length": 2000})


def test_weights_that_are_too_large_are_reported_to_every_reader():
    lm = make_lm("rnn")
    lm._weights["head.weight"][:] = 3e38
    futures = [on_a_thread(lambda: together(lm, {"length": 5})) for _ in range(8)]
    for future in futures:
        with pytest.raises(ModelFileError, match="as after a training that diverged; use another model"):
            future.result(WAIT)


def test_a_prompt_that_cannot_be_read_fails_for_its_reader_alone():
    lm = scheduled(1)
    arguments = {"prompt": "a cab", "length": 2000, "seed": 3}
    stream = stream_shared(lm, **arguments)
    begun = next(stream)
    with pytest.raises(IndexError):
        next(lm._scheduler.write(np.array([len(VOCAB)]), 5, make_sampler()))
    assert begun + "".join(stream) == alone(lm, arguments)


def test_after_a_thread_could_not_be_started_the_next_text_starts_one(monkeypatch):
    class NoThread(Thread):
        def start(self):
            raise RuntimeError("can't start new thread")

    lm = scheduled(1)
    with monkeypatch.context() as patch:
        patch.setattr("charlm.inference.batching.Thread", NoThread)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            together(lm, {"length": 5})
    assert counts(lm) == [0]
    arguments = {"prompt": "a cab", "length": 40, "seed": 3}
    assert together(lm, arguments) == alone(lm, arguments)


# Forced symbols


def pieces_of(lm, length, settings, forced, prompt="a cab"):
    ids = lm.vocab.encode(prompt)
    pieces = list(lm._scheduler.write(ids, length, make_sampler(**settings), forced))
    return [id for ids, _ in pieces for id in ids], np.concatenate([costs for _, costs in pieces])


@pytest.mark.parametrize("forced", [{0: 3}, {39: 2}, {5: 1, 6: 4, 7: 1}, {0: 5, 20: 0, 39: 6}, {17: 2, 99: 1, -3: 4}])
def test_a_forced_symbol_stands_in_its_place_and_the_text_goes_on_with_the_same_random_numbers(forced):
    lm, settings = scheduled(1), {"temperature": 1.2, "top_p": 0.95, "seed": 5}
    written, costs = pieces_of(lm, 40, settings, forced)
    sampler, reader = make_sampler(**settings), Reader(lm.engine)
    logits = reader.read(lm.vocab.encode("a cab")[:, None])[-1]
    for place, (id, cost) in enumerate(zip(written, costs, strict=True)):
        drawn = sampler.draw(logits[0])
        assert id == forced.get(place, drawn)
        exact = logits[0].astype(float)
        assert cost == pytest.approx(np.log(np.exp(exact - exact[id]).sum()), abs=1e-5)
        logits = read_next(reader, [id])


def test_forced_symbols_of_one_stream_change_no_other(closed_gate):
    lm, forced = scheduled(1), {10: 1, 30: 2, 59: 3}
    asked = [(60, {"temperature": 1.0, "seed": seed}, None) for seed in range(3)]
    asked.append((60, {"temperature": 1.0, "seed": 1}, forced))
    expected = [pieces_of(lm, *each)[0] for each in asked]
    gate = closed_gate()
    futures = [on_a_thread(lambda each=each: pieces_of(lm, *each)[0]) for each in asked]
    gate.await_texts(4)
    gate.open()
    assert [future.result(WAIT) for future in futures] == expected
    assert [expected[3][place] for place in forced] == [1, 2, 3] and expected[3][:10] == expected[1][:10]


ENDING = """
import sys, threading
from charlm.inference.batching import BatchScheduler, EngineBackend
from models import make_lm, make_sampler

class Batch:
    def __init__(self, batch):
        self.batch, self.join, self.write = batch, batch.join, batch.write

    def keep(self, slots):
        if slots:
            return self.batch.keep(slots)
        threading.main_thread().join()  # the text is delivered, and nothing is left to do but this
        sum(range(10**7))
        print("ended", flush=True)

class Backend(EngineBackend):
    def start_batch(self):
        return Batch(super().start_batch())

    def most_workers(self):
        return 1

lm = make_lm()
list(BatchScheduler(Backend(lm.engine)).write(lm.vocab.encode("a cab"), 5, make_sampler(seed=1)))
"""


def test_the_process_ends_after_the_threads_that_compute(tmp_path):
    """A thread that is still inside torch when the interpreter ends aborts the process."""
    (tmp_path / "script.py").write_text(ENDING, encoding="utf-8")
    paths = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"],
        capture_output=True,
        text=True,
        timeout=WAIT,
        env=os.environ | {"PYTHONPATH": paths},
    )
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr
