"""A folder of pictures: root/{train,val,test}/<class>/ or root/<class>/."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from convatlas.data.dataset import Reading
from convatlas.data.pictures import FORMATS, SUFFIXES, printable
from convatlas.data.readers.picture_files import SPLIT_NAMES, Listed, Progress, Request, read_listed
from convatlas.errors import UserError

_LITTER = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
_KNOWN = f"Pictures in {', '.join(FORMATS)}"
_KINDS = 5
"""So many kinds of files that are no pictures are told."""
_LAYOUT = "Arrange it as FOLDER/<class>/<pictures> or FOLDER/{train,val,test}/<class>/<pictures>."


def read_folder(root: Path, request: Request) -> Reading:
    """The pictures below `root` as requested, RGB. The names of its folders are the classes.

    Without split folders it is parted 70/15/15, class by class; without `test`, `val` serves as test. The same files and
    seed give the same splits on any machine. Raises UserError.
    """
    split_folders = _split_folders(root)
    others: Counter[str] = Counter()
    listed = {split: _by_class(folder, others, request.progress) for split, folder in split_folders.items()}
    classes = _classes(listed, root, fewest=request.fewest_classes)
    splits = {
        split: [
            Listed(path, record_name(path.relative_to(root)), classes.index(name))
            for name, paths in by_class.items()
            for path in paths
        ]
        for split, by_class in listed.items()
    }
    return read_listed(splits, classes, what="a folder of pictures", request=request, remark=_left_out(others))


def _left_out(others: Mapping[str, int]) -> str:
    """Which files beside the pictures were not read, kind by kind."""
    kinds = [f"{count} {printable(kind) or 'without an ending'}" for kind, count in sorted(others.items())]
    return f"files of other kinds left out: {', '.join(kinds[:_KINDS])}{', ...' if len(kinds) > _KINDS else ''}" if kinds else ""


def _split_folders(root: Path) -> dict[str, Path]:
    """The folder of each split; one called "train", the root itself, if there are no split folders."""
    folders, pictures = contents(root)
    named: dict[str, Path] = {}
    for folder in folders:
        split = SPLIT_NAMES.get(folder.name.lower())
        if split in named:
            raise UserError(f"{printable(root)} has two {split} folders, {named[split].name} and {folder.name}", fix="Keep one.")
        if split is not None:
            named[split] = folder
    if "train" not in named:
        if not folders:
            raise _no_classes(root, len(pictures))
        if len(named) == len(folders):
            raise UserError(f"{printable(root)} has {' and '.join(named)} but no folder train", fix=_LAYOUT)
        return {"train": root}
    strays = [folder.name for folder in folders if folder not in named.values()]
    if strays:
        where = f"{printable(root)} mixes split folders ({', '.join(named)}) with others ({printable(', '.join(strays[:3]))})"
        raise UserError(where, fix=_LAYOUT)
    return named


def _by_class(folder: Path, others: Counter[str], progress: Progress | None) -> dict[str, list[Path]]:
    """Class name (NFC) -> its picture files, in the folder of one split. `others` counts the kinds of files beside them."""
    class_folders, pictures = contents(folder)
    if not class_folders:
        raise _no_classes(folder, len(pictures))
    if pictures:
        where = f"{printable(folder)} has pictures beside its class folders, such as {printable(pictures[0].name)}"
        raise UserError(where, fix="Move each into the folder of its class.")
    found: dict[str, list[Path]] = {}
    for class_folder in _counted(class_folders, progress):
        name = unicodedata.normalize("NFC", class_folder.name)
        if not name.isprintable():
            where = f"the class folder {printable(class_folder)} has a name with bytes or marks that are no text"
            raise UserError(where, fix="Rename it.")
        twin = next((other for other in found if other.casefold() == name.casefold()), None)
        if twin is not None:
            where = f"{printable(folder)} has two folders for one class, {printable(twin)!r} and {printable(class_folder.name)!r}"
            raise UserError(where, fix="Merge them, or give them names that differ by more than case or Unicode form.")
        found[name] = _pictures_of(class_folder, others)
    if not any(found.values()):
        what = f"{printable(folder)} has folders but no pictures in them"
        raise UserError(f"{what} ({_left_out(others)})" if others else what, fix=f"{_KNOWN} are read." if others else _LAYOUT)
    for name, paths in found.items():
        if not paths:
            raise UserError(
                f"the class {printable(name)!r} in {printable(folder)} has no pictures", fix=f"Add some. {_KNOWN} are read."
            )
    return found


def _counted(class_folders: Sequence[Path], progress: Progress | None) -> Iterator[Path]:
    """The folders, while `progress` is told how many are listed: one with a hundred thousand files takes a second."""
    tell = progress or (lambda what, done, total: None)
    for i, class_folder in enumerate(class_folders):
        tell("folders", i, len(class_folders))
        yield class_folder
    tell("folders", len(class_folders), len(class_folders))


def _pictures_of(class_folder: Path, others: Counter[str]) -> list[Path]:
    nested, files = _seen(class_folder)
    if nested:
        _refuse_rounds(class_folder, nested[0])
        where = f"the class folder {printable(class_folder)} holds folders itself, such as {printable(nested[0].name)}"
        raise UserError(where, fix=_LAYOUT)
    pictures = _pictures(files)
    if len(pictures) < len(files):
        others.update(kind for kind in (file.suffix.lower() for file in files) if kind not in SUFFIXES)
    return pictures


def _refuse_rounds(*folders: Path) -> None:
    """Name a link that leads back to a folder above it, rather than what is found by following it."""
    for folder in folders:
        above, target = folder.parent.resolve(), folder.resolve()
        if folder.is_symlink() and target in (above, *above.parents):
            raise UserError(f"{printable(folder)} is a link that leads back to {printable(target)}", fix="Remove the link.")


def contents(folder: Path) -> tuple[list[Path], list[Path]]:
    """The sub-folders and the files named like pictures, each in order; hidden ones and what systems strew about left out."""
    folders, files = _seen(folder)
    return folders, _pictures(files)


def _pictures(files: Sequence[Path]) -> list[Path]:
    return [file for file in files if file.suffix.lower() in SUFFIXES]


def _seen(folder: Path) -> tuple[list[Path], list[Path]]:
    """The sub-folders and all other files of a folder, each in order of name, but for hidden ones and litter."""
    if not folder.is_dir():
        reason = "is no folder" if folder.exists() else "does not exist"
        raise UserError(f"{printable(folder)} {reason}", fix="Name the folder that holds the pictures.")
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{printable(folder)} cannot be read: {error.strerror}", fix="Check its permissions.") from None
    folders: list[Path] = []
    files: list[Path] = []
    for entry in entries:
        if not entry.name.startswith(".") and entry.name.lower() not in _LITTER:
            (folders if _is_folder(entry) else files).append(Path(entry.path))
    return folders, files


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link that leads round in a circle; reading it will name it.
        return False


def _classes(listed: Mapping[str, Mapping[str, list[Path]]], root: Path, *, fewest: int) -> tuple[str, ...]:
    """The class names in order, the same in every split and not too few."""
    names = set(listed["train"])
    for split, by_class in listed.items():
        odd = sorted(names ^ set(by_class))
        if odd:
            lacking, has = (split, "train") if odd[0] in names else ("train", split)
            like = [name for name in odd[1:] if name.casefold() == odd[0].casefold()]
            fix = f"Add pictures of it there, or take it out of {has}."
            if like:
                fix = f"{has} calls it {printable(like[0])!r}: give both folders one name."
            raise UserError(f"the class {printable(odd[0])!r} is missing from {lacking} in {printable(root)}", fix=fix)
    if len(names) < fewest:
        where = f"{printable(root)} has one class only, {printable(next(iter(names)))!r}"
        raise UserError(where, fix=f"A classifier needs two or more. {_LAYOUT}")
    return tuple(sorted(names))


def _no_classes(folder: Path, pictures: int) -> UserError:
    if pictures:
        return UserError(f"{printable(folder)} has {pictures} pictures but no class folders", fix=_LAYOUT)
    return UserError(f"{printable(folder)} has no pictures", fix=_LAYOUT)


def record_name(path: Path) -> str:
    """A relative path as records keep it: NFC, forward slashes, and escapes for bytes that are no text."""
    text = unicodedata.normalize("NFC", path.as_posix())
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
