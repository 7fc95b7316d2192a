"""The line of descent 1998 to 2022: each architecture with what was new, what it costs, and arrows for what it took from whom."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from convatlas.records.evolution import Milestone
from convatlas.records.model import Published
from convatlas.report import figures
from convatlas.report.charts.labels import Box
from convatlas.report.charts.svg import Markup
from convatlas.report.diagram.pieces import WIDE, Picture, Piece, Shape, Text, Wire, above, column, width_of, wrap
from convatlas.report.diagram.render import rendered
from convatlas.report.views import FAMILIES

DOT = 5.5
LONG_TIME = 5
"""Years between two architectures from which on the gap is told."""


@dataclass(frozen=True)
class Columns:
    """Where things stand, in pixels from the left: the dots, and the left and right ends of texts.

    `bulge` is how far an arrow reaches to the left for each row that it passes.
    """

    dots: float
    year: float
    name: float
    story: tuple[float, float]
    numbers: float
    top1: tuple[float, float]
    bulge: float


WIDE_COLUMNS = Columns(dots=132, year=154, name=206, story=(348, 700), numbers=780, top1=(816, 1004), bulge=42)


def evolution_svg(milestones: Sequence[Milestone], *, width: float = WIDE) -> Markup:
    """The line of descent as SVG that stands alone, `width` pixels wide (`WIDE` or `NARROW`)."""
    first, last = milestones[0].year, milestones[-1].year
    titles = {each.family: each.title for each in milestones}
    debts = [f"{each.title} took from {titles[debt.giver]}: {debt.what}" for each in milestones for debt in each.debts]
    return rendered(
        evolution_picture(milestones, width=width),
        name=f"Landmark convolutional networks, {first} to {last}",
        description=". ".join(debts) + ".",
    )


def evolution_picture(milestones: Sequence[Milestone], *, width: float = WIDE) -> Picture:
    """The line of descent, placed but not rendered."""
    wide = width >= WIDE
    margin = 28.0 if wide else 14.0
    room = width - 2 * margin
    heading = _heading(milestones, room)
    table = _wide(milestones, room) if wide else _narrow(milestones, room)
    body = above([heading, table, _notes(milestones, room)], width=room, gap=26)
    return Picture(width, body.height + 2 * margin, body.moved(margin, margin))


def _heading(milestones: Sequence[Milestone], width: float) -> Picture:
    title = f"Landmark convolutional networks, {milestones[0].year} to {milestones[-1].year}"
    size = 24 if width > 600 else 19
    lines = wrap(title, width, size=size)
    texts = column(lines, x=0, y=22, size=size, leading=size + 4, look="ink head-line")
    told = wrap("What was new, and what each took from those before it", width, size=12)
    texts += column(told, x=0, y=texts[-1].y + 21, size=12, leading=16, look="soft")
    return Picture(width, texts[-1].y + 4, tuple(texts))


def _wide(milestones: Sequence[Milestone], width: float) -> Picture:
    at = WIDE_COLUMNS
    pieces: list[Piece] = [
        Text("parameters", at.numbers, 12, 11, "soft", "end"),
        Text("ImageNet top-1 (paper's below)", at.top1[0], 12, 11, "soft"),
        Shape(Box(at.year, 22, width, 23), "rule", solid=False),
    ]
    centres: list[float] = []
    y = 50.0
    for i, each in enumerate(milestones):
        if i and each.year - milestones[i - 1].year >= LONG_TIME:
            pieces.append(_gap(milestones[i - 1], each, x=at.year, y=y - 8))
            y += 26
        centres.append(y - 5)
        texts = [
            Text(str(each.year), at.year, y, 14, "soft"),
            Text(each.title, at.name, y, 15, "ink", strong=True),
            Text(each.variant, at.name, y + 18, 11.5, "soft"),
            Text(figures.short(each.params), at.numbers, y, 14, "ink", "end"),
            *_top1(each, at.top1[0], y, at.top1[1] - at.top1[0]),
        ]
        story, marks = _story(each, milestones, at.story[0], y, at.story[1] - at.story[0])
        pieces += [*texts, *story, *marks]
        y = max(text.y for text in (*texts, *story)) + 38
    pieces += _arrows(milestones, centres, x=at.dots, bulge=at.bulge)
    return Picture(width, y - 30, tuple(pieces))


def _narrow(milestones: Sequence[Milestone], width: float) -> Picture:
    left, dots = 66.0, 48.0
    pieces: list[Piece] = []
    centres: list[float] = []
    y = 14.0
    for i, each in enumerate(milestones):
        if i and each.year - milestones[i - 1].year >= LONG_TIME:
            pieces.append(_gap(milestones[i - 1], each, x=left, y=y - 8))
            y += 26
        centres.append(y - 5)
        pieces.append(Text(each.title, left, y, 15, "ink", strong=True))
        pieces.append(Text(str(each.year), width, y, 13, "soft", "end"))
        story, marks = _story(each, milestones, left, y + 19, width - left)
        pieces += [*story, *marks]
        y = story[-1].y + 19
        pieces.append(Text(f"{each.variant}, {figures.short(each.params)} parameters", left, y, 11.5))
        top1 = _top1(each, left, y + 17, width - left, lead="top-1 ") if each.library_figure else []
        pieces += top1
        y = max([y, *(text.y for text in top1)]) + 36
    pieces += _arrows(milestones, centres, x=dots, bulge=13)
    return Picture(width, y - 28, tuple(pieces))


def _gap(before: Milestone, after: Milestone, *, x: float, y: float) -> Text:
    return Text(f"{after.year - before.year} years later", x, y, 11, "soft")


def _story(each: Milestone, milestones: Sequence[Milestone], x: float, y: float, width: float) -> tuple[list[Text], list[Shape]]:
    """What was new, and below it what was taken, each with a mark in the colour of whom it was taken from."""
    texts = column(wrap(_signs(each.innovation), width, size=13), x=x, y=y, size=13, leading=17)
    marks: list[Shape] = []
    titles = {other.family: other.title for other in milestones}
    y = texts[-1].y + 19
    for debt in each.debts:
        lines = wrap(f"from {titles[debt.giver]}: {_signs(debt.what)}", width - 16, size=11.5)
        told = f"{each.title}, {debt.source}"
        marks.append(Shape(Box(x, y - 5.2, x + 10, y - 2.8), f"mark {_colour(debt.giver)}", 1, told=told, solid=False))
        texts += column(lines, x=x + 16, y=y, size=11.5, leading=15, look="soft")
        y = texts[-1].y + 16
    return texts, marks


def _signs(text: str) -> str:
    """Kernels written with a multiplication sign."""
    return text.replace("3x3", "3×3").replace("1x1", "1×1")


def _top1(each: Milestone, x: float, y: float, width: float, *, lead: str = "") -> list[Text]:
    if each.library_figure is None:
        return [Text(figures.DASH, x, y, 14, "soft")]
    texts = [Text(f"{lead}{_percent(each.library_figure)}", x, y, 14 if not lead else 11.5)]
    own = each.own_figure
    told = f"paper: {_percent(own)}, {own.protocol}" if own is not None else "paper: no top-1 figure"
    return texts + column(wrap(told, width, size=11), x=x, y=y + (18 if not lead else 16), size=11, leading=14.5, look="soft")


def _percent(figure: Published) -> str:
    return f"{figure.top1:g}\u202f%"


def _arrows(milestones: Sequence[Milestone], centres: Sequence[float], *, x: float, bulge: float) -> list[Piece]:
    """Dots on a line, and an arc from each giver to each taker, the wider the more rows it passes."""
    row = {each.family: i for i, each in enumerate(milestones)}
    pieces: list[Piece] = [
        Shape(Box(x - 0.5, before + DOT + 3, x + 0.5, after - DOT - 3), "rule", solid=False)
        for before, after in pairwise(centres)
    ]
    for each in milestones:
        for debt in each.debts:
            start, end = centres[row[debt.giver]], centres[row[each.family]]
            reach = bulge * (0.55 + row[each.family] - row[debt.giver])
            points = ((x - DOT - 1, start + 2), (x - DOT - reach * 1.45, (start + end) / 2), (x - DOT - 2, end - 1))
            pieces.append(Wire(points, f"arc {_colour(debt.giver)}", bend=True))
    for each, y in zip(milestones, centres, strict=True):
        box = Box(x - DOT, y - DOT, x + DOT, y + DOT)
        pieces.append(Shape(box, f"mark {_colour(each.family)}", DOT, told=f"{each.title}, {each.year}"))
    return pieces


def _colour(family: str) -> str:
    return f"c{FAMILIES.index(family)}"


def _notes(milestones: Sequence[Milestone], width: float) -> Picture:
    protocols = sorted({each.library_figure.protocol for each in milestones if each.library_figure is not None})
    told = [
        f"Top-1 in percent, of the weights that people load (torchvision, IMAGENET1K_V1): {', '.join(protocols)}, validation "
        "set; below it the paper's own figure and how it was measured. The protocols differ, so compare the upper figures only.",
        *(f"{each.title} was not made for ImageNet." for each in milestones if each.library_figure is None),
    ]
    lines = [line for each in told for line in wrap(each, min(width, 860), size=11)]
    assert all(width_of(line, 11) <= width for line in lines)
    return Picture(width, 12 + 15 * (len(lines) - 1) + 4, tuple(column(lines, x=0, y=12, size=11, leading=15, look="soft")))
