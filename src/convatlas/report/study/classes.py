"""Class by class: how much every variant finds of each, what two variants confuse differently, and their surest mistakes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from convatlas.records.findings import Findings
from convatlas.report import figures
from convatlas.report.charts import axes, svg
from convatlas.report.charts.axes import Axis
from convatlas.report.charts.difference import difference
from convatlas.report.charts.intervals import Row, Stroke, intervals
from convatlas.report.charts.marks import colour_class
from convatlas.report.html import NARROW, WIDE, Figure
from convatlas.report.sections import LARGEST, Worst, surest
from convatlas.report.study.views import View

SHOWN = 25
"""Up to so many classes are all drawn; of more those in which the variants differ most."""
PAIRS = 6
"""Comparisons whose confusions are held against each other; of more classes than have names at the edges only the first two."""
SHIFTS = 8
PICTURES = 6
"""Mistakes of each variant; fewer where their pictures would make the page heavy."""
ROOM = 1_000_000
"""Letters that the pictures of all mistakes together may have."""


@dataclass(frozen=True)
class PerClass:
    """The chart of the accuracies class by class; `left_out` classes are not on it."""

    figure: Figure
    left_out: int


@dataclass(frozen=True)
class Shift:
    """By how much the share of class `truth`'s images that are called `answer` is larger for the first variant."""

    truth: str
    answer: str
    change: float


@dataclass(frozen=True)
class Confusions:
    """Two variants' confusion matrices, the first minus the second. `chart` is None for more classes than can be read."""

    first: str
    second: str
    chart: svg.Markup | None
    shifts: tuple[Shift, ...]


@dataclass(frozen=True)
class Errors:
    """A variant's surest mistakes over all of its seeds."""

    view: View
    wrong: int
    n: int
    worst: tuple[Worst, ...]


def per_class(findings: Findings, shown: Sequence[View]) -> PerClass | None:
    """One row a class, one stroke a variant."""
    known = [view for view in shown if view.found and view.found.per_class]
    if not known:
        return None
    classes = findings.plan.classes
    kept = sorted(range(len(classes)), key=lambda index: -_spread(known, index))[:SHOWN]
    rows = [Row(classes[index], tuple(_stroke(view, index, classes[index]) for view in known)) for index in sorted(kept)]
    ends = [end for row in rows for one in row.strokes for end in (one.value, one.low, one.high) if end is not None]
    scale = axes.linear(ends, floor=0.0, ceiling=1.0, count=6)
    axis = Axis(scale, "share of the class's test images that are found", lambda value: figures.percent(value, digits=0))
    name = f"Accuracy by class, of {', '.join(view.name for view in known)}"
    wide, narrow = (intervals(rows, axis=axis, width=width, name=name) for width in (WIDE, NARROW))
    return PerClass(Figure("By class", wide, narrow), len(classes) - len(rows))


def _spread(known: Sequence[View], index: int) -> float:
    means = [view.found.per_class[index].mean for view in known if view.found]
    return max(means) - min(means)


def _stroke(view: View, index: int, label: str) -> Stroke:
    assert view.found is not None
    one = view.found.per_class[index]
    told = f"{view.name}, {label}: {figures.percent(one.mean)}, 95 % interval {figures.percent(one.low, sign=False)} to "
    return Stroke(colour_class(view.colour), one.mean, one.low, one.high, told + figures.percent(one.high))


# Confusion


def confusions(findings: Findings, compared: Sequence[tuple[View, View]]) -> list[Confusions]:
    """Of the first so many pairs of which both have been judged."""
    found = (_confusions(findings, first, second) for first, second in compared)
    return [each for each in found if each is not None][: PAIRS if len(findings.plan.classes) <= SHOWN else 2]


def _confusions(findings: Findings, first: View, second: View) -> Confusions | None:
    ours, theirs = _shares(first), _shares(second)
    if ours is None or theirs is None:
        return None
    classes = findings.plan.classes
    change = [[a - b for a, b in zip(*rows, strict=True)] for rows in zip(ours, theirs, strict=True)]
    name = f"Confusion of {first.name} minus that of {second.name}"
    chart = difference(change, classes=classes, name=name) if len(classes) <= LARGEST else None
    cells = ((i, j, value) for i, row in enumerate(change) for j, value in enumerate(row) if i != j and value)
    largest = sorted(cells, key=lambda cell: -abs(cell[2]))[:SHIFTS]
    return Confusions(first.name, second.name, chart, tuple(Shift(classes[i], classes[j], value) for i, j, value in largest))


def _shares(view: View) -> list[list[float]] | None:
    """The confusion matrix over a variant's seeds, each row as shares of its class; None while no run was judged."""
    matrices = [run.record.test.confusion for run in view.runs if run.record.test is not None]
    if not matrices:
        return None
    added = [[sum(cells) for cells in zip(*rows, strict=True)] for rows in zip(*matrices, strict=True)]
    return [[count / max(1, sum(row)) for count in row] for row in added]


# Mistakes


def errors(shown: Sequence[View]) -> list[Errors]:
    """Of each variant that was judged."""
    every = [each for view in shown if (each := _errors(view)) is not None]
    for count in range(PICTURES, 0, -1):
        kept = [replace(each, worst=each.worst[:count]) for each in every]
        if sum(len(one.picture or "") for each in kept for one in each.worst) <= ROOM:
            return kept
    return [replace(each, worst=tuple(replace(one, picture=None) for one in each.worst[:PICTURES])) for each in every]


def _errors(view: View) -> Errors | None:
    tests = [(run.seed, run.record.test) for run in view.runs if run.record.test is not None]
    if not tests:
        return None
    mistakes = [(seed, mistake) for seed, test in tests for mistake in test.worst]
    wrong = sum(sum(row) - row[i] for _, test in tests for i, row in enumerate(test.confusion))
    return Errors(view, wrong, sum(sum(map(sum, test.confusion)) for _, test in tests), surest(mistakes))
