"""Checks of arguments from users: each returns the value as a Python int, float or str, or raises RequestError."""

import math

from charlm.errors import RequestError
from charlm.messages import show


def check_whole(name: str, value: object, low: int, high: int | None = None) -> int:
    """Return `value` if it is a whole number from `low` (to `high`). Raises RequestError if not."""
    import numpy as np  # here, because `--help` needs none

    if isinstance(value, float | np.floating) and value.is_integer():
        value = int(value)  # JSON and sliders send 7.0 for 7
    if not isinstance(value, int | np.integer) or isinstance(value, bool | np.timedelta64):
        raise RequestError(f"{name} is {show(value)}; it must be a whole number")
    number = int(value)
    if number < low or (high is not None and number > high):
        bounds = f"from {low}" if high is None else f"from {low} to {high:,}"
        raise RequestError(f"{name} is {show(number)}; it must be {bounds}")
    return number


def check_number(name: str, value: object, low: float, high: float, *, finite: bool = True) -> float:
    """Return `value` as a float if it is a number from `low` to `high`, a finite one unless told otherwise.

    Raises RequestError if not.
    """
    import numpy as np

    if not isinstance(value, int | float | np.integer | np.floating) or isinstance(value, bool | np.timedelta64):
        raise RequestError(f"{name} is {show(value)}; it must be a number")
    try:
        number = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        number = math.inf
    if not low <= number <= high or (finite and not math.isfinite(number)):
        from_low = f"a finite number from {low}" if finite else f"a number from {low}"
        bounds = from_low if math.isinf(high) else f"from {low} to {high}"
        raise RequestError(f"{name} is {number}; it must be {bounds}")
    return number


def check_string(name: str, value: object) -> str:
    """Return `value` if it is a string. Raises RequestError if not."""
    if not isinstance(value, str):
        raise RequestError(f"{name} is {show(value)}; it must be a string")
    return value


def check_text(name: str, value: object, longest: int) -> str:
    """Return `value` if it is a text of at most `longest` characters. Raises RequestError if not."""
    value = check_string(name, value)
    if len(value) > longest:
        raise RequestError(f"the {name} has {len(value):,} characters; at most {longest:,} are allowed: shorten it")
    return value
