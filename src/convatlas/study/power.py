"""How many seeds a difference needs, from the spread of paired differences seen so far."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from convatlas.errors import UserError
from convatlas.study.statistics import LEVEL, differ

MOST = 10_000
"""Nobody trains more seeds than this; a difference that needs more is out of reach."""

FAR = 1000.0
"""From here on the numerator of t is its noncentrality to three digits, and SciPy's series begins not to converge."""


@dataclass(frozen=True)
class Spread:
    """The standard deviation of `n` paired differences of accuracy, as a share, with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class SeedsNeeded:
    """Seeds that show a true `difference` with the chance `power`: `likely` by the spread seen, `low` and `high` by its interval.

    None is more than 10,000.
    """

    difference: float
    power: float
    likely: int | None
    low: int | None
    high: int | None


def spread_of(differences: Sequence[float]) -> Spread:
    """The spread of paired differences, with the chi-square interval of a normal sample's standard deviation.

    Of few seeds it is wide: of three, from half to six times what was seen.
    Raises a UserError where there is no spread to be seen: fewer than two differences, or equal ones.
    """
    n = len(differences)
    if n < 2 or not differ(differences):
        what = "their differences are all equal" if n > 1 else f"{n} seed{'' if n == 1 else 's'} pair"
        raise UserError(f"no spread to go by: {what}", fix="Run more seeds of both variants first.")
    mean = sum(differences) / n
    squares = sum((value - mean) ** 2 for value in differences)
    low, high = (math.sqrt(squares / float(stats.chi2.ppf(q, n - 1))) for q in ((1 + LEVEL) / 2, (1 - LEVEL) / 2))
    return Spread(math.sqrt(squares / (n - 1)), low, high, n)


def seeds_needed(spread: float, *, difference: float, power: float = 0.8, level: float = 0.05) -> int | None:
    """The fewest paired seeds, two at least, whose t test finds a true `difference` with the chance `power`; None beyond 10,000.

    `spread` is the standard deviation of the paired differences, in the same unit. `level` is that of the two-sided test: for m
    comparisons under Holm, level / m is on the safe side.
    Raises a UserError for numbers that make no sense.
    """
    if spread <= 0 or difference <= 0:
        raise UserError(f"a spread of {spread:g} and a difference of {difference:g}", fix="Both must be above 0.")
    if not 0 < level < power < 1:
        raise UserError(f"a power of {power:g} at the level {level:g}", fix="Choose 0 < level < power < 1.")
    few, many = 1, MOST  # `few` is never enough; `many` is, once that has been seen
    if power_of(MOST, spread=spread, difference=difference, level=level) < power:
        return None
    while many - few > 1:
        middle = (few + many) // 2
        if power_of(middle, spread=spread, difference=difference, level=level) < power:
            few = middle
        else:
            many = middle
    return many


def power_of(seeds: int, *, spread: float, difference: float, level: float = 0.05) -> float:
    """The chance that the two-sided paired t test at `level` of so many seeds finds a true `difference`, with its right sign.

    Results with the wrong sign do not count, as in R's power.t.test. That is half of `level` at most.
    """
    freedom = seeds - 1
    critical = float(stats.t.isf(level / 2, freedom))
    noncentrality = difference / spread * math.sqrt(seeds)
    if noncentrality > FAR:
        return float(stats.chi2.cdf(freedom * (noncentrality / critical) ** 2, freedom))
    # SciPy's noncentral t, and not statsmodels' TTestPower: that has no number for some differences that cannot be missed.
    return float(stats.nct.sf(critical, freedom, noncentrality))


def power_table(
    spread: Spread, *, differences: Sequence[float], power: float = 0.8, level: float = 0.05
) -> tuple[SeedsNeeded, ...]:
    """The seeds that each of several differences needs, in their order."""
    rows = []
    for difference in differences:
        likely, low, high = (
            seeds_needed(value, difference=difference, power=power, level=level)
            for value in (spread.value, spread.low, spread.high)
        )
        rows.append(SeedsNeeded(difference, power, likely, low, high))
    return tuple(rows)


def in_words(row: SeedsNeeded) -> str:
    """A row of the table as a sentence."""
    least, likely, most = (f"more than {MOST:,}" if n is None else f"{n:,}" for n in (row.low, row.likely, row.high))
    found = f"A difference of {100 * row.difference:.4g} points is found in {100 * row.power:.4g} of 100 studies"
    if row.low == row.high:
        return f"{found} with {likely} seeds."
    return f"{found} with between {least} and {most} seeds, most likely {likely}."
