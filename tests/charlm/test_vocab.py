import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import any_text, laws

from charlm.errors import VocabError
from charlm.vocab import Vocab

TEXTS = st.one_of(any_text(min_size=1), st.text("ab 한글😀👩‍👩‍👧\u0301𝄞\U0010ffff\x00", min_size=1))


def vocab_of(text):
    """The vocabulary of a text's symbols, ordered by code point."""
    return Vocab("".join(sorted(set(text))))


@laws
@given(TEXTS)
def test_decoding_undoes_encoding_for_any_text(text):
    vocab = vocab_of(text)
    assert vocab.decode(vocab.encode(text)) == text


@laws
@given(TEXTS)
def test_symbols_are_numbered_from_zero_in_their_order(text):
    symbols = sorted(set(text))
    vocab = vocab_of(text)
    assert vocab.symbols == "".join(symbols) and len(vocab) == len(symbols)
    assert vocab.encode(text).tolist() == [symbols.index(symbol) for symbol in text]


def test_an_id_is_the_place_in_the_given_order():
    assert Vocab("cab").encode("abc").tolist() == [1, 2, 0]
    assert Vocab("cab").decode(Vocab("cab").encode("abc")) == "abc"


def test_an_emoji_of_several_code_points_is_several_symbols():
    assert len(vocab_of("👩‍👩‍👧")) == 3  # woman, joiner, girl


@laws
@given(TEXTS, st.text("ab 한글😀€\ud800\udfff"))
def test_the_id_of_a_symbol_is_where_it_stands_and_the_unknown_have_none(known, text):
    symbols = "".join(dict.fromkeys(reversed(known)))  # in any order
    assert Vocab(symbols).ids_of(text).tolist() == [symbols.find(symbol) for symbol in text]


def test_an_empty_text_has_no_ids():
    assert Vocab("ab").encode("").tolist() == []
    assert Vocab("ab").decode(Vocab("ab").encode("")) == ""


def test_the_error_names_the_first_unknown_symbol_its_place_and_the_way_out():
    with pytest.raises(VocabError) as caught:
        vocab_of("price: 😀").encode("😀 price €5")
    assert str(caught.value) == (
        "'€' (character 9) is not among this model's 8 symbols; leave it out or train on a text that has it"
    )


@pytest.mark.parametrize("unknown", ["a", "b", "~", "\x00", "\U0010ffff", "\ud800"])
def test_a_symbol_below_between_or_above_the_known_ones_is_unknown(unknown):
    with pytest.raises(VocabError, match=r"\(character 2\)"):
        Vocab("ACE").encode("A" + unknown)


@laws
@given(TEXTS, st.text("ab 한글😀€\ud800\udfff"))
def test_encode_known_splits_a_text_into_ids_and_what_it_left_out(known, text):
    vocab = vocab_of(known)
    ids, skipped = vocab.encode_known(text)
    assert vocab.decode(ids) == "".join(symbol for symbol in text if symbol in set(known))
    assert skipped == "".join(symbol for symbol in text if symbol not in set(known))


def test_a_lone_surrogate_in_a_prompt_is_left_out():
    ids, skipped = Vocab("ab").encode_known("a\ud83db")
    assert (ids.tolist(), skipped) == ([0, 1], "\ud83d")


@pytest.mark.parametrize(("symbols", "reason"), [("", "at least one"), ("abca", "repeats"), ("😀한😀", "repeats")])
def test_a_vocabulary_that_cannot_number_its_symbols_is_refused(symbols, reason):
    with pytest.raises(VocabError, match=reason):
        Vocab(symbols)


def test_only_single_known_symbols_are_in_a_vocabulary():
    vocab = Vocab("ab한")
    assert "a" in vocab and "한" in vocab
    assert "c" not in vocab and "ab" not in vocab and "" not in vocab


def test_what_is_known_of_a_text_is_kept_and_the_rest_named_once():
    assert Vocab("abc").keep_known("a☃bc☃€a") == ("abca", "☃€")
    assert Vocab("abc").keep_known("") == ("", "")
