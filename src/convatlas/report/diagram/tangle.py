"""The wires of a tangle: its boxes stand below each other, and what does not go to the next box goes around on tracks."""

from dataclasses import dataclass

from convatlas.report.diagram.boxes import Cell
from convatlas.report.diagram.pieces import Point, Wire
from convatlas.report.diagram.structure import Tangle

Edge = tuple[int, int]


@dataclass(frozen=True)
class Room:
    """Where the boxes of a tangle stand: their common middle, sizes and upper edges, and how far tracks are apart, in pixels."""

    x: float
    cells: dict[int, Cell]
    tops: dict[int, float]
    step: float


def tracks(item: Tangle) -> tuple[int, int]:
    """How many tracks there are to the left of the boxes, for what enters, and to the right, for all else."""
    entering, other = _around(item)
    return len(entering), 1 + max(_assigned(item, other).values(), default=-1)


def wired(item: Tangle, room: Room, pending: list[list[Point]]) -> tuple[list[Wire], list[list[Point]]]:
    """All wires of a tangle, and those that go on below it. `pending` come from above."""
    entering, other = _around(item)
    place = {key: i for i, key in enumerate(item.nodes)}
    wires = [Wire(((room.x, _bottom(room, a)), (room.x, room.tops[b]))) for a, b in _straight(item)]
    ports = _ports(item, other)
    onward: list[list[Point]] = []
    for edge, track in _assigned(item, other).items():
        before, after = edge
        lane = room.x + _half(room) + (track + 1) * room.step
        start = _port(room, before, ports[before], edge)
        path = [start, (lane, start[1])]
        if after in place:
            end = _port(room, after, ports[after], edge)
            wires.append(Wire((*path, (lane, end[1]), end)))
        else:
            onward.append(path)
    last = item.nodes[-1]
    if any(a == last and b not in place for a, b in item.edges):
        onward.append([(room.x, _bottom(room, last))])
    wires += _entries(item, room, entering, pending)
    return wires, onward


def _entries(item: Tangle, room: Room, entering: list[Edge], pending: list[list[Point]]) -> list[Wire]:
    """What comes from above: straight into the first box, and around the left into others."""
    wires = []
    first = item.nodes[0]
    for path in pending:
        if any(b == first and a not in item.nodes for a, b in item.edges):
            wires.append(Wire((*path, (room.x, room.tops[first]))))
        for i, (_, after) in enumerate(entering):
            lane = room.x - _half(room) - (i + 1) * room.step
            cell, top = room.cells[after], room.tops[after]
            turn = room.tops[first] - 12
            end = (room.x - cell.width / 2, top + cell.height / 2)
            wires.append(Wire((*path, (room.x, turn), (lane, turn), (lane, end[1]), end)))
    return wires


def _around(item: Tangle) -> tuple[list[Edge], list[Edge]]:
    """The edges that take tracks: those that enter elsewhere than at the first box, and those that skip boxes."""
    place = {key: i for i, key in enumerate(item.nodes)}
    entering = [(a, b) for a, b in item.edges if a not in place and place[b] > 0]
    straight = set(_straight(item))
    other = [
        (a, b)
        for a, b in item.edges
        if a in place and (a, b) not in straight and not (b not in place and place[a] == len(item.nodes) - 1)
    ]
    return entering, other


def _straight(item: Tangle) -> list[Edge]:
    place = {key: i for i, key in enumerate(item.nodes)}
    return [(a, b) for a, b in item.edges if a in place and b in place and place[b] == place[a] + 1]


def _assigned(item: Tangle, edges: list[Edge]) -> dict[Edge, int]:
    """A track for each edge, the innermost that is free all the way."""
    place = {key: i for i, key in enumerate(item.nodes)}
    taken: list[list[tuple[int, int]]] = []
    found: dict[Edge, int] = {}
    for edge in sorted(edges, key=lambda each: (place.get(each[1], len(place)) - place[each[0]], place[each[0]])):
        start, end = place[edge[0]], place.get(edge[1], len(place))
        track = next(
            (i for i, spans in enumerate(taken) if all(end <= a or b <= start for a, b in spans)),
            len(taken),
        )
        if track == len(taken):
            taken.append([])
        taken[track].append((start, end))
        found[edge] = track
    return found


def _ports(item: Tangle, edges: list[Edge]) -> dict[int, list[Edge]]:
    """The wires at the right side of each box from top to bottom: first what comes, then what goes."""
    return {key: [edge for edge in edges if edge[1] == key] + [edge for edge in edges if edge[0] == key] for key in item.nodes}


def _port(room: Room, key: int, edges: list[Edge], edge: Edge) -> Point:
    cell = room.cells[key]
    share = (edges.index(edge) + 1) / (len(edges) + 1)
    y = room.tops[key] + cell.height * share
    if cell.round:  # where the circle is at that height
        down = y - room.tops[key] - cell.height / 2
        return room.x + max((cell.width / 2) ** 2 - down**2, 1.0) ** 0.5, y
    return room.x + cell.width / 2, y


def _bottom(room: Room, key: int) -> float:
    return room.tops[key] + room.cells[key].height


def _half(room: Room) -> float:
    return max(cell.width for cell in room.cells.values()) / 2
