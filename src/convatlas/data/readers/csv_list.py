"""A CSV list of pictures with the columns path, label and, if present, split."""

import csv
import io
import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from convatlas.data.dataset import Reading
from convatlas.data.pictures import printable
from convatlas.data.readers.picture_files import SPLIT_NAMES, Listed, Request, read_listed
from convatlas.errors import UserError

_HEADER = "Its first line must be path,label or path,label,split."
_MAX_BYTES = 200_000_000


def read_csv_list(root: Path, request: Request) -> Reading:
    """The pictures listed in the CSV file `root` as requested, RGB; paths are relative to the file, or whole.

    All lie below the file's folder, which is told by their names alone, without following links; records have them relative.
    Splits as for an image folder: without the column `split`, 70/15/15; without test rows, val serves as test. Raises UserError.
    """
    rows = _rows(root)
    classes = tuple(sorted({row["label"] for row in rows}))
    if len(classes) < request.fewest_classes:
        raise UserError(f"{printable(root)} has one class only, {printable(classes[0])!r}", fix="A classifier needs two or more.")
    splits: dict[str, list[Listed]] = {}
    for row in rows:
        listed = Listed(root.parent / row["path"], row["path"], classes.index(row["label"]))
        splits.setdefault(row["split"], []).append(listed)
    _check_splits(splits, classes, root)
    return read_listed(splits, classes, what="a list of pictures", request=request)


def _rows(path: Path) -> list[dict[str, str]]:
    """Each row's path, label and split ("train" where there is no such column), checked."""
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    rows, seen, folders = [], set(), _names_of(path.parent)
    try:
        columns = [name.strip().lower() for name in reader.fieldnames or ()]
        missing = [name for name in ("path", "label") if name not in columns]
        if missing:
            found = printable(", ".join(columns)[:80]) or "nothing"
            fix = "Separate the columns by commas, not by semicolons." if ";" in found else _HEADER
            raise UserError(f"{printable(path)} lacks the column {missing[0]!r} (found: {found})", fix=fix)
        reader.fieldnames = columns
        for raw in reader:
            row = _checked(raw, path, folders, line=reader.line_num)
            if row["path"] in seen:
                where = f"{printable(path)} line {reader.line_num}"
                raise UserError(f"{where} lists {printable(row['path'])} again", fix="Keep one row.")
            seen.add(row["path"])
            rows.append(row)
    except csv.Error as error:
        raise UserError(f"{printable(path)} line {reader.reader.line_num} is no CSV: {error}", fix="Mend that line.") from None
    if not rows:
        raise UserError(f"{printable(path)} lists no pictures, it has a header only", fix="Add rows of path,label.")
    return rows


def _text(path: Path) -> str:
    if not path.is_file():
        reason = "is no regular file" if path.exists() else "does not exist"
        raise UserError(f"{printable(path)} {reason}", fix="Name the CSV file that lists the pictures.")
    if path.stat().st_size > _MAX_BYTES:
        raise UserError(f"{printable(path)} has {path.stat().st_size:,} bytes, too many for a list", fix="Split it.")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{printable(path)} is not UTF-8 text", fix="Save it as CSV in UTF-8.") from None
    except OSError as error:
        raise UserError(f"{printable(path)} cannot be read: {error.strerror}", fix="Check its permissions.") from None


def _names_of(folder: Path) -> tuple[str, ...]:
    """The whole path of the list's folder as it was named, and as it is called where that went by a link."""
    return os.path.normpath(folder.absolute()), str(folder.resolve())


def _below(picture: str, folders: Sequence[str]) -> str | None:
    """The path of a picture relative to the list's folder, which has these names; None if it lies elsewhere, or leads up by .."""
    path = PurePosixPath(picture)
    if not path.is_absolute():
        return None if ".." in path.parts else path.as_posix()
    whole = Path(os.path.normpath(picture))
    for folder in folders:
        if whole.is_relative_to(folder):
            return whole.relative_to(folder).as_posix()
    return None


def _checked(raw: Mapping[str | None, str | None], path: Path, folders: Sequence[str], *, line: int) -> dict[str, str]:
    where = f"{printable(path)} line {line}"
    if None in raw:
        raise UserError(f"{where} has more fields than the header", fix="Quote fields that contain commas.")
    picture, label, split = ((raw.get(key) or "").strip() for key in ("path", "label", "split"))
    label = unicodedata.normalize("NFC", label)
    if not picture or not label:
        raise UserError(f"{where} has no {'path' if not picture else 'label'}", fix="Fill it in or remove the line.")
    if label.startswith("-") and label[1:].isdigit():
        raise UserError(f"{where} has the label {label}, which usually means unlabelled", fix="Remove it or name the class.")
    relative = _below(picture, folders)
    if relative is None:
        why = "" if picture.startswith("/") else "which leads up by .. and counts as "
        what = f"{where} names {printable(picture)}, {why}not below the list's folder {printable(folders[0])}"
        raise UserError(what, fix="Use paths relative to the file, or put it above the pictures.")
    if "split" in raw and split.lower() not in SPLIT_NAMES:
        raise UserError(f"{where} has the split {printable(split)!r}", fix="Use train, val or test.")
    if "\0" in picture or not (path.parent / relative).is_file():
        fix = "Write / between folders." if "\\" in picture else "Mend it; it is relative to the CSV file."
        raise UserError(f"{where} names {printable(picture)}, which is no file", fix=fix)
    return {"path": relative, "label": label, "split": SPLIT_NAMES[split.lower()] if "split" in raw else "train"}


def _check_splits(splits: Mapping[str, list[Listed]], classes: tuple[str, ...], path: Path) -> None:
    """Training needs every class; the other splits may lack some."""
    seen = {listed.label for listed in splits.get("train", [])}
    for label, name in enumerate(classes):
        if label not in seen:
            raise UserError(f"{printable(path)} has no train rows of class {printable(name)!r}", fix="Add some.")
