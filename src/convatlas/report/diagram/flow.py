"""A graph as a flow chart from top to bottom: branches side by side, shortcuts around, and what joins them at a + or ×."""

from dataclasses import dataclass
from itertools import pairwise

from convatlas.report.diagram.boxes import Cell, cell, pieces
from convatlas.report.diagram.graph import Graph
from convatlas.report.diagram.pieces import Picture, Piece, Point, Wire
from convatlas.report.diagram.structure import Parallel, Series, Tangle, series
from convatlas.report.diagram.words import Sort

GAP = 24.0  # between boxes in a row
FORK = JOIN = 28.0  # over and under branches
BETWEEN, CLOSE = 14.0, 6.0  # branches side by side, and where there is little room
LANE = 13.0  # half of what a mere wire takes
TRACK = 15.0  # between the wires beside a tangle
WIDEST, NARROWEST = 178.0, 58.0
START, END = -(10**9), 10**9

Item = int | Parallel | Tangle
Path = list[Point]


@dataclass(frozen=True)
class Extent:
    """How far an item reaches to the left and right of the line through its middle, and its height, in pixels."""

    left: float
    right: float
    height: float


def flow(graph: Graph, *, width: float) -> Picture:
    """The chart of a graph on at most `width` pixels, its boxes as wide as that leaves room for."""
    whole = whole_of(graph)
    boxes = WIDEST
    while boxes > NARROWEST and _Chart(graph, boxes, width).across(whole) > width:
        boxes -= 2
    chart = _Chart(graph, boxes, width)
    if chart.across(whole) > width:  # too many branches for this width: one below the other
        order = tuple(graph.nodes)
        whole = Series((Tangle(order, tuple((a, b) for b, feeds in graph.feeds.items() for a in feeds)),))
        chart = _Chart(graph, min(WIDEST, width / 2), width)
    return chart.draw(whole)


def whole_of(graph: Graph) -> Series:
    """What a graph is made of, from a start before all that enters to an end behind all that leaves."""
    edges = {(a, b) for b, feeds in graph.feeds.items() for a in feeds}
    giving = {a for a, _ in edges}
    edges |= {(START, key) for key, feeds in graph.feeds.items() if not feeds}
    edges |= {(key, END) for key in graph.nodes if key not in giving}
    return series(list(graph.nodes), frozenset(edges), start=START, end=END, feeds=graph.feeds)


class _Chart:
    """Places the items of a graph whose boxes are `boxes` pixels wide."""

    def __init__(self, graph: Graph, boxes: float, room: float) -> None:
        self.graph = graph
        self.room = room
        self.between = BETWEEN if room > 400 else CLOSE
        self.cells = {key: cell(node, boxes) for key, node in graph.nodes.items()}
        self.drawn: list[Piece] = []
        self.wires: list[Wire] = []
        self.tops: dict[int, float] = {}

    def across(self, whole: Series) -> float:
        """How wide it is."""
        extent = self.extent(whole)
        return extent.left + extent.right

    def draw(self, whole: Series) -> Picture:
        """The whole chart."""
        extent = self.extent(whole)
        self.put(whole, extent.left, 0.0, [])
        return Picture(extent.left + extent.right, extent.height, (*self.wires, *self.drawn))

    # How large

    def extent(self, item: Item | Series) -> Extent:
        """The extent of an item, with room for the wires over and under branches."""
        match item:
            case int():
                half = self.cells[item].width / 2 + (7 if self.graph.nodes[item].times > 1 else 0)
                return Extent(half, half, self.cells[item].height)
            case Series():
                return self._extent_of_series(item)
            case Parallel():
                extents = [self.extent(branch) for branch in item.branches]
                places = self._across(item)
                left = max(extent.left - at for extent, at in zip(extents, places, strict=True))
                right = max(extent.right + at for extent, at in zip(extents, places, strict=True))
                return Extent(left, right, FORK + max(extent.height for extent in extents) + JOIN)
        half = max(self.cells[key].width for key in item.nodes) / 2
        left, right = _tracks(item)
        height = sum(self.cells[key].height for key in item.nodes) + GAP * (len(item.nodes) - 1)
        step = self._step(left, right)
        return Extent(half + (left + 1) * step, half + (right + 1) * step, GAP + height + GAP)

    def _step(self, left: int, right: int) -> float:
        return min(TRACK, self.room / 2 / (left + right + 2))

    def _extent_of_series(self, item: Series) -> Extent:
        if not item.items:
            return Extent(LANE, LANE, 0.0)
        extents = [self.extent(each) for each in item.items]
        gaps = sum(GAP for before, after in pairwise(item.items) if _adjoining(before, after))
        height = sum(extent.height for extent in extents) + gaps
        return Extent(max(each.left for each in extents), max(each.right for each in extents), height)

    def _across(self, item: Parallel) -> list[float]:
        """Where the middle of each branch stands, from the middle of all."""
        extents = [self.extent(branch) for branch in item.branches]
        trunk = self._trunk(item)
        if trunk is None:
            middle = (sum(each.left + each.right for each in extents) + self.between * (len(extents) - 1)) / 2
            places, at = [], -middle
            for extent in extents:
                places.append(at + extent.left)
                at += extent.left + extent.right + self.between
            return places
        other = 1 - trunk
        away = self.between + (
            extents[trunk].left + extents[other].right
            if not item.branches[other].items
            else extents[trunk].right + extents[other].left
        )
        places = [0.0, 0.0]
        places[other] = -away if not item.branches[other].items else away
        return places

    def _trunk(self, item: Parallel) -> int | None:
        """Which of two branches goes straight on: what a × multiplies, or the longer one. None: all stand side by side."""
        if len(item.branches) != 2:
            return None
        sizes = [branch.boxes for branch in item.branches]
        join = self._join(item)
        if join == "×" and 0 in sizes:
            return sizes.index(0)
        if join is not None and (0 in sizes or len(join) == 1):
            return sizes.index(max(sizes))
        return None

    def _join(self, item: Parallel) -> str | None:
        """The heading of the box that two branches meet in; None if it is no join."""
        ends = [branch.items[-1] for branch in item.branches if branch.items and isinstance(branch.items[-1], int)]
        takers = {taker for end in ends if isinstance(end, int) for taker in self.graph.takers(end)}
        nodes = [self.graph.nodes[taker] for taker in takers]
        return nodes[0].heading if len(nodes) == 1 and nodes[0].sort is Sort.JOIN else None

    # Where

    def put(self, item: Series, x: float, y: float, pending: list[Path]) -> tuple[float, list[Path]]:
        """Place a series below `y`; `pending` wires end in its first box. Returns its lower edge, and the wires that go on."""
        for i, each in enumerate(item.items):
            if i and _adjoining(item.items[i - 1], each):
                y += GAP
            match each:
                case int():
                    y, pending = self._put_box(each, x, y, pending)
                case Parallel():
                    y, pending = self._put_branches(each, x, y, pending)
                case Tangle():
                    y, pending = self._put_tangle(each, x, y, pending)
        return y, pending

    def _put_box(self, key: int, x: float, y: float, pending: list[Path]) -> tuple[float, list[Path]]:
        shape = self.cells[key]
        self.tops[key] = y
        self.drawn.extend(pieces(shape, x=x, y=y))
        sides = set[bool]()
        for path in pending:
            from_x = path[-1][0]
            left = from_x < x
            beside = abs(from_x - x) > shape.width / 2 + 6 and _open_at_side(shape, pending) and left not in sides
            if from_x == x:
                path.append((x, y))
            elif beside:
                sides.add(left)
                middle = y + shape.height / 2
                path += [(from_x, middle), (x - shape.width / 2 if left else x + shape.width / 2, middle)]
            else:
                path += [(from_x, y - JOIN / 2), (x, y - JOIN / 2), (x, y)]
            self.wires.append(Wire(tuple(path)))
        return y + shape.height, [[(x, y + shape.height)]]

    def _put_branches(self, item: Parallel, x: float, y: float, pending: list[Path]) -> tuple[float, list[Path]]:
        extents = [self.extent(branch) for branch in item.branches]
        tallest = max(extent.height for extent in extents)
        centred = self._trunk(item) is not None
        onward: list[Path] = []
        for branch, extent, away in zip(item.branches, extents, self._across(item), strict=True):
            spare = tallest - extent.height
            top = y + FORK + (spare / 2 if centred else spare)
            paths = [[*path] for path in pending]
            for path in paths:
                if away:
                    path += [(x, y + FORK / 2), (x + away, y + FORK / 2)]
            _, left_over = self.put(branch, x + away, top, paths)
            onward.extend(left_over)
        return y + FORK + tallest + JOIN, onward

    def _put_tangle(self, item: Tangle, x: float, y: float, pending: list[Path]) -> tuple[float, list[Path]]:
        from convatlas.report.diagram.tangle import Room, wired

        tops = {}
        y += GAP
        for key in item.nodes:
            tops[key] = y
            self.drawn.extend(pieces(self.cells[key], x=x, y=y))
            y += self.cells[key].height + GAP
        room = Room(x, {key: self.cells[key] for key in item.nodes}, tops, self._step(*_tracks(item)))
        wires, onward = wired(item, room, pending)
        self.wires.extend(wires)
        return y, onward


def _open_at_side(shape: Cell, pending: list[Path]) -> bool:
    """Whether wires enter a box at its sides: a circle, or a join of two."""
    return shape.round or (shape.node.sort is Sort.JOIN and len(pending) == 2)


def _adjoining(before: Item, after: Item) -> bool:
    return isinstance(before, int) and isinstance(after, int)


def _tracks(item: Tangle) -> tuple[int, int]:
    from convatlas.report.diagram.tangle import tracks

    return tracks(item)
