"""Run folders of earlier versions are read, judged and gone on with; tests/golden says who made them."""

import json
import shutil
from pathlib import Path

import pytest

from convatlas.records.run import RunSummary
from tests.cli.zygote import command

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture
def here(tmp_path):
    folder = tmp_path / "here"
    shutil.copytree(GOLDEN, folder)
    return folder


def summary(run):
    return json.loads((run / "summary.json").read_text())


@pytest.mark.parametrize("name", ["1-stopped", "2-stopped"])
def test_a_stopped_run_is_gone_on_with_to_its_end(here, name):
    before = (here / name / "metrics.jsonl").read_text()
    resumed = command("train", "--resume", name, folder=here)
    assert resumed.returncode == 0, resumed.stderr
    assert "warning" not in resumed.stderr and "warning" not in resumed.stdout
    assert (summary(here / name)["status"], summary(here / name)["epochs_done"]) == ("finished", 2)
    first, second = (here / name / "metrics.jsonl").read_text().splitlines()
    assert json.loads(first).items() >= json.loads(before).items()  # a later version may say more
    assert json.loads(second)["epoch"] == 2
    assert not (here / name / "state.pt").exists()


def test_threads_that_cannot_be_are_refused_in_resuming_too(here):
    refused = command("train", "--resume", "2-stopped", "--threads", "0", folder=here)
    assert (refused.returncode, refused.stderr) == (2, "error: --threads is 0. Give a whole number from 1 to 1024.\n")


def test_a_finished_run_is_judged_as_it_was(here):
    said = summary(here / "1-finished")["val_accuracy"]
    judged = command("eval", "1-finished", "--split", "val", "--json", folder=here)
    assert judged.returncode == 0, judged.stderr
    assert json.loads(judged.stdout)["top1"] == pytest.approx(said, abs=0.005)  # in the inference of this machine


def test_a_comparison_is_reported_with_the_figures_it_had(here):
    shutil.copyfile(here / "1-comparison" / "results.csv", here / "before.csv")
    made = command("report", "1-comparison", folder=here)
    assert made.returncode == 0, made.stderr
    assert "lenet.pocket" in (here / "1-comparison" / "report.html").read_text(encoding="utf-8")
    before, after = (path.read_text().splitlines() for path in (here / "before.csv", here / "1-comparison" / "results.csv"))
    old, new = (dict(zip(*(line.split(",") for line in lines), strict=True)) for lines in (before, after))
    assert {key: new.get(key) for key in old} == old


def test_no_folder_is_without_its_test():
    folders = {path.name for path in GOLDEN.iterdir() if path.is_dir()}
    assert folders == {"1-finished", "1-stopped", "1-comparison", "2-stopped"}


def test_golden_summaries_say_what_records_say_now():
    """Fields may be added, none renamed or removed."""
    for path in GOLDEN.rglob("summary.json"):
        assert set(json.loads(path.read_text())) <= set(RunSummary.__dataclass_fields__)
