"""Intervals of shares and their differences, against the figures of the papers."""

import pytest

from convatlas.arith.proportion import newcombe, wilson


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        # Newcombe 1998, "Interval estimation for the difference between independent proportions", table II, method 10.
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 10), 0.6075, 1.0),
        ((0, 10), (0, 10), -0.2775, 0.2775),
    ],
)
def test_newcombes_own_examples(first, second, low, high):
    (a, n), (b, m) = first, second
    assert newcombe(a / n, b / m, trials=(n, m)) == pytest.approx((low, high), abs=6e-5)
    assert newcombe(b / m, a / n, trials=(m, n)) == pytest.approx((-high, -low), abs=6e-5)


def test_more_trials_are_more_certain():
    widths = [high - low for low, high in (newcombe(0.9, 0.8, trials=(n, n)) for n in (10, 100, 1000))]
    assert widths == sorted(widths, reverse=True)
    assert wilson(0.9, 1000)[0] > wilson(0.9, 100)[0]
