"""What a study's runs say so far: everything in its folder brought together as one record."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from convatlas.records import codec, storage
from convatlas.records.findings import Answers, Failure, Findings, Speed, Speeds, Tuned, VariantFindings
from convatlas.records.plan import FORMAT, StudyPlan, Variant
from convatlas.records.run import TEST_EPOCHS, RunRecord, read_run, read_test_epochs
from convatlas.records.study import Interval
from convatlas.records.study_folder import ANSWERS, FINDINGS
from convatlas.study.damage import AGAIN, damage
from convatlas.study.effects import Outcome, described, effects
from convatlas.study.folder import TRIES, Job, attempts_at, failures_of, is_done, jobs_of, read_plan, searches_of, tuned_path
from convatlas.study.statistics import accuracy_interval, calibration_error, mean_interval, optimism, per_class
from convatlas.training.environment import environment

SPEEDS = "speeds.json"


@dataclass(frozen=True)
class _Done:
    """A finished run. `answers` is None where there is no test split; `test_epochs` are the accuracies after each epoch."""

    folder: str
    seed: int
    record: RunRecord
    answers: Answers | None
    test_epochs: tuple[float, ...]

    @property
    def right(self) -> tuple[bool, ...]:
        """Whether each test image was answered rightly."""
        assert self.answers is not None
        return tuple(a == b for a, b in zip(self.answers.labels, self.answers.predicted, strict=True))


def summarise(folder: Path) -> Findings:
    """The findings so far, of the runs that are finished. Raises UserError."""
    plan = read_plan(folder)
    done = {variant.name: _finished(folder, plan, variant) for variant in plan.variants}
    missing = tuple(job.name for job in jobs_of(plan) if not _sound(folder, plan, job))
    speeds = codec.read(Speeds, folder / SPEEDS).speeds if (folder / SPEEDS).exists() else {}
    every = [run for runs in done.values() for run in runs]
    rows = tuple(
        _row(variant.name, done[variant.name], plan, speeds, _failures(folder, plan, variant)) for variant in plan.variants
    )
    return Findings(
        format=FORMAT,
        plan=plan,
        complete=not missing,
        missing=missing,
        variants=rows,
        effects=effects({name: _outcome(runs) for name, runs in done.items()}, plan.comparisons, equivalence=plan.equivalence),
        tuned=tuple(
            codec.read(Tuned, path) for v in plan.variants if (path := tuned_path(folder, v.name)).exists() and plan.tuning
        ),
        optimism=_optimism(every),
        test_looks=sum(row.test_looks for row in rows),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=f"convatlas study resume {shlex.quote(str(folder))}",
        environment=every[0].record.summary.environment if every else environment(),
    )


def keep_findings(folder: Path) -> Findings:
    """The findings so far, also as `findings.json` in the study's folder."""
    findings = summarise(folder)
    storage.write_text(folder / FINDINGS, codec.to_text(findings))
    return findings


def with_pair(folder: Path, findings: Findings, pair: tuple[str, str]) -> Findings:
    """The findings with the difference of the pair of variants among them, described if it was not planned."""
    named = {each.name for each in findings.plan.variants}
    if not set(pair) <= named or any({each.first, each.second} == set(pair) for each in findings.effects):
        return findings
    return replace(findings, effects=(*findings.effects, described(*pair, outcomes_of(folder))))


def outcomes_of(folder: Path) -> dict[str, Outcome]:
    """The test accuracies of every variant by seed, as the statistics want them."""
    plan = read_plan(folder)
    return {variant.name: _outcome(_finished(folder, plan, variant)) for variant in plan.variants}


def _finished(folder: Path, plan: StudyPlan, variant: Variant) -> list[_Done]:
    """The variant's runs that are done, seed by seed."""
    jobs = (Job(variant.name, seed) for seed in plan.seeds)
    return [_read(folder / job.folder, job) for job in jobs if _sound(folder, plan, job)]


def _sound(folder: Path, plan: StudyPlan, job: Job) -> bool:
    """Whether the run has a result that can be believed."""
    return is_done(folder, plan, job) and damage(folder, plan, job) is None


def _read(place: Path, job: Job) -> _Done:
    assert job.seed is not None
    answers = codec.read(Answers, place / ANSWERS) if (place / ANSWERS).exists() else None
    epochs = tuple(each.top1 for each in read_test_epochs(place / TEST_EPOCHS))
    return _Done(job.folder, job.seed, read_run(place), answers, epochs)


def _outcome(runs: Sequence[_Done]) -> Outcome:
    tested = [run for run in runs if run.record.test is not None and run.answers is not None]
    return Outcome(
        {run.seed: run.record.test.top1 for run in tested if run.record.test is not None}, {run.seed: run.right for run in tested}
    )


def _row(
    name: str, runs: Sequence[_Done], plan: StudyPlan, speeds: dict[str, Speed], failures: tuple[Failure, ...]
) -> VariantFindings:
    tests = [run.record.test for run in runs if run.record.test is not None]
    answers = [run.answers for run in runs if run.answers is not None]
    summaries = [run.record.summary for run in runs]
    accuracies = tuple(test.top1 for test in tests)
    return VariantFindings(
        name=name,
        runs=tuple(run.folder for run in runs),
        seeds=tuple(run.seed for run in runs),
        top1=accuracy_interval(accuracies, n_images=plan.n_test) if accuracies else None,
        top1_of_seeds=accuracies,
        top5=_shares([test.top5 for test in tests if test.top5 is not None]),
        validation=_shares([each.val_accuracy for each in summaries if each.val_accuracy is not None]),
        calibration_error=_shares([calibration_error(each.confidence, _right(each)) for each in answers]),
        per_class=_by_class(answers, len(plan.classes)),
        train_seconds=_mean([each.train_seconds for each in summaries]),
        train_images_per_second=_mean([each.images_per_second for each in summaries]),
        optimism=_optimism(runs),
        test_looks=sum(each.test_looks for each in summaries) + sum(len(run.test_epochs) for run in runs),
        speed=speeds.get(name),
        failures=failures,
    )


def _right(answers: Answers) -> tuple[bool, ...]:
    return tuple(a == b for a, b in zip(answers.labels, answers.predicted, strict=True))


def _shares(values: Sequence[float]) -> Interval | None:
    return mean_interval(values, within=(0.0, 1.0)) if values else None


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _by_class(answers: Sequence[Answers], classes: int) -> tuple[Interval, ...]:
    """The accuracy of each class over the seeds; nothing where a class has no test image."""
    rows = [per_class(each.labels, each.predicted, classes=classes) for each in answers]
    known = [[row[i] for row in rows] for i in range(classes)] if rows else []
    if any(share is None for column in known for share in column):
        return ()
    return tuple(mean_interval([s for s in column if s is not None], within=(0.0, 1.0)) for column in known)


def _optimism(runs: Sequence[_Done]) -> Interval | None:
    watched = [run.test_epochs for run in runs if run.test_epochs]
    return optimism([max(each) for each in watched], [each[-1] for each in watched]) if watched else None


def _failures(folder: Path, plan: StudyPlan, variant: Variant) -> tuple[Failure, ...]:
    """The variant's jobs that have failed for good, and its runs whose records are damaged."""
    searches = [job for job in searches_of(plan) if job.variant == variant.name]
    found = []
    for job in [*searches, *(Job(variant.name, seed) for seed in plan.seeds)]:
        failed = failures_of(folder, job)
        broken = damage(folder, plan, job)
        if broken is not None:
            found.append(Failure(job.name, len(attempts_at(folder, job)), f"{broken}. {AGAIN}"))
            continue
        if len(failed) >= TRIES and not is_done(folder, plan, job):
            found.append(Failure(job.name, len(failed), failed[-1].cause or "unknown"))
    return tuple(found)
