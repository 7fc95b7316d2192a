"""From a name to a data set in memory, and from a data set to batches."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from convatlas.data import augment, places
from convatlas.data.catalog import CATALOG
from convatlas.data.dataset import DataSet, ImageSet, Reading, channel_statistics
from convatlas.data.download import download_entry
from convatlas.data.readers.cifar import read_cifar
from convatlas.data.readers.csv_list import read_csv_list
from convatlas.data.readers.digits import read_digits
from convatlas.data.readers.folder import read_folder
from convatlas.data.readers.idx import read_idx
from convatlas.data.readers.picture_files import Request
from convatlas.data.splits import hold_out
from convatlas.data.synthetic import read_shapes
from convatlas.errors import UserError, unknown_name

Progress = Callable[[str, int, int], None]

# Everything is held in memory; beyond this a laptop swaps.
_MAX_BYTES = 12 * 2**30
# Photographs keep what a person needs to tell them apart at this size, and a pocket network trains on it within minutes.
_PICTURE_SIZE = 64
_RESIZE_AT_ONCE = 1024


def load_data(
    name: str,
    *,
    root: Path | None = None,
    image_size: int | None = None,
    validation: float = 0.1,
    seed: int = 0,
    skip_unreadable: bool = False,
    verify: bool = True,
    download: bool = False,
    progress: Progress | None = None,
) -> DataSet:
    """The data set called `name` in the catalogue, in memory, with its three splits.

    `root` is where its files lie (None: the places that `convatlas.data.places` searches). `image_size` in pixels, height
    and width (None: as published; 64 for `folder` and `csv`). `validation` is the share of the training images held out,
    class by class, where the data has no validation split of its own; which ones depends on `seed` alone (a folder or
    list without any splits is parted 70/15/15 instead). Unreadable images are an error unless `skip_unreadable`.
    `verify` checks checksums; `download` fetches a published set that is not there, to `root` or the cache.
    `progress(what, done, total)` is called while pictures are read (images) or files fetched (bytes).
    Raises UserError.
    """
    if name not in CATALOG:
        raise unknown_name("data set", name, CATALOG, where="`convatlas data` lists them.")
    _check_settings(image_size, validation)
    if download and CATALOG[name].kind == "files" and places.found(name, root) is None:
        download_entry(name, root or places.cache_folder() / name, progress=progress)
    if CATALOG[name].kind == "your own":
        size = image_size or _PICTURE_SIZE
        reading = _read_own(name, root, request=Request(size, validation, seed, skip_unreadable, progress))
    else:
        reading = _read_published(name, root, verify=verify)
    return _complete(name, reading, image_size=image_size, validation=validation, seed=seed)


def _check_settings(image_size: int | None, validation: float) -> None:
    if image_size is not None and not 1 <= image_size <= 2048:
        raise UserError(f"the image size is {image_size} pixels", fix="Choose one from 1 to 2048.")
    if not 0 <= validation < 1:
        raise UserError(f"the validation share is {validation}", fix="Choose one from 0 up to but not including 1.")


def _read_published(name: str, root: Path | None, *, verify: bool) -> Reading:
    """A set whose images have a fixed size. The built-in ones need no place."""
    if name == "shapes":
        return read_shapes()
    if name == "digits":
        return read_digits()
    place = places.locate(name, root)
    reading = read_cifar(name, place, verify=verify) if name.startswith("cifar") else read_idx(name, place, verify=verify)
    places.remember(reading.fingerprint, place)
    return reading


def _read_own(name: str, root: Path | None, *, request: Request) -> Reading:
    if root is None:
        raise UserError(f"the data {name!r} needs a place", fix=f"Give it with --data-root; it takes {CATALOG[name].what}.")
    reading = read_folder(root, request) if name == "folder" else read_csv_list(root, request)
    places.remember(reading.fingerprint, root)
    return reading


def _complete(name: str, reading: Reading, *, image_size: int | None, validation: float, seed: int) -> DataSet:
    """The reading with a validation split, resized, and with the statistics of what is left for training."""
    train, val = reading.train, reading.val
    if val is None:
        keys = [str(index) for index in range(len(train))]
        kept, held = hold_out(keys, train.labels.tolist(), share=validation, seed=seed)
        train, val = train.subset(kept), train.subset(held)
    parts = [_resized(part, image_size) for part in (train, val, reading.test)]
    mean, std = channel_statistics(parts[0].images)
    return DataSet(
        name=name,
        description=reading.description,
        classes=reading.classes,
        train=parts[0],
        val=parts[1],
        test=parts[2],
        mean=mean,
        std=std,
        fingerprint=reading.fingerprint,
        skipped=reading.skipped,
        split=reading.split,
    )


def _resized(images: ImageSet, size: int | None) -> ImageSet:
    """All images at size x size pixels, bicubic with antialiasing; None or the size they have leaves them as they are."""
    n, channels, height, width = images.images.shape
    if size is None or (height, width) == (size, size):
        return images
    if n * channels * size * size > _MAX_BYTES:
        gib = n * channels * size * size / 2**30
        raise UserError(f"{n:,} images at {size}x{size} take {gib:.0f} GiB of memory", fix="Choose a smaller image size.")
    resized = torch.empty((n, channels, size, size), dtype=torch.uint8)
    for first in range(0, n, _RESIZE_AT_ONCE):
        chunk = images.images[first : first + _RESIZE_AT_ONCE].float()
        scaled = F.interpolate(chunk, size=(size, size), mode="bicubic", antialias=True, align_corners=False)
        resized[first : first + _RESIZE_AT_ONCE] = scaled.round_().clamp_(0, 255).to(torch.uint8)
    return ImageSet(resized, images.labels)


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
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of shuffled, augmented, normalised batches: images (batch, C, H, W) in `dtype`, labels int64 (batch,).

    Order and augmentation are pure functions of (seed, epoch, batch index): beginning at batch `start` yields exactly
    what an unbroken epoch would have yielded from there, whatever else draws random numbers. `crop` is the padding of the
    shifted crop and `cutout` the side of the blanked square, both in pixels (0: none). The last incomplete batch is
    dropped, unless it is the only one.
    """
    _check_augmentation(images, crop=crop, cutout=cutout)
    order = torch.randperm(len(images), generator=_generator(seed, epoch, "order"))
    for index in range(start, batches_in_epoch(len(images), batch_size)):
        chosen = order[index * batch_size : (index + 1) * batch_size]
        generator = _generator(seed, epoch, f"batch {index}")
        # index_select copies whole images; plain indexing goes byte by byte and takes sixteen times as long.
        batch = images.images.index_select(0, chosen)
        if flip:
            batch = augment.flip(batch, generator=generator)
        batch = augment.shifted_crop(batch, crop, generator=generator)
        batch = augment.normalise(batch, mean=mean, std=std, dtype=dtype, memory_format=memory_format)
        batch = augment.cutout(batch, cutout, generator=generator)
        yield batch.to(device), images.labels[chosen].to(device)


def evaluation_batches(
    images: ImageSet,
    *,
    batch_size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    dtype: torch.dtype,
    memory_format: torch.memory_format,
    device: torch.device | str,
) -> Iterator[tuple[Tensor, Tensor]]:
    """All images in order, normalised and otherwise as they are; the last batch may be smaller."""
    for first in range(0, len(images), batch_size):
        batch = images.images[first : first + batch_size]
        labels = images.labels[first : first + batch_size]
        values = augment.normalise(batch, mean=mean, std=std, dtype=dtype, memory_format=memory_format)
        yield values.to(device), labels.to(device)


def _check_augmentation(images: ImageSet, *, crop: int, cutout: int) -> None:
    size = min(images.images.shape[2:])
    if crop < 0 or crop >= size:
        raise UserError(f"a shifted crop by {crop} pixels does not fit images of {size} pixels", fix=f"Choose 0 to {size - 1}.")
    if cutout < 0 or cutout > size:
        raise UserError(f"a cutout of {cutout} pixels does not fit images of {size} pixels", fix=f"Choose 0 to {size}.")


def _generator(seed: int, epoch: int, purpose: str) -> Generator:
    """A generator of its own for this place in the run, so that any batch can be made without making those before it."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{purpose}".encode(), digest_size=8).digest()
    return Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
