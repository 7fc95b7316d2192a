"""One box of a flow chart: how large it is for a given width, and its pieces."""

from dataclasses import dataclass

from convatlas.report.charts.labels import Box
from convatlas.report.diagram.graph import Node
from convatlas.report.diagram.pieces import Piece, Shape, Text, listed, width_of, wrap
from convatlas.report.diagram.words import Sort

RADIUS = 11.0
LEADING = 15.0
PADDING = 8.0
SHEET = 3.0  # by which the sheets behind a folded box stand out
FRAME = 5.0  # around towers, and between them
TOWER = 76.0  # the least width of one
SMALL = 120.0  # up to which width a box has only half the padding at its sides

Line = tuple[str, float, str, bool]
"""A text with its size, look, and whether it is strong."""


@dataclass(frozen=True)
class Cell:
    """A node with the lines that it holds, and its width and height in pixels.

    `round` is a circle with a sign. The lines stand in each of `towers` boxes within a frame, if there is more than one:
    side by side, or below each other if `lying`.
    """

    node: Node
    lines: tuple[Line, ...]
    width: float
    height: float
    round: bool = False
    towers: int = 1
    lying: bool = False

    def inner(self, box: Box) -> list[Box]:
        """The boxes of the towers within that of the cell."""
        across, down = (1, self.towers) if self.lying else (self.towers, 1)
        width = (self.width - FRAME * (across + 1)) / across
        height = (self.height - FRAME * (down + 1)) / down
        lefts = [box.left + FRAME + i * (width + FRAME) for i in range(across)]
        tops = [box.top + FRAME + i * (height + FRAME) for i in range(down)]
        return [Box(left, top, left + width, top + height) for left in lefts for top in tops]


def cell(node: Node, width: float, *, lying: bool = False) -> Cell:
    """A node made to fit `width`: text wraps, and what is too long for a line ends in an ellipsis.

    Towers stand side by side, or, if data flows from left to right (`lying`), below each other.
    """
    if node.sort is Sort.JOIN and len(node.heading) == 1:
        return Cell(node, ((node.heading, 16.0, "ink", False),), 2 * RADIUS, 2 * RADIUS, round=True)
    if node.ends or node.sort is Sort.JOIN:
        widest = max((node.heading, *node.details), key=len)
        lines = _lines(node, node.details, max(width, width_of(widest, 12, strong=True)) + 4)
        width = max(width_of(line, size, strong=strong) for line, size, _, strong in lines) + 30
        return Cell(node, lines, width, _height(lines))
    across, down = (1, node.towers) if lying else (node.towers, 1)
    inner = (width - FRAME * (across + 1)) / across
    if node.towers > 1 and inner >= TOWER:
        lines = _lines(node, node.tower, inner - PADDING)
        return Cell(node, lines, width, _height(lines) * down + FRAME * (down + 1), towers=node.towers, lying=lying)
    lines = _lines(node, node.details, width - (2 * PADDING if width > SMALL else PADDING))
    return Cell(node, lines, width, _height(lines))


def _lines(node: Node, details: tuple[str, ...], limit: float) -> tuple[Line, ...]:
    heading = node.heading if node.times == 1 else f"{node.heading} ×\u00a0{node.times}"
    look, strong = ("soft", False) if node.ends else ("ink", True)
    return (
        *((line, 12.0, look, strong) for line in wrap(heading, limit, size=12, strong=strong)),
        *((line, 11.5, "ink", False) for line in listed(details, limit, size=11.5)),
        *((line, 11.0, "soft", False) for line in listed(node.tail, limit, size=11)),
    )


def _height(lines: tuple[Line, ...]) -> float:
    return LEADING * len(lines) + 2 * PADDING - 3


def pieces(cell: Cell, *, x: float, y: float) -> list[Piece]:
    """A cell centred at `x` with its upper edge at `y`."""
    box = Box(x - cell.width / 2, y, x + cell.width / 2, y + cell.height)
    node = cell.node
    told = ", ".join((node.heading, *node.details, *node.tail))
    if cell.round:
        return [Shape(box, "box join", RADIUS, told=told), *_texts(cell, box, box.top + RADIUS + 5.5)]
    if cell.towers > 1:
        towers = cell.inner(box)
        boxes = [Shape(each, f"box {node.sort}", 4, told=told, solid=False) for each in towers]
        texts = [text for each in towers for text in _texts(cell, each, each.top + PADDING + 9.5)]
        return [Shape(box, "box frame", 8, told=told), *boxes, *texts]
    drawn: list[Piece] = []
    for away in (2 * SHEET, SHEET) if node.times > 1 else ():
        behind = Box(box.left + away, box.top + away, box.right + away, box.bottom + away)
        drawn.append(Shape(behind, f"box {node.sort}", 5, solid=False))
    rounded = node.ends or node.sort is Sort.JOIN
    drawn.append(Shape(box, "box ends" if node.ends else f"box {node.sort}", cell.height / 2 if rounded else 5, told=told))
    return [*drawn, *_texts(cell, box, box.top + PADDING + 9.5)]


def _texts(cell: Cell, box: Box, baseline: float) -> list[Text]:
    middle = (box.left + box.right) / 2
    return [
        Text(line, middle, baseline + i * LEADING, size, look, "middle", strong, box)
        for i, (line, size, look, strong) in enumerate(cell.lines)
    ]
