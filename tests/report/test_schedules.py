"""Schedules as a chart, a page, and the rows of a table."""

from itertools import pairwise
from xml.etree import ElementTree

import pytest

from convatlas.arith.schedules import ABOUT, SCHEDULES, factor_at
from convatlas.records.schedule import Schedule, ScheduleTable
from convatlas.report.html import NARROW, WIDE
from convatlas.report.schedules import columns, described, notes, schedule_plot, schedules_chart, schedules_page
from convatlas.report.standalone import standalone

from .pages import Page, drawings

SVG = "{http://www.w3.org/2000/svg}"


def table(*names, warmup=0.05, epochs=None, lr=None):
    last = epochs or 100
    progress = tuple(i / last for i in range(last + 1))
    found = []
    for name in names:
        factors = tuple(factor_at(name, share, warmup=warmup) for share in progress)
        rates = None if lr is None else tuple(lr * factor for factor in factors)
        found.append(Schedule(name, ABOUT[name].shape, ABOUT[name].source, factors, rates))
    return ScheduleTable(warmup, epochs, lr, progress, tuple(found))


def curve(drawing, nth=0):
    """The pixels of the nth curve of a chart."""
    found = [each for each in ElementTree.fromstring(drawing).iter(f"{SVG}polyline") if each.attrib["class"].startswith("mean")]
    return [tuple(map(float, each.split(","))) for each in found[nth].attrib["points"].split()]


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_a_curve_is_as_its_formula(width):
    points = curve(schedules_chart(table("cosine", epochs=3), width=width))
    assert len(points) == 841, "not the four points of the table"
    (left, floor), top = points[0], min(y for _, y in points)
    right = points[-1][0]
    for x, y in points:
        share = (x - left) / (right - left)
        assert (floor - y) / (floor - top) == pytest.approx(factor_at("cosine", share, warmup=0.05), abs=0.02)


def test_a_drop_is_upright():
    points = curve(schedules_chart(table("step"), width=WIDE))
    jumps = [x2 - x1 for (x1, y1), (x2, y2) in pairwise(points) if y2 - y1 > 15]
    assert len(jumps) == 2 and max(jumps) < 1.5


def test_all_in_one_chart_with_their_names_and_colours():
    drawing = schedules_chart(table(*SCHEDULES), width=WIDE)
    texts = [each.text for each in ElementTree.fromstring(drawing).iter(f"{SVG}text") if each.attrib["class"] == "endname"]
    assert texts == list(SCHEDULES)
    alone = schedules_chart(table("one-cycle"), width=WIDE)
    assert 'class="c7"' in alone and alone.count('class="c7"') == 2, "a name has its colour in every chart"
    assert "mean dash1" in drawing, "plateau lies upon constant, and both are seen"


def test_the_axes_say_what_is_drawn():
    assert "% of the budget<" in schedules_chart(table("cosine"), width=WIDE)
    drawing = schedules_chart(table("cosine", epochs=90, lr=1e-6), width=WIDE)
    assert "% of the budget of 90 epochs<" in drawing and ">1e-06<" in drawing and ">learning rate<" in drawing
    assert ElementTree.fromstring(standalone(drawing)).tag == f"{SVG}svg"


def test_the_page():
    html = schedules_page(table("step", "plateau", epochs=90, lr=0.1), command="convatlas schedule <b>")
    page = Page(html)
    assert "script" not in page.names()
    assert len(drawings(html)) == 2
    assert all(each.attrib["aria-label"] == described(table("step", "plateau", lr=0.1)) for each in drawings(html))
    for said in ("90 epochs", "Peak learning rate: 0.1.", ABOUT["step"].source, ABOUT["plateau"].shape, "convatlas schedule <b>"):
        assert said in page.text
    assert "Plateau is constant here" in page.text
    assert "19 of 91 points" in page.text
    assert html.count("<tr>") == 1 + 2 + 1 + 19


def test_the_page_of_one():
    page = Page(schedules_page(table("cosine", epochs=1)))
    assert "goes with cosine" in page.text and "Budget: 1 epoch." in page.text
    assert "Do it again" not in page.text and "points, evenly chosen" not in page.text
    assert "After the warm-up: half a cosine, down to 0." in page.text


def test_described_says_the_shapes():
    assert described(table("cosine", "step", warmup=0.0)) == (
        "Factor of the learning rate over the budget; no warm-up, then cosine: half a cosine, down to 0; "
        "step: a tenth from 1/3 of the budget on, a hundredth from 2/3"
    )


@pytest.mark.parametrize(("epochs", "rows"), [(1, 2), (3, 4), (20, 21), (21, 12), (90, 19), (64, 14), (99_999, 21)])
def test_rows_are_few_and_even_and_have_the_ends(epochs, rows):
    (heading, spent), (_, factors) = columns(table("cosine", epochs=epochs))
    assert heading == "epochs done"
    assert len(spent) == len(factors) == rows
    numbers = [int(each) for each in spent]
    assert (numbers[0], numbers[-1]) == (0, epochs)
    assert len({b - a for a, b in pairwise(numbers[:-1])}) <= 1
    assert factors[numbers.index(numbers[1])] == f"{factor_at('cosine', numbers[1] / epochs, warmup=0.05):.4f}"


def test_columns_are_factors_or_rates_and_of_one_both():
    assert [heading for heading, _ in columns(table("cosine"))] == ["budget", "factor"]
    assert [heading for heading, _ in columns(table("cosine", lr=0.1))] == ["budget", "factor", "learning rate"]
    headings, cells = zip(*columns(table("cosine", "step", lr=0.003)), strict=True)
    assert headings == ("budget", "cosine", "step")
    assert (cells[0][7], cells[2][7]) == ("35 %", "0.0003")


def test_notes_say_what_numbers_do_not():
    assert notes(table("cosine", "step")) == []
    assert notes(table("step", "multi-step", "cosine", warmup=0.5)) == [
        "step and multi-step: the warm-up lasts until the first drop or longer, so that the peak is never used."
    ]


def test_a_plot_names_its_ends():
    one = schedule_plot(table("step", epochs=90, lr=0.1), table("step").schedules[0], width=60, braille=False)
    assert len(one) == 14
    assert one[0].startswith("0.1 |") and one[11].startswith("  0 |") and one[-1].split() == ["0", "45", "90", "epochs"]
    several = table("step", "cosine")
    assert len(schedule_plot(several, several.schedules[1], width=60, braille=True)) == 8
