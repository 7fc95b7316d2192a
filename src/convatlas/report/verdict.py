"""The outcome of a comparison in words, as far as the intervals bear it and no further."""

from collections.abc import Sequence
from dataclasses import dataclass

from convatlas.records.study import Comparison
from convatlas.report import figures
from convatlas.report.charts.marks import Mark
from convatlas.report.views import View, ranked


@dataclass(frozen=True)
class Verdict:
    """`headline` in one sentence; `basis` says what it rests on; `notes` are reservations."""

    headline: str
    basis: str
    notes: tuple[str, ...]


def verdict(comparison: Comparison, shown: Sequence[View]) -> Verdict:
    """Which model is best and which cannot be told apart from it: those whose 95 % intervals overlap its own."""
    marks = [mark for _, mark in ranked(shown)]
    if not marks:
        return Verdict("No model has finished yet, so there is no outcome to report.", "", ())
    return Verdict(_headline(marks), _basis(comparison, shown), tuple(_notes(comparison, shown)))


def overlapping(one: Mark, other: Mark) -> bool:
    """Whether two intervals share a value. A model without an interval is taken at its mean."""
    (low, high), (other_low, other_high) = _ends(one), _ends(other)
    return low <= other_high and other_low <= high


def listed(names: Sequence[str]) -> str:
    """Names as a sentence has them: "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else ""


def _ends(mark: Mark) -> tuple[float, float]:
    return (mark.value if mark.low is None else mark.low, mark.value if mark.high is None else mark.high)


def _headline(marks: Sequence[Mark]) -> str:
    best, rest = marks[0], marks[1:]
    reached = f"{best.name} reaches {figures.percent(best.value)}"
    tied = [each.name for each in rest if overlapping(best, each)]
    if not rest:
        return f"{reached}. With one finished model there is nothing to compare it with."
    if not tied:
        return f"{best.name} is the most accurate, at {figures.percent(best.value)}; no other model’s interval overlaps its own."
    if len(tied) == len(rest):
        return f"No winner: {listed([best.name, *tied])} cannot be told apart at this budget. {reached}."
    verb = "cannot be told apart from it at this budget"
    return f"{best.name} has the highest accuracy, {figures.percent(best.value)}, but {listed(tied)} {verb}."


def _basis(comparison: Comparison, shown: Sequence[View]) -> str:
    rows = [view.row for view, _ in ranked(shown)]
    several = sorted({len(row.accuracies) for row in rows})
    seeds = listed([str(each) for each in several])
    plural = "seed" if several == [1] else "seeds"
    methods = listed(list(dict.fromkeys(row.accuracy.method for row in rows if row.accuracy)))
    return f"Measured on {figures.count(comparison.n_test)} test images, {seeds} {plural} a model. 95 % intervals: {methods}."


def _notes(comparison: Comparison, shown: Sequence[View]) -> list[str]:
    notes = []
    alone = [view.name for view, _ in ranked(shown) if len(view.row.accuracies) == 1]
    if alone:
        whose = "The intervals" if len(alone) == len(ranked(shown)) else f"With one seed, the interval of {listed(alone)}"
        verb = "cover" if whose == "The intervals" else "covers"
        notes.append(
            f"{whose} {verb} the sampling of test images only, not the spread from seed to seed: "
            f"another seed could {'change the order' if len(ranked(shown)) > 1 else 'give another figure'}."
        )
    chance = 1 / len(comparison.classes) if comparison.classes else 0.0
    lost = [mark.name for _, mark in ranked(shown) if _ends(mark)[0] <= chance]
    if lost:
        notes.append(f"Not shown to be better than guessing ({figures.percent(chance)}): {listed(lost)}.")
    open_models = len(comparison.models) - len(ranked(shown))
    if open_models > 0:
        verb = "has" if open_models == 1 else "have"
        notes.append(f"{open_models} of {len(comparison.models)} models {verb} no result and no part in this.")
    return notes
