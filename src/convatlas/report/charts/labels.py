"""How wide a text is about, and where labels go so that they overlap nothing and are cut nowhere."""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from convatlas.report.plain import plain

_NARROW = frozenset("iIjlft.,:;'|!()[]/ ")
_WIDE = frozenset("mMWw@%—")


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        """Whether the two rectangles share any area."""
        return self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom

    def within(self, other: "Box") -> bool:
        """Whether this rectangle lies wholly in the other."""
        return self.left >= other.left and self.right <= other.right and self.top >= other.top and self.bottom <= other.bottom


def text_width(content: str, size: float) -> float:
    """The width of `content` in a sans-serif face of `size` pixels: an upper estimate, since the reader's font is not known."""
    return size * sum(_advance(each) for each in content)


def _advance(character: str) -> float:
    if unicodedata.combining(character):
        return 0.0
    if unicodedata.east_asian_width(character) in "WF":
        return 1.05
    if character in _NARROW:
        return 0.4
    return 0.95 if character in _WIDE else 0.68 if character.isupper() else 0.63


def shorten(content: str, limit: float, *, size: float) -> str:
    """`content`, or as much of its beginning and its end as fits `limit` pixels with an ellipsis between."""
    content = plain(content)
    if text_width(content, size) <= limit:
        return content
    room = limit - text_width("…", size)
    first = _fitting(content, 0.6 * room, size)
    last = _fitting(content[::-1], room - text_width(content[:first], size), size)
    return f"{content[:first].rstrip()}…{content[len(content) - last :].lstrip()}"


def _fitting(content: str, room: float, size: float) -> int:
    """How many characters of the beginning fit so many pixels."""
    for i, character in enumerate(content):
        room -= text_width(character, size)
        if room < 0:
            return i
    return len(content)


def spread(wanted: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Positions as near to `wanted` as may be, each `gap` from the next, within [low, high]; same order as given.

    Neighbours that are too close form a block that is centred on its members (pool adjacent violators). Where not all fit, the
    last ones leave the range at its end.
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    blocks: list[tuple[float, int]] = []  # mean of (wanted - rank * gap), members
    for rank, index in enumerate(order):
        blocks.append((wanted[index] - rank * gap, 1))
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            (later, many), (earlier, few) = blocks.pop(), blocks.pop()
            blocks.append(((later * many + earlier * few) / (many + few), many + few))
    flat = [value for value, members in blocks for _ in range(members)]
    top = high - (len(wanted) - 1) * gap
    placed = [max(low, min(value, top)) + rank * gap for rank, value in enumerate(flat)]
    positions = [0.0] * len(wanted)
    for rank, index in enumerate(order):
        positions[index] = placed[rank]
    return positions


def place(
    points: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], *, bounds: Box, marks: Sequence[Box] = ()
) -> list[Box | None]:
    """A box of each size near its point, within `bounds`, that meets no other box and no marker (8 pixels around a point).

    Boxes also keep clear of `marks` (whiskers, say) where there is room. None where no room is left at all.
    """
    markers = [Box(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    placed: list[Box | None] = [None] * len(points)
    taken = list(markers)
    for index in sorted(range(len(points)), key=lambda each: points[each]):
        candidates = [box for box in _around(points[index], sizes[index], bounds) if box.within(bounds)]
        free = [box for box in candidates if not any(box.meets(each) for each in taken)]
        best = next((box for box in free if not any(box.meets(each) for each in marks)), free[0] if free else None)
        placed[index] = best
        taken.extend([best] if best else [])
    return placed


def _around(point: tuple[float, float], size: tuple[float, float], bounds: Box) -> Iterable[Box]:
    """Candidates from the nearest outwards, then a grid over the whole of `bounds`, nearest first."""
    (x, y), (width, height) = point, size
    for away in (8.0, 13.0, 20.0, 30.0, 44.0):
        for across, down in ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (-1, -1), (1, 1), (-1, 1)):
            middle = x + across * (away + width / 2) * (1 if down == 0 else 0.8)
            centre = y + down * (away + height / 2)
            yield Box(middle - width / 2, centre - height / 2, middle + width / 2, centre + height / 2)
    grid = [
        Box(left, top, left + width, top + height)
        for left in _steps(bounds.left, bounds.right - width, 12)
        for top in _steps(bounds.top, bounds.bottom - height, 8)
    ]
    yield from sorted(grid, key=lambda box: (box.left + width / 2 - x) ** 2 + (box.top + height / 2 - y) ** 2)


def _steps(low: float, high: float, step: float) -> list[float]:
    return [low + index * step for index in range(max(0, int((high - low) // step) + 1))]
