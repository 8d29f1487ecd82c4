"""The loss curves of a run so far, drawn with the dots of braille letters in a few lines of a terminal."""

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

ROWS = 6  # lines of the picture, each of four dots
NARROWEST, WIDEST = 30, 100  # columns
NAMES = ("training", "validation")
COLOURS = ("\x1b[34m", "\x1b[33m")  # of each: blue and yellow
END = "\x1b[0m"
# The bits of the dots of a braille letter: of its left and its right column, from the top.
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
BLANK = 0x2800

Point = tuple[int, int]  # a dot: from the left, and from the bottom


def draw_curves(losses: Sequence[tuple[int, float, float]], epochs: int, columns: int, *, coloured: bool) -> list[str]:
    """Return the curves in ROWS lines of at most so many columns; none for fewer than two epochs or NARROWEST columns.

    losses: of each epoch so far its number, training loss and validation loss. epochs: of the whole run, which is as
    wide as the picture: the curves grow to the right. coloured: with the escape sequences of terminals.
    """
    if len(losses) < 2 or columns < NARROWEST:
        return []
    # 1) the scale: the range of all losses, named at the left
    values = [loss for _, *both in losses for loss in both]
    low, high = min(values), max(values)
    labels = [f"{high:.2f}", *[""] * (ROWS - 2), f"{low:.2f}"]
    margin = max(map(len, labels))
    cells = min(columns, WIDEST) - margin - len(" │") - len(" ") - max(map(len, NAMES))
    # 2) the dots of each curve; where both have one in a letter, it has the colour of the validation loss
    by_curve = [(epoch, train) for epoch, train, _ in losses], [(epoch, val) for epoch, _, val in losses]
    curves = [[_place(epoch, loss, epochs, (low, high), cells) for epoch, loss in each] for each in by_curve]
    letters = [[BLANK] * cells for _ in range(ROWS)]
    kinds = [[0] * cells for _ in range(ROWS)]
    for kind, points in enumerate(curves):
        for x, y in _connect(points):
            row, column = ROWS - 1 - y // 4, x // 2
            letters[row][column] |= DOTS[x % 2][3 - y % 4]
            kinds[row][column] = kind
    # 3) the names at the right, each beside the end of its curve
    names = _name_rows(*(ROWS - 1 - points[-1][1] // 4 for points in curves))
    lines = []
    for row in range(ROWS):
        shown = "".join(chr(letter) if letter != BLANK else " " for letter in letters[row])
        parts = groupby(range(cells), key=lambda column: kinds[row][column])
        drawn = "".join(_paint("".join(shown[column] for column in part), kind, coloured) for kind, part in parts)
        name = _paint(NAMES[names[row]], names[row], coloured) if row in names else ""
        lines.append(f"{labels[row]:>{margin}} │{drawn} {name}".rstrip())
    return lines


def _place(epoch: int, loss: float, epochs: int, scale: tuple[float, float], cells: int) -> Point:
    """Return the dot of a loss."""
    low, high = scale
    share = (loss - low) / (high - low) if high > low else 0.5
    return round((epoch - 1) / max(epochs - 1, 1) * (2 * cells - 1)), round(share * (4 * ROWS - 1))


def _connect(points: Sequence[Point]) -> Iterator[Point]:
    """Yield the dots of the lines between points, ends included."""
    for (x, y), (next_x, next_y) in pairwise(points):
        steps = max(abs(next_x - x), abs(next_y - y), 1)
        for step in range(steps + 1):
            yield round(x + (next_x - x) * step / steps), round(y + (next_y - y) * step / steps)


def _name_rows(training: int, validation: int) -> dict[int, int]:
    """Return which curve is named in which row. If both end in one, the names stand one above the other."""
    if training == validation:
        training, validation = (training + 1, validation) if training + 1 < ROWS else (training, validation - 1)
    return {training: 0, validation: 1}


def _paint(text: str, kind: int, coloured: bool) -> str:
    body = text.rstrip()
    return f"{COLOURS[kind]}{body}{END}{text[len(body) :]}" if coloured and body else text
