"""A curve in the characters of a terminal."""

import pytest

from convatlas.report.text_plot import text_plot


def plot(curve, *, width=40, height=8, braille=True, below=("0", "half", "end"), left=("0.1", "0")):
    return text_plot(curve, left=left, below=below, width=width, height=height, braille=braille)


def test_a_line_in_stars():
    assert plot(lambda x: 1 - x, width=13, height=8, braille=False, left=("1", "0"), below=("0", "end")) == [
        "1 |*",
        "  | *",
        "  |  **",
        "  |    *",
        "  |     *",
        "  |      **",
        "  |        *",
        "0 |         *",
        "  +----------",
        "   0      end",
    ]


def test_a_level_line_and_a_jump_in_braille():
    rows = plot(lambda x: 1.0 if x < 0.5 else 0.0, width=14, height=2, left=("1", "0"), below=("0", "1"))
    assert rows == ["1 │⠉⠉⠉⠉⠉⢱", "0 │     ⢸⣀⣀⣀⣀⣀", "  └───────────", "   0         1"]


@pytest.mark.parametrize("braille", [True, False])
@pytest.mark.parametrize("width", [1, 10, 20, 33, 80])
def test_no_line_is_wider_than_asked_where_there_is_room(width, braille):
    rows = plot(lambda x: x * x, width=width, braille=braille)
    assert len(rows) == 10
    assert max(map(len, rows)) <= max(width, 13), "eight columns, the names at the left and the axis are the least"
    assert all(row == row.rstrip() for row in rows)
    assert braille or all(row.isascii() for row in rows)


@pytest.mark.parametrize("braille", [True, False])
def test_the_curve_has_no_gap(braille):
    """Each column has its height and reaches to the one before."""
    rows = [row[4:] for row in plot(lambda x: x**9, width=30, height=20, braille=braille, left=("1", "0"))[:20]]
    for column in range(26):
        assert any(len(row) > column and row[column] != " " for row in rows), column
    for row in rows:
        assert row.strip(), "a steep part crosses every row"


def test_the_middle_label_goes_where_there_is_no_room():
    assert plot(lambda x: x, width=40)[-1].split() == ["0", "half", "end"]
    assert plot(lambda x: x, width=14)[-1].split() == ["0", "end"]
