"""A data set in memory: uint8 images, labels, splits, and what identifies its content."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageSet:
    """Images with their labels: `images` uint8 (N, C, H, W), `labels` int64 (N,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def subset(self, indices: Sequence[int] | Tensor) -> "ImageSet":
        """The images at `indices`, in that order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return ImageSet(self.images[chosen], self.labels[chosen])


@dataclass(frozen=True)
class Shared:
    """How many of the `total` pictures of `split` are, byte for byte, in `other` too, and one of them by both its names."""

    split: str
    other: str
    count: int
    total: int
    example: tuple[str, str]


@dataclass(frozen=True)
class Reading:
    """What a reader found, before a validation split is held out and images are resized.

    `val` is None where the source has no validation split of its own. The other fields are those of `DataSet`.
    """

    description: str
    classes: tuple[str, ...]
    train: ImageSet
    val: ImageSet | None
    test: ImageSet
    fingerprint: str
    skipped: tuple[str, ...] = ()
    split: dict[str, tuple[str, ...]] | None = None
    shared: tuple[Shared, ...] = ()


@dataclass(frozen=True)
class DataSet:
    """A data set ready for training.

    `mean` and `std` are per channel, of the training images / 255. `fingerprint` (32 hex digits) identifies the content
    wherever the files lie and however the validation split is drawn. `skipped` names unreadable images that were left
    out; `split` the relative paths in each split, for data that comes as files (None otherwise), and `shared` tells which splits
    have files in common. `crop`: networks see the middle so many pixels a side of each image (None: all of it).
    """

    name: str
    description: str
    classes: tuple[str, ...]
    train: ImageSet
    val: ImageSet
    test: ImageSet
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    skipped: tuple[str, ...] = ()
    split: dict[str, tuple[str, ...]] | None = None
    shared: tuple[Shared, ...] = ()
    crop: int | None = None

    @property
    def in_chans(self) -> int:
        """C: 1 for grey images, 3 for colour."""
        return int(self.train.images.shape[1])

    @property
    def image_size(self) -> int:
        """H (= W) in pixels, as a network sees them."""
        return int(self.train.images.shape[2]) if self.crop is None else self.crop

    @property
    def num_classes(self) -> int:
        """How many classes there are, whether or not each is seen in every split."""
        return len(self.classes)


def fingerprint_of_arrays(classes: Iterable[str], splits: Mapping[str, ImageSet]) -> str:
    """32 hex digits that identify class names, pixels and labels, split by split."""
    digest = hashlib.sha256(repr(tuple(classes)).encode())
    for name, images in splits.items():
        digest.update(f"{name} {tuple(images.images.shape)}".encode())
        digest.update(images.images.contiguous().numpy().data)
        digest.update(images.labels.contiguous().numpy().data)
    return digest.hexdigest()[:32]


def fingerprint_of_files(classes: Iterable[str], splits: Mapping[str, Sequence[tuple[str, int]]]) -> str:
    """32 hex digits that identify class names and, split by split, the (content digest, label) of each file.

    Files are identified by their bytes and not by decoded pixels: decoders differ in the last bit between versions.
    """
    digest = hashlib.sha256(repr(tuple(classes)).encode())
    for name, files in splits.items():
        digest.update(repr((name, sorted(files))).encode())
    return digest.hexdigest()[:32]


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 `images` (N, C, H, W) / 255.

    Counted exactly, value by value. A deviation below one grey level counts as one, so that blank data can be divided by it.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in range(images.shape[1]):
        counts = torch.bincount(images[:, channel].flatten(), minlength=256).double()
        mean = float((counts * levels).sum() / counts.sum())
        variance = float((counts * (levels - mean) ** 2).sum() / counts.sum())
        means.append(mean)
        deviations.append(max(variance**0.5, 1 / 255))
    return tuple(means), tuple(deviations)
