"""A run whose records are damaged is told, left out, and made anew when that is asked for; the others are not touched."""

import json
import shutil

import pytest

from convatlas.study.damage import damage
from convatlas.study.folder import Job, jobs_of, read_plan
from convatlas.study.progress import states_of
from convatlas.study.summary import keep_findings

from .small import begun, records
from .test_scheduler import pytestmark, scheduled  # noqa: F401

BAD = Job("lr=0.01", 0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = begun(tmp_path_factory.mktemp("whole") / "s")
    scheduled(folder)
    return folder


def torn(path):
    path.write_text(path.read_text()[:100])


def changed(name, key, value):
    def change(place):
        kept = json.loads((place / name).read_text())
        (place / name).write_text(json.dumps({**kept, key: value(kept[key])}))

    return change


DAMAGES = {
    "a torn outcome": (lambda place: torn(place / "test.json"), "test.json is not JSON"),
    "torn answers": (lambda place: torn(place / "answers.json"), "answers.json is not JSON"),
    "a torn summary": (lambda place: torn(place / "summary.json"), "summary.json is not JSON"),
    "a lost outcome": (lambda place: (place / "test.json").unlink(), "test.json is gone"),
    "a better outcome": (changed("test.json", "top1", lambda top1: top1 + 0.1), "do not fit together"),
    "fewer answers": (changed("answers.json", "labels", lambda labels: labels[:-1]), "do not fit together"),
    "another recipe": (changed("recipe.json", "lr", lambda lr: lr * 2), "recipe.json is not the plan's"),
    "other classes": (changed("test.json", "classes", lambda names: [f"{name}s" for name in names]), "of other classes"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_run_is_told_and_the_others_are_reported(whole, tmp_path, name):
    folder, (harm, said) = tmp_path / "s", DAMAGES[name]
    shutil.copytree(whole, folder)
    harm(folder / BAD.folder)
    assert said in damage(folder, read_plan(folder), BAD)
    assert [damage(folder, read_plan(folder), job) for job in jobs_of(read_plan(folder)) if job != BAD] == [None] * 3
    states = {state.job: state for state in states_of(folder)}
    assert [state.state for state in states.values()].count("done") == 3
    assert states[BAD.name].state == "damaged" and said in states[BAD.name].cause
    findings = keep_findings(folder)
    assert findings.missing == (BAD.name,)
    assert {row.name: row.seeds for row in findings.variants}[BAD.variant] == (1,)
    [failure] = [each for row in findings.variants for each in row.failures]
    assert failure.run == BAD.name and said in failure.cause and "--retry" in failure.cause


def test_it_is_made_anew_when_that_is_asked_for(whole, tmp_path):
    folder = tmp_path / "s"
    shutil.copytree(whole, folder)
    torn(folder / BAD.folder / "test.json")
    engine, watch = scheduled(folder)
    assert engine.started == []
    assert any("test.json is not JSON" in note and "--retry" in note for note in watch.notes)
    engine, _ = scheduled(folder, retry=True)
    assert engine.started == [BAD]
    aside = folder / f"{BAD.folder}.damaged-1"
    assert (aside / "model.safetensors").exists()
    shutil.rmtree(aside)
    assert records(folder) == records(whole)
    assert keep_findings(folder).complete
