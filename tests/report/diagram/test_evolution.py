"""The line of descent: its numbers are those of the papers and the golden table, and its arrows point forward."""

import pytest

from convatlas.models.evolution import DEBTS, milestones
from convatlas.models.papers import PAPERS, golden_rows
from convatlas.report import figures
from convatlas.report.diagram.evolution import evolution_picture, evolution_svg
from convatlas.report.diagram.pieces import NARROW, WIDE

from .geometry import faults

WIDTHS = [WIDE, NARROW]


@pytest.mark.parametrize("width", WIDTHS)
def test_clean(width):
    picture = evolution_picture(milestones(), width=width)
    assert faults(picture) == []
    assert not [text for text in picture.texts if "…" in text.content]


@pytest.mark.parametrize("width", WIDTHS)
def test_everything_is_told(width):
    text = " ".join(each.content for each in evolution_picture(milestones(), width=width).texts)
    for paper in PAPERS.values():
        assert paper.title in text
        assert str(paper.year) in text
        assert figures.short(golden_rows()[paper.landmark].params) in text
        for figure in (paper.own_figure, paper.library_figure):
            assert figure is None or f"{figure.top1:g}\u202f%" in text
    for debts in DEBTS.values():
        for debt in debts:
            assert f"from {PAPERS[debt.giver].title}:" in text
    assert "one centre crop of 224 pixels" in text
    assert "LeNet-5 was not made for ImageNet" in text


def test_families_and_debts():
    assert list(DEBTS) == list(PAPERS)
    assert [each.variant for each in milestones()] == [paper.landmark for paper in PAPERS.values()]
    for each in milestones():
        assert all(PAPERS[debt.giver].year < each.year or debt.giver == "alexnet" for debt in each.debts)
        assert all(debt.source.startswith("section") for debt in each.debts)
        assert len(each.debts) > 0 or each.family == "lenet"
    assert {debt.giver for each in milestones() for debt in each.debts} < set(PAPERS)


@pytest.mark.parametrize("width", WIDTHS)
def test_an_arrow_for_each_debt_from_above(width):
    arrows = [wire for wire in evolution_picture(milestones(), width=width).wires if not wire.headless]
    assert len(arrows) == sum(len(debts) for debts in DEBTS.values())
    assert all(wire.points[0][1] < wire.points[-1][1] for wire in arrows)


def test_what_was_taken_is_told_to_those_who_cannot_see():
    text = str(evolution_svg(milestones()))
    assert "<desc>" in text
    assert "VGG took from AlexNet: ReLU and dropout" in text
