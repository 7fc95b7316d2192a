"""A data set read for a check: as far as it goes, where `load_data` refuses it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from convatlas.data.dataset import ImageSet
from convatlas.data.loading import PICTURE_SIZE, load_data
from convatlas.data.readers.folder_survey import Survey, listed, names, survey_folder
from convatlas.data.readers.picture_files import Request, read_listed
from convatlas.errors import UserError
from convatlas.records.data_check import Finding, Place

Counts = dict[str, dict[str, int]]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Gathered:
    """What could be read of a data set, and what was found on the way.

    `sets` has the images of each split that has any; `counts`, for each class, how many each split has, even if the class could
    not be used. `files` names the file of each image, for data that comes as files, and `paths` says where the files lie.
    `refused` says why nothing could be read, and is None if something was.
    """

    description: str
    fingerprint: str
    classes: tuple[str, ...]
    sets: dict[str, ImageSet]
    counts: Counts
    files: Mapping[str, Sequence[str]] | None
    paths: Mapping[str, Path]
    skipped: tuple[str, ...]
    findings: tuple[Finding, ...]
    refused: str | None = None

    def place(self, split: str, index: int) -> Place:
        """The image `index` of `split`, as records name it."""
        label = self.classes[int(self.sets[split].labels[index])]
        return Place(split, index, label, None if self.files is None else self.files[split][index])


def gather(name: str, root: Path | None, *, image_size: int | None, verify: bool, progress: Progress | None) -> Gathered:
    """The data set `name`, unreadable files left out. Nothing is held out for validation that is not a split of the data's own.

    Raises UserError where there is nothing to check: an unknown name, no such place, no pictures.
    """
    surveyed = survey_folder(root) if name == "folder" and root is not None else None
    if surveyed is not None and surveyed.findings:
        assert root is not None
        return _as_far_as_it_goes(surveyed, root, image_size or PICTURE_SIZE, progress)
    try:
        data = load_data(
            name, root=root, image_size=image_size, validation=0, skip_unreadable=True, verify=verify, progress=progress
        )
    except UserError as error:
        if surveyed is None or root is None:
            raise
        return _refused(surveyed, error)
    sets = {"train": data.train, "val": data.val, "test": data.test}
    paths = {} if root is None or data.split is None else _paths(name, root, data.split, data.skipped)
    return Gathered(
        description=data.description,
        fingerprint=data.fingerprint,
        classes=data.classes,
        sets={split: images for split, images in sets.items() if len(images)},
        counts=_counted(data.classes, sets),
        files=data.split,
        paths=paths,
        skipped=data.skipped,
        findings=(),
    )


def _as_far_as_it_goes(surveyed: Survey, root: Path, size: int, progress: Progress | None) -> Gathered:
    """The pictures of the classes that train has, and what is wrong with the folder."""
    splits, classes = listed(surveyed, root)
    request = Request(root, size, validation=0, seed=0, skip_unreadable=True, progress=progress)
    try:
        reading = read_listed(splits, classes, what="a folder of pictures", request=request)
    except UserError as error:
        return _refused(surveyed, error)
    sets = {"train": reading.train, "val": reading.val or reading.train.subset([]), "test": reading.test}
    counts = _counted(classes, sets)
    left_out = [name for name in surveyed.classes if name not in classes]
    for name in left_out:
        counts[name] = {split: len(by_class.get(name, ())) for split, by_class in surveyed.splits.items()}
    findings = list(surveyed.findings)
    pictures = sum(sum(counts[name].values()) for name in left_out)
    if pictures:
        text = f"{pictures:,} pictures of classes that train lacks were not looked at: {names(left_out)}."
        findings.append(Finding("classes without training pictures", text))
    return Gathered(
        description=reading.description,
        fingerprint=reading.fingerprint,
        classes=classes,
        sets={split: images for split, images in sets.items() if len(images)},
        counts=counts,
        files=reading.split,
        paths={each.name: each.path for members in splits.values() for each in members},
        skipped=reading.skipped,
        findings=tuple(findings),
    )


def _refused(surveyed: Survey, error: UserError) -> Gathered:
    """What the folders alone tell, where their pictures cannot be used."""
    counts = {
        name: {split: len(by_class.get(name, ())) for split, by_class in surveyed.splits.items()} for name in surveyed.classes
    }
    return Gathered(
        description="a folder of pictures",
        fingerprint="",
        classes=surveyed.classes,
        sets={},
        counts=counts,
        files=None,
        paths={},
        skipped=(),
        findings=(*surveyed.findings, Finding("cannot be used", f"{error.what}.")),
        refused=str(error),
    )


def _counted(classes: Sequence[str], sets: Mapping[str, ImageSet]) -> Counts:
    seen = {split: images.labels.bincount(minlength=len(classes)).tolist() for split, images in sets.items() if len(images)}
    return {name: {split: each[index] for split, each in seen.items()} for index, name in enumerate(classes)}


def _paths(name: str, root: Path, split: Mapping[str, Sequence[str]], skipped: Sequence[str]) -> dict[str, Path]:
    """Where the files lie that records name. Names are in one Unicode form, and those of other forms are not found again."""
    folder = root.parent if name == "csv" else root
    found = {each: folder / each for members in (*split.values(), skipped) for each in members}
    return {each: path for each, path in found.items() if path.is_file()}
