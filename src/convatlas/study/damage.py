"""Runs of a study whose records are damaged: told by reading all of them and holding them against each other and the plan.

A damaged run counts as one without a result, so that the others are reported and gone on with. Only when asked to retry is it set
aside, in a folder beside its own, and made anew.
"""

import contextlib
from functools import lru_cache
from pathlib import Path

from convatlas.errors import UserError
from convatlas.records import codec, storage
from convatlas.records.findings import Answers
from convatlas.records.plan import StudyPlan
from convatlas.records.run import RunRecord, RunSummary, read_run
from convatlas.records.study_folder import ANSWERS
from convatlas.study.folder import Job
from convatlas.study.worker import recipe_for

RECORDS = ("recipe.json", "summary.json", "metrics.jsonl", "test.json", ANSWERS)
AGAIN = "Put the file back, or go on with --retry: the run is then set aside and made anew."
_ROUNDING = 1e-5
"""An accuracy is kept as single precision gave it."""


def damage(folder: Path, plan: StudyPlan, job: Job) -> str | None:
    """What is wrong with the records of a job's run, in a clause; None for sound ones, and for a run that has not begun."""
    place = folder / job.folder
    if job.seed is None or not (place / "summary.json").exists():
        return None
    record = _read(place, _stamps(place))
    if isinstance(record, str):
        return record
    with contextlib.suppress(UserError):  # a search that has no result yet: the run cannot be held against it
        if record.recipe != recipe_for(folder, plan, job):
            return f"{place}/recipe.json is not the plan's"
    if record.test is not None and record.test.classes != plan.classes:
        return f"{place}/test.json is of other classes than planned"
    return None


def set_aside(folder: Path, job: Job) -> None:
    """Move the damaged run out of the way. Nothing is lost: it stays beside the new one. Raises UserError."""
    place = folder / job.folder
    with storage.explained(place), storage.held(place):
        taken = (place.with_name(f"{place.name}.damaged-{i}") for i in range(1, 1_000))
        place.rename(next(name for name in taken if not name.exists()))


def _stamps(place: Path) -> tuple[tuple[int, int], ...]:
    """What changes when a record does."""
    states = [path.stat() if (path := place / name).exists() else None for name in RECORDS]
    return tuple((state.st_mtime_ns, state.st_size) if state else (0, 0) for state in states)


@lru_cache(maxsize=1024)
def _read(place: Path, stamps: tuple[tuple[int, int], ...]) -> RunRecord | str:
    """The run's record, or what is wrong with it or the answers beside it."""
    try:
        codec.read(RunSummary, place / "summary.json")
        record = read_run(place)
        answers = codec.read(Answers, place / ANSWERS) if (place / ANSWERS).exists() else None
    except UserError as error:
        return error.what
    if record.summary.test_looks and record.test is None:
        return f"{place}/test.json is gone"
    if record.test is None or answers is None:
        return record
    right = sum(a == b for a, b in zip(answers.labels, answers.predicted, strict=False))
    alike = len(answers.labels) == len(answers.predicted) == len(answers.confidence) == record.test.n > 0
    if not alike or abs(right / record.test.n - record.test.top1) > _ROUNDING:
        return f"{place}/{ANSWERS} and test.json do not fit together"
    return record
