"""Augmentation of whole batches (N, C, H, W), uint8 or float. Each function draws from the generator it is given, only."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


def flip(images: Tensor, *, generator: Generator) -> Tensor:
    """Each image mirrored left to right with probability 1/2."""
    mirrored = torch.rand(images.shape[0], generator=generator) < 0.5
    return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)


def shifted_crop(images: Tensor, padding: int, *, generator: Generator) -> Tensor:
    """Each image moved by up to `padding` pixels along both axes; zeros move in.

    The same as padding by `padding` and cropping at random to the old size (Krizhevsky 2009; He et al. 2016, section 4.2).
    """
    if padding == 0:
        return images
    n, _, height, width = images.shape
    dy, dx = torch.randint(0, 2 * padding + 1, (2, n), generator=generator)
    padded = F.pad(images, (padding, padding, padding, padding))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(n), :, dy, dx]


def cutout(images: Tensor, side: int, *, generator: Generator) -> Tensor:
    """A square of `side` pixels set to zero in each image; its centre is any pixel, so it may reach over the border.

    On normalised images zero is the mean, as in DeVries & Taylor 2017, "Improved Regularization ... with Cutout", section 3.2.
    """
    if side == 0:
        return images
    n, _, height, width = images.shape
    top = torch.randint(0, height, (n, 1), generator=generator) - side // 2
    left = torch.randint(0, width, (n, 1), generator=generator) - side // 2
    rows, columns = torch.arange(height), torch.arange(width)
    in_rows = (rows >= top) & (rows < top + side)
    in_columns = (columns >= left) & (columns < left + side)
    # Blanked in place on a copy, which keeps the memory format; masked_fill would not.
    return images.clone().masked_fill_((in_rows[:, :, None] & in_columns[:, None, :])[:, None], 0)


def normalise(
    images: Tensor, *, mean: tuple[float, ...], std: tuple[float, ...], dtype: torch.dtype, memory_format: torch.memory_format
) -> Tensor:
    """uint8 `images` as (x / 255 - mean) / std in `dtype` and `memory_format`; computed in float32 as one fused multiply-add."""
    scale = torch.tensor([1 / (255 * deviation) for deviation in std]).view(1, -1, 1, 1)
    shift = torch.tensor([-centre / deviation for centre, deviation in zip(mean, std, strict=True)]).view(1, -1, 1, 1)
    values = images.to(torch.float32, memory_format=memory_format)
    return torch.addcmul(shift, values, scale).to(dtype, memory_format=memory_format)
