"""`results.csv` of a study: one row a planned run, whether or not it has a result."""

import csv
import io
from collections.abc import Sequence

from convatlas.records.findings import Findings
from convatlas.records.study_folder import StudyRun, run_folder
from convatlas.report.study.views import View, cause_of, views
from convatlas.report.table import cell

COLUMNS = (
    "study", "variant", "seed", "status", "model", "params", "macs", "width", "image_size", "steps", "epochs_done", "images_seen",
    "train_seconds", "images_per_second", "val_accuracy", "test_accuracy", "test_top5", "test_loss", "test_looks",
    "best_test_epoch", "best_test_epoch_accuracy", "run_folder", "cause",
)  # fmt: skip
Value = str | float | None


def study_csv(findings: Findings, runs: Sequence[StudyRun]) -> str:
    """All planned runs, variant by variant, seed by seed; after the columns of every study one for each factor's level.

    Numbers in full; what is not known is an empty cell. Texts lose control and bidi characters; one that a spreadsheet would take
    for a formula begins with an apostrophe.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    factors = [factor.name for factor in findings.plan.factors]
    writer.writerow([*COLUMNS, *(cell(f"factor {name}") for name in factors)])
    for view in views(findings, runs):
        begun = {run.seed: run for run in view.begun}
        for seed in findings.plan.seeds:
            levels = [view.variant.levels.get(name) for name in factors]
            row = (*_planned(findings, view, seed), *_made(begun.get(seed), view, seed), *levels)
            writer.writerow([cell(row[i]) for i in ORDER] + [cell(level) for level in levels])
    return file.getvalue()


PLANNED = ("study", "variant", "seed", "model", "params", "macs", "width", "image_size", "steps")
MADE = tuple(name for name in COLUMNS if name not in PLANNED)
ORDER = tuple((*PLANNED, *MADE).index(name) for name in COLUMNS)


def _planned(findings: Findings, view: View, seed: int) -> tuple[Value, ...]:
    one = view.variant
    return (
        findings.plan.name, one.name, seed, one.recipe.model, one.params, one.macs, one.width, one.image_size, one.steps
    )  # fmt: skip


def _made(run: StudyRun | None, view: View, seed: int) -> tuple[Value, ...]:
    """The columns of `MADE`."""
    cause = cause_of(view, seed)
    if run is None:
        return ("failed" if cause else "not begun", *(None for _ in MADE[1:-2]), run_folder(view.name, seed), cause)
    one, test = run.record.summary, run.record.test
    best = max(run.test_epochs, key=lambda each: each.top1, default=None)
    return (
        one.status, one.epochs_done, one.images_seen, one.train_seconds, one.images_per_second, one.val_accuracy,
        one.test_accuracy, test.top5 if test else None, test.loss if test else None, one.test_looks,
        best.epoch if best else None, best.top1 if best else None, run.folder, cause,
    )  # fmt: skip
