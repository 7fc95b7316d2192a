import os

import pytest

from convatlas.errors import InUseError
from convatlas.records import codec, storage
from convatlas.records.findings import Answers
from convatlas.records.run import RunSummary
from convatlas.study.folder import Job, is_done, jobs_of, read_plan
from convatlas.study.worker import claimed, do_job
from convatlas.training.apply import judge_once
from convatlas.training.watch import Unwatched

from ..training.makers import small_data
from .small import begun


def made(folder):
    job = jobs_of(read_plan(folder))[0]
    do_job(folder, read_plan(folder), job, data=small_data(), watch=Unwatched())
    return job


def test_a_job_is_trained_judged_and_looked_into(tmp_path):
    folder = begun(tmp_path / "s", watch_test=True)
    job = made(folder)
    place = folder / job.folder
    assert is_done(folder, read_plan(folder), job)
    answers = codec.read(Answers, place / "answers.json")
    right = sum(a == b for a, b in zip(answers.labels, answers.predicted, strict=True))
    summary = codec.read(RunSummary, place / "summary.json")
    assert summary.test_accuracy == pytest.approx(right / len(answers.labels))
    assert answers.labels == tuple(small_data().test.labels.tolist())
    assert all(0 <= each <= 1 for each in answers.confidence)
    assert (place / "look.json").stat().st_size < 600_000
    assert (place / "test_epochs.jsonl").read_text().count("\n") == 2
    before = {path: path.read_bytes() for path in place.iterdir()}
    made(folder)
    assert {path: path.read_bytes() for path in place.iterdir()} == before, "once is enough"


@pytest.mark.parametrize("lost", [("summary",), ("summary", "line"), ("summary", "line", "test.json")])
def test_a_look_of_which_a_crash_kept_a_part_is_counted_once(tmp_path, lost):
    """The order of writing is answers, outcome, line, count; whatever the crash left of it, one look is counted in the end."""
    folder = begun(tmp_path / "s")
    job = made(folder)
    place = folder / job.folder
    whole = {name: (place / name).read_bytes() for name in ("summary.json", "answers.json")}
    summary = codec.read(RunSummary, place / "summary.json")
    uncounted = codec.to_plain(summary) | {"test_looks": 0, "test_accuracy": None}
    (place / "summary.json").write_text(codec.to_text(uncounted))
    for name in lost[1:]:
        (place / {"line": "test_looks.jsonl"}.get(name, name)).unlink()
    judge_once(place, data=small_data())
    assert {name: (place / name).read_bytes() for name in whole} == whole
    assert (place / "test_looks.jsonl").read_text().count("\n") == 1


def test_a_run_that_a_crash_broke_off_before_it_began_is_begun(tmp_path):
    folder = begun(tmp_path / "s")
    place = folder / jobs_of(read_plan(folder))[0].folder
    place.mkdir(parents=True)
    (place / ".recipe.json.1.tmp").write_text("half")
    (place / storage.LOCK).touch()
    made(folder)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_job_is_claimed_by_one_process(tmp_path, monkeypatch):
    folder, job = begun(tmp_path / "s"), Job("lr=0.01", 0)
    with claimed(folder, job):
        assert storage.is_held(folder / job.claim)
        with pytest.raises(InUseError, match="is in use by process"), claimed(folder, job):
            pass
        monkeypatch.setenv("RANK", "1")
        with claimed(folder, job):
            pass  # the other processes of the same run go in with the first
    assert not storage.is_held(folder / job.claim)
