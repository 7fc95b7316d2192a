"""A confusion matrix in colours: right answers on the diagonal, errors beside it, each cell as a share of its row."""

import math
from collections.abc import Callable, Iterable, Sequence

from convatlas.report import figures
from convatlas.report.charts import labels, svg
from convatlas.report.charts.svg import Markup

LEVELS = 10
NUMBERED = 10  # up to so many classes the counts are printed
NAMED = 25  # up to so many classes the names are printed
LABEL = 11.0
Matrix = Sequence[Sequence[int]]


def heatmap(confusion: Matrix, *, classes: Sequence[str], name: str) -> Markup:
    """`confusion[i][j]` counts images of class i called class j. Rows are truth, columns answers.

    The strength of a colour is the square root of the share of the row, in ten levels, so that rare errors are seen too.
    """

    def cells(left: float, top: float, side: float) -> list[Markup]:
        if len(classes) <= NUMBERED:
            return _cells(confusion, classes, left=left, top=top, side=side)
        return _levels(confusion, left=left, top=top, side=side)

    return framed(cells, classes=classes, name=name)


def framed(cells: Callable[[float, float, float], list[Markup]], *, classes: Sequence[str], name: str) -> Markup:
    """A square of `cells(left, top, side)`, one row and one column a class, in a frame with the classes' names."""
    side = 30.0 if len(classes) <= NUMBERED else max(4.0, min(16.0, 400 / len(classes)))
    named = len(classes) <= NAMED
    texts = [labels.shorten(each, 88, size=LABEL) for each in classes] if named else []
    gutter = max((labels.text_width(each, LABEL) for each in texts), default=22) + 10
    left, top = gutter + 14, 20 + (gutter * 0.75 if named else 18)
    square = side * len(classes)
    right = left + square + (gutter * 0.7 if named else 10)
    parts = [
        *cells(left, top, side),
        svg.tag("rect", x=left, y=top, width=square, height=square, class_="outline"),
        *(_names(texts, left=left, top=top, side=side) if named else _ranks(len(classes), left=left, top=top, side=side)),
        svg.text("truth", x=11, y=top + square / 2, class_="name", anchor="middle", turn=-90),
        svg.text("answer", x=left + square / 2, y=12, class_="name", anchor="middle"),
    ]
    class_ = "heatmap" if len(classes) > NUMBERED else "heatmap numbered"
    return svg.drawing(parts, width=right, height=top + square + 6, name=name, class_=class_)


def level(count: int, row: int) -> int:
    """The strength of a cell, 0 to ten, for `count` of the `row` images of a class."""
    return math.ceil(LEVELS * math.sqrt(count / row) - 1e-9) if count > 0 and row > 0 else 0


def _cells(confusion: Matrix, classes: Sequence[str], *, left: float, top: float, side: float) -> list[Markup]:
    parts = []
    for i, row in enumerate(confusion):
        for j, count in enumerate(row):
            strength = level(count, sum(row))
            x, y = left + j * side, top + i * side
            kind = f"{'right' if i == j else 'wrong'} h{strength}"
            told = svg.title(f"{classes[i]} called {classes[j]}: {count} of {sum(row)}")
            cell = svg.tag("rect", x=x, y=y, width=side, height=side, class_=kind)
            ink = "zero" if not count else "deep" if strength >= 7 else "shallow"
            shown = svg.text(_fitting(count), x=x + side / 2, y=y + side / 2 + 4, class_=f"count {ink}", anchor="middle")
            parts.append(svg.tag("g", told, cell, shown))
    return parts


def _fitting(count: int) -> str:
    return str(count) if count < 10000 else figures.short(count).replace("\u202f", "")


def _levels(confusion: Matrix, *, left: float, top: float, side: float) -> list[Markup]:
    kinds = (
        (i, j, f"{'right' if i == j else 'wrong'} h{strength}")
        for i, row in enumerate(confusion)
        for j, count in enumerate(row)
        if (strength := level(count, sum(row)))
    )
    return merged(kinds, left=left, top=top, side=side)


def merged(kinds: Iterable[tuple[int, int, str]], *, left: float, top: float, side: float) -> list[Markup]:
    """Cells (row, column, classes), one path for all of the same colour: a matrix of 100 classes stays small."""
    steps: dict[str, list[str]] = {}
    for i, j, kind in kinds:
        corner = f"M{svg.number(left + j * side)} {svg.number(top + i * side)}"
        steps.setdefault(kind, []).append(f"{corner}h{svg.number(side)}v{svg.number(side)}h-{svg.number(side)}z")
    return [svg.tag("path", d="".join(cells), class_=kind) for kind, cells in sorted(steps.items())]


def _names(texts: Sequence[str], *, left: float, top: float, side: float) -> list[Markup]:
    parts = []
    for index, content in enumerate(texts):
        middle = (index + 0.5) * side
        parts.append(svg.text(content, x=left - 6, y=top + middle + 4, class_="small", anchor="end"))
        parts.append(svg.text(content, x=left + middle + 3, y=top - 6, class_="small", turn=-45))
    return parts


def _ranks(total: int, *, left: float, top: float, side: float) -> list[Markup]:
    """The number of every tenth class, as the table of recalls has it."""
    parts = []
    for index in range(0, total, 10):
        middle = (index + 0.5) * side
        parts.append(svg.text(str(index), x=left - 6, y=top + middle + 4, class_="small", anchor="end"))
        parts.append(svg.text(str(index), x=left + middle, y=top - 6, class_="small", anchor="middle"))
    return parts
