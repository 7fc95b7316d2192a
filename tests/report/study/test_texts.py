"""results.csv and report.md of a study: they say what the records say, and the CSV comes back as it went in."""

import csv
import io
from dataclasses import replace

from convatlas.report.study import study_csv, study_markdown
from convatlas.report.study.table import COLUMNS

from .samples import grid, study, unfinished


def _read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_one_row_a_planned_run_that_comes_back_exactly() -> None:
    findings, runs = study()
    rows = _read(study_csv(findings, list(reversed(runs))))
    assert tuple(rows[0]) == (*COLUMNS, "factor shortcut") and len(rows) == 9
    for back, run in zip(rows, runs, strict=True):
        one, test = run.record.summary, run.record.test
        assert test is not None
        assert (back["variant"], int(back["seed"]), back["status"], back["run_folder"]) == (
            run.variant,
            run.seed,
            "finished",
            run.folder,
        )
        for name in ("params", "macs", "image_size", "epochs_done", "images_seen", "test_looks"):
            assert int(back[name]) == getattr(one, name)
        for name in ("train_seconds", "images_per_second", "val_accuracy", "test_accuracy"):
            assert float(back[name]) == getattr(one, name)
        assert float(back["test_loss"]) == test.loss and back["test_top5"] == ""
        assert (int(back["best_test_epoch"]), float(back["best_test_epoch_accuracy"])) == (2, run.test_epochs[1].top1)
        assert back["factor shortcut"] == run.variant
    assert rows[0]["width"] == "" and float(rows[3]["width"]) == 1.125
    assert list(_read(study_csv(*grid()))[0])[-2:] == ["factor depth", "factor norm"]


def test_runs_without_a_result_have_their_row() -> None:
    rows = {(row["variant"], row["seed"]): row for row in _read(study_csv(*unfinished()))}
    assert len(rows) == 9
    waiting, failed = rows["short", "1"], rows["long", "2"]
    assert (waiting["status"], waiting["test_accuracy"], waiting["run_folder"]) == ("not begun", "", "runs/short/seed-1")
    assert (failed["status"], failed["test_accuracy"], failed["cause"]) == ("failed", "", "the loss was not finite")
    assert rows["short", "0"]["cause"] == ""


def test_markdown_says_question_answer_verdicts_variants_and_caveats() -> None:
    findings, runs = study()
    text = study_markdown(findings, runs)
    assert text.startswith("# Does the shortcut help?\n\n**short is more accurate than plain by 10.0 points")
    assert "| plain − short | −10.0 | −13.0 to −7.0 | 0.024 | 1.75 | worse |" in text
    assert "| short − long | −2.0 | −7.0 to +3.0 | 0.68 | 1.75 | undecided |" in text
    assert "| plain | 62.00\u202f% | 60.00 to 64.00\u202f% | [0](./runs/plain/seed-0) [1](./runs/plain/seed-1)" in text
    assert "The test split was looked at 9 times in 9 runs" in text
    assert "would have added +1.00 points" in text
    assert "Incomplete" not in text


def test_markdown_of_an_unfinished_study_says_so_first() -> None:
    text = study_markdown(*unfinished())
    assert "> **Incomplete:** 2 of 9 runs have no result yet" in text and "`convatlas study resume first`" in text
    assert "No result of long, seed 2 after 2 attempts: the loss was not finite" in text
    assert "| plain − short | – | – | – | – | undecided |" in text


def test_markdown_without_comparisons_or_runs_is_whole() -> None:
    findings, _ = study()
    bare = replace(findings, effects=(), plan=replace(findings.plan, comparisons=()), variants=(), optimism=None)
    text = study_markdown(bare, ())
    assert "planned no comparison" in text and "| plain | – | – | none |" in text and "## Verdicts" not in text
