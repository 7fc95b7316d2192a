"""What the columns of a ledger say, for one row or for several that are folded together."""

from collections.abc import Callable, Iterable, Sequence

from convatlas.records.ledger import IMAGE, Ledger, LedgerRow
from convatlas.report import figures


def what(rows: Sequence[LedgerRow]) -> str:
    """Operation and settings: `Conv2d 3x3 stride 2 padding 1`."""
    return f"{rows[0].operation} {rows[0].settings}".strip()


def shape(rows: Sequence[LedgerRow]) -> str:
    """The output's: `64x112x112`; where channels differ, `64..256x56x56`."""
    return _spread(["x".join(map(str, row.output_shape)) for row in rows])


def shape_before(rows: Sequence[LedgerRow]) -> str:
    """The input's, likewise: that of the first that is given."""
    return _spread(["x".join(map(str, row.input_shape)) for row in rows])


def _spread(texts: Sequence[str]) -> str:
    first, last = texts[0], texts[-1]
    if first == last:
        return first
    heads, tails = first.partition("x"), last.partition("x")
    return f"{heads[0]}..{tails[0]}x{heads[2]}" if heads[2] == tails[2] else f"{first}..{last}"


def number(rows: Sequence[LedgerRow], of: Callable[[LedgerRow], int | None], *, write: Callable[[int], str] = str) -> str:
    """A number, or the first and the last where they differ; a dash for one that is unknown, and nothing for zeros."""
    first, last = of(rows[0]), of(rows[-1])
    if first == last == 0 and write is not str:
        return ""
    texts = [figures.DASH if value is None else write(value) for value in (first, last)]
    return texts[0] if texts[0] == texts[1] else "..".join(texts)


def short(value: int) -> str:
    """A count in three digits: 9.41 k."""
    return figures.short(value).replace("\u202f", " ")


def field(rows: Sequence[LedgerRow]) -> str:
    """The receptive field: `11`, `3-11` where paths differ, `all` for the whole image; of several rows the first and last."""
    texts = list(dict.fromkeys(one_field(row) for row in (rows[0], rows[-1])))
    return "..".join(texts)


def one_field(row: LedgerRow) -> str:
    """The receptive field of one row, least and largest."""
    if row.unfollowed is not None:
        return "?"
    least, largest = ("all" if each is None else str(each) for each in (row.least_field, row.receptive_field))
    return largest if least in (largest, "0") else f"{least}-{largest}"


def paths(ledger: Ledger, rows: Sequence[LedgerRow]) -> tuple[str, ...]:
    """What each of the paths that meet here has seen before, where they differ; of several rows that of the first."""
    fields = ["1" if i == IMAGE else one_field(ledger.rows[i]) for i in rows[0].inputs]
    return (f"paths see {', '.join(fields)}",) if len(set(fields)) > 1 else ()


def seen(ledger: Ledger) -> str:
    """From where on units see the whole image, in words."""
    if ledger.sees_all is not None:
        row = ledger.rows[ledger.sees_all]
        return f"every unit sees the whole image from {row.name or 'the network itself'} ({row.operation}) on"
    lost = next((row for row in ledger.rows if row.unfollowed is not None), None)
    if lost is None:
        return "no unit sees the whole image"
    return f"receptive fields are not known (?) from {lost.name or 'the network itself'} ({lost.operation}) on: {lost.unfollowed}"


def size(value: int) -> str:
    """Bytes as people read them, in powers of 1,000: `1.2 MB`."""
    short = figures.short(value).replace("\u202f", " ")
    return f"{short}B" if value >= 1000 else f"{short} B"


def formulas(rows: Sequence[LedgerRow]) -> tuple[str, ...]:
    """The output-size formula; rows and columns named where they differ."""
    found = rows[0].formulas
    if len(found) != 2:
        return found
    return (f"rows {found[0]}", f"columns {found[1]}")


def hints(ledger: Ledger) -> list[tuple[str, str, list[str]]]:
    """What is worth knowing, each sort once: kind, reason, and where, as `layer: what`."""
    found: dict[tuple[str, str], list[str]] = {}
    for hint in ledger.hints:
        row = ledger.rows[hint.row]
        found.setdefault((hint.kind, hint.reason), []).append(f"{row.name or row.operation}: {hint.what}")
    return [(kind, reason, where) for (kind, reason), where in found.items()]


def total(rows: Iterable[LedgerRow], of: Callable[[LedgerRow], int | None]) -> int:
    """The sum; what is unknown counts as nothing."""
    return sum(of(row) or 0 for row in rows)
