"""Frozen dataclasses to JSON and back. Reading is strict: an unknown, missing or mistyped key is a UserError that names it."""

import dataclasses
import difflib
import json
import math
import sys
import types
import typing
from pathlib import Path
from stat import S_ISREG
from typing import Any, TypeVar

from convatlas.errors import UserError

T = TypeVar("T")
LARGEST = sys.float_info.max
MOST_BYTES = 64 * 2**20
"""A file of records has far fewer."""


def to_plain(record: Any) -> Any:
    """A record (or a tuple, dict or number within one) as what JSON can hold. NaN and infinities become null."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {field.name: to_plain(getattr(record, field.name)) for field in dataclasses.fields(record)}
    if isinstance(record, dict):
        return {key: to_plain(value) for key, value in record.items()}
    if isinstance(record, (list, tuple)):
        return [to_plain(value) for value in record]
    if isinstance(record, float) and not math.isfinite(record):
        return None
    return record


def to_text(record: Any) -> str:
    """A record as indented JSON, ending in a newline."""
    return json.dumps(to_plain(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_line(record: Any) -> str:
    """A record as one line of JSON, ending in a newline."""
    return json.dumps(to_plain(record), ensure_ascii=False, allow_nan=False) + "\n"


def from_plain(kind: type[T], data: object, *, where: str) -> T:
    """The record of class `kind` that `data` (parsed JSON) holds. `where` names the file in error messages."""
    return typing.cast(T, _convert(kind, data, where))


def from_text(kind: type[T], text: str, *, where: str) -> T:
    """The record of class `kind` that JSON `text` holds. `where` names the file in error messages."""
    try:
        data = json.loads(text, object_pairs_hook=_once_each, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON: {error}", fix="It may be torn or from another program.") from None
    return from_plain(kind, data, where=where)


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, whose keys stand in it once."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in names if names.count(key) > 1)!r} stands in it twice")
    return found


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON's")


def read(kind: type[T], path: Path) -> T:
    """The record of class `kind` in the JSON file `path`, UTF-8 with or without a byte order mark."""
    return from_text(kind, text_of(path), where=str(path))


def text_of(path: Path) -> str:
    """The text of a regular file of moderate size. Raises UserError; a pipe would be waited for for ever."""
    try:
        status = path.stat()
        if not S_ISREG(status.st_mode):
            raise UserError(f"{path} is no regular file", fix="Check the path.")
        if status.st_size > MOST_BYTES:
            raise UserError(f"{path} has {status.st_size:,} bytes, too many for such a file", fix="Check the path.")
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist", fix="Check the path.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}", fix="It is damaged, or not the file meant.") from None


def _convert(kind: Any, value: Any, where: str) -> Any:
    """`value` as type `kind`, for the few kinds that records are made of."""
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        return _convert_optional(kind, value, where)
    if dataclasses.is_dataclass(kind):
        return _convert_record(kind, value, where)
    if origin is tuple:
        _expect(isinstance(value, list), kind, value, where)
        item = typing.get_args(kind)[0]
        return tuple(_convert(item, each, f"{where}[{i}]") for i, each in enumerate(value))
    if origin is dict:
        _expect(isinstance(value, dict), kind, value, where)
        item = typing.get_args(kind)[1]
        return {key: _convert(item, each, f"{where}.{key}") for key, each in value.items()}
    if kind is float:
        number = not isinstance(value, bool) and isinstance(value, (int, float)) and -LARGEST <= value <= LARGEST
        _expect(number, kind, value, where)
        return float(value)
    if kind is str:
        _expect(isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value), kind, value, where)
    _expect(type(value) is kind, kind, value, where)
    return value


def _convert_optional(kind: Any, value: Any, where: str) -> Any:
    if value is None:
        return None
    (inner,) = (each for each in typing.get_args(kind) if each is not type(None))
    return _convert(inner, value, where)


def _convert_record(kind: Any, value: Any, where: str) -> Any:
    _expect(isinstance(value, dict), kind, value, where)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in value:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            guess = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(fields)}."
            raise UserError(f"{where} has an unknown key {key!r}", fix=guess)
    hints = typing.get_type_hints(kind)
    arguments = {}
    for name, field in fields.items():
        if name in value:
            arguments[name] = _convert(hints[name], value[name], f"{where}: {name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"{where} lacks the key {name!r}", fix="It may be torn or from another version.")
    return kind(**arguments)


def _expect(fits: bool, kind: Any, value: Any, where: str) -> None:
    if not fits:
        wanted = getattr(kind, "__name__", str(kind)) if typing.get_origin(kind) is None else str(kind)
        raise UserError(f"{where} is {str(value)[:60]!r}, which is no {wanted}", fix="Mend the value.")
