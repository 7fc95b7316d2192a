"""How far a study has come, from its files alone: done, under way, waiting, failed. No process is asked."""

from dataclasses import dataclass
from pathlib import Path

from convatlas.records import codec, storage
from convatlas.records.plan import StudyPlan
from convatlas.records.run import RunSummary, read_metrics
from convatlas.study.damage import AGAIN, damage
from convatlas.study.folder import TRIES, Job, failures_of, is_done, jobs_of, read_plan, searches_of, variant_of


@dataclass(frozen=True)
class JobState:
    """Where a job stands: `state` is done, running, interrupted, waiting, retrying, failed or damaged. `epochs` are done, of how
    many is said."""

    job: str
    state: str
    epochs: str
    val_accuracy: float | None
    test_accuracy: float | None
    cause: str | None


def states_of(folder: Path) -> list[JobState]:
    """Of all jobs of the study, in the order in which they are done. Raises UserError."""
    plan = read_plan(folder)
    return [state_of(folder, plan, job) for job in [*searches_of(plan), *jobs_of(plan)]]


def state_of(folder: Path, plan: StudyPlan, job: Job) -> JobState:
    """Of one job."""
    broken = damage(folder, plan, job)
    if broken is not None:
        return JobState(job.name, "damaged", "", None, None, f"{broken}. {AGAIN}")
    done, epochs, validation, test = is_done(folder, plan, job), *_reached(folder, plan, job)
    failed = failures_of(folder, job)
    if done:
        state = "done"
    elif storage.is_held(folder / job.claim):
        state = "running"
    elif len(failed) >= TRIES:
        state = "failed"
    elif failed:
        state = "retrying"
    else:
        state = "interrupted" if (folder / job.folder / "recipe.json").exists() else "waiting"
    return JobState(job.name, state, epochs, validation, test, failed[-1].cause if failed and not done else None)


def _reached(folder: Path, plan: StudyPlan, job: Job) -> tuple[str, float | None, float | None]:
    """Epochs, validation accuracy and, once it was looked at, test accuracy."""
    if job.seed is None:
        return "", None, None
    place, planned = folder / job.folder, variant_of(plan, job.variant).recipe.epochs
    metrics = read_metrics(place / "metrics.jsonl")
    path = place / "summary.json"
    test = codec.read(RunSummary, path).test_accuracy if path.exists() else None
    of = "" if planned is None else f" of {planned}"
    return f"{len(metrics)}{of}", metrics[-1].val_accuracy if metrics else None, test
