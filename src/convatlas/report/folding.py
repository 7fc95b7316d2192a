"""The rows of a ledger as a tree of modules, in which neighbours that do the same are folded together.

Two modules do the same if they are of one class and have the same operations with the same settings, on maps of the same side.
Their channels may differ, as the layers of a dense block do.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from convatlas.records.ledger import Ledger, LedgerRow


@dataclass(frozen=True)
class Leaf:
    """One row, or the rows in the same place of modules that are folded together. `name` is relative to the module around it."""

    name: str
    rows: tuple[LedgerRow, ...]


@dataclass(frozen=True)
class Branch:
    """A module with others inside, or several that are folded together: their paths, their class, and what is in the first.

    `items` hold, row by row, what is in the same place of all of them.
    """

    paths: tuple[str, ...]
    kind: str
    items: tuple["Leaf | Branch", ...]

    @property
    def name(self) -> str:
        """The last part of the path, or of the first and the last one."""
        first, last = (path.rpartition(".")[2] for path in (self.paths[0], self.paths[-1]))
        return first if first == last else f"{first} to {last}"

    @property
    def times(self) -> int:
        """How many modules were folded together here, and not further out."""
        return len({path.rpartition(".")[2] for path in self.paths})


Item = Leaf | Branch


def tree(ledger: Ledger, *, fold: bool = True) -> tuple[Item, ...]:
    """The rows of a ledger by the modules that they are in, in the order of the data.

    A Sequential of nothing but layers has no branch of its own, unless it is a stage or another part of the whole network.
    """
    kinds = {part.name: part.kind for part in ledger.parts}
    return _items(ledger.rows, "", kinds, fold)


def rows_in(items: Sequence[Item]) -> Iterator[LedgerRow]:
    """All rows, those of folded modules too."""
    for item in items:
        if isinstance(item, Leaf):
            yield from item.rows
        else:
            yield from rows_in(item.items)


def _items(rows: Sequence[LedgerRow], path: str, kinds: dict[str, str], fold: bool) -> tuple[Item, ...]:
    found: list[Item] = []
    for child, group in groupby(rows, key=lambda row: _child(row, path, kinds)):
        members = list(group)
        if child is None or (path not in ("", "stages") and _is_list(members, child, kinds)):
            found += [Leaf(_relative(row.name, path), (row,)) for row in members]
        else:
            found.append(Branch((child,), kinds[child], _items(members, child, kinds, fold)))
    return tuple(_folded(found)) if fold else tuple(found)


def _child(row: LedgerRow, path: str, kinds: dict[str, str]) -> str | None:
    """The module directly below `path` that a row is in; None for one that is called in `path` itself or is directly below."""
    start = f"{path}." if path else ""
    below = row.name.removeprefix(start)
    if row.name == path or not below:
        return None
    child = start + below.partition(".")[0]
    return child if child in kinds else None


def _is_list(rows: Sequence[LedgerRow], path: str, kinds: dict[str, str]) -> bool:
    """Whether a module only lists layers, one after the other."""
    return kinds[path] == "Sequential" and all(_child(row, path, kinds) is None for row in rows)


def _relative(name: str, path: str) -> str:
    return "" if name == path else name.removeprefix(f"{path}.")


MANY = 3
"""From so many on single layers that do the same, one after the other, are folded."""


def _folded(items: Sequence[Item]) -> Iterator[Item]:
    for _, group in groupby(items, key=_shape_of):
        members = list(group)
        first, last = members[0], members[-1]
        if isinstance(first, Leaf) and isinstance(last, Leaf) and len(members) >= MANY:
            name = first.name if first.name == last.name else f"{first.name} to {last.name}"
            yield Leaf(name, tuple(row for item in members if isinstance(item, Leaf) for row in item.rows))
            continue
        if isinstance(first, Branch) and len(members) > 1:
            branches = [item for item in members if isinstance(item, Branch)]
            paths = tuple(path for branch in branches for path in branch.paths)
            yield Branch(paths, first.kind, tuple(_together(items) for items in zip(*(b.items for b in branches), strict=True)))
        else:
            yield from members


def _together(items: Sequence[Item]) -> Item:
    """What is in the same place of several modules as one."""
    first = items[0]
    if isinstance(first, Leaf):
        return Leaf(first.name, tuple(row for item in items if isinstance(item, Leaf) for row in item.rows))
    branches = [item for item in items if isinstance(item, Branch)]
    paths = tuple(path for branch in branches for path in branch.paths)
    return Branch(paths, first.kind, tuple(_together(each) for each in zip(*(b.items for b in branches), strict=True)))


def _shape_of(item: Item) -> Hashable:
    if isinstance(item, Leaf):
        row = item.rows[0]
        size = row.output_shape[1:] if len(row.output_shape) == 3 else len(row.output_shape)
        name = "" if row.function else item.name.rstrip("0123456789")
        return (name, row.operation, row.settings, size, len(row.inputs))
    return (item.kind, len(item.paths), tuple(_shape_of(each) for each in item.items))
