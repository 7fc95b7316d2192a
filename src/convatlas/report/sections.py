"""One model's errors: the confusion matrix, how much of each class was found, and the worst mistakes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from convatlas.records.run import Mistake
from convatlas.report.charts import svg
from convatlas.report.charts.heatmap import heatmap
from convatlas.report.views import View, ranked

LARGEST = 100  # up to so many classes a matrix is drawn and every class is listed
PICTURES = 12
_PNG = re.compile(r"data:image/png;base64,iVBORw0KGgo[A-Za-z0-9+/]+={0,2}")


@dataclass(frozen=True)
class Recall:
    """How many of a class's `n` images were found; `share` is None for a class without images."""

    index: int
    name: str
    found: int
    n: int
    share: float | None


@dataclass(frozen=True)
class Confused:
    """So many images of class `truth` were called `answer`."""

    truth: str
    answer: str
    count: int
    n: int


@dataclass(frozen=True)
class Worst:
    """A mistake to be shown. `picture` is a PNG data URL, or None where the record holds anything else."""

    mistake: Mistake
    seed: int
    picture: str | None


@dataclass(frozen=True)
class Section:
    """All that the page says of one model's errors. `seeds` are the runs that were evaluated; none: nothing to show."""

    view: View
    seeds: tuple[int, ...]
    classes: tuple[str, ...]
    n: int
    heatmap: svg.Markup | None
    recalls: tuple[Recall, ...]
    confused: tuple[Confused, ...]
    worst: tuple[Worst, ...]


def sections(shown: Sequence[View]) -> list[Section]:
    """A section for each model that has an accuracy, the best first."""
    return [_section(view) for view, _ in ranked(shown)]


def _section(view: View) -> Section:
    tests = [(run.summary.seed, run.test) for run in view.runs if run.test is not None]
    if not tests:
        return Section(view, (), (), 0, None, (), (), ())
    classes = tests[0][1].classes
    alike = [(seed, test) for seed, test in tests if test.classes == classes]
    matrix = _added([test.confusion for _, test in alike])
    drawn = len(classes) <= LARGEST and bool(matrix)
    name = f"Confusion matrix of {view.name}"
    return Section(
        view=view,
        seeds=tuple(seed for seed, _ in alike),
        classes=classes,
        n=sum(map(sum, matrix)),
        heatmap=heatmap(matrix, classes=classes, name=name) if drawn else None,
        recalls=_recalls(matrix, classes),
        confused=_confused(matrix, classes),
        worst=surest([(seed, mistake) for seed, test in alike for mistake in test.worst]),
    )


def _added(matrices: Sequence[Sequence[Sequence[int]]]) -> list[list[int]]:
    """The sum of matrices of one size."""
    return [[sum(cells) for cells in zip(*rows, strict=True)] for rows in zip(*matrices, strict=True)]


def _recalls(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> tuple[Recall, ...]:
    """Every class in order; of more than a hundred the twenty that were found least."""
    every = []
    for index, row in enumerate(matrix):
        n = sum(row)
        every.append(Recall(index, classes[index], row[index], n, row[index] / n if n else None))
    if len(every) <= LARGEST:
        return tuple(every)
    return tuple(sorted((each for each in every if each.share is not None), key=lambda each: each.share or 0.0)[:20])


def _confused(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> tuple[Confused, ...]:
    """The five most frequent confusions."""
    pairs = [
        Confused(classes[i], classes[j], count, sum(row))
        for i, row in enumerate(matrix)
        for j, count in enumerate(row)
        if i != j and count
    ]
    return tuple(sorted(pairs, key=lambda pair: -pair.count)[:5])


def surest(mistakes: Sequence[tuple[int, Mistake]]) -> tuple[Worst, ...]:
    """The mistakes the model was surest of; an image that several seeds got wrong is shown once."""
    surest: dict[int, Worst] = {}
    for seed, mistake in sorted(mistakes, key=lambda pair: -pair[1].confidence):
        surest.setdefault(mistake.index, Worst(mistake, seed, png(mistake.picture)))
    return tuple(surest.values())[:PICTURES]


def png(url: str) -> str | None:
    """`url` if it is a PNG data URL and nothing else."""
    return url if _PNG.fullmatch(url) else None
