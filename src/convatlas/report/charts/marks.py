"""What is drawn of one model: its colour, its name, its accuracy with the interval."""

from dataclasses import dataclass

from convatlas.report import figures
from convatlas.report.charts import svg
from convatlas.report.charts.svg import Markup


@dataclass(frozen=True)
class Mark:
    """A model in a chart. `colour` is one of the style sheet's classes c0 to c7; low and high are the interval's ends, if any."""

    name: str
    colour: int
    value: float
    low: float | None = None
    high: float | None = None
    singles: tuple[float, ...] = ()

    def told(self) -> str:
        """The name and the value in words, for the tooltip."""
        text = f"{self.name}: {figures.percent(self.value)}"
        if self.low is None or self.high is None:
            return text
        return f"{text}, 95 % interval {figures.percent(self.low, sign=False)} to {figures.percent(self.high)}"


def colour_class(colour: int, *more: str) -> str:
    """The classes of an element in a model's colour."""
    return " ".join((f"c{colour % 8}", *more))


def whisker(start: tuple[float, float], end: tuple[float, float], *, cap: float = 4) -> Markup:
    """An interval: a line with a short bar across at both ends. The line is upright or level."""
    upright = start[0] == end[0]
    bars = [
        svg.line((x - cap, y), (x + cap, y), class_="whisker")
        if upright
        else svg.line((x, y - cap), (x, y + cap), class_="whisker")
        for x, y in (start, end)
    ]
    return svg.join([svg.line(start, end, class_="whisker"), *bars])


def dot(at: tuple[float, float], *, radius: float = 4.5, class_: str = "dot") -> Markup:
    """A round marker."""
    return svg.tag("circle", cx=at[0], cy=at[1], r=radius, class_=class_)
