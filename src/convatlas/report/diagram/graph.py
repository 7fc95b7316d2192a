"""A part of a network as a graph of the few boxes that a person would draw.

Rows that compute nothing vanish; norms and activations go into the box of the layer before them; small parts without a single
multiplication, such as a norm made of three calls, are one box by the name of their class.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from convatlas.records.ledger import IMAGE, LedgerRow
from convatlas.report.diagram.tree import CONTAINERS, Tree, Unit, within
from convatlas.report.diagram.words import Sort, is_norm, size, sort_of, words

MOST = 18
"""Boxes beyond which a part is drawn with its own parts folded."""

MANY_TOWERS = range(2, 5)
"""As many groups of a convolution are drawn one beside the other."""


@dataclass(frozen=True)
class Node:
    """A box: heading, details, what follows inside it (`tail`), sort, and how often in a row it stands (`times`).

    `ends` says that it stands for what enters the part or leaves it. `rows` are those that it consists of, `parent` is the path
    of what a folded part lies in. A convolution in two to four groups has as many `towers`, with the details of one of them in
    `tower`.
    """

    heading: str
    details: tuple[str, ...]
    sort: Sort
    rows: tuple[int, ...]
    tail: tuple[str, ...] = ()
    times: int = 1
    ends: bool = False
    parent: str = ""
    towers: int = 1
    tower: tuple[str, ...] = ()


@dataclass
class Graph:
    """Boxes by number, in the order of the data, and for each the boxes that feed it, in the order in which it takes them."""

    nodes: dict[int, Node] = field(default_factory=dict)
    feeds: dict[int, list[int]] = field(default_factory=dict)

    def takers(self, key: int) -> list[int]:
        """The boxes that a box feeds."""
        return [other for other, feeds in self.feeds.items() if key in feeds]

    def drop(self, key: int) -> None:
        """Take a box out; what it fed is fed by what fed it."""
        feeds = self.feeds.pop(key)
        del self.nodes[key]
        for other, taken in self.feeds.items():
            if key in taken:
                at = taken.index(key)
                self.feeds[other] = list(dict.fromkeys([*taken[:at], *feeds, *taken[at + 1 :]]))

    def signature(self) -> tuple[object, ...]:
        """What two parts have in common that look alike but for their channels and kernels."""
        places = {key: i for i, key in enumerate(self.nodes)}
        return tuple(
            (
                re.sub(r"[\d×]+ ", "", node.heading),
                node.tail,
                node.sort,
                len(node.details),
                tuple(places[each] for each in self.feeds[key]),
            )
            for key, node in self.nodes.items()
        )


def graph_of(tree: Tree, name: str) -> Graph:
    """The graph of a part, opened as far as its boxes stay few; "" is the whole network."""
    full = _merged(tree, [Unit(tree.ledger.rows[i].name, None, (i,)) for i in tree.rows(name)], name)
    if len(full.nodes) <= MOST:
        return full
    folded = _merged(tree, tree.opened(tree.units(name)), name)
    _fold(folded, tree)
    return folded


def _merged(tree: Tree, units: Sequence[Unit], name: str) -> Graph:
    graph = _raw(tree, _small_parts_whole(tree, units, name))
    for key in [key for key, node in graph.nodes.items() if node.heading == "" and len(graph.feeds[key]) == 1]:
        graph.drop(key)
    _merge(graph)
    return graph


def _small_parts_whole(tree: Tree, units: Sequence[Unit], name: str) -> list[Unit]:
    """Single rows that lie in a small part without multiplications (but within `name`) joined to that part."""
    whole: list[Unit] = []
    for unit in units:
        part = _small_part(tree, tree.ledger.rows[unit.rows[0]].name, name) if unit.kind is None else None
        if part is None:
            whole.append(unit)
        elif whole and whole[-1].kind is not None and whole[-1].name == part:
            whole[-1] = replace(whole[-1], rows=(*whole[-1].rows, *unit.rows))
        else:
            whole.append(Unit(part, tree.kinds[part], unit.rows))
    return whole


def _small_part(tree: Tree, path: str, name: str) -> str | None:
    """The outermost part on the way from `name` to a row that is no container, multiplies nothing and has one way in and out."""
    steps = path.split(".")
    for i in range(1, len(steps) + 1):
        part = ".".join(steps[:i])
        if not within(part, name) or part == name or tree.kinds.get(part, "Sequential") in CONTAINERS:
            continue
        rows = tree.rows(part)
        if not tree.macs(rows) and len(rows) > 1 and len(tree.feeds(rows)) == 1 and len(tree.leaves(rows)) == 1:
            return part
    return None


def _raw(tree: Tree, units: Sequence[Unit]) -> Graph:
    """One box for each unit and for what enters and leaves, nothing merged yet. A box without heading is to vanish."""
    graph = Graph()
    own = tuple(i for unit in units for i in unit.rows)
    place: dict[int, int] = {}
    for i in tree.feeds(own):
        key = -2 - i  # IMAGE is -1, and rows begin at 0: keys below 0 are free
        graph.nodes[key] = _entry(tree, i)
        graph.feeds[key] = []
        place[i] = key
    for unit in units:
        key = unit.rows[0]
        for i in unit.rows:
            place[i] = key
        graph.nodes[key] = _node(tree, unit)
        given = (each for i in unit.rows for each in tree.ledger.rows[i].inputs if each not in unit.rows)
        graph.feeds[key] = list(dict.fromkeys(place[each] for each in given if each in place))
    for i in tree.leaves(own):
        key = len(tree.ledger.rows) + i
        graph.nodes[key] = Node("out", (size(tree.ledger.rows[i].output_shape),), Sort.IMAGE, (), ends=True)
        graph.feeds[key] = [place[i]]
    return graph


def _entry(tree: Tree, i: int) -> Node:
    shape = tree.ledger.input_shape if i == IMAGE else tree.ledger.rows[i].output_shape
    return Node("image" if i == IMAGE else "in", (size(shape),), Sort.IMAGE, (), ends=True)


def _node(tree: Tree, unit: Unit) -> Node:
    rows = [tree.ledger.rows[i] for i in unit.rows]
    if unit.kind is None:
        sort = sort_of(rows[0])
        if sort is None:
            return Node("", (), Sort.OTHER, unit.rows)
        told = words(rows[0])
        towers = rows[0].window.groups if sort is Sort.SEPARATE and rows[0].window is not None else 1
        if towers not in MANY_TOWERS or towers >= rows[0].input_shape[0]:
            return Node(told.heading, told.details, sort, unit.rows)
        own = f"{rows[0].input_shape[0] // towers}\u00a0→\u00a0{rows[0].output_shape[0] // towers}"
        tower = (own, *(each for each in told.details[1:] if not each.endswith("groups")))
        return Node(told.heading, told.details, sort, unit.rows, towers=towers, tower=tower)
    if tree.macs(unit.rows):
        return Node(unit.kind, (channels(rows),), Sort.BLOCK, unit.rows, parent=unit.name.rpartition(".")[0])
    resized = rows[0].input_shape != rows[-1].output_shape
    return Node(unit.kind, (f"to\u00a0{size(rows[-1].output_shape)}",) if resized else (), _sort_of_part(rows), unit.rows)


def channels(rows: Sequence[LedgerRow]) -> str:
    """Channels into the first of some rows and out of the last."""
    before, after = rows[0].input_shape, rows[-1].output_shape
    return f"{before[0] if before else 1}\u00a0→\u00a0{after[0] if after else 1}"


def _sort_of_part(rows: Sequence[LedgerRow]) -> Sort:
    """The sort of a small part: pooling if it pools, else a norm or activation if it has one and keeps the shape."""
    sorts = [sort_of(row) for row in rows]
    if Sort.POOL in sorts:
        return Sort.POOL
    telling = any(is_norm(row) for row in rows) or any(sort is Sort.POINTWISE for sort in sorts)
    return Sort.POINTWISE if telling and rows[0].input_shape == rows[-1].output_shape else Sort.OTHER


def _merge(graph: Graph) -> None:
    """Put norms and activations into the box before them, if it feeds nothing else and is no join, entry or folded part."""
    for key in list(graph.nodes):
        node = graph.nodes[key]
        if node.sort is not Sort.POINTWISE or len(graph.feeds[key]) != 1:
            continue
        before = graph.feeds[key][0]
        giver = graph.nodes[before]
        if giver.ends or giver.sort in (Sort.JOIN, Sort.BLOCK) or graph.takers(before) != [key]:
            continue
        tail = () if node.heading == "dropout" and giver.sort is not Sort.LINEAR else (node.heading,)
        graph.nodes[before] = replace(giver, tail=(*giver.tail, *tail, *node.tail), rows=(*giver.rows, *node.rows))
        graph.drop(key)


def _fold(graph: Graph, tree: Tree) -> None:
    """Make one box of neighbours in a row that are the same part or, in a graph that is large, the same layer."""
    large = len(graph.nodes) > MOST
    for key in list(graph.nodes):
        if key not in graph.nodes or len(graph.feeds[key]) != 1:
            continue
        before = graph.feeds[key][0]
        first, second = graph.nodes[before], graph.nodes[key]
        if not _alike(first, second, large=large) or graph.takers(before) != [key]:
            continue
        rows = (*first.rows, *second.rows)
        details = (channels([tree.ledger.rows[i] for i in rows]),) if first.sort is Sort.BLOCK else first.details
        graph.nodes[before] = replace(first, rows=rows, details=details, times=first.times + second.times)
        graph.drop(key)


def _alike(first: Node, second: Node, *, large: bool) -> bool:
    if first.ends or second.ends or first.sort in (Sort.JOIN, Sort.IMAGE):
        return False
    if first.sort is Sort.BLOCK and second.sort is Sort.BLOCK:
        return (first.heading, first.parent) == (second.heading, second.parent)
    same = (first.heading, first.details, first.tail) == (second.heading, second.details, second.tail)
    return large and same and first.sort is second.sort


def chain(graph: Graph) -> bool:
    """Whether a graph is a mere row of boxes."""
    return all(graph.feeds[after] == [before] for before, after in pairwise(graph.nodes))
