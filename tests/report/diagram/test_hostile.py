"""Names from outside, and networks that are nothing like the atlas."""

from xml.etree import ElementTree

import pytest

from convatlas.records.ledger import IMAGE
from convatlas.report.diagram.network import network_picture, network_svg
from convatlas.report.diagram.page import page
from convatlas.report.diagram.pieces import NARROW, WIDE, cut, wrap
from convatlas.report.diagram.render import style

from .geometry import faults
from .ledgers import call, conv, ledger, residual, row

NAMES = [
    "<script>alert(1)</script>",
    "]]></style><svg onload=x>",
    "a" * 400,
    "two\nlines\tand\x00nothing",
    "\u202egnp.exe\u200b",
    "卷积网络" * 30,
    "&amp;\"'",
    " ",
]


@pytest.mark.untraced  # long, and other tests reach its lines
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_names(name, width):
    rows = [*residual(name="block"), row(name, [6], name="odd"), row("Linear", [7], name="fc", into=(8,), out=(10,), macs=3)]
    record = ledger(rows, [("block", name), ("odd", name)], model=name)
    assert faults(network_picture(record, width=width)) == []
    root = ElementTree.fromstring(str(network_svg(record, width=width)))
    tags = {each.tag.rpartition("}")[2] for each in root.iter()}
    assert tags <= {"svg", "title", "desc", "style", "rect", "text", "path", "polygon"}
    assert "\u202e" not in "".join(root.itertext())


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_nothing_at_all(width):
    for record in (ledger([]), ledger([row("Identity", [IMAGE])]), ledger([row("Flatten", [IMAGE], out=(2048,))])):
        assert faults(network_picture(record, width=width)) == []


@pytest.mark.untraced  # long, and other tests reach its lines
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_a_long_row_of_layers(width):
    rows = [conv([i - 1 if i else IMAGE], name=f"features.{i}") for i in range(70)]
    picture = network_picture(ledger(rows, [("features", "Sequential")]), width=width)
    assert faults(picture) == []
    assert any("×\u00a070" in text.content for text in picture.texts), "counted, not drawn one by one"
    assert faults(network_picture(ledger(rows), width=width)) == []


@pytest.mark.untraced  # long, and other tests reach its lines
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_many_parts_of_many_kinds(width):
    rows = [conv([i - 1 if i else IMAGE], name=f"part{i}.conv") for i in range(40)]
    parts = [(f"part{i}", f"Kind{i}") for i in range(40)]
    assert faults(network_picture(ledger(rows, parts), width=width)) == []


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("many", [2, 5, 12])
def test_many_branches(width, many):
    rows = [conv([IMAGE], name=f"block.branch{i}") for i in range(many)]
    rows.append(call("cat", range(many), name="block", out=(8 * many, 16, 16)))
    assert faults(network_picture(ledger(rows, [("block", "Wide")]), width=width, part="block")) == []


def test_constants_and_sizes_beyond_all_measure():
    big = (10**9, 10**6, 10**6)
    rows = [call("zeros", []), conv([IMAGE], into=big, out=big), call("add", [1, 0], into=big, out=big)]
    for width in (WIDE, NARROW):
        assert faults(network_picture(ledger(rows, shape=big), width=width)) == []


def test_the_style_touches_only_drawings():
    rules = [line for line in style().splitlines() if "{" in line and not line.startswith("@")]
    assert rules
    selectors = [
        each.strip() for rule in rules for part in rule.split("}") if "{" in part for each in part.split("{")[0].split(",")
    ]
    assert all(each.startswith(".diagram") for each in selectors)


def test_a_page_holds_both_forms():
    record = ledger(residual(), [("block", "Block")], model="<b>")
    text = page("<b>", wide=network_svg(record), narrow=network_svg(record, width=NARROW))
    assert text.startswith("<!doctype html>")
    assert text.count("<svg") == 2
    assert "<title>&lt;b&gt;</title>" in text
    assert "<b>" not in text
    assert "<script" not in text


def test_cutting_and_wrapping():
    assert cut("abc", 1000, size=12) == "abc"
    assert cut("abcdefghij" * 9, 60, size=12).endswith("…")
    assert wrap("one two three", 1000, size=12) == ["one two three"]
    assert wrap("one two three", 40, size=12) == ["one", "two", "three"]
    assert wrap("SelectAdaptivePool2d", 110, size=12) == ["SelectAdaptive", "Pool2d"]
    assert wrap("1024\u00a0→\u00a0384", 50, size=12) == ["1024", "→\u00a0384"]
