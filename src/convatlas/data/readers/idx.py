"""MNIST and Fashion-MNIST in IDX files, plain or gzipped.

The format: two zero bytes, a type code (8: unsigned byte), the number of dimensions, each dimension as a big-endian
32-bit integer, then the values (LeCun, "The MNIST database", file formats).
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from convatlas.data.catalog import CATALOG, MNIST_CLASSES
from convatlas.data.checksums import md5_of, recognise
from convatlas.data.dataset import ImageSet, Reading, fingerprint_of_arrays
from convatlas.errors import UserError

_UNSIGNED_BYTE = 8
_SIDE = 28
# The largest published file has 47 MB decompressed; a gzip that grows beyond this is a bomb.
_MAX_BYTES = 64_000_000


def read_idx(name: str, folder: Path, *, verify: bool) -> Reading:
    """MNIST or Fashion-MNIST from the four files in `folder`. Images (N, 1, 28, 28).

    With `verify` the md5 of each file's decompressed content must be the published one. Raises UserError.
    """
    entry = CATALOG[name]
    if folder.is_file():
        folder = folder.parent
    contents = {file: _content(folder, file) for file in entry.known[0].md5}
    remark = "checksums not verified"
    if verify:
        remark = recognise(entry, {file: md5_of(content) for file, content in contents.items()}, where=str(folder))
    train, test = (_split(contents, prefix, folder) for prefix in ("train", "t10k"))
    classes = MNIST_CLASSES[name]
    return Reading(
        description=f"{entry.title}, {entry.what}" + (f" ({remark})" if remark else ""),
        classes=classes,
        train=train,
        val=None,
        test=test,
        fingerprint=fingerprint_of_arrays(classes, {"train": train, "test": test}),
    )


def _content(folder: Path, file: str) -> bytes:
    """The decompressed content of `file` or `file`.gz in `folder`."""
    plain, packed = folder / file, folder / f"{file}.gz"
    path = plain if plain.is_file() else packed
    if not path.is_file():
        raise UserError(f"{folder} lacks the file {file} (or {file}.gz)", fix="Fetch it, or give --data-root another folder.")
    try:
        with path.open("rb") as stream:
            source = gzip.GzipFile(fileobj=stream) if path == packed else stream
            content = source.read(_MAX_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is no sound gzip file: {error}", fix="It may be cut short; fetch it again.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", fix="Check its permissions.") from None
    if len(content) > _MAX_BYTES:
        raise UserError(f"{path} holds more than {_MAX_BYTES:,} bytes, too many for MNIST", fix="Fetch it again.")
    return content


def _split(contents: dict[str, bytes], prefix: str, folder: Path) -> ImageSet:
    image_file, label_file = f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"
    images = _values(contents[image_file], dimensions=3, where=f"{image_file} in {folder}")
    labels = _values(contents[label_file], dimensions=1, where=f"{label_file} in {folder}")
    if tuple(images.shape[1:]) != (_SIDE, _SIDE):
        found = f"{images.shape[1]}x{images.shape[2]}"
        raise UserError(f"{image_file} in {folder} has images of {found}, not 28x28", fix="Fetch it again.")
    if len(images) != len(labels) or not len(labels):
        raise UserError(f"{folder} has {len(images)} {prefix} images and {len(labels)} labels", fix="Fetch both files again.")
    if int(labels.max()) > 9:
        raise UserError(f"{label_file} in {folder} has the label {int(labels.max())}, outside 0..9", fix="Fetch it again.")
    return ImageSet(images.unsqueeze(1), labels.long())


def _values(content: bytes, *, dimensions: int, where: str) -> Tensor:
    """The uint8 array that IDX `content` holds; it must have so many `dimensions`."""
    header = 4 + 4 * dimensions
    magic = bytes((0, 0, _UNSIGNED_BYTE, dimensions))
    if content[:4] != magic:
        raise UserError(
            f"{where} is no {dimensions}-d IDX file: it begins with {content[:4].hex() or 'nothing'}, not {magic.hex()}",
            fix="Fetch it again.",
        )
    if len(content) < header:
        raise UserError(f"{where} is cut short within its header", fix="Fetch it again.")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    if len(content) - header != math.prod(shape) or not math.prod(shape):
        found = f"{len(content) - header:,}"
        raise UserError(f"{where} has {found} values where its header says {math.prod(shape):,}", fix="Fetch it again.")
    return torch.frombuffer(bytearray(content[header:]), dtype=torch.uint8).reshape(shape)
