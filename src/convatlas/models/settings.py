"""What may be set of a network by configuration: which keys, of which type and range, and what must fit together."""

from collections.abc import Mapping
from dataclasses import fields, replace
from math import isfinite
from typing import Any, get_args

from convatlas.errors import UserError, unknown_name
from convatlas.models.alterations import ACTIVATIONS, NORMS
from convatlas.models.families import FAMILIES, FAMILY_OF, structure_of

Settings = dict[str, Any]
"""Keys with their values: numbers, words, booleans, and lists of numbers."""

WORDS = {"act": tuple(ACTIVATIONS), "norm": NORMS}
"""Which words each worded key may have."""
RATES = ("dropout", "drop_path")
OUTSIDE = ("act", "dropout", "kernel_size", "norm")
"""Keys that work on any network, a user's own as well."""
ARGUMENTS = "with"
"""The key for what a factory in a user's file is given beside the number of classes, channels and pixels."""
FROM_DATA = ("num_classes", "in_chans", "image_size")
MOST_ARGUMENTS = 32
EVERYWHERE = (*OUTSIDE, "drop_path", "shortcut", "width")
"""Keys that every family takes or refuses with a reason."""
LARGEST_WIDTH = 64.0
"""Times as many channels."""
LARGEST_KERNEL = 31
RANGES: dict[str, tuple[float, float]] = {
    "border": (0, 16),
    "depth": (2, 3),
    "depths": (1, 500),
    "deviation": (1e-6, 10),
    "growth_rate": (1, 4096),
    "kernel5": (1, 31),
    "layer_scale": (0, 100),
    "pool5": (2, 3),
    "towers": (1, 64),
}
"""The least and the largest value of each structural key; those that are not here are widths."""
WIDTHS = (1, 65_536)
MOST_STAGES = 16


def keys_of(family: str | None) -> tuple[str, ...]:
    """The keys that networks of a family take; None: those of a user's own network."""
    return (*OUTSIDE, ARGUMENTS) if family is None else tuple(sorted((*EVERYWHERE, *structure_of(family))))


def checked(base: str, settings: Mapping[str, Any], *, where: str) -> Settings:
    """The settings of the variant (or user's own factory) `base`, each in its type: whole numbers become 1.0 where shares may be.

    A key whose value is None is left out: the network keeps its own. Raises UserError, which begins with `where`.
    """
    family = FAMILY_OF.get(base)
    known = keys_of(family)
    found: Settings = {}
    for key in sorted(settings, key=str):
        if key not in known:
            of = "a network from a file" if family is None else family
            own = "" if family else f"; what the factory itself takes goes under {ARGUMENTS}, such as {ARGUMENTS}: {{width: 32}}"
            raise unknown_name(f"setting of {of}", str(key), known, where=f"It has {', '.join(known)}{own}.")
        if settings[key] is not None:
            found[key] = _checked(family, key, settings[key], f"{where}: {key}")
    if family is not None:
        configuration(base, found)
    return found


def configuration(base: str, settings: Mapping[str, Any]) -> Any:
    """The family's own configuration of the variant `base`, with the settings that it holds. Raises UserError."""
    family = FAMILIES[FAMILY_OF[base]]
    config = family.variants[base]
    structure = structure_of(FAMILY_OF[base])
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in settings.items() if key in structure}
    if given:
        config = replace(config, **given)
        _check_stages(config, family.agreeing, base, given)
    if "drop_path" in settings and not _drops_paths(FAMILY_OF[base]):
        having = ", ".join(name for name in FAMILIES if _drops_paths(name))
        raise UserError(f"{base} has no drop path", fix=f"Leave drop_path out; {having} have it.")
    if "shortcut" in settings:
        config = _with_shortcuts(base, config, settings)
    if "width" in settings:
        if family.widened is None:
            raise UserError(f"{base} has no widths to multiply: it keeps its published size", fix="Leave width out.")
        config = family.widened(config, settings["width"])
    return config


def _drops_paths(family: str) -> bool:
    config = next(iter(FAMILIES[family].variants.values()))
    return not isinstance(config, type) and any(field.name == "drop_path" for field in fields(config))


def _with_shortcuts(base: str, config: Any, settings: Mapping[str, Any]) -> Any:
    change = FAMILIES[FAMILY_OF[base]].with_shortcuts
    if change is None:
        having = ", ".join(name for name, each in FAMILIES.items() if each.with_shortcuts is not None)
        raise UserError(f"{base} has no shortcuts that could be taken away", fix=f"Leave shortcut out; {having} have it.")
    if not settings["shortcut"] and settings.get("drop_path"):
        raise UserError("drop_path drops what shortcuts pass by, and shortcut is false", fix="Leave one of them out.")
    return change(config, settings["shortcut"])


def _check_stages(config: Any, agreeing: tuple[str, ...], base: str, given: Mapping[str, Any]) -> None:
    """Refuse lists of which each has one number for each stage, and that differ in length."""
    lengths = {key: len(getattr(config, key)) for key in agreeing}
    if len(set(lengths.values())) > 1:
        said = " and ".join(f"{key} has {n}{'' if key in given else f' as in {base}'}" for key, n in lengths.items())
        others = [key for key in agreeing if key not in given]
        fix = f"Give {' and '.join(others)} too, as long." if others else "Make them equally long."
        raise UserError(f"{said}, and both have one entry for each stage", fix=fix)


def _checked(family: str | None, key: str, value: Any, where: str) -> Any:
    if key in WORDS:
        if value not in WORDS[key]:
            raise unknown_name(key, str(value), WORDS[key], where=f"Known: {', '.join(WORDS[key])}.")
        return value
    if key == ARGUMENTS:
        return _arguments(value, where)
    if key == "shortcut":
        if not isinstance(value, bool):
            raise UserError(f"{where} is {value!r}", fix="Give true or false.")
        return value
    if key in RATES:
        return _number(float, value, (0, 1), where, end=False)
    if key == "kernel_size":
        return _odd(_number(int, value, (1, LARGEST_KERNEL), where), where)
    if key == "width":
        return _number(float, value, (1e-4, LARGEST_WIDTH), where)
    assert family is not None
    return _structural(structure_of(family)[key], key, value, where)


def _arguments(value: Any, where: str) -> Settings:
    """What a factory is given by name: numbers, words, booleans, and lists of them, which the name of a model can hold."""
    if not isinstance(value, Mapping) or not 1 <= len(value) <= MOST_ARGUMENTS:
        raise UserError(f"{where} is {_short(value)}", fix=f"Give names with values, such as {ARGUMENTS}: {{width: 32}}.")
    for name, each in value.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise UserError(f"{where}: {_short(name)} is no name of an argument", fix="Give names as Python has them.")
        if name in FROM_DATA:
            raise UserError(f"{where}: {name} is decided by the data", fix="Leave it out.")
        if not all(map(_is_plain, each if isinstance(each, (list, tuple)) else [each])):
            raise UserError(f"{where}: {name} is {_short(each)}", fix="Give a number, a word, true, false, or a list of them.")
    return {name: list(each) if isinstance(each, tuple) else each for name, each in sorted(value.items())}


def _is_plain(value: Any) -> bool:
    return isinstance(value, (bool, int, str)) or (isinstance(value, float) and isfinite(value))


def _structural(kind: Any, key: str, value: Any, where: str) -> Any:
    """A part of the family's configuration: a number, or a list of them."""
    limits = RANGES.get(key, WIDTHS)
    if kind in (int, float, float | None):
        number = _number(int if kind is int else float, value, limits, where)
        return _odd(number, where) if key == "kernel5" else number
    parts = get_args(kind)
    free = parts[-1] is Ellipsis
    wanted = "a list of 1 to 16" if free else f"a list of {len(parts)}"
    if not isinstance(value, (list, tuple)) or not (1 <= len(value) <= MOST_STAGES if free else len(value) == len(parts)):
        raise UserError(f"{where} is {_short(value)}", fix=f"Give {wanted}, such as [{', '.join(['16'] * min(len(parts), 3))}].")
    if parts[0] is bool:
        if not all(isinstance(each, bool) for each in value):
            raise UserError(f"{where} is {_short(value)}", fix="Give a list of true and false.")
        return list(value)
    return [_number(int, each, limits, f"{where}[{i}]") for i, each in enumerate(value)]


def _number(kind: type, value: Any, limits: tuple[float, float], where: str, *, end: bool = True) -> Any:
    """The value as a whole number or a float within the limits; without `end` the upper one is not among them."""
    low, high = limits
    fits = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    if not fits or not isfinite(value) or not low <= value <= high or (value == high and not end):
        what = "a whole number" if kind is int else "a number"
        upto = f"to {high:g}" if end else f"up to, but not including, {high:g}"
        raise UserError(f"{where} is {_short(value)}", fix=f"Give {what} from {low:g} {upto}.")
    return kind(value)


def _odd(number: int, where: str) -> int:
    if number % 2 == 0:
        raise UserError(f"{where} is {number}", fix="Give an odd number: only then a map can keep its size.")
    return number


def _short(value: Any) -> str:
    return repr(value)[:60]
