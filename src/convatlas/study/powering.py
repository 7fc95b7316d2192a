"""How many seeds a study needs for the differences that one wants to see, from the spread of those it has.

The verdicts are adjusted after Holm over all planned comparisons, so that the smallest p has to be below 0.05 divided by their
number: that is the level here, which is on the safe side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convatlas.errors import UserError
from convatlas.study.effects import paired_differences
from convatlas.study.folder import read_plan
from convatlas.study.power import power_table, spread_of
from convatlas.study.summary import outcomes_of

LEVEL = 0.05
"""Of all comparisons of a study together."""


@dataclass(frozen=True)
class Powered:
    """One planned comparison and one difference (a share): `likely` seeds, `low` and `high` by the interval of the spread.

    None is more than 10,000. `spread` is the standard deviation of the paired differences; `cause` says why nothing is known.
    """

    comparison: str
    difference: float
    spread: float
    likely: int | None
    low: int | None
    high: int | None
    cause: str | None = None


def powers_of(folder: Path, *, differences: Sequence[float], power: float) -> list[Powered]:
    """Of each planned comparison of the study in `folder` and each of the differences. Raises UserError."""
    if not all(0 < each < 1 for each in differences):
        raise UserError(f"a difference of {100 * differences[0]:g} points", fix="Give points of accuracy between 0 and 100.")
    if not 0.05 < power < 1:
        raise UserError(f"a power of {power:g}", fix="Give a chance above 0.05 and below 1, such as 0.8.")
    plan, outcomes = read_plan(folder), outcomes_of(folder)
    found = []
    for pair in plan.comparisons:
        name = f"{pair.first} - {pair.second}"
        pairs = paired_differences(outcomes[pair.first], outcomes[pair.second])
        try:
            spread = spread_of(list(pairs.values()))
        except UserError as error:
            found += [Powered(name, each, 0.0, None, None, None, error.what) for each in differences]
            continue
        rows = power_table(spread, differences=differences, power=power, level=LEVEL / len(plan.comparisons))
        found += [Powered(name, row.difference, spread.value, row.likely, row.low, row.high) for row in rows]
    return found
