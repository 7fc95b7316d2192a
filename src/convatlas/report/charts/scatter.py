"""Accuracy against a cost: one named point a model, with its interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from convatlas.report import figures
from convatlas.report.charts import axes, labels, svg
from convatlas.report.charts.axes import Axis, Format, Plot
from convatlas.report.charts.labels import Box
from convatlas.report.charts.marks import Mark, colour_class, dot, whisker
from convatlas.report.charts.svg import Markup

LABEL = 12.0  # font size of the names beside the points, pixels


@dataclass(frozen=True)
class Point:
    """A model at its cost. `dominated`: another one is as accurate and no dearer, or as cheap and no worse (None: not asked)."""

    cost: float
    mark: Mark
    dominated: bool | None = None


@dataclass(frozen=True)
class Cost:
    """What the level axis measures, and how its values are written."""

    name: str
    write: Format = figures.tick


def scatter(points: Sequence[Point], *, cost: Cost, width: float, height: float, name: str) -> Markup:
    """`points` with accuracy upwards and cost to the right, logarithmic where the costs span more than a decade.

    The front of those that are not dominated is drawn as steps; the dominated are pale.
    """
    plot = Plot(44, 30, width - 12, height - 44)
    x, y = _axes(points, cost, plot)
    at = [(x.scale(each.cost), y.scale(each.mark.value)) for each in points]
    texts = [labels.shorten(each.mark.name, 0.36 * width, size=LABEL) for each in points]
    sizes = [(labels.text_width(each, LABEL) + 4, LABEL + 3) for each in texts]
    room = Box(plot.left + 2, plot.top - 4, plot.right + 10, plot.bottom - 2)
    boxes = labels.place(at, sizes, bounds=room, marks=[_extent(each, x, y) for each in points])
    parts = [axes.frame(plot, x=x, y=y), *_front(points, x, y), *(_point(each, x, y) for each in points)]
    parts += [_name(*each) for each in zip(points, texts, at, boxes, strict=True)]
    return svg.drawing(parts, width=width, height=height, name=name, class_="scatter")


def _axes(points: Sequence[Point], cost: Cost, plot: Plot) -> tuple[Axis, Axis]:
    ends = [end for each in points for end in (each.mark.value, each.mark.low, each.mark.high) if end is not None]
    x = axes.spanning(each.cost for each in points).between(plot.left, plot.right)
    y = axes.linear(ends, floor=0.0, ceiling=1.0).between(plot.bottom, plot.top)
    percent = Axis(y, "test accuracy", lambda value: figures.percent(value, digits=0 if y.high - y.low >= 0.05 else 1))
    return Axis(x, cost.name, cost.write), percent


def _front(points: Sequence[Point], x: Axis, y: Axis) -> list[Markup]:
    front = sorted({(x.scale(each.cost), y.scale(each.mark.value)) for each in points if each.dominated is False})
    steps = [corner for before, after in pairwise(front) for corner in ((after[0], before[1]), after)]
    return [svg.path([front[0], *steps], class_="front")] if steps else []


def _extent(point: Point, x: Axis, y: Axis) -> Box:
    """The box of the whiskers."""
    at = x.scale(point.cost)
    low, high = point.mark.low, point.mark.high
    if low is None or high is None:
        low = high = point.mark.value
    return Box(at - 5, y.scale(high), at + 5, y.scale(low))


def _point(point: Point, x: Axis, y: Axis) -> Markup:
    at, mark = x.scale(point.cost), point.mark
    parts = [svg.title(f"{mark.told()}; {x.name} {x.write(point.cost)}")]
    if mark.low is not None and mark.high is not None:
        parts.append(whisker((at, y.scale(mark.low)), (at, y.scale(mark.high)), cap=3))
    return svg.tag("g", *parts, dot((at, y.scale(mark.value)), radius=5), class_=_classes(point))


def _classes(point: Point) -> str:
    return colour_class(point.mark.colour, *(["pale"] if point.dominated else []))


def _name(point: Point, content: str, at: tuple[float, float], box: Box | None) -> Markup:
    if box is None:
        return Markup("")
    middle = ((box.left + box.right) / 2, (box.top + box.bottom) / 2)
    parts = []
    nearest = (min(max(at[0], box.left), box.right), min(max(at[1], box.top), box.bottom))
    if abs(nearest[0] - at[0]) + abs(nearest[1] - at[1]) > 12:
        parts.append(svg.line(at, nearest, class_="leader"))
    parts.append(svg.text(content, x=middle[0], y=middle[1] + 4, class_="endname", anchor="middle"))
    return svg.tag("g", *parts, class_=_classes(point))
