"""A grid of cells whose strength shows a size by powers of ten: layers downwards, epochs to the right."""

import math
from collections.abc import Sequence

from convatlas.report import figures
from convatlas.report.charts import labels, svg
from convatlas.report.charts.svg import Markup

LEVELS = 10
LABEL = 11.0
Rows = Sequence[Sequence[float]]


def raster(
    rows: Rows, *, ends: tuple[float, float], names: Sequence[str], columns: Sequence[str], width: float, name: str
) -> Markup:
    """`rows[i][j]` is a size of row `names[i]` in column `columns[j]`; `ends` are the sizes of the weakest and strongest colour.

    A size of 0 has a cross. Names are printed as far apart as they are readable, first and last always.
    """
    gutter = 40.0
    side = min(46.0, (width - gutter - 8) / max(1, len(columns)))
    height = max(3.0, min(14.0, 420 / max(1, len(rows))))
    parts: list[Markup] = []
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            parts.append(
                _cell(value, ends, x=gutter + j * side, y=18 + i * height, size=(side, height), told=f"{names[i]}, {columns[j]}")
            )
    bottom = 18 + height * len(rows)
    parts += _ranks(len(rows), gutter, height)
    parts += _columns(columns, gutter, side, bottom)
    parts += _key(ends, gutter, bottom + 46)
    return svg.drawing(parts, width=width, height=bottom + 78, name=name, class_="raster")


def level(value: float, ends: tuple[float, float]) -> int:
    """The strength of a cell, 0 to ten, by powers of ten between the ends."""
    low, high = (math.log10(each) for each in ends)
    if value <= 0 or not math.isfinite(value):
        return 0
    share = (math.log10(value) - low) / (high - low) if high > low else 1.0
    return max(0, min(LEVELS, round(LEVELS * share)))


def _cell(value: float, ends: tuple[float, float], *, x: float, y: float, size: tuple[float, float], told: str) -> Markup:
    told = f"{told}: {figures.scientific(value)}"
    box = svg.tag("rect", x=x, y=y, width=size[0], height=size[1], class_=f"right h{level(value, ends)}")
    cross = [svg.line((x + 2, y + size[1] / 2), (x + size[0] - 2, y + size[1] / 2), class_="whisker")] if value == 0 else []
    return svg.tag("g", svg.title(told), box, *cross)


def _ranks(count: int, gutter: float, height: float) -> list[Markup]:
    """The number of a layer, every so often."""
    step = max(1, math.ceil(14 / height))
    kept = [i for i in range(0, count, step) if count - 1 - i >= step] + [count - 1]
    return [
        svg.text("layer", x=4, y=10, class_="name"),
        *(svg.text(str(i + 1), x=gutter - 6, y=18 + (i + 0.5) * height + 4, class_="small", anchor="end") for i in kept),
    ]


def _columns(columns: Sequence[str], gutter: float, side: float, bottom: float) -> list[Markup]:
    parts, taken = [svg.text("epoch", x=gutter, y=bottom + 33, class_="name")], -math.inf
    for j, column in enumerate(columns):
        middle, half = gutter + (j + 0.5) * side, labels.text_width(column, LABEL) / 2
        if middle - half > taken + 4:
            parts.append(svg.text(column, x=middle, y=bottom + 16, class_="small", anchor="middle"))
            taken = middle + half
    return parts


def _key(ends: tuple[float, float], left: float, top: float) -> list[Markup]:
    """What the colours mean."""
    cells = [svg.tag("rect", x=left + i * 14, y=top, width=14, height=10, class_=f"right h{i}") for i in range(LEVELS + 1)]
    low, high = (figures.scientific(each) for each in ends)
    return [
        *cells,
        svg.text(low, x=left, y=top + 24, class_="small"),
        svg.text(high, x=left + 14 * (LEVELS + 1), y=top + 24, class_="small", anchor="end"),
    ]
