"""Which part of a network is opened up: the block that it has most of, or, in one without blocks, its richest stage."""

from dataclasses import dataclass

from convatlas.errors import unknown_name
from convatlas.report.diagram.graph import Graph, graph_of
from convatlas.report.diagram.tree import CONTAINERS, Tree, within


@dataclass(frozen=True)
class Opening:
    """A part to be opened: its path and class, its graph, and how many of the `many` parts like it are built alike."""

    name: str
    kind: str
    graph: Graph
    alike: int = 1
    many: int = 1


def openings(tree: Tree, *, most: int = 2) -> list[Opening]:
    """What to open: the block as it is built most often, then as it is built otherwise, up to `most`."""
    kinds = _block_kinds(tree)
    if not kinds:
        return [_richest(tree)]
    built: dict[tuple[object, ...], list[Opening]] = {}
    totals: dict[str, int] = {}
    for name, kind in tree.kinds.items():
        if kind in kinds:
            graph = graph_of(tree, name)
            totals[kind] = totals.get(kind, 0) + 1
            built.setdefault((kind, graph.signature()), []).append(Opening(name, kind, graph))
    ranked = sorted(built.values(), key=lambda alike: -len(alike))
    return [Opening(each[0].name, each[0].kind, each[0].graph, len(each), totals[each[0].kind]) for each in ranked[:most]]


def opening(tree: Tree, name: str) -> Opening:
    """The part that somebody asked for. An unknown path is a UserError with the nearest ones."""
    if name not in tree.kinds or not tree.rows(name):
        known = [part for part in tree.kinds if tree.rows(part)]
        shown = ", ".join(known[:6]) + (", ..." if len(known) > 6 else "")
        raise unknown_name("part", name, known, where=f"The parts are called {shown or 'nothing: there are none'}.")
    return Opening(name, tree.kinds[name], graph_of(tree, name))


def _block_kinds(tree: Tree) -> list[str]:
    """Classes of which the network has most, and those that stand beside them: each holds two layers that multiply or more."""
    counts: dict[str, int] = {}
    for name, kind in tree.kinds.items():
        if kind not in CONTAINERS and sum(tree.ledger.rows[i].macs > 0 for i in tree.rows(name)) > 1:
            counts[kind] = counts.get(kind, 0) + 1
    often = {kind: count for kind, count in counts.items() if count > 1}
    if not often:
        return []
    best = max(often, key=lambda kind: often[kind])  # the first of several, which is the outermost
    chosen = [name for name, kind in tree.kinds.items() if kind == best]
    beside = [kind for kind in often if kind != best and not _nested(tree, kind, chosen)]
    return [best, *beside]


def _nested(tree: Tree, kind: str, chosen: list[str]) -> bool:
    """Whether parts of a class lie in the chosen ones, or these in them."""
    parts = [name for name, each in tree.kinds.items() if each == kind]
    return any(within(part, each) or within(each, part) for part in parts for each in chosen)


def _richest(tree: Tree) -> Opening:
    """The stage, or the network's own part, with most layers that multiply; the whole where that would be a box or two."""
    units = tree.units("stages") or tree.units("")
    parts = [unit for unit in units if unit.kind is not None]
    if parts:
        best = max(parts, key=lambda unit: sum(tree.ledger.rows[i].macs > 0 for i in unit.rows))
        graph = graph_of(tree, best.name)
        if len(graph.nodes) > 4 and best.kind is not None:
            return Opening(best.name, best.kind, graph)
    return Opening("", "", graph_of(tree, ""))
