"""The stops that an image makes on its way through a network, as a person would list them: image, stem, stages, head."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from convatlas.records.ledger import LedgerRow
from convatlas.report.diagram.tree import Tree, Unit
from convatlas.report.diagram.words import Sort, sort_of, words

WEIGHTED = (Sort.CONV, Sort.SEPARATE, Sort.LINEAR)
TOLD = (*WEIGHTED, Sort.POOL)


@dataclass(frozen=True)
class Stop:
    """A part of the network with the map that it gives, (C, H, W) or (features,), and what it holds, line by line.

    Neighbours with the same `title` stand under one heading. `sort` gives the colour.
    """

    title: str
    lines: tuple[str, ...]
    shape: tuple[int, ...]
    params: int
    macs: int
    sort: Sort


def stops(tree: Tree) -> list[Stop]:
    """The stops of a network, the image first. One without stages stops at each of its own parts."""
    found = [Stop("image", (), tree.ledger.input_shape, 0, 0, Sort.IMAGE)]
    units = tree.units("")
    while len(units) == 1 and units[0].kind is not None:
        units = tree.units(units[0].name)
    titles = {unit.name.rpartition(".")[2] for unit in units if unit.kind is not None}
    if "stages" in titles:
        for unit in units:
            found.extend(_stops_of(tree, unit))
    else:
        for title, members in _runs(units):
            found.extend(_split(tree, None, members) if members[0].kind is None else [_stop(tree, title, members)])
    return found[:1] + [stop for stop in found[1:] if stop.lines]


def _stops_of(tree: Tree, unit: Unit) -> list[Stop]:
    """The stops of stem, stages or head."""
    title = unit.name.rpartition(".")[2]
    if title == "stages":
        stages = tree.units(unit.name)
        return [_stop(tree, f"stage {i}", [stage]) for i, stage in enumerate(stages, start=1)]
    return _split(tree, title, tree.opened([unit])) if title != "stem" else [_stop(tree, title, [unit])]


def _split(tree: Tree, title: str | None, units: Sequence[Unit]) -> list[Stop]:
    """One stop for each layer that multiplies, together with what follows it; what comes before the first belongs to that.

    Without a title each stop has the name of its layer.
    """
    found: list[list[Unit]] = [[]]
    pending = list(units)
    for i, unit in enumerate(pending):
        begins = _heavy(tree, unit) and any(tree.macs(each.rows) for each in found[-1])
        late_pool = _pools(tree, unit) and any(tree.macs(each.rows) for each in found[-1]) and _weighs(tree, pending[i:])
        if begins or late_pool:
            found.append([])
        found[-1].append(unit)
    return [_stop(tree, title or _name_of(tree, members), members) for members in found if members]


def _name_of(tree: Tree, units: Sequence[Unit]) -> str:
    """The name of the first unit that multiplies, else of the first."""
    named = next((unit for unit in units if tree.macs(unit.rows)), units[0])
    return named.name.rpartition(".")[2] or "functions"


def _heavy(tree: Tree, unit: Unit) -> bool:
    """Whether a unit multiplies, or is a part of its own that changes the shape (LeNet's radial basis functions)."""
    first, last = tree.ledger.rows[unit.rows[0]], tree.ledger.rows[unit.rows[-1]]
    own = unit.kind is not None and first.input_shape != last.output_shape
    return tree.macs(unit.rows) > 0 or (own and not any(sort_of(tree.ledger.rows[i]) is Sort.POOL for i in unit.rows))


def _pools(tree: Tree, unit: Unit) -> bool:
    """Whether a unit averages the whole map: what follows it belongs with it, not with what came before."""
    row = tree.ledger.rows[unit.rows[0]]
    return sort_of(row) is Sort.POOL and words(row).heading.startswith("global")


def _weighs(tree: Tree, units: Sequence[Unit]) -> bool:
    return any(tree.macs(unit.rows) for unit in units)


def _runs(units: Sequence[Unit]) -> list[tuple[str, list[Unit]]]:
    """Neighbours that belong together: single rows, and parts of one class; with what they are called."""
    found: list[tuple[str, list[Unit]]] = []
    for (kind, name), run in groupby(units, key=lambda unit: (unit.kind, unit.name if unit.kind == "Sequential" else "")):
        members = list(run)
        last = members[0].name.rpartition(".")[2] if kind is None else members[0].name.removeprefix("model.")
        found.append((name or last, members))
    return found


def _stop(tree: Tree, title: str, units: Sequence[Unit]) -> Stop:
    rows = [i for unit in units for i in unit.rows]
    listed = [tree.ledger.rows[i] for i in rows if sort_of(tree.ledger.rows[i]) is not None]
    if not listed:
        return Stop(title, (), (), 0, 0, Sort.OTHER)  # an Identity is no stop
    return Stop(title, _lines(tree, units), listed[-1].output_shape, tree.params(rows), tree.macs(rows), _sort(listed))


def _sort(rows: Sequence[LedgerRow]) -> Sort:
    sorts = {sort_of(row) for row in rows}
    for sort, sign in ((Sort.CONV, Sort.CONV), (Sort.SEPARATE, Sort.CONV), (Sort.LINEAR, Sort.LINEAR), (Sort.POOL, Sort.POOL)):
        if sort in sorts:
            return sign
    return Sort.OTHER


def _lines(tree: Tree, units: Sequence[Unit]) -> tuple[str, ...]:
    """What some units hold, equal neighbours counted."""
    opened = tree.opened(units)
    told = [line for unit in opened if (line := _line(tree, unit))]
    if not told and opened:
        told = [opened[-1].kind or words(tree.ledger.rows[opened[-1].rows[-1]]).heading]
    runs = [(line, len(list(run))) for line, run in groupby(told)]
    return tuple(line if many == 1 else f"{line} ×\u00a0{many}" for line, many in runs)


def _line(tree: Tree, unit: Unit) -> str | None:
    """A unit in a few words; None for what need not be told at this distance."""
    rows = [tree.ledger.rows[i] for i in unit.rows]
    if unit.kind is not None:
        last = unit.rows[-1] == len(tree.ledger.rows) - 1
        return unit.kind if tree.macs(unit.rows) or last or any(sort_of(row) is Sort.POOL for row in rows) else None
    if sort_of(rows[0]) not in TOLD:
        return None
    told = words(rows[0])
    details = [each for each in told.details if each.startswith(("stride", "to\u00a0")) or each.endswith("groups")]
    return ", ".join((told.heading, *details))
