"""The drawing of a network: all of it, and below that a block of it opened up."""

import re
from collections.abc import Iterable, Sequence

from convatlas.records.ledger import Ledger
from convatlas.report import figures
from convatlas.report.charts.labels import Box
from convatlas.report.charts.svg import Markup
from convatlas.report.diagram.choice import Opening, opening, openings
from convatlas.report.diagram.dense import DenseBlock, connections, dense_block
from convatlas.report.diagram.flow import flow
from convatlas.report.diagram.graph import Graph, chain
from convatlas.report.diagram.overview import overview
from convatlas.report.diagram.pieces import WIDE, Picture, Piece, Shape, Text, above, beside, column, cut, listed, width_of, wrap
from convatlas.report.diagram.render import rendered
from convatlas.report.diagram.row import row
from convatlas.report.diagram.stops import stops
from convatlas.report.diagram.tree import CONTAINERS, Tree
from convatlas.report.diagram.words import LEGEND, Sort, size

NOTES = (
    "Blocks are as high as a map has pixels and as long as it has channels, both by their square root.",
    "64\u00a0→\u00a0128 stands for channels in and out.",
)
"""What stands below the legend."""


def network_svg(ledger: Ledger, *, width: float = WIDE, part: str | None = None) -> Markup:
    """The drawing of a network as SVG that stands alone, `width` pixels wide: `WIDE` for a desk, `NARROW` for a telephone.

    `part` is the path of the part to open instead of the one that is chosen. Raises UserError for one that there is not.
    """
    shape, blocks = size(ledger.input_shape), ", ".join(dict.fromkeys(stop.title for stop in stops(Tree(ledger))))
    return rendered(
        network_picture(ledger, width=width, part=part),
        name=f"{ledger.model}: the network for an image of {shape}",
        description=f"{', '.join(_facts(ledger))}. From left to right, or from above: {blocks}. Below, a part of it opened up.",
    )


def network_picture(ledger: Ledger, *, width: float = WIDE, part: str | None = None) -> Picture:
    """The drawing of a network, placed but not rendered; arguments as of `network_svg`."""
    tree = Tree(ledger)
    margin = 28.0 if width >= WIDE else 14.0
    room = width - 2 * margin
    opened = [opening(tree, part)] if part is not None else openings(tree) if ledger.rows else []
    whole = overview(stops(tree), width=room)
    charts = _panels(opened, dense_block(tree, part), width=room)
    body = above([_heading(ledger, width=room), whole, charts, _legend([whole, charts], width=room)], width=room, gap=34)
    return Picture(width, body.height + 2 * margin, body.moved(margin, margin))


def _facts(ledger: Ledger) -> tuple[str, ...]:
    sizes = (f"{figures.short(ledger.params)} parameters", f"{figures.short(ledger.macs)} MACs")
    return (f"image {size(ledger.input_shape)}", *sizes)


def _heading(ledger: Ledger, *, width: float) -> Picture:
    name = cut(ledger.model, width, size=24)
    title = Text(name, 0, 22, 24, "ink head-line", whole=ledger.model)
    texts = column(listed(_facts(ledger), width, size=12), x=0, y=43, size=12, leading=16, look="soft")
    return Picture(width, texts[-1].y + 4, (title, *texts))


def _panels(opened: Sequence[Opening], dense: DenseBlock | None, *, width: float) -> Picture:
    """The opened parts, side by side where there is room."""
    wide = width > 600
    many = max(1, len(opened) + (dense is not None))
    room = (width - 60 * (many - 1)) / many if wide else width
    panels = []
    for i, each in enumerate(opened):
        panels.append(_panel(_name_of(each, seen=opened[:i]), _told_of(each), chart_of(each.graph, width=room), room))
    if dense is not None:
        told = f"{_called(dense.name) or 'The network'}: each {dense.kind} sees the maps of all before it"
        panels.append(_panel("Dense connections", told, connections(dense, width=room), room))
    return beside(panels, gap=60) if wide else above(panels, width=width, gap=34)


def chart_of(graph: Graph, *, width: float) -> Picture:
    """A mere row of boxes from left to right, if it fits; all else from top to bottom."""
    lying = row(graph, width=width) if chain(graph) else None
    return flow(graph, width=width) if lying is None else lying


def _panel(title: str, told: str, chart: Picture, room: float) -> Picture:
    texts: list[Text] = column(wrap(title, room, size=15, strong=True), x=0, y=14, size=15, leading=19, strong=True)
    y = 14 + 19 * len(texts)
    texts += column(wrap(told, room, size=12), x=0, y=y, size=12, leading=16, look="soft")
    top = texts[-1].y + 20
    return Picture(room, top + chart.height, (*texts, *chart.moved((room - chart.width) / 2, top)))


def _name_of(each: Opening, *, seen: Sequence[Opening]) -> str:
    """The heading of an opened part; `seen` are those before it."""
    if each.kind and each.kind not in CONTAINERS:
        other = any(before.kind == each.kind for before in seen)
        return f"{each.kind}, built otherwise" if other else f"{each.kind}, opened up"
    return f"{_called(each.name)}, opened up" if each.name else "Layer by layer"


def _called(name: str) -> str:
    """A part's path, or what it is called above: `stages.0` is stage 1."""
    stage = re.fullmatch(r"stages\.(\d+)", name)
    return f"Stage {int(stage[1]) + 1}" if stage else name


def _told_of(each: Opening) -> str:
    if each.many == 1:
        return each.name or "the whole network"
    return (
        f"{each.name}; {each.alike} of {each.many} are built like this"
        if each.alike < each.many
        else (f"{each.name}; all {each.many} are built like this")
    )


def _legend(pictures: Iterable[Picture], *, width: float) -> Picture:
    """What the colours and signs mean, those that occur."""
    looks = {word for picture in pictures for shape in picture.shapes for word in shape.look.split()}
    shown = [sort for sort in LEGEND if sort in looks and sort is not Sort.IMAGE]
    pieces: list[Piece] = []
    x, y = 0.0, 12.0
    for sort in shown:
        told = LEGEND[sort]
        long = width_of(told, 11) + 24
        if x and x + long > width:
            x, y = 0.0, y + 20
        pieces.append(Shape(Box(x, y - 10, x + 14, y), f"box {sort}", 7 if sort is Sort.JOIN else 3))
        pieces.append(Text(told, x + 20, y - 1, 11, "soft"))
        x += long + 18
    lines = [line for each in NOTES for line in wrap(each, width, size=11)]
    pieces += column(lines, x=0, y=y + 21, size=11, leading=15, look="soft")
    return Picture(width, y + 21 + 15 * (len(lines) - 1) + 4, tuple(pieces))
