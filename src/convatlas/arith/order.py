"""What can be said of a middle value without knowing how values are distributed."""

from collections.abc import Sequence
from math import comb
from statistics import median, quantiles

FEWEST = 6
"""With fewer values no interval covers the median in 95 of 100 cases: 1 - 2 / 2^5 is 93.75 %."""


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile; between two values in a straight line (Hyndman & Fan 1996, type 7)."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return low, middle, high


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Low end, median and high end of an interval that covers the true median in at least 95 of 100 cases.

    Its ends are values that were measured: as many lie outside on each side as a fair coin allows (Conover 1999, "Practical
    Nonparametric Statistics", section 3.2). The values must be independent; there must be `FEWEST` at least.
    """
    n = len(values)
    assert n >= FEWEST, f"{n} values have no interval"
    ordered = sorted(values)
    outside, tail = 0, 1  # so many values lie outside on each side; tail / 2^n is the chance of as few on one side
    while 2 * (tail + comb(n, outside + 1)) <= 2**n // 20:
        outside += 1
        tail += comb(n, outside)
    return ordered[outside], median(ordered), ordered[n - 1 - outside]
