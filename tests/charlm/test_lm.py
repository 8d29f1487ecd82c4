import itertools
import json
import math
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import VOCAB, contents, laws, make_lm, make_model, save, uniform_lm, unpack_safetensors
from reference import load_plain, log_softmax, plain_logits, sampling_distribution

from charlm import CharLM
from charlm.cells import CELLS
from charlm.errors import CharLMError, ModelFileError, RequestError, VocabError
from charlm.history import bits_per_char

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


def with_twin(cell, tmp_path):
    """A model of a folder, and the same folder read by plain torch."""
    folder = save(make_model(cell), tmp_path / "model")
    return CharLM.from_pretrained(folder, device="cpu"), *load_plain(folder)


def ids_of(text, vocab=VOCAB):
    return [vocab.index(symbol) for symbol in text]


# What it writes


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_the_pieces_of_a_stream_make_the_text_that_generate_returns(lms, cell, settings):
    for seed in (0, 7, 2**40):
        pieces = list(lms[cell].stream("a cab", 60, seed=seed, **settings))
        assert [len(piece) for piece in pieces] == [1] * 60
        assert "".join(pieces) == lms[cell].generate("a cab", 60, seed=seed, **settings)


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


@pytest.mark.parametrize("prompt", PROMPTS, ids=ascii)
@pytest.mark.parametrize("cell", CELLS)
def test_temperature_0_takes_the_likeliest_at_every_step(tmp_path, cell, prompt):
    lm, plain, vocab = with_twin(cell, tmp_path)
    text = prompt or "\n"
    for _ in range(40):
        text += vocab[plain_logits(plain, ids_of(text))[-1].argmax()]
    assert (prompt or "\n") + lm.generate(prompt, 40, temperature=0, seed=1) == text
    assert lm.generate(prompt, 40, temperature=0, seed=2) == lm.generate(prompt, 40, temperature=0)


@pytest.mark.parametrize("settings", SETTINGS[1:], ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_each_character_is_the_one_that_the_seeds_next_number_picks(tmp_path, cell, settings):
    """Inverse transform sampling, done over with plain torch, the naive filter and numpy's own generator."""
    lm, plain, vocab = with_twin(cell, tmp_path)
    for prompt in PROMPTS:
        random, text = np.random.Generator(np.random.PCG64(11)), prompt or "\n"
        for _ in range(30):
            distribution = sampling_distribution(plain_logits(plain, ids_of(text))[-1].tolist(), **settings)
            u, reached = random.random(), itertools.accumulate(distribution)
            drawn = next(symbol for symbol, total in enumerate(reached) if u < total)
            assert distribution[drawn] > 0
            text += vocab[drawn]
        assert (prompt or "\n") + lm.generate(prompt, 30, seed=11, **settings) == text


def test_an_empty_prompt_starts_a_new_line(lm):
    for seed in range(5):
        assert lm.generate("", 30, seed=seed) == lm.generate("\n", 30, seed=seed)


def test_an_empty_prompt_starts_with_the_first_symbol_where_there_are_no_lines():
    lm = make_lm("gru", vocab="xyz")
    assert lm.generate("", 30, seed=3) == lm.generate("x", 30, seed=3)


@pytest.mark.parametrize("prompt", PROMPTS, ids=ascii)
def test_no_characters_are_an_empty_text(lm, prompt):
    assert lm.generate(prompt, 0) == "" and list(lm.stream(prompt, 0)) == []


def test_500_characters_are_written_unless_told_otherwise(lm):
    assert lm.generate(seed=7) == lm.generate("", 500, 0.8, 0, 1.0, 7)
    assert len(lm.generate(seed=7)) == 500


@pytest.mark.parametrize("cell", CELLS)
def test_a_model_of_one_symbol_writes_it(cell):
    assert make_lm(cell, vocab="z").generate("", 5) == "zzzzz"


def test_unknown_symbols_of_a_prompt_are_skipped_with_one_warning_that_names_each_once(lm):
    with pytest.warns(UserWarning, match="skipped") as caught:
        text = lm.generate("€a cXXab€", 40, seed=5)
    assert [str(warning.message) for warning in caught] == ["the prompt's '€X' was skipped: the model does not know it"]
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
    ],
    ids=str,
)
def test_a_wrong_argument_is_refused_at_the_call(lm, arguments, message):
    for method in (lm.stream, lm.generate):  # the stream is not even begun
        with pytest.raises(RequestError, match=re.escape(message)):
            method(**arguments)


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


@laws
@given(texts)
def test_all_texts_of_one_more_symbol_share_a_probability_of_1(lms, text):
    text = "\n" + text
    for lm in lms.values():
        chances = [math.exp(-lm.score(text + symbol)[-1]) for symbol in VOCAB]
        assert math.fsum(chances) == pytest.approx(1, abs=1e-9)


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


@pytest.mark.parametrize("read_length", [1, 2, 7, len(TEXT) - 1, len(TEXT), len(TEXT) + 1])
@pytest.mark.parametrize("cell", CELLS)
def test_a_text_read_in_stretches_is_the_same_text(lms, monkeypatch, cell, read_length):
    written, surprisals = lms[cell].generate(TEXT, 40, seed=2), lms[cell].score(TEXT)
    monkeypatch.setattr("charlm.lm.READ_LENGTH", read_length)
    assert lms[cell].generate(TEXT, 40, seed=2) == written
    # the order of summing differs within a stretch: float32's rounding
    np.testing.assert_allclose(lms[cell].score(TEXT), surprisals, atol=1e-5)


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


def test_a_folder_may_be_named_by_a_string_or_a_path(tmp_path, monkeypatch):
    save(make_model(), tmp_path / "user" / "model")
    monkeypatch.chdir(tmp_path)
    text = CharLM.from_pretrained(tmp_path / "user" / "model").generate("a", 20, seed=0)
    assert CharLM.from_pretrained("user/model").generate("a", 20, seed=0) == text


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


def test_an_unknown_device_is_refused_with_those_there_are(tmp_path):
    folder = save(make_model(), tmp_path / "model")
    with pytest.raises(RequestError, match="device is 'tpu'; choose one of auto, cpu, cuda, mps"):
        CharLM.from_pretrained(folder, device="tpu")


def test_weights_whose_outputs_overflow_are_reported_not_sampled_from():
    model = make_model("rnn")
    model.weights["head.weight"][:] = 3e38
    lm = CharLM(model.config, model.weights, device="cpu")
    for use in (lambda: lm.generate("a cab", 5), lambda: lm.score("a cab")):
        with pytest.raises(ModelFileError, match="outputs are no finite numbers.*use another model"):
            use()


def test_a_model_shows_what_it_is():
    assert repr(make_lm("gru", vocab="abc", embedding_size=4, hidden_size=5, num_layers=1)) == (
        "<CharGRU 1×5, 195 parameters, 3 symbols, on cpu>"
    )


def test_every_error_can_be_caught_as_one_kind():
    assert all(issubclass(kind, CharLMError) for kind in (RequestError, VocabError, ModelFileError))
