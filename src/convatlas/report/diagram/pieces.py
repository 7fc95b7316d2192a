"""What a drawing consists of, placed but not yet rendered: texts, shapes and wires, with the boxes that they fill.

Tests read these: no two texts may meet, each text stays where it belongs, and no wire runs through a text or a box.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from convatlas.report.charts.labels import Box, text_width
from convatlas.report.plain import plain

Point = tuple[float, float]

WIDE, NARROW = 1060.0, 358.0
"""Widths of a drawing in pixels: for a desk, for a telephone."""
ASCENT, DESCENT = 0.76, 0.2
"""How far letters reach over and under their baseline, in font sizes."""
SIGNS = {"→": 0.4, "←": 0.4, "×": 0.22, "+": 0.22, "−": 0.22, "·": -0.2, "\u202f": -0.4, "\u00a0": -0.23, "±": 0.22}
"""What signs need beyond what `text_width` takes them for, in font sizes (of DejaVu Sans, the widest of the usual faces)."""
BOLD = 1.13


def width_of(content: str, size: float, *, strong: bool = False) -> float:
    """The width of `content` in pixels: an upper estimate, as `text_width` is."""
    signs = size * sum(SIGNS.get(each, 0.0) for each in content)
    return (text_width(content, size) + signs) * (BOLD if strong else 1.0)


def cut(content: str, limit: float, *, size: float, strong: bool = False) -> str:
    """`content`, or as much of its beginning as fits `limit` pixels with an ellipsis."""
    content = plain(content)
    if width_of(content, size, strong=strong) <= limit:
        return content
    while content and width_of(content + "…", size, strong=strong) > limit:
        content = content[:-1]
    return content.rstrip() + "…"


def wrap(content: str, limit: float, *, size: float, strong: bool = False) -> list[str]:
    """`content` on lines of at most `limit` pixels, broken between words.

    A word that is too long is broken where a capital, or what follows a mark in a name, begins; if even that is too long, it
    ends in an ellipsis.
    """
    lines: list[str] = []
    for word in plain(content).split(" "):
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and width_of(joined, size, strong=strong) <= limit:
            lines[-1] = joined
        else:
            lines.extend(_broken(word, limit, size=size, strong=strong))
    return lines


def _broken(word: str, limit: float, *, size: float, strong: bool) -> list[str]:
    """A word on as few lines as it takes."""
    if width_of(word, size, strong=strong) <= limit:
        return [word]
    lines = [""]
    for part in re.split(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[_.\u00a0])", word):
        if lines[-1] and width_of(lines[-1] + part, size, strong=strong) > limit:
            lines.append("")
        lines[-1] += part
    return [cut(line.strip("\u00a0"), limit, size=size, strong=strong) for line in lines]


def listed(parts: Iterable[str], limit: float, *, size: float, strong: bool = False) -> list[str]:
    """`parts` with commas between them, on lines of at most `limit` pixels; a break stands in place of a comma."""
    lines: list[str] = []
    for part in parts:
        joined = f"{lines[-1]}, {plain(part)}" if lines else plain(part)
        if lines and width_of(joined, size, strong=strong) <= limit:
            lines[-1] = joined
        else:
            lines.extend(wrap(part, limit, size=size, strong=strong))
    return lines


@dataclass(frozen=True)
class Text:
    """A line of text with its baseline at (x, y). `look` is a class of the style sheet; `whole` what was meant, if it is cut.

    `within` is the box that the text must not leave; None for the drawing itself.
    """

    content: str
    x: float
    y: float
    size: float = 12.0
    look: str = "ink"
    anchor: str = "start"
    strong: bool = False
    within: Box | None = None
    whole: str | None = None

    @cached_property
    def box(self) -> Box:
        """The rectangle that the letters fill, by an upper estimate."""
        width = width_of(self.content, self.size, strong=self.strong)
        left = self.x - {"start": 0.0, "middle": width / 2, "end": width}[self.anchor]
        return Box(left, self.y - ASCENT * self.size, left + width, self.y + DESCENT * self.size)

    def moved(self, across: float, down: float) -> "Text":
        """The same text elsewhere."""
        within = None if self.within is None else _moved(self.within, across, down)
        return replace(self, x=self.x + across, y=self.y + down, within=within)


@dataclass(frozen=True)
class Shape:
    """A rectangle, or what `points` outline within it. `look` is a class of the style sheet, `corner` the radius of its corners.

    `told` is shown where the pointer rests on it. Wires keep out of a `solid` shape; a frame or a line is not solid.
    """

    box: Box
    look: str
    corner: float = 0.0
    points: tuple[Point, ...] = ()
    told: str | None = None
    solid: bool = True

    def moved(self, across: float, down: float) -> "Shape":
        """The same shape elsewhere."""
        points = tuple((x + across, y + down) for x, y in self.points)
        return replace(self, box=_moved(self.box, across, down), points=points)


@dataclass(frozen=True)
class Wire:
    """A line along `points`, with rounded corners, and an arrow head at its end unless `headless`.

    `bend` draws an arc from the first point to the last instead, through the middle one (three points).
    """

    points: tuple[Point, ...]
    look: str = "wire"
    headless: bool = False
    bend: bool = False

    def moved(self, across: float, down: float) -> "Wire":
        """The same wire elsewhere."""
        return replace(self, points=tuple((x + across, y + down) for x, y in self.points))


Piece = Text | Shape | Wire


@dataclass(frozen=True)
class Picture:
    """Pieces on a sheet of `width` by `height` pixels."""

    width: float
    height: float
    pieces: tuple[Piece, ...]

    @property
    def texts(self) -> list[Text]:
        """All texts."""
        return [piece for piece in self.pieces if isinstance(piece, Text)]

    @property
    def shapes(self) -> list[Shape]:
        """All shapes."""
        return [piece for piece in self.pieces if isinstance(piece, Shape)]

    @property
    def wires(self) -> list[Wire]:
        """All wires."""
        return [piece for piece in self.pieces if isinstance(piece, Wire)]

    def moved(self, across: float, down: float) -> tuple[Piece, ...]:
        """The pieces elsewhere."""
        return tuple(piece.moved(across, down) for piece in self.pieces)


def above(pictures: Sequence[Picture], *, width: float, gap: float) -> Picture:
    """Pictures one above the other, left edges aligned, on a sheet of `width`."""
    pieces: list[Piece] = []
    bottom = 0.0
    for picture in pictures:
        pieces.extend(picture.moved(0, bottom))
        bottom += picture.height + gap
    return Picture(width, bottom - gap if pictures else 0.0, tuple(pieces))


def beside(pictures: Sequence[Picture], *, gap: float) -> Picture:
    """Pictures side by side, upper edges aligned."""
    pieces: list[Piece] = []
    right = 0.0
    for picture in pictures:
        pieces.extend(picture.moved(right, 0))
        right += picture.width + gap
    height = max((picture.height for picture in pictures), default=0.0)
    return Picture(right - gap if pictures else 0.0, height, tuple(pieces))


def column(
    lines: Iterable[str],
    *,
    x: float,
    y: float,
    size: float,
    leading: float,
    look: str = "ink",
    anchor: str = "start",
    strong: bool = False,
    within: Box | None = None,
) -> list[Text]:
    """Lines of text below each other, the first with its baseline at `y`."""
    return [
        Text(line, x, y + i * leading, size, look, anchor, strong, within, None) for i, line in enumerate(lines)
    ]  # fmt: skip


def _moved(box: Box, across: float, down: float) -> Box:
    return Box(box.left + across, box.top + down, box.right + across, box.bottom + down)
