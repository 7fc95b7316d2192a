import os
import random
import signal
import time

import pytest

from convatlas.errors import UserError
from convatlas.records import codec, storage
from convatlas.records.run import RunSummary
from convatlas.study.engines import Means
from convatlas.study.folder import Job, attempts_at, jobs_of, read_plan
from convatlas.study.progress import states_of
from convatlas.study.scheduler import run_study
from convatlas.study.summary import keep_findings
from convatlas.training.outcome import Stopped

from .small import Forked, Heard, begun, records, until

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the engine of these tests forks")


def scheduled(folder, *, slots=2, watch=None, before=lambda job: None, retry=False):
    engine, watch = Forked(folder, slots=slots, before=before), watch or Heard()
    run_study(folder, engine=engine, watch=watch, means=Means(), retry=retry)
    return engine, watch


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study that nothing disturbed."""
    folder = begun(tmp_path_factory.mktemp("whole") / "s")
    engine, watch = scheduled(folder)
    return folder, engine, watch


def test_every_run_is_made_once_and_looked_at_once(whole):
    folder, engine, watch = whole
    jobs = jobs_of(read_plan(folder))
    assert sorted(map(str, engine.started)) == sorted(map(str, jobs))
    assert [(status, cause) for _, status, cause in watch.attempts] == [("finished", None)] * 4
    assert {state.state for state in states_of(folder)} == {"done"}
    findings = keep_findings(folder)
    assert findings.complete
    assert findings.test_looks == 4
    assert [row.seeds for row in findings.variants] == [(0, 1), (0, 1)]
    assert findings.effects[0].seeds == (0, 1)
    again, _ = scheduled(folder)
    assert again.started == []


def test_the_scheduler_killed_five_times_at_random_changes_nothing(whole, tmp_path):
    folder, draw, kills = begun(tmp_path / "s"), random.Random(7), 0
    while {state.state for state in states_of(folder)} != {"done"}:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                scheduled(folder)
                code = 0
            finally:
                os._exit(code)
        if kills < 5:
            time.sleep(draw.uniform(0.05, 0.4))
            os.kill(child, signal.SIGKILL)
            kills += 1
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)
    assert kills == 5, "it was done before it was killed five times: let the pauses be shorter"
    until(lambda: not any(storage.is_held(folder / job.claim) for job in jobs_of(read_plan(folder))))
    assert records(folder) == records(whole[0])


def test_two_schedulers_share_a_study(whole, tmp_path):
    folder = begun(tmp_path / "s")
    started, children = tmp_path / "started", []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                scheduled(folder, before=lambda job: log(started, job))
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    assert records(folder) == records(whole[0])
    finished = [a for job in jobs_of(read_plan(folder)) for a in attempts_at(folder, job) if a.status == "finished"]
    begun_runs = started.read_text().splitlines()
    assert len(set(begun_runs)) == 4
    assert len(finished) >= 4


def log(path, job):
    """That a job that was not done was begun."""
    with path.open("a") as file:
        file.write(f"{job.name}\n")


def test_a_run_that_fails_is_tried_once_more_and_the_others_go_on(tmp_path):
    folder, bad = begun(tmp_path / "s"), Job("lr=0.01", 0)

    def broken(job):
        if job == bad:
            raise UserError("the disk is on fire", fix="Call somebody.")

    engine, watch = scheduled(folder, before=broken)
    assert [job for job in engine.started if job == bad] == [bad, bad]
    failed = [(job, cause) for job, status, cause in watch.attempts if status == "failed"]
    assert failed == [(bad, "the disk is on fire. Call somebody.")] * 2
    findings = keep_findings(folder)
    assert findings.missing == (bad.name,)
    (failure,) = findings.variants[1].failures
    assert (failure.run, failure.attempts, failure.cause) == (bad.name, 2, "the disk is on fire. Call somebody.")
    assert findings.effects[0].seeds == (1,), "the seed that both have"
    again, _ = scheduled(folder)
    assert again.started == [], "it has failed for good"
    _, watch = scheduled(folder, retry=True)
    assert [(job, status) for job, status, _ in watch.attempts] == [(bad, "finished")]
    assert keep_findings(folder).complete


def test_a_run_that_is_killed_counts_as_failed_and_goes_on_where_it_was(whole, tmp_path):
    folder, victim = begun(tmp_path / "s"), Job("lr=0.001", 1)

    def killed(job):
        if job == victim and not (folder / "once").exists():
            (folder / "once").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    _, watch = scheduled(folder, before=killed)
    ends = [(status, cause) for job, status, cause in watch.attempts if job == victim]
    assert ends == [("failed", "it was killed (signal 9), as systems do that run out of memory"), ("finished", None)]
    assert records(folder) == records(whole[0])


def test_stopping_saves_every_run_and_leaves_no_process(whole, tmp_path):
    folder = begun(tmp_path / "s")
    engine = Forked(folder)
    watch = Heard()
    jobs = jobs_of(read_plan(folder))
    # Once a run has an epoch behind it, and others have not begun: after so many looks a fast machine may be done with all.
    watch.stopping = lambda: any((folder / job.folder / "metrics.jsonl").exists() for job in jobs)
    with pytest.raises(Stopped):
        run_study(folder, engine=engine, watch=watch, means=Means())
    assert engine.running == {}
    begun_runs = [folder / job.folder for job in jobs if (folder / job.folder / "summary.json").exists()]
    assert begun_runs
    assert {codec.read(RunSummary, place / "summary.json").status for place in begun_runs} <= {"interrupted", "finished"}
    scheduled(folder)
    assert records(folder) == records(whole[0])


def test_a_run_with_another_recipe_than_the_plan_is_refused(tmp_path):
    folder = begun(tmp_path / "s", seeds=1)
    scheduled(folder)
    job = jobs_of(read_plan(folder))[0]
    path = folder / job.folder / "recipe.json"
    path.write_text(path.read_text().replace('"epochs": 2', '"epochs": 3'))
    (folder / job.folder / "answers.json").unlink()
    _, watch = scheduled(folder)
    assert watch.attempts == []
    assert any("recipe.json is not the plan's" in note for note in watch.notes)
