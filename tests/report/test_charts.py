"""Charts: ticks, scales, labels that never overlap, colours that can be told apart."""

import itertools
import math
import re
from collections.abc import Sequence
from importlib import resources
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convatlas.report.charts import axes, heatmap, labels
from convatlas.report.charts.bars import bars
from convatlas.report.charts.labels import Box
from convatlas.report.charts.lines import Paper, Series, lines
from convatlas.report.charts.marks import Mark
from convatlas.report.charts.scatter import Cost, Point, scatter

NAMES = ("LeNet-5", "AlexNet", "VGG", "GoogLeNet", "ResNet", "DenseNet", "EfficientNet", "ConvNeXt")
SVG = "{http://www.w3.org/2000/svg}"


def _texts(drawing: str, class_: str) -> list[tuple[str, Box]]:
    """Texts of a class with the boxes they fill by the estimate, at the size that the style sheet gives."""
    found = []
    for each in ElementTree.fromstring(drawing).iter(f"{SVG}text"):
        if each.attrib["class"] != class_:
            continue
        content, size = each.text or "", 12.0
        x, y, width = float(each.attrib["x"]), float(each.attrib["y"]), labels.text_width(content, size)
        left = {"middle": x - width / 2, "end": x - width}.get(each.attrib.get("text-anchor", ""), x)
        found.append((content, Box(left, y - 0.8 * size, left + width, y + 0.2 * size)))
    return found


def _apart(boxes: Sequence[tuple[str, Box]]) -> None:
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        assert not first.meets(second), (one, other)


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_enclose_the_range_in_round_steps(low: float, span: float) -> None:
    high = low + span
    if high - low < 1e-6 * max(abs(low), abs(high)):  # finer than a float can mark
        return
    ticks = axes.nice_ticks(low, high)
    slack = 1e-6 * (high - low)
    assert ticks[0] <= low + slack and ticks[-1] >= high - slack and 2 <= len(ticks) <= 12
    step = ticks[1] - ticks[0]
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-6), 3) in {1, 2, 5, 10}


def test_known_ticks() -> None:
    assert axes.nice_ticks(0.0, 1.0) == (0.0, 0.5, 1.0)
    assert axes.nice_ticks(0.0, 1.0, count=6) == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    assert axes.nice_ticks(3.0, 3.0)[0] <= 3.0 <= axes.nice_ticks(3.0, 3.0)[-1]


@pytest.mark.parametrize(("values", "log"), [([1, 11], True), ([1, 10], False), ([0, 100], False), ([5], False), ([], False)])
def test_logarithmic_beyond_a_decade(values: list[float], log: bool) -> None:
    assert axes.spanning(values).log is log


def test_logarithmic_scale_places_the_geometric_mean_in_the_middle() -> None:
    scale = axes.Scale(1.0, 100.0, (), log=True).between(0.0, 10.0)
    assert scale(10.0) == pytest.approx(5.0) and scale(100.0) == pytest.approx(10.0)


@given(st.lists(st.floats(0, 300), max_size=16))
def test_spread_keeps_the_gap_the_order_and_the_range(wanted: list[float]) -> None:
    placed = labels.spread(wanted, gap=15, low=0, high=300)
    ordered = sorted(placed)
    assert all(b - a >= 15 - 1e-6 for a, b in itertools.pairwise(ordered))
    assert all(-1e-6 <= each <= 300 + 1e-6 for each in placed)
    assert [i for _, i in sorted(zip(wanted, range(len(wanted)), strict=True))] == [
        i for _, i in sorted(zip(placed, range(len(placed)), strict=True))
    ]


def test_spread_leaves_alone_what_has_room() -> None:
    assert labels.spread([200.0, 10.0, 100.0], gap=15, low=0, high=300) == [200.0, 10.0, 100.0]
    assert labels.spread([100.0, 100.0], gap=20, low=0, high=300) == [90.0, 110.0]


@pytest.mark.untraced  # long, and other tests reach its lines
@given(st.lists(st.tuples(st.floats(44, 346), st.floats(30, 286)), min_size=1, max_size=8))
def test_placed_labels_meet_nothing_and_stay_inside(points: list[tuple[float, float]]) -> None:
    bounds = Box(46, 26, 356, 284)
    boxes = labels.place(points, [(70.0, 15.0)] * len(points), bounds=bounds)
    kept = [box for box in boxes if box]
    assert len(kept) == len(points)
    assert all(box.within(bounds) for box in kept)
    assert not any(a.meets(b) for a, b in itertools.combinations(kept, 2))
    assert not any(box.left < x < box.right and box.top < y < box.bottom for box in kept for x, y in points)


def test_label_without_room_is_left_out() -> None:
    assert labels.place([(5.0, 5.0)], [(50.0, 10.0)], bounds=Box(0, 0, 20, 20)) == [None]


@pytest.mark.parametrize("seconds", [[10.0] * 8, [3.0, 9, 18, 30, 27, 62, 44, 39], [1e-3, 1, 1e3, 1e6, 5, 50, 500, 5000]])
@pytest.mark.parametrize("spread", [0.0, 0.001, 0.2])
def test_scatter_names_never_overlap(seconds: list[float], spread: float) -> None:
    marks = [Mark(name, i, 0.6 + spread * i / 8, 0.58 + spread * i / 8, 0.62 + spread * i / 8) for i, name in enumerate(NAMES)]
    points = [Point(cost, mark) for cost, mark in zip(seconds, marks, strict=True)]
    drawing = scatter(points, cost=Cost("seconds"), width=358, height=330, name="n")
    found = _texts(drawing, "endname")
    assert {name for name, _ in found} == set(NAMES)
    _apart(found)
    assert all(box.left >= 0 and box.right <= 358 for _, box in found)


@pytest.mark.parametrize("width", [358.0, 520.0])
@pytest.mark.parametrize("ends", [[0.8] * 8, [0.1 * i for i in range(1, 9)], [0.9, 0.9, 0.9, 0.1, 0.1, 0.5, 0.5, 0.5]])
def test_line_names_never_overlap(width: float, ends: list[float]) -> None:
    series = [Series(name, i, ((1, 0.2), (2, end))) for i, (name, end) in enumerate(zip(NAMES, ends, strict=True))]
    found = _texts(lines(series, paper=Paper(width, 300, "n", "epoch", "accuracy")), "endname")
    assert [name for name, _ in found] == list(NAMES)
    _apart(found)
    assert all(box.right <= width for _, box in found)


def test_many_lines_make_the_drawing_higher() -> None:
    series = [Series(f"model {i}", i, ((1, 0.5), (2, 0.5))) for i in range(40)]
    drawing = lines(series, paper=Paper(358, 300, "n", "epoch", "accuracy"))
    _apart(_texts(drawing, "endname"))
    assert float(ElementTree.fromstring(drawing).attrib["height"]) > 600


def test_gaps_break_a_line_and_single_points_are_dots() -> None:
    gapped = Series("a", 0, ((1, 0.1), (2, 0.2), (3, None), (4, 0.4), (5, 0.5)))
    paper = Paper(358, 300, "n", "epoch", "accuracy")
    assert str(lines([gapped], paper=paper)).count('class="mean"') == 2
    alone = str(lines([Series("a", 0, ((1, 0.1),))], paper=paper))
    assert 'class="mean"' not in alone and 'class="dot"' in alone


def test_long_names_are_cut_to_their_room_and_told_whole() -> None:
    long = "Wolpertinger" * 20
    drawing = str(bars([Mark(long, 0, 0.5)], chance=0.1, width=358, name="n"))
    (label,) = _texts(drawing, "label")
    assert (
        label[0].startswith("Wolp")
        and label[0].endswith("inger")
        and "…" in label[0]
        and label[1].left >= -12
        and f"<title>{long}: 50.0\u202f%</title>" in drawing
    )


@given(st.text(max_size=60), st.floats(20, 200))
def test_shortened_text_fits(content: str, limit: float) -> None:
    assert labels.text_width(labels.shorten(content, limit, size=12), 12) <= limit


def test_bars_end_at_their_values() -> None:
    marks = [Mark("a", 0, 1.0, 0.9, 1.0), Mark("b", 1, 0.5), Mark("c", 2, 0.0)]
    drawing = ElementTree.fromstring(bars(marks, chance=0.25, width=1060, name="n"))
    widths = [float(each.attrib["width"]) for each in drawing.iter(f"{SVG}rect")]
    assert widths[1] == pytest.approx(widths[0] / 2, abs=0.2) and widths[2] == 0
    (chance,) = (each for each in drawing.iter(f"{SVG}line") if each.attrib["class"] == "chance")
    start = next(drawing.iter(f"{SVG}rect")).attrib["x"]
    assert float(chance.attrib["x1"]) == pytest.approx(float(start) + widths[0] / 4, abs=0.2)


def test_heatmap_shows_counts_and_an_empty_row() -> None:
    drawing = heatmap.heatmap([[7, 3], [0, 0]], classes=("a", "b"), name="n")
    root = ElementTree.fromstring(drawing)
    counts = [each.text for each in root.iter(f"{SVG}text") if each.attrib["class"].startswith("count")]
    assert counts == ["7", "3", "0", "0"]
    cells = [each.attrib["class"] for each in root.iter(f"{SVG}rect") if each.attrib["class"] != "outline"]
    assert cells == ["right h9", "wrong h6", "wrong h0", "right h0"]  # square roots of 0.7 and 0.3, upwards


@pytest.mark.parametrize(("count", "row", "strength"), [(0, 0, 0), (0, 5, 0), (5, 5, 10), (1, 4, 5), (1, 1000, 1)])
def test_strength_of_a_cell(count: int, row: int, strength: int) -> None:
    assert heatmap.level(count, row) == strength


def test_large_matrix_is_colours_only() -> None:
    matrix = [[9 if i == j else 1 if j == (i + 1) % 60 else 0 for j in range(60)] for i in range(60)]
    drawing = str(heatmap.heatmap(matrix, classes=[f"k{i}" for i in range(60)], name="n"))
    assert 'class="count' not in drawing and drawing.count("M") == 120


# Machado, Oliveira & Fernandes 2009, severity 1.0: what protanopes, deuteranopes and tritanopes see, on linear RGB.
SIGHT = {
    "normal": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritan": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}


def _palettes() -> list[tuple[list[str], str]]:
    """The eight colours and the background of cards, for the light and the dark theme."""
    css = (resources.files("convatlas.report") / "templates" / "style.css").read_text(encoding="utf-8")
    cards = re.findall(r"--card: (#\w{6})", css)
    colours = re.findall(r"--c\d: (#\w{6})", css)
    assert len(cards) == 2 and len(colours) == 16
    return [(colours[:8], cards[0]), (colours[8:], cards[1])]


def _linear(colour: str) -> list[float]:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def _lab(rgb: Sequence[float]) -> tuple[float, float, float]:
    r, g, b = (min(1.0, max(0.0, part)) for part in rgb)
    xyz = ((0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505, 0.2126 * r + 0.7152 * g + 0.0722 * b,
           (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089)  # fmt: skip
    x, y, z = (part ** (1 / 3) if part > 0.008856 else 7.787 * part + 16 / 116 for part in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize("sight", SIGHT)
def test_colours_can_be_told_apart(theme: int, sight: str) -> None:
    seen = [_lab([sum(a * b for a, b in zip(r, _linear(c), strict=True)) for r in SIGHT[sight]]) for c in _palettes()[theme][0]]
    assert min(math.dist(a, b) for a, b in itertools.combinations(seen, 2)) >= 25


@pytest.mark.parametrize("theme", [0, 1])
def test_colours_stand_out_from_the_background(theme: int) -> None:
    colours, card = _palettes()[theme]
    for colour in colours:
        one, other = (sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), _linear(each), strict=True)) for each in (colour, card))
        assert (max(one, other) + 0.05) / (min(one, other) + 0.05) >= 3
