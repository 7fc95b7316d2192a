"""A data set looked over before anything is trained on it: `check_data` finds, and changes nothing."""

import base64
import io
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image
from torch import Tensor

import convatlas
from convatlas.data.check_findings import class_rows, findings, verdict
from convatlas.data.duplicates import NEIGHBOURS, SMALLEST, THRESHOLD, Twin, blank, digests, exact_twins, near_twins
from convatlas.data.gathering import Gathered, Progress, gather
from convatlas.data.pictures import printable, quiet_pillow, read_picture
from convatlas.errors import UserError
from convatlas.records.data_check import EXACT, NEAR, DataCheck, Example, Pair, PictureSize, Place, Relation, Unreadable

EXAMPLES = 60
"""So many pairs of each relation are kept with their pictures."""
MOST_PAIRS = 50_000
"""So many pairs are kept; where there are more, the surest."""
_SHOWN_SIDE = 64
_LOOKED_FOR = "looked for"


def check_data(
    name: str,
    *,
    root: Path | None = None,
    image_size: int | None = None,
    verify: bool = True,
    near: bool = True,
    mirrored: bool = True,
    progress: Progress | None = None,
) -> DataCheck:
    """Look the data set `name` over: duplicates, classes, layout, unreadable files, images of one colour.

    `root`, `image_size`, `verify` and `progress` are those of `load_data`. A folder that `load_data` refuses for its layout is
    read as far as it goes, and what is wrong with it is a finding. `near` looks for near duplicates too, which takes about a
    minute for 60,000 images; `mirrored` counts mirror images among them. Raises UserError where there is nothing to check.
    """
    started = time.perf_counter()
    gathered = gather(name, root, image_size=image_size, verify=verify, progress=progress)
    blanks = {split: blank(images.images) for split, images in gathered.sets.items()}
    how = _how(gathered, near=near, mirrored=mirrored)
    pairs = _pairs(gathered, blanks, near=how.startswith(_LOOKED_FOR), mirrored=mirrored, progress=progress)
    check = _record(name, gathered, pairs, blanks, how)
    check = replace(check, findings=(*gathered.findings, *findings(check)))
    return replace(check, verdict=verdict(check), seconds=time.perf_counter() - started)


def _record(name: str, gathered: Gathered, pairs: Sequence[Pair], blanks: Mapping[str, Sequence[int]], how: str) -> DataCheck:
    """All that was counted and listed, before it is put into words."""
    return DataCheck(
        data=name,
        description=gathered.description,
        fingerprint=gathered.fingerprint,
        convatlas=convatlas.__version__,
        refused=gathered.refused,
        image=next((tuple(each.images.shape[1:]) for each in gathered.sets.values()), ()),
        splits={split: len(each) for split, each in gathered.sets.items()},
        classes=class_rows(gathered.counts),
        relations=_relations(gathered, pairs),
        pairs=tuple(pairs[:MOST_PAIRS]),
        examples=_examples(gathered, pairs),
        blank=tuple(gathered.place(split, index) for split, each in blanks.items() for index in each),
        unreadable=tuple(_reason(gathered, file) for file in gathered.skipped),
        sizes=_picture_sizes(gathered.paths.values()),
        threshold=THRESHOLD if how.startswith(_LOOKED_FOR) else None,
        near=how,
    )


def _how(gathered: Gathered, *, near: bool, mirrored: bool) -> str:
    """How near duplicates are looked for, or why they are not."""
    side = min((min(each.images.shape[2:]) for each in gathered.sets.values()), default=0)
    if not near:
        return "not looked for, as asked"
    if side == 0:
        return "not looked for: no images could be read"
    if side < SMALLEST:
        return f"not looked for: images of {side} pixels hold too little to tell a copy from chance"
    image = "image and its mirror image" if mirrored else "image"
    return f"{_LOOKED_FOR} among the {NEIGHBOURS} most alike of each {image}, and judged by how their fine detail correlates"


# Duplicates


def _pairs(
    gathered: Gathered, blanks: Mapping[str, Sequence[int]], *, near: bool, mirrored: bool, progress: Progress | None
) -> list[Pair]:
    """All pairs of duplicates, the surest first."""
    images = {split: each.images for split, each in gathered.sets.items()}
    hashed = {split: digests(each) for split, each in images.items()}
    left_out = {split: set(each) for split, each in blanks.items()}
    twins = exact_twins(hashed, left_out)
    if near:
        twins += near_twins(images, hashed, left_out, mirrored=mirrored, progress=progress)
    return [_pair(gathered, twin) for twin in sorted(twins, key=lambda twin: -twin.likeness)]


def _pair(gathered: Gathered, twin: Twin) -> Pair:
    one, two = gathered.place(twin.split, twin.index), gathered.place(twin.other, twin.twin)
    return Pair(twin.kind, one, two, twin.likeness, twin.mirrored)


def _relations(gathered: Gathered, pairs: Sequence[Pair]) -> tuple[Relation, ...]:
    """Each split against itself and the earlier ones, the last split first: whether the test leaks is asked before all else."""
    splits = list(gathered.sets)
    found = []
    for split in reversed(splits):
        for other in splits[: splits.index(split) + 1]:
            these = [pair for pair in pairs if (pair.first.split, pair.second.split) == (split, other)]
            indices = {pair.first.index for pair in these} | {pair.second.index for pair in these if split == other}
            kinds = Counter(pair.kind for pair in these)
            against = sum(pair.contradictory for pair in these)
            total = len(gathered.sets[split])
            found.append(Relation(split, other, kinds[EXACT], kinds[NEAR], against, tuple(sorted(indices)), total))
    return tuple(found)


def _examples(gathered: Gathered, pairs: Sequence[Pair]) -> tuple[Example, ...]:
    """Pairs of two classes, and of each relation some at even steps, from the least sure to the surest."""
    by_relation: dict[tuple[str, str], list[Pair]] = {}
    for pair in reversed(pairs):
        by_relation.setdefault((pair.first.split, pair.second.split), []).append(pair)
    chosen = [pair for pair in pairs if pair.contradictory][:EXAMPLES]
    for these in by_relation.values():
        every = max(1, -(-len(these) // EXAMPLES))
        chosen += [pair for pair in these[::every] if not pair.contradictory]
    return tuple(Example(pair, _picture(gathered, pair.first), _picture(gathered, pair.second)) for pair in chosen)


def _picture(gathered: Gathered, place: Place) -> str:
    """The image as a PNG data URL, at 64 pixels if it has more."""
    pixels: Tensor = gathered.sets[place.split].images[place.index]
    array = pixels[0].numpy() if pixels.shape[0] == 1 else pixels.permute(1, 2, 0).numpy()
    image = Image.fromarray(array)
    image.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


# Files


def _reason(gathered: Gathered, file: str) -> Unreadable:
    """Why a file could not be read: by reading it again."""
    path = gathered.paths.get(file)
    try:
        if path is not None:
            read_picture(path, size=1, channels=1)
    except UserError as error:
        return Unreadable(file, error.what.removeprefix(printable(path or "")).strip())
    return Unreadable(file, "could not be read")


def _picture_sizes(paths: Iterable[Path]) -> tuple[PictureSize, ...]:
    """Sizes and kinds of pixels of picture files, the most frequent first; from their heads alone, unreadable ones left out."""
    found: Counter[tuple[int, int, str]] = Counter()
    with quiet_pillow():
        for path in paths:
            try:
                with Image.open(path) as image:
                    found[*image.size, image.mode] += 1
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
                continue
    return tuple(PictureSize(*size, count) for size, count in found.most_common())
