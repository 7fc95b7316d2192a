"""The whole network: at every stop the map as a block, as high as it has pixels and as long as it has channels."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from convatlas.report import figures
from convatlas.report.charts.labels import Box
from convatlas.report.diagram.pieces import WIDE, Picture, Piece, Shape, Text, Wire, column, cut, listed, wrap
from convatlas.report.diagram.stops import Stop
from convatlas.report.diagram.words import Sort, size

LEADING = 15.0
HEADS = 76.0  # what the names of the rows below the blocks take
MOST = 11  # blocks side by side
LINES = 6  # of what a stop holds; more are counted
ROWS = ("channels", "pixels", "parameters", "MACs")


@dataclass(frozen=True)
class Scale:
    """Pixels that the largest side and the most channels of a network take; sides and lengths grow with the square root."""

    side: float
    length: float
    pixels: int
    channels: int

    def block(self, shape: tuple[int, ...]) -> tuple[float, float, float]:
        """Height, length and depth of the block for a map (C, H, W), or for (features,) as a map of one pixel."""
        rows = shape[1] if len(shape) > 2 else 1
        height = max(7.0, self.side * (rows / self.pixels) ** 0.5)
        return height, max(3.0, self.length * (shape[0] / self.channels) ** 0.5) if shape else 3.0, 0.27 * height


def overview(stops: Sequence[Stop], *, width: float) -> Picture:
    """The stops side by side, on several lines where they are many, or, on a narrow sheet, below each other."""
    pixels = max((stop.shape[1] for stop in stops if len(stop.shape) > 2), default=1)
    channels = max((stop.shape[0] for stop in stops if stop.shape), default=1)
    if width < WIDE / 2:
        return _listed(stops, width=width, scale=Scale(62, 44, pixels, channels))
    lines = -(-len(stops) // MOST)
    many = -(-len(stops) // lines)
    bands = [stops[i : i + many] for i in range(0, len(stops), many)]
    pitch = min(148.0, (width - HEADS) / many)
    scale = Scale(104, min(56.0, pitch - 40), pixels, channels)
    pieces: list[Piece] = []
    bottom = 0.0
    for i, band in enumerate(bands):
        picture = _band(band, scale=scale, pitch=pitch, more=i + 1 < len(bands), first=i == 0)
        pieces.extend(picture.moved(0, bottom))
        bottom += picture.height + 30
    return Picture(width, bottom - 30, tuple(pieces))


# Side by side


def _band(band: Sequence[Stop], *, scale: Scale, pitch: float, more: bool, first: bool) -> Picture:
    tallest = max(height + depth for height, _, depth in (scale.block(stop.shape) for stop in band))
    axis = tallest / 2
    middles = [HEADS + (i + 0.5) * pitch for i in range(len(band))]
    boxes = [_outline(stop, scale, middle=middle, axis=axis) for stop, middle in zip(band, middles, strict=True)]
    pieces: list[Piece] = [piece for stop, box in zip(band, boxes, strict=True) for piece in _block(stop, box, scale)]
    ends = [*zip([box.right for box in boxes], [box.left for box in boxes[1:]], strict=False)]
    pieces += [Wire(((start + 5, axis), (end - 4, axis))) for start, end in ends]
    if more:
        pieces.append(Wire(((boxes[-1].right + 5, axis), (middles[-1] + pitch / 2, axis))))
    if not first:
        pieces.append(Wire(((HEADS - 10, axis), (boxes[0].left - 4, axis))))
    top = tallest + 30
    pieces += _titles(band, middles, top, pitch)
    deepest = top
    for stop, middle in zip(band, middles, strict=True):
        lines = _few([line for each in stop.lines for line in wrap(each, pitch - 2, size=11)])
        pieces += column(lines, x=middle, y=top + 19, size=11, leading=LEADING, anchor="middle")
        deepest = max(deepest, top + 19 + LEADING * (len(lines) - 1))
    return _table(band, middles, pieces, deepest + 14, pitch)


def _table(band: Sequence[Stop], middles: Sequence[float], pieces: list[Piece], y: float, pitch: float) -> Picture:
    """What is known of each stop, in rows below it."""
    end = middles[-1] + pitch / 2
    pieces.append(Shape(Box(0, y, end, y + 1), "rule", solid=False))
    for i, heading in enumerate(ROWS):
        baseline = y + 20 + i * 17
        pieces.append(Text(heading, 0, baseline, 11, "soft"))
        for stop, middle in zip(band, middles, strict=True):
            pieces.append(Text(_entry(stop, heading), middle, baseline, 11.5, "ink", "middle"))
    return Picture(end, y + 20 + 17 * (len(ROWS) - 1) + 6, tuple(pieces))


def _entry(stop: Stop, heading: str) -> str:
    match heading:
        case "channels":
            return str(stop.shape[0]) if stop.shape else figures.DASH
        case "pixels":
            return size(stop.shape[1:]) if len(stop.shape) > 1 else figures.DASH
        case "parameters":
            return figures.short(stop.params) if stop.params else figures.DASH
    return figures.short(stop.macs) if stop.macs else figures.DASH


def _titles(band: Sequence[Stop], middles: Sequence[float], y: float, pitch: float) -> list[Piece]:
    """Each heading over the stops that it is for."""
    pieces: list[Piece] = []
    i = 0
    for title, run in groupby(band, key=lambda stop: stop.title):
        many = len(list(run))
        left, right = middles[i] - pitch / 2, middles[i + many - 1] + pitch / 2
        shown = cut(title, right - left - 8, size=12, strong=True)
        pieces.append(Text(shown, (left + right) / 2, y, 12, "ink", "middle", strong=True, whole=title))
        if many > 1:
            half = (right - left) / 2 - 16
            reach = 8 + len(shown) * 4.5
            for side in (-1, 1):
                ends = sorted(((left + right) / 2 + side * reach, (left + right) / 2 + side * half))
                pieces.append(Shape(Box(ends[0], y - 4.5, ends[1], y - 3.5), "rule", solid=False))
        i += many
    return pieces


def _few(lines: list[str]) -> list[str]:
    return lines if len(lines) <= LINES else [*lines[: LINES - 1], f"and {len(lines) - LINES + 1} more"]


# Below each other


def _listed(stops: Sequence[Stop], *, width: float, scale: Scale) -> Picture:
    middle, left = 50.0, 112.0
    pieces: list[Piece] = []
    boxes: list[Box] = []
    y = 0.0
    for i, stop in enumerate(stops):
        texts = _beside(stop, left, width - left, repeated=i > 0 and stops[i - 1].title == stop.title)
        high = texts[-1].y + 4
        height, _, depth = scale.block(stop.shape)
        row = max(high, height + depth)
        box = _outline(stop, scale, middle=middle, axis=y + row / 2)
        boxes.append(box)
        pieces += _block(stop, box, scale)
        pieces += [text.moved(0, y + (row - high) / 2) for text in texts]
        y += row + 26
    for before, after in pairwise(boxes):
        pieces.append(Wire(((middle, before.bottom + 3), (middle, after.top - 3))))
    return Picture(width, y - 26, tuple(pieces))


def _beside(stop: Stop, left: float, room: float, *, repeated: bool) -> list[Text]:
    """What stands to the right of a block; a heading is not repeated."""
    texts: list[Text] = []
    y = 10.0
    if not repeated:
        shown = cut(stop.title, room, size=12.5, strong=True)
        texts.append(Text(shown, left, y, 12.5, "ink", strong=True, whole=stop.title))
        y += LEADING + 1
    for line in _few([line for each in stop.lines for line in wrap(each, room, size=12)]):
        texts.append(Text(line, left, y, 12))
        y += LEADING
    known = [size(stop.shape), *([f"{figures.short(stop.params)} parameters"] if stop.params else [])]
    known += [f"{figures.short(stop.macs)} MACs"] if stop.macs else []
    texts += column(listed(known, room, size=11), x=left, y=y, size=11, leading=LEADING - 1, look="soft")
    return texts


# Blocks


def _outline(stop: Stop, scale: Scale, *, middle: float, axis: float) -> Box:
    height, length, depth = scale.block(stop.shape)
    across, down = length + depth, height + depth
    return Box(middle - across / 2, axis - down / 2, middle + across / 2, axis + down / 2)


def _block(stop: Stop, box: Box, scale: Scale) -> list[Piece]:
    """A block in cabinet projection: its front as long as the channels, its height and depth the map's sides."""
    depth = scale.block(stop.shape)[2]
    left, top, right, bottom = box.left, box.top + depth, box.right - depth, box.bottom
    look = f"tint {stop.sort if stop.sort is not Sort.BLOCK else Sort.CONV}"
    told = f"{stop.title}: {size(stop.shape)}"
    lid = ((left, top), (left + depth, top - depth), (right + depth, top - depth), (right, top))
    side = ((right, top), (right + depth, top - depth), (right + depth, bottom - depth), (right, bottom))
    return [
        Shape(box, f"{look} top", points=lid, told=told),
        Shape(box, f"{look} side", points=side, told=told),
        Shape(box, f"{look} front", points=((left, top), (right, top), (right, bottom), (left, bottom)), told=told),
    ]
