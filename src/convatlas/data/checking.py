"""A data set looked over before anything is trained on it: `check_data` finds, and changes nothing."""

import base64
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from torch import Tensor

import convatlas
from convatlas.data.class_table import class_rows
from convatlas.data.dataset import DataSet, ImageSet
from convatlas.data.duplicates import NEIGHBOURS, SMALLEST, THRESHOLD, Progress, Twin, blank, digests, exact_twins, near_twins
from convatlas.data.loading import PICTURE_SIZE, load_data
from convatlas.data.pictures import printable, quiet_pillow, read_picture
from convatlas.data.readers.folder_survey import Survey, listed, names, survey_folder
from convatlas.data.readers.picture_files import CHANNELS, Request, read_listed
from convatlas.errors import UserError
from convatlas.records.data_check import (
    EXACT,
    NEAR,
    ClassRow,
    DataCheck,
    Example,
    Finding,
    Pair,
    PictureSize,
    Place,
    Relation,
    Unreadable,
)

EXAMPLES = 60
"""So many pairs of each relation are kept with their pictures."""
MOST_PAIRS = 50_000
"""So many pairs are kept; where there are more, the surest."""
_SIZES = 8
_SHOWN_SIDE = 64
_SEARCHED = ("train", "val", "test")


@dataclass(frozen=True)
class _Gathered:
    """What could be read: splits with their images, and what was found on the way. `refused` says why there are none."""

    description: str
    classes: tuple[str, ...]
    sets: dict[str, ImageSet]
    fingerprint: str
    files: Mapping[str, Sequence[str]] | None
    skipped: tuple[str, ...]
    paths: dict[str, Path]
    counts: dict[str, dict[str, int]]
    findings: list[Finding] = field(default_factory=list)
    refused: str | None = None


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
    read as far as it goes, and what is wrong with it is a finding. `near` looks for near duplicates too, which takes a minute or two for
    60,000 images; `mirrored` counts mirror images among them. Raises UserError for a data set that does not exist or has no images.
    """
    started = time.perf_counter()
    gathered = _gather(name, root, image_size=image_size, verify=verify, progress=progress)
    hashed = {split: digests(images.images) for split, images in gathered.sets.items()}
    blanks = {split: set(blank(images.images)) for split, images in gathered.sets.items()}
    twins = exact_twins(hashed, blanks)
    threshold, how = _how(gathered, near=near, mirrored=mirrored)
    if threshold is not None:
        images = {split: each.images for split, each in gathered.sets.items()}
        twins += near_twins(images, hashed, blanks, mirrored=mirrored, progress=progress)
    pairs = sorted((_pair(gathered, twin) for twin in twins), key=lambda pair: -pair.likeness)
    relations = _relations(gathered, pairs)
    rows = class_rows(gathered.counts, {split: len(each) for split, each in gathered.sets.items()})
    blank_places = tuple(_place(gathered, split, index) for split, each in blanks.items() for index in sorted(each))
    unreadable = tuple(_reason(gathered, file) for file in gathered.skipped)
    sizes = _picture_sizes(gathered.paths)
    found = (
        *gathered.findings,
        *_duplicate_findings(relations),
        *_class_findings(rows),
        *_file_findings(gathered, unreadable, blank_places, sizes, len(pairs)),
    )
    return DataCheck(
        data=name,
        description=gathered.description,
        fingerprint=gathered.fingerprint,
        convatlas=convatlas.__version__,
        refused=gathered.refused,
        image=next((tuple(each.images.shape[1:]) for each in gathered.sets.values()), ()),
        splits={split: len(each) for split, each in gathered.sets.items()},
        classes=rows,
        relations=relations,
        pairs=tuple(pairs[:MOST_PAIRS]),
        examples=_examples(gathered, pairs, relations),
        blank=blank_places,
        unreadable=unreadable,
        sizes=sizes[:_SIZES],
        findings=found,
        threshold=threshold,
        near=how,
        seconds=time.perf_counter() - started,
        verdict=_verdict(gathered, relations, found, threshold),
    )
