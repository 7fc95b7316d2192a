"""Where the command line writes: results to standard output, everything else to standard error."""

import csv
import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from convatlas.records import codec


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to `main`, which ends quietly; rich would exit with 1."""
        raise BrokenPipeError


class _ErrorConsole(Console):
    def on_broken_pipe(self) -> None:
        """Nobody listens any more (`2>&1 | head`): what is under way goes on, unheard."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


# A class may be called ":x:", and "metrics.jsonl:100:" is a place: no word between colons is made a picture.
OUT = _Console(highlight=False, emoji=False)
ERR = _ErrorConsole(stderr=True, highlight=False, emoji=False)


def say(text: str) -> None:
    """A line for the person at the terminal, on standard error, as it is: names are never read as markup."""
    ERR.print(printable(text), markup=False, soft_wrap=True)


def tell(text: str) -> None:
    """A line of the result, on standard output."""
    OUT.print(printable(text), markup=False, soft_wrap=True)


def tell_table(table: Table) -> None:
    """A table of the result with its columns as wide as they need: on a narrow terminal lines wrap, and no digit is lost."""
    _Console(highlight=False, emoji=False, width=max(OUT.width, 80, narrowest(table))).print(table)


def narrowest(table: Table) -> int:
    """In how many columns a table fits without cutting anything."""
    return _Console(width=1000).measure(table).minimum


def tell_json(record: Any) -> None:
    """The result for machines, on standard output."""
    text = json.dumps(codec.to_plain(record), indent=2, ensure_ascii=False, allow_nan=False)
    # A byte of a file name that is no text would come out as that byte; as an escape such as \udcff JSON can hold it.
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n")


def tell_csv(rows: Iterable[Sequence[str | float | None]]) -> None:
    """The result as a table for spreadsheets, on standard output, each value as `results.csv` has it."""
    from convatlas.report.table import cell

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerows([cell(value) for value in row] for row in rows)


def printable(text: str) -> str:
    """The text without terminal escapes or marks that turn the writing direction: file and class names may hold any."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def count(value: int) -> str:
    """A number of parameters or MACs in three to four digits: 61.7 k, 25.56 M, 4.089 G."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.4g} {unit}"
    return str(value)


def counted(number: int, what: str) -> str:
    """A number of things: 1 epoch, 2 epochs."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
