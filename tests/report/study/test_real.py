"""A real small study, trained, judged and found; its page is rebuilt where torch cannot be imported."""

import subprocess
import sys
from dataclasses import replace

import pytest

from convatlas.records import codec
from convatlas.records.findings import Answers, Findings, VariantFindings
from convatlas.records.plan import Factor, PlannedComparison, StudyPlan, Variant
from convatlas.records.run import read_run
from convatlas.records.study import Interval
from convatlas.records.study_folder import run_folder
from convatlas.study.portrait import write_portrait
from convatlas.training.apply import evaluate_run
from convatlas.training.checkpoint import load_model
from convatlas.training.evaluate import predict_logits
from convatlas.training.loop import train

from ...training.makers import small_data, small_recipe
from ..pages import Page, drawings

MODELS = ("lenet.pocket", "resnet.pocket")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder, data = tmp_path_factory.mktemp("study"), small_data()
    rows, variants = [], []
    for model in MODELS:
        tops = []
        for seed in (0, 1):
            place = folder / run_folder(model, seed)
            place.parent.mkdir(parents=True, exist_ok=True)
            recipe = small_recipe(model=model, epochs=2, seed=seed, gradients=True, test_each_epoch=True)
            train(recipe, place, data=data)
            tops.append(evaluate_run(place, data=data, split="test").top1)
            sure, said = predict_logits(load_model(place)[0], data.test, mean=data.mean, std=data.std).softmax(1).max(1)
            given = Answers("test", tuple(data.test.labels.tolist()), tuple(said.tolist()), tuple(sure.tolist()))
            (place / "answers.json").write_text(codec.to_line(given))
        write_portrait(folder / run_folder(model, 0), data, images=2)
        rows.append(_row(model, tops))
        one = read_run(folder / run_folder(model, 0))
        variants.append(
            Variant(model, {"model": model}, replace(one.recipe, seed=0), one.summary.params, one.summary.macs, 32, 12)
        )
    plan = StudyPlan(
        1, "real", "Which?", "2026", "0", (Factor("model", MODELS),), "full factorial", tuple(variants), (0, 1), (),
        (PlannedComparison(*MODELS),), 0.0, None, 1, 1, True, "shapes", "colours", 96, 24, 36, data.classes, "real.yaml",
    )  # fmt: skip
    found = Findings(
        1, plan, True, (), tuple(rows), (), (), None, 4, "2026", "convatlas study resume real", one.summary.environment
    )
    (folder / "findings.json").write_text(codec.to_text(found))
    return folder, found


def _row(model: str, tops) -> VariantFindings:
    mean = sum(tops) / 2
    return VariantFindings(
        model, tuple(run_folder(model, seed) for seed in (0, 1)), (0, 1), Interval(mean, min(tops), max(tops), 2, "x"), tuple(tops),
        None, None, None, (), 1.0, 1.0, None, 2, None, (),
    )  # fmt: skip


CODE = """
import sys
sys.modules["torch"] = None
from pathlib import Path
from convatlas.records.study_folder import read_study
from convatlas.report.study import study_csv, study_markdown, study_page
folder = Path(sys.argv[1])
findings, runs = read_study(folder)
(folder / "report.html").write_text(study_page(findings, runs), encoding="utf-8")
(folder / "results.csv").write_text(study_csv(findings, runs), encoding="utf-8")
(folder / "report.md").write_text(study_markdown(findings, runs), encoding="utf-8")
"""


def test_the_report_is_rebuilt_where_torch_cannot_be_imported(made):
    folder, found = made
    done = subprocess.run([sys.executable, "-c", CODE, str(folder)], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    html = (folder / "report.html").read_text(encoding="utf-8")
    text = Page(html).text
    for row in found.variants:
        for seed, top1 in zip(row.seeds, row.top1_of_seeds, strict=True):
            assert f"{seed}: {100 * top1:.2f}\u202f%" in text
    assert "stages.0: 12 of 16 channels" in text and "Before the first step" in text and "After the last epoch" in text
    assert "Confusion of lenet.pocket minus that of resnet.pocket" in html
    assert len(html) < 1_500_000 and len(drawings(html)) > 15
    for link in {a["href"] for name, a in Page(html).elements if name == "a" and (a["href"] or "").startswith("./runs/")}:
        assert (folder / str(link)).is_dir(), link
    assert len((folder / "results.csv").read_text(encoding="utf-8").splitlines()) == 5
