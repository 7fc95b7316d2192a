"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from the Python pickles, in a folder or straight from the .tar.gz.

A pickle can run any code when it is read: `array_pickle` reads these, and a forged file ends in an error.
"""

import gzip
import io
import tarfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from convatlas.data.catalog import CATALOG
from convatlas.data.checksums import md5_of, recognise, wrong_checksum
from convatlas.data.dataset import ImageSet, Reading, fingerprint_of_arrays
from convatlas.data.readers.array_pickle import ByteArray, NotAdmitted, read_pickle
from convatlas.errors import UserError

# The largest published file has 155 MB; more is not CIFAR.
_MAX_BYTES = 200_000_000
# All members of an archive together; the published ones have 186 MB.
_MAX_UNPACKED = 400_000_000


@dataclass(frozen=True)
class _Layout:
    """Which files hold which split, and under which keys labels and class names stand."""

    train: tuple[str, ...]
    test: str
    meta: str
    labels: bytes
    names: bytes


_LAYOUTS = {
    "cifar10": _Layout(
        train=tuple(f"data_batch_{i}" for i in range(1, 6)),
        test="test_batch",
        meta="batches.meta",
        labels=b"labels",
        names=b"label_names",
    ),
    "cifar100": _Layout(train=("train",), test="test", meta="meta", labels=b"fine_labels", names=b"fine_label_names"),
}


def read_cifar(name: str, place: Path, *, verify: bool) -> Reading:
    """CIFAR-10 or CIFAR-100 from `place`, the folder of the batch files or the .tar.gz. Images (N, 3, 32, 32).

    With `verify` every file's md5 must be a known one. Raises UserError for a missing, damaged or forged file.
    """
    layout, entry = _LAYOUTS[name], CATALOG[name]
    wanted = (*layout.train, layout.test, layout.meta)
    archive = entry.downloads[0]
    md5 = archive.md5 if verify else None
    contents = _from_archive(place, wanted, md5=md5) if place.is_file() else _from_folder(place, wanted)
    remark = _recognised(name, contents, place) if verify else "checksums not verified"
    classes = _class_names(contents[layout.meta], layout, where=f"{layout.meta} in {place}")
    batches = {
        file: _batch(contents.pop(file), layout.labels, len(classes), where=f"{file} in {place}")
        for file in (*layout.train, layout.test)
    }
    parts = [batches[file] for file in layout.train]
    train = ImageSet(torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts]))
    test = batches[layout.test]
    return Reading(
        description=f"{entry.title}, {entry.what}" + (f" ({remark})" if remark else ""),
        classes=classes,
        train=train,
        val=None,
        test=test,
        fingerprint=fingerprint_of_arrays(classes, {"train": train, "test": test}),
    )


def _recognised(name: str, contents: dict[str, bytes], place: Path) -> str:
    """The remark on the known state that the files are in; several checksums at a time, outside Python's lock."""
    files = list(CATALOG[name].known[0].md5)
    with ThreadPoolExecutor() as pool:
        found = dict(zip(files, pool.map(lambda file: md5_of(contents[file]), files), strict=True))
    return recognise(CATALOG[name], found, where=str(place))


def _from_folder(folder: Path, wanted: tuple[str, ...]) -> dict[str, bytes]:
    contents = {}
    for name in wanted:
        path = folder / name
        if not path.is_file():
            raise UserError(f"{folder} lacks the file {name}", fix="Unpack it again, or give --data-root the .tar.gz itself.")
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path} has {path.stat().st_size:,} bytes, too many for CIFAR", fix="Fetch it again.")
        try:
            contents[name] = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}", fix="Check its permissions.") from None
    return contents


def _from_archive(archive: Path, wanted: tuple[str, ...], *, md5: str | None) -> dict[str, bytes]:
    """The wanted members of a .tar.gz, by name, into memory: nothing is written to disk, so no path in it can do harm."""
    if archive.stat().st_size > _MAX_UNPACKED:
        raise UserError(f"{archive} has {archive.stat().st_size:,} bytes, too many for CIFAR", fix="Fetch it again.")
    try:
        packed = archive.read_bytes()
    except OSError as error:
        raise UserError(f"{archive} cannot be read: {error.strerror}", fix="Check its permissions.") from None
    if md5 is not None and md5_of(packed) != md5:
        raise wrong_checksum(str(archive), found=md5_of(packed), expected=md5)
    contents: dict[str, bytes] = {}
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as stream:
            unpacked = stream.read(_MAX_UNPACKED + 1)
        if len(unpacked) > _MAX_UNPACKED:
            raise UserError(f"{archive} unfolds to more than {_MAX_UNPACKED:,} bytes, too many for CIFAR", fix="Fetch it again.")
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as tar:
            for member in tar:
                name = member.name.rpartition("/")[2]
                if name in wanted and name not in contents and member.isfile() and member.size <= _MAX_BYTES:
                    content = tar.extractfile(member)
                    contents[name] = content.read() if content is not None else b""
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:  # ValueError: numbers that are none
        raise UserError(f"{archive} is no sound .tar.gz: {error}", fix="Fetch it again.") from None
    for name in wanted:
        if name not in contents:
            raise UserError(f"{archive} lacks the file {name}", fix="Fetch it again.")
    return contents


def _unpickle(content: bytes, *, where: str) -> dict[Any, Any]:
    try:
        value = read_pickle(content)
    except NotAdmitted as error:
        raise UserError(f"{where} is refused: {error}, which CIFAR never does", fix="Do not trust it.") from None
    # Damaged pickles raise nearly anything; all of it means the same to the user.
    except Exception as error:
        raise UserError(f"{where} is damaged: {type(error).__name__} while reading", fix="Fetch the data again.") from None
    if not isinstance(value, dict):
        raise UserError(f"{where} holds no batch of images", fix="Fetch the data again.")
    return value


def _batch(content: bytes, key: bytes, num_classes: int, *, where: str) -> ImageSet:
    """One batch file as images (N, 3, 32, 32) and labels (N,)."""
    batch = _unpickle(content, where=where)
    array, labels = batch.get(b"data"), batch.get(key)
    pixels = array.values if isinstance(array, ByteArray) else None
    if pixels is None or pixels.ndim != 2 or pixels.shape[1] != 3072:
        raise UserError(f"{where} holds no rows of 3072 pixels", fix="Fetch the data again.")
    if not isinstance(labels, list) or len(labels) != len(pixels) or not labels:
        raise UserError(f"{where} holds no label for each image", fix="Fetch the data again.")
    if not all(type(label) is int and 0 <= label < num_classes for label in labels):
        raise UserError(f"{where} has a label outside 0..{num_classes - 1}", fix="Fetch the data again.")
    return ImageSet(torch.from_numpy(pixels.reshape(-1, 3, 32, 32)), torch.tensor(labels, dtype=torch.int64))


def _class_names(content: bytes, layout: _Layout, *, where: str) -> tuple[str, ...]:
    names = _unpickle(content, where=where).get(layout.names)
    if not isinstance(names, list) or len(names) < 2 or not all(isinstance(name, bytes) for name in names):
        raise UserError(f"{where} holds no class names", fix="Fetch the data again.")
    return tuple(name.decode("ascii", "replace") for name in names)
