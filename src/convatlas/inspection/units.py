"""What each unit of a tensor depends on, while tensors are turned, cut, joined and mixed.

Units that differ in row or column only depend on regions that lie some jumps apart. Channels may depend on different regions:
those of the branches that were concatenated.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from convatlas.arith.receptive_field import NOTHING, PIXELS, WHOLE, Extent, Region, all_units, through_window, union
from convatlas.inspection.axes import (
    COLUMNS,
    ROWS,
    Axis,
    Factor,
    NotFollowedError,
    broadcast_axis,
    dealt_out,
    length,
    only_side,
    plain,
    plain_length,
    plain_lengths,
    put,
    sides,
)

NOWHERE = Region(NOTHING, NOTHING)
EVERYWHERE = Region(WHOLE, WHOLE)


@dataclass(frozen=True, eq=False)
class Units:
    """What the units of a tensor depend on.

    `axes` are the tensor's. `which` has as many, each as long as it would be without rows and columns, and holds indices into
    `regions`: the region of the unit in the first row and column. `image` is (H, W) in pixels.
    """

    axes: tuple[Axis, ...]
    regions: tuple[Region, ...]
    which: Tensor
    image: tuple[int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return tuple(length(axis) for axis in self.axes)

    @property
    def sees_all(self) -> bool:
        """Whether every unit depends on the whole image."""
        return all(region.rows.is_whole and region.columns.is_whole for region in self.regions)

    @property
    def all_whole(self) -> bool:
        """Whether every unit sees the whole image: what reads whole maps, and the only unit of a map that reaches so far."""
        counts = {factor.side: factor.size for axis in self.axes for factor in axis if factor.side is not None}
        return all(
            extent.is_whole or (counts.get(side) == 1 and extent.start <= 0 and extent.stop >= self.image[side])
            for region in self.regions
            for side, extent in ((ROWS, region.rows), (COLUMNS, region.columns))
        )

    @property
    def has_positions(self) -> bool:
        """Whether the tensor has rows and columns of units."""
        return {side for axis in self.axes for side in sides(axis)} == {ROWS, COLUMNS}

    def same(self, other: "Units") -> bool:
        """Whether both say the same."""
        return (self.axes, self.regions) == (other.axes, other.regions) and torch.equal(self.which, other.which)


def image_units(shape: Sequence[int]) -> Units:
    """The units of an image (1, C, H, W): each pixel depends on itself."""
    images, channels, height, width = shape
    axes = (plain(images), plain(channels), (Factor(height, ROWS),), (Factor(width, COLUMNS),))
    which = torch.zeros((images, channels, 1, 1), dtype=torch.long, device="cpu")
    return Units(axes, (Region(PIXELS, PIXELS),), which, (height, width))


def alike(shape: Sequence[int], region: Region, image: tuple[int, int]) -> Units:
    """A tensor whose units all depend on one region: EVERYWHERE or NOWHERE."""
    return Units(
        tuple(plain(size) for size in shape), (region,), torch.zeros(tuple(shape), dtype=torch.long, device="cpu"), image
    )


# Turned


def reshaped(units: Units, shape: Sequence[int]) -> Units:
    """The same units in the same order, in another shape."""
    axes = dealt_out(units.axes, shape)
    return replace(units, axes=axes, which=units.which.reshape(plain_lengths(axes)))


def permuted(units: Units, order: Sequence[int]) -> Units:
    """The axes in another order."""
    return replace(units, axes=tuple(units.axes[i] for i in order), which=units.which.permute(*order))


def unsqueezed(units: Units, i: int) -> Units:
    """A new axis of length 1 at place `i`."""
    return replace(units, axes=(*units.axes[:i], (), *units.axes[i:]), which=units.which.unsqueeze(i))


def squeezed(units: Units, axes: Iterable[int]) -> Units:
    """Without these axes, which have length 1."""
    gone = set(axes)
    units = collapsed(units, gone)
    kept = [i for i in range(len(units.axes)) if i not in gone]
    which = units.which.reshape([units.which.shape[i] for i in kept])
    return replace(units, axes=tuple(units.axes[i] for i in kept), which=which)


def broadcast(units: Units, axes: Sequence[Axis]) -> Units:
    """Repeated, as broadcasting does, over a tensor with these axes."""
    for _ in range(len(axes) - len(units.axes)):
        units = unsqueezed(units, 0)
    for i, axis in enumerate(axes):
        if units.axes[i] != axis:
            units = _fitted(units, i, axis)
    return units


def _fitted(units: Units, i: int, axis: Axis) -> Units:
    """Axis `i` made into `axis`: it has one unit, or units that all depend on the same, wherever they are."""
    if sides(units.axes[i]):
        if length(units.axes[i]) > 1:
            raise NotFollowedError("maps are joined whose rows or columns lie on different axes")
        units = collapsed(units, [i])
    first = units.which.narrow(i, 0, 1)
    if not torch.equal(first.expand_as(units.which), units.which):
        raise NotFollowedError("maps are joined of which only one has rows and columns")
    which = first.expand([plain_length(axis) if k == i else -1 for k in range(len(units.axes))])
    return replace(units, axes=put(units.axes, i, axis), which=which)


# Cut and slid over


def windowed(units: Units, i: int, *, kernel: int, stride: int, padding: int, dilation: int, size: int) -> Units:
    """Axis `i` after a window has slid over it, which leaves `size` units."""
    if (kernel, stride, padding, size) == (1, 1, 0, length(units.axes[i])):
        return units
    side = only_side(units.axes[i])
    if side is not None:
        window = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
        units = _along(units, side, lambda extent: through_window(extent, **window))
        return replace(units, axes=put(units.axes, i, (Factor(size, side),)))
    if sides(units.axes[i]) or dilation != 1:
        raise NotFollowedError("a window slides over an axis that holds more than rows or columns")
    units = padded(units, i, before=padding, after=padding)
    members = units.which.unfold(i, kernel, stride)
    if members.shape[i] != size:
        raise NotFollowedError("a window slides over channels and beyond their end")
    return _united(replace(units, axes=put(units.axes, i, plain(size))), members)


def padded(units: Units, i: int, *, before: int, after: int) -> Units:
    """Axis `i` with units before and after it that depend on nothing; negative numbers cut off."""
    size = length(units.axes[i]) + before + after
    if only_side(units.axes[i]) is not None:
        return windowed(units, i, kernel=1, stride=1, padding=before, dilation=1, size=size)
    if before < 0 or after < 0:
        kept = length(units.axes[i]) + min(before, 0) + min(after, 0)
        units = cut(units, i, start=max(-before, 0), step=1, size=kept)
    ones = [1] * len(units.axes)
    pads = [alike([*ones[:i], pad, *ones[i + 1 :]], NOWHERE, units.image) if pad > 0 else None for pad in (before, after)]
    parts = [part for part in (pads[0], units, pads[1]) if part is not None]
    return concatenated(parts, i) if len(parts) > 1 else units


def cut(units: Units, i: int, *, start: int, step: int, size: int) -> Units:
    """`size` units of axis `i`: every `step`-th from `start` on."""
    side = only_side(units.axes[i])
    if side is not None:
        return windowed(units, i, kernel=1, stride=step, padding=-start, dilation=1, size=size)
    return picked(units, i, torch.arange(start, start + size * step, step, device="cpu"))


def picked(units: Units, i: int, places: Tensor) -> Units:
    """The units of axis `i` at these places, one after the other."""
    if sides(units.axes[i]):
        raise NotFollowedError("units are picked from an axis that holds rows or columns")
    axes = put(units.axes, i, plain(len(places)))
    return _tidy(replace(units, axes=axes, which=units.which.index_select(i, places)))


# Joined and mixed


def joined(parts: Sequence[Units]) -> Units:
    """What depends on all of these, unit by unit, after broadcasting."""
    if len(parts) == 1:
        return parts[0]
    rank = max(len(part.axes) for part in parts)
    aligned = [((),) * (rank - len(part.axes)) + part.axes for part in parts]
    axes = tuple(broadcast_axis(candidates) for candidates in zip(*aligned, strict=True))
    pooled = _pooled([broadcast(part, axes) for part in parts])
    return _checked(_united(replace(pooled[0], axes=axes), torch.stack([part.which for part in pooled], dim=-1)))


def concatenated(parts: Sequence[Units], i: int) -> Units:
    """The units one after the other along axis `i`."""
    if any(sides(part.axes[i]) for part in parts):
        raise NotFollowedError("maps are joined along their rows or columns")
    axes = tuple(broadcast_axis(candidates) for candidates in zip(*(part.axes for part in parts), strict=True))
    pooled = _pooled([broadcast(part, put(axes, i, part.axes[i])) for part in parts])
    axes = put(axes, i, plain(sum(length(part.axes[i]) for part in parts)))
    return _checked(_tidy(replace(pooled[0], axes=axes, which=torch.cat([part.which for part in pooled], dim=i))))


def collapsed(units: Units, axes: Iterable[int]) -> Units:
    """One unit on each of these axes, which depends on all that were there."""
    for i in axes:
        for factor in units.axes[i]:
            if factor.side is not None:
                units = _read(units, factor.side, factor.size)
        members = units.which.unsqueeze(-1).transpose(i, -1)
        units = _united(replace(units, axes=put(units.axes, i, ())), members)
    return units


def mixed(units: Units, i: int, size: int, *, groups: int = 1) -> Units:
    """`size` units on axis `i`, each of which depends on all units of its group there."""
    if groups == 1:
        units = collapsed(units, [i])
        return broadcast(units, put(units.axes, i, plain(size)))
    if sides(units.axes[i]):
        raise NotFollowedError("groups of channels are mixed on an axis that holds rows or columns")
    shape = units.which.shape
    members = units.which.reshape(*shape[:i], groups, -1, *shape[i + 1 :]).movedim(i + 1, -1)
    units = _united(replace(units, axes=put(units.axes, i, plain(size))), members)
    return replace(units, which=units.which.repeat_interleave(size // groups, dim=i))


def in_bins(units: Units, i: int, size: int) -> Units:
    """Axis `i` after adaptive pooling to `size` units. If their windows are not all alike, each unit has a region of its own."""
    before = length(units.axes[i])
    if size == 1:
        return collapsed(units, [i])
    if before % size == 0:
        window = before // size
        return windowed(units, i, kernel=window, stride=window, padding=0, dilation=1, size=size)
    bounds = [(k * before // size, -(-(k + 1) * before // size)) for k in range(size)]
    bins = [cut(units, i, start=start, step=1, size=stop - start) for start, stop in bounds]
    return concatenated([collapsed(each, [i]) for each in bins], i)


def _along(units: Units, side: int, change: Callable[[Extent], Extent]) -> Units:
    """The extents along one side changed."""
    return _tidy(replace(units, regions=tuple(_changed(region, side, change) for region in units.regions)))


def _changed(region: Region, side: int, change: Callable[[Extent], Extent]) -> Region:
    """A region, and that of its least path, with the extents along one side changed."""
    rows = change(region.rows) if side == ROWS else region.rows
    columns = change(region.columns) if side == COLUMNS else region.columns
    least = None if region.least is None else _changed(region.least, side, change)
    return Region(rows, columns, None if least == Region(rows, columns) else least)


def _read(units: Units, side: int, count: int) -> Units:
    """What depends on all `count` rows or columns."""
    return _along(units, side, lambda extent: all_units(extent, units=count, pixels=units.image[side]))


def _pooled(parts: Sequence[Units]) -> list[Units]:
    """The parts with one table of regions for all."""
    regions = tuple(region for part in parts for region in part.regions)
    pooled, before = [], 0
    for part in parts:
        pooled.append(replace(part, regions=regions, which=part.which + before))
        before += len(part.regions)
    return pooled


def _united(units: Units, members: Tensor) -> Units:
    """Units each of which depends on several regions: `members` is like `which`, with one more axis for them."""
    if len(set(units.regions)) == 1:
        return replace(units, regions=units.regions[:1], which=torch.zeros_like(members[..., 0]))
    rows = members.flatten(0, -2)
    if torch.equal(rows, rows[:1].expand_as(rows)):
        whole = _union([units.regions[i] for i in set(rows[0].tolist())], units.image)
        return replace(units, regions=(whole,), which=torch.zeros_like(members[..., 0]))
    sets, which = torch.unique(rows, dim=0, return_inverse=True)
    unions = tuple(_union([units.regions[i] for i in set(row)], units.image) for row in sets.tolist())
    return _tidy(replace(units, regions=unions, which=which.reshape(members.shape[:-1])))


def _union(regions: Sequence[Region], image: tuple[int, int]) -> Region:
    """All the regions as one, and the least of their least paths. What sees no pixel is no path."""
    whole = _settled(union(region.rows for region in regions), union(region.columns for region in regions), image)
    paths = [path for region in regions if (path := region.through_least).size[0] > 0]
    least = min(paths, key=lambda path: path.size, default=whole)
    least = _settled(least.rows, least.columns, image)
    return whole if least == whole else replace(whole, least=least)


def _settled(rows: Extent, columns: Extent, image: tuple[int, int]) -> Region:
    """The region of these extents. What does not move and reaches from end to end is the whole image."""
    height, width = image
    return Region(
        rows if rows.jump else all_units(rows, units=1, pixels=height),
        columns if columns.jump else all_units(columns, units=1, pixels=width),
    )


def _tidy(units: Units) -> Units:
    """Regions that are used, each once."""
    if len(units.regions) == 1:
        return units
    table: dict[Region, int] = {}
    places = torch.zeros(len(units.regions), dtype=torch.long, device="cpu")
    for i in torch.unique(units.which).tolist():
        places[i] = table.setdefault(units.regions[i], len(table))
    return replace(units, regions=tuple(table), which=places[units.which])


def _checked(units: Units) -> Units:
    """The units, if they can be told by one pair of rows and columns, in which all channels move alike."""
    found = [side for axis in units.axes for side in sides(axis)]
    if len(found) != len(set(found)):
        raise NotFollowedError("maps are joined whose rows or columns lie on different axes")
    for extents in ([region.rows for region in units.regions], [region.columns for region in units.regions]):
        jumps = {extent.jump for extent in extents if extent.jump}
        if len(jumps) > 1:
            raise NotFollowedError(f"maps are joined whose units lie {' and '.join(map(str, sorted(jumps)))} pixels apart")
    return units
