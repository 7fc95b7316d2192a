"""The page of a ledger: every layer with every column, foldable, in one HTML file without script."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import SimpleNamespace

from convatlas.arith.memory import OPTIMIZER_COPIES, training_bytes
from convatlas.records.ledger import Ledger, LedgerRow
from convatlas.report import ledger_words as words
from convatlas.report.folding import Branch, Item, Leaf, rows_in, tree
from convatlas.report.html import templates

COLUMNS: dict[str, Callable[[LedgerRow], int | None]] = {
    "params": lambda row: row.params,
    "macs": lambda row: row.macs,
    "activation": lambda row: row.activation_bytes,
    "kept": lambda row: row.kept_bytes,
    "jump": lambda row: row.jump,
    "start": lambda row: row.start,
}


@dataclass(frozen=True)
class Run:
    """Neighbouring rows, which share a table, or one module with others inside."""

    leaves: tuple[Leaf, ...]
    branch: Branch | None
    first: bool
    params: str
    macs: str
    gives: str


def ledger_page(ledger: Ledger, *, batch_size: int) -> str:
    """The page; `batch_size` is that of the estimate of training's memory."""
    singly = dict(
        _singly(tree(ledger), {path: branch for branch in _branches(tree(ledger, fold=False)) for path in branch.paths})
    )
    return templates().get_template("ledger.html.j2").render(
        ledger=ledger,
        items=tree(ledger),
        singly=singly,
        words=words,
        of=SimpleNamespace(**COLUMNS),
        runs_of=_runs,
        hints=words.hints(ledger),
        sees_all=words.seen(ledger),
        needs=memory_needs(ledger, batch_size),
        batch_size=batch_size,
    )  # fmt: skip


def memory_needs(ledger: Ledger, batch_size: int) -> list[tuple[str, int]]:
    """Bytes that a step of training is estimated to take, by optimizer; nothing if what training keeps is unknown."""
    memory = ledger.memory
    if memory.peak is None or memory.kept_once is None:
        return []
    return [
        (
            optimizer,
            training_bytes(
                weights=memory.weights,
                trained=memory.gradients,
                peak=memory.peak,
                kept_once=memory.kept_once,
                batch_size=batch_size,
                optimizer=optimizer,
            ),
        )
        for optimizer in OPTIMIZER_COPIES
    ]


def _runs(items: Sequence[Item]) -> list[Run]:
    found = []
    for _, group in groupby(enumerate(items), key=lambda pair: pair[0] if isinstance(pair[1], Branch) else -1):
        members = list(group)
        place, first = members[0]
        rows = list(rows_in([item for _, item in members]))
        params, macs = (words.short(words.total(rows, COLUMNS[name])) for name in ("params", "macs"))
        leaves = tuple(item for _, item in members if isinstance(item, Leaf))
        branch = first if isinstance(first, Branch) else None
        found.append(Run(leaves, branch, place < 2, params, macs, words.shape(rows[-1:])))
    return found


def _branches(items: Sequence[Item]) -> Iterator[Branch]:
    for item in items:
        if isinstance(item, Branch):
            yield item
            yield from _branches(item.items)


def _singly(items: Sequence[Item], single: dict[str, Branch]) -> Iterator[tuple[tuple[str, ...], list[Branch]]]:
    """For each folded branch its modules one by one."""
    for branch in _branches(items):
        if branch.times > 1:
            yield branch.paths, [single[path] for path in branch.paths]
