import json
import re
from dataclasses import replace

import pytest

from convatlas.errors import UserError
from convatlas.records import codec
from convatlas.study.folder import Job, add_seeds, attempts_at, begin, changes, failures_of, jobs_of, read_plan
from convatlas.study.progress import states_of

from .small import RECIPE, begun, plan_of


def test_a_plan_is_kept_whole(tmp_path):
    plan = plan_of(seeds=[4, 2])
    begin(plan, tmp_path / "s")
    assert read_plan(tmp_path / "s") == plan
    assert [job.name for job in jobs_of(plan)] == ["lr=0.001, seed 4", "lr=0.01, seed 4", "lr=0.001, seed 2", "lr=0.01, seed 2"]
    assert [state.state for state in states_of(tmp_path / "s")] == ["waiting"] * 4


def test_another_versions_study_and_no_study_are_refused(tmp_path):
    with pytest.raises(UserError, match="holds no study"):
        read_plan(tmp_path)
    folder = begun(tmp_path / "s")
    whole = (folder / "plan.json").read_text()
    for number in (0, 2, 99):
        (folder / "plan.json").write_text(json.dumps({**json.loads(whole), "format": number, "new": 1}))
        with pytest.raises(UserError, match=f"another version .format {number}"):
            read_plan(folder)
    for text in (whole[: len(whole) // 2], "", "[1]", '{"format": "x"}'):
        (folder / "plan.json").write_text(text)
        with pytest.raises(UserError, match=re.escape("plan.json")):
            read_plan(folder)


def test_what_changed_between_two_plans_is_named():
    plan = plan_of()
    assert changes(plan, replace(plan, date="later", source="elsewhere")) == []
    assert changes(plan, plan_of(seeds=3)) == ["seeds: (0, 1) -> (0, 1, 2)"]
    assert changes(plan, plan_of(recipe={**RECIPE, "epochs": 3})) == [
        "lr=0.001: epochs: 2 -> 3",
        "lr=0.01: epochs: 2 -> 3",
    ]
    found = changes(plan, plan_of(factors={"lr": [0.001, 0.02]}))
    assert "variants: ['lr=0.001', 'lr=0.01'] -> ['lr=0.001', 'lr=0.02']" in found


def test_seeds_are_added_and_the_old_plan_still_fits(tmp_path):
    folder = begun(tmp_path / "s", seeds=[0, 3])
    assert add_seeds(folder, 2) == (1, 2)
    plan = read_plan(folder)
    assert (plan.seeds, plan.seeds_added) == ((0, 3, 1, 2), (1, 2))
    assert changes(plan, plan_of(seeds=[0, 3])) == [], "the file that it was begun with still says the same"
    assert changes(plan, plan_of(seeds=[0])) != []
    for n in (0, -1, 1001):
        with pytest.raises(UserError, match="seeds cannot be added"):
            add_seeds(folder, n)


def test_tries_are_counted_since_they_were_renewed(tmp_path):
    folder, job = begun(tmp_path / "s"), Job("lr=0.01", 0)
    place = folder / job.claim
    place.mkdir(parents=True)
    line = {"run": "r", "attempt": 1, "begun": "", "ended": "", "status": "failed", "cause": "c"}
    kinds = ["failed", "stopped", "failed", "renewed", "failed"]
    (place / "attempts.jsonl").write_text("".join(codec.to_line({**line, "status": kind}) for kind in kinds) + '{"torn')
    assert [attempt.status for attempt in attempts_at(folder, job)] == kinds
    assert len(failures_of(folder, job)) == 1
    assert [state.state for state in states_of(folder)] == ["waiting", "retrying", "waiting", "waiting"]


def test_half_written_records_of_a_run_are_told(tmp_path):
    folder, job = begun(tmp_path / "s"), Job("lr=0.01", 0)
    (folder / job.folder).mkdir(parents=True)
    (folder / job.folder / "summary.json").write_text('{"status": "fini')
    states = {state.job: state for state in states_of(folder)}
    assert states[job.name].state == "damaged"
    assert "summary.json is not JSON" in states[job.name].cause
