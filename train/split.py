"""The split of a text: the shares of its parts, as the user writes them, and where they cut the text."""

from decimal import Decimal
from fractions import Fraction
from itertools import accumulate, count, pairwise
from typing import Any

from charlm.checks import check_string
from charlm.errors import RequestError
from charlm.messages import counted

Shares = tuple[Fraction, ...]  # of the part that trains, of that which validates and, if there are three, of the test

DEFAULT_SPLIT = "0.9,0.1"
DEFAULT_SHARES = (Fraction("0.9"), Fraction("0.1"))
SMALLEST_SHARE = Decimal("0.001")
LARGEST_NUMBER = 10**6  # parts are sometimes written as 80,10,10; larger numbers are no shares
FEWEST_CHARS = 2  # of a part that is measured: one to read and one to predict


def parse_split(split: str) -> Shares:
    """Return the shares of a text that train, validate and, if there are three, test: `0.9,0.1`, `0.8,0.1,0.1`.

    Raises RequestError unless they are two or three numbers of at least SMALLEST_SHARE that add up to 1.
    """
    return tuple(map(Fraction, _parse_decimals(split)))


def normal_split(split: str) -> str:
    """Return the shares in the form in which they are recorded and compared: `0.9,0.1` for `.90, 1e-1`.

    Raises RequestError as `parse_split` does.
    """
    # not Decimal.normalize, which rounds to 28 digits; each share is below 1, so there is a decimal point
    return ",".join(f"{share:f}".rstrip("0") for share in _parse_decimals(split))


def recorded_split(run: dict[str, Any]) -> str:
    """Return the shares by which a run split its text. run: as in history.json, which has only other than the default.

    What is no split in a stranger's record is returned as it stands there.
    """
    split = run.get("split")
    return str(split.get("shares", DEFAULT_SPLIT)) if isinstance(split, dict) else DEFAULT_SPLIT


def _parse_decimals(split: str) -> list[Decimal]:
    """Return the shares as they are written, checked as `parse_split` says."""
    split = check_string("split", split)
    example = "give the shares that train, validate and, as a third, test, for example 0.9,0.1 or 0.8,0.1,0.1"
    try:
        decimals = [Decimal(part.strip()) for part in split.split(",")]
    except ArithmeticError:
        decimals = []
    if len(decimals) not in (2, 3) or not all(share.is_finite() and share < LARGEST_NUMBER for share in decimals):
        raise RequestError(f"split is {split!r}; {example}")
    if min(decimals) < SMALLEST_SHARE:
        raise RequestError(f"split is {split!r}; each share must be at least {SMALLEST_SHARE}")
    shares = list(map(Fraction, decimals))  # exact, unlike a sum of Decimals, which has 28 digits
    if (total := sum(shares)) != 1:
        scaled = ",".join(f"{float(share / total):.6g}" for share in shares)
        raise RequestError(
            f"split is {split!r}, which adds up to {float(total):g}; shares add up to 1, for example {scaled}"
        )
    return decimals


def check_split(protocol: str, split: str) -> None:
    """Raise RequestError if a protocol does not split a text so."""
    if protocol != "holdout" and parse_split(split) != DEFAULT_SHARES:
        raise RequestError(
            f"the protocol {protocol} has a split of its own; leave --split {split} out, or the protocol"
        )


def cut_parts(chars: int, shares: Shares, name: str = "the text") -> list[slice]:
    """Return the parts of a text by their shares. name: what an error calls it.

    Raises RequestError if one to be measured has nothing to predict.
    """
    if not _can_be_measured(chars, shares):
        wanted = next(more for more in count(chars + 1) if _can_be_measured(more, shares))
        raise RequestError(
            f"{name} has only {counted(chars, 'character')}; it needs at least {wanted:,} to be split and measured: "
            "give a longer one"
        )
    return [slice(start, end) for start, end in pairwise(_ends(chars, shares))]


def _ends(chars: int, shares: Shares) -> list[int]:
    """Return where the parts of a text begin, and where the last one ends."""
    return [0, *(int(share * chars) for share in accumulate(shares))]


def _can_be_measured(chars: int, shares: Shares) -> bool:
    return all(end - start >= FEWEST_CHARS for start, end in list(pairwise(_ends(chars, shares)))[1:])
