"""Placed pieces as SVG: one drawing that stands alone, light and dark, or goes into a page."""

from functools import cache
from importlib import resources
from itertools import pairwise
from math import hypot

from convatlas.report.charts import svg
from convatlas.report.charts.svg import Markup, number
from convatlas.report.diagram.pieces import Picture, Piece, Point, Shape, Text, Wire
from convatlas.report.plain import plain

BEND = 9.0  # radius of a wire's corners, pixels
HEAD = 6.5  # length of an arrow head


def rendered(picture: Picture, *, name: str, description: str) -> Markup:
    """The drawing. `name` and `description` say what it shows to those who cannot see it."""
    return svg.tag(
        "svg",
        svg.title(name),
        svg.tag("desc", description),
        svg.tag("style", Markup(style())),
        svg.tag("rect", width=picture.width, height=picture.height, class_="sheet"),
        *(_drawn(piece) for piece in picture.pieces),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {number(picture.width)} {number(picture.height)}",
        width=picture.width,
        height=picture.height,
        role="img",
        aria_label=plain(name),
        class_="diagram",
    )


@cache
def style() -> str:
    """The style sheet of all drawings; it touches nothing outside of them."""
    return resources.files("convatlas.report").joinpath("templates/diagram.css").read_text(encoding="utf-8")


def _drawn(piece: Piece) -> Markup:
    match piece:
        case Text():
            return _text(piece)
        case Shape():
            return _shape(piece)
        case Wire():
            return _wire(piece)


def _text(text: Text) -> Markup:
    return svg.tag(
        "text",
        plain(text.content),
        *([svg.title(text.whole)] if text.whole and text.whole != text.content else []),
        x=text.x,
        y=text.y,
        font_size=text.size,
        class_=f"{text.look} strong" if text.strong else text.look,
        text_anchor=None if text.anchor == "start" else text.anchor,
    )


def _shape(shape: Shape) -> Markup:
    told = [svg.title(shape.told)] if shape.told else []
    if shape.points:
        points = " ".join(f"{number(x)},{number(y)}" for x, y in shape.points)
        return svg.tag("polygon", *told, points=points, class_=shape.look)
    box = shape.box
    return svg.tag(
        "rect",
        *told,
        x=box.left,
        y=box.top,
        width=box.right - box.left,
        height=box.bottom - box.top,
        rx=shape.corner or None,
        class_=shape.look,
    )


def _wire(wire: Wire) -> Markup:
    if wire.bend:
        (x0, y0), (xm, ym), (x1, y1) = wire.points
        line = f"M{number(x0)},{number(y0)}Q{number(xm)},{number(ym)} {number(x1)},{number(y1)}"
        tip, before = (x1, y1), (xm, ym)
    else:
        points = _without_repeats(wire.points)
        tip, before = points[-1], points[-2]
        shortened = points if wire.headless else [*points[:-1], _towards(tip, before, HEAD * 0.7)]
        line = _rounded(shortened)
    parts = [svg.tag("path", d=line, class_=wire.look)]
    if not wire.headless:
        parts.append(svg.tag("polygon", points=_head(tip, before), class_=f"{wire.look} head"))
    return svg.join(parts)


def _without_repeats(points: tuple[Point, ...]) -> list[Point]:
    return [points[0], *(after for before, after in pairwise(points) if hypot(after[0] - before[0], after[1] - before[1]) > 0.01)]


def _rounded(points: list[Point]) -> str:
    """A path with a round corner wherever it turns."""
    steps = [f"M{number(points[0][0])},{number(points[0][1])}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        radius = min(BEND, _distance(before, corner) / 2, _distance(corner, after) / 2)
        enter, leave = _towards(corner, before, radius), _towards(corner, after, radius)
        steps.append(f"L{number(enter[0])},{number(enter[1])}")
        steps.append(f"Q{number(corner[0])},{number(corner[1])} {number(leave[0])},{number(leave[1])}")
    steps.append(f"L{number(points[-1][0])},{number(points[-1][1])}")
    return "".join(steps)


def _head(tip: Point, before: Point) -> str:
    """The corners of an arrow head that points from `before` to `tip`."""
    foot = _towards(tip, before, HEAD)
    across = ((tip[1] - foot[1]) * 0.5, (foot[0] - tip[0]) * 0.5)
    corners = (tip, (foot[0] + across[0], foot[1] + across[1]), (foot[0] - across[0], foot[1] - across[1]))
    return " ".join(f"{number(x)},{number(y)}" for x, y in corners)


def _distance(one: Point, other: Point) -> float:
    return hypot(other[0] - one[0], other[1] - one[1])


def _towards(start: Point, end: Point, length: float) -> Point:
    """The point `length` pixels from `start` on the way to `end`."""
    whole = _distance(start, end) or 1.0
    return start[0] + (end[0] - start[0]) * length / whole, start[1] + (end[1] - start[1]) * length / whole
