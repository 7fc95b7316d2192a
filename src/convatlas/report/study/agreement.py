"""Image by image: on which images two variants agree, and which of them only one gets right in every seed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from convatlas.records.findings import Answers, Findings
from convatlas.report.sections import png
from convatlas.report.study.views import View

STATES = ("right", "mixed", "wrong")
PICTURED = 6
"""Images that are named for each side."""
LARGEST_PICTURE = 24_000
"""Letters; a larger picture is not shown here."""


@dataclass(frozen=True)
class Image:
    """A test image that one variant gets right in every seed and the other wrong in every seed: what the other takes it for.

    `picture` is a PNG data URL, where a record of the runs' mistakes has one.
    """

    index: int
    truth: str
    answer: str
    picture: str | None


@dataclass(frozen=True)
class Agreement:
    """`table[i][j]` counts images in state i of the first variant and j of the second: right in all of its seeds, wrong in all,
    or, in between, right in some. `states` are those that occur. `only_first` and `only_second` are examples, not all.
    """

    first: str
    second: str
    n: int
    seeds: tuple[int, int]
    states: tuple[str, ...]
    table: tuple[tuple[int, ...], ...]
    first_alone: int
    second_alone: int
    only_first: tuple[Image, ...]
    only_second: tuple[Image, ...]


def agreements(findings: Findings, compared: Sequence[tuple[View, View]], *, most: int) -> list[Agreement]:
    """Of the first `most` pairs of which both have kept their answers."""
    pictures = _pictures([view for pair in compared for view in pair])
    found = (_agreement(findings, first, second, pictures) for first, second in compared)
    return [each for each in found if each is not None][:most]


def _agreement(findings: Findings, first: View, second: View, pictures: dict[int, str]) -> Agreement | None:
    ours, theirs = _answers(first), _answers(second)
    if not ours or not theirs:
        return None
    states = list(zip(_states(ours), _states(theirs), strict=True))
    counted = Counter(states)
    kept = tuple(state for state in STATES if state != "mixed" or any("mixed" in each for each in counted))
    return Agreement(
        first=first.name,
        second=second.name,
        n=len(states),
        seeds=(len(ours), len(theirs)),
        states=kept,
        table=tuple(tuple(counted[mine, other] for other in kept) for mine in kept),
        first_alone=counted["right", "wrong"],
        second_alone=counted["wrong", "right"],
        only_first=_images(findings, [i for i, each in enumerate(states) if each == ("right", "wrong")], theirs, pictures),
        only_second=_images(findings, [i for i, each in enumerate(states) if each == ("wrong", "right")], ours, pictures),
    )


def _answers(view: View) -> list[Answers]:
    return [run.answers for run in view.runs if run.answers is not None]


def _states(every: Sequence[Answers]) -> list[str]:
    """Each image's state over the seeds."""
    found = []
    for label, *answers in zip(every[0].labels, *(each.predicted for each in every), strict=True):
        right = answers.count(label)
        found.append("right" if right == len(answers) else "mixed" if right else "wrong")
    return found


def _images(findings: Findings, indices: Sequence[int], wrong: Sequence[Answers], pictures: dict[int, str]) -> tuple[Image, ...]:
    """Some of the images at `indices`, those with a picture first, with the commonest of the wrong answers."""
    classes = findings.plan.classes
    some = sorted(indices, key=lambda index: (index not in pictures, index))[:PICTURED]
    common = {index: Counter(each.predicted[index] for each in wrong).most_common(1)[0][0] for index in some}
    return tuple(Image(i, classes[wrong[0].labels[i]], classes[common[i]], pictures.get(i)) for i in some)


def _pictures(shown: Sequence[View]) -> dict[int, str]:
    """Pictures of test images by their place, from the mistakes that any of the runs kept."""
    tests = [run.record.test for view in shown for run in view.runs if run.record.test is not None]
    urls = ((each.index, png(each.picture)) for test in tests for each in test.worst)
    return {index: url for index, url in urls if url is not None and len(url) <= LARGEST_PICTURE}
