"""The page of a tournament: who won, by how much, what it cost, and what to do with that."""

from collections.abc import Sequence

from convatlas import __version__
from convatlas.records.naming import weights_name
from convatlas.records.study import Interval
from convatlas.records.tournament import Standing, Tournament
from convatlas.report import figures
from convatlas.report.charts import axes
from convatlas.report.charts.axes import Axis
from convatlas.report.charts.intervals import Row, Stroke, intervals
from convatlas.report.charts.svg import Markup
from convatlas.report.html import NARROW, WIDE, Figure, templates

DECIDED, OPEN, BEST = "decided", "open", "equal"
"""Tones of the style sheet: told apart from the winner, not told apart, the winner itself."""


def tournament_page(result: Tournament, *, about: dict[str, tuple[str, str]], command: str | None = None) -> str:
    """The page. `about` says of each strategy what it trains and who proposed it; `command` made it."""
    wide, narrow = (standings_chart(result, width=width) for width in (WIDE, NARROW))
    return templates().get_template("tournament.html.j2").render(
        result=result,
        about=about,
        weights=weights_name(result.weights or ""),
        figure=Figure("Accuracy in the last round of each", wide, narrow),
        rounds=[(number, names) for number, names in enumerate(result.rungs, start=1)],
        shown=shown,
        points=points,
        failed=[trial for trial in result.trials if trial.cause is not None],
        command=command,
        version=__version__,
    )  # fmt: skip


def standings_chart(result: Tournament, *, width: float) -> Markup:
    """Each strategy's mean accuracy with its interval, best first; the rings are its trainings."""
    singles = {
        each.strategy: tuple(
            t.accuracy for t in result.trials if t.strategy == each.strategy and t.rung == each.rung and t.accuracy is not None
        )
        for each in result.standings
    }
    rows = [_row(each, singles[each.strategy], result) for each in result.standings]
    values = [v for each in result.standings for v in (each.accuracy.low, each.accuracy.high, *singles[each.strategy])]
    scale = axes.linear(values, ceiling=1.0)
    axis = Axis(scale, "accuracy on images that were not trained on", lambda value: figures.percent(value, digits=0))
    return intervals(rows, axis=axis, width=width, name="Accuracy of each strategy")


def _row(each: Standing, singles: Sequence[float], result: Tournament) -> Row:
    tone = BEST if each.strategy == result.winner else OPEN if _open(each) else DECIDED
    told = f"{each.strategy}: {shown(each.accuracy)}"
    stroke = Stroke(tone, each.accuracy.mean, each.accuracy.low, each.accuracy.high, told, tuple(singles))
    suffix = "" if each.rung == len(result.rungs) else f", out after round {each.rung}"
    return Row(f"{each.strategy}{suffix}", (stroke,), figures.percent(each.accuracy.mean))


def _open(each: Standing) -> bool:
    return each.difference is None or each.difference.low <= 0 <= each.difference.high


def shown(interval: Interval) -> str:
    """A share with its interval in words."""
    return f"{figures.percent(interval.mean)} ({figures.percent(interval.low, sign=False)} to {figures.percent(interval.high)})"


def points(interval: Interval) -> str:
    """A difference of shares in percentage points, with its interval if there is one."""
    if interval.method.endswith("no interval"):
        return figures.points(interval.mean)
    return f"{figures.points(interval.mean)} ({figures.points(interval.low)} to {figures.points(interval.high)})"
