"""The page of a data check: whole, without script, and safe from hostile names."""

from dataclasses import replace

import pytest

from convatlas.records.data_check import (
    EXACT,
    NEAR,
    ClassRow,
    DataCheck,
    Example,
    Finding,
    Pair,
    PictureSize,
    Place,
    Relation,
    Unreadable,
)  # fmt: skip
from convatlas.report.data_check import MOST_CLASSES, check_page, galleries

from .pages import Page
from .samples import PICTURE
from .test_hostile import PAYLOADS


def found(name="cat"):
    near = Pair(NEAR, Place("test", 3, name, name), Place("train", 5, name), 0.87, True)
    against = Pair(EXACT, Place("train", 8, name), Place("train", 1, "dog"), 1.0, False)
    return DataCheck(
        data=name,
        description=name,
        fingerprint="f" * 32,
        convatlas="0.1.0",
        refused=None,
        image=(3, 32, 32),
        splits={"train": 1200, "test": 10},
        classes=(ClassRow(name, {"train": 600, "test": 10}, ""), ClassRow("dog", {"train": 600, "test": 0}, "none in test")),
        relations=(
            Relation("test", "train", 0, 1, 0, (3,), 10),
            Relation("test", "test", 0, 0, 0, (), 10),
            Relation("train", "train", 1, 0, 1, (1, 8), 1200),
        ),
        pairs=(against, near),
        examples=(Example(against, PICTURE, PICTURE), Example(near, PICTURE, PICTURE)),
        blank=(),
        unreadable=(Unreadable(name, name),),
        sizes=(PictureSize(40, 30, "RGB", 2),),
        threshold=0.8,
        near="looked for",
        findings=(Finding("one kind", name),),
        verdict=(f"{name} leaks.", "That is all."),
        seconds=61.0,
    )


def test_the_page_says_all_that_was_found():
    page = Page(check_page(found()))
    assert "script" not in page.names()
    for words in (
        "cat leaks. That is all.",
        "images of 3x32x32: 1\u202f200 train, 10 test",
        "looked for, 0.80 or more",
        "one kind",
        "Under two classes",
        "Test in train",
        "0.87, mirrored",
        "the same pixels",
        "10.0\u202f%",
        "none in test",
        "40x30",
        "1 min 1\u202fs".replace(" ", "\u202f", 1),
    ):
        assert words in page.text, words
    assert sum(name == "img" for name, _ in page.elements) == 4
    assert [gallery.heading for gallery in galleries(found())] == ["Under two classes", "test in train"]


def test_a_page_of_nothing():
    nothing = replace(
        found(), refused="why", classes=(), relations=(), pairs=(), examples=(), unreadable=(), sizes=(), findings=(), image=(),
        splits={}, threshold=None, fingerprint="",
    )  # fmt: skip
    page = Page(check_page(nothing))
    assert "not identified" in page.text and "Duplicates, split by split" not in page.text


def test_of_very_many_classes_those_with_a_remark_are_shown():
    rows = tuple(ClassRow(f"c{i}", {"train": 9}, "tiny" if i > 400 else "") for i in range(500))
    page = check_page(replace(found(), classes=rows))
    assert ">c450<" in page and ">c350<" not in page and ">c0<" in page
    assert f"{MOST_CLASSES} of 500" in Page(page).text


def test_a_picture_that_is_none_is_not_shown():
    example = found().examples[0]
    page = check_page(replace(found(), examples=(replace(example, first="https://elsewhere/x.png"),)))
    assert "elsewhere" not in page


@pytest.mark.untraced  # many pages, whose lines other tests reach
@pytest.mark.parametrize("payload", PAYLOADS)
def test_hostile_names_stay_text(payload):
    page = Page(check_page(found(payload)))
    assert page.names() == Page(check_page(found())).names()
    assert not any(key.startswith("on") for _, attributes in page.elements for key in attributes)
