"""The planned comparisons: what each came to, in numbers, in words and as a forest plot."""

from collections.abc import Sequence
from dataclasses import dataclass

from convatlas.records.findings import Effect, Findings
from convatlas.records.study import Interval
from convatlas.report import figures
from convatlas.report.charts import axes
from convatlas.report.charts.axes import Axis
from convatlas.report.charts.intervals import Guide, Row, Stroke, intervals
from convatlas.report.html import NARROW, WIDE, Figure
from convatlas.report.study.views import View

TONES = {"better": "decided", "worse": "decided", "equivalent": "equal", "undecided": "open"}


@dataclass(frozen=True)
class Outcome:
    """A comparison (`first` - `second`). `verdict` is the record's, but "undecided" wherever no interval bears it out."""

    first: str
    second: str
    effect: Effect | None
    verdict: str

    @property
    def name(self) -> str:
        """The difference that is meant."""
        return f"{self.first} − {self.second}"

    @property
    def difference(self) -> Interval | None:
        """What was found, if anything."""
        return self.effect.difference if self.effect else None

    @property
    def printed(self) -> str:
        """The difference with its interval, in points."""
        found = self.difference
        if found is None:
            return "no result yet"
        mean = figures.points(found.mean, digits=digits(found))
        return f"{mean} ({ends(found)})" if bounded(found) else f"{mean} (no interval)"

    @property
    def sentence(self) -> str:
        """The finding in words."""
        if self.effect is None:
            return "Not planned, and so not tested."
        if self.verdict != self.effect.verdict:
            return "Undecided: the test speaks for a difference, and the interval does not."
        return self.effect.sentence


def digits(found: Interval) -> int:
    """Decimals of points: one, or two where the interval is narrower than half a point."""
    return 1 if found.high - found.low >= 0.005 else 2


def bounded(found: Interval) -> bool:
    """Whether there is an interval at all: one of no width only stands for a lack of it."""
    return found.high > found.low


def ends(found: Interval) -> str:
    """Both ends of an interval of a difference, in points."""
    return " to ".join(figures.points(end, digits=digits(found)) for end in (found.low, found.high))


def outcomes(findings: Findings, compared: Sequence[tuple[View, View]]) -> list[Outcome]:
    """One for each pair; a pair that was planned the other way round is turned."""
    effects = {(each.first, each.second): each for each in findings.effects}
    return [_outcome(a.name, b.name, effects) for a, b in compared]


def _outcome(first: str, second: str, effects: dict[tuple[str, str], Effect]) -> Outcome:
    if (effect := effects.get((first, second))) is None and (second, first) in effects:
        first, second, effect = second, first, effects[second, first]
    return Outcome(first, second, effect, _borne_out(effect))


def _borne_out(effect: Effect | None) -> str:
    """The verdict, if there is an interval and it says the same."""
    if effect is None or effect.difference is None or effect.verdict not in TONES or not bounded(effect.difference):
        return "undecided"
    apart = effect.difference.low > 0 or effect.difference.high < 0
    return effect.verdict if apart or effect.verdict not in ("better", "worse") else "undecided"


def p_value(p: float | None) -> str:
    """A p value as it is printed: "0.013", "< 0.001". It is never rounded to the other side of 0.05."""
    known = figures.finite(p)
    if known is None:
        return figures.DASH
    if known < 0.001:
        return "< 0.001"
    return "just below 0.05" if known < 0.05 <= float(f"{known:.2g}") else figures.significant(known, digits=2)


def forest(findings: Findings, found: Sequence[Outcome]) -> Figure | None:
    """All differences on one scale, with the zero line and, where equivalence was asked for, its margin."""
    if not any(each.difference for each in found):
        return None
    margin = findings.plan.equivalence
    rows = [_row(each) for each in found]
    values = [end for row in rows for one in row.strokes for end in (one.value, one.low, one.high) if end is not None]
    scale = axes.linear([*values, 0.0, -margin, margin], count=6)
    step = scale.ticks[1] - scale.ticks[0]
    decimals = 0 if step >= 0.01 else 1 if step >= 0.001 else 2
    axis = Axis(scale, "difference in accuracy, percentage points", lambda value: figures.points(value, digits=decimals))
    guide = Guide(0.0, margin, ("second is better", "first is better"))
    name = "Differences in test accuracy with 95 % intervals: " + "; ".join(f"{each.name}: {each.printed}" for each in found)
    wide, narrow = (intervals(rows, axis=axis, width=width, name=name, guide=guide) for width in (WIDE, NARROW))
    return Figure("Differences", wide, narrow)


def _row(outcome: Outcome) -> Row:
    found = outcome.difference
    if found is None:
        return Row(outcome.name, (), outcome.printed)
    low, high = (found.low, found.high) if bounded(found) else (None, None)
    told = f"{outcome.name}: {outcome.printed}"
    return Row(outcome.name, (Stroke(TONES[outcome.verdict], found.mean, low, high, told),), outcome.printed)
