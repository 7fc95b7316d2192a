"""The page of a data check: one HTML file without script, with the pairs side by side, so that a person can judge them."""

from collections.abc import Sequence
from dataclasses import dataclass

from convatlas.records.data_check import ClassRow, DataCheck, Example, Relation
from convatlas.report.html import templates
from convatlas.report.sections import png

MOST_CLASSES = 200
"""So many classes are listed; of more, those with a remark first."""


@dataclass(frozen=True)
class Gallery:
    """Pairs under one heading, from the least sure to the surest; `of` is how many there are in all."""

    heading: str
    lead: str
    examples: tuple[Example, ...]
    of: int


def check_page(check: DataCheck) -> str:
    """The page's text."""
    rows = sorted(check.classes, key=lambda row: not row.remark)[:MOST_CLASSES] if _many(check.classes) else check.classes
    return templates().get_template("data_check.html.j2").render(
        check=check,
        galleries=galleries(check),
        classes=rows,
        splits=list(dict.fromkeys(split for row in check.classes for split in row.counts)),
        words=relation_words,
        png=png,
    )  # fmt: skip


def galleries(check: DataCheck) -> list[Gallery]:
    """What is to be judged by eye: contradictory labels first, then each relation that has duplicates."""
    against = tuple(each for each in check.examples if each.pair.contradictory)
    found = []
    if against:
        lead = "The same picture, or nearly, under two classes: one of the labels is wrong, or the pair is none."
        n = sum(each.contradictory for each in check.relations)
        found.append(Gallery("Under two classes", lead, against, n))
    for relation in check.relations:
        where = (relation.split, relation.other)
        these = [each for each in check.examples if (each.pair.first.split, each.pair.second.split) == where]
        shown = tuple(each for each in these if not each.pair.contradictory)
        if shown:
            lead = f"Left {relation.split}, right {relation.other}; from the least sure pair to the surest."
            n = relation.exact + relation.near - relation.contradictory
            found.append(Gallery(relation_words(relation), lead, shown, n))
    return found


def relation_words(relation: Relation) -> str:
    """A relation as a heading: "test in train", "within train"."""
    return f"within {relation.split}" if relation.split == relation.other else f"{relation.split} in {relation.other}"


def _many(rows: Sequence[ClassRow]) -> bool:
    return len(rows) > MOST_CLASSES
