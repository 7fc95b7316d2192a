"""What an image folder and a CSV list have in common: listed picture files become a `Reading`."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from convatlas.data import decoded_cache
from convatlas.data.dataset import ImageSet, Reading, Shared, fingerprint_of_files
from convatlas.data.decoded_cache import Decoded
from convatlas.data.pictures import decode_picture, file_content, printable, quiet_pillow
from convatlas.data.splits import hold_out
from convatlas.errors import UserError

CHANNELS = 3
Progress = Callable[[str, int, int], None]
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
NO_SPLITS = "no splits: parted"
"""What the description of pictures says that came without splits, before it says in which parts."""
PARTED = f"{NO_SPLITS} 70/15/15 into train, val and test"
"""What it says where nobody asked for other parts."""
MOST_UNREADABLE = 0.5
"""Share of the pictures: with more left out, the rest is hardly the data set that was meant."""
_MAX_BYTES = 12 * 2**30
_TEST_SHARE = 0.15
# Of what remains after the test images: 15 of the 85 per cent.
_VAL_SHARE = 0.15 / 0.85
_MOST_VAL = 0.8


@dataclass(frozen=True)
class Request:
    """How pictures are to be read: from which place, at which size in pixels, and what happens to unreadable ones.

    `validation` is the share of train held out where only train is given beside test, `parted` the share of all pictures where no
    split is given (None: 15 %). `progress(what, done, total)` counts folders and pictures. `crop` and `interpolation` are those
    of `decode_picture`. Fewer than `fewest_classes` are refused.
    """

    root: Path
    size: int
    validation: float
    seed: int
    skip_unreadable: bool
    progress: Progress | None
    crop: int | None = None
    interpolation: str = "bicubic"
    fewest_classes: int = 2
    parted: float | None = None


@dataclass(frozen=True)
class Listed:
    """A picture file, its class, and its name in records: the relative path in NFC with forward slashes."""

    path: Path
    name: str
    label: int


@dataclass(frozen=True)
class _Picture:
    """A picture that could be read: its row among the pixels of all, and what its file's bytes hash to."""

    listed: Listed
    row: int
    digest: str


def read_listed(
    splits: Mapping[str, Sequence[Listed]], classes: tuple[str, ...], *, what: str, request: Request, remark: str = ""
) -> Reading:
    """The pictures of all splits as requested. `what` begins the description, `remark` ends it. Raises UserError.

    `splits` holds "train" and perhaps "val" and "test"; what is missing is made by `_arrange`.
    """
    arranged, parted = _arrange(splits, request)
    size, total = request.size, sum(map(len, arranged.values()))
    if total * CHANNELS * size * size > _MAX_BYTES:
        gib = total * CHANNELS * size * size / 2**30
        raise UserError(f"{total:,} pictures at {size}x{size} take {gib:.0f} GiB of memory", fix="Choose a smaller image size.")
    everything = sorted((each for members in arranged.values() for each in members), key=lambda each: (each.name, str(each.path)))
    decoded = _decoded(everything, request)
    pictures, skipped = _parted_again(arranged, everything, decoded)
    if len(skipped) > total * MOST_UNREADABLE:
        what = f"{len(skipped):,} of {total:,} pictures cannot be read, {skipped[0]} the first of them"
        raise UserError(what, fix="So many are not left out: look what they are.")
    _check_classes_left(pictures["train"], classes)
    sets = {split: _image_set(members, decoded.pixels) for split, members in pictures.items()}
    digests = {split: [(each.digest, each.listed.label) for each in members] for split, members in pictures.items()}
    counted = f"{what}, {len(classes)} classes, {total - len(skipped):,} pictures at {size}x{size}"
    pool = {"train and val": digests["train"] + digests["val"], "test": digests["test"]}
    return Reading(
        description="; ".join(part for part in (counted, parted, *_warnings(digests, skipped), remark) if part),
        classes=classes,
        train=sets["train"],
        val=sets["val"],
        test=sets["test"],
        fingerprint=fingerprint_of_files(classes, pool),
        skipped=tuple(skipped),
        split={split: tuple(picture.listed.name for picture in members) for split, members in pictures.items()},
        shared=tuple(_shared(pictures)),
    )


def _arrange(splits: Mapping[str, Sequence[Listed]], request: Request) -> tuple[dict[str, list[Listed]], str]:
    """The three splits, each in order of name, and how they came about.

    The test images are chosen without the run's seed: runs that differ in their seed are judged on the same images, and
    none of them trains on another's test images.
    """
    given = {split: sorted(members, key=lambda listed: listed.name) for split, members in splits.items()}
    if "test" in given and "val" in given:
        return given, ""
    held = f"{request.validation:.0%} of train held out for validation" if request.validation else ""
    if "test" in given:
        train, val = _parted(given["train"], share=request.validation, seed=request.seed)
        return {"train": train, "val": val, "test": given["test"]}, held
    if "val" in given:
        train, val = _parted(given["train"], share=request.validation, seed=request.seed)
        remark = ", ".join(part for part in ("no test split: val serves as test", held) if part)
        return {"train": train, "val": val, "test": given["val"]}, remark
    share, remark = (_VAL_SHARE, PARTED) if request.parted is None else _shares_asked(request.parted)
    rest, test = _parted(given["train"], share=_TEST_SHARE, seed=0)
    train, val = _parted(rest, share=share, seed=request.seed)
    return {"train": train, "val": val, "test": test}, remark


def _shares_asked(validation: float) -> tuple[float, str]:
    """Which share of what the test images leave is `validation` of all pictures, and how the parts are told."""
    if not 0 <= validation <= _MOST_VAL:
        what = f"validation is {validation:g} of pictures without splits, of which {_TEST_SHARE:g} are test images"
        raise UserError(what, fix=f"Give one from 0 to {_MOST_VAL:g}.")
    rest = 1 - _TEST_SHARE
    parts = "/".join(f"{100 * part:.3g}" for part in (rest - validation, validation, _TEST_SHARE))
    return validation / rest, f"{NO_SPLITS} {parts} into train, val and test"


def _parted(listed: list[Listed], *, share: float, seed: int) -> tuple[list[Listed], list[Listed]]:
    kept, held = hold_out([each.name for each in listed], [each.label for each in listed], share=share, seed=seed)
    return [listed[i] for i in kept], [listed[i] for i in held]


def _decoded(listed: Sequence[Listed], request: Request) -> Decoded:
    """The pictures, from the cache if they were decoded before and none has changed.

    They lie there in order of name, whatever the splits, so that runs with other seeds find them too.
    """
    files = [(each.name, each.path) for each in listed]
    size, crop, interpolation = request.size, request.crop, request.interpolation
    key = decoded_cache.key_of(files, size=size, channels=CHANNELS, crop=crop, interpolation=interpolation)
    kept = decoded_cache.recall(request.root, key, size=size, channels=CHANNELS)
    if kept is not None and (request.skip_unreadable or None not in kept.digests):
        return kept
    decoded = _decode_all(listed, request)
    decoded_cache.keep(request.root, key, decoded)
    return decoded


def _decode_all(listed: Sequence[Listed], request: Request) -> Decoded:
    """All pictures in order. Several at a time: decoding runs outside Python's lock.

    Threads, since processes were measured to be slower: they start slowly and must send all pixels back.
    """
    # By numpy: torch would start all its threads for each copy, and wait for whatever else keeps the processor busy.
    pixels = np.empty((len(listed), CHANNELS, request.size, request.size), dtype=np.uint8)
    digests: list[str | None] = []
    read = 0
    with quiet_pillow(), ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        results = pool.map(lambda each: _read_one(each, request), listed)
        try:
            for done, result in enumerate(results, 1):
                if isinstance(result, UserError):
                    if not request.skip_unreadable:
                        raise result
                    digests.append(None)
                else:
                    pixels[read] = result[0].numpy()
                    digests.append(result[1])
                    read += 1
                if request.progress is not None:
                    request.progress("pictures", done, len(listed))
        except BaseException:
            # Otherwise leaving the pool would first read all the others.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return Decoded(torch.from_numpy(pixels[:read]), tuple(digests))


def _read_one(listed: Listed, request: Request) -> "tuple[Tensor, str] | UserError":
    """The pixels (C, size, size) and what the file's bytes hash to."""
    try:
        content = file_content(listed.path)
        pixels = decode_picture(
            content,
            size=request.size,
            channels=CHANNELS,
            where=printable(listed.path),
            crop=request.crop,
            interpolation=request.interpolation,
        )
    except UserError as error:
        return error
    return pixels, hashlib.blake2b(content, digest_size=16).hexdigest()


def _parted_again(
    arranged: Mapping[str, Sequence[Listed]], everything: Sequence[Listed], decoded: Decoded
) -> tuple[dict[str, list[_Picture]], list[str]]:
    """The pictures of each split, and the names of those left out."""
    readable = ((each, digest) for each, digest in zip(everything, decoded.digests, strict=True) if digest is not None)
    found = {each: _Picture(each, row, digest) for row, (each, digest) in enumerate(readable)}
    pictures = {split: [found[each] for each in members if each in found] for split, members in arranged.items()}
    return pictures, [each.name for members in arranged.values() for each in members if each not in found]


def _image_set(pictures: Sequence[_Picture], pixels: Tensor) -> ImageSet:
    """The pictures with their labels; no copy of those that lie together."""
    rows = np.array([each.row for each in pictures], dtype=np.int64)
    together = len(rows) > 0 and bool((np.diff(rows) == 1).all())
    images = pixels[rows[0] : rows[-1] + 1] if together else torch.from_numpy(pixels.numpy().take(rows, axis=0))
    return ImageSet(images, torch.tensor([each.listed.label for each in pictures], dtype=torch.int64))


def _check_classes_left(train: Sequence[_Picture], classes: tuple[str, ...]) -> None:
    seen = {picture.listed.label for picture in train}
    for label, name in enumerate(classes):
        if label not in seen:
            raise UserError(f"no picture of class {printable(name)!r} in train can be read", fix="Replace its pictures.")


def _shared(pictures: Mapping[str, Sequence[_Picture]]) -> Iterator[Shared]:
    """Test against train and val, then val against train; pairs that have no file in common are left out."""
    first = {split: {each.digest: each.listed.name for each in reversed(members)} for split, members in pictures.items()}
    for split, other in (("test", "train"), ("test", "val"), ("val", "train")):
        both = [each for each in pictures[split] if each.digest in first[other]]
        if both:
            example = (both[0].listed.name, first[other][both[0].digest])
            yield Shared(split, other, len(both), len(pictures[split]), example)


def _warnings(digests: Mapping[str, Sequence[tuple[str, int]]], skipped: Sequence[str]) -> list[str]:
    """What a reader of the results must know: leaks, contradictory labels, and pictures left out."""
    content = {split: {digest for digest, _ in members} for split, members in digests.items()}
    found = []
    for split, others in (("test", content["train"] | content["val"]), ("val", content["train"])):
        leaked = sum(digest in others for digest, _ in digests[split])
        if leaked:
            earlier = "train or val" if split == "test" else "train"
            found.append(f"warning: {leaked} of {len(digests[split])} {split} pictures are also in {earlier}")
    labelled = {pair for members in digests.values() for pair in members}
    contradictory = sum(count > 1 for count in Counter(digest for digest, _ in labelled).values())
    if contradictory:
        many = "1 picture lies" if contradictory == 1 else f"{contradictory} pictures lie"
        found.append(f"warning: {many} in more than one class")
    if skipped:
        found.append(f"{len(skipped)} unreadable picture{'s' if len(skipped) > 1 else ''} left out")
    return found
