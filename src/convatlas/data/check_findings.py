"""What a check found, in sentences."""

import statistics
from collections.abc import Mapping, Sequence

from convatlas.data.gathering import Counts
from convatlas.data.readers.folder_survey import names
from convatlas.records.data_check import EXACT, NEAR, ClassRow, DataCheck, Finding, Relation

LEAST_IMAGES = 10
"""A class with fewer training images is tiny."""
LEAST_SHARE = 0.1
"""So is one with less than this share of what the median class has."""


ACROSS, WITHIN = "duplicates across splits", "duplicates within a split"
_NONE, _TINY = "none in ", "tiny: "
# Pillow's modes of pixels without colour.
_GREY = frozenset({"1", "L", "LA", "I", "I;16", "I;16B"})


def class_rows(counts: Counts) -> tuple[ClassRow, ...]:
    """Each class with its images in each split, and what is odd about it."""
    splits = list(dict.fromkeys(split for each in counts.values() for split in each))
    median = statistics.median([each.get("train", 0) for each in counts.values()] or [0])
    return tuple(
        ClassRow(name, {split: each.get(split, 0) for split in splits}, _remark(each, splits, median))
        for name, each in counts.items()
    )


def _remark(counts: Mapping[str, int], splits: Sequence[str], median: float) -> str:
    lacking = [split for split in splits if not counts.get(split, 0)]
    if lacking:
        return f"{_NONE}{' and '.join(lacking)}"
    if "train" in splits and counts["train"] < LEAST_IMAGES:
        return f"{_TINY}{counted(counts['train'], 'training image')}"
    if "train" in splits and counts["train"] < LEAST_SHARE * median:
        return f"{_TINY}under a tenth of the median class, which has {median:,.0f}"
    return ""


def findings(check: DataCheck) -> list[Finding]:
    """All that a person should know or mend: duplicates first, then classes, then single images."""
    return [*_of_duplicates(check.relations), *_of_classes(check.classes), *_of_images(check)]


def verdict(check: DataCheck) -> tuple[str, ...]:
    """What it all comes to: whether the test can be believed first."""
    if check.refused is not None:
        return (f"This data cannot be used as it is: {check.refused}",)
    leaks = [each for each in check.relations if each.split != each.other and each.indices]
    kind = "an exact" if check.threshold is None else "an exact or near"
    said = [
        f"{len(each.indices):,} of {each.total:,} {each.split} images ({each.share:.1%}) have {kind} duplicate in {each.other}: "
        f"what is measured on them may be memory."
        for each in leaks
    ]
    if not leaks and len(check.splits) > 1:
        said.append(f"No image has {kind} duplicate in another split.")
    others = list(dict.fromkeys(each.kind for each in check.findings if each.kind != ACROSS))
    return (*said, f"{'Also found' if leaks else 'Found'}: {', '.join(others)}." if others else "Nothing else was found.")


def _of_duplicates(relations: Sequence[Relation]) -> list[Finding]:
    """A finding for each relation that has duplicates, those across splits first."""
    found = []
    for each in sorted(relations, key=lambda relation: relation.split == relation.other):
        same = each.split == each.other
        where = f"{each.other} itself" if same else each.other
        images = f"{len(each.indices):,} of {each.total:,} {each.split} images ({each.share:.1%})"
        text = f"{images} have a duplicate in {where}: {_pairs(each.exact, EXACT)} and {_pairs(each.near, NEAR)}."
        if each.indices:
            found.append(Finding(WITHIN if same else ACROSS, text))
    against = sum(each.contradictory for each in relations)
    if against:
        text = f"{counted(against, 'pair')} of duplicates {'stands' if against == 1 else 'stand'} under two classes."
        found.append(Finding("contradictory labels", text))
    return found


def _pairs(n: int, kind: str) -> str:
    return counted(n, f"{kind} pair")


def _of_classes(rows: Sequence[ClassRow]) -> list[Finding]:
    """Classes that a split lacks, and tiny ones."""
    lacking: dict[str, list[str]] = {}
    for row in rows:
        if row.remark.startswith(_NONE):
            lacking.setdefault(row.remark.removeprefix(_NONE), []).append(row.name)
    found = [Finding("class missing", f"There is no image of {names(each)} in {where}.") for where, each in lacking.items()]
    tiny = [row.name for row in rows if row.remark.startswith(_TINY)]
    if tiny:
        rule = f"fewer than {LEAST_IMAGES} training images, or under a tenth of what the median class has"
        found.append(Finding("tiny class", f"{counted(len(tiny), 'class', 'classes')} with {rule}: {names(tiny)}."))
    return found


def _of_images(check: DataCheck) -> list[Finding]:
    """Files that cannot be read, images of one colour, pictures that had to be enlarged, and grey ones among others."""
    side = max(check.image[1:], default=0)
    small = sum(each.count for each in check.sizes if min(each.width, each.height) < side)
    grey = sum(each.count for each in check.sizes if each.mode in _GREY)
    files = [each.file for each in check.unreadable]
    blank = [each.file or f"{each.split} {each.index}" for each in check.blank]
    every = sum(each.count for each in check.sizes)
    found = (
        ("unreadable files", len(files), f"{counted(len(files), 'file')} cannot be read: {names(files)}."),
        ("one colour", len(blank), f"{counted(len(blank), 'image')} of one colour everywhere: {names(blank)}."),
        ("small pictures", small, f"{counted(small, 'picture')} with a side under {side} pixels, enlarged when read."),
        ("grey among coloured", grey if grey < every else 0, f"{counted(grey, 'picture')} of {every:,} in grey."),
    )
    return [Finding(kind, text) for kind, n, text in found if n]


def counted(n: int, one: str, many: str | None = None) -> str:
    """A number of things: 1 pair, 2 pairs."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"
