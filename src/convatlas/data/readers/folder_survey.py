"""A folder of pictures as it lies there, whatever is wrong with its layout: what `read_folder` refuses is a finding here."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from convatlas.data.pictures import printable
from convatlas.data.readers.folder import contents, record_name
from convatlas.data.readers.picture_files import SPLIT_NAMES, Listed
from convatlas.errors import UserError
from convatlas.records.data_check import Finding

_NAMED = 5
"""So many names stand in a sentence; the others are counted."""


@dataclass(frozen=True)
class Survey:
    """What lies in a folder: for each split the pictures of each class, and what is wrong with the layout.

    Folders whose names differ only by case or Unicode form are one class here, under the name that comes first.
    """

    splits: dict[str, dict[str, list[Path]]]
    findings: tuple[Finding, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that any split has, in order."""
        return tuple(sorted({name for by_class in self.splits.values() for name in by_class}))

    @property
    def pictures(self) -> tuple[Path, ...]:
        """All pictures, split by split."""
        return tuple(path for by_class in self.splits.values() for paths in by_class.values() for path in paths)


def survey_folder(root: Path) -> Survey:
    """What lies below `root`. Raises UserError if that is no folder, cannot be read, or has no picture in any class folder."""
    findings: list[Finding] = []
    splits = {split: _by_class(folder, findings) for split, folder in _split_folders(root, findings).items()}
    splits = _one_name_each(splits, findings)
    surveyed = Survey(splits, (*findings, *_differences(splits)))
    if not surveyed.pictures:
        raise UserError(f"{printable(root)} has no pictures in class folders", fix="Arrange it as FOLDER/<class>/<pictures>.")
    if len(surveyed.classes) == 1:
        one = Finding("one class", f"There is one class only, {printable(surveyed.classes[0])!r}: nothing can be told apart.")
        return Survey(splits, (*surveyed.findings, one))
    return surveyed


def listed(surveyed: Survey, root: Path) -> tuple[dict[str, list[Listed]], tuple[str, ...]]:
    """The pictures of the classes that train has, as `read_listed` takes them, and those classes."""
    classes = tuple(sorted(name for name, paths in surveyed.splits["train"].items() if paths))
    splits = {
        split: [
            Listed(path, record_name(path.relative_to(root)), classes.index(name))
            for name, paths in by_class.items()
            if name in classes
            for path in paths
        ]
        for split, by_class in surveyed.splits.items()
    }
    return splits, classes


def names(these: Sequence[str]) -> str:
    """Names for a sentence: the first few, and how many more there are."""
    more = f" and {len(these) - _NAMED:,} more" if len(these) > _NAMED else ""
    return ", ".join(repr(printable(each)) for each in these[:_NAMED]) + more


def _split_folders(root: Path, findings: list[Finding]) -> dict[str, Path]:
    """The folder of each split; the root itself as "train" where none is called so."""
    folders, pictures = contents(root)
    found: dict[str, Path] = {}
    for folder in folders:
        split = SPLIT_NAMES.get(folder.name.lower())
        if split in found:
            text = f"There are two {split} folders, {names([found[split].name, folder.name])}; the second is left out."
            findings.append(Finding("two folders for one split", text))
        elif split is not None:
            found[split] = folder
    if "train" not in found:
        _stray(root, pictures, findings)
        return {"train": root}
    strays = [folder.name for folder in folders if SPLIT_NAMES.get(folder.name.lower()) is None]
    if strays:
        text = f"Beside the split folders ({', '.join(found)}) lie others, which are left out: {names(strays)}."
        findings.append(Finding("mixed layout", text))
    _stray(root, pictures, findings)
    return {split: found[split] for split in ("train", "val", "test") if split in found}


def _stray(folder: Path, pictures: Sequence[Path], findings: list[Finding]) -> None:
    if pictures:
        many = "1 picture lies" if len(pictures) == 1 else f"{len(pictures):,} pictures lie"
        text = f"{many} in {printable(folder)} itself, in no class, and {'is' if len(pictures) == 1 else 'are'} left out."
        findings.append(Finding("pictures without a class", text))


def _by_class(folder: Path, findings: list[Finding]) -> dict[str, list[Path]]:
    """Class name (NFC) -> its pictures, in the folder of one split."""
    class_folders, pictures = contents(folder)
    if folder.name.lower() in SPLIT_NAMES:
        _stray(folder, pictures, findings)
    found: dict[str, list[Path]] = {}
    for class_folder in class_folders:
        name = printable(unicodedata.normalize("NFC", class_folder.name))
        nested, own = contents(class_folder)
        if nested:
            text = f"The class folder {printable(class_folder)} holds folders itself, which are left out: "
            findings.append(Finding("nested folders", f"{text}{names([each.name for each in nested])}."))
        if not own:
            findings.append(Finding("empty class", f"The class {name!r} in {printable(folder)} has no pictures."))
        if name in found:
            findings.append(_twins(folder, name, class_folder.name))
        found.setdefault(name, []).extend(own)
    return found


def _twins(where: Path | str, one: str, other: str) -> Finding:
    text = f"{printable(where)} has two folders for one class, {names([one, other])}: they differ by case or Unicode form only."
    return Finding("names equal but for case or Unicode form", text)


def _one_name_each(splits: Mapping[str, Mapping[str, list[Path]]], findings: list[Finding]) -> dict[str, dict[str, list[Path]]]:
    """The splits with classes merged whose names differ by case only, within a split or across."""
    known: dict[str, str] = {}
    merged: dict[str, dict[str, list[Path]]] = {}
    for split, by_class in splits.items():
        merged[split] = {}
        for name, paths in by_class.items():
            first = known.setdefault(name.casefold(), name)
            if first != name:
                within = first in by_class
                text = f"One class is called {first!r} and {name!r}, which differ by case only"
                text = f"{text}, {f'both in {split}' if within else f'the latter in {split}'}."
                findings.append(Finding("names equal but for case or Unicode form", text))
            merged[split].setdefault(first, []).extend(paths)
    return merged


def _differences(splits: Mapping[str, Mapping[str, Sequence[Path]]]) -> list[Finding]:
    """Class folders that some splits have and others lack."""
    every = {name for by_class in splits.values() for name in by_class}
    found = []
    for split, by_class in splits.items():
        lacking = sorted(every - set(by_class))
        if lacking:
            others = [other for other in splits if set(lacking) & set(splits[other])]
            have = f"{' and '.join(others)} {'has' if len(others) == 1 else 'have'}"
            text = f"{split} has no folder for {names(lacking)}, which {have}."
            found.append(Finding("class folders differ", text))
    return found
