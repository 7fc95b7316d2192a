"""What a graph is made of, for drawing it: boxes one after the other, branches side by side, and, rarely, a tangle of neither."""

from collections.abc import Sequence
from dataclasses import dataclass

Edges = frozenset[tuple[int, int]]


@dataclass(frozen=True)
class Series:
    """Items one after the other: a box by its number, branches, or a tangle. An empty series is a mere wire."""

    items: tuple["int | Parallel | Tangle", ...]

    @property
    def boxes(self) -> int:
        """How many boxes it has."""
        return sum(1 if isinstance(item, int) else item.boxes for item in self.items)


@dataclass(frozen=True)
class Parallel:
    """Branches from one box to another; there is at most one empty one."""

    branches: tuple[Series, ...]

    @property
    def boxes(self) -> int:
        """How many boxes it has."""
        return sum(branch.boxes for branch in self.branches)


@dataclass(frozen=True)
class Tangle:
    """Boxes that are neither in a row nor on branches, in the order of the data, with the edges among and around them."""

    nodes: tuple[int, ...]
    edges: tuple[tuple[int, int], ...]

    @property
    def boxes(self) -> int:
        """How many boxes it has."""
        return len(self.nodes)


def series(nodes: Sequence[int], edges: Edges, *, start: int, end: int, feeds: dict[int, list[int]]) -> Series:
    """What lies between `start` and `end`. `nodes` are in the order of the data, each on some way from one to the other.

    `feeds` gives the order in which a box takes its branches. A node that no edge jumps over lies on every way, and parts the
    graph into two.
    """
    place = {start: -1, **{node: i for i, node in enumerate(nodes)}, end: len(nodes)}
    jumped = [False] * len(nodes)
    for before, after in edges:
        for i in range(place[before] + 1, place[after]):
            jumped[i] = True
    items: list[int | Parallel | Tangle] = []
    last, region = start, list[int]()
    for node in nodes:
        if jumped[place[node]]:
            region.append(node)
            continue
        items += [*_between(last, node, region, edges, feeds), node]
        last, region = node, []
    return Series((*items, *_between(last, end, region, edges, feeds)))


def _between(
    start: int, end: int, region: Sequence[int], edges: Edges, feeds: dict[int, list[int]]
) -> list[int | Parallel | Tangle]:
    """What lies between two nodes that are on every way: nothing, branches, or a tangle."""
    if not region:
        return []
    inner = set(region)
    parts = _connected(region, frozenset((a, b) for a, b in edges if a in inner and b in inner))
    direct = (start, end) in edges
    if len(parts) == 1 and not direct:
        around = sorted((a, b) for a, b in edges if (a in inner or b in inner))
        return [Tangle(tuple(region), tuple(around))]
    branches: list[tuple[float, Series]] = []
    order = feeds.get(end, [])
    for part in parts:
        known = {*part, start, end}
        own = frozenset((a, b) for a, b in edges if a in known and b in known and (a, b) != (start, end))
        rank = min((order.index(node) for node in part if node in order), default=len(order))
        branches.append((rank, series(part, own, start=start, end=end, feeds=feeds)))
    if direct:
        branches.append((order.index(start) if start in order else len(order), Series(())))
    return [Parallel(tuple(branch for _, branch in sorted(branches, key=lambda each: each[0])))]


def _connected(nodes: Sequence[int], edges: Edges) -> list[list[int]]:
    """The nodes in groups that no edge connects, each in the order given."""
    group = {node: node for node in nodes}
    for before, after in edges:
        old, new = group[after], group[before]
        group = {node: new if each == old else each for node, each in group.items()}
    return [[node for node in nodes if group[node] == leader] for leader in dict.fromkeys(group.values())]
