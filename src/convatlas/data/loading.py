"""From a name to a data set in memory. Its batches: `convatlas.data.batches`."""

import shlex
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from convatlas.data import places
from convatlas.data.batches import scaled
from convatlas.data.catalog import CATALOG
from convatlas.data.dataset import DataSet, ImageSet, Reading, channel_statistics
from convatlas.data.download import download_entry
from convatlas.data.pictures import INTERPOLATIONS, printable
from convatlas.data.readers.cifar import read_cifar
from convatlas.data.readers.csv_list import read_csv_list
from convatlas.data.readers.digits import read_digits
from convatlas.data.readers.folder import read_folder
from convatlas.data.readers.idx import read_idx
from convatlas.data.readers.picture_files import Request
from convatlas.data.splits import fraction_of, hold_out
from convatlas.data.synthetic import read_shapes
from convatlas.errors import UserError, unknown_name

Progress = Callable[[str, int, int], None]

LARGEST_IMAGE = 2048
"""Pixels a side."""
PICTURE_SIZE = 64
"""Photographs keep what a person needs to tell them apart at this size, and a pocket network trains on it within minutes."""


def load_data(
    name: str,
    *,
    root: Path | None = None,
    image_size: int | None = None,
    validation: float = 0.1,
    seed: int = 0,
    skip_unreadable: bool = False,
    fraction: float = 1.0,
    crop: int | None = None,
    interpolation: str = "bicubic",
    fewest_classes: int = 2,
    parted: float | None = None,
    verify: bool = True,
    download: bool = False,
    progress: Progress | None = None,
) -> DataSet:
    """The data set called `name` in the catalogue, in memory, with its three splits.

    `root` is where its files lie (None: the places that `convatlas.data.places` searches). `image_size` in pixels, height
    and width (None: as published; 64 for `folder` and `csv`). `validation` is the share of the training images held out,
    class by class, where the data has no validation split of its own; which ones depends on `seed` alone (a folder or
    list without any splits is parted 70/15/15 instead; `parted`, if given, is the share of all its pictures that is held out).
    Unreadable images are an error unless `skip_unreadable`.
    `fraction` of the training images that are then left is kept, class by class, at least one of each: those that any smaller
    fraction has are among them.
    `crop`: networks see the middle so many pixels a side, and pictures are cut as torchvision and timm would for that;
    `interpolation` is how images are scaled, "bicubic" or "bilinear". Pictures of fewer than `fewest_classes` are refused: to
    judge a network, those of one class will do.
    `verify` checks checksums; `download` fetches a published set that is not there, to `root` or the cache.
    Pictures of `folder` and `csv` are decoded once and then mapped from a cache until a file changes (see `decoded_cache`).
    `progress(what, done, total)` is called while pictures are read (images) or files fetched (bytes).
    Raises UserError.
    """
    if name not in CATALOG:
        raise unknown_name("data set", name, CATALOG, where=_where(name))
    _check_settings(image_size, validation, fraction, interpolation)
    if download and CATALOG[name].kind == "files" and places.found(name, root) is None:
        download_entry(name, root or places.cache_folder() / name, progress=progress)
    if CATALOG[name].kind == "your own":
        size = image_size or PICTURE_SIZE
        place = _place_of_own(name, root)
        how = Request(place, size, validation, seed, skip_unreadable, progress, crop, interpolation, fewest_classes, parted)
        reading = _read_own(name, how)
    else:
        reading = _read_published(name, root, verify=verify)
    data = _complete(
        name, reading, image_size=image_size, interpolation=interpolation, validation=validation, fraction=fraction, seed=seed
    )
    return replace(data, crop=crop)


def _check_settings(image_size: int | None, validation: float, fraction: float, interpolation: str) -> None:
    if image_size is not None and not 1 <= image_size <= LARGEST_IMAGE:
        raise UserError(f"the image size is {image_size} pixels", fix=f"Choose one from 1 to {LARGEST_IMAGE}.")
    if not 0 <= validation < 1:
        raise UserError(f"the validation share is {validation}", fix="Choose one from 0 up to but not including 1.")
    if not 0 < fraction <= 1:
        raise UserError(f"the fraction of the training images is {fraction}", fix="Choose one above 0, at most 1.")
    if interpolation not in INTERPOLATIONS:
        raise unknown_name("interpolation", interpolation, INTERPOLATIONS, where=f"Known: {', '.join(INTERPOLATIONS)}.")


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


def _where(name: str) -> str:
    """Where data sets are listed; of a place that exists, how one's own pictures are named."""
    with suppress(OSError):  # a name that is too long
        if name.strip() and Path(name).exists():
            kind = "csv" if name.lower().endswith(".csv") else "folder"
            return f"Pictures of your own are named with --data {kind} --data-root {shlex.quote(printable(name))}."
    return "`convatlas data` lists them."


def _place_of_own(name: str, root: Path | None) -> Path:
    if root is None:
        raise UserError(f"the data {name!r} needs a place", fix=f"Give it with --data-root; it takes {CATALOG[name].what}.")
    return root


def _read_own(name: str, request: Request) -> Reading:
    reading = read_folder(request.root, request) if name == "folder" else read_csv_list(request.root, request)
    places.remember(reading.fingerprint, request.root)
    return reading


def _complete(
    name: str,
    reading: Reading,
    *,
    image_size: int | None,
    interpolation: str,
    validation: float,
    fraction: float,
    seed: int,
) -> DataSet:
    """The reading with a validation split, resized, and with the statistics of what is left for training."""
    train, val = reading.train, reading.val
    if val is None:
        keys = [str(index) for index in range(len(train))]
        kept, held = hold_out(keys, train.labels.tolist(), share=validation, seed=seed)
        train, val = train.subset(kept), train.subset(held)
    if fraction < 1:
        train = train.subset(fraction_of(train.labels.tolist(), share=fraction, seed=seed))
    parts = [_resized(part, image_size, interpolation) for part in (train, val, reading.test)]
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
        shared=reading.shared,
    )


def _resized(images: ImageSet, size: int | None, interpolation: str) -> ImageSet:
    """All images at size x size pixels, with antialiasing; None or the size they have leaves them as they are."""
    if size is None or tuple(images.images.shape[2:]) == (size, size):
        return images
    return ImageSet(scaled(images.images, size, mode=interpolation), images.labels)
