"""A mere row of boxes from left to right."""

from itertools import pairwise

from convatlas.report.diagram.boxes import cell, pieces
from convatlas.report.diagram.graph import Graph
from convatlas.report.diagram.pieces import Picture, Piece, Wire

GAP = 22.0
WIDEST, NARROWEST = 150.0, 84.0


def row(graph: Graph, *, width: float) -> Picture | None:
    """The boxes of a chain side by side on at most `width` pixels; None if they would be too narrow."""
    boxes = WIDEST
    while True:
        cells = [cell(node, boxes, lying=True) for node in graph.nodes.values()]
        across = sum(each.width for each in cells) + GAP * (len(cells) - 1)
        if across <= width:
            break
        boxes -= 2
        if boxes < NARROWEST:
            return None
    height = max(each.height for each in cells)
    drawn: list[Piece] = []
    spans: list[tuple[float, float]] = []
    x = 0.0
    for each in cells:
        drawn += pieces(each, x=x + each.width / 2, y=(height - each.height) / 2)
        spans.append((x, x + each.width))
        x += each.width + GAP
    wires = [Wire(((before[1] + 2, height / 2), (after[0], height / 2))) for before, after in pairwise(spans)]
    return Picture(x - GAP, height, (*wires, *drawn))
