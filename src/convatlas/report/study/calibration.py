"""Whether a variant is right as often as it is sure: the reliability diagram (Guo et al. 2017, "On Calibration of Modern Neural
Networks", figure 1)."""

from collections.abc import Sequence

from convatlas.report import figures
from convatlas.report.charts.lines import Paper, Points, Series, lines
from convatlas.report.html import HALF, NARROW, Figure
from convatlas.report.study.views import View

BINS = 15
FEWEST = 10
"""A bin of fewer answers is left out: its share says nothing."""


def reliability(shown: Sequence[View]) -> Figure | None:
    """One curve a variant, over the answers of all of its seeds."""
    series = [Series(view.name, view.colour, found, dash=view.dash) for view in shown if len(found := bins(view)) > 1]
    if not series:
        return None
    name = f"Share of right answers against confidence, of {', '.join(each.name for each in series)}"
    papers = [
        Paper(width, 380, name, "confidence", "right answers", y_format=_percent, y_floor=0.0, y_ceiling=1.0, shares=True)
        for width in (HALF, NARROW)
    ]
    return Figure("Reliability", *(lines(series, paper=paper) for paper in papers))


def bins(view: View) -> Points:
    """(mean confidence, share of right answers) in each of 15 bins of equal width that has enough answers."""
    sums: list[list[float]] = [[0.0, 0.0, 0.0] for _ in range(BINS)]
    for run in view.runs:
        if run.answers is None:
            continue
        for label, said, confidence in zip(run.answers.labels, run.answers.predicted, run.answers.confidence, strict=True):
            one = sums[min(BINS - 1, int(confidence * BINS))]
            one[0], one[1], one[2] = one[0] + 1, one[1] + confidence, one[2] + (label == said)
    return tuple((sure / count, right / count) for count, sure, right in sums if count >= FEWEST)


def _percent(value: float) -> str:
    return figures.percent(value, digits=0)
