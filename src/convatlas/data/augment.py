"""Augmentation of whole batches (N, C, H, W), on any device and in either memory format.

What chance decides is drawn first, for a whole batch and on the CPU (`draw`); the other functions do what was drawn and draw
nothing. So a batch is the same on every device, and a part of it is made without the rest.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Generator, Tensor

FILLS = ("zeros", "reflect")
"""What a shifted crop moves in: zeros, or the image mirrored at its outermost pixels (which are not repeated)."""


@dataclass(frozen=True)
class Draws:
    """What chance decided for N images; None where that is not done.

    `mirrored` is bool (N,); `shift`, where each is cut out of its frame, and `centre`, where its cutout lies, are int64 (2, N)
    in pixels, rows above columns.
    """

    mirrored: Tensor | None
    shift: Tensor | None
    centre: Tensor | None

    def part(self, first: int, last: int) -> "Draws":
        """What was drawn for images `first` up to but not including `last`."""
        mirrored, shift, centre = (
            None if drawn is None else drawn[..., first:last] for drawn in (self.mirrored, self.shift, self.centre)
        )
        return Draws(mirrored, shift, centre)


def sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """`tensor` on `device`, as all that is drawn gets there: the copy does not wait for what a GPU has still to compute.

    So batches are made while the GPU is busy with those before. The values are taken before this returns.
    """
    return tensor.to(device, non_blocking=True)


def draw(n: int, *, size: tuple[int, int], flip: bool, crop: int, cutout: int, generator: Generator) -> Draws:
    """Draw for `n` images of `size` (H, W) pixels: mirrored with probability 1/2, moved by up to `crop` pixels, blanked anywhere.

    What is left out (False or 0) takes no numbers from the generator.
    """
    mirrored = torch.rand(n, generator=generator) < 0.5 if flip else None
    shift = torch.randint(0, 2 * crop + 1, (2, n), generator=generator) if crop else None
    centre = torch.cat([torch.randint(0, side, (1, n), generator=generator) for side in size]) if cutout else None
    return Draws(mirrored, shift, centre)


def mirror_(images: Tensor, mirrored: Tensor) -> Tensor:
    """Those of `images` for which `mirrored` (N,) is true are mirrored left to right, in place."""
    chosen = sent(mirrored.nonzero().flatten(), images.device)
    stored, across = (images.permute(0, 2, 3, 1), 2) if _channels_last(images) else (images, 3)
    flipped = stored.index_select(0, chosen).flip(across)
    if _in_words(stored):  # pixel by pixel, copying takes three times as long
        stored, flipped = (each.flatten(1).view(torch.int64) for each in (stored, flipped))
    stored.index_copy_(0, chosen, flipped)
    return images


def _in_words(images: Tensor) -> bool:
    """Whether each of the images lies in memory as whole words of eight bytes."""
    numbers = prod(images.shape[1:]), images.storage_offset()
    return images.is_contiguous() and all(number * images.element_size() % 8 == 0 for number in numbers)


def shifted_crop(images: Tensor, padding: int, *, shift: Tensor, fill: str = "zeros") -> Tensor:
    """Each image framed by `padding` pixels of `fill`, and cut to its old size `shift` (2, N) pixels from the corner.

    (Krizhevsky 2009; He et al. 2016, section 4.2.) Each image is copied once, row by row, out of the frame: a view whose first
    dimension is the place in memory at which an image begins makes that one `index_select`.
    """
    frame = _framed(images, padding, fill)
    dims = (2, 3, 1) if _channels_last(images) else (1, 2, 3)
    extents, strides = ([size[dim] for dim in dims] for size in (images.shape, frame.stride()))
    beyond = sum((extent - 1) * stride for extent, stride in zip(extents, strides, strict=True))
    windows = frame.as_strided((frame.numel() - beyond, *extents), (1, *strides))
    begins = torch.arange(len(images)) * frame.stride(0) + shift[0] * frame.stride(2) + shift[1] * frame.stride(3)
    cut = windows.index_select(0, sent(begins, images.device))
    return cut.permute(0, 3, 1, 2) if _channels_last(images) else cut


def _framed(images: Tensor, padding: int, fill: str) -> Tensor:
    """The images with `padding` pixels more on all four sides, in the memory format they have."""
    n, channels, height, width = images.shape
    extents = (n, channels, height + 2 * padding, width + 2 * padding)
    layout = torch.channels_last if _channels_last(images) else torch.contiguous_format
    frame = torch.empty(extents, dtype=images.dtype, device=images.device, memory_format=layout).zero_()
    frame.narrow(2, padding, height).narrow(3, padding, width).copy_(images)
    if fill == "reflect":
        for dim, extent in ((3, width), (2, height)):
            frame.narrow(dim, 0, padding).copy_(frame.narrow(dim, padding + 1, padding).flip(dim))
            frame.narrow(dim, padding + extent, padding).copy_(frame.narrow(dim, extent - 1, padding).flip(dim))
    return frame


def _channels_last(images: Tensor) -> bool:
    """Whether the channels of a pixel lie side by side in memory."""
    return images.is_contiguous(memory_format=torch.channels_last)


def blank(images: Tensor, side: int, *, centre: Tensor) -> Tensor:
    """A square of `side` pixels set to zero in each image; its `centre` (2, N) is any pixel, so it may reach over the border.

    On normalised images zero is the mean, as in DeVries & Taylor 2017, "Improved Regularization ... with Cutout", section 3.2.
    """
    top, left = sent(centre - side // 2, images.device)[..., None]
    rows, columns = (torch.arange(extent, device=images.device) for extent in images.shape[2:])
    in_rows = (rows >= top) & (rows < top + side)
    in_columns = (columns >= left) & (columns < left + side)
    # Blanked in place on a copy, which keeps the memory format; masked_fill would not.
    return images.clone().masked_fill_((in_rows[:, :, None] & in_columns[:, None, :])[:, None], 0)


def normalise(
    images: Tensor, *, mean: tuple[float, ...], std: tuple[float, ...], dtype: torch.dtype, memory_format: torch.memory_format
) -> Tensor:
    """uint8 `images` as (x / 255 - mean) / std in `dtype` and `memory_format`; computed in float32 as one fused multiply-add."""
    scales = [1 / (255 * deviation) for deviation in std]
    shifts = [-centre / deviation for centre, deviation in zip(mean, std, strict=True)]
    # Written out for a whole image: channels that alternate in memory would otherwise be computed three values at a time.
    scale, shift = (
        sent(torch.tensor(values), images.device)
        .view(1, -1, 1, 1)
        .expand(1, *images.shape[1:])
        .clone(memory_format=memory_format)
        for values in (scales, shifts)
    )
    values = images.to(torch.float32, memory_format=memory_format)
    return torch.addcmul(shift, values, scale, out=values).to(dtype)
