"""The chart and the page of a learning-rate range test."""

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from convatlas.records.lr_range import LrRange, LrStep
from convatlas.records.run import Choices, Environment, Recipe
from convatlas.report.html import NARROW, WIDE
from convatlas.report.lr_range import described, hint, lr_chart, lr_page
from convatlas.report.standalone import standalone
from convatlas.training.lr_range import RULE

from .pages import Page, drawings

SVG = "{http://www.w3.org/2000/svg}"


def record(losses=(2.3, 2.3, 2.1, 1.8, 1.9, 5.0, 1e30), *, suggestion=1e-3, rule=RULE):
    steps = tuple(LrStep(1e-5 * 10**i, loss * 1.01, loss) for i, loss in enumerate(losses))
    choices = Choices("cpu", "fp32", "channels_last", 1, "as the recipe says")
    environment = Environment("0.1", "3.11", "2.13", "2", "Linux", "some", 2, 8.0, None)
    recipe = Recipe("lenet.pocket", "shapes", "f" * 32, epochs=1)
    return LrRange(
        recipe, "<shapes>", 32, 96, 1000, 1e-5, 10.0, 7, steps, True, suggestion, rule, "convatlas lr", choices, environment
    )


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_hint_is_marked_where_it_is(width):
    chart = ElementTree.fromstring(lr_chart(record(), width=width))
    (line,) = [each for each in chart.iter(f"{SVG}line") if each.attrib["class"] == "chance"]
    left, right = 44, width - 16
    assert float(line.attrib["x1"]) == pytest.approx(left + (right - left) * 2 / 6, abs=0.06)
    (name,) = [each for each in chart.iter(f"{SVG}text") if each.attrib["class"] == "endname"]
    assert name.text == "hint: 0.001"


def test_an_explosion_does_not_flatten_what_came_before():
    chart = ElementTree.fromstring(lr_chart(record(), width=WIDE))
    (curve,) = [each for each in chart.iter(f"{SVG}polyline") if each.attrib["class"] == "mean"]
    points = [tuple(map(float, each.split(","))) for each in curve.attrib["points"].split()]
    assert len(points) == 5, "the two that exploded lie above the plot"
    assert max(y for _, y in points) - min(y for _, y in points) > 80
    assert all(36 <= y <= 296 for _, y in points)


@pytest.mark.parametrize(("suggestion", "anchor"), [(9.0, "end"), (1e-3, "end"), (2e-5, None)])
def test_the_hints_name_lies_where_the_losses_are_low(suggestion, anchor):
    chart = ElementTree.fromstring(lr_chart(record(suggestion=suggestion), width=NARROW))
    (name,) = [each for each in chart.iter(f"{SVG}text") if each.attrib["class"] == "endname"]
    assert name.attrib.get("text-anchor") == anchor


def test_without_a_suggestion_nothing_is_marked_and_the_reason_said():
    none = record((2.3, 2.3, 2.29, 9.0), suggestion=None, rule="none: the smoothed loss never fell by 3%")
    assert hint(none) == "No learning rate is suggested: the smoothed loss never fell by 3%."
    assert "hint:" not in lr_chart(none, width=WIDE)
    assert 'class="chance"' not in lr_page(none).partition("</style>")[2]


def test_the_page_and_its_text_alternative():
    told = described(record())
    assert "least 1.80 at 0.01" in told and "where it exploded" in told and "a hint" in told
    html = lr_page(record())
    page = Page(html)
    assert "script" not in page.names()
    assert len(drawings(html)) == 2
    assert all(each.attrib["aria-label"].startswith("Loss of lenet.pocket while") for each in drawings(html))
    assert "<shapes> at 32 pixels" in page.text
    assert "convatlas lr" in page.text
    assert html.count("<tr>") == 8, "a heading and seven steps"
    long = replace(record(), steps=record().steps * 20)
    assert lr_page(long).count("<tr>") == 25
    assert ElementTree.fromstring(standalone(lr_chart(record(), width=WIDE))).tag == f"{SVG}svg"
