"""The operations of augmentation policies, on whole batches: what Pillow does to one picture, to the level.

Images are uint8 (K, C, H, W), grey or RGB, on any device, and so are results; nothing is drawn here. The names and what they mean
are AutoAugment's (Cubuk et al. 2019, its list of operations), which defines them by Pillow's `ImageEnhance` and `ImageOps`. Those
that move pixels are matrices, so that an image is sampled once, however many of them there are.
"""

from collections.abc import Callable

import torch
from torch import Tensor

OPERATIONS = (
    "identity",
    "shear x",
    "shear y",
    "translate x",
    "translate y",
    "rotate",
    "brightness",
    "colour",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
)
"""Draws name an operation by its place here."""
LEVELS = 256


def matrices(operations: Tensor, strengths: Tensor) -> Tensor:
    """Where each point (x, y, 1) of an output comes from in its input, float64 (N, 3, 3); 1 is the side, (0, 0) the corner.

    `operations` int64 (N,) are places in OPERATIONS, of which those that do not move pixels give the unit matrix. `strengths`
    (N,) are pixels across for each down (or down for each across) of a shear about the corner, shares of the side that a
    translation moves, or degrees that a rotation about the middle turns counter-clockwise, each as Pillow's `transform` and
    `rotate` take them.
    """
    shear_x, shear_y, translate_x, translate_y, degrees = (
        torch.where(operations == OPERATIONS.index(name), strengths.double(), 0.0)
        for name in ("shear x", "shear y", "translate x", "translate y", "rotate")
    )
    angle = torch.deg2rad(degrees)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    found = torch.eye(3, dtype=torch.float64).repeat(len(operations), 1, 1)
    # At most one of them is not zero, so that their sum does what it alone would.
    found[:, 0, 0], found[:, 1, 1] = cosine, cosine
    found[:, 0, 1], found[:, 1, 0] = shear_x - sine, shear_y + sine
    found[:, 0, 2] = translate_x + (1 - cosine + sine) / 2
    found[:, 1, 2] = translate_y + (1 - cosine - sine) / 2
    return found


def grey(images: Tensor) -> Tensor:
    """The luma of RGB as Pillow's mode L has it (ITU-R 601-2 in 16 bits), uint8 (K, 1, H, W); grey images as they are."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.to(torch.int32).unbind(1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).to(torch.uint8)[:, None]


def brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Blended with black: a factor (K,) of 0 is black, 1 the image, 2 twice as bright (`ImageEnhance.Brightness`)."""
    return _blended(torch.zeros_like(images[:, :1, :1, :1]), images, factors)


def colour(images: Tensor, factors: Tensor) -> Tensor:
    """Blended with their grey: a factor (K,) of 0 is grey, 1 the image (`ImageEnhance.Color`). Grey images stay as they are."""
    return images if images.shape[1] == 1 else _blended(grey(images), images, factors)


def contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Blended with their mean grey level: a factor (K,) of 0 is that level, 1 the image (`ImageEnhance.Contrast`)."""
    sums = grey(images).sum((1, 2, 3), dtype=torch.int64)
    area = images.shape[2] * images.shape[3]
    # The mean rounded half up, in integers.
    means = (2 * sums + area) // (2 * area)
    return _blended(means.to(torch.uint8).view(-1, 1, 1, 1), images, factors)


def sharpness(images: Tensor, factors: Tensor) -> Tensor:
    """Blended with themselves smoothed: a factor (K,) of 0 is smooth, 1 the image, 2 sharp (`ImageEnhance.Sharpness`)."""
    return _blended(_smooth(images), images, factors)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """The highest `bits` (K,), 1 to 8, of each value kept (`ImageOps.posterize`)."""
    masks = (LEVELS - torch.pow(2, 8 - bits.to(torch.int64))).to(torch.uint8)
    return images & masks.view(-1, 1, 1, 1)


def solarize(images: Tensor, thresholds: Tensor) -> Tensor:
    """Values from the threshold (K,), 0 to 255, on are inverted (`ImageOps.solarize`)."""
    inverted = images >= thresholds.ceil().to(torch.uint8).view(-1, 1, 1, 1)
    return images ^ (inverted.to(torch.uint8) * (LEVELS - 1))


def autocontrast(images: Tensor, strengths: Tensor) -> Tensor:
    """Each channel stretched so that its lowest value becomes 0 and its highest 255 (`ImageOps.autocontrast`); no strength."""
    low, high = (extreme((2, 3)).to(torch.float64)[..., None] for extreme in (images.amin, images.amax))
    levels = torch.arange(LEVELS, dtype=torch.float64, device=images.device)
    # A number by a tensor would be its inverse times the number, and that may end a level lower.
    scale = levels[-1] / (high - low).clamp(min=1)
    stretched = (levels * scale - low * scale).clamp(0, LEVELS - 1).floor()
    return _looked_up(images, torch.where(high > low, stretched, levels))


def equalize(images: Tensor, strengths: Tensor) -> Tensor:
    """Each channel with all grey levels about equally frequent (`ImageOps.equalize`); no strength."""
    counts = _histograms(images)
    levels = torch.arange(LEVELS, device=images.device)
    last = torch.where(counts > 0, levels, -1).amax(2, keepdim=True)
    step = (counts.sum(2, keepdim=True) - counts.gather(2, last)) // (LEVELS - 1)
    below = counts.cumsum(2) - counts
    spread = ((step // 2 + below) // step.clamp(min=1)).clamp(max=LEVELS - 1)
    return _looked_up(images, torch.where(step > 0, spread, levels))


PIXEL_OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": brightness,
    "colour": colour,
    "contrast": contrast,
    "sharpness": sharpness,
    "posterize": posterize,
    "solarize": solarize,
    "autocontrast": autocontrast,
    "equalize": equalize,
}
"""Those that leave pixels where they are: each takes images and their strengths (K,)."""


def _blended(degenerate: Tensor, images: Tensor, factors: Tensor) -> Tensor:
    """`degenerate`, as it is without the image's own, plus `factors` (K,) of what the image has beyond; cut off, not rounded."""
    base = degenerate.to(torch.float32)
    blended = (images.to(torch.float32) - base).mul_(factors.to(torch.float32).view(-1, 1, 1, 1)).add_(base)
    return blended.clamp_(0, LEVELS - 1).to(torch.uint8)


def _smooth(images: Tensor) -> Tensor:
    """Pillow's SMOOTH: a pixel five times and its eight neighbours once, by 13; the outermost pixels stay as they are."""
    values = images.to(torch.int16)
    rows = values[:, :, :-2] + values[:, :, 1:-1] + values[:, :, 2:]
    sums = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * values[:, :, 1:-1, 1:-1]
    smooth = images.clone()
    # No sum of integers by 13 ends in one half.
    smooth[:, :, 1:-1, 1:-1] = ((sums + 6) // 13).to(torch.uint8)
    return smooth


def _histograms(images: Tensor) -> Tensor:
    """How often each channel has each level, int64 (K, C, 256)."""
    planes = images.shape[0] * images.shape[1]
    begins = torch.arange(planes, device=images.device)[:, None] * LEVELS
    places = (images.reshape(planes, -1).to(torch.int64) + begins).flatten()
    # bincount would ask a GPU for the largest place, and wait for the answer.
    counts = torch.zeros(planes * LEVELS, dtype=torch.int64, device=images.device)
    return counts.scatter_add_(0, places, torch.ones_like(places)).view(*images.shape[:2], LEVELS)


def _looked_up(images: Tensor, table: Tensor) -> Tensor:
    """Each value replaced by what its channel's `table` (K, C, 256) has for it."""
    places = images.flatten(2).to(torch.int64)
    return table.to(torch.uint8).gather(2, places).view(images.shape)
