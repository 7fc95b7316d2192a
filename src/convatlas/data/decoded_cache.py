"""Decoded pictures kept on disk, so that a folder or list of pictures is decoded once and mapped into memory from then on.

In `decoded` below `places.cache_folder()` each folder or list has one entry, of two files: the pixels as they lie in memory,
and what they and their files hashed to, with a checksum of its own, written last. An entry is found again by a key made of all
that decides the pixels: names, extents and times of the files, the size in pixels, the rules by which they are decoded, and
Pillow's version. Whatever is changed, added or removed makes another key, and what is kept under the new one replaces the old.
All entries together take `MOST_BYTES` at most; those unused for longest go first, and a larger set is not kept. Where nothing
can be written, nothing is kept, and all is decoded each time. The files can be deleted at any time.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import PIL
import torch
from torch import Tensor

from convatlas.data import places
from convatlas.data.pictures import RULES
from convatlas.errors import StorageError
from convatlas.records import storage

MOST_BYTES = 8 * 2**30
"""What all entries take together."""
_FORMAT = 2


@dataclass(frozen=True)
class Decoded:
    """Pictures that could be read: uint8 `pixels` (N, C, size, size), in the order of their files.

    `digests` has what each file's bytes hash to, None for those that could not be read and have no pixels.
    """

    pixels: Tensor
    digests: tuple[str | None, ...]


def key_of(files: Sequence[tuple[str, Path]], *, size: int, channels: int, crop: int | None, interpolation: str) -> str:
    """32 hex digits for all that decides the pixels of `files`, (name in records, path), as `decode_picture` takes the others.

    Call it before the files are read: one that changes meanwhile then has another key the next time.
    """
    digest = hashlib.sha256(repr((_FORMAT, RULES, PIL.__version__, size, channels, crop or size, interpolation)).encode())
    for name, path in files:
        digest.update(repr((name, _state(path))).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _state(path: Path) -> tuple[int, ...] | None:
    """Extent and times of a file; that of its last change by any means too, for a copy may bring along the older time."""
    try:
        status = path.stat()
    except OSError:
        # Reading it will name it.
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def recall(root: Path, key: str, *, size: int, channels: int) -> Decoded | None:
    """What was kept for the folder or list `root` under `key`, mapped from disk; None if nothing is, or if it is damaged.

    Writing to the pixels changes memory, never the file.
    """
    notes, kept_pixels = _files(root, key)
    try:
        checksum, text = notes.read_text(encoding="utf-8").split("\n", 1)
        if checksum != _checksum(text.encode()):
            return None
        whole, digests = json.loads(text)
        shape = (sum(digest is not None for digest in digests), channels, size, size)
        if kept_pixels.stat().st_size != np.prod(shape, dtype=np.int64):
            return None
        mapped = np.memmap(kept_pixels, dtype=np.uint8, mode="c", shape=shape)
        if whole != _checksum(mapped.data.cast("B")):
            return None
        pixels = torch.from_numpy(mapped)
    except (OSError, ValueError):
        return None
    _touch(notes)
    return Decoded(pixels, tuple(digests))


def keep(root: Path, key: str, decoded: Decoded) -> None:
    """Keep `decoded` for `root` under `key`, in place of what was kept for it before. Does nothing where it cannot be written."""
    notes, kept_pixels = _files(root, key)
    if not 0 < decoded.pixels.nbytes <= MOST_BYTES:
        return
    pixels = decoded.pixels.contiguous().numpy().data.cast("B")
    text = json.dumps([_checksum(pixels), decoded.digests])
    try:
        notes.parent.mkdir(parents=True, exist_ok=True)
        # A view and not bytes: those would be a second copy in memory. To a file both are the same.
        storage.write_bytes(kept_pixels, cast(bytes, pixels))
        storage.write_text(notes, f"{_checksum(text.encode())}\n{text}")
        _remove_others(notes)
        _remove_oldest(notes.parent)
    except (OSError, StorageError):
        return


def _files(root: Path, key: str) -> tuple[Path, Path]:
    """The notes and the pixels of an entry: both are named by the place and the key."""
    name = f"{_owner(root)}-{key}"
    folder = places.cache_folder() / "decoded"
    return folder / f"{name}.json", folder / f"{name}.pixels"


def _owner(root: Path) -> str:
    return hashlib.sha256(os.fsencode(root.absolute())).hexdigest()[:16]


def _checksum(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()


def _touch(notes: Path) -> None:
    """Note the use, if the folder can be written."""
    try:
        os.utime(notes)
    except OSError:
        return


def _remove_others(notes: Path) -> None:
    """Remove all else that was kept for the same place, and what a crash left half written."""
    owner = notes.name.split("-")[0]
    for path in notes.parent.iterdir():
        if path.name.lstrip(".").startswith(f"{owner}-") and path.stem != notes.stem:
            path.unlink(missing_ok=True)


def _remove_oldest(folder: Path) -> None:
    """Remove the entries that were unused for longest until the others take `MOST_BYTES` at most."""
    total = 0
    for notes in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True):
        pixels = notes.with_suffix(".pixels")
        total += pixels.stat().st_size if pixels.exists() else 0
        if total > MOST_BYTES:
            notes.unlink(missing_ok=True)
            pixels.unlink(missing_ok=True)
