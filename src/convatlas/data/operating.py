"""Operations drawn for whole batches of uint8 images, and done: what the policies for photographs and ordinary training share.

The operations themselves are in `convatlas.data.policy_ops`. Those that move pixels are one affine map, by which each image is
sampled once, bilinear and mirrored at its border; the others follow in the order drawn.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from convatlas.data.augment import sent
from convatlas.data.policy_names import OPERATIONS_DRAWN
from convatlas.data.policy_ops import OPERATIONS, PIXEL_OPERATIONS, matrices
from convatlas.errors import unknown_name

_STEPS = 30
_MOVING = torch.tensor([i for i, name in enumerate(OPERATIONS) if name not in PIXEL_OPERATIONS and name != "identity"])


@dataclass(frozen=True)
class Space:
    """How strong operations get at most: `shear` in pixels a pixel, `translate` in shares of the side, `rotate` in degrees,
    `enhance` in what is added to or taken from a factor of 1, `posterize` in bits that are dropped of 8.
    """

    shear: float
    translate: float
    rotate: float
    enhance: float
    posterize: int


WIDE = Space(shear=0.99, translate=32 / 224, rotate=135, enhance=0.99, posterize=6)
"""TrivialAugment's, as its authors' code has it under `wide_standard` (Müller & Hutter 2021, section 3; automl/trivialaugment);
the 32 pixels there are a share of the 224 that photographs have. Images of 32 pixels are moved by that share too, 5 pixels at
most: the authors' 32 would push them out of sight."""
STANDARD = Space(shear=0.3, translate=150 / 331, rotate=30, enhance=0.9, posterize=4)
"""AutoAugment's (Cubuk et al. 2019, its list of operations), which RandAugment keeps (Cubuk et al. 2020, section 3)."""
RAND_OPERATIONS = 2
RAND_MAGNITUDE = (9.0, 1.5)
"""Mean and deviation of RandAugment's strength, of 30. N = 2 and M = 9 are those of Cubuk et al. 2020, section 4.4, for
ResNet-50; the paper does without the noise, which is timm's (0.5 of 10)."""


@dataclass(frozen=True)
class Drawn:
    """What was drawn for N images: places in OPERATIONS, int64 (L, N), one after the other, and their strengths, float32 (L, N),
    in the units of `convatlas.data.policy_ops`.
    """

    operations: Tensor
    strengths: Tensor

    def part(self, first: int, last: int) -> "Drawn":
        """What was drawn for images `first` up to but not including `last`."""
        return Drawn(self.operations[:, first:last], self.strengths[:, first:last])


def draw_operations(n: int, *, augment: str, generator: Generator) -> Drawn | None:
    """Draw for `n` images what "trivial" (TrivialAugment) or "rand" (RandAugment) does with each; None, and nothing, for "none".

    Raises UserError for a name that is none of these.
    """
    if augment not in OPERATIONS_DRAWN:
        known = ", ".join(OPERATIONS_DRAWN)
        raise unknown_name("augmentation", augment, OPERATIONS_DRAWN, where=f"Choose from {known}.")
    if augment == "none":
        return None
    layers = 1 if augment == "trivial" else RAND_OPERATIONS
    operations = torch.randint(0, len(OPERATIONS), (layers, n), generator=generator)
    if augment == "trivial":
        shares = torch.randint(0, _STEPS + 1, (layers, n), generator=generator) / _STEPS
    else:
        mean, deviation = RAND_MAGNITUDE
        shares = (mean + deviation * torch.randn(layers, n, generator=generator)).clamp(0, _STEPS) / _STEPS
    signs = torch.randint(0, 2, (layers, n), generator=generator) * 2 - 1
    space = WIDE if augment == "trivial" else STANDARD
    return Drawn(operations, strengths(operations, shares, signs, space=space))


def strengths(operations: Tensor, shares: Tensor, signs: Tensor, *, space: Space) -> Tensor:
    """What operations (places in OPERATIONS) take, float32, at these shares (0 to 1) of the strongest and signs (-1 or 1).

    All of one shape. Bits and thresholds have no sign; brightness, colour, contrast and sharpness are factors about 1.
    """
    enhancing = ("brightness", "colour", "contrast", "sharpness")
    reach = {"shear x": space.shear, "shear y": space.shear, "translate x": space.translate, "translate y": space.translate}
    reach |= {"rotate": space.rotate} | dict.fromkeys(enhancing, space.enhance)
    most, base = (
        torch.tensor([values.get(name, 0.0) for name in OPERATIONS])[operations]
        for values in (reach, dict.fromkeys(enhancing, 1.0))
    )
    found = base + most * shares * signs
    bits, threshold = 8 - (shares * space.posterize).round(), 255 - 255 * shares
    found = torch.where(operations == OPERATIONS.index("posterize"), bits, found)
    return torch.where(operations == OPERATIONS.index("solarize"), threshold, found)


def moved_by(drawn: Drawn, origins: Tensor) -> Tensor:
    """`origins` float64 (N, 3, 3), where each point of an output comes from, with the operations that move pixels before them."""
    for operations, how_strong in zip(drawn.operations, drawn.strengths, strict=True):
        origins = origins @ matrices(operations, how_strong)
    return origins


def operate(images: Tensor, drawn: Drawn) -> Tensor:
    """What was drawn done to whole `images`, uint8 squares (N, C, side, side), of which the result is a copy."""
    changed = images.clone(memory_format=torch.contiguous_format)  # in which operations are faster
    # The others would be sampled at their own pixels, which takes as long and changes nothing.
    moved = torch.isin(drawn.operations, _MOVING).any(0).nonzero().flatten()
    if len(moved):
        whole = torch.eye(3, dtype=torch.float64).repeat(len(moved), 1, 1)
        origins = moved_by(Drawn(drawn.operations[:, moved], drawn.strengths[:, moved]), whole)
        there = sent(moved, images.device)
        _put_(changed, there, sampled(changed.index_select(0, there), origins, images.shape[-1]))
    recolour_(changed, drawn)
    return changed


def sampled(images: Tensor, origins: Tensor, size: int) -> Tensor:
    """uint8 (N, C, size, size): `images` sampled where `origins` float64 (N, 3, 3) says, bilinear and mirrored at borders."""
    # From shares to the -1 .. 1 of grid_sample, at the middle of each pixel.
    origins = sent((2 * origins).to(torch.float32), images.device)
    middles = (torch.arange(size, device=images.device, dtype=torch.float32) + 0.5) / size
    grid = torch.empty(len(images), size, size, 2, device=images.device)
    for i in (0, 1):
        across, down, offset = origins[:, i].T[..., None, None]
        torch.add(across * middles, down * middles[:, None] + (offset - 1), out=grid[..., i])
    values = F.grid_sample(images.to(torch.float32), grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return values.round_().clamp_(0, 255).to(torch.uint8)


def recolour_(images: Tensor, drawn: Drawn) -> None:
    """Those operations that leave pixels where they are done to `images`, in place, in the order drawn."""
    # Sorted by operation, so that all places and strengths go to a GPU at once, not those of each operation for itself.
    order = drawn.operations.argsort(dim=1, stable=True)
    places, strong = (sent(each, images.device) for each in (order, drawn.strengths.gather(1, order)))
    for layer, operations in enumerate(drawn.operations):
        counts = torch.bincount(operations, minlength=len(OPERATIONS)).tolist()
        parts = zip(OPERATIONS, torch.split(places[layer], counts), torch.split(strong[layer], counts), strict=True)
        for name, chosen, how_strong in parts:
            if name in PIXEL_OPERATIONS and len(chosen):
                _put_(images, chosen, PIXEL_OPERATIONS[name](images.index_select(0, chosen), how_strong))


def _put_(images: Tensor, chosen: Tensor, changed: Tensor) -> None:
    """The `chosen` of `images`, on their device, replaced by `changed`, in place."""
    if images.device.type != "cpu":
        images.index_copy_(0, chosen, changed)
        return
    # On processors index_copy_ goes value by value and takes ten times as long.
    for place, image in zip(chosen.tolist(), changed, strict=True):
        images[place] = image
