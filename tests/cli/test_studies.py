"""`convatlas study`: plans, bad ones, and what is said of a study that is done."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from convatlas.records.yaml_file import from_yaml
from convatlas.study.engines import Means
from convatlas.study.plan_file import Study, from_mapping
from convatlas.study.scheduler import run_study
from convatlas.study.summary import keep_findings

from ..study.small import Forked, Heard, begun
from .zygote import command

PAGE = Path(__file__).parents[2] / "docs" / "studies.md"
STUDIES = sorted((Path(__file__).parents[2] / "studies").glob("*.yaml"))
GOOD = """
question: Which learning rate?
recipe: {data: digits, image_size: 16, epochs: 1, batch_size: 64}
model: {family: resnet, depths: [1, 1, 1], width: 0.25}
factors: {lr: [1e-3, 1e-2]}
seeds: 2
"""


@pytest.fixture
def here(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A study of three seeds that is done."""
    if not hasattr(os, "fork"):
        pytest.skip("its runs are forked")
    folder = tmp_path_factory.mktemp("done") / "s"
    begun(folder, seeds=3)
    run_study(folder, engine=Forked(folder), watch=Heard(), means=Means())
    keep_findings(folder)
    return folder


def plan(text, folder, *words):
    (folder / "plan.yaml").write_text(text, encoding="utf-8")
    return command("study", "plan", "plan.yaml", *words, folder=folder)


def test_a_plan_is_checked_and_told_without_a_run(here):
    result = plan(GOOD + "hold: {params: first}\nequivalence: 0.5\n", here)
    assert result.returncode == 0, result.stderr
    assert "2 variants x 2 seeds = 4 runs on Digits" in result.stdout
    assert re.search(r"lr=0\.001: 5\.1\d+ k parameters, .* MACs, 20 steps", result.stdout), result.stdout
    assert [path.name for path in here.iterdir()] == ["plan.yaml"] or {p.name for p in here.iterdir()} == {"plan.yaml", "cache"}
    said = json.loads(plan(GOOD, here, "--json").stdout)
    assert [variant["name"] for variant in said["variants"]] == ["lr=0.001", "lr=0.01"]
    assert said["variants"][0]["recipe"]["compile"] == "off"


BAD = [
    ("", "holds no study"),
    ("a: &x [*x]", "an alias"),
    ("a: !!python/object:os.system x", "a tag"),
    (GOOD + "seeds: 3", "the key 'seeds' stands twice"),
    (GOOD.replace("seeds: 2", "seeds: [1, 1]"), "the seed 1 stands twice"),
    (GOOD.replace("seeds", "sedes"), "unknown key 'sedes'. Did you mean 'seeds'"),
    (GOOD.replace("lr:", "learning_rat:"), "factors has an unknown key 'learning_rat'"),
    (GOOD.replace("[1e-3, 1e-2]", "[]"), "has 0 levels"),
    (GOOD.replace("[1e-3, 1e-2]", "[1e-3, 1e-3]"), "twice"),
    (GOOD.replace("[1e-3, 1e-2]", "[fast, 1e-3]"), "lr is 'fast'"),
    (GOOD.replace("lr: [1e-3, 1e-2]", "growth_rate: [4, 8]"), "growth_rate"),
    (GOOD.replace("digits", "digist"), "digist"),
    (GOOD.replace("resnet,", "resnte,"), "resnte"),
    (GOOD.replace("batch_size: 64", "batch_size: 6400"), "6400"),
    (GOOD + "hold: {params: 12}", "12 parameters|5.*params|off 12"),
    (GOOD + "hold: {memory: 12}", "unknown key 'memory'"),
    (GOOD + "compare: [[a, b]]", "there is no variant called 'a'"),
    (
        GOOD.replace("image_size: 16", "image_size: 8").replace("{family: resnet, depths: [1, 1, 1], width: 0.25}", "vgg.pocket"),
        "16 or more",
    ),
]


@pytest.mark.parametrize(("text", "said"), BAD)
def test_a_bad_plan_is_refused_in_a_line_and_nothing_is_written(here, text, said):
    (here / "plan.yaml").write_text(text)
    result = command("study", "run", "plan.yaml", folder=here)
    assert result.returncode == 2
    (line,) = [each for each in result.stderr.splitlines() if each.startswith("error: ")]
    assert re.search(said if "|" in said else re.escape(said), line), line
    assert "Traceback" not in result.stderr
    assert not (here / "runs").exists()


def test_too_many_runs_need_a_yes(here):
    result = plan(GOOD.replace("seeds: 2", "seeds: 51"), here)
    assert result.returncode == 0
    result = command("study", "run", "plan.yaml", folder=here)
    assert result.returncode == 2
    assert "this plan has 102 runs. Give --yes if that is meant" in result.stderr


def test_a_changed_plan_is_refused_and_the_change_named(here, done):
    shutil.copytree(done, here / "s")
    (here / "plan.yaml").write_text(GOOD)
    before = {path: path.stat().st_mtime_ns for path in (here / "s").rglob("*")}
    result = command("study", "run", "plan.yaml", "--out", "s", folder=here)
    assert result.returncode == 2
    assert "the plan is not the one that s was begun with: " in result.stderr
    assert {path: path.stat().st_mtime_ns for path in (here / "s").rglob("*")} == before


def test_a_study_of_another_version_is_refused_and_half_written_records_are_left_out(here, done):
    shutil.copytree(done, here / "s")
    kept = json.loads((here / "s" / "plan.json").read_text())
    (here / "s" / "plan.json").write_text(json.dumps({**kept, "format": 2}))
    for words in (("resume",), ("status",), ("report",), ("power",), ("measure",), ("add-seeds",)):
        result = command("study", *words, "s", *(["1"] if words == ("add-seeds",) else []), folder=here)
        assert result.returncode == 2
        assert "was written by another version (format 2)" in result.stderr
    (here / "s" / "plan.json").write_text(json.dumps(kept))
    run = next((here / "s" / "runs").glob("*/seed-0"))
    (run / "test.json").write_text((run / "test.json").read_text()[:100])
    result = command("study", "report", "s", folder=here)
    assert result.returncode == 0, result.stderr
    said = (here / "s" / "report.md").read_text()
    assert "1 of 6 runs have no result yet" in said
    assert "test.json is not JSON" in said.replace("\\", "")
    assert "damaged" in command("study", "status", "s", folder=here).stdout


def test_a_study_that_is_done_is_told(here, done):
    shutil.copytree(done, here / "s")
    status = command("study", "status", "s", folder=here)
    assert "6 of 6 runs done" in status.stdout
    power = json.loads(command("study", "power", "s", "--difference", "1", "--json", folder=here).stdout)
    assert [row["difference"] for row in power] == [0.01]
    report = command("study", "report", "s", folder=here)
    assert report.returncode == 0, report.stderr
    assert "report: s/report.html" in report.stdout
    assert (here / "s" / "report.md").read_text().startswith("# ")
    both = command("study", "report", "s", "--compare", "lr=0.001", "lr=0.01", folder=here)
    assert both.returncode == 0, both.stderr
    assert "lr=0.001" in both.stdout.splitlines()[2]
    wrong = command("study", "report", "s", "--compare", "lr=0.001", "lr=0.1", folder=here)
    assert wrong.returncode == 2
    assert "lr=0.1" in wrong.stderr


def test_seeds_are_added(here, done):
    shutil.copytree(done, here / "s")
    result = command("study", "add-seeds", "s", "2", folder=here)
    assert result.stdout.startswith("added 2 seeds: 3, 4\n")
    assert "too narrow" in result.stderr
    assert "6 of 10 runs done" in command("study", "status", "s", folder=here).stdout


def test_code_is_run_only_if_it_is_named(here, done):
    shutil.copytree(done, here / "s")
    (here / "net.py").write_text("open('executed', 'w')\n")
    kept = (here / "s" / "plan.json").read_text()
    model = json.dumps(json.loads(kept)["variants"][0]["recipe"]["model"])
    (here / "s" / "plan.json").write_text(kept.replace(model, f'"{here}/net.py:make"'))
    for words in (("resume", "s"), ("measure", "s"), ("work", "s", "lr=0.001", "0")):
        result = command("study", *words, folder=here)
        assert result.returncode == 2
        assert f"networks of this study are made by the Python file {here}/net.py, which would be run" in result.stderr
    assert not (here / "executed").exists()


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_studies_that_come_along_are_plans(path):
    study = from_mapping(from_yaml(path.read_text(), where=path.name), where=path.name)
    assert study.question.endswith("?")
    assert study.seeds == 3


def test_the_page_has_every_key_and_its_example_is_a_plan():
    text = PAGE.read_text()
    table = set(re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))))
    assert table == set(Study.__dataclass_fields__)
    example = re.search(r"```yaml\n(question.*?)```", text, re.DOTALL)[1]
    assert from_mapping(from_yaml(example, where="page"), where="page").model == "resnet20.plain"
    commands = re.findall(r"^convatlas study (\S+)", text, re.MULTILINE)
    assert set(commands) == {"plan", "run", "status", "resume", "power", "add-seeds", "report"}
