"""How alike two pictures are once one is laid over the other: the measure by which near duplicates are judged.

A copy that was cut or scaled anew shows the same detail elsewhere. So the second picture is moved and scaled, each axis by
itself, to where it correlates best with the first (the enhanced correlation coefficient of Evangelidis & Psarakis 2008, by
Gauss-Newton steps), and only then are they compared. Compared is fine detail alone, each place relative to the contrast around
it: two skies, or two dark shapes on white, are alike in the large without being copies. Brightness and contrast cancel out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

SIDE = 32
"""All pictures are compared at so many pixels a side."""
SCALES = (0.7, 1.4)
"""How far a copy's size may differ, along each axis."""
MOST_SHIFT = 0.35
"""How far a copy may be moved, as a share of half its side."""
_LEAST_OVERLAP = 0.5
# Half a grey level's detail is noise of the format, and counts little.
_NOISE = 0.005
_DAMPING = 0.05
_LONGEST_STEP = 0.1


@dataclass(frozen=True)
class Placing:
    """Where each of N second pictures lies over its first: `scale` and `shift` (N, 2), rows above columns; 1 is half a side."""

    scale: Tensor
    shift: Tensor

    def part(self, chosen: Tensor) -> "Placing":
        """The placings of the `chosen` pairs."""
        return Placing(self.scale[chosen], self.shift[chosen])


def unmoved(n: int) -> Placing:
    """The placing of `n` pairs before anything was moved."""
    return Placing(torch.ones(n, 2), torch.zeros(n, 2))


def align(first: Tensor, second: Tensor, start: Placing, *, steps: int, smooth: float) -> Placing:
    """`start` after so many `steps`, on grey pictures (N, S, S) that are smoothed by `smooth` pixels before."""
    first, second = blurred(first, smooth), blurred(second, smooth)
    scale, shift = start.scale, start.shift
    for _ in range(steps):
        change = _step(first, second, Placing(scale, shift))
        scale = (scale + change[:, :2]).clamp(*SCALES)
        shift = (shift + change[:, 2:]).clamp(-MOST_SHIFT, MOST_SHIFT)
    return Placing(scale, shift)


def likeness(first: Tensor, second: Tensor, placing: Placing) -> Tensor:
    """The correlation of fine detail (N,) of grey pictures (N, S, S) in 0..1 so placed; 0 if less than half of them overlaps."""
    size = first.shape[-1]
    # Smoothing in proportion, so that pictures of 16 pixels are judged as those of 32.
    fine, around = size / 64, size / 16
    moved, mask = _moved(blurred(second, fine), placing)
    alike = _correlation(_detail(blurred(first, fine), around), _detail(moved, around), mask)
    return torch.where(mask.mean((1, 2)) >= _LEAST_OVERLAP, alike, torch.zeros_like(alike))


def blurred(pictures: Tensor, deviation: float) -> Tensor:
    """Grey pictures (N, S, S) smoothed by a Gaussian of `deviation` pixels, the border repeated beyond the border."""
    kernel = _blur_matrix(pictures.shape[-1], deviation)
    return kernel @ pictures @ kernel.T


def _blur_matrix(size: int, deviation: float) -> Tensor:
    reach = max(1, round(3 * deviation))
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-((offsets / deviation) ** 2) / 2)
    sources = (torch.arange(size)[:, None] + offsets).clamp(0, size - 1)
    matrix = torch.zeros(size, size)
    return matrix.scatter_add_(1, sources, (weights / weights.sum()).expand(size, -1).contiguous())


def _detail(pictures: Tensor, around: float) -> Tensor:
    """What differs from the neighbourhood of `around` pixels, by how much that varies."""
    rest = pictures - blurred(pictures, around)
    return rest / (blurred(rest.square(), around).clamp_min(0).sqrt() + _NOISE)


def _places(placing: Placing, axis: int, size: int) -> tuple[Tensor, Tensor]:
    """Which place of the second picture lies under each of the first's, in pixels (N, S), and whether there is any."""
    middle = (size - 1) / 2
    along = (torch.arange(size) - middle) / (size / 2)
    places = middle + size / 2 * (placing.scale[:, axis, None] * along + placing.shift[:, axis, None])
    return places, ((places >= 0) & (places <= size - 1)).float()


def _weights(places: Tensor, size: int) -> Tensor:
    """Linear interpolation at `places` (N, S) as matrices (N, S, S)."""
    inside = places.clamp(0, size - 1)
    return (1 - (inside[:, :, None] - torch.arange(size)).abs()).clamp_min(0)


def _moved(pictures: Tensor, placing: Placing) -> tuple[Tensor, Tensor]:
    """The pictures as placed, and a mask that is 1 where they have pixels."""
    size = pictures.shape[-1]
    (rows, in_rows), (columns, in_columns) = (_places(placing, axis, size) for axis in (0, 1))
    moved = _weights(rows, size) @ pictures @ _weights(columns, size).transpose(1, 2)
    return moved, in_rows[:, :, None] * in_columns[:, None, :]


def _step(first: Tensor, second: Tensor, placing: Placing) -> Tensor:
    """How scale and shift (N, 4) should change for a higher correlation."""
    size = first.shape[-1]
    (rows, in_rows), (columns, in_columns) = (_places(placing, axis, size) for axis in (0, 1))
    mask = (in_rows[:, :, None] * in_columns[:, None, :]).flatten(1)
    down, slope_down = _weights(rows, size), _weights(rows + 1, size) - _weights(rows - 1, size)
    across, slope_across = _weights(columns, size), _weights(columns + 1, size) - _weights(columns - 1, size)
    half = second @ across.transpose(1, 2)
    there = (down @ half).flatten(1)
    by_row, by_column = slope_down @ half, down @ (second @ slope_across.transpose(1, 2))
    along = (torch.arange(size) - (size - 1) / 2) / (size / 2)
    centred = _centred(there, mask)
    length: Tensor = torch.linalg.vector_norm(centred, dim=1, keepdim=True) + 1e-6
    slopes = torch.stack([by_row * along[:, None], by_column * along, by_row, by_column], 1).flatten(2)
    known = torch.stack([centred / length, _normalised(_centred(first.flatten(1), mask)), mask], 1)
    vectors = torch.cat([slopes * mask[:, None], known], 1)
    return _solved(vectors @ vectors.transpose(1, 2), size / 4 / length)


def _solved(products: Tensor, unit: Tensor) -> Tensor:
    """The Gauss-Newton step (N, 4) from inner products (N, 7, 7): of four slopes, the picture, what it should be, and the mask.

    A slope is taken less its mean and less what only changes the contrast. `unit` (N, 1) is what slopes are to be multiplied by.
    """
    square, by_picture, by_wanted, means = products[:, :4, :4], products[:, :4, 4], products[:, :4, 5], products[:, :4, 6]
    pixels = products[:, 6, 6, None].clamp_min(1)
    square = square - means[:, :, None] * (means / pixels)[:, None] - by_picture[:, :, None] * by_picture[:, None]
    square = square * unit[:, :, None].square()
    wanted = (by_wanted - by_picture * products[:, 4, 5, None]) * unit
    damping = torch.diag_embed(_DAMPING * square.diagonal(dim1=1, dim2=2) + 1e-4)
    step: Tensor = torch.linalg.solve(square + damping, wanted)
    return step.clamp(-_LONGEST_STEP, _LONGEST_STEP)


def _correlation(first: Tensor, second: Tensor, mask: Tensor) -> Tensor:
    masked = mask.flatten(1)
    one, other = (_normalised(_centred(each.flatten(1), masked)) for each in (first, second))
    return (one * other).sum(1)


def _centred(values: Tensor, mask: Tensor) -> Tensor:
    """Values less their mean where the mask is 1, and 0 elsewhere; the last dimension is that of pixels."""
    mean = (values * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp_min(1)
    return (values - mean) * mask


def _normalised(values: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
    return values / (length + 1e-6)
