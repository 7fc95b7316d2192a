"""The parts of a network as a tree, and what each holds in the order of the data."""

from collections.abc import Sequence
from dataclasses import dataclass

from convatlas.records.ledger import Ledger

CONTAINERS = frozenset({"Sequential", "ModuleList", "ModuleDict"})
"""Classes that only hold others: a drawing shows what is in them instead."""


@dataclass(frozen=True)
class Unit:
    """A direct member of a part: another part with all of its rows, or (`kind` None) a single row. `name` is its path."""

    name: str
    kind: str | None
    rows: tuple[int, ...]


class Tree:
    """A ledger's rows by the parts that they belong to."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.kinds = {part.name: part.kind for part in ledger.parts if part.name}
        self.paths: dict[str, list[int]] = {"": list(range(len(ledger.rows)))}
        for i, row in enumerate(ledger.rows):
            steps = row.name.split(".") if row.name else []
            for end in range(1, len(steps) + 1):
                self.paths.setdefault(".".join(steps[:end]), []).append(i)
        self.takers: dict[int, list[int]] = {}
        for i, row in enumerate(ledger.rows):
            for each in dict.fromkeys(row.inputs):
                self.takers.setdefault(each, []).append(i)

    def rows(self, name: str) -> tuple[int, ...]:
        """The rows within a part, as indices; "" is the network."""
        return tuple(self.paths.get(name, ()))

    def units(self, name: str, *, rows: Sequence[int] | None = None) -> list[Unit]:
        """The direct members of a part in the order of the data: runs of rows in the same child part, and single rows."""
        found: list[Unit] = []
        for i in self.rows(name) if rows is None else rows:
            child = self._child(name, i)
            if child is not None and found and found[-1].name == child and found[-1].kind is not None:
                found[-1] = Unit(child, self.kinds[child], (*found[-1].rows, i))
            elif child is not None:
                found.append(Unit(child, self.kinds[child], (i,)))
            else:
                found.append(Unit(self.ledger.rows[i].name, None, (i,)))
        return found

    def opened(self, units: Sequence[Unit]) -> list[Unit]:
        """The units with containers, and theirs, replaced by what they hold."""
        found: list[Unit] = []
        for unit in units:
            held = unit.kind in CONTAINERS
            found.extend(self.opened(self.units(unit.name, rows=unit.rows)) if held else [unit])
        return found

    def macs(self, rows: Sequence[int]) -> int:
        """Multiplications of these rows."""
        return sum(self.ledger.rows[i].macs for i in rows)

    def params(self, rows: Sequence[int]) -> int:
        """Parameters of these rows."""
        return sum(self.ledger.rows[i].params for i in rows)

    def feeds(self, rows: Sequence[int]) -> list[int]:
        """The rows outside, or the image, that feed these rows, in the order in which they are taken."""
        own = set(rows)
        return list(dict.fromkeys(each for i in rows for each in self.ledger.rows[i].inputs if each not in own))

    def leaves(self, rows: Sequence[int]) -> list[int]:
        """Those of these rows whose outputs are taken outside, or by nothing at all."""
        own = set(rows)
        return [i for i in rows if i not in self.takers or any(each not in own for each in self.takers[i])]

    def _child(self, name: str, i: int) -> str | None:
        """The child part of `name` that row `i` lies in; None if it is a member itself."""
        path = self.ledger.rows[i].name
        rest = path[len(name) + 1 :] if name else path
        child = f"{name}.{rest.partition('.')[0]}" if name else rest.partition(".")[0]
        if not rest or path == name:
            return None
        return child if child in self.kinds else self._deeper(child, path)

    def _deeper(self, child: str, path: str) -> str | None:
        """The shortest known part on the way to a row: a ModuleList whose forward nobody calls is not among the parts."""
        while child != path:
            rest = path[len(child) + 1 :].partition(".")[0]
            child = f"{child}.{rest}"
            if child in self.kinds:
                return child
        return None


def within(path: str, part: str) -> bool:
    """Whether a module's path lies in a part, or is the part's own."""
    return not part or path == part or path.startswith(f"{part}.")
