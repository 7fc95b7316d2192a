"""A curve in the characters of a terminal: braille, which has eight dots a character, or stars where there is ASCII only."""

from collections.abc import Callable, Sequence

NARROWEST = 8
"""Columns that a curve has even where the terminal is narrower: lines wrap there, and nothing is lost."""
_BRAILLE = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
Dots = set[tuple[int, int]]


def text_plot(
    curve: Callable[[float], float], *, left: tuple[str, str], below: Sequence[str], width: int, height: int, braille: bool
) -> list[str]:
    """The lines of a plot of `curve`, which goes from [0, 1] to [0, 1]: `width` columns at most, and `height` rows and 2 below.

    `left` names 1 and 0 of the upright axis; `below` are the labels of the level one, spread evenly from end to end.
    """
    margin = max(map(len, left))
    columns = max(NARROWEST, width - margin - 2)
    names = [left[0], *[""] * (height - 2), left[1]]
    upright, corner, level = "│└─" if braille else "|+-"
    drawn = _braille(curve, columns, height) if braille else _stars(curve, columns, height)
    rows = [f"{name:>{margin}} {upright}{row}".rstrip() for name, row in zip(names, drawn, strict=True)]
    return [*rows, f"{'':>{margin}} {corner}{level * columns}", f"{'':>{margin + 2}}{_spread(below, columns)}".rstrip()]


def _braille(curve: Callable[[float], float], columns: int, height: int) -> list[str]:
    dots = _dots(curve, 2 * columns, 4 * height)
    return ["".join(_character(dots, 2 * column, 4 * row) for column in range(columns)) for row in range(height)]


def _character(dots: Dots, left: int, top: int) -> str:
    bits = sum(bit for y, pair in enumerate(_BRAILLE) for x, bit in enumerate(pair) if (left + x, top + y) in dots)
    return chr(0x2800 + bits) if bits else " "


def _stars(curve: Callable[[float], float], columns: int, height: int) -> list[str]:
    dots = _dots(curve, columns, height)
    return ["".join("*" if (x, y) in dots else " " for x in range(columns)) for y in range(height)]


def _dots(curve: Callable[[float], float], across: int, down: int) -> Dots:
    """The dots (x, y) of the curve, y counted from the top, without a gap between one column and the next."""
    heights = [round((1 - curve(x / (across - 1))) * (down - 1)) for x in range(across)]
    dots = set(enumerate(heights))
    for x in range(1, across):
        low, high = sorted(heights[x - 1 : x + 1])
        dots |= {(x, y) for y in range(low + 1, high)}
    return dots


def _spread(names: Sequence[str], columns: int) -> str:
    """The first name at the left, the last at the right, the others evenly between, or left out where there is no room."""
    line = names[0].ljust(columns - len(names[-1])) + names[-1]
    for i, name in enumerate(names[1:-1], start=1):
        at = round(i * columns / (len(names) - 1) - len(name) / 2)
        if at > 0 and not line[at - 1 : at + len(name) + 1].strip():
            line = f"{line[:at]}{name}{line[at + len(name) :]}"
    return line
