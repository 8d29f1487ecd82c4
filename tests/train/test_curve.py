"""The curves that a terminal shows, read back dot by dot."""

import math
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import laws

from train.curve import ROWS, WIDEST, draw_curves


def dots(lines):
    """The dots of a picture as (from the left, from the bottom), by the names that Unicode gives to braille letters."""
    found = set()
    for row, line in enumerate(lines):
        for column, letter in enumerate(line.partition("│")[2]):
            name = unicodedata.name(letter, "")
            for number in map(int, name.removeprefix("BRAILLE PATTERN DOTS-") if "DOTS-" in name else ""):
                # 1 2 3 7 are the left column from the top, 4 5 6 8 the right one
                x, y = (0, [1, 2, 3, 7].index(number)) if number in (1, 2, 3, 7) else (1, [4, 5, 6, 8].index(number))
                found.add((2 * column + x, 4 * (len(lines) - row) - 1 - y))
    return found


def cells(lines, columns):
    """How many letters wide the picture of lines is, worked out from the widths of its margins."""
    return min(columns, WIDEST) - lines[0].index("│") - 1 - len(" validation")


losses = st.lists(st.tuples(st.floats(0.1, 9), st.floats(0.1, 9)), min_size=2, max_size=30)


@pytest.mark.slow
@laws
@given(losses, st.integers(0, 20), st.integers(30, 140))
def test_every_loss_has_its_dot_and_the_lines_fit(values, still_to_come, columns):
    epochs = len(values) + still_to_come
    lines = draw_curves([(epoch, *both) for epoch, both in enumerate(values, 1)], epochs, columns, coloured=False)
    assert len(lines) == ROWS and max(map(len, lines)) <= columns
    low, high = min(map(min, values)), max(map(max, values))
    shown, width = dots(lines), 2 * cells(lines, columns)
    for epoch, both in enumerate(values, 1):
        x = (epoch - 1) / (epochs - 1) * (width - 1)
        for loss in both:
            y = (loss - low) / (high - low) * (4 * ROWS - 1) if high > low else (4 * ROWS - 1) / 2
            assert any(abs(x - dot[0]) <= 0.5 and abs(y - dot[1]) <= 0.5 for dot in shown)
    assert max(x for x, _ in shown) <= width - 1
    if not still_to_come:
        assert max(x for x, _ in shown) == width - 1
    assert float(lines[0].split()[0]) == pytest.approx(high, abs=0.006)
    assert float(lines[-1].split()[0]) == pytest.approx(low, abs=0.006)


def test_a_straight_line_is_straight():
    lines = draw_curves([(1, 2.0, 2.0), (2, 1.0, 1.0)], 2, 16 + 24, coloured=False)
    shown = dots(lines)
    width = 2 * cells(lines, 40)
    for x, y in shown:
        assert abs(y - (1 - x / (width - 1)) * (4 * ROWS - 1)) <= 1
    assert {x for x, _ in shown} == set(range(width))  # without a gap


@pytest.mark.parametrize(
    ("last", "rows"),
    [
        ((1.0, 2.0), {"training": 5, "validation": 2}),
        ((2.0, 1.0), {"training": 2, "validation": 5}),
        ((1.0, 1.0), {"training": 5, "validation": 4}),  # both end in the lowest row
        ((2.9, 3.0), {"training": 1, "validation": 0}),
    ],
)
def test_each_curve_is_named_beside_its_end(last, rows):
    lines = draw_curves([(1, 3.0, 3.0), (2, 1.0, 1.0), (3, *last)], 3, 60, coloured=False)
    named = {line.split()[-1]: row for row, line in enumerate(lines) if line.split()[-1].isalpha()}
    assert named == rows


def test_in_colour_the_picture_is_the_same():
    values = [(epoch, 1 + math.exp(-epoch), 1.2 + math.exp(-epoch)) for epoch in range(1, 9)]
    plain, coloured = (draw_curves(values, 20, 60, coloured=each) for each in (False, True))
    assert [re.sub(r"\x1b\[\d+m", "", line) for line in coloured] == plain
    assert "\x1b[33mvalidation\x1b[0m" in "".join(coloured) and "\x1b[34mtraining\x1b[0m" in "".join(coloured)
    assert all(line.count("\x1b[0m") * 2 == line.count("\x1b[") for line in coloured)


@pytest.mark.parametrize(("values", "columns"), [([], 80), ([(1, 2.0, 2.0)], 80), ([(1, 2.0, 2.0), (2, 1.0, 1.0)], 29)])
def test_there_is_no_picture_of_a_single_epoch_or_on_a_tiny_terminal(values, columns):
    assert draw_curves(values, 5, columns, coloured=False) == []


def test_a_resumed_run_begins_where_it_went_on():
    lines = draw_curves([(6, 2.0, 2.5), (7, 1.5, 2.0)], 11, 60, coloured=False)
    width = 2 * cells(lines, 60)
    assert min(x for x, _ in dots(lines)) == round(0.5 * (width - 1))
