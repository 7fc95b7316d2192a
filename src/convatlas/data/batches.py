"""From a data set to batches."""

import hashlib
from collections.abc import Iterator, MutableMapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from convatlas.data.augment import FILLS, Draws, blank, draw, mirror_, normalise, sent, shifted_crop
from convatlas.data.dataset import ImageSet
from convatlas.data.mixing import Mixing
from convatlas.data.operating import draw_operations, operate
from convatlas.errors import UserError

FLIP_RULES = ("random", "alternating")
MAX_BYTES = 12 * 2**30
"""Everything is held in memory; beyond this a laptop swaps."""
# A set is laid out for training by copying it: once for all epochs up to this size, beyond it each batch as it is needed.
_COPIED_BYTES = 2**30
# A set up to this size is kept on the accelerator. Of a larger one each batch moves, still as uint8.
_ON_DEVICE_BYTES = 8 * 2**30
_RESIZE_AT_ONCE = 1024
# The images of a set as the last training asked for them, for as long as the set itself is in memory.
_PREPARED: MutableMapping[Tensor, tuple[tuple[object, ...], Tensor]] = WeakTensorKeyDictionary()


def batches_in_epoch(n: int, batch_size: int) -> int:
    """How many batches `training_batches` yields from n images: whole ones only, but one if there is less than one."""
    return max(1, n // batch_size)


def training_batches(
    images: ImageSet,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    flip: bool,
    crop: int,
    cutout: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    dtype: torch.dtype,
    memory_format: torch.memory_format,
    device: torch.device | str,
    start: int = 0,
    flip_rule: str = "random",
    crop_fill: str = "zeros",
    size: int | None = None,
    rank: int = 0,
    ranks: int = 1,
    augment: str = "none",
    mixing: Mixing | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of shuffled, augmented, normalised batches: images (batch, C, H, W) in `dtype`, labels int64 (batch,).

    Order and augmentation are pure functions of (seed, epoch, batch index), the same on every `device` (with `augment`, to within
    the rounding of a grey level): beginning at batch `start` yields exactly what an unbroken epoch would have yielded from there,
    whatever else draws random numbers. `crop` is the padding of the shifted crop and `cutout` the side of the blanked square,
    both in pixels (0: none). The last incomplete batch is dropped, unless it is the only one.

    `flip_rule` "random" mirrors each image with probability 1/2, each time anew; "alternating" in every second epoch, from the
    first or the second on as a coin decides that is tossed once for each image and seed (Jordan 2024, arXiv:2404.00498, section
    3.6). `crop_fill` is what the crop moves in, "zeros" or "reflect" (the image mirrored at its border). With `size` the images
    are scaled to size x size pixels first, bilinear with antialiasing (progressive resizing); scaled sets are kept, not made anew
    for each epoch. `rank` of `ranks` processes gets its contiguous share of each batch, the shares together being what one
    process would get; `batch_size` counts the images of all. `augment` "trivial" or "rand" does drawn operations to whole images,
    which must be squares, before they are mirrored and shifted (TrivialAugment and RandAugment, in the order that the code of
    Müller & Hutter 2021 has, automl/trivialaugment). With `mixing` images are mixed at last, those of the batch of all processes,
    and labels are the shares of the classes, float32 (batch, classes). On an accelerator the set is kept there as uint8 (if it
    has 8 GiB at most) and augmented there. Raises UserError for settings that do not fit the images or each other.
    """
    extent = (images.images.shape[2], images.images.shape[3]) if size is None else (size, size)
    check_augmentation(extent, crop=crop, cutout=cutout, flip_rule=flip_rule, crop_fill=crop_fill)
    if augment != "none" and extent[0] != extent[1]:
        raise UserError(f"images of {extent[0]}x{extent[1]} pixels cannot be turned and shorn", fix="Load them as squares.")
    _check_shares(len(images), batch_size, rank, ranks)
    stored = prepared(images.images, size=size, device=torch.device(device), memory_format=memory_format)
    coins = _coins(len(images), seed) if flip and flip_rule == "alternating" else None
    order = torch.randperm(len(images), generator=generator_of(seed, epoch, "order"))
    for index in range(start, batches_in_epoch(len(images), batch_size)):
        chosen = order[index * batch_size : (index + 1) * batch_size]
        generator = generator_of(seed, epoch, f"batch {index}")
        draws = draw(len(chosen), size=extent, flip=flip and coins is None, crop=crop, cutout=cutout, generator=generator)
        if coins is not None:
            draws = replace(draws, mirrored=coins[chosen] ^ (epoch % 2 == 1))
        operated = draw_operations(len(chosen), augment=augment, generator=generator_of(seed, epoch, f"operations {index}"))
        # Drawn for the images of all processes, so that each gets what one alone would have got. Any may be mixed with any.
        first, last = (len(chosen) * share // ranks for share in (rank, rank + 1))
        begin, end = (first, last) if mixing is None else (0, len(chosen))
        chosen, draws, operated = chosen[begin:end], draws.part(begin, end), operated and operated.part(begin, end)
        batch = sent(_chosen(stored, chosen, memory_format), device)
        batch = _moved(batch if operated is None else operate(batch, operated), draws, crop=crop, fill=crop_fill)
        batch = normalise(batch, mean=mean, std=std, dtype=dtype, memory_format=memory_format)
        batch, labels = _blanked(batch, draws, side=cutout), images.labels[chosen]
        if mixing is not None:
            generator = generator_of(seed, epoch, f"mix {index}")
            batch, labels = (each[first:last] for each in mixing.done(batch, labels, generator=generator))
        yield batch, sent(labels, device)


def evaluation_batches(
    images: ImageSet,
    *,
    batch_size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    dtype: torch.dtype,
    memory_format: torch.memory_format,
    device: torch.device | str,
    size: int | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """All images in order, normalised on `device` and otherwise as they are; the last batch may be smaller.

    Of each the middle `size` x `size` pixels are taken (None: all).
    """
    for first in range(0, len(images), batch_size):
        batch = sent(centre(images.images[first : first + batch_size], size), device)
        labels = sent(images.labels[first : first + batch_size], device)
        yield normalise(batch, mean=mean, std=std, dtype=dtype, memory_format=memory_format), labels


def centre(images: Tensor, size: int | None) -> Tensor:
    """The middle `size` x `size` pixels of images (..., H, W), rounded as torchvision does, a view of them; None: all."""
    if size is None or tuple(images.shape[-2:]) == (size, size):
        return images
    top, left = (round((extent - size) / 2) for extent in images.shape[-2:])
    return images[..., top : top + size, left : left + size]


def scaled(images: Tensor, size: int, *, mode: str) -> Tensor:
    """uint8 `images` (N, C, H, W) at size x size pixels, `mode` "bicubic" or "bilinear", with antialiasing; computed on the CPU.

    Raises UserError for more than memory holds.
    """
    n, channels = images.shape[:2]
    if n * channels * size * size > MAX_BYTES:
        gib = n * channels * size * size / 2**30
        raise UserError(f"{n:,} images at {size}x{size} take {gib:.0f} GiB of memory", fix="Choose a smaller image size.")
    resized = torch.empty((n, channels, size, size), dtype=torch.uint8)
    for first in range(0, n, _RESIZE_AT_ONCE):
        chunk = images[first : first + _RESIZE_AT_ONCE].float()
        small = F.interpolate(chunk, size=(size, size), mode=mode, antialias=True, align_corners=False)
        resized[first : first + _RESIZE_AT_ONCE] = small.round_().clamp_(0, 255).to(torch.uint8)
    return resized


def prepared(images: Tensor, *, size: int | None, device: torch.device, memory_format: torch.memory_format) -> Tensor:
    """The images scaled to `size`, as `memory_format` stores them, (N, H, W, C) or (N, C, H, W), and on `device` if they fit.

    What had to be copied for that is kept, for one setting at a time, until the images themselves are let go.
    """
    settings = (size, device, memory_format)
    kept = _PREPARED.get(images)
    if kept is not None and kept[0] == settings:
        return kept[1]
    same = size is None or tuple(images.shape[2:]) == (size, size)
    pixels = images if size is None or same else scaled(images, size, mode="bilinear")
    stored = pixels.permute(0, 2, 3, 1) if memory_format == torch.channels_last else pixels
    if stored.nbytes <= _COPIED_BYTES:
        stored = stored.contiguous()
    if stored.nbytes <= _ON_DEVICE_BYTES:
        stored = stored.to(device)
    # A view of the images would keep them, its own key, alive.
    if not same or stored.data_ptr() != images.data_ptr():
        _PREPARED[images] = (settings, stored)
    return stored


def _chosen(stored: Tensor, chosen: Tensor, memory_format: torch.memory_format) -> Tensor:
    """Copies of the `chosen` of the `stored` images, as (N, C, H, W)."""
    # index_select copies whole images; plain indexing goes byte by byte and takes sixteen times as long.
    batch = stored.index_select(0, sent(chosen, stored.device))
    return batch.permute(0, 3, 1, 2) if memory_format == torch.channels_last else batch


def _moved(batch: Tensor, draws: Draws, *, crop: int, fill: str) -> Tensor:
    """The batch, which is nobody else's, mirrored and shifted as drawn."""
    if draws.mirrored is not None:
        batch = mirror_(batch, draws.mirrored)
    return batch if draws.shift is None else shifted_crop(batch, crop, shift=draws.shift, fill=fill)


def _blanked(batch: Tensor, draws: Draws, *, side: int) -> Tensor:
    return batch if draws.centre is None else blank(batch, side, centre=draws.centre)


def _coins(n: int, seed: int) -> Tensor:
    """For each image whether it is mirrored in the first epoch and every second one from there, bool (n,)."""
    return torch.rand(n, generator=generator_of(seed, 0, "coins")) < 0.5


def check_augmentation(extent: tuple[int, int], *, crop: int, cutout: int, flip_rule: str, crop_fill: str) -> None:
    """Raise a UserError if a shift, a blanked square or a rule does not fit images of `extent` (rows, columns) pixels."""
    size = min(extent)
    if size < 1:
        raise UserError(f"images are to be scaled to {size} pixels", fix="Choose 1 or more.")
    if crop < 0 or crop >= size:
        raise UserError(f"a shifted crop by {crop} pixels does not fit images of {size} pixels", fix=f"Choose 0 to {size - 1}.")
    if cutout < 0 or cutout > size:
        raise UserError(f"a cutout of {cutout} pixels does not fit images of {size} pixels", fix=f"Choose 0 to {size}.")
    for kind, name, known in (("flip rule", flip_rule, FLIP_RULES), ("crop fill", crop_fill, FILLS)):
        if name not in known:
            raise UserError(f"there is no {kind} called {name!r}", fix=f"Choose {' or '.join(known)}.")


def _check_shares(n: int, batch_size: int, rank: int, ranks: int) -> None:
    if not 0 <= rank < ranks:
        raise UserError(f"process {rank} of {ranks} does not exist", fix="Count processes from 0.")
    if batch_size % ranks:
        raise UserError(
            f"a batch of {batch_size} images cannot be shared by {ranks} processes", fix=f"Choose a multiple of {ranks}."
        )
    if n < ranks:
        raise UserError(f"{n} images are too few for {ranks} processes", fix="Use fewer processes.")


def generator_of(seed: int, epoch: int, purpose: str) -> Generator:
    """A generator of its own for this place in the run, so that any batch can be made without making those before it."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{purpose}".encode(), digest_size=8).digest()
    return Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
