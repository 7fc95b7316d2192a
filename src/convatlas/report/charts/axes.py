"""Scales, ticks and the frame of a plot."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from convatlas.report import figures
from convatlas.report.charts import labels, svg
from convatlas.report.charts.svg import Markup

TICK = 11.0  # font size of tick labels, pixels; the style sheet says the same
Format = Callable[[float], str]


@dataclass(frozen=True)
class Scale:
    """Where a value stands between two pixels, and which values are marked. A logarithmic scale takes positive values only."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False
    start: float = 0.0
    end: float = 1.0

    def __call__(self, value: float) -> float:
        """The pixel of `value`; beyond the ends it is the end's."""
        share = (self._bend(value) - self._bend(self.low)) / (self._bend(self.high) - self._bend(self.low))
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def between(self, start: float, end: float) -> "Scale":
        """The same scale from pixel `start` to pixel `end`."""
        return Scale(self.low, self.high, self.ticks, self.log, start, end)

    def _bend(self, value: float) -> float:
        return math.log10(max(value, 1e-300)) if self.log else value


@dataclass(frozen=True)
class Axis:
    """A scale with what it measures and how its ticks are written."""

    scale: Scale
    name: str
    write: Format = figures.tick


@dataclass(frozen=True)
class Plot:
    """The rectangle that data is drawn in, in pixels from the upper left corner of the drawing."""

    left: float
    top: float
    right: float
    bottom: float


def nice_ticks(low: float, high: float, *, count: int = 5) -> tuple[float, ...]:
    """About `count` round values (1, 2 or 5 times a power of ten) from at most `low` to at least `high`."""
    if high <= low:
        low, high = (low - 0.5 * abs(low), high + 0.5 * abs(high)) if low else (0.0, 1.0)
    rough = (high - low) / max(1, count - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(round(index * step, 12 - math.floor(math.log10(step))) for index in range(first, last + 1))


def linear(values: Iterable[float], *, count: int = 5, floor: float | None = None, ceiling: float | None = None) -> Scale:
    """A linear scale around `values`, ending on round ticks; `floor` and `ceiling` are ends that the quantity itself has."""
    known = list(values) or [0.0, 1.0]
    ticks = nice_ticks(min(known), max(known), count=count)
    kept = tuple(each for each in ticks if (floor is None or each >= floor) and (ceiling is None or each <= ceiling))
    low = ticks[0] if floor is None else max(floor, ticks[0])
    high = ticks[-1] if ceiling is None else min(ceiling, ticks[-1])
    return Scale(low, high, kept) if high > low else Scale(low, low + 1.0, (low,))


def spanning(values: Iterable[float], *, count: int = 4) -> Scale:
    """A scale for sizes and times: logarithmic where they are positive and span more than a decade, else linear."""
    known = [each for each in values if math.isfinite(each)]
    if not known or min(known) <= 0 or max(known) <= 10 * min(known):
        return linear(known, count=count, floor=0.0)
    low, high = min(known) / 1.25, max(known) * 1.25
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        ticks = tuple(factor * 10.0**each for each in decades for factor in factors if low <= factor * 10.0**each <= high)
        if len(ticks) >= 3:
            break
    return Scale(low, high, ticks, log=True)


def decades(values: Iterable[float], *, most: int = 7) -> Scale:
    """A logarithmic scale for positive values of any size, from a power of ten to another, at most `most` of them marked."""
    known = [each for each in values if each > 0 and math.isfinite(each)] or [1.0]
    low, high = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))
    high = max(high, low + 1)
    step = -(-(high - low) // (most - 1))
    ticks = tuple(10.0**power for power in range(low, high + 1) if (power - low) % step == 0)
    return Scale(10.0**low, 10.0**high, ticks, log=True)


def frame(plot: Plot, *, x: Axis, y: Axis) -> Markup:
    """Grid lines, tick labels and the two names. The scales must already lie between the plot's edges."""
    return svg.tag("g", *below(plot, x), *_rows(plot, y), class_="axes")


def below(plot: Plot, x: Axis) -> list[Markup]:
    """The level axis alone: ticks, their labels, and its name."""
    parts, taken = [], plot.left - 40
    for value in x.scale.ticks:
        at, content = x.scale(value), x.write(value)
        half = labels.text_width(content, TICK) / 2
        parts.append(svg.line((at, plot.bottom), (at, plot.bottom + 4), class_="tick"))
        if at - half > taken + 4:
            parts.append(svg.text(content, x=at, y=plot.bottom + 17, class_="small", anchor="middle"))
            taken = at + half
    parts.append(svg.line((plot.left, plot.bottom), (plot.right, plot.bottom), class_="base"))
    note = f"{x.name} (log scale)" if x.scale.log else x.name
    parts.append(svg.text(note, x=(plot.left + plot.right) / 2, y=plot.bottom + 35, class_="name", anchor="middle"))
    return parts


def _rows(plot: Plot, y: Axis) -> list[Markup]:
    parts = []
    for value in y.scale.ticks:
        at = y.scale(value)
        parts.append(svg.line((plot.left, at), (plot.right, at), class_="grid"))
        parts.append(svg.text(y.write(value), x=plot.left - 7, y=at + 4, class_="small", anchor="end"))
    parts.append(svg.text(y.name, x=4, y=plot.top - 12, class_="name"))
    return parts
