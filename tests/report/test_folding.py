"""Folding: what repeats is told once, and nothing is lost."""

from dataclasses import replace

import pytest

from convatlas.report import ledger_words as words
from convatlas.report.folding import Branch, Leaf, rows_in, tree
from convatlas.report.ledger_page import ledger_page, memory_needs
from tests.every import VARIANTS
from tests.every import ledger_of as of

from .pages import Page

EVERY = pytest.mark.parametrize("name", VARIANTS)


def branches(items):
    for item in items:
        if isinstance(item, Branch):
            yield item
            yield from branches(item.items)


@EVERY
def test_no_row_is_lost_or_doubled(name):
    record = of(name)
    for fold in (True, False):
        assert sorted(rows_in(tree(record, fold=fold)), key=id) == sorted(record.rows, key=id)
    assert list(rows_in(tree(record, fold=False))) == list(record.rows), "unfolded, in the order of the data"
    assert not any(branch.times > 1 for branch in branches(tree(record, fold=False)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet50", {("stages.0.1", "stages.0.2"), ("stages.2.1", "stages.2.5")}),
        ("densenet121", {("stages.0.layer0", "stages.0.layer5"), ("stages.2.layer0", "stages.2.layer23")}),
        ("convnext_tiny", {("stages.2.block0", "stages.2.block8")}),
        ("googlenet", {("stages.1.inception0", "stages.1.inception4")}),
        ("efficientnet_b0", {("stages.5.1", "stages.5.3")}),
    ],
)
def test_what_is_folded(name, expected):
    folded = {(branch.paths[0], branch.paths[-1]) for branch in branches(tree(of(name))) if branch.times > 1}
    assert expected <= folded


def test_blocks_of_another_kind_are_not_folded():
    """The first block of a stage has another shortcut."""
    paths = [branch.paths for branch in branches(tree(of("resnet50")))]
    assert ("stages.1.0",) in paths


def test_words():
    rows = of("densenet121").rows
    convs = [row for row in rows if row.name.endswith("layer0.conv1") or row.name.endswith("layer5.conv1")][:2]
    assert words.shape(convs) == "128x56x56"
    assert words.number(convs, lambda row: row.params) == "8192..28672"
    assert words.number(convs, lambda row: 0, write=words.short) == ""
    assert words.number(convs, lambda row: None) == "–"
    assert words.field(convs) == "11..11-51"
    assert words.size(999) == "999 B"
    assert words.size(1_230_000) == "1.23 MB"
    norms = [row for row in rows if row.name.endswith("layer0.norm1") or row.name.endswith("layer5.norm1")][:2]
    assert words.shape(norms) == "64..224x56x56"


def test_what_each_path_has_seen_where_they_meet():
    record = of("googlenet.paper")
    join = next(row for row in record.rows if row.operation == "cat")
    assert words.paths(record, [join]) == ("paths see 27, 43, 59, 43",)
    assert words.shape_before([join]) == "64x28x28"
    plain = of("lenet5").rows[3]
    assert words.paths(of("lenet5"), [plain]) == ()
    add = next(row for row in of("resnet20").rows if row.operation == "add")
    assert words.paths(of("resnet20"), [add]) == ("paths see 7, 3",)
    assert "paths see 27, 43, 59, 43" in ledger_page(record, batch_size=1)


def test_memory_needs():
    record = of("resnet18")
    (sgd, less), (adamw, more) = memory_needs(record, 8)
    assert (sgd, adamw) == ("sgd", "adamw")
    assert more - less == record.memory.gradients
    assert less == record.memory.weights + 2 * record.memory.gradients + record.memory.kept_once + 8 * record.memory.peak


@pytest.mark.parametrize("name", ["resnet50", "googlenet", "lenet5.paper", "convnext.pocket"])
def test_the_page_holds_every_row_and_no_script(name):
    record = of(name)
    text = ledger_page(record, batch_size=16)
    page = Page(text)
    assert "script" not in {element for element, _ in page.elements}
    assert "Content-Security-Policy" in text
    for row in record.rows:
        for formula in row.formulas:
            assert formula in text
    assert f"{record.params:,}".replace(",", "\u202f") in text


def test_hostile_names_stay_text():
    record = of("lenet5")
    row = replace(record.rows[0], settings="<script>alert(1)</script>", operation="<b>x")
    text = ledger_page(replace(record, model="<img src=x onerror=alert(1)>", rows=(row, *record.rows[1:])), batch_size=1)
    assert "<script" not in text
    assert "<img src=x" not in text


def test_a_leaf_has_the_rows_of_all_that_is_folded():
    (folded,) = (b for b in branches(tree(of("convnext_tiny"))) if b.paths[0] == "stages.2.block0")
    leaves = [item for item in folded.items if isinstance(item, Leaf)]
    assert {len(leaf.rows) for leaf in leaves} == {9}
