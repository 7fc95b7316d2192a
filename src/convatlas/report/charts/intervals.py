"""Values with their intervals, row by row from top to bottom, on one scale: a forest plot, where zero is marked."""

from collections.abc import Sequence
from dataclasses import dataclass

from convatlas.report.charts import axes, labels, svg
from convatlas.report.charts.axes import Axis, Plot
from convatlas.report.charts.marks import dot, whisker
from convatlas.report.charts.svg import Markup

NAME = 13.0  # font size of names and printed values, pixels
NARROW = 500.0  # below this width a row's name and value stand above it
ROW = 34.0
STEP = 11.0  # between the strokes of one row


@dataclass(frozen=True)
class Stroke:
    """One value. `tone` are classes of the style sheet that give it its colour; `told` says it in words."""

    tone: str
    value: float
    low: float | None
    high: float | None
    told: str
    singles: tuple[float, ...] = ()


@dataclass(frozen=True)
class Row:
    """What one row shows: strokes below each other, a name before them and words behind."""

    name: str
    strokes: tuple[Stroke, ...]
    printed: str = ""


@dataclass(frozen=True)
class Guide:
    """What the values are held against: a line at `at`, and where `margin` is not 0 an area of that size to both sides.

    `sides` are written at the axis's two ends: what it means to lie there.
    """

    at: float
    margin: float = 0.0
    sides: tuple[str, str] | None = None


def intervals(rows: Sequence[Row], *, axis: Axis, width: float, name: str, guide: Guide | None = None) -> Markup:
    """`rows` on the scale of `axis`, which is not placed yet."""
    narrow = width < NARROW
    gutter = 14.0 if narrow else max((labels.text_width(each.printed, NAME) for each in rows), default=0.0) + 18
    names = 10.0 if narrow else min(0.34 * width, max((labels.text_width(each.name, NAME) for each in rows), default=0.0) + 18)
    top = 26.0 if guide is not None and guide.sides else 10.0
    above = _above(rows, width) if narrow else 0.0
    heights = [max(ROW if not narrow else 22.0, STEP * len(each.strokes) + 12) + above for each in rows]
    plot = Plot(names, top, width - gutter, top + sum(heights))
    scale = axis.scale.between(plot.left, plot.right)
    parts = _guided(plot, Axis(scale, axis.name, axis.write), guide)
    at = top
    for row, height in zip(rows, heights, strict=True):
        parts.append(_row(row, scale, Plot(plot.left, at, plot.right, at + height), above))
        at += height
    return svg.drawing(parts, width=width, height=plot.bottom + 44, name=name, class_="intervals")


def _above(rows: Sequence[Row], width: float) -> float:
    """The height of the words above each row of a narrow drawing: of two lines, where a name and its value do not fit in one."""
    longest = max((labels.text_width(f"{each.name}   {each.printed}", NAME) for each in rows if each.printed), default=0.0)
    return 24.0 if longest < width else 40.0


def _guided(plot: Plot, axis: Axis, guide: Guide | None) -> list[Markup]:
    parts: list[Markup] = []
    if guide is not None and guide.margin:
        left, right = (axis.scale(guide.at + side * guide.margin) for side in (-1, 1))
        parts.append(svg.tag("rect", x=left, y=plot.top, width=right - left, height=plot.bottom - plot.top, class_="margin"))
    for value in axis.scale.ticks:
        at = axis.scale(value)
        parts.append(svg.line((at, plot.top), (at, plot.bottom), class_="grid"))
    parts += axes.below(plot, axis)
    if guide is not None:
        at = axis.scale(guide.at)
        parts.append(svg.line((at, plot.top - 4), (at, plot.bottom), class_="zeroline"))
        parts += _sides(at, plot, guide.sides) if guide.sides is not None else []
    return parts


def _sides(at: float, plot: Plot, sides: tuple[str, str]) -> list[Markup]:
    """The words at both sides of the guide, each where there is room for it."""
    first, second = (labels.text_width(each, axes.TICK) + 8 for each in sides)
    left = [svg.text(sides[0], x=at - 8, y=plot.top - 10, class_="small", anchor="end")] if at - first > 0 else []
    right = [svg.text(sides[1], x=at + 8, y=plot.top - 10, class_="small")] if at + second < plot.right + 12 else []
    return left + right


def _row(row: Row, scale: axes.Scale, box: Plot, above: float) -> Markup:
    """`above` is the height of the words above the strokes; 0: they stand at both sides."""
    top = box.top + above
    middle = (top + box.bottom) / 2
    first = middle - STEP * (len(row.strokes) - 1) / 2
    parts = [_stroke(each, scale, first + i * STEP) for i, each in enumerate(row.strokes)]
    if above:
        shown = labels.shorten(row.name, box.right - box.left + 12, size=NAME)
        parts.append(svg.text(shown, x=box.left - 6, y=box.top + 16, class_="label"))
        parts.append(svg.text(row.printed, x=box.right + 8, y=top - 8, class_="value", anchor="end"))
    else:
        shown = labels.shorten(row.name, box.left - 14, size=NAME)
        parts.append(svg.text(shown, x=box.left - 12, y=middle + 4.5, class_="label", anchor="end"))
        parts.append(svg.text(row.printed, x=box.right + 14, y=middle + 4.5, class_="value"))
    return svg.tag("g", svg.title(row.name), *parts)


def _stroke(stroke: Stroke, scale: axes.Scale, y: float) -> Markup:
    several = stroke.singles if len(stroke.singles) > 1 else ()
    rings = [svg.tag("circle", cx=scale(each), cy=y, r=2.2, class_="single") for each in several]
    line = [] if stroke.low is None or stroke.high is None else [whisker((scale(stroke.low), y), (scale(stroke.high), y), cap=4)]
    return svg.tag("g", svg.title(stroke.told), *rings, *line, dot((scale(stroke.value), y)), class_=stroke.tone)
