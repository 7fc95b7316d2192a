"""The page of a comparison: one HTML file that needs nothing but itself, and no script."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from convatlas.records.run import Choices, RunRecord
from convatlas.records.study import Comparison
from convatlas.report import figures
from convatlas.report.charts import svg
from convatlas.report.charts.bars import bars
from convatlas.report.charts.lines import Paper, lines
from convatlas.report.charts.scatter import Cost, Point, scatter
from convatlas.report.plain import plain
from convatlas.report.sections import LARGEST, sections
from convatlas.report.verdict import listed, verdict
from convatlas.report.views import Measure, View, curves, folder, ranked, views

if TYPE_CHECKING:
    import jinja2

WIDE, NARROW = 1060.0, 358.0  # widths of drawings: for a desk, for a telephone
HALF = 520.0


@dataclass(frozen=True)
class Figure:
    """A chart with its heading; `narrow` is the same chart drawn for a telephone, where one drawing does not do for both."""

    heading: str
    wide: svg.Markup
    narrow: svg.Markup | None = None


def comparison_page(comparison: Comparison, runs: Sequence[RunRecord], *, continue_with: str | None = None) -> str:
    """The report of a comparison. `continue_with` is the command that goes on with an incomplete one."""
    shown = views(comparison, runs)
    return templates().get_template("comparison.html.j2").render(
        comparison=comparison,
        continue_with=continue_with,
        views=shown,
        verdict=verdict(comparison, shown),
        bars=_bars(comparison, shown),
        curves=_curves(shown),
        scatters=_scatters(shown),
        sections=sections(shown),
        largest=LARGEST,
        missing=_missing(comparison, shown),
        runs=[(run, folder(comparison, run)) for run in runs],
        skipped=list(dict.fromkeys(name for run in runs for name in run.summary.skipped_images)),
        choices=_choices(runs),
        recipe=_recipe(comparison),
        environment=fields(comparison.environment),
        total_seconds=sum(figures.finite(run.summary.train_seconds) or 0.0 for run in runs),
    )  # fmt: skip


@cache
def templates() -> "jinja2.Environment":
    """The environment of all pages: escapes everything, and refuses a name that the page does not have."""
    import jinja2  # here, since every command imports this module, and few write a page

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("convatlas.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters |= {
        "percent": figures.percent,
        "count": figures.count,
        "short": figures.short,
        "duration": figures.duration,
        "listed": listed,
    }
    return environment


def _finalize(value: Any) -> Any:
    """Every text that a template shows passes here: names from outside lose what could hide or reorder the rest."""
    return plain(value) if isinstance(value, str) and not isinstance(value, svg.Markup) else value


def _bars(comparison: Comparison, shown: Sequence[View]) -> Figure | None:
    marks = [mark for _, mark in ranked(shown)]
    if not marks:
        return None
    chance = 1 / len(comparison.classes) if comparison.classes else None
    wide, narrow = (bars(marks, chance=chance, width=width, name="Test accuracy of each model") for width in (WIDE, NARROW))
    return Figure("Test accuracy", wide, narrow)


def _curves(shown: Sequence[View]) -> list[Figure]:
    """Learning curves; a measure that no run has (no validation split) has no figure."""
    measures: tuple[tuple[str, Measure, dict[str, Any]], ...] = (
        ("validation accuracy", lambda each: each.val_accuracy, {"y_format": _whole_percent, "y_floor": 0.0, "y_ceiling": 1.0}),
        ("training loss, nats", lambda each: each.train_loss, {"y_floor": 0.0}),
    )
    spans: tuple[tuple[str, Measure], ...] = (
        ("epoch", lambda each: each.epoch),
        ("seconds of training", lambda each: each.seconds),
    )
    drawn = []
    for y_name, upwards, more in measures:
        for x_name, across in spans:
            series = curves(shown, across=across, upwards=upwards)
            if any(y is not None for each in series for _, y in each.mean):
                heading = f"{y_name.partition(',')[0].capitalize()} by {x_name.partition(' ')[0]}"
                papers = (
                    Paper(width, 340, heading, x_name, y_name, x_whole=x_name == "epoch", **more) for width in (HALF, NARROW)
                )
                drawn.append(Figure(heading, *(lines(series, paper=paper) for paper in papers)))
    return drawn


def _whole_percent(value: float) -> str:
    return figures.percent(value, digits=0)


def _scatters(shown: Sequence[View]) -> list[Figure]:
    marked = ranked(shown)
    if not marked:
        return []
    size = f"at {listed(sorted({f'{view.row.image_size}' for view, _ in marked}))} pixels"
    costs = (
        ("parameters", "parameters", [float(view.row.params) for view, _ in marked]),
        ("cost of one image", f"MACs {size}", [float(view.row.macs) for view, _ in marked]),
        ("training time", "seconds of training", [view.row.train_seconds for view, _ in marked]),
    )
    drawn = []
    for heading, name, values in costs:
        points = [
            Point(value, mark) for value, (_, mark) in zip(values, marked, strict=True) if figures.finite(value) is not None
        ]
        told = f"Test accuracy against {heading}"
        chart = scatter(points, cost=Cost(name, figures.short), width=NARROW, height=330, name=told)
        drawn.append(Figure(f"Accuracy and {heading}", chart))
    return drawn


def _missing(comparison: Comparison, shown: Sequence[View]) -> list[tuple[str, str]]:
    """What has no result, or not all of its seeds, each with the cause."""
    rows = {view.row.model: view for view in shown}
    missing = []
    for model in comparison.models:
        view = rows.get(model)
        if view is None:
            missing.append((model, "not run yet"))
        elif view.mark is None:
            missing.append((model, view.row.cause or "not finished"))
        elif absent := [str(seed) for seed in comparison.seeds if seed not in view.row.seeds]:
            missing.append((model, f"no result for seed {listed(absent)}{f' ({view.row.cause})' if view.row.cause else ''}"))
    return missing


def _choices(runs: Sequence[RunRecord]) -> list[tuple[Choices, str]]:
    """What `auto` came to, each distinct outcome with the models it held for."""
    models: dict[Choices, list[str]] = {}
    for run in runs:
        names = models.setdefault(run.summary.choices, [])
        names.extend([] if run.summary.model in names else [run.summary.model])
    return [(choices, listed(names)) for choices, names in models.items()]


def _recipe(comparison: Comparison) -> list[tuple[str, str]]:
    """Every field of the shared recipe; its model and seed are those of the whole comparison."""
    whole = {"model": ", ".join(comparison.models), "seed": ", ".join(map(str, comparison.seeds))}
    return [(name, whole.get(name, value)) for name, value in fields(comparison.recipe)]


def fields(record: Any) -> list[tuple[str, str]]:
    """Every field of a record with its value in words."""
    values = ((field.name, getattr(record, field.name)) for field in dataclasses.fields(record))
    return [(name, {None: "none", True: "yes", False: "no"}.get(value, str(value)) if _flag(value) else str(value))
            for name, value in values]  # fmt: skip


def _flag(value: Any) -> bool:
    return value is None or isinstance(value, bool)
