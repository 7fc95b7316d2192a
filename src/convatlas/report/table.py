"""`results.csv`: one row a run."""

import csv
import io
from collections.abc import Sequence

from convatlas.records.run import RunRecord
from convatlas.records.study import Comparison
from convatlas.report import figures
from convatlas.report.plain import plain
from convatlas.report.views import folder

COLUMNS = (
    "model", "family", "year", "seed", "params", "macs", "image_size", "images_seen", "epochs_done", "train_seconds",
    "images_per_second", "val_accuracy", "test_accuracy", "run_folder", "status",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@")  # a tab, too, but texts lose their control characters first


def comparison_csv(comparison: Comparison, runs: Sequence[RunRecord]) -> str:
    """All runs, in the order of the comparison's models, then by seed. Numbers in full; what is not known is an empty cell.

    Texts lose control and bidi characters; one that a spreadsheet would take for a formula begins with an apostrophe.
    """
    order = {model: rank for rank, model in enumerate(comparison.models)}
    sorted_runs = sorted(runs, key=lambda run: (order.get(run.summary.model, len(order)), run.summary.seed))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([cell(each) for each in _row(comparison, run)] for run in sorted_runs)
    return file.getvalue()


def _row(comparison: Comparison, run: RunRecord) -> tuple[str | float | None, ...]:
    one = run.summary
    year = next((row.year for row in comparison.rows if row.model == one.model), None)
    return (
        one.model, one.family, year, one.seed, one.params, one.macs, one.image_size, one.images_seen, one.epochs_done,
        one.train_seconds, one.images_per_second, one.val_accuracy, one.test_accuracy, folder(comparison, run), one.status,
    )  # fmt: skip


def cell(value: str | float | None) -> str:
    """A value as a CSV file has it: numbers in full, names without what a spreadsheet would take for a formula."""
    if isinstance(value, str):
        shown = plain(value).strip()
        return f"'{shown}" if shown.startswith(_FORMULA) else shown
    known = figures.finite(value)
    return "" if known is None else repr(value)
