"""What all variants have equal: parameters, multiplications, steps or time. Whatever cannot be made so is refused."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from convatlas.data.batches import batches_in_epoch
from convatlas.data.dataset import DataSet
from convatlas.errors import UserError
from convatlas.records.plan import Held
from convatlas.records.run import Recipe
from convatlas.study.plan_file import unknown_key
from convatlas.training.matching import MEASURES, width_for
from convatlas.training.prepare import costs

TOLERANCE = 0.02
HELD = (*MEASURES, "steps", "minutes")
FIRST = "first"
"""In place of a number: what the first variant has."""


@dataclass(frozen=True)
class Sized:
    """A variant's recipe with its costs; `width` was found so that they are what is held."""

    recipe: Recipe
    params: int
    macs: int
    width: float | None = None


def held_of(given: Mapping[str, Any], *, where: str) -> tuple[dict[str, float | str], float]:
    """What is to be held, with its target (a number, or "first"), and the tolerance, as a share. Raises UserError."""
    where = f"{where}: hold"
    for key in given:
        if key not in (*HELD, "tolerance"):
            raise unknown_key(where, str(key), [*HELD, "tolerance"])
    tolerance = given.get("tolerance", TOLERANCE)
    if not _number(tolerance) or not 0 <= tolerance < 1:
        raise UserError(f"{where}: tolerance is {str(tolerance)[:40]!r}", fix="Give a share, such as 0.02.")
    targets: dict[str, float | str] = {key: value for key, value in given.items() if key != "tolerance"}
    if {"steps", "minutes"} <= set(targets):
        raise UserError(f"{where}: steps and minutes cannot both be equal", fix="Hold one of them.")
    for key, value in targets.items():
        named = value == FIRST and key != "minutes"
        if not named and not (_number(value) and 0 < float(value) < 1e18):
            fix = "Give a number above 0." if key == "minutes" else "Give a number above 0, or `first` for the first variant's."
            raise UserError(f"{where}: {key} is {str(value)[:40]!r}", fix=fix)
    return targets, float(tolerance)


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def sized(recipe: Recipe, data: DataSet) -> Sized:
    """The recipe with its network's costs on the data's images."""
    params, macs = costs(recipe.model, **_images(data))
    return Sized(recipe, params, macs)


def held_equal(name: str, variant: Sized, data: DataSet, *, held: tuple[Held, ...], may_widen: bool) -> Sized:
    """The variant with the width and the epochs that make equal what is held. Raises UserError, with what was reached."""
    for each in held:
        if each.what in MEASURES:
            variant = _with_width(name, variant, data, each, may_widen=may_widen)
    for each in held:
        if each.what == "steps":
            variant = replace(variant, recipe=_with_steps(name, variant.recipe, data, each))
        _check(name, variant, data, each)
    return variant


def _with_width(name: str, variant: Sized, data: DataSet, held: Held, *, may_widen: bool) -> Sized:
    """The variant with the width that meets the target; as it is, if it does."""
    if abs(_reached(variant, data, held.what) / held.target - 1) <= held.tolerance or variant.width is not None:
        return variant
    if not may_widen:
        what = f"{name}: {held.what} cannot be held equal while the width is a factor"
        raise UserError(what, fix="Leave one of the two out.")
    target = {"measure": held.what, "target": held.target, "tolerance": held.tolerance}
    try:
        model, width, _ = width_for(variant.recipe.model, **target, **_images(data))  # type: ignore[arg-type]
    except UserError as error:
        raise UserError(f"{name}: {error.what}", fix=error.fix) from None
    return replace(sized(replace(variant.recipe, model=model), data), width=width)


def _with_steps(name: str, recipe: Recipe, data: DataSet, held: Held) -> Recipe:
    """The recipe with as many epochs as make the steps that are held."""
    if recipe.epochs is None:
        raise UserError(f"{name}: steps cannot be held equal when the budget is in minutes", fix="Give epochs, or hold minutes.")
    each = batches_in_epoch(len(data.train), recipe.batch_size)
    return replace(recipe, epochs=max(1, round(held.target / each)))


def _check(name: str, variant: Sized, data: DataSet, held: Held) -> None:
    """Raise a UserError if what is held is off by more than the tolerance."""
    reached = _reached(variant, data, held.what)
    off = abs(reached / held.target - 1)
    if off > held.tolerance:
        what = f"{name} has {reached:,.6g} {held.what} where {held.target:,.6g} are held equal, {off:.1%} off"
        raise UserError(what, fix=f"Leave it out, hold something else, or give a tolerance of {off * 1.01:.3f} or more.")


def _reached(variant: Sized, data: DataSet, what: str) -> float:
    if what == "minutes":
        return float(variant.recipe.minutes or 0)
    return {"params": variant.params, "macs": variant.macs, "steps": steps_of(variant.recipe, data) or 0}[what]


def steps_of(recipe: Recipe, data: DataSet) -> int | None:
    """The optimisation steps of a run; None where its budget is in minutes."""
    return None if recipe.epochs is None else recipe.epochs * batches_in_epoch(len(data.train), recipe.batch_size)


def _images(data: DataSet) -> dict[str, int]:
    return {"num_classes": data.num_classes, "in_chans": data.in_chans, "image_size": data.image_size}
