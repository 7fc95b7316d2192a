"""The page of a tournament: who won, by how much, what it cost, and what to do with that."""

from collections.abc import Sequence
from dataclasses import dataclass

from convatlas import __version__
from convatlas.records.study import Interval
from convatlas.records.tournament import BASELINE, Standing, Tournament
from convatlas.report import figures
from convatlas.report.begun import begun_with
from convatlas.report.charts import axes
from convatlas.report.charts.axes import Axis
from convatlas.report.charts.intervals import Row, Stroke, intervals
from convatlas.report.charts.svg import Markup
from convatlas.report.html import NARROW, WIDE, Figure, templates

DECIDED, OPEN, BEST = "decided", "open", "equal"
"""Tones of the style sheet: told apart from the winner, not told apart or not compared, the winner itself."""


@dataclass(frozen=True)
class Cell:
    """What came of a strategy in one round; `beside` stands below it in small letters."""

    text: str
    beside: str = ""


def tournament_page(result: Tournament, *, about: dict[str, tuple[str, str]], command: str | None = None) -> str:
    """The page. `about` says of each strategy what it trains and who proposed it; `command` made it."""
    wide, narrow = (standings_chart(result, width=width) for width in (WIDE, NARROW))
    return templates().get_template("tournament.html.j2").render(
        result=result,
        about=about,
        begun=begun_with(result.model, result.weights),
        figure=Figure("Accuracy in the last round of each", wide, narrow),
        rounds=[_trainings(result, number) for number in range(1, len(result.rungs) + 1)],
        courses=round_by_round(result),
        baseline=_baseline(result),
        lost=_lost(result),
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
    return Row(f"{each.strategy}{_ending(each, result)}", (stroke,), figures.percent(each.accuracy.mean))


def _ending(each: Standing, result: Tournament) -> str:
    """Why a strategy's figures are not of the last round: it was out, or it went on and failed."""
    if each.rung == len(result.rungs):
        return ""
    failed = each.strategy in result.rungs[each.rung]
    return f", failed in round {each.rung + 1}" if failed else f", out after round {each.rung}"


def _open(each: Standing) -> bool:
    gap = each.difference
    return gap is None or gap.method.endswith("no interval") or gap.low <= 0 <= gap.high


# Rounds


def round_by_round(result: Tournament) -> list[tuple[str, tuple[Cell, ...]]]:
    """Each strategy, best first and those that failed altogether last, with what came of it in each round."""
    placed = [each.strategy for each in result.standings]
    names = dict.fromkeys([*placed, *result.rungs[0]])
    return [(name, tuple(_cell(result, name, number) for number in range(1, len(result.rungs) + 1))) for name in names]


def _cell(result: Tournament, name: str, number: int) -> Cell:
    if name not in result.rungs[number - 1]:
        return Cell("out" if number > 1 and name in result.rungs[number - 2] else "")
    own = [trial.accuracy for trial in result.trials if trial.strategy == name and trial.rung == number]
    done = [accuracy for accuracy in own if accuracy is not None]
    if not done:
        return Cell("failed" if own else figures.DASH)
    failed = len(own) - len(done)
    return Cell(figures.percent(sum(done) / len(done)), f"{failed} of {len(own)} failed" if failed else "")


def _trainings(result: Tournament, number: int) -> str:
    """How many trainings each strategy had in that round, in words; empty where they differ."""
    counts = {sum(t.strategy == name and t.rung == number for t in result.trials) for name in result.rungs[number - 1]}
    if len(counts) != 1 or counts == {0}:
        return ""
    (count,) = counts
    return "1 training each" if count == 1 else f"{count} trainings each"


def _lost(result: Tournament) -> list[str]:
    """A sentence for each strategy that has no place, since none of its trainings came to an end."""
    placed = {each.strategy for each in result.standings}
    said = []
    for name in result.rungs[0]:
        own = [trial for trial in result.trials if trial.strategy == name]
        if name in placed or not own:
            continue
        cause = next((trial.cause for trial in own if trial.cause), "no epoch was finished.")
        told = "its only training" if len(own) == 1 else f"all of its {len(own)} trainings"
        said.append(f"{name} has no place among the others, since {told} failed{', first' if len(own) > 1 else ''}: {cause}")
    return said


def _baseline(result: Tournament) -> str:
    """What is to be said of the random weights, which no round leaves out; empty where they did not compete."""
    own = [trial for trial in result.trials if trial.strategy == BASELINE]
    if not own:
        return ""
    done = {trial.rung for trial in own if trial.accuracy is not None}
    if not done:
        return "Random weights, the baseline, could not be trained, so that nothing shows what pretraining is worth here."
    failed = sorted({trial.rung for trial in own} - done)
    but = f"; in round {' and '.join(map(str, failed))} they failed" if failed else ""
    return f"Random weights are in every round, as the baseline{but}."


# Words


def shown(interval: Interval) -> str:
    """A share with its interval in words."""
    return f"{figures.percent(interval.mean)} ({figures.percent(interval.low, sign=False)} to {figures.percent(interval.high)})"


def points(interval: Interval) -> tuple[str, str]:
    """A difference of shares in percentage points, and its interval, empty if there is none."""
    if interval.method.endswith("no interval"):
        return figures.points(interval.mean), ""
    return figures.points(interval.mean), f"{figures.points(interval.low)} to {figures.points(interval.high)}"
