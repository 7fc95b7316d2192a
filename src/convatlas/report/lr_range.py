"""The chart and the page of a learning-rate range test."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from convatlas.records.lr_range import LrRange, LrStep
from convatlas.report import figures
from convatlas.report.charts import axes, labels, svg
from convatlas.report.charts.axes import Axis, Plot
from convatlas.report.charts.marks import colour_class, dot
from convatlas.report.charts.svg import Markup
from convatlas.report.html import NARROW, WIDE, Figure, templates

LABEL = 12.0
LEAST_HEADROOM = 0.1
"""How far above the first losses the chart goes on, as a share of them, where they did not fall."""
ROWS = 24
"""Of the table that says what the chart shows."""
COLOUR = 4


def lr_page(record: LrRange) -> str:
    """The page: the hint, the chart in two widths, the numbers, and what it was made with."""
    wide, narrow = (lr_chart(record, width=width) for width in (WIDE, NARROW))
    return templates().get_template("lr_range.html.j2").render(
        record=record,
        hint=hint(record),
        figure=Figure("Loss by learning rate", wide, narrow),
        rows=_thinned(record.steps),
        rate=rate,
    )  # fmt: skip


def hint(record: LrRange) -> str:
    """What the test suggests, as a hint and by which rule, in one or two sentences."""
    if record.suggestion is None:
        return f"No learning rate is suggested: {record.rule.removeprefix('none: ')}."
    return f"Try {rate(record.suggestion)}: {record.rule}. That is a hint from one short run, and no result."


def rate(value: float) -> str:
    """A learning rate in two significant digits, as it can be typed."""
    return f"{value:.2g}"


def described(record: LrRange) -> str:
    """What the chart shows, for those who cannot see it."""
    least = min(record.steps, key=lambda step: step.smoothed)
    first, last = record.steps[0], record.steps[-1]
    end = "where it exploded" if record.exploded else "at the end"
    return (
        f"Loss of {record.recipe.model} while the learning rate grows from {rate(record.low)} to {rate(last.lr)} in "
        f"{len(record.steps)} steps: smoothed {first.smoothed:.2f} at first, least {least.smoothed:.2f} at {rate(least.lr)}, "
        f"{last.smoothed:.2f} {end}. {hint(record)}"
    )


def lr_chart(record: LrRange, *, width: float, height: float = 340) -> Markup:
    """The losses, single and smoothed, over the learning rate, which is drawn logarithmic; the suggestion is marked."""
    plot = Plot(44, 36, width - 16, height - 44)
    x = Axis(axes.decades([record.low, record.high]).between(plot.left, plot.right), "learning rate", figures.power)
    top = _top(record.steps)
    scale = axes.linear([min(each, top) for step in record.steps for each in (step.loss, step.smoothed)], count=6)
    y = Axis(scale.between(plot.bottom, plot.top), "loss, nats: each batch's thin, smoothed thick")
    curves = (("thin", [(s.lr, s.loss) for s in record.steps]), ("mean", [(s.lr, s.smoothed) for s in record.steps]))
    drawn = [
        svg.path(((x.scale(a), y.scale(b)) for a, b in piece), class_=class_)
        for class_, points in curves
        for piece in _below(points, scale.high)
    ]
    least = min(record.steps, key=lambda step: step.smoothed)
    marker = dot((x.scale(least.lr), y.scale(least.smoothed)), radius=4)
    losses = svg.tag("g", *drawn, marker, class_=colour_class(COLOUR))
    parts = [axes.frame(plot, x=x, y=y), losses, *_suggestion(record, x, plot)]
    return svg.drawing(parts, width=width, height=height, name=described(record), class_="lines")


def _top(steps: Sequence[LrStep]) -> float:
    """Where the chart ends: as far above the losses before the least one as that lies below, since an explosion knows no end."""
    least = min(range(len(steps)), key=lambda i: steps[i].smoothed)
    before = max(step.smoothed for step in steps[: least + 1])
    return before + max(before - steps[least].smoothed, LEAST_HEADROOM * before)


def _below(points: Iterable[tuple[float, float]], top: float) -> Iterable[list[tuple[float, float]]]:
    """The stretches of `points` up to `top`."""
    for low, piece in groupby(points, key=lambda point: point[1] <= top):
        if low:
            yield list(piece)


def _suggestion(record: LrRange, x: Axis, plot: Plot) -> list[Markup]:
    """An upright line with its name at its left, where losses lie below it, or else at its right."""
    if record.suggestion is None:
        return []
    at = x.scale(record.suggestion)
    content = f"hint: {rate(record.suggestion)}"
    right = at - 6 - labels.text_width(content, LABEL) < plot.left
    line = svg.line((at, plot.top - 6), (at, plot.bottom), class_="chance")
    name = svg.text(content, x=at + 6 if right else at - 6, y=plot.top + 10, class_="endname", anchor="start" if right else "end")
    return [svg.tag("g", line, name, class_=colour_class(1))]


def _thinned(steps: tuple[LrStep, ...]) -> list[LrStep]:
    """So many of the steps as a table can have, evenly, the first and the last among them."""
    if len(steps) <= ROWS:
        return list(steps)
    return [steps[round(i * (len(steps) - 1) / (ROWS - 1))] for i in range(ROWS)]
