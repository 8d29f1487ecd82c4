"""Stop strings, against a search through the whole text, and streams that are read in turns."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import laws

from charlm.errors import RequestError
from charlm.inference.streams import StopFinder, check_stop, cut_at_stop, read_in_turns


def end_by_search(text, stops):
    """The text before the stop string that is complete first, found in every beginning of the text."""
    for end in range(len(text) + 1):
        if complete := [stop for stop in stops if text[:end].endswith(stop)]:
            return text[: end - max(map(len, complete))]
    return text


def cut_into(text, sizes):
    pieces, place = [], 0
    for size in sizes:
        pieces.append(text[place : place + size])
        place += size
    return [*pieces, text[place:]]


# few letters, so that stop strings repeat their own beginnings and overlap
ab_texts = st.text("ab", max_size=30)
ab_stops = st.lists(st.text("ab", min_size=1, max_size=6), max_size=4)


@laws
@given(ab_texts, ab_stops, st.lists(st.integers(0, 5), max_size=12))
def test_the_text_ends_before_the_stop_string_that_is_complete_first_however_it_is_cut(text, stops, sizes):
    shown = list(cut_at_stop(cut_into(text, sizes), stops))
    assert "".join(shown) == end_by_search(text, stops)
    assert all(shown)


@laws
@given(ab_texts, ab_stops)
def test_only_what_may_begin_a_stop_string_is_held_back(text, stops):
    finder, shown = StopFinder(stops), ""
    for end, symbol in enumerate(text, 1):
        shown += finder.feed(symbol)
        if finder.has_found:
            return
        beginnings = [stop[:length] for stop in stops for length in range(len(stop))]
        assert len(text[:end]) - len(shown) == max(
            (len(one) for one in beginnings if text[:end].endswith(one)), default=0
        )
        assert shown + finder.rest() == text[:end]


@pytest.mark.parametrize(
    ("text", "stops", "shown"),
    [
        ("To be.\n\nJULIET:", ["\n\n"], "To be."),
        ("abcd", ["abcd", "bc"], "a"),  # bc is complete first, though abcd begins before it
        ("xab", ["b", "ab"], "x"),  # both are complete at the same character
        ("aab", ["ab"], "a"),
        ("aaab", ["aab"], "a"),
        ("ab", ["abc"], "ab"),
        ("abc", [], "abc"),
        ("한😀", ["😀"], "한"),
    ],
)
def test_texts_that_end_worked_by_hand(text, stops, shown):
    assert "".join(cut_at_stop(text, stops)) == "".join(cut_at_stop([text], stops)) == shown


def test_what_follows_a_stop_string_is_not_asked_for():
    def text():
        yield "a."
        pytest.fail("the text had ended")

    assert list(cut_at_stop(text(), ["."])) == ["a"]


@pytest.mark.parametrize(("given", "stops"), [(None, ()), ("ab", ("ab",)), (["a", "b"], ("a", "b")), ((), ())])
def test_stop_strings_are_one_or_several(given, stops):
    assert check_stop(given) == stops


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "stop has ''; each stop string must be a string of at least one character"),
        (["a", ""], "stop has ''; each stop string must be a string of at least one character"),
        (["a", 5], "stop has 5; each stop string must be a string of at least one character"),
        (5, "stop is 5; it must be a string or a list of strings"),
        ({"a": 1}, "stop is {'a': 1}; it must be a string or a list of strings"),
        (b"a", "stop is b'a'; it must be a string or a list of strings"),
    ],
    ids=str,
)
def test_other_stop_strings_are_refused(given, message):
    with pytest.raises(RequestError, match=f"^{re.escape(message)}$"):
        check_stop(given)


def test_streams_are_read_in_turns_and_each_tells_its_end_once():
    assert list(read_in_turns([iter("ab"), iter(""), iter("c")])) == [
        (0, "a"),
        (1, None),
        (2, "c"),
        (0, "b"),
        (2, None),
        (0, None),
    ]
