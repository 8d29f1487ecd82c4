from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import laws

from charlm.errors import RequestError
from train.split import (
    DEFAULT_SHARES,
    DEFAULT_SPLIT,
    check_split,
    cut_parts,
    normal_split,
    parse_split,
    recorded_split,
)


def refused(split):
    with pytest.raises(RequestError) as caught:
        parse_split(split)
    return str(caught.value)


@pytest.mark.parametrize(
    ("split", "shares"),
    [
        (DEFAULT_SPLIT, DEFAULT_SHARES),
        ("0.9,0.1", (Fraction(9, 10), Fraction(1, 10))),
        (" .8, 1e-1,0.10", (Fraction(4, 5), Fraction(1, 10), Fraction(1, 10))),
        ("0.998,0.001,0.001", (Fraction(499, 500), Fraction(1, 1000), Fraction(1, 1000))),
    ],
)
def test_shares_are_read_exactly(split, shares):
    assert parse_split(split) == shares


@pytest.mark.parametrize(
    ("split", "normal"),
    [
        ("0.9,0.1", "0.9,0.1"),
        ("0.90,0.10", "0.9,0.1"),
        (" .8, 1e-1,+0.100", "0.8,0.1,0.1"),
        ("0.998,1e-3,0.0010", "0.998,0.001,0.001"),
        ("0.500,0.5", "0.5,0.5"),
        (f"0.{'3' * 40},0.{'6' * 39}70", f"0.{'3' * 40},0.{'6' * 39}7"),  # more digits than Decimal calculates with
    ],
)
def test_equal_shares_have_one_normal_form_however_they_are_written(split, normal):
    assert normal_split(split) == normal == normal_split(normal)
    assert parse_split(normal) == parse_split(split)


@pytest.mark.parametrize(
    ("run", "shares"),
    [
        ({"split": {"train_chars": 80, "val_chars": 10, "test_chars": 10, "shares": "0.8,0.1,0.1"}}, "0.8,0.1,0.1"),
        ({"split": {"train_chars": 90, "val_chars": 10}}, "0.9,0.1"),
        ({}, "0.9,0.1"),
        ({"split": {"shares": "halves"}}, "halves"),
        ({"split": {"shares": 7}}, "7"),
    ],
    ids=str,
)
def test_a_record_without_shares_has_the_default_and_one_that_is_wrong_is_told_as_it_is(run, shares):
    assert recorded_split(run) == shares


@pytest.mark.parametrize("split", [0.9, None, ["0.9", "0.1"]], ids=str)
def test_a_split_that_is_no_string_is_refused(split):
    assert refused(split) == f"split is {split!r}; it must be a string"


@pytest.mark.parametrize(
    "split", ["", "0.9", "a,b", "0.5,0.2,0.2,0.1", "nan,1", "inf,0.1", "0.9;0.1", "1e9,0.1", "1/2,1/2"]
)
def test_what_is_no_split_is_answered_with_an_example(split):
    assert refused(split) == (
        f"split is {split!r}; give the shares that train, validate and, as a third, test, "
        "for example 0.9,0.1 or 0.8,0.1,0.1"
    )


@pytest.mark.parametrize(
    ("split", "total", "instead"), [("80,10,10", "100", "0.8,0.1,0.1"), ("0.9,0.2", "1.1", "0.818182,0.181818")]
)
def test_shares_that_do_not_add_up_to_one_are_answered_with_those_that_do(split, total, instead):
    assert refused(split) == f"split is {split!r}, which adds up to {total}; shares add up to 1, for example {instead}"


@pytest.mark.parametrize("split", ["1,0", "1.1,-0.1", "0.9999,0.0001", "1e-999999999,1"])
def test_a_share_too_small_to_be_measured_is_refused(split):
    assert refused(split) == f"split is {split!r}; each share must be at least 0.001"


def test_windows_have_a_split_of_their_own():
    check_split("windows", "0.90,0.10")
    with pytest.raises(
        RequestError, match="windows has a split of its own; leave --split 0.8,0.2 out, or the protocol"
    ):
        check_split("windows", "0.8,0.2")


shares_in_thousandths = st.lists(st.integers(1, 400), min_size=2, max_size=3)


@laws
@given(shares_in_thousandths, st.integers(4, 5000))
def test_the_parts_follow_each_other_and_have_their_shares(numbers, chars):
    shares = tuple(Fraction(number, sum(numbers)) for number in numbers)
    try:
        parts = cut_parts(chars, shares)
    except RequestError:
        return
    assert [place for part in parts for place in range(chars)[part]] == list(range(chars))
    for part, share in zip(parts, shares, strict=True):
        assert abs(part.stop - part.start - share * chars) < 1


@pytest.mark.parametrize("split", ["0.9,0.1", "0.8,0.1,0.1", "0.5,0.499,0.001", "0.1,0.2,0.7"])
def test_a_text_too_short_is_refused_with_the_length_that_is_enough(split):
    shares = parse_split(split)
    with pytest.raises(RequestError, match="only 0 characters") as caught:
        cut_parts(0, shares)
    with pytest.raises(RequestError, match="^poems has only 1 character; it needs at least"):
        cut_parts(1, shares, "poems")
    needed = int(str(caught.value).split("at least ")[1].split()[0].replace(",", ""))
    with pytest.raises(RequestError, match=f"only {needed - 1:,} characters; it needs at least {needed:,} to be split"):
        cut_parts(needed - 1, shares)
    assert min(part.stop - part.start for part in cut_parts(needed, shares)[1:]) == 2
