"""The cells of a design: which level of each factor a variant has, what it is called, and which settings that makes."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from convatlas.errors import UserError
from convatlas.models.configuration import model_name
from convatlas.models.families import FAMILIES
from convatlas.models.settings import keys_of
from convatlas.records.naming import short_name
from convatlas.records.run import Recipe
from convatlas.study.plan_file import Study, unknown_key

MOST_LEVELS = 200
MOST_VARIANTS = 1_000
LONGEST_NAME = 80
BASELINE = "baseline"
FIXED = ("model", "data", "data_fingerprint", "seed", "name", "validation", "parted", "skip_unreadable", "minutes", "code_sha256")
"""Settings of a recipe that no factor varies: they are the study's own, or would compare different questions."""
OF_MODELS = tuple(sorted({key for family in (None, *FAMILIES) for key in keys_of(family)}))
"""What may be set of some model."""
SETTINGS = tuple(field.name for field in fields(Recipe) if field.name not in FIXED)
OF_A_PLAN = (*SETTINGS, "data", "validation", "skip_unreadable", "minutes")
"""Settings that a plan's recipe may have, for all variants alike."""


@dataclass(frozen=True)
class Level:
    """One level of a factor: what it is called, and its value as the plan gives it. `named`: the label stands for itself."""

    label: str
    value: Any
    named: bool


Levels = Mapping[str, tuple[Level, ...]]
Cell = dict[str, Level]


def levels_of(study: Study, *, where: str) -> dict[str, tuple[Level, ...]]:
    """Each factor's levels, its name resolved (`norm` is `model.norm`). Raises UserError for a factor that nothing has."""
    if not study.factors:
        raise UserError(f"{where} has no factors", fix="Name at least one with its levels, such as `model: [a, b]`.")
    found = {}
    for name, given in study.factors.items():
        resolved = _resolved(name, where=where)
        if resolved in found:
            raise UserError(f"{where}: the factor {name!r} stands twice", fix="Name it once.")
        found[resolved] = _levels(resolved, given, where=f"{where}: factors: {name}")
    return found


def _resolved(name: str, *, where: str) -> str:
    """The factor's full name."""
    if name in ("model", "recipe") or name in SETTINGS:
        return name
    plain = name.removeprefix("model.")
    if plain in OF_MODELS:
        return f"model.{plain}"
    if name in FIXED:
        raise UserError(f"{where}: {name} cannot be a factor", fix="It is the same for all runs of a study.")
    known = ["model", "recipe", *SETTINGS, *(f"model.{key}" for key in OF_MODELS)]
    raise unknown_key(f"{where}: factors", name, known)


def _levels(factor: str, given: Any, *, where: str) -> tuple[Level, ...]:
    if isinstance(given, Mapping):
        levels = [Level(_printable(label, where), value, named=True) for label, value in given.items()]
    elif isinstance(given, (list, tuple)):
        levels = [Level(_label(factor, value, where), value, named=factor == "model") for value in given]
    else:
        raise UserError(f"{where} is {str(given)[:40]!r}", fix="Give a list of levels, or a mapping from labels to levels.")
    if not 1 <= len(levels) <= MOST_LEVELS:
        raise UserError(f"{where} has {len(levels)} levels", fix=f"Give 1 to {MOST_LEVELS}.")
    labels = [level.label for level in levels]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(f"{where} has the level {label!r} twice", fix="Name each once.")
    return tuple(levels)


def _label(factor: str, value: Any, where: str) -> str:
    if factor == "model":
        name = model_name(value, where=where)
        return name if len(name) <= LONGEST_NAME else short_name(name)
    if isinstance(value, Mapping):
        if factor != "recipe":
            raise UserError(f"{where} has a mapping for a level", fix="Give one value; several settings go under `recipe`.")
        return _printable(", ".join(f"{key}={_word(each)}" for key, each in value.items()), where)
    return _printable(_word(value), where)


def _word(value: Any) -> str:
    """A level as people write it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return "-".join(_word(each) for each in value)
    return "none" if value is None else str(value)


def _printable(label: str, where: str) -> str:
    if not label.strip() or not label.isprintable() or len(label) > LONGEST_NAME:
        raise UserError(f"{where}: {label[:40]!r} is no name for a level", fix=f"Give 1 to {LONGEST_NAME} printable letters.")
    return label


def cells_of(levels: Levels, design: str) -> list[Cell]:
    """The combinations of levels that are run: all of them, or the first level of each factor and each other level by itself.

    Raises UserError for more than anybody can run.
    """
    names = list(levels)
    many = math.prod(map(len, levels.values())) if design == "full" else sum(map(len, levels.values()))
    if many > MOST_VARIANTS:
        raise UserError(f"{many:,} variants are too many", fix=f"At most {MOST_VARIANTS:,}: take out levels, or one-at-a-time.")
    if design == "full":
        return [dict(zip(names, chosen, strict=True)) for chosen in itertools.product(*levels.values())]
    base = {name: levels[name][0] for name in names}
    return [base, *({**base, name: level} for name in names for level in levels[name][1:])]


def name_of(cell: Cell, levels: Levels, design: str) -> str:
    """What the variant is called: the labels of what varies, one at a time of what is not as in the baseline."""
    varied = [name for name in levels if len(levels[name]) > 1] or list(levels)[:1]
    if design != "full" and len(varied) > 1:
        varied = [name for name in varied if cell[name] != levels[name][0]]
        if not varied:
            return BASELINE
    return ", ".join(_part(name, cell[name]) for name in varied)


def _part(factor: str, level: Level) -> str:
    return level.label if level.named else f"{factor.removeprefix('model.')}={level.label}"


def check_names(names: Sequence[str], *, where: str) -> None:
    """Raise a UserError if two cells are called the same."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{where}: two variants are called {twice[0]!r}", fix="Give levels distinct labels, as a mapping.")


def settings_of(cell: Cell, *, where: str) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """What the cell sets: settings of the recipe, settings of the model, and the model itself (None: the study's)."""
    recipe: dict[str, Any] = {}
    model: dict[str, Any] = {}
    base: Any = None
    for factor, level in cell.items():
        if factor == "model":
            base = level.value
        elif factor.startswith("model."):
            model[factor.removeprefix("model.")] = level.value
        else:
            settings = _several(level, where=where) if factor == "recipe" else {factor: level.value}
            for key in settings:
                if key in recipe:
                    raise UserError(f"{where}: two factors set {key!r}", fix="Let one of them set it.")
            recipe.update(settings)
    return recipe, model, base


def _several(level: Level, *, where: str) -> Mapping[str, Any]:
    """The settings of a level of the factor `recipe`."""
    if not isinstance(level.value, Mapping):
        raise UserError(f"{where}: the level {level.label!r} of `recipe` is no mapping", fix="Give settings, such as {lr: 0.1}.")
    for key in level.value:
        if key not in SETTINGS:
            raise unknown_key(f"{where}: the level {level.label!r} of `recipe`", str(key), list(SETTINGS))
    return level.value
