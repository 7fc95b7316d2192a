"""A study's folder as its report needs it: what was found, and every run that has begun. What is not there is left out."""

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

from convatlas.errors import UserError
from convatlas.records import codec, plan
from convatlas.records.findings import Answers, Findings, VariantFindings
from convatlas.records.gradients import FILE as GRADIENTS
from convatlas.records.gradients import GradientFlow, read_flows
from convatlas.records.look import Look
from convatlas.records.naming import short_name
from convatlas.records.run import (
    TEST_EPOCHS,
    Evaluation,
    RunRecord,
    TestEpoch,
    TestLook,
    read_run,
    read_test_epochs,
    read_test_looks,
)  # fmt: skip

FINDINGS = "findings.json"
ANSWERS = "answers.json"
LOOK = "look.json"
TEST_LOOKS = "test_looks.jsonl"
LARGEST = 1e40
"""No quantity of a study is larger; what is cannot be drawn."""
T = TypeVar("T")


@dataclass(frozen=True)
class StudyRun:
    """A run of a study that has begun. `folder` is relative to the study's; what the run has not, or not yet, is None or empty.

    `looks` are those at the sealed test split, with their dates; `test_epochs` the test accuracy after every epoch, which nobody
    was to see.
    """

    folder: str
    variant: str
    seed: int
    record: RunRecord
    answers: Answers | None = None
    flows: tuple[GradientFlow, ...] = ()
    look: Look | None = None
    looks: tuple[TestLook, ...] = ()
    test_epochs: tuple[TestEpoch, ...] = ()


def run_folder(variant: str, seed: int) -> str:
    """The folder of a run, relative to the study's."""
    return f"runs/{short_name(variant)}/seed-{seed}"


def read_study(folder: Path) -> tuple[Findings, tuple[StudyRun, ...]]:
    """What was found, and the runs in the order of the plan: variant by variant, seed by seed.

    Raises UserError for what is no study, of another version, damaged, or does not fit together.
    """
    path = folder / FINDINGS
    if not path.exists():
        raise UserError(f"{folder} has no {FINDINGS}", fix="Name the folder of a study whose runs have begun.")
    _check_version(path)
    findings = codec.read(Findings, path)
    _check_findings(findings, str(path))
    runs = tuple(_sound_runs(folder, findings))
    _check_same_data(runs, findings, str(folder))
    return findings, runs


def _check_version(path: Path) -> None:
    """Before the rest is read: a newer version may have keys that this one does not know."""
    try:
        number = json.loads(codec.text_of(path))["format"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return  # what is wrong with it is said when it is read
    if isinstance(number, int) and number != plan.FORMAT:
        raise UserError(f"{path} is of version {str(number)[:9]}", fix="Use the version of convatlas that wrote it.")


def _begun(folder: Path, findings: Findings) -> Iterator[tuple[str, str, int]]:
    """Name, variant and seed of each run that has a folder with an outcome, be it that it was broken off."""
    found = {each.name: dict(zip(each.seeds, each.runs, strict=True)) for each in findings.variants}
    for variant in findings.plan.variants:
        for seed in findings.plan.seeds:
            name = found.get(variant.name, {}).get(seed) or run_folder(variant.name, seed)
            _check_place(name)
            if os.path.exists(folder / name / "summary.json"):  # noqa: PTH110 - Path.exists raises for names that are too long
                yield name, variant.name, seed


def _sound_runs(folder: Path, findings: Findings) -> Iterator[StudyRun]:
    """The runs that can be read. One without a result in the findings may be damaged, and is then left out."""
    with_result = {name for each in findings.variants for name in each.runs}
    for name, variant, seed in _begun(folder, findings):
        try:
            yield _run(folder, name, variant, seed)
        except UserError:
            if name in with_result:
                raise


def _check_place(name: str) -> None:
    """A name from a file must not lead out of the study's folder."""
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/") or PureWindowsPath(name).anchor or any(c in name for c in "\\\x00"):
        raise UserError(f"{name[:60]!r} is no folder within the study", fix="The study's files were changed; put them back.")


def _run(folder: Path, name: str, variant: str, seed: int) -> StudyRun:
    place = folder / name
    record = read_run(place)
    if record.recipe.seed != seed:
        raise UserError(f"{place} has the seed {record.recipe.seed}", fix="It is another run's folder; put back the original.")
    if record.test is not None:
        _check_evaluation(record.test, str(place / "test.json"))
    _check_sizes((record.summary, record.metrics), str(place))
    return StudyRun(
        folder=name,
        variant=variant,
        seed=seed,
        record=record,
        answers=_optional(Answers, place / ANSWERS),
        flows=_flows(place),
        look=_optional(Look, place / LOOK),
        looks=read_test_looks(place / TEST_LOOKS),
        test_epochs=read_test_epochs(place / TEST_EPOCHS),
    )


def _optional(kind: type[T], path: Path) -> T | None:
    return codec.read(kind, path) if path.exists() else None


def _flows(place: Path) -> tuple[GradientFlow, ...]:
    flows = read_flows(place).flows if (place / GRADIENTS).exists() else ()
    if any(not flow.layers or len(flow.layers) != len(flows[0].layers) for flow in flows):
        raise UserError(f"{place / GRADIENTS} has lines of different networks", fix="It is damaged; remove it, or put it back.")
    _check_sizes(flows, str(place / GRADIENTS))
    return flows


# What must hold beyond each field's type


def _check_findings(findings: Findings, where: str) -> None:
    names = [each.name for each in findings.plan.variants]
    named = [each.name for each in findings.variants] + [each.variant for each in findings.tuned]
    named += [name for each in findings.effects for name in (each.first, each.second)]
    named += [name for each in findings.plan.comparisons for name in (each.first, each.second)]
    _require(len(set(names)) == len(names), where, "names a variant twice")
    _require(len({each.name for each in findings.variants}) == len(findings.variants), where, "has findings of a variant twice")
    _require(set(named) <= set(names), where, "names a variant that the plan has not")
    for each in findings.variants:
        paired = len(each.runs) == len(each.seeds) and len(each.top1_of_seeds) in (0, len(each.seeds))
        _require(paired, where, f"has other runs than seeds of {each.name}")
        _require(len(each.per_class) in (0, len(findings.plan.classes)), where, f"has other classes of {each.name} than planned")
        _require(all(0 <= share <= 1 for share in _shares(each)), where, f"has an accuracy of {each.name} that is no share")
    ends = [end for each in findings.effects if (d := each.difference) for end in (d.mean, d.low, d.high)]
    _require(all(-1 <= end <= 1 for end in ends), where, "has a difference that is none of shares")
    _check_sizes(findings, where)


def _shares(each: VariantFindings) -> list[float]:
    intervals = [each.top1, each.top5, each.validation, each.calibration_error, *each.per_class]
    return [*each.top1_of_seeds, *(end for i in intervals if i is not None for end in (i.mean, i.low, i.high))]


def _check_evaluation(test: Evaluation, where: str) -> None:
    size = len(test.classes)
    counts = len(test.confusion) == size and all(len(row) == size and min(row) >= 0 for row in test.confusion)
    _require(counts, where, "has no confusion matrix of its classes")
    _check_sizes((test.n, test.top1, test.loss, test.confusion), where)


def _check_same_data(runs: Iterable[StudyRun], findings: Findings, where: str) -> None:
    """All runs were judged on the same images of the same classes, so that their answers can be held side by side."""
    size = len(findings.plan.classes)
    labels: tuple[int, ...] | None = None
    for run in runs:
        place = f"{where}/{run.folder}"
        test, given = run.record.test, run.answers
        _require(test is None or test.classes == findings.plan.classes, place, "was judged on other classes than planned")
        if given is None:
            continue
        alike = len(given.labels) == len(given.predicted) == len(given.confidence)
        _require(alike, place, "has answers of different lengths")
        _require(all(0 <= i < size for i in (*given.labels, *given.predicted)), place, "has answers that are no classes")
        _require(all(0 <= share <= 1 for share in given.confidence), place, "has a confidence that is no share")
        labels = given.labels if labels is None else labels
        _require(given.labels == labels, place, "was judged on other images than the runs before it")


def _check_sizes(record: Any, where: str) -> None:
    for value in _numbers(record):
        _require(-LARGEST < value < LARGEST, where, f"has a number beyond all measure, {str(value)[:9]}...")


def _numbers(record: Any) -> Iterator[float]:
    if dataclasses.is_dataclass(record):
        for field in dataclasses.fields(record):
            yield from _numbers(getattr(record, field.name))
    elif isinstance(record, (tuple, dict)):
        for each in record.values() if isinstance(record, dict) else record:
            yield from _numbers(each)
    elif isinstance(record, (int, float)):
        yield record


def _require(holds: bool, where: str, what: str) -> None:
    if not holds:
        raise UserError(f"{where} {what}", fix="It is damaged, or its files are of different studies.")
