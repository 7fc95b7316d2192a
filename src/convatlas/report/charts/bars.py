"""Accuracy bars with intervals, one level bar a model, and the line that guessing reaches."""

from collections.abc import Sequence

from convatlas.report import figures
from convatlas.report.charts import axes, labels, svg
from convatlas.report.charts.axes import Plot, Scale
from convatlas.report.charts.marks import Mark, colour_class, dot, whisker
from convatlas.report.charts.svg import Markup

ROW = 34.0
NAME = 13.0  # font size of names, pixels


def bars(marks: Sequence[Mark], *, chance: float | None, width: float, name: str) -> Markup:
    """`marks` from top to bottom, bars from zero, each value printed at the right; `chance` is a share in [0, 1].

    In a narrow drawing (below 500 pixels) the intervals are drawn but not printed.
    """
    printed = [_printed(each, width >= 500) for each in marks]
    gutter = max((labels.text_width(each, NAME) for each in printed), default=0) + 10
    names = min(0.34 * width, max((labels.text_width(each.name, NAME) for each in marks), default=0) + 12)
    plot = Plot(names, 26, width - gutter, 26 + ROW * len(marks))
    highest = [each.high if each.high is not None else each.value for each in marks]
    scale = axes.linear([0.0, *highest, chance or 0.0], count=6, floor=0.0, ceiling=1.0).between(plot.left, plot.right)
    rows = [_row(mark, text, plot=plot, scale=scale, index=i) for i, (mark, text) in enumerate(zip(marks, printed, strict=True))]
    parts = [_grid(plot, scale), *rows, *_chance(plot, scale, chance)]
    return svg.drawing(parts, width=width, height=plot.bottom + 26, name=name, class_="bars")


def _printed(mark: Mark, wide: bool) -> str:
    value = figures.percent(mark.value)
    if not wide or mark.low is None or mark.high is None:
        return value
    return f"{value}  ({figures.percent(mark.low, sign=False)} to {figures.percent(mark.high, sign=False)})"


def _row(mark: Mark, printed: str, *, plot: Plot, scale: Scale, index: int) -> Markup:
    middle = plot.top + (index + 0.5) * ROW
    parts: list[Markup] = [
        svg.title(mark.told()),
        svg.text(
            labels.shorten(mark.name, plot.left - 12, size=NAME), x=plot.left - 9, y=middle + 4.5, class_="label", anchor="end"
        ),
        svg.tag("rect", x=plot.left, y=middle - 9, width=max(0.0, scale(mark.value) - plot.left), height=18, rx=2, class_="bar"),
        *(svg.tag("circle", cx=scale(each), cy=middle, r=2.2, class_="single") for each in mark.singles if len(mark.singles) > 1),
    ]
    if mark.low is not None and mark.high is not None:
        parts.append(whisker((scale(mark.low), middle), (scale(mark.high), middle), cap=5))
    parts.append(dot((scale(mark.value), middle)))
    parts.append(svg.text(printed, x=plot.right + 10, y=middle + 4.5, class_="value"))
    return svg.tag("g", *parts, class_=colour_class(mark.colour))


def _grid(plot: Plot, scale: Scale) -> Markup:
    parts = []
    for value in scale.ticks:
        at = scale(value)
        parts.append(svg.line((at, plot.top), (at, plot.bottom), class_="grid"))
        parts.append(svg.text(figures.percent(value, digits=0), x=at, y=plot.bottom + 17, class_="small", anchor="middle"))
    return svg.tag("g", *parts, svg.line((plot.left, plot.top), (plot.left, plot.bottom), class_="base"), class_="axes")


def _chance(plot: Plot, scale: Scale, chance: float | None) -> list[Markup]:
    if chance is None:
        return []
    at = scale(chance)
    content = f"guessing: {figures.percent(chance)}"
    half = labels.text_width(content, axes.TICK) / 2
    middle = min(max(at, half + 2), plot.right - half)
    return [
        svg.line((at, plot.top - 6), (at, plot.bottom), class_="chance"),
        svg.text(content, x=middle, y=plot.top - 11, class_="small", anchor="middle"),
    ]
