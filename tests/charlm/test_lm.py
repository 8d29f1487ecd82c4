import contextlib
import copy
import itertools
import json
import math
import os
import pickle
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import (
    VOCAB,
    contents,
    count_symbols,
    keep_epochs,
    laws,
    make_config,
    make_lm,
    make_model,
    make_weights,
    save,
    stream_shared,
    uniform_lm,
    unpack_safetensors,
)
from reference import load_plain, log_softmax, plain_logits, sampling_distribution

from charlm import CharLM
from charlm.errors import CharLMError, ModelFileError, RequestError, VocabError
from charlm.inference.batching import (
    MEASURED_LENGTH,
    MEASURED_ROUNDS,
    MEASURED_STREAMS,
    BatchScheduler,
    EngineBackend,
    measure_chars_per_second,
)
from charlm.inference.engine import Engine, Reader
from charlm.inference.prefixes import BLOCK, PrefixCache
from charlm.inference.sampling import SamplingSettings
from charlm.model.card import model_card
from charlm.model.cells import CELLS
from charlm.model.folder import Model
from charlm.model.history import bits_per_char
from charlm.model.network import Network

ROOT = Path(__file__).parents[2]
SETTINGS = [
    {},
    {"temperature": 1.0},
    {"temperature": 2.5, "top_k": 4},
    {"temperature": 0.7, "top_p": 0.8},
    {"temperature": 1.3, "top_k": 6, "top_p": 0.9},
]
PROMPTS = ["", "\n", "a", "bad cab\nde", "한😀é"]
TEXT = "a bad cab\né한😀 dead\n\nbee"

texts = st.text(st.sampled_from(VOCAB), max_size=12)


@pytest.fixture(scope="module")
def lms():
    return {cell: make_lm(cell) for cell in CELLS}


@pytest.fixture
def lm(lms):
    return lms["lstm"]


pytestmark = pytest.mark.usefixtures("small_steps")


def with_twin(cell, tmp_path):
    """A model of a folder, and the same folder read by plain torch."""
    folder = save(make_model(cell), tmp_path / "model")
    return CharLM.from_pretrained(folder, device="cpu"), *load_plain(folder)


def ids_of(text, vocab=VOCAB):
    return [vocab.index(symbol) for symbol in text]


def continue_plainly(plain, vocab, prompt, length, choose):
    """What plain torch writes after a prompt. choose: from logits (V,) to the next symbol's id."""
    text = ""
    logits, state = plain(torch.tensor(ids_of(prompt or "\n", vocab)))
    for _ in range(length):
        symbol = choose(logits[-1].numpy())
        text += vocab[symbol]
        logits, state = plain(torch.tensor([symbol]), state)
    return text


def written(lm, *arguments, **settings):
    """The text that a model writes alone, and in a batch."""
    return lm.generate(*arguments, **settings), "".join(stream_shared(lm, *arguments, **settings))


def as_on_a_gpu(lm):
    """The model as it runs on a GPU, but for the device itself."""
    lm = CharLM(lm.config, lm._weights, lm.history, device="cpu")
    lm.network = Network.from_weights(lm.config, lm._weights)
    lm.device = "cuda"
    return lm


# What it writes


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_the_pieces_of_a_stream_make_the_text_that_generate_returns(lms, cell, settings):
    for seed in (0, 7, 2**40):
        pieces = list(lms[cell].stream("a cab", 60, seed=seed, **settings))
        assert [len(piece) for piece in pieces] == [1] * 60
        assert "".join(pieces) == lms[cell].generate("a cab", 60, seed=seed, **settings)


def test_what_is_written_can_be_read_before_all_is():
    lm = make_lm()
    for write in (lm.stream, partial(stream_shared, lm)):
        stream = write("a cab", 10**9, seed=7)
        begun = next(stream) + next(stream)
        del stream
        assert len(begun) >= 2 and begun == lm.generate("a cab", len(begun), seed=7)


@laws
@given(texts, st.integers(0, 2**64), st.integers(0, 20))
def test_a_shorter_text_of_the_same_seed_is_the_beginning_of_a_longer_one(lms, prompt, seed, length):
    text = lms["gru"].generate(prompt, 20, seed=seed)
    assert len(text) == 20
    assert lms["gru"].generate(prompt, length, seed=seed) == text[:length]


def test_other_seeds_give_other_texts(lm):
    assert len({lm.generate("a", 40, 1.0, seed=seed) for seed in range(20)}) == 20


def test_without_a_seed_every_text_is_drawn_afresh(lm):
    # at this temperature there are far too many likely texts for one to come twice
    assert len({lm.generate("a", 80, 2.0) for _ in range(20)}) == 20


@pytest.mark.slow
@pytest.mark.parametrize("prompt", PROMPTS, ids=ascii)
@pytest.mark.parametrize("cell", CELLS)
def test_temperature_0_takes_the_likeliest_at_every_step(tmp_path, cell, prompt):
    lm, plain, vocab = with_twin(cell, tmp_path)
    text = continue_plainly(plain, vocab, prompt, 40, np.argmax)
    assert written(lm, prompt, 40, temperature=0, seed=1) == (text, text)
    assert written(lm, prompt, 40, temperature=0, seed=2) == written(lm, prompt, 40, temperature=0) == (text, text)


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS[1:], ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_each_character_is_the_one_that_the_seeds_next_number_picks(tmp_path, cell, settings):
    """Inverse transform sampling, done over with plain torch, the naive filter and numpy's own generator."""
    lm, plain, vocab = with_twin(cell, tmp_path)
    for prompt in PROMPTS:
        random = np.random.Generator(np.random.PCG64(11))

        def draw(logits, random=random):
            distribution = sampling_distribution(logits.tolist(), **settings)
            u, reached = random.random(), itertools.accumulate(distribution)
            drawn = next(symbol for symbol, total in enumerate(reached) if u < total)
            assert distribution[drawn] > 0
            return drawn

        text = continue_plainly(plain, vocab, prompt, 30, draw)
        assert written(lm, prompt, 30, seed=11, **settings) == (text, text)


@pytest.mark.parametrize("length", [0, 1, 2, 30])
@pytest.mark.parametrize("cell", CELLS)
def test_the_prompt_is_read_once_and_then_each_symbol_but_the_last(lms, monkeypatch, cell, length):
    prompts, symbols, written = [], [], []
    prefill, advance, write = Reader.prefill, Reader.advance, Reader.write
    monkeypatch.setattr("charlm.inference.batching.CALL_SECONDS", 0)  # a symbol in each call of the engine
    monkeypatch.setattr(Reader, "prefill", lambda self, ids: prompts.append(ids[:, 0].tolist()) or prefill(self, ids))
    monkeypatch.setattr(Reader, "advance", lambda self, ids: symbols.extend(ids) or advance(self, ids))
    monkeypatch.setattr(Reader, "write", lambda self, steps, _: written.append(steps) or write(self, steps, _))
    text = lms[cell].generate("a cab", length, seed=2)
    assert len(text) == sum(written) == length
    assert prompts == [ids_of("a cab")] * (length > 0)
    assert symbols == ids_of(text[:-1])


@pytest.mark.parametrize("cell", CELLS)
def test_logits_are_those_of_torch_behind_the_prompt_and_what_was_written(tmp_path, cell):
    lm = make_lm(cell)
    lm.save_pretrained(tmp_path)
    plain, vocab = load_plain(tmp_path)
    text = "a bad cab\n" * 20
    for prompt, place in (("bad", 0), ("", 7), ("cab\n", 199)):
        ids = [vocab.index(symbol) for symbol in (prompt or "\n") + text[:place]]
        np.testing.assert_allclose(lm.logits(prompt, text[:place]), plain_logits(plain, ids)[-1], atol=1e-4)


def test_logits_behind_symbols_that_the_model_does_not_know_or_of_a_model_that_diverged_are_refused(lm):
    with pytest.raises(VocabError, match="'x'"):
        lm.logits("a", "ax")
    model = make_model()
    model.weights["head.weight"][:] = 3e38
    with pytest.raises(ModelFileError, match="use another model"):
        CharLM(model.config, model.weights, device="cpu").logits("a")


def test_forced_symbols_stand_in_their_places_and_what_was_written_before_is_kept(lm):
    settings, forced = SamplingSettings(1.0, seed=4), {3: "é", 30: "한"}

    def written(length, **more):
        return "".join(text for text, _ in lm.stream_scored("a", length, settings, **more))

    whole = written(50, forced=forced)
    assert (whole[3], whole[30]) == ("é", "한") and whole[:3] == written(50)[:3]
    assert whole[31:] == written(19, after=whole[:31])  # the random numbers of forced places are used up
    assert whole[20:] == written(30, after=whole[:20], forced=forced)
    with pytest.raises(VocabError, match="'x'"):
        written(5, forced={2: "x"})


@pytest.mark.parametrize(
    ("forced", "message"),
    [
        ({2: ""}, "forced has '' at place 2; give one character for each place"),
        ({2: "ab"}, "forced has 'ab' at place 2; give one character"),
        ({2: 5}, "forced has 5 at place 2; give one character"),
        ({"0": "a"}, "a place in forced is '0'; it must be a whole number"),
        ({-1: "a"}, "a place in forced is -1; it must be from 0"),
    ],
)
def test_what_cannot_be_forced_is_refused_at_the_call(lm, forced, message):
    with pytest.raises(RequestError, match=message):
        lm.stream_scored("a", 5, SamplingSettings(1.0, seed=4), forced=forced)


def test_an_empty_prompt_starts_a_new_line(lm):
    for seed in range(5):
        assert lm.generate("", 30, seed=seed) == lm.generate("\n", 30, seed=seed)


def test_an_empty_prompt_starts_with_the_first_symbol_where_there_are_no_lines():
    lm = make_lm("gru", vocab="xyz")
    assert lm.generate("", 30, seed=3) == lm.generate("x", 30, seed=3)


@pytest.mark.parametrize("prompt", PROMPTS, ids=ascii)
def test_no_characters_are_an_empty_text(lm, prompt):
    assert lm.generate(prompt, 0) == ""
    assert list(lm.stream(prompt, 0)) == list(stream_shared(lm, prompt, 0)) == []


def test_500_characters_are_written_unless_told_otherwise(lm):
    assert lm.generate(seed=7) == lm.generate("", 500, 0.8, 0, 1.0, 7)
    assert len(lm.generate(seed=7)) == 500


@pytest.mark.parametrize("cell", CELLS)
def test_a_model_of_one_symbol_writes_it(cell):
    assert make_lm(cell, vocab="z").generate("", 5) == "zzzzz"


def test_unknown_symbols_of_a_prompt_are_skipped_with_one_warning_that_names_each_once(lm):
    for write in (lm.generate, lm.stream, partial(stream_shared, lm)):
        with pytest.warns(UserWarning, match="skipped") as caught:
            text = "".join(write("€a cXXab€", 40, seed=5))
        assert [str(warning.message) for warning in caught] == [
            "the prompt's '€X' was skipped: the model does not know it"
        ]
        assert text == lm.generate("a cab", 40, seed=5)


def test_a_prompt_of_nothing_but_unknown_symbols_starts_a_new_line(lm):
    with pytest.warns(UserWarning, match="the prompt's 'XYZ' was skipped"):
        assert lm.generate("XYZ", 40, seed=5) == lm.generate("\n", 40, seed=5)


def test_half_of_a_surrogate_pair_is_one_more_unknown_symbol(lm):
    with pytest.warns(UserWarning, match=re.escape(r"the prompt's '\ud83d' was skipped")):
        assert lm.generate("a\ud83d", 40, seed=5) == lm.generate("a", 40, seed=5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": -1}, "length is -1; it must be from 0"),
        ({"length": 1.5}, "length is 1.5; it must be a whole number"),
        ({"length": "5"}, "length is '5'; it must be a whole number"),
        ({"length": None}, "length is None; it must be a whole number"),
        ({"temperature": -0.1}, "temperature is -0.1; it must be a finite number from 0"),
        ({"temperature": math.nan}, "temperature is nan; it must be a finite number from 0"),
        ({"temperature": math.inf}, "temperature is inf; it must be a finite number from 0"),
        ({"temperature": "1"}, "temperature is '1'; it must be a number"),
        ({"top_k": -1}, "top_k is -1; it must be from 0"),
        ({"top_k": 2.5}, "top_k is 2.5; it must be a whole number"),
        ({"top_p": 1.01}, "top_p is 1.01; it must be from 0 to 1"),
        ({"top_p": -0.01}, "top_p is -0.01; it must be from 0 to 1"),
        ({"seed": -1}, "seed is -1; it must be from 0"),
        ({"seed": "x"}, "seed is 'x'; it must be a whole number"),
        ({"seed": True}, "seed is True; it must be a whole number"),
        ({"prompt": None}, "prompt is None; it must be a string"),
        ({"prompt": b"a"}, "prompt is b'a'; it must be a string"),
        ({"stop": ["a", ""]}, "stop has ''; each stop string must be a string of at least one character"),
        ({"stop": 5}, "stop is 5; it must be a string or a list of strings"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_refused_at_the_call(lm, arguments, message):
    # the stream is not even begun
    for method in (lm.stream, partial(stream_shared, lm), lm.generate, lm.generate_many):
        with pytest.raises(RequestError, match=re.escape(message)):
            method(**arguments)


SEEN = make_lm().inspect("a bad cab")
SAMPLES = partial(CharLM.save_pretrained, folder="never made")
SCORED = partial(partial, CharLM.stream_scored, prompt="a", length=3, settings=SamplingSettings(seed=0))


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (partial(CharLM.find_pattern, seen=SEEN, start=0, end=3, seconds="x"), "seconds is 'x'; it must be a number"),
        (
            partial(CharLM.find_pattern, seen=SEEN, start=0, end=3, seconds=-1),
            "seconds is -1.0; it must be a number from",
        ),
        (partial(CharLM.find_pattern, seen=SEEN, start=0, end=3, seconds=math.nan), "seconds is nan; it must be"),
        (partial(CharLM.find_pattern, seen="a bad cab", start=0, end=3), "seen is 'a bad cab'; give what `inspect`"),
        (partial(CharLM.unit_gates, seen="a bad cab", layer=0, unit=0), "seen is 'a bad cab'; give what `inspect`"),
        (partial(CharLM.influence_at, seen=None, place=1, farthest=1), "seen is None; give what `inspect` returned"),
        (partial(SAMPLES, samples={"a": "b"}), "a temperature in samples is 'a'; it must be a number"),
        (partial(SAMPLES, samples={-1: "b"}), "a temperature in samples is -1.0; it must be a finite number from 0"),
        (partial(SAMPLES, samples={0.5: 3}), "a text in samples is 3; it must be a string"),
        (partial(SAMPLES, samples={0.5: "a\ud800"}), "with half of a surrogate pair; leave that out"),
        (partial(SAMPLES, samples=["a"]), "samples are ['a']; give a dict of texts by temperature, as {0.5: 'a text'}"),
        (partial(CharLM.score_ids, pieces=3), "pieces are 3; give a list of arrays of ids"),
        (
            partial(CharLM.stream_scored, prompt="a", length=3, settings=None),
            "settings are None; give SamplingSettings",
        ),
        (SCORED(forced=[1]), "forced is [1]; give a dict of one character for each place, as {0: 'a'}"),
        (SCORED(forced="ab"), "forced is 'ab'; give a dict of one character"),
        (SCORED(forced=0), "forced is 0; give a dict of one character"),
    ],
)
def test_what_is_no_argument_of_a_method_is_refused_with_what_would_be(lm, tmp_path, monkeypatch, use, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=re.escape(message)):
        use(lm)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kernels", ["auto", "numpy"])
@pytest.mark.parametrize(
    ("piece", "message"),
    [
        (np.array([1, 99999]), "99999 is none of this model's ids, which are from 0 to 9"),
        (np.array([1, -1]), "-1 is none of this model's ids, which are from 0 to 9"),
        (np.array([1, 11], np.uint8), "11 is none of this model's ids"),
        (np.array([1.0, 2.0]), "give an array of whole numbers in one dimension, as Vocab.encode returns it"),
        (np.array([[1, 2]]), "give an array of whole numbers in one dimension"),
        ([[1], [1, 2]], "give an array of whole numbers in one dimension"),
        ("ab", "ids are 'ab'; give an array of whole numbers"),
        (torch.empty(2, dtype=torch.int64, device="meta"), "give an array of whole numbers"),  # as one on a GPU
    ],
    ids=ascii,
)
def test_numbers_that_are_no_ids_are_not_scored_as_other_ids(monkeypatch, kernels, piece, message):
    monkeypatch.setenv("CHARLM_KERNELS", kernels)
    model = make_lm()
    for scores in (model.score_ids([piece]), as_on_a_gpu(model).score_ids([piece])):
        with pytest.raises(RequestError, match=re.escape(message)):
            list(scores)
    with pytest.raises(RequestError, match=re.escape(message)):
        model.vocab.decode(piece)


def test_ids_of_any_kind_of_whole_numbers_are_scored_as_the_text_is(lm):
    for kind in (np.uint8, np.int32, np.uint64, list):
        pieces = [ids_of("a ba"), [], ids_of("d cab")]
        scored = np.concatenate(list(lm.score_ids(pieces if kind is list else [np.array(one, kind) for one in pieces])))
        assert scored.tolist() == lm.score("a bad cab").tolist()


# Stop strings, and several texts at once


def first_found(text, *stops):
    """The text before the first of its stop strings; none of them overlap."""
    return min((text.partition(stop)[0] for stop in stops), key=len)


@pytest.mark.parametrize("stops", [["a"], ["ab"], ["\n", "😀"], ["cab", "é한"], ["e" * 9]], ids=ascii)
def test_a_text_ends_before_its_stop_string_streamed_or_not_alone_or_in_a_batch(lm, stops):
    ended = 0
    for seed in range(5):
        whole = lm.generate("bad", 80, 1.5, seed=seed)
        text = first_found(whole, *stops)
        ended += text != whole
        for stop in (stops, tuple(stops), *stops[: len(stops) == 1]):
            assert written(lm, "bad", 80, 1.5, seed=seed, stop=stop) == (text, text)
    assert ended > 0 or stops == ["e" * 9]


def test_no_stop_strings_are_none(lm):
    for stop in (None, [], ()):
        assert written(lm, "bad", 60, seed=3, stop=stop) == (lm.generate("bad", 60, seed=3),) * 2


def test_the_surprisals_of_a_text_that_a_stop_string_ends_are_those_of_its_characters(lm):
    whole = lm.generate("bad", 80, 1.5, seed=1)
    stop = whole[40:43]
    pieces = list(lm.stream_scored("bad", 80, SamplingSettings(1.5, seed=1), stop=stop))
    text = "".join(piece for piece, _ in pieces)
    assert text == whole.partition(stop)[0]
    costs = np.concatenate([costs for _, costs in pieces])
    np.testing.assert_allclose(costs, lm.score("bad" + text)[2:], atol=1e-5)


def test_a_text_that_was_ended_goes_on_behind_its_stop_string(lm):
    whole = lm.generate("bad", 80, 1.5, seed=1)
    begun = whole.partition(whole[40:43])[0] + whole[40:43]
    rest = stream_shared(lm, "bad", 80 - len(begun), 1.5, seed=1, after=begun, stop=["e" * 9])
    assert begun + "".join(rest) == whole


def test_the_stop_string_ends_a_stream_for_the_others_in_its_batch_to_go_on(scheduler_threads):
    lm = make_lm()
    stream = stream_shared(lm, "a cab", 10**9, seed=7, stop="a")
    assert "".join(stream) == first_found(lm.generate("a cab", 2000, seed=7), "a")
    for thread in scheduler_threads:
        thread.join(60)  # a worker ends when nobody is left
        assert not thread.is_alive()


@pytest.mark.filterwarnings("ignore:no text ends")
def test_a_stop_string_that_the_model_cannot_write_is_named_once(lm):
    for write in (lm.generate, lm.stream, partial(stream_shared, lm), partial(lm.generate_many, num_samples=3)):
        with pytest.warns(UserWarning, match="no text ends") as caught:
            write(prompt="a", length=30, seed=5, stop=["a€b€", "b"])
        assert [str(warning.message) for warning in caught] == [
            "no text ends at the stop string 'a€b€': the model does not know '€'"
        ]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_each_of_several_texts_can_be_had_alone_with_its_seed(lms, cell, settings):
    lm = lms[cell]
    samples = lm.generate_many("a cab", 9, 60, seed=7, stop=["dad", "\n"], **settings)
    assert [sample.seed for sample in samples] == list(range(7, 16))
    for sample in samples:
        alone = lm.generate("a cab", 60, seed=sample.seed, stop=["dad", "\n"], **settings)
        assert sample.text == alone == first_found(alone, "dad", "\n")
        if sample.text:
            bits = lm.score("a cab" + sample.text)[4:].mean() / math.log(2)
            assert sample.bits_per_char == pytest.approx(bits, abs=1e-5)
        else:
            assert sample.bits_per_char is None


@pytest.mark.slow
def test_several_texts_are_written_at_the_same_time(monkeypatch):
    lm, most, join = make_lm(), 0, BatchScheduler.write

    def write(self, *arguments):
        nonlocal most
        for piece in join(self, *arguments):
            most = max(most, len(self))
            yield piece

    monkeypatch.setattr(BatchScheduler, "write", write)
    monkeypatch.setattr("charlm.inference.batching.CALL_SECONDS", 0)  # a symbol in each call
    assert len(lm.generate_many("a", 16, 3000, seed=1)) == 16
    assert most >= 8  # some may have ended before the last began


def test_one_text_is_written_unless_told_otherwise_and_none_may_be_asked_for(lm):
    (sample,) = lm.generate_many("a cab", seed=5)
    assert sample.text == lm.generate("a cab", seed=5)
    for number in (0, -1, 1.5, "3", None, True):
        with pytest.raises(RequestError, match="num_samples is "):
            lm.generate_many("a", number)


def test_without_a_seed_one_is_drawn_and_the_others_follow_from_it(lm):
    seeds = [sample.seed for sample in lm.generate_many("a", 4, 5)]
    assert seeds == [seeds[0] + number for number in range(4)]
    assert seeds != [sample.seed for sample in lm.generate_many("a", 4, 5)]


def test_samples_of_no_characters_have_no_bits(lm):
    assert [(sample.text, sample.bits_per_char) for sample in lm.generate_many("a", 2, 0)] == [("", None)] * 2


def test_unknown_symbols_are_named_once_for_all_texts(lm):
    with pytest.warns(UserWarning, match="skipped") as caught:
        samples = lm.generate_many("a €cab", 5, 20, seed=5)
    assert len(caught) == 1
    assert samples == lm.generate_many("a cab", 5, 20, seed=5)


# What it thinks of a text


@pytest.mark.parametrize("cell", CELLS)
def test_the_surprisals_are_those_of_plain_torch(tmp_path, cell):
    lm, plain, _ = with_twin(cell, tmp_path)
    ids = ids_of(TEXT)
    log_probs = log_softmax(plain_logits(plain, ids))
    expected = [-log_probs[place, symbol] for place, symbol in enumerate(ids[1:])]
    surprisals = lm.score(TEXT)
    assert surprisals.shape == (len(TEXT) - 1,) and surprisals.dtype == np.float64
    # float32 against float64, over some thirty steps and two layers
    np.testing.assert_allclose(surprisals, expected, atol=1e-4)


@pytest.mark.slow
@laws
@given(texts)
def test_all_texts_of_one_more_symbol_share_a_probability_of_1(lms, text):
    text = "\n" + text
    for lm in lms.values():
        chances = [math.exp(-lm.score(text + symbol)[-1]) for symbol in VOCAB]
        assert math.fsum(chances) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("vocab", ["ab", "abcd", VOCAB, "".join(map(chr, range(0x4E00, 0x4E00 + 1000)))], ids=len)
def test_equally_likely_symbols_cost_the_logarithm_of_their_number(vocab):
    surprisals = uniform_lm(vocab).score(vocab * 2)
    assert surprisals == pytest.approx(np.full(2 * len(vocab) - 1, math.log(len(vocab))), rel=1e-6)


def test_four_equally_likely_symbols_cost_two_bits_each():
    assert bits_per_char(uniform_lm("abcd").score("abba").mean()) == pytest.approx(2)


@pytest.mark.parametrize(("nats", "bits"), [(0.0, 0), (0.6931471805599453, 1), (1.5, 2.16404256), (-1.0, -1.44269504)])
def test_nats_in_bits_worked_by_hand(nats, bits):
    assert bits_per_char(nats) == pytest.approx(bits)


@pytest.mark.parametrize("text", ["", "a", "😀"], ids=ascii)
def test_a_text_in_which_nothing_is_predicted_has_no_surprisals(lm, text):
    surprisals = lm.score(text)
    assert surprisals.shape == (0,) and surprisals.dtype == np.float64


@pytest.mark.parametrize("text", ["a€", "€a", "€"])
def test_a_text_to_be_scored_may_hold_no_unknown_symbol(lm, text):
    place = text.index("€") + 1
    with pytest.raises(VocabError, match=re.escape(f"'€' (character {place}) is not among this model's 10 symbols")):
        lm.score(text)


@pytest.mark.parametrize("value", [None, 5, b"ab", ["a", "b"]])
def test_only_a_string_can_be_scored(lm, value):
    with pytest.raises(RequestError, match="text is .*; it must be a string"):
        lm.score(value)


def test_the_likeliest_continuation_surprises_less_than_any_other_symbol(lm):
    likeliest = lm.generate(TEXT, 1, temperature=0)
    last = {symbol: lm.score(TEXT + symbol)[-1] for symbol in VOCAB}
    assert min(last, key=last.get) == likeliest


# Long texts, many readers


@pytest.mark.parametrize("rows_at_once", [1, 2, 7, 2 * len(TEXT) - 2, 2 * len(TEXT), 2 * len(TEXT) + 2])
@pytest.mark.parametrize("cell", CELLS)
def test_a_text_read_in_parts_has_the_same_scores(lms, monkeypatch, cell, rows_at_once):
    surprisals = lms[cell].score(TEXT)
    monkeypatch.setattr("charlm.inference.engine.ROWS_PER_READ", rows_at_once)
    assert np.array_equal(lms[cell].score(TEXT), surprisals)


def remembering_lm():
    """A model of one unit that stays for ever where an `a` or a `b` last put it, and if none did, where `b` would."""
    config = make_config("rnn", "abcd", embedding_size=1, hidden_size=1, num_layers=1)
    weights = {
        "embedding.weight": [[9], [-9], [-0.05], [-0.02]],
        "recurrent.weight_ih_l0": [[1]],
        "recurrent.weight_hh_l0": [[3]],
        "recurrent.bias_ih_l0": [0],
        "recurrent.bias_hh_l0": [0],
        "head.weight": [[0], [0], [2], [-2]],
        "head.bias": [-3, -3, 0, 0],
    }
    return CharLM(config, {name: np.array(array, np.float32) for name, array in weights.items()}, device="cpu")


def forgetting_lm(cell):
    # in a chaotic network rounding would grow into differences
    config = make_config(cell)
    return CharLM(config, make_weights(config, scale=0.25), device="cpu")


def random_text(vocab, length, seed=0):
    return "".join(np.random.default_rng(seed).choice(list(vocab), length))


def plain_surprisals(lm, text, tmp_path):
    """The surprisals by plain torch, which reads the text from its beginning to its end."""
    plain, vocab = load_plain(save(Model(lm.config, lm._weights, None), tmp_path / "plain"))
    ids = ids_of(text, vocab)
    return -log_softmax(plain_logits(plain, ids[:-1]))[np.arange(len(ids) - 1), ids[1:]]


@pytest.mark.slow
@pytest.mark.parametrize("length", [2047, 2048, 2049, 2050, 7000])
@pytest.mark.parametrize("cell", CELLS)
def test_a_text_longer_than_a_stretch_is_scored_as_read_from_its_beginning(tmp_path, cell, length):
    lm, text = forgetting_lm(cell), random_text(VOCAB, length)
    np.testing.assert_allclose(lm.score(text), plain_surprisals(lm, text, tmp_path), atol=2e-4)


def test_what_a_model_does_not_forget_counts_to_the_end_of_the_text(tmp_path):
    lm = remembering_lm()
    parts = [random_text("cd", length, seed=length) for length in (3000, 2500, 4000)]
    text = "a" + parts[0] + "b" + parts[1] + "a" + parts[2]
    surprisals = lm.score(text)
    np.testing.assert_allclose(surprisals, plain_surprisals(lm, text, tmp_path), atol=2e-4)
    assert abs(surprisals[-100:] - lm.score(text[-101:])).max() > 1  # the same without the beginning


def cut(ids, sizes):
    """The ids in pieces of these sizes, again and again."""
    places = itertools.accumulate(itertools.cycle(sizes))
    return np.split(ids, list(itertools.takewhile(lambda place: place < len(ids), places)))


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [[1], [0, 1, 0, 0, 2], [1500, 0], [64, 1, 1], [10**6]], ids=str)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_text_may_be_scored_in_pieces_of_any_size(tmp_path, monkeypatch, cell, device, sizes):
    # so that a block has 2 × 16 × 40 or 32 × 40 symbols at most
    monkeypatch.setattr("charlm.inference.scoring.EngineReader.longest_stretch", 40)
    monkeypatch.setattr("charlm.inference.gpu.NetworkReader.longest_stretch", 40)
    monkeypatch.setattr("charlm.inference.scoring.SHORTEST_STRETCH", 30)
    monkeypatch.setattr("charlm.inference.scoring.EngineReader.long_stretch", 30)
    monkeypatch.setattr("charlm.inference.scoring.MOST_STRETCHES_PER_THREAD", 16)
    monkeypatch.setattr("charlm.inference.scoring.count_scoring_threads", lambda: 2)
    lm, text = forgetting_lm(cell), random_text(VOCAB, 3000)
    model = lm if device == "cpu" else as_on_a_gpu(lm)
    parts = list(model.score_ids(iter(cut(lm.vocab.encode(text), sizes))))
    assert len(parts) > 1 and all(part.dtype == np.float64 for part in parts)
    np.testing.assert_allclose(np.concatenate(parts), plain_surprisals(lm, text, tmp_path), atol=2e-4)


@pytest.mark.slow
@laws
@given(texts, st.lists(st.integers(0, 12), max_size=6))
def test_the_surprisals_of_pieces_are_those_of_the_whole(lms, text, cuts):
    for lm in lms.values():
        pieces = np.split(lm.vocab.encode(text), sorted(cuts))
        for parts in (lm.score_ids(pieces), lm._score_on_gpu(pieces)):
            surprisals = np.concatenate([np.zeros(0), *parts])
            assert surprisals.shape == (max(0, len(text) - 1),)
            np.testing.assert_allclose(surprisals, lm.score(text), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_text_without_end_is_scored_as_it_comes(monkeypatch, device):
    monkeypatch.setattr("charlm.inference.scoring.EngineReader.longest_stretch", 40)
    monkeypatch.setattr("charlm.inference.gpu.NetworkReader.longest_stretch", 40)
    lm = forgetting_lm("gru")
    model = lm if device == "cpu" else as_on_a_gpu(lm)
    text, scored = "", np.zeros(0)

    def pieces():
        nonlocal text
        for seed in itertools.count():
            text += random_text(VOCAB, 500, seed)
            yield lm.vocab.encode(text[-500:])

    parts = model.score_ids(pieces())
    while len(scored) < 3000:
        scored = np.concatenate([scored, next(parts)])
    parts.close()
    np.testing.assert_allclose(scored, lm.score(text)[: len(scored)], atol=2e-4)


# On which device


def test_without_cuda_a_model_runs_on_the_cpu(monkeypatch):
    monkeypatch.setattr("charlm.lm.has_cuda", lambda: False)
    model = make_model()
    assert CharLM(model.config, model.weights).device == "cpu"


@pytest.mark.slow
@pytest.mark.parametrize(("on_cuda", "faster"), [(1.001, "cuda"), (0.999, "cpu")])
@pytest.mark.parametrize("cell", CELLS)
def test_with_cuda_a_model_runs_on_what_writes_a_batch_of_streams_the_faster(
    monkeypatch, tmp_path, cell, on_cuda, faster
):
    model, measured = make_model(cell), []
    folder = save(model, tmp_path / "model")

    def measure(backend):
        """Nothing runs on CUDA here."""
        if isinstance(backend, EngineBackend):
            return 1.0
        measured.append(backend.network)
        return on_cuda

    monkeypatch.setattr("charlm.lm.measure_chars_per_second", measure)
    monkeypatch.setattr("charlm.lm.has_cuda", lambda: True)
    monkeypatch.setattr(Network, "from_weights", lambda config, weights, device: (config, device))
    lm = CharLM(model.config, model.weights)
    assert (lm.device, measured) == (faster, [(model.config, "cuda")])
    assert repr(lm).endswith(f"on {faster}>")
    measured.clear()
    loaded = CharLM.from_pretrained(folder)
    assert (loaded.device, measured) == (faster, [(model.config, "cuda")])


def test_a_saved_model_names_the_weights_of_those_epochs_that_its_folder_has(tmp_path):
    folder = save(make_model(), tmp_path / "model")
    keep_epochs(folder, 1, 3)
    lm = CharLM.from_pretrained(folder, device="cpu")
    lm.save_pretrained(tmp_path / "copy")
    assert "epoch=" not in (tmp_path / "copy" / "README.md").read_text("utf-8")
    with pytest.raises(RequestError, match="has not kept the weights of epoch 1"):
        CharLM.from_pretrained(tmp_path / "copy", epoch=1)
    (folder / "epochs" / "0001.safetensors").write_bytes(b"of another model")
    lm.save_pretrained(folder)
    assert CharLM.from_pretrained(folder, epoch=3, device="cpu").history["best"]["epoch"] == 3
    with pytest.raises(RequestError, match="choose one of 3"):
        CharLM.from_pretrained(folder, epoch=1)


def test_a_warning_names_the_line_that_asked(tmp_path):
    lm = make_lm()
    for write in (lm.generate, lm.stream, lm.generate_many):
        with pytest.warns(UserWarning, match="skipped") as caught:
            write("x", length=1)
        assert [each.filename for each in caught] == [__file__]


@pytest.mark.parametrize("epoch", [1.0, np.int64(1)])
def test_any_whole_number_names_an_epoch(tmp_path, epoch):
    folder = save(make_model(), tmp_path / "model")
    keep_epochs(folder, 1)
    history = CharLM.from_pretrained(folder, epoch=epoch, device="cpu").history
    assert json.loads(json.dumps(history["best"]))["epoch"] == 1


def test_a_revision_that_is_no_string_is_refused():
    with pytest.raises(RequestError, match="revision is 5; it must be a string"):
        CharLM.from_pretrained("hf://ada/tiny", revision=5)


def test_a_full_gpu_leaves_a_model_on_the_cpu(monkeypatch):
    def full(config, weights, device):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("charlm.lm.has_cuda", lambda: True)
    monkeypatch.setattr(Network, "from_weights", full)
    model = make_model()
    assert CharLM(model.config, model.weights).device == "cpu"


@pytest.mark.parametrize("kind", [RuntimeError, torch.AcceleratorError])
def test_a_gpu_that_cannot_be_used_leaves_a_model_on_the_cpu_with_a_warning(monkeypatch, kind):
    def busy(config, weights, device):
        raise kind("CUDA error: all CUDA-capable devices are busy or unavailable\nCompile with `TORCH_USE_CUDA_DSA`")

    monkeypatch.setattr("charlm.lm.has_cuda", lambda: True)
    monkeypatch.setattr(Network, "from_weights", busy)
    model = make_model()
    with pytest.warns(UserWarning, match=r"the GPU cannot run the model \(CUDA .* unavailable\); it runs on the CPU$"):
        assert CharLM(model.config, model.weights).device == "cpu"


def test_a_model_that_diverged_is_told_where_it_is_used_and_not_where_its_speed_is_measured(monkeypatch):
    network = Network.from_weights
    monkeypatch.setattr("charlm.lm.has_cuda", lambda: True)
    monkeypatch.setattr(Network, "from_weights", lambda config, weights, device: network(config, weights))
    model = make_model()
    model.weights["head.weight"][:] = math.nan
    lm = CharLM(model.config, model.weights)
    assert lm.device == "cpu"
    with pytest.raises(ModelFileError, match="use another model"):
        lm.generate("a")


def test_the_network_that_was_measured_is_the_one_that_is_used(monkeypatch):
    network, made = Network.from_weights, []

    def make(config, weights, device):
        made.append(network(config, weights))
        return made[-1]

    monkeypatch.setattr("charlm.lm.measure_chars_per_second", lambda backend: not isinstance(backend, EngineBackend))
    monkeypatch.setattr("charlm.lm.has_cuda", lambda: True)
    monkeypatch.setattr(Network, "from_weights", make)
    model = make_model()
    lm = CharLM(model.config, model.weights)
    assert lm.device == "cuda" and [lm.network] == made


@pytest.mark.parametrize("cell", CELLS)
def test_the_speed_of_the_cpu_is_measured_with_the_streams_of_a_batch(monkeypatch, cell):
    lm, written = make_lm(cell), []
    write = BatchScheduler.write
    monkeypatch.setattr(BatchScheduler, "write", lambda *arguments: written.append(arguments[2]) or write(*arguments))
    assert measure_chars_per_second(EngineBackend(lm.engine)) > 0
    assert written == [MEASURED_LENGTH] * MEASURED_STREAMS * MEASURED_ROUNDS


def test_a_device_that_was_chosen_is_not_measured(monkeypatch):
    monkeypatch.setattr(CharLM, "_faster_device", None)
    model = make_model()
    assert CharLM(model.config, model.weights, device="cpu").device == "cpu"


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_on_a_gpu_the_network_writes_and_scores_what_the_engine_does_on_a_cpu(cell):
    lm = forgetting_lm(cell)
    on_gpu = as_on_a_gpu(lm)
    for settings in ({"temperature": 0}, {"temperature": 1.0}, {"temperature": 1.2, "top_k": 5, "top_p": 0.9}):
        expected = lm.generate("a cab", 100, seed=3, **settings)
        assert written(on_gpu, "a cab", 100, seed=3, **settings) == (expected, expected)
        assert list(on_gpu.stream("a cab", 100, seed=3, **settings)) == list(expected)
    np.testing.assert_allclose(on_gpu.score(TEXT), lm.score(TEXT), atol=1e-5)
    assert on_gpu.score("").shape == on_gpu.score("a").shape == (0,)
    assert "engine" not in vars(on_gpu)  # it was never built


@pytest.mark.parametrize("read_length", [1, 2, 7, len(TEXT) - 1, len(TEXT), len(TEXT) + 1])
@pytest.mark.parametrize("cell", CELLS)
def test_a_gpu_that_reads_in_passes_scores_the_same(lms, monkeypatch, cell, read_length):
    monkeypatch.setattr("charlm.inference.gpu.MOST_LOGITS", read_length * len(VOCAB))
    read = count_symbols(lms[cell].network)
    (*parts,) = lms[cell]._score_on_gpu([lms[cell].vocab.encode(TEXT)])
    assert read[:-1] == [read_length] * (len(read) - 1) and sum(read) == len(TEXT) - 1
    np.testing.assert_allclose(np.concatenate(parts), lms[cell].score(TEXT), atol=1e-4)


def test_on_a_cpu_neither_torch_nor_the_hub_is_imported(tmp_path):
    save(make_model(), tmp_path / "model")
    code = """
import sys
from charlm import CharLM
lm = CharLM.from_pretrained(sys.argv[1], device="cpu")
assert len(lm.generate("a cab", 20)) == len("".join(lm.stream("a", 20))) == 20
assert [text.text for text in lm.generate_many("a", 1, 20, seed=3)] == [lm.generate("a", 20, seed=3)]
assert len(lm.score("a cab")) == 4 and len(lm.inspect("a cab").surprisals) == 5
print([name for name in ("torch", "huggingface_hub", "matplotlib", "gradio") if name in sys.modules])
"""
    command = [sys.executable, "-c", code, tmp_path / "model"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "[]\n", "")


def test_a_call_leaves_nothing_behind_for_the_next(lm):
    written, surprisals = lm.generate("a", 40, seed=2), lm.score(TEXT)
    unfinished = lm.stream("bad", 40, seed=3)
    begun = [next(unfinished) for _ in range(10)]
    assert lm.generate("a", 40, seed=2) == written and np.array_equal(lm.score(TEXT), surprisals)
    assert "".join([*begun, *unfinished]) == lm.generate("bad", 40, seed=3)


def test_the_random_numbers_of_others_are_neither_used_nor_disturbed(lm):
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    text = lm.generate("a", 40, seed=2)
    assert torch.equal(torch.get_rng_state(), before[0]) and np.random.get_state()[1].tolist() == before[1]
    torch.manual_seed(1)
    assert lm.generate("a", 40, seed=2) == text


def test_threads_that_share_a_model_get_the_texts_they_get_alone(lm):
    alone = [lm.generate("a cab", 100, 1.0, seed=seed) for seed in range(16)]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda seed: lm.generate("a cab", 100, 1.0, seed=seed), range(16)))
    assert together == alone


@pytest.mark.parametrize(
    ("name", "kind"), [("engine", Engine), ("_prefixes", PrefixCache), ("_scheduler", BatchScheduler)]
)
def test_threads_that_ask_first_get_the_same_object(monkeypatch, name, kind):
    lm, making = make_lm(), threading.Barrier(2, timeout=0.1)

    def make(*arguments):
        with contextlib.suppress(threading.BrokenBarrierError):
            making.wait()  # until the other thread makes one as well
        return kind(*arguments)

    monkeypatch.setattr(f"charlm.lm.{kind.__name__}", make)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: getattr(lm, name), range(2))
    assert one is other


@pytest.mark.parametrize("stream", [CharLM.stream, stream_shared])
def test_what_was_read_to_write_is_not_read_again_for_the_logits_behind_it(monkeypatch, stream):
    model, read, prefill = make_lm(), [], Reader.prefill
    monkeypatch.setattr(Reader, "prefill", lambda self, ids: read.append(len(ids)) or prefill(self, ids))
    prompt = "bad cab\nde" * (2 * BLOCK // 10 + 1)
    "".join(stream(model, prompt, 1))
    assert sum(read) == len(prompt)
    read.clear()
    model.logits(prompt)
    assert sum(read) == len(prompt) % BLOCK


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_while_another_thread_makes_something_can_use_a_model():
    code = """
import os, signal, threading, warnings
from charlm import CharLM, lm
warnings.simplefilter("ignore")  # Python 3.12 warns of forks of a process with threads
model = CharLM.from_pretrained("./weights/shakespeare-rnn", device="cpu")
holds, forked = threading.Event(), threading.Event()
def hold():
    with lm.made_once._lock:
        holds.set()
        forked.wait()
threading.Thread(target=hold).start()
holds.wait()
child = os.fork()
if child == 0:
    signal.alarm(10)  # ends the fork if it waits for ever
    model.engine
    os._exit(0)
forked.set()
print(os.waitpid(child, 0)[1])
"""
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "0\n"


# Folders


@pytest.mark.parametrize("history", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_a_saved_model_comes_back_as_it_was(tmp_path, cell, history):
    model = make_model(cell, history=history)
    CharLM(model.config, model.weights, model.history, device="cpu").save_pretrained(tmp_path / "model")
    lm = CharLM.from_pretrained(tmp_path / "model", device="cpu")
    tensors = {name: tensor.numpy() for name, tensor in lm.network.state_dict().items()}
    assert tensors.keys() == model.weights.keys()
    assert all(np.array_equal(tensors[name], array) for name, array in model.weights.items())
    assert (lm.config, lm.history) == (model.config, model.history)
    assert (lm.source, lm.revision, lm.device) == ("folder", None, "cpu")
    lm.save_pretrained(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "model")


@pytest.mark.parametrize("kind", [str, Path])
def test_a_model_is_saved_in_the_home_folder_and_loaded_from_there(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    lm = make_lm()
    lm.save_pretrained(kind("~/models/one"), samples={})
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert (tmp_path / "home/models/one/config.json").is_file()
    assert CharLM.from_pretrained(kind("~/models/one"), device="cpu").score(TEXT).tolist() == lm.score(TEXT).tolist()


def test_a_folder_whose_name_is_a_tilde_is_named_as_a_shell_has_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    make_lm().save_pretrained("./~/one", samples={})
    assert (tmp_path / "~/one/config.json").is_file() and not (tmp_path / "home").exists()


def test_the_card_of_a_saved_model_shows_what_it_writes_at_three_temperatures(lm, tmp_path):
    lm.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    written = {temperature: lm.generate("", 250, temperature, seed=0) for temperature in (0.5, 1.0, 1.5)}
    assert lm.write_samples() == written
    assert card == model_card(lm.config, lm.history, written)
    assert card.count("At temperature") == 3


def test_the_card_of_a_saved_model_shows_the_samples_that_are_given_and_no_others_are_written(tmp_path, monkeypatch):
    lm = make_lm()
    monkeypatch.setattr(CharLM, "generate", None)
    lm.save_pretrained(tmp_path / "one", samples={0.7: "a bad cab"})
    card = (tmp_path / "one" / "README.md").read_text(encoding="utf-8")
    assert "At temperature 0.7:\n\n    a bad cab\n" in card and card.count("At temperature") == 1
    lm.save_pretrained(tmp_path / "none", samples={})
    assert (tmp_path / "none" / "README.md").read_text(encoding="utf-8") == model_card(lm.config, lm.history)


def test_weights_that_fit_bfloat16_are_stored_in_it_and_others_are_not_rounded(tmp_path):
    model = make_model()
    CharLM(model.config, model.weights).save_pretrained(tmp_path)
    stored = unpack_safetensors((tmp_path / "model.safetensors").read_bytes())
    assert {dtype for dtype, _, _ in stored.values()} == {"BF16"}
    model.weights["head.bias"][3] = 0.1
    CharLM(model.config, model.weights).save_pretrained(tmp_path)
    stored = unpack_safetensors((tmp_path / "model.safetensors").read_bytes())
    assert {dtype for dtype, _, _ in stored.values()} == {"F32"}
    assert stored["head.bias"][2] == model.weights["head.bias"].tobytes()


def test_the_training_record_of_a_folder_is_at_hand(tmp_path):
    folder = save(make_model(), tmp_path / "model")
    assert CharLM.from_pretrained(folder).history == json.loads((folder / "history.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("record", ["", "{}", '{"format_version": 1, "run": {}, "epochs": []}', "<html>", "\udcff"])
def test_a_model_with_a_damaged_record_writes_without_it_and_says_so(tmp_path, record):
    folder = save(make_model(), tmp_path / "model")
    whole = CharLM.from_pretrained(folder)
    (folder / "history.json").write_bytes(record.encode(errors="surrogateescape"))
    with pytest.warns(
        UserWarning, match=f"^{folder}: history.json.*; the model is used without its training"
    ) as warned:
        lm = CharLM.from_pretrained(folder)
    assert warned[0].filename == __file__
    assert lm.history is None and "history.json" in lm.record_problem
    assert lm.generate("a", 30, seed=0) == whole.generate("a", 30, seed=0)
    assert pickle.loads(pickle.dumps(lm)).record_problem == lm.record_problem


def test_a_damaged_record_is_not_lost_by_saving(tmp_path):
    folder = save(make_model(), tmp_path / "model")
    (folder / "history.json").write_text("{")
    before = contents(folder)
    with pytest.warns(UserWarning, match="the model is used without its training record"):
        lm = CharLM.from_pretrained(folder)
    with pytest.raises(
        RequestError, match=r"has a damaged history\.json, and saving would delete it; mend or remove it"
    ):
        lm.save_pretrained(folder)
    assert contents(folder) == before
    lm.save_pretrained(tmp_path / "copy")
    assert CharLM.from_pretrained(tmp_path / "copy").record_problem == ""
    with pytest.raises(
        ModelFileError, match=r"^history\.json .*; mend or remove history\.json, and load the model again"
    ):
        lm.push_to_hub("ada/tiny")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_damaged_record_hides_no_other_damage(tmp_path, file):
    folder = save(make_model(), tmp_path / "model")
    (folder / "history.json").write_text("{")
    (folder / file).write_text("{")
    with pytest.raises(ModelFileError, match=f"^{folder}: {file}"):
        CharLM.from_pretrained(folder)


def test_a_folder_may_be_named_by_a_string_or_a_path(tmp_path, monkeypatch):
    save(make_model(), tmp_path / "user" / "model")
    monkeypatch.chdir(tmp_path)
    text = CharLM.from_pretrained(tmp_path / "user" / "model").generate("a", 20, seed=0)
    assert CharLM.from_pretrained("./user/model").generate("a", 20, seed=0) == text
    with pytest.warns(UserWarning, match="user/model is a folder here, and could be a repository") as warned:
        assert CharLM.from_pretrained("user/model").generate("a", 20, seed=0) == text
    assert warned[0].filename == __file__


def test_a_folder_has_no_revisions(tmp_path, monkeypatch):
    save(make_model(), tmp_path / "user" / "model")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=r"revision='v1' is that of a repository, and \./user/model is a folder"):
        CharLM.from_pretrained("./user/model", revision="v1")
    with (
        pytest.warns(UserWarning, match="is a folder here"),
        pytest.raises(RequestError, match=r"user/model is a folder: leave it out, or write hf://USER/NAME"),
    ):
        CharLM.from_pretrained("user/model", revision="nope")


def test_two_revisions_of_one_repository_are_refused():
    with pytest.raises(RequestError, match="user/model@v1 and revision='v2' name two revisions; leave out one of them"):
        CharLM.from_pretrained("user/model@v1", revision="v2")


@pytest.mark.parametrize(
    "name", ["no such folder", "no_such_folder", "", "a/b/c", "/nowhere/at/all", "user/", "user/mo del", "x" * 5000]
)
def test_a_name_that_is_neither_a_folder_nor_a_repository_is_refused(name):
    with pytest.raises(ModelFileError) as caught:
        CharLM.from_pretrained(name)
    assert str(caught.value) == (
        f"{name!r} is neither a folder here nor the name of a Hub repository (USER/NAME); check the path"
    )


@pytest.mark.parametrize("value", [None, 5, b"weights", ["a"]])
def test_only_a_string_or_a_path_names_a_model(value):
    with pytest.raises(RequestError, match="a model is a folder or USER/NAME on the Hub, not "):
        CharLM.from_pretrained(value)


def test_a_folder_of_something_else_is_refused_with_its_name(tmp_path):
    with pytest.raises(ModelFileError, match=re.escape(f"{tmp_path}: config.json is missing")):
        CharLM.from_pretrained(tmp_path)


def test_a_place_that_can_be_no_folder_is_refused_at_saving(lm, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RequestError, match="choose another place"):
        lm.save_pretrained(tmp_path / "file")
    assert contents(tmp_path) == {"file": b"mine"}


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_name_that_no_folder_can_have_is_refused_at_saving(lm, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=f"^{re.escape(repr(name))} cannot be the name of a folder; choose another$"):
        lm.save_pretrained(name, samples={})
    assert contents(tmp_path) == {}


def test_an_unknown_device_is_refused_with_those_there_are(tmp_path):
    folder = save(make_model(), tmp_path / "model")
    with pytest.raises(RequestError, match="device is 'tpu'; choose one of auto, cpu, cuda, mps"):
        CharLM.from_pretrained(folder, device="tpu")


@pytest.mark.parametrize("value", [3e38, math.inf, math.nan])
@pytest.mark.parametrize("cell", CELLS)
def test_weights_whose_outputs_overflow_are_reported_not_sampled_from(cell, value):
    model = make_model(cell)
    model.weights["head.weight"][:] = value
    lm = CharLM(model.config, model.weights, device="cpu")
    uses = [lm.generate, lm.score, lambda text: list(stream_shared(lm, text)), lm.inspect]
    if not math.isfinite(value):  # of the others, some keep every logit finite
        uses.append(as_on_a_gpu(lm).score)
    for use in uses:
        for _ in range(2):
            with pytest.raises(ModelFileError, match="as after a training that diverged; use another model"):
                use("a cab")


def test_a_model_shows_what_it_is():
    assert repr(make_lm("gru", vocab="abc", embedding_size=4, hidden_size=5, num_layers=1)) == (
        "<CharGRU 1×5, 195 parameters, 3 symbols, on cpu>"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head.bias": None}, "the weights have no head.bias, which the configuration demands"),
        ({"tail.bias": np.zeros(1)}, "the weights have tail.bias, which the configuration does not describe"),
        ({"head.bias": np.zeros(4)}, r"head.bias has shape \[4\]; the configuration demands \[\d+\]"),
        ({"head.bias": [[1.0], [2.0]]}, r"head.bias has shape \[2, 1\]; the configuration demands \[\d+\]"),
    ],
    ids=str,
)
def test_weights_that_do_not_fit_the_configuration_are_refused_when_the_model_is_made(change, message):
    model = make_model()
    weights = {name: array for name, array in (model.weights | change).items() if array is not None}
    with pytest.raises(ModelFileError, match=message):
        CharLM(model.config, weights, device="cpu")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_model_that_could_not_be_loaded_again_is_not_saved(tmp_path, value):
    model = make_model()
    model.weights["head.bias"][1] = value
    save(make_model(seed=1), tmp_path / "model")
    before = contents(tmp_path)
    for folder in ("model", "other"):
        with pytest.raises(ModelFileError, match=r"head.bias holds a NaN or an infinity, as after a training"):
            CharLM(model.config, model.weights, device="cpu").save_pretrained(tmp_path / folder)
    assert contents(tmp_path) == before


def error_classes(kind=CharLMError):
    return [kind, *(each for child in kind.__subclasses__() for each in error_classes(child))]


@pytest.mark.parametrize("kind", [each for each in error_classes() if each.__module__ == "charlm.errors"])
def test_every_error_can_be_pickled_as_one_of_another_process_is(kind):
    arguments = {"SpaceRefusedError": (402, "pay"), "TrainingError": ("it diverged", "begin again", "diverged")}
    error = kind(*arguments.get(kind.__name__, ("it is wrong",)))
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (kind, str(error), vars(error))


def test_every_error_can_be_caught_as_one_kind():
    assert all(issubclass(kind, CharLMError) for kind in (RequestError, VocabError, ModelFileError))


# Kept and copied


@pytest.mark.parametrize("duplicate", [lambda lm: pickle.loads(pickle.dumps(lm)), copy.copy, copy.deepcopy])
def test_a_model_that_has_been_used_can_be_pickled_and_copied(duplicate):
    lm = make_lm()
    text = lm.generate("a", 30, seed=1)
    assert "".join(stream_shared(lm, "a", 30, seed=1)) == text
    lm.influence("a bad cab")
    same = duplicate(lm)
    assert (same.config, same.history, same.device) == (lm.config, lm.history, lm.device)
    assert same.generate("a", 30, seed=1) == "".join(stream_shared(same, "a", 30, seed=1)) == text


def test_a_used_model_is_pickled_without_what_its_use_made():
    lm = make_lm()
    before = len(pickle.dumps(lm))
    list(stream_shared(lm, "a", 3, seed=1))
    lm.influence("a bad cab")
    assert len(pickle.dumps(lm)) == before


@pytest.mark.parametrize("folder", ["", None, 5, b"model"])
def test_a_model_is_not_saved_where_no_folder_is_named(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("of somebody")
    with pytest.raises(RequestError, match="^folder is .*; name a folder, or '.' for the current one$"):
        make_lm().save_pretrained(folder)
    assert contents(tmp_path) == {"README.md": b"of somebody"}
