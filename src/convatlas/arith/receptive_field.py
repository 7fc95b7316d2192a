"""Which pixels of the image a unit of a map can depend on (Araujo, Norris & Sim 2019, "Computing Receptive Fields of CNNs").

Along one axis, unit 0 of a map depends on pixels `start` up to, but not including, `stop`, and every further unit on pixels
that lie `jump` further on. Windows widen this extent, branches unite their extents, and what reads a whole map (global
pooling, a linear layer after flattening, squeeze-and-excitation) sees the whole image. Padding counts: `start` may lie before
the image, and a receptive field may be larger than the image.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

from convatlas.errors import UserError


@dataclass(frozen=True)
class Extent:
    """What the units of a map depend on along one axis: unit i on pixels `start + i * jump` up to `stop + i * jump`, exclusive.

    `jump` is 0 where units share their pixels. From minus infinity to infinity is the whole image, see `WHOLE`.
    """

    start: float
    stop: float
    jump: int

    @property
    def receptive_field(self) -> int | None:
        """Pixels that one unit depends on, first to last; None for the whole image, however large."""
        if self.is_whole:
            return None
        return int(self.stop - self.start) if self.start < self.stop else 0

    @property
    def is_whole(self) -> bool:
        """Whether a unit depends on the whole image."""
        return self.start == -inf and self.stop == inf


PIXELS = Extent(0, 1, 1)
"""The image itself: each of its pixels depends on itself."""
WHOLE = Extent(-inf, inf, 0)
"""The whole image."""
NOTHING = Extent(inf, -inf, 0)
"""No pixel at all: constants, zero padding."""


@dataclass(frozen=True)
class Region:
    """What the units of a map depend on along both axes of the image.

    `least` is what they depend on through the one path that sees least, where paths were joined; None if that is the same.
    """

    rows: Extent
    columns: Extent
    least: "Region | None" = None

    @property
    def receptive_field(self) -> int | None:
        """The larger side of the region, in pixels; None where it spans the whole image."""
        sides = (self.rows.receptive_field, self.columns.receptive_field)
        return None if None in sides else max(side for side in sides if side is not None)

    @property
    def jump(self) -> int:
        """Pixels between neighbouring units, along the axis where they are more."""
        return max(self.rows.jump, self.columns.jump)

    @property
    def larger(self) -> Extent:
        """The extent along the axis where it is larger."""
        return max((self.rows, self.columns), key=lambda extent: extent.stop - extent.start)

    @property
    def start(self) -> int | None:
        """The first pixel that unit 0 depends on, along the larger side; None for the whole image or no pixel at all."""
        return int(self.larger.start) if self.larger.receptive_field else None

    @property
    def through_least(self) -> "Region":
        """What the units depend on through the path that sees least."""
        return self.least or self

    @property
    def size(self) -> tuple[float, float]:
        """How large it is, for comparing: the larger side, then both together."""
        sides = [extent.stop - extent.start for extent in (self.rows, self.columns)]
        return max(sides), sum(sides)


def through_window(extent: Extent, *, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> Extent:
    """The extent after a convolution or pooling along this axis: it grows by dilation * (kernel - 1) * jump.

    A kernel of 1 makes it padding or, with a negative `padding` and a `stride`, a slice.
    """
    reach = dilation * (kernel - 1) - padding
    return Extent(extent.start - padding * extent.jump, extent.stop + reach * extent.jump, extent.jump * stride)


def union(extents: Iterable[Extent]) -> Extent:
    """What a unit depends on that joins units with these extents: from the first pixel of all to the last.

    Raises UserError where their units lie differently far apart, so that no one extent tells what every unit depends on.
    """
    joined = [extent for extent in extents if extent.start < extent.stop]
    jumps = {extent.jump for extent in joined}
    start = min((extent.start for extent in joined), default=inf)
    stop = max((extent.stop for extent in joined), default=-inf)
    result = Extent(start, stop, max(jumps, default=0))
    if len(jumps) > 1 and not (result.is_whole and len(jumps - {0}) == 1):
        apart = " and ".join(str(jump) for jump in sorted(jumps))
        raise UserError(f"maps are joined whose units lie {apart} pixels apart", fix="Join maps of one resolution.")
    return result


def all_units(extent: Extent, *, units: int, pixels: int) -> Extent:
    """What something depends on that reads all `units` of an axis: the whole image if they reach from end to end of its `pixels`.

    They do not where a stride leaves the last pixels out.
    """
    stop = extent.stop + (units - 1) * extent.jump
    return WHOLE if extent.start <= 0 and stop >= pixels else Extent(extent.start, stop, 0)
