"""The page of a study: one HTML file that needs nothing but itself, holds no script, and links to its run folders alone."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from convatlas.records.findings import Findings
from convatlas.records.run import Choices
from convatlas.records.study_folder import StudyRun, run_folder
from convatlas.report import figures
from convatlas.report.charts import axes
from convatlas.report.charts.axes import Axis
from convatlas.report.charts.intervals import Row, Stroke, intervals
from convatlas.report.charts.marks import colour_class
from convatlas.report.html import NARROW, WIDE, Figure, fields, templates
from convatlas.report.sections import png
from convatlas.report.study import agreement, calibration, classes, curves, effects, inside, settings
from convatlas.report.study.answer import answer
from convatlas.report.study.views import Pair, View, cause_of, link, pairs, ranked, views
from convatlas.report.verdict import listed


@dataclass(frozen=True)
class RunRow:
    """A planned run: its record, if it has begun, and why it has no result, if that is known. `folder` is where it is to be."""

    view: View
    seed: int
    folder: str
    run: StudyRun | None
    cause: str | None


def study_page(findings: Findings, runs: Sequence[StudyRun], *, compare: Pair | None = None) -> str:
    """The report of a study, whole or of the two variants `compare`.

    What is missing is said, and the rest is shown. Raises UserError for a comparison of what the study has not.
    """
    shown = views(findings, runs, compare=compare)
    compared = pairs(findings, shown, compare=compare)
    return (
        templates()
        .get_template("study/page.html.j2")
        .render(
            **_outcome(findings, shown, compared, compare),
            **_details(findings, shown, compared),
            **_making(findings, shown, compare),
            **WORDS,
        )
    )


WORDS: dict[str, Any] = {
    "link": link,
    "listed": listed,
    "points": figures.points,
    "significant": figures.significant,
    "scientific": figures.scientific,
    "p_value": effects.p_value,
    "bounded": effects.bounded,
    "ends": effects.ends,
    "decimals": effects.digits,
    "searched": settings.searched,
    "held_words": settings.WORDS,
    "date": figures.date,
    "png": png,
}
"""What the templates say things with."""


def _outcome(
    findings: Findings, shown: Sequence[View], compared: Sequence[tuple[View, View]], compare: Pair | None
) -> dict[str, Any]:
    """The upper part of the page: the answer and the numbers behind it."""
    found = effects.outcomes(findings, compared)
    return {
        "findings": findings,
        "plan": findings.plan,
        "views": shown,
        "compare": compare,
        "answer": answer(findings, shown, found, compare=compare),
        "outcomes": found,
        "forest": effects.forest(findings, found),
        "accuracies": _accuracies(shown),
        "held": settings.held_equal(findings, shown),
        "speeds": [view for view in shown if view.found and view.found.speed],
        "levels": _shows_levels(shown),
    }


def _details(findings: Findings, shown: Sequence[View], compared: Sequence[tuple[View, View]]) -> dict[str, Any]:
    """The middle: charts, confusions, images, networks from within."""
    return {
        "curves": curves.learning_curves(shown),
        "pareto": curves.pareto(shown),
        "grid": settings.interaction(findings, shown),
        "per_class": classes.per_class(findings, shown),
        "confusions": classes.confusions(findings, compared),
        "errors": classes.errors(shown),
        "agreements": agreement.agreements(findings, compared, most=classes.PAIRS),
        "pairs": len(compared),
        "inside": inside.inside(shown),
        "flow": inside.gradient_flow(shown),
        "reliability": calibration.reliability(shown),
    }


def _making(findings: Findings, shown: Sequence[View], compare: Pair | None) -> dict[str, Any]:
    """The lower part: how it was made, and how to make it again."""
    rows = _run_rows(findings, shown)
    begun = [row.run for row in rows if row.run is not None]
    return {
        "rows": rows,
        "looks": [(row, look) for row in rows if row.run is not None for look in row.run.looks],
        "missing": [row for row in rows if row.run is None or row.seed not in (row.view.found.seeds if row.view.found else ())],
        "failures": [(view, each) for view in shown if view.found for each in view.found.failures],
        "tuned": settings.tuned(findings, shown),
        "recipes": settings.recipes(shown),
        "environment": fields(findings.environment),
        "machines": settings.machines(findings, shown),
        "choices": _choices(begun),
        "skipped": list(dict.fromkeys(name for run in begun for name in run.record.summary.skipped_images)),
        "seconds": sum(run.record.summary.train_seconds for run in begun),
        "source": shlex.quote(findings.plan.source),
        "title": f"{compare[0]} against {compare[1]}" if compare else findings.plan.name,
    }


def _accuracies(shown: Sequence[View]) -> Figure | None:
    """The accuracies of all variants, every seed a ring, on a scale that begins where they do."""
    known = ranked(shown)
    if not known:
        return None
    rows = []
    for _, mark in known:
        stroke = Stroke(colour_class(mark.colour), mark.value, mark.low, mark.high, mark.told(), mark.singles)
        low, high = (figures.percent(end, digits=2, sign=False) for end in (mark.low, mark.high))
        rows.append(Row(mark.name, (stroke,), f"{figures.percent(mark.value, digits=2)}  ({low} to {high})"))
    every = [end for _, mark in known for end in (mark.value, mark.low, mark.high, *mark.singles) if end is not None]
    scale = axes.linear(every, floor=0.0, ceiling=1.0, count=6)
    axis = Axis(scale, "test accuracy", lambda value: figures.percent(value, digits=0 if scale.high - scale.low >= 0.05 else 1))
    name = "Test accuracy with 95 % intervals: " + "; ".join(mark.told() for _, mark in known)
    wide, narrow = (intervals(rows, axis=axis, width=width, name=name) for width in (WIDE, NARROW))
    return Figure("Accuracy", wide, narrow)


def _shows_levels(shown: Sequence[View]) -> bool:
    """Whether the levels say more than the variants' names do."""
    return any(tuple(view.variant.levels.values()) != (view.name,) for view in shown)


def _run_rows(findings: Findings, shown: Sequence[View]) -> list[RunRow]:
    """Every planned run of the variants shown, variant by variant, seed by seed."""
    rows = []
    for view in shown:
        begun = {run.seed: run for run in view.begun}
        for seed in findings.plan.seeds:
            run = begun.get(seed)
            rows.append(RunRow(view, seed, run.folder if run else run_folder(view.name, seed), run, cause_of(view, seed)))
    return rows


def _choices(begun: Sequence[StudyRun]) -> list[tuple[Choices, str]]:
    """What `auto` came to, each distinct outcome with the variants it held for."""
    found: dict[Choices, list[str]] = {}
    for run in begun:
        names = found.setdefault(run.record.summary.choices, [])
        names.extend([] if run.variant in names else [run.variant])
    return [(choices, listed(names)) for choices, names in found.items()]
