"""Learning curves with bands, and what the accuracy costs."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from convatlas.arith.pareto import pareto_front
from convatlas.records.run import EpochMetrics
from convatlas.report import figures
from convatlas.report.charts.lines import Paper, Series, lines
from convatlas.report.charts.scatter import Cost, Point, scatter
from convatlas.report.html import HALF, NARROW, Figure
from convatlas.report.study.views import View, ranked

Measure = Callable[[EpochMetrics], float | None]


def _whole_percent(value: float) -> str:
    return figures.percent(value, digits=0)


MEASURES: tuple[tuple[str, Measure, dict[str, Any]], ...] = (
    ("validation accuracy", lambda each: each.val_accuracy, {"y_format": _whole_percent, "y_floor": 0.0, "y_ceiling": 1.0}),
    ("training loss, nats", lambda each: each.train_loss, {"y_floor": 0.0}),
)
SPANS: tuple[tuple[str, Measure], ...] = (
    ("epoch", lambda each: each.epoch),
    ("seconds of training", lambda each: each.seconds),
)
MEBIBYTE = 2**20
COSTS: tuple[tuple[str, str, Callable[[View], float | None]], ...] = (
    ("parameters", "parameters", lambda view: view.variant.params),
    ("cost of one image", "MACs", lambda view: view.variant.macs),
    ("latency", "median latency of one image, ms", lambda view: _speed(view, lambda speed: 1e3 * speed.latency.mean)),
    ("memory", "peak memory of inference, MiB", lambda view: _speed(view, lambda speed: _mebibytes(speed.inference_peak_bytes))),
    ("training time", "seconds of training", lambda view: view.found.train_seconds if view.found else None),
)


def learning_curves(shown: Sequence[View]) -> list[Figure]:
    """Each measure by epoch and by seconds; a measure that no run has (no validation split) has no figure."""
    drawn = []
    for y_name, upwards, more in MEASURES:
        for x_name, across in SPANS:
            series = [made for view in shown if (made := _series(view, across, upwards)) is not None]
            if not series:
                continue
            heading = f"{y_name.partition(',')[0].capitalize()} by {x_name.partition(' ')[0]}"
            told = f"{heading}: {'; '.join(_told(each, y_name) for each in series)}"
            papers = [Paper(width, 330, told, x_name, y_name, x_whole=x_name == "epoch", **more) for width in (HALF, NARROW)]
            drawn.append(Figure(heading, *(lines(series, paper=paper) for paper in papers)))
    return drawn


def _series(view: View, across: Measure, upwards: Measure) -> Series | None:
    """The mean over a variant's seeds, as far as the shortest goes, with the range of the seeds as its band."""
    singles = [[(across(e) or 0.0, figures.finite(upwards(e))) for e in run.record.metrics] for run in view.runs]
    mean: list[tuple[float, float | None]] = []
    band = []
    for epoch in zip(*(each for each in singles if each), strict=False):
        known = [y for _, y in epoch if y is not None]
        x = fmean(x for x, _ in epoch)
        whole = len(known) == len(epoch)
        mean.append((x, fmean(known) if whole else None))
        band += [(x, min(known), max(known))] if whole and len(known) > 1 else []
    if not any(y is not None for _, y in mean):
        return None
    return Series(view.name, view.colour, tuple(mean), dash=view.dash, band=tuple(band))


def _told(series: Series, y_name: str) -> str:
    last = next(y for _, y in reversed(series.mean) if y is not None)
    return f"{series.name} ends at {figures.percent(last) if 'accuracy' in y_name else figures.significant(last)}"


# What accuracy costs


def pareto(shown: Sequence[View]) -> list[Figure]:
    """Accuracy against each cost that is known of two variants or more, with the front of those that no other dominates."""
    drawn = []
    for heading, name, of in COSTS:
        known = [(cost, mark) for view, mark in ranked(shown) if (cost := figures.finite(of(view))) is not None]
        if len(known) < 2:
            continue
        front = pareto_front([(cost, mark.value) for cost, mark in known])
        points = [Point(cost, mark, i not in front) for i, (cost, mark) in enumerate(known)]
        told = f"Test accuracy against {heading}; on the front: {', '.join(known[i][1].name for i in front)}"
        chart = scatter(points, cost=Cost(name, figures.short), width=NARROW, height=330, name=told)
        drawn.append(Figure(f"Accuracy and {heading}", chart))
    return drawn


def _speed(view: View, of: Callable[[Any], float | None]) -> float | None:
    return of(view.found.speed) if view.found and view.found.speed else None


def _mebibytes(count: int | None) -> float | None:
    return None if count is None else count / MEBIBYTE
