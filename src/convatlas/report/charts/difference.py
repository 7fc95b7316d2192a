"""The difference of two confusion matrices: where the first network answers so more often than the second, and where less."""

import math
from collections.abc import Sequence

from convatlas.report import figures
from convatlas.report.charts import svg
from convatlas.report.charts.heatmap import LEVELS, NUMBERED, framed, merged
from convatlas.report.charts.svg import Markup

Shares = Sequence[Sequence[float]]


def difference(shares: Shares, *, classes: Sequence[str], name: str) -> Markup:
    """`shares[i][j]` is by how much the share of class i's images that are called class j is larger for the first network.

    Blue where it is larger, orange where it is smaller, in ten levels up to the largest difference of all.
    """
    most = max((abs(value) for row in shares for value in row), default=0.0)

    def cells(left: float, top: float, side: float) -> list[Markup]:
        if len(classes) > NUMBERED:
            return merged(_kinds(shares, most), left=left, top=top, side=side)
        return [
            _cell(value, most, told=f"{classes[i]} called {classes[j]}", x=left + j * side, y=top + i * side, side=side)
            for i, row in enumerate(shares)
            for j, value in enumerate(row)
        ]

    return framed(cells, classes=classes, name=name)


def tone(value: float, most: float) -> str:
    """The classes of a cell: its colour by the sign, its strength by the size."""
    strength = math.ceil(LEVELS * abs(value) / most - 1e-9) if most > 0 else 0
    return f"{'right' if value > 0 else 'wrong'} h{strength}"


def _kinds(shares: Shares, most: float) -> list[tuple[int, int, str]]:
    return [(i, j, tone(value, most)) for i, row in enumerate(shares) for j, value in enumerate(row) if value]


def _cell(value: float, most: float, *, told: str, x: float, y: float, side: float) -> Markup:
    kind = tone(value, most)
    ink = "zero" if not round(100 * value) else "deep" if int(kind.partition(" h")[2]) >= 7 else "shallow"
    return svg.tag(
        "g",
        svg.title(f"{told}: {figures.points(value)} points"),
        svg.tag("rect", x=x, y=y, width=side, height=side, class_=kind),
        svg.text(figures.points(value, digits=0), x=x + side / 2, y=y + side / 2 + 4, class_=f"count {ink}", anchor="middle"),
    )
