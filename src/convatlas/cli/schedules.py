"""`convatlas schedule`: the learning-rate schedules, in a table, a plot, a chart. Nothing here needs torch."""

import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from convatlas.arith.schedules import ABOUT, SCHEDULES, factor_at
from convatlas.cli import options as o
from convatlas.cli.console import OUT, tell, tell_json, tell_table
from convatlas.errors import UserError, unknown_name
from convatlas.records import storage
from convatlas.records.schedule import Schedule, ScheduleTable

KINDS = (".svg", ".html")
WIDEST = 80
SIDE_BY_SIDE = 5
"""So many schedules fit into a terminal of 80 columns."""
HUNDREDTHS = 100
MOST_EPOCHS = 100_000
LOWEST, HIGHEST = 1e-12, 1e6
LONGEST_WARMUP = 0.99

Names = Annotated[list[str] | None, typer.Argument(help="One schedule, or several to compare; none: all, a line each.")]
PeakRate = Annotated[float | None, typer.Option("--lr", help="The peak learning rate: the table shows rates.")]
Epochs = Annotated[int | None, typer.Option("--epochs", "-e", help="The budget, for a row each epoch.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="A new file for the chart: .svg, or .html with the numbers.")]


def schedule(
    context: typer.Context,
    names: Names = None,
    plot: Annotated[bool, typer.Option("--plot", help="Draw each in the terminal.")] = False,
    warmup: o.Warmup = 0.1,
    epochs: Epochs = None,
    lr: PeakRate = None,
    out: Out = None,
    as_json: o.Json = False,
) -> None:
    """List the learning-rate schedules, or show how the rate goes with some of them."""
    chosen = list(dict.fromkeys(names or ()))
    _check(chosen, warmup=warmup, epochs=epochs, lr=lr)
    _check_file(out)
    if plot and as_json:
        raise UserError("--plot and --json would both write to standard output", fix="Leave one of them out.")
    given = [name for name in ("plot", "warmup", "epochs", "lr", "out") if o.on_the_command_line(context, name)]
    if not chosen and not given:
        _tell_all(as_json=as_json)
        return
    table = _worked_out(chosen or list(SCHEDULES), warmup=warmup, epochs=epochs, lr=lr)
    if out is not None:
        _write(table, out)
    if as_json:
        tell_json(table)
        return
    _tell(table, plot=plot)
    if out is not None:
        tell(f"written: {out}")
    tell(_next(table))


def _check(names: Sequence[str], *, warmup: float, epochs: int | None, lr: float | None) -> None:
    """Refuse names that are not known and numbers that no recipe could have."""
    for name in names:
        if name not in SCHEDULES:
            raise unknown_name("schedule", name, SCHEDULES, where="`convatlas schedule` lists them.")
    if not 0 <= warmup <= LONGEST_WARMUP:
        raise UserError(f"--warmup is {warmup:g}", fix=f"Give a share of the budget from 0 to {LONGEST_WARMUP:g}.")
    if epochs is not None and not 1 <= epochs <= MOST_EPOCHS:
        raise UserError(f"--epochs is {epochs}", fix=f"Give a whole number from 1 to {MOST_EPOCHS}.")
    if lr is not None and not (math.isfinite(lr) and LOWEST <= lr <= HIGHEST):
        raise UserError(f"--lr is {lr:g}", fix=f"Give a number from {LOWEST:g} to {HIGHEST:g}.")


def _check_file(file: Path | None) -> None:
    """Refuse a file that is neither SVG nor HTML, or cannot be, before anything is computed."""
    if file is None:
        return
    if file.suffix.lower() not in KINDS:
        raise UserError(f"{str(file)!r} is neither .svg nor .html", fix="Name a file of one of these with --out.")
    o.check_new(file)
    if not file.parent.is_dir():
        raise UserError(f"the folder {file.parent} does not exist", fix="Make it, or name another file with --out.")


def _tell_all(*, as_json: bool) -> None:
    if as_json:
        tell_json(ABOUT)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("schedule", "after the warm-up", "from"):
        table.add_column(heading, no_wrap=heading == "schedule")
    for name, about in ABOUT.items():
        table.add_row(name, about.shape, about.source)
    tell_table(table)
    tell("next: convatlas schedule cosine step --plot, or convatlas train resnet.pocket --schedule cosine")


def _worked_out(names: Sequence[str], *, warmup: float, epochs: int | None, lr: float | None) -> ScheduleTable:
    """The schedules called `names` at the beginning and the end of each epoch, or at hundredths of the budget."""
    last = epochs or HUNDREDTHS
    progress = tuple(i / last for i in range(last + 1))
    found = []
    for name in names:
        factors = tuple(factor_at(name, share, warmup=warmup) for share in progress)
        rates = None if lr is None else tuple(lr * factor for factor in factors)
        found.append(Schedule(name, ABOUT[name].shape, ABOUT[name].source, factors, rates))
    return ScheduleTable(warmup, epochs, lr, progress, tuple(found))


def _write(table: ScheduleTable, out: Path) -> None:
    """The chart as SVG, or the page around it."""
    from convatlas.report.html import WIDE
    from convatlas.report.schedules import schedules_chart, schedules_page
    from convatlas.report.standalone import standalone

    if out.suffix.lower() == ".html":
        content = schedules_page(table, command=shlex.join(["convatlas", *sys.argv[1:]]))
    else:
        content = standalone(schedules_chart(table, width=WIDE))
    storage.write_text(out, content)


def _tell(table: ScheduleTable, *, plot: bool) -> None:
    """Each schedule with its source, and its plot if one is asked for; then the numbers of all."""
    from convatlas.report.schedules import columns, notes, schedule_plot, warmed

    tell(f"{warmed(table)}, then")
    for each in table.schedules:
        tell(f"{each.name}: {each.shape}. From: {each.source}")
        if plot:
            for line in schedule_plot(table, each, width=min(OUT.width, WIDEST), braille=_has_braille()):
                tell(line)
    spent, *others = columns(table)
    for i in range(0, len(others), SIDE_BY_SIDE):
        tell_table(_numbers([spent, *others[i : i + SIDE_BY_SIDE]]))
    for note in notes(table):
        tell(note)


def _numbers(columns: list[tuple[str, list[str]]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in zip(*(cells for _, cells in columns), strict=True):
        table.add_row(*row)
    return table


def _has_braille() -> bool:
    """Whether what reads the output is told a character set that has braille."""
    try:
        "⣿│└─".encode(OUT.encoding)
    except UnicodeEncodeError:
        return False
    return True


def _next(table: ScheduleTable) -> str:
    """The command that trains with the first of the schedules."""
    budget = "" if table.epochs is None else f" --epochs {table.epochs}"
    peak = "" if table.lr is None else f" --lr {table.lr:g}"
    name = table.schedules[0].name
    return f"next: convatlas train resnet.pocket --schedule {name} --warmup {table.warmup:g}{budget}{peak}"
