"""One job of a study, in a process of its own: make the run, judge it once, look into it. The scheduler starts these processes.

Whoever does a job holds its claim, so that no two processes do the same one. When the scheduler dies, its end of the pipe that is
this process's standard input closes, and the run saves and stops.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from convatlas.data.dataset import DataSet
from convatlas.errors import UserError
from convatlas.records import codec, storage
from convatlas.records.findings import Tuned
from convatlas.records.plan import StudyPlan
from convatlas.records.run import Recipe, RunSummary
from convatlas.records.study_folder import LOOK
from convatlas.study.folder import Job, is_done, tuned_path, variant_of
from convatlas.study.portrait import write_portrait
from convatlas.study.tuning import apply_tuning, tune_variant
from convatlas.training.apply import judge_once
from convatlas.training.distributed import ALONE, World
from convatlas.training.loop import resume, train
from convatlas.training.watch import Watch

BUSY = 75
"""The exit code for a job that another process is at work on (EX_TEMPFAIL of sysexits.h)."""
STARTED_BY_SCHEDULER = "CONVATLAS_STUDY_WORKER"


def recipe_for(folder: Path, plan: StudyPlan, job: Job) -> Recipe:
    """The recipe of the job's run: the variant's, as its search has set it, with the seed."""
    recipe = variant_of(plan, job.variant).recipe
    if plan.tuning is not None and job.seed is not None:
        recipe = apply_tuning(recipe, codec.read(Tuned, tuned_path(folder, job.variant)), plan.tuning)
    return recipe if job.seed is None else replace(recipe, seed=job.seed)


@contextlib.contextmanager
def claimed(folder: Path, job: Job) -> Iterator[None]:
    """Hold the job's claim while the block runs; of several processes that make a run together the first one does.

    Raises InUseError if another process does.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    place = folder / job.claim
    with storage.explained(place):
        place.mkdir(parents=True, exist_ok=True)
    with storage.held(place):
        yield


def do_job(folder: Path, plan: StudyPlan, job: Job, *, data: DataSet, watch: Watch, world: World = ALONE) -> None:
    """Do what is left of the job, while its claim is held. Raises UserError and Stopped."""
    if world.agreed(lambda: is_done(folder, plan, job)):
        return
    if job.seed is None:
        assert plan.tuning is not None
        tune_variant(folder, plan, variant_of(plan, job.variant), data=data, watch=watch)
        return
    place = folder / job.folder
    _make(place, recipe_for(folder, plan, job), data=data, watch=watch, world=world)
    if world.leads and plan.n_test:
        judge_once(place, data=data)
    if world.leads and job.seed == plan.seeds[0] and plan.n_val and not (place / LOOK).exists():
        write_portrait(place, data)


def _make(place: Path, recipe: Recipe, *, data: DataSet, watch: Watch, world: World) -> None:
    """Begin the run, or go on with it, unless it is finished."""
    if world.agreed(lambda: not (place / "recipe.json").exists()):
        if world.leads:
            storage.clear_unbegun(place)
        train(recipe, place, data=data, watch=watch, world=world)
        return
    before = world.agreed(lambda: codec.read(Recipe, place / "recipe.json"))
    if before != recipe:
        raise UserError(f"{place} has another recipe than the plan", fix="Put back the original, or remove the folder.")
    path = place / "summary.json"
    if world.agreed(lambda: not path.exists() or codec.read(RunSummary, path).status != "finished"):
        resume(place, data=data, watch=watch, world=world)


def end_with_scheduler() -> None:
    """Ask this process to stop when whoever started it is gone: then nobody holds the other end of its standard input."""
    if STARTED_BY_SCHEDULER not in os.environ:
        return

    def wait() -> None:
        while os.read(0, 1):  # not through sys.stdin, which Python locks at exit
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
