"""results.csv: it comes back as it went in, and no spreadsheet takes a name for a formula."""

import csv
import io
import math
from dataclasses import replace

import pytest

from convatlas.report.table import COLUMNS, comparison_csv

from .samples import study, unfinished


def _read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_one_row_a_run_that_comes_back_exactly() -> None:
    whole, runs = study(seeds=(0, 1))
    rows = _read(comparison_csv(whole, list(reversed(runs))))
    assert tuple(rows[0]) == COLUMNS and len(rows) == 16
    for back, run in zip(rows, runs, strict=True):
        one = run.summary
        for name in ("params", "macs", "image_size", "images_seen", "epochs_done", "seed"):
            assert int(back[name]) == getattr(one, name)
        for name in ("train_seconds", "images_per_second", "val_accuracy", "test_accuracy"):
            assert float(back[name]) == getattr(one, name)
        assert (back["model"], back["family"], back["status"]) == (one.model, one.family, "finished")
        assert back["run_folder"] == f"runs/{one.model}-seed{one.seed}"
    assert [back["year"] for back in rows[:3]] == ["1998", "1998", "2012"]


def test_what_is_not_known_is_empty() -> None:
    whole, runs = study([4])
    lost = unfinished(runs[0], "why")
    lost = replace(lost, summary=replace(lost.summary, val_accuracy=math.nan))
    (back,) = _read(comparison_csv(replace(whole, rows=()), [lost]))
    assert (back["val_accuracy"], back["test_accuracy"], back["year"], back["run_folder"]) == ("", "", "", "")
    assert back["status"] == "failed"


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\u200b=1"])
def test_formulas_are_defused(name: str) -> None:
    whole, runs = study([4])
    (back,) = _read(comparison_csv(whole, [replace(runs[0], summary=replace(runs[0].summary, model=name))]))
    assert back["model"] == "'" + name.strip().removeprefix("\u200b")


def test_numbers_are_left_alone() -> None:
    whole, runs = study([4])
    (back,) = _read(comparison_csv(whole, [replace(runs[0], summary=replace(runs[0].summary, train_seconds=-1.5))]))
    assert back["train_seconds"] == "-1.5"


@pytest.mark.parametrize("name", ['a,b"c', "'quoted'", "ünï"])
def test_awkward_names_come_back(name: str) -> None:
    whole, runs = study([4])
    (back,) = _read(comparison_csv(whole, [replace(runs[0], summary=replace(runs[0].summary, family=name))]))
    assert back["family"] == name


def test_a_run_is_one_line() -> None:
    whole, runs = study([4])
    text = comparison_csv(whole, [replace(runs[0], summary=replace(runs[0].summary, family="a\nb\rc\u202ed"))])
    assert len(text.splitlines()) == 2 and ",a b cd," in text


def test_folder_of_a_run_that_does_not_count_is_told_by_its_name() -> None:
    whole, runs = study([4], seeds=(1, 11))
    begun = replace(whole.rows[0], seeds=(11,), runs=("runs/resnet.pocket-seed1", "runs/resnet.pocket-seed11"))
    rows = _read(comparison_csv(replace(whole, rows=(begun,)), [unfinished(runs[0], "why"), runs[1]]))
    assert [back["run_folder"] for back in rows] == ["runs/resnet.pocket-seed1", "runs/resnet.pocket-seed11"]


def test_folders_of_other_names_go_with_the_seeds() -> None:
    whole, runs = study([4], seeds=(3, 5))
    named = replace(whole.rows[0], runs=("first", "second"))
    assert [back["run_folder"] for back in _read(comparison_csv(replace(whole, rows=(named,)), runs))] == ["first", "second"]
