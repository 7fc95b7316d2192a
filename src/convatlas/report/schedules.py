"""Learning-rate schedules as a table, a plot in the terminal, a chart and a page."""

from convatlas import __version__
from convatlas.arith.schedules import SCHEDULES, factor_at
from convatlas.records.schedule import Schedule, ScheduleTable
from convatlas.report import figures
from convatlas.report.charts.lines import Paper, Series, lines
from convatlas.report.charts.svg import Markup
from convatlas.report.html import NARROW, WIDE, Figure, templates
from convatlas.report.text_plot import text_plot
from convatlas.report.verdict import listed

ROWS = 20
"""Of the table, at most, and the last."""
POINTS = 840
"""Of a curve: thirds, quarters and sevenths of the budget are among them."""
ONE, SEVERAL = 12, 6
"""Rows of a plot in the terminal, of a single schedule and of each of several."""


def schedules_page(table: ScheduleTable, *, command: str | None = None) -> str:
    """The page: the chart in two widths, where each schedule is from, and the numbers. `command` made it."""
    wide, narrow = (schedules_chart(table, width=width) for width in (WIDE, NARROW))
    return templates().get_template("schedules.html.j2").render(
        table=table,
        figure=Figure(f"{_measured(table).capitalize()} over the budget", wide, narrow),
        colours=list(SCHEDULES),
        columns=columns(table),
        notes=notes(table),
        warmup=warmed(table),
        command=command,
        epochs=epochs,
        rate=rate,
        version=__version__,
    )  # fmt: skip


def schedules_chart(table: ScheduleTable, *, width: float, height: float = 340) -> Markup:
    """The curves of all schedules over the budget, names at the right; a name has the same colour in every chart."""
    series = [
        Series(each.name, list(SCHEDULES).index(each.name), _points(table, each), dash=1 if each.name == "plateau" else 0)
        for each in table.schedules
    ]
    x_name = f"% of the budget{'' if table.epochs is None else f' of {epochs(table.epochs)}'}"
    format_ = figures.tick if table.lr is None else rate
    return lines(series, paper=Paper(width, height, described(table), x_name, _measured(table), y_format=format_, y_floor=0.0))


def _points(table: ScheduleTable, schedule: Schedule) -> tuple[tuple[float, float | None], ...]:
    shares = sorted({i / POINTS for i in range(POINTS + 1)} | {table.warmup})
    peak = 1.0 if table.lr is None else table.lr
    return tuple((100 * share, peak * factor_at(schedule.name, share, warmup=table.warmup)) for share in shares)


def schedule_plot(table: ScheduleTable, schedule: Schedule, *, width: int, braille: bool) -> list[str]:
    """The lines of a plot for a terminal of `width` columns: lower where the table has several schedules."""
    if table.epochs is None:
        below = ["0 %", "50 %", "100 % of the budget"]
    else:
        below = ["0", f"{table.epochs / 2:g}", epochs(table.epochs)]
    return text_plot(
        lambda share: factor_at(schedule.name, share, warmup=table.warmup),
        left=("1" if table.lr is None else rate(table.lr), "0"),
        below=below,
        width=width,
        height=ONE if len(table.schedules) == 1 else SEVERAL,
        braille=braille,
    )


def described(table: ScheduleTable) -> str:
    """What a chart shows, for those who cannot see it."""
    shapes = "; ".join(f"{each.name}: {each.shape}" for each in table.schedules)
    return f"{_measured(table).capitalize()} over the budget; {warmed(table)}, then {shapes}"


def warmed(table: ScheduleTable) -> str:
    """The warm-up in words."""
    return f"linear warm-up over the first {100 * table.warmup:.3g} % of the budget" if table.warmup else "no warm-up"


def notes(table: ScheduleTable) -> list[str]:
    """What the numbers do not say, in sentences."""
    names = [each.name for each in table.schedules]
    found = []
    if "plateau" in names:
        found.append(
            "plateau is constant here: when validation will stop improving, and the rate be cut, is not known beforehand."
        )
    late = [name for name in names if factor_at(name, table.warmup, warmup=table.warmup) < 1]
    if late:
        found.append(f"{listed(late)}: the warm-up lasts until the first drop or longer, so that the peak is never used.")
    return found


def columns(table: ScheduleTable) -> list[tuple[str, list[str]]]:
    """The table's columns, heading and cells: how far the budget is spent, then each schedule; some 20 rows, evenly chosen.

    Cells are factors, or learning rates where their peak is known; of a single schedule both.
    """
    rows = _rows(len(table.progress) - 1)
    spent = [f"{100 * table.progress[i]:g} %" if table.epochs is None else str(i) for i in rows]
    found = [("budget" if table.epochs is None else "epochs done", spent)]
    alone = len(table.schedules) == 1
    for each in table.schedules:
        if each.rates is None or alone:
            found.append(("factor" if alone else each.name, [f"{each.factors[i]:.4f}" for i in rows]))
        if each.rates is not None:
            found.append(("learning rate" if alone else each.name, [rate(each.rates[i]) for i in rows]))
    return found


def _rows(last: int) -> list[int]:
    """Which points have a row: every one, every 2nd, 5th, 10th and so on, and the last."""
    step = next(factor * 10**power for power in range(10) for factor in (1, 2, 5) if factor * 10**power * ROWS >= last)
    return [*range(0, last, step), last]


def epochs(number: int) -> str:
    """A number of epochs: 1 epoch, 90 epochs."""
    return f"{number} epoch{'s' if number > 1 else ''}"


def rate(value: float) -> str:
    """A learning rate in three significant digits: 0.003, 2.5e-05."""
    return f"{value:.3g}"


def _measured(table: ScheduleTable) -> str:
    return "factor of the learning rate" if table.lr is None else "learning rate"
