"""What the page shows of each model: its name, colour, mark and curves, chosen from the comparison and its runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from convatlas.records.run import EpochMetrics, RunRecord
from convatlas.records.study import Comparison, ComparisonRow
from convatlas.report import figures
from convatlas.report.charts.lines import Points, Series
from convatlas.report.charts.marks import Mark

# Each family keeps its colour on every page; the style sheet's c0 to c7 are in this order.
FAMILIES = ("lenet", "alexnet", "vgg", "googlenet", "resnet", "densenet", "efficientnet", "convnext")
Measure = Callable[[EpochMetrics], float | None]


@dataclass(frozen=True)
class View:
    """A model as the page shows it. `runs` are those that its accuracy was made of; `mark` is None while it has no accuracy."""

    row: ComparisonRow
    name: str
    colour: int
    dash: int
    mark: Mark | None
    runs: tuple[RunRecord, ...]


def views(comparison: Comparison, runs: Sequence[RunRecord]) -> list[View]:
    """All rows, the most accurate first, those without an accuracy last in the order given."""
    colours = _colours([row.family for row in comparison.rows])
    titles = [row.title for row in comparison.rows]
    shown = []
    for index, row in enumerate(comparison.rows):
        name = row.title if titles.count(row.title) == 1 and row.title.strip() else row.model
        before = sum(colours[each.family] == colours[row.family] for each in comparison.rows[:index])
        mark = _mark(row, name, colours[row.family])
        shown.append(View(row, name, colours[row.family], before, mark, counted(row, runs)))
    return sorted(shown, key=lambda view: -view.mark.value if view.mark else 2.0)


def ranked(shown: Sequence[View]) -> list[tuple[View, Mark]]:
    """The models that have an accuracy, each with its mark."""
    return [(view, view.mark) for view in shown if view.mark is not None]


def counted(row: ComparisonRow, runs: Sequence[RunRecord]) -> tuple[RunRecord, ...]:
    """The runs that a row's accuracy was made of, by seed."""
    own = [run for run in runs if run.summary.model == row.model and run.summary.seed in row.seeds]
    return tuple(sorted(own, key=lambda run: run.summary.seed))


def folder(comparison: Comparison, run: RunRecord) -> str | None:
    """The folder of a run as the comparison has it, or None where that cannot be told.

    A row lists the folders of all runs that have begun, and the seeds of those that count: where these are as many, they
    belong together one by one, else the folder's name tells its seed.
    """
    seed = run.summary.seed
    for row in comparison.rows:
        if row.model == run.summary.model:
            named = [each for each in row.runs if each.endswith(f"-seed{seed}")]
            if len(named) == 1:
                return named[0]
            if len(row.runs) == len(row.seeds) and seed in row.seeds:
                return row.runs[row.seeds.index(seed)]
    return None


def curves(shown: Sequence[View], *, across: Measure, upwards: Measure) -> list[Series]:
    """One curve a model: `upwards` against `across`, epoch by epoch, with the mean over its runs."""
    return [
        Series(view.name, view.colour, _mean(single), singles=tuple(single), dash=view.dash)
        for view in shown
        if (single := [_points(run, across, upwards) for run in view.runs if run.metrics])
    ]


def _points(run: RunRecord, across: Measure, upwards: Measure) -> Points:
    return tuple((across(each) or 0.0, figures.finite(upwards(each))) for each in run.metrics)


def _mean(singles: Sequence[Points]) -> Points:
    """Mean over runs, as far as the shortest goes; a gap where any run has one."""
    points: list[tuple[float, float | None]] = []
    for epoch in zip(*singles, strict=False):
        known = [y for _, y in epoch if y is not None]
        points.append((fmean(x for x, _ in epoch), fmean(known) if len(known) == len(epoch) else None))
    return tuple(points)


def _mark(row: ComparisonRow, name: str, colour: int) -> Mark | None:
    if row.accuracy is None or figures.finite(row.accuracy.mean) is None:
        return None
    low, high = figures.finite(row.accuracy.low), figures.finite(row.accuracy.high)
    if low is None or high is None:
        low = high = None
    singles = tuple(each for each in row.accuracies if figures.finite(each) is not None)
    return Mark(name, colour, row.accuracy.mean, low, high, singles)


def _colours(families: Sequence[str]) -> dict[str, int]:
    """The known families' own colours; others take what is left over, and share when nothing is."""
    colours = {family: FAMILIES.index(family) for family in families if family in FAMILIES}
    free = [index for index in range(len(FAMILIES)) if index not in colours.values()] or list(range(len(FAMILIES)))
    others = [family for family in dict.fromkeys(families) if family not in colours]
    return colours | {family: free[index % len(free)] for index, family in enumerate(others)}
