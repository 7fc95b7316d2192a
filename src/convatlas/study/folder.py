"""A study's folder: its plan, its runs, who is at work on which, and how tries at them ended.

plan.json             the plan, resolved
runs/VARIANT/seed-N/  the runs, each a run folder as `convatlas train` makes it
claims/VARIANT/N/     held by the process that is at work on the run; attempts.jsonl: how tries ended; log.txt: what it said
tuned/, tune/         what the search for settings came to, and its trials
"""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from convatlas.errors import UserError
from convatlas.records import codec, storage
from convatlas.records.naming import short_name
from convatlas.records.plan import FORMAT, Attempt, StudyPlan, Variant
from convatlas.records.run import RunSummary
from convatlas.records.study_folder import ANSWERS, LOOK, run_folder

PLAN = "plan.json"
TRIES = 2
"""A run that fails is tried once more."""
_UNCOMPARED = ("date", "convatlas", "source", "seeds_added", "name", "data_description")
"""Fields of a plan that say nothing about what its runs are."""


@dataclass(frozen=True)
class Job:
    """A run of a study that is to be made: the `variant` with the `seed`; seed None stands for the variant's search."""

    variant: str
    seed: int | None

    @property
    def name(self) -> str:
        """What people read."""
        return f"{self.variant}, tuning" if self.seed is None else f"{self.variant}, seed {self.seed}"

    @property
    def claim(self) -> str:
        """The folder that whoever works on it holds, relative to the study's."""
        return f"claims/{short_name(self.variant)}/{'tuning' if self.seed is None else self.seed}"

    @property
    def folder(self) -> str:
        """Where its run is, relative to the study's."""
        return f"tune/{short_name(self.variant)}" if self.seed is None else run_folder(self.variant, self.seed)


def begin(plan: StudyPlan, folder: Path) -> None:
    """Make the study's folder and keep the plan in it."""
    with storage.beginning(folder):
        storage.write_text(folder / PLAN, codec.to_text(plan))


def read_plan(folder: Path) -> StudyPlan:
    """The plan of the study in `folder`. Raises UserError for what is no study, of another version, or damaged."""
    path = folder / PLAN
    if not path.exists():
        raise UserError(f"{folder} holds no study", fix="Name the folder that `convatlas study run` has made.")
    text = codec.text_of(path)
    try:
        version = json.loads(text).get("format")
    except (ValueError, AttributeError, RecursionError):
        version = FORMAT  # what is wrong is said below
    if isinstance(version, int) and version != FORMAT:
        raise UserError(f"{folder} was written by another version (format {version})", fix="Use that version of convatlas.")
    return codec.from_text(StudyPlan, text, where=str(path))


def jobs_of(plan: StudyPlan) -> list[Job]:
    """All runs, seed by seed, so that an unfinished study still compares."""
    return [Job(variant.name, seed) for seed in plan.seeds for variant in plan.variants]


def searches_of(plan: StudyPlan) -> list[Job]:
    """One search for each variant, if there is something to tune."""
    return [Job(variant.name, None) for variant in plan.variants] if plan.tuning is not None else []


def variant_of(plan: StudyPlan, name: str) -> Variant:
    """The variant called `name`."""
    return next(variant for variant in plan.variants if variant.name == name)


def tuned_path(folder: Path, variant: str) -> Path:
    """The file that says what a variant's search came to."""
    return folder / "tuned" / f"{short_name(variant)}.json"


def is_done(folder: Path, plan: StudyPlan, job: Job) -> bool:
    """Whether nothing is left to do for the job: trained, judged, and for the first seed looked into. See also `damage`."""
    if job.seed is None:
        return tuned_path(folder, job.variant).exists()
    place = folder / job.folder
    if not (place / "summary.json").exists():
        return False
    try:
        summary = codec.read(RunSummary, place / "summary.json")
    except UserError:
        return False
    judged = summary.status == "finished" and (plan.n_test == 0 or (summary.test_looks > 0 and (place / ANSWERS).exists()))
    return judged and (job.seed != plan.seeds[0] or plan.n_val == 0 or (place / LOOK).exists())


def attempts_at(folder: Path, job: Job) -> list[Attempt]:
    """How the tries at a job ended, oldest first; a torn last line is left out."""
    path = folder / job.claim / "attempts.jsonl"
    if not path.exists():
        return []
    lines = codec.text_of(path).split("\n")[:-1]
    return [codec.from_text(Attempt, line, where=f"{path}:{i}") for i, line in enumerate(lines, 1) if line]


def failures_of(folder: Path, job: Job) -> list[Attempt]:
    """The tries that failed since the job was last given new ones."""
    failed: list[Attempt] = []
    for attempt in attempts_at(folder, job):
        failed = [*failed, attempt] if attempt.status == "failed" else [] if attempt.status == "renewed" else failed
    return failed


def changes(before: StudyPlan, after: StudyPlan) -> list[str]:
    """What differs between two plans, a phrase each, such as `seeds: (0, 1) -> (0, 1, 2)`."""
    found: list[str] = []
    for field in dataclasses.fields(StudyPlan):
        if field.name in _UNCOMPARED:
            continue
        then, now = getattr(before, field.name), getattr(after, field.name)
        if then == now or (field.name == "seeds" and set(now) <= set(then) and set(then) - set(now) <= set(before.seeds_added)):
            continue
        found += list(_of_variants(then, now)) if field.name == "variants" else [f"{field.name}: {_short(then)} -> {_short(now)}"]
    return found


def _of_variants(before: tuple[Variant, ...], after: tuple[Variant, ...]) -> Iterator[str]:
    then, now = ({variant.name: variant for variant in each} for each in (before, after))
    if list(then) != list(now):
        yield f"variants: {_short(list(then))} -> {_short(list(now))}"
        return
    for name, variant in then.items():
        for field in dataclasses.fields(variant.recipe):
            old, new = getattr(variant.recipe, field.name), getattr(now[name].recipe, field.name)
            if old != new:
                yield f"{name}: {field.name}: {_short(old)} -> {_short(new)}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def add_seeds(folder: Path, n: int) -> tuple[int, ...]:
    """Plan `n` more seeds, the smallest that are not planned yet; returns them. Raises UserError."""
    if not 1 <= n <= 1000:
        raise UserError(f"{n} seeds cannot be added", fix="Give 1 to 1000.")
    with storage.held(folder):
        plan = read_plan(folder)
        unused = (seed for seed in range(len(plan.seeds) + n) if seed not in plan.seeds)
        new = tuple(seed for seed, _ in zip(unused, range(n), strict=False))
        plan = replace(plan, seeds=(*plan.seeds, *new), seeds_added=(*plan.seeds_added, *new))
        storage.write_text(folder / PLAN, codec.to_text(plan))
    return new
