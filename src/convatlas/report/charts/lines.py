"""Curves that carry their names at their ends."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from convatlas.report import figures
from convatlas.report.charts import axes, labels, svg
from convatlas.report.charts.axes import Axis, Format, Plot
from convatlas.report.charts.marks import colour_class, dot
from convatlas.report.charts.svg import Markup

LABEL = 12.0  # font size of the names at the line ends, pixels
GAP = 15.0
Points = tuple[tuple[float, float | None], ...]


@dataclass(frozen=True)
class Series:
    """One model's curve: the mean, and the single runs behind it where there are several. A y of None is a gap.

    `dash` counts the models of the same colour before this one, which are told apart by dashes. `band` are (x, low, high) of an
    area around the mean.
    """

    name: str
    colour: int
    mean: Points
    singles: tuple[Points, ...] = ()
    dash: int = 0
    band: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True)
class Paper:
    """How large a drawing is, what it shows (for those who cannot see it), and the names of its axes.

    `x_whole` marks whole numbers only (epochs); `y_floor` and `y_ceiling` are ends that the quantity itself has. `y_log` takes
    values of any size, by powers of ten; one of 0 is then a gap. `shares`: both axes go from 0 to 1, and there is a line where
    they are equal.
    """

    width: float
    height: float
    name: str
    x_name: str
    y_name: str
    x_whole: bool = False
    y_format: Format = figures.tick
    y_floor: float | None = None
    y_ceiling: float | None = None
    y_log: bool = False
    shares: bool = False


def lines(series: Sequence[Series], *, paper: Paper) -> Markup:
    """`series` in one plot, names at the right; the drawing grows in height where the names need it."""
    shown = [each for each in series if _known(each.mean)]
    gutter = min(0.32 * paper.width, max((labels.text_width(each.name, LABEL) for each in shown), default=0) + 22)
    height = max(paper.height, GAP * len(shown) + 80)
    plot = Plot(44, 30, paper.width - gutter, height - 44)
    x, y = _axes(shown, plot, paper)
    parts: list[Markup] = [axes.frame(plot, x=x, y=y)]
    parts += [svg.line((x.scale(0), y.scale(0)), (x.scale(1), y.scale(1)), class_="chance")] if paper.shares else []
    parts += [_curves(each, x, y) for each in shown]
    parts += _names(shown, x, y, plot=plot, width=paper.width)
    return svg.drawing(parts, width=paper.width, height=height, name=paper.name, class_="lines")


def _known(points: Points) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if figures.finite(y) is not None and y is not None]


def _axes(series: Sequence[Series], plot: Plot, paper: Paper) -> tuple[Axis, Axis]:
    points = [point for each in series for one in (each.mean, *each.singles) for point in _known(one)]
    points += [(x, end) for each in series for x, *ends in each.band for end in ends]
    points += [(0.0, 0.0), (1.0, 1.0)] if paper.shares else []
    count = 6 if paper.shares else 5
    across = axes.linear([0.0, *(x for x, _ in points)], count=count)
    furthest = max((x for x, _ in points), default=1.0) or 1.0
    kept = tuple(each for each in across.ticks if each <= furthest * 1.0001 and not (paper.x_whole and each % 1))
    x = axes.Scale(0.0, furthest, kept).between(plot.left, plot.right)
    heights = [y for _, y in points]
    scale = (
        axes.decades(heights) if paper.y_log else axes.linear(heights, count=count, floor=paper.y_floor, ceiling=paper.y_ceiling)
    )
    write = paper.y_format if paper.shares else figures.tick
    return Axis(x, paper.x_name, write), Axis(scale.between(plot.bottom, plot.top), paper.y_name, paper.y_format)


def _curves(series: Series, x: Axis, y: Axis) -> Markup:
    thin = [_pieces(each, x, y, "thin") for each in series.singles if len(series.singles) > 1]
    mean = _pieces(series.mean, x, y, "mean" if not series.dash else f"mean dash{min(series.dash, 3)}")
    end = _known(series.mean)[-1]
    marker = dot((x.scale(end[0]), y.scale(end[1])), radius=3)
    around = [_area(series.band, x, y)] if len(series.band) > 1 else []
    return svg.tag("g", svg.title(series.name), *around, *thin, mean, marker, class_=colour_class(series.colour))


def _area(band: Sequence[tuple[float, float, float]], x: Axis, y: Axis) -> Markup:
    upper = [(x.scale(at), y.scale(high)) for at, _, high in band]
    lower = [(x.scale(at), y.scale(low)) for at, low, _ in reversed(band)]
    steps = " ".join(f"{svg.number(a)},{svg.number(b)}" for a, b in (*upper, *lower))
    return svg.tag("polygon", points=steps, class_="band")


def _pieces(points: Points, x: Axis, y: Axis, class_: str) -> Markup:
    return svg.join(svg.path(((x.scale(a), y.scale(b)) for a, b in piece), class_=class_) for piece in _unbroken(points))


def _unbroken(points: Points) -> Iterable[list[tuple[float, float]]]:
    """The stretches of `points` between gaps, two points or more each."""
    piece: list[tuple[float, float]] = []
    for x, y in (*points, (0.0, None)):
        if y is not None and figures.finite(y) is not None:
            piece.append((x, y))
            continue
        if len(piece) > 1:
            yield piece
        piece = []


def _names(series: Sequence[Series], x: Axis, y: Axis, *, plot: Plot, width: float) -> list[Markup]:
    ends = [(x.scale(a), y.scale(b)) for a, b in (_known(each.mean)[-1] for each in series)]
    heights = labels.spread([at for _, at in ends], gap=GAP, low=plot.top, high=plot.bottom)
    parts = []
    for each, end, height in zip(series, ends, heights, strict=True):
        content = labels.shorten(each.name, width - plot.right - 18, size=LABEL)
        leader = svg.path([(end[0] + 4, end[1]), (plot.right + 4, end[1]), (plot.right + 13, height)], class_="leader")
        name = svg.text(content, x=plot.right + 16, y=height + 4, class_="endname")
        parts.append(svg.tag("g", svg.title(each.name), leader, name, class_=colour_class(each.colour)))
    return parts
