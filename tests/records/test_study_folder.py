"""A study's folder is read strictly, as far as it is there; what does not fit together is refused in one line."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from convatlas.errors import UserError
from convatlas.records import codec
from convatlas.records.study_folder import read_study, run_folder

from ..report.study.samples import study, unfinished


def keep(folder, findings, runs):
    """Write the records as a study's folder has them."""
    (folder / "findings.json").write_text(codec.to_text(findings))
    for run in runs:
        place = folder / run.folder
        place.mkdir(parents=True)
        files = {
            "recipe.json": codec.to_text(run.record.recipe),
            "summary.json": codec.to_text(run.record.summary),
            "metrics.jsonl": "".join(map(codec.to_line, run.record.metrics)),
            "test.json": run.record.test and codec.to_text(run.record.test),
            "answers.json": run.answers and codec.to_line(run.answers),
            "look.json": run.look and codec.to_line(run.look),
            "gradients.jsonl": "".join(map(codec.to_line, run.flows)),
            "test_looks.jsonl": "".join(map(codec.to_line, run.looks)),
            "test_epochs.jsonl": "".join(map(codec.to_line, run.test_epochs)),
        }
        for name, text in files.items():
            if text:
                (place / name).write_text(text)
    return folder


@pytest.fixture
def kept(tmp_path):
    return keep(tmp_path, *study())


def change(path, **changes):
    """Change fields of a JSON file; a dotted name goes deeper, and a number into a list."""
    data = json.loads(path.read_text())
    for name, value in changes.items():
        *way, last = (int(step) if step.isdigit() else step for step in name.split("__"))
        place = data
        for step in way:
            place = place[step]
        place[last] = value
    path.write_text(json.dumps(data))


def test_what_was_kept_comes_back(kept):
    findings, runs = study()
    assert read_study(kept) == (findings, runs)


def test_an_unfinished_study_comes_back_as_far_as_it_is(tmp_path):
    findings, runs = unfinished()
    keep(tmp_path, findings, runs)
    back, found = read_study(tmp_path)
    assert back == findings
    assert {(run.variant, run.seed) for run in found} == {(run.variant, run.seed) for run in runs}
    assert [run.variant for run in found] == sorted((run.variant for run in found), key=["plain", "short", "long"].index)
    lost = next(run for run in found if (run.variant, run.seed) == ("long", 2))
    assert lost.record.test is None and lost.answers is None and lost.record.summary.cause == "the loss was not finite"


def test_runs_that_are_gone_are_left_out(kept):
    for name in ("summary.json", "recipe.json"):
        (kept / "runs/short/seed-1" / name).unlink()
    _, runs = read_study(kept)
    assert len(runs) == 8 and ("short", 1) not in {(run.variant, run.seed) for run in runs}


def test_torn_last_lines_are_left_out(kept):
    for name in ("test_looks.jsonl", "test_epochs.jsonl", "gradients.jsonl", "metrics.jsonl"):
        with (kept / "runs/plain/seed-0" / name).open("a") as file:
            file.write('{"epo')
    assert read_study(kept) == study()


FINDINGS = "findings.json"
RUN = "runs/plain/seed-0/"
BAD = {
    "no findings": (FINDINGS, None, "has no findings.json"),
    "another version": (FINDINGS, {"format": 2}, "is of version 2. Use the version"),
    "a huge version": (FINDINGS, {"format": 10**30}, "is of version 100000000"),
    "an unknown key": (FINDINGS, {"formt": 1}, "Did you mean 'format'"),
    "a variant twice": (FINDINGS, {"plan__variants__1__name": "plain"}, "names a variant twice"),
    "an unknown variant": (FINDINGS, {"variants__0__name": "nobody"}, "names a variant that the plan has not"),
    "an effect of nobody": (FINDINGS, {"effects__0__second": "nobody"}, "names a variant that the plan has not"),
    "findings twice": (FINDINGS, {"variants__0__name": "short"}, "findings of a variant twice"),
    "more seeds than runs": (FINDINGS, {"variants__0__seeds": [0, 1, 2, 3]}, "other runs than seeds"),
    "classes missing": (FINDINGS, {"variants__0__per_class": [{"mean": 1.0, "low": 1.0, "high": 1.0, "n": 1, "method": ""}]}, "other classes"),
    "no share": (FINDINGS, {"variants__0__top1__high": 1.5}, "no share"),
    "a seed's accuracy that is none": (FINDINGS, {"variants__0__top1_of_seeds": [-0.1, 0.5, 0.5]}, "no share"),
    "a difference that is none": (FINDINGS, {"effects__0__difference__low": -3.0}, "difference"),
    "beyond all measure": (FINDINGS, {"plan__variants__0__params": 10**400}, "beyond all measure"),
    "a run outside": (FINDINGS, {"variants__0__runs": ["../../etc", "b", "c"]}, "no folder within the study"),
    "a run at the root": (FINDINGS, {"variants__0__runs": ["/etc", "b", "c"]}, "no folder within the study"),
    "a run on another drive": (FINDINGS, {"variants__0__runs": ["C:/x", "b", "c"]}, "no folder within the study"),
    "a run of no name": (FINDINGS, {"variants__0__runs": ["", "b", "c"]}, None),
    "a run with a zero": (FINDINGS, {"variants__0__runs": ["a\x00b", "b", "c"]}, "no folder within the study"),
    "an endless name": (FINDINGS, {"variants__0__runs": ["a" * 5000, "b", "c"]}, None),
    "another run's seed": (RUN + "recipe.json", {"seed": 5}, "has the seed 5"),
    "no matrix": (RUN + "test.json", {"confusion": [[1, 2], [3, 4]]}, "no confusion matrix"),
    "negative counts": (RUN + "test.json", {"confusion__0__0": -1}, "no confusion matrix"),
    "other classes": (RUN + "test.json", {"classes": ["a", "b", "c", "d"]}, "other classes than planned"),
    "answers too few": (RUN + "answers.json", {"predicted": [0, 1]}, "answers of different lengths"),
    "answers that are no classes": (RUN + "answers.json", {"predicted__3": 4}, "no classes"),
    "negative answers": (RUN + "answers.json", {"labels__3": -1}, "no classes"),
    "a confidence that is none": (RUN + "answers.json", {"confidence__3": 1.01}, "confidence"),
    "other images": (RUN + "answers.json", {"labels__0": 3}, "other images"),
    "a summary of enormous figures": (RUN + "summary.json", {"macs": 10**60}, "beyond all measure"),
    "half a summary": (RUN + "summary.json", '{"status": "fin', "not JSON"),
    "no recipe": (RUN + "recipe.json", None, "does not exist"),
    "other layers": (RUN + "gradients.jsonl", '{"model":"x","seed":0,"epoch":0,"loss":1.0,"layers":[]}\n', "different networks"),
    "a look that is none": (RUN + "look.json", "[]", "which is no Look"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_or_harmless(kept, case):
    name, what, said = BAD[case]
    path = kept / name
    if what is None:
        path.unlink()
    elif isinstance(what, str):
        path.write_text(what)
    else:
        change(path, **what)
    if said is None:
        assert read_study(kept)[1]
        return
    with pytest.raises(UserError) as caught:
        read_study(kept)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_links_of_folders_that_do_not_exist_are_not_followed_out(tmp_path):
    findings, runs = study()
    keep(tmp_path, findings, runs)
    row = replace(findings.variants[0], runs=("runs/../../x", *findings.variants[0].runs[1:]))
    (tmp_path / "findings.json").write_text(codec.to_text(replace(findings, variants=(row, *findings.variants[1:]))))
    with pytest.raises(UserError, match="no folder within"):
        read_study(tmp_path)


def test_run_folder_is_that_of_the_layout():
    assert run_folder("kernel-5", 3) == "runs/kernel-5/seed-3"


def test_reading_does_not_reach_torch(kept):
    code = (
        "import sys; from pathlib import Path; from convatlas.records.study_folder import read_study; read_study(Path(sys.argv[1]));"
        "sys.exit(str(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'numpy', 'safetensors', 'scipy'})))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(kept)], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"
