"""How the layers of a dense block connect: an arc from each to all that come after it."""

from dataclasses import dataclass

from convatlas.report.charts.labels import Box
from convatlas.report.diagram.pieces import Picture, Piece, Shape, Text, Wire
from convatlas.report.diagram.tree import Tree
from convatlas.report.diagram.words import function_of

MOST = 6
HALF = 15.0


@dataclass(frozen=True)
class DenseBlock:
    """Neighbouring layers each of which joins its maps to all that it was given; `widths` are the channels, the input's first."""

    name: str
    kind: str
    widths: tuple[int, ...]


def dense_block(tree: Tree, part: str | None = None) -> DenseBlock | None:
    """The first part of a network whose members are at least two such layers, or `part` if it is one; None if there is none."""
    for name in ("", *tree.kinds) if part is None else (part,):
        layers = [unit for unit in tree.units(name) if unit.kind is not None]
        dense = [unit for unit in layers if _joins_its_input(tree, unit.rows)]
        if len(dense) > 1 and dense[0].kind is not None:
            shapes = [tree.ledger.rows[dense[0].rows[0]].input_shape]
            shapes += [tree.ledger.rows[unit.rows[-1]].output_shape for unit in dense]
            return DenseBlock(name, dense[0].kind, tuple(shape[0] for shape in shapes))
    return None


def _joins_its_input(tree: Tree, rows: tuple[int, ...]) -> bool:
    last = tree.ledger.rows[rows[-1]]
    fed = tree.feeds(rows)
    return function_of(last) in ("cat", "concat") and len(fed) == 1 and fed[0] in last.inputs and len(rows) > 1


def connections(block: DenseBlock, *, width: float) -> Picture:
    """The layers of a dense block as boxes in a row, at most six of them, with what each passes on to all after it."""
    shown = min(len(block.widths) - 1, MOST)
    pitch = min(84.0, (width - 2 * HALF) / shown)
    rise = 0.42 * pitch
    middle = 0.86 * rise * (shown - 1) + HALF + 4
    pieces: list[Piece] = []
    xs = [HALF + i * pitch for i in range(shown + 1)]
    for i, x in enumerate(xs):
        for j in range(i + 2, shown + 1):
            start, end = (x + 3, middle - HALF), (xs[j] - 3 - 2.5 * (j - i - 2), middle - HALF)
            pieces.append(Wire((start, ((x + xs[j]) / 2, middle - HALF - 2 * rise * (j - i - 1) * 0.86), end), bend=True))
        if i:
            pieces.append(Wire(((xs[i - 1] + HALF, middle), (x - HALF, middle))))
        box = Box(x - HALF, middle - HALF, x + HALF, middle + HALF)
        pieces.append(Shape(box, "box ends" if i == 0 else "box conv", 5))
        pieces.append(Text("in" if i == 0 else str(i), x, middle + 4, 12, "ink", "middle", within=box))
        pieces.append(Text(str(block.widths[i]), x, middle + HALF + 17, 11.5, "ink", "middle"))
    told = "channels after each" if shown == len(block.widths) - 1 else f"channels after each of the first {shown} layers"
    pieces.append(Text(told, 0, middle + HALF + 34, 11, "soft"))
    return Picture(xs[-1] + HALF, middle + HALF + 40, tuple(pieces))
