import math
import sys

import numpy as np
import pytest

from charlm.checks import check_number, check_string, check_whole
from charlm.errors import RequestError

NO_NUMBERS = [None, True, "3", b"3", [3], {}, 3j, np.bool_(True), np.timedelta64(3, "D"), np.complex128(3), np.array(3)]


@pytest.mark.parametrize("value", [3, 3.0, np.int8(3), np.uint64(3), np.float32(3), np.float64(3)], ids=repr)
def test_a_number_of_any_library_becomes_one_of_python(value):
    assert (check_whole("n", value, 0), type(check_whole("n", value, 0))) == (3, int)
    assert (check_number("n", value, 0, 5), type(check_number("n", value, 0, 5))) == (3.0, float)


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_what_is_no_number_is_refused(value):
    with pytest.raises(RequestError, match="^n is .*; it must be a whole number$"):
        check_whole("n", value, 0)
    with pytest.raises(RequestError, match="^n is .*; it must be a number$"):
        check_number("n", value, 0, 5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1.5, np.float64(1.5)], ids=repr)
def test_a_fraction_is_no_whole_number(value):
    with pytest.raises(RequestError, match="it must be a whole number$"):
        check_whole("n", value, -2)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, "n is 0; it must be from 1 to 9"),
        (-1, "n is -1; it must be from 1 to 9"),
        (10, "n is 10; it must be from 1 to 9"),
        (sys.maxsize, "n is a huge number; it must be from 1 to 9"),
        (-(10**400), "n is a huge number; it must be from 1 to 9"),
        (10**5000, "n is a huge number; it must be from 1 to 9"),
        (1e308, "n is a huge number; it must be from 1 to 9"),
    ],
    ids=lambda value: str(value) if abs(hash(value)) < 100 else "",
)
def test_a_whole_number_out_of_bounds_is_refused_however_long_it_is(value, message):
    with pytest.raises(RequestError) as caught:
        check_whole("n", value, 1, 9)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, -1e-9, 1.0000001, 10**400, 10**5000], ids=lambda _: ""
)
def test_a_number_out_of_bounds_is_refused_however_long_it_is(value):
    with pytest.raises(RequestError, match="^n is .{1,20}; it must be from 0 to 1$"):
        check_number("n", value, 0, 1)


@pytest.mark.parametrize("value", [None, 5, b"a", ["a"], 10**5000], ids=lambda value: type(value).__name__)
def test_only_a_string_is_a_string(value):
    with pytest.raises(RequestError, match="^text is .*; it must be a string$"):
        check_string("text", value)
    assert check_string("text", "") == ""
