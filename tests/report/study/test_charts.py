"""What the charts of studies add: bands, fronts, forests, differences, and words of figures."""

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from convatlas.report import figures
from convatlas.report.charts import axes
from convatlas.report.charts.axes import Axis
from convatlas.report.charts.difference import difference, tone
from convatlas.report.charts.intervals import Guide, Row, Stroke, intervals
from convatlas.report.charts.lines import Paper, Series, lines
from convatlas.report.charts.marks import Mark
from convatlas.report.charts.scatter import Cost, Point, scatter
from convatlas.report.study import study_page
from convatlas.report.study.inside import EPOCHS, gradient_flow
from convatlas.report.study.views import views

from .samples import flow, make, variant

PAPER = Paper(520, 300, "curves", "epoch", "share", y_floor=0.0, y_ceiling=1.0)


def parts(chart: str, kind: str) -> list[dict[str, str]]:
    return [each.attrib for each in ElementTree.fromstring(chart).iter() if each.attrib.get("class", "").split(" ")[0] == kind]


def test_band_encloses_the_mean() -> None:
    series = Series("a", 1, ((1, 0.5), (2, 0.6)), band=((1, 0.4, 0.55), (2, 0.5, 0.7)))
    chart = str(lines([series], paper=PAPER))
    (band,), (mean,) = parts(chart, "band"), parts(chart, "mean")
    corners = [tuple(map(float, each.split(","))) for each in band["points"].split()]
    curve = [tuple(map(float, each.split(","))) for each in mean["points"].split()]
    assert len(corners) == 4 and [x for x, _ in corners[:2]] == [x for x, _ in curve]
    for (_, y), (_, top), (_, bottom) in zip(curve, corners[:2], reversed(corners[2:]), strict=True):
        assert top < y < bottom
    assert not parts(str(lines([replace(series, band=())], paper=PAPER)), "band")


def test_shares_have_the_line_of_equality_from_corner_to_corner() -> None:
    chart = str(lines([Series("a", 1, ((0.3, 0.2), (0.6, 0.7)))], paper=replace(PAPER, shares=True)))
    (line,) = parts(chart, "chance")
    assert float(line["x1"]) < float(line["x2"]) and float(line["y1"]) > float(line["y2"])
    assert ">0.2</text>" in chart and ">1</text>" in chart
    assert not parts(str(lines([Series("a", 1, ((0.3, 0.2), (0.6, 0.7)))], paper=PAPER)), "chance")


def test_front_goes_in_steps_and_the_dominated_are_pale() -> None:
    points = [Point(1, Mark("a", 0, 0.5), False), Point(3, Mark("b", 1, 0.8), False), Point(2, Mark("c", 2, 0.4), True)]
    chart = str(scatter(points, cost=Cost("cost"), width=358, height=330, name="x"))
    (front,) = parts(chart, "front")
    assert len(front["points"].split()) == 3 and 'class="c2 pale"' in chart and 'class="c0 pale"' not in chart
    free = [replace(each, dominated=None) for each in points]
    assert "front" not in str(scatter(free, cost=Cost("cost"), width=358, height=330, name="x"))


def forest(width: float, low: float = -0.03) -> str:
    rows = [
        Row("first − second", (Stroke("open", 0.01, low, 0.05, "told"),), "+1.0 (−3.0 to +5.0)"),
        Row("none", (), "no result yet"),
    ]
    scale = axes.linear([low, 0.05, 0.0])
    guide = Guide(0.0, 0.005, ("second is better", "first is better"))
    return str(intervals(rows, axis=Axis(scale, "points", figures.points), width=width, name="forest", guide=guide))


@pytest.mark.parametrize("width", [358.0, 1060.0])
def test_forest_has_zero_margin_interval_and_words_within_its_width(width: float) -> None:
    chart = forest(width)
    (zero,), (margin,) = parts(chart, "zeroline"), parts(chart, "margin")
    whiskers = parts(chart, "whisker")
    assert float(margin["x"]) < float(zero["x1"]) < float(margin["x"]) + float(margin["width"])
    assert float(whiskers[0]["x1"]) < float(zero["x1"]) < float(whiskers[0]["x2"])
    for words in ("first − second", "no result yet", "+1.0 (−3.0 to +5.0)", "first is better"):
        assert words in chart
    assert all(0 <= float(each.get(key, 0)) <= width for each in parts(chart, "small") + whiskers for key in ("x", "x1", "x2"))


def test_words_at_the_guide_are_left_out_where_there_is_no_room() -> None:
    assert "second is better" in forest(358.0) and "second is better" not in forest(358.0, low=0.0)


def test_difference_has_the_sign_in_the_colour_and_the_size_in_its_strength() -> None:
    assert (tone(0.5, 0.5), tone(-0.25, 0.5), tone(0.0, 0.5), tone(0.0, 0.0)) == ("right h10", "wrong h5", "wrong h0", "wrong h0")
    chart = str(difference([[0.2, -0.2], [-0.004, 0.004]], classes=("a", "b"), name="x"))
    assert "a called a: +20.0 points" in chart and ">−20</text>" in chart and ">0</text>" in chart
    classes = tuple(f"class {i}" for i in range(60))
    many = str(difference([[0.01 * ((i - j) % 3 - 1) for j in range(60)] for i in range(60)], classes=classes, name="x"))
    assert many.count("<path") == 2 and len(many) < 150_000


@pytest.mark.parametrize(
    ("share", "digits", "said"),
    [
        (0.0123, 1, "+1.2"),
        (-0.0123, 2, "−1.23"),
        (0.0004, 1, "0.0"),
        (-0.0004, 1, "0.0"),
        (0.0, 0, "0"),
        (None, 1, "–"),
        (float("nan"), 1, "–"),
    ],
)
def test_points_carry_their_sign(share, digits: int, said: str) -> None:
    assert figures.points(share, digits=digits) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2026-01-05T10:11:12+00:00", "2026-01-05 10:11 UTC"),
        ("2026-01-05T10:11:12.5Z", "2026-01-05 10:11 UTC"),
        ("yesterday", "yesterday"),
    ],
)
def test_dates_are_read(text: str, said: str) -> None:
    assert figures.date(text) == said


@pytest.mark.untraced  # long, and other tests reach its lines
def test_a_long_study_of_many_variants_stays_light() -> None:
    names = [f"v{i}" for i in range(12)]
    findings, runs = make([variant(name, {"x": name}, 0) for name in names], [], (0, 1), ())
    deep = tuple(
        replace(each, flows=tuple(flow(each.variant, each.seed, epoch, layers=60) for epoch in range(40))) for each in runs
    )
    shown = gradient_flow(views(findings, deep))
    assert shown is not None and len(shown.rasters) == 6 and shown.left_out == 6
    assert shown.rasters[0][2].count("<rect") < (EPOCHS + 1) * 60
    assert len(study_page(findings, deep)) < 3_000_000
