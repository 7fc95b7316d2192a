"""Which settings a study tunes, and between which values: read, checked, and put into a recipe."""

import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from convatlas.errors import UserError, unknown_name
from convatlas.records import codec
from convatlas.records.findings import Tuned
from convatlas.records.plan import Searched, Tuning
from convatlas.records.run import Recipe
from convatlas.training.recipe import NAMES, RANGES, wanted_of

Value = bool | int | float | str
TUNABLE = (
    "optimizer", "lr", "momentum", "weight_decay", "schedule", "warmup", "label_smoothing", "ema", "clip_grad", "flip", "crop",
    "cutout", "flip_rule", "crop_fill", "bias_lr", "classifier_lr", "augment", "mixup", "cutmix",
)  # fmt: skip
"""Settings of a recipe that may be tuned. The others are the study's own: model, data, budget (the batch size decides the number
of steps), seed, how a network is judged, and what only the machine decides."""
SAMPLERS = ("tpe", "random", "grid")
PRUNERS = ("median", "none")
MOST_TRIALS = 10_000
MOST_POINTS = 1000
_WORDS = {"true": True, "on": True, "false": False, "off": False}
_KINDS = typing.get_type_hints(Recipe)


def tuning_of(content: Mapping[str, Any], *, where: str) -> Tuning:
    """The search that a plan's `tune` asks for: `{trials: 20, epochs: 3, searched: {lr: {low: 1e-4, high: 0.1, log: true}}}`.

    A setting is given a list of choices, or a mapping with low and high, choices, log or points. Raises UserError.
    """
    searched = content.get("searched")
    if not isinstance(searched, Mapping):
        raise UserError(f"{where} does not say what is searched", fix="Give `searched: {lr: {low: 1e-4, high: 0.1, log: true}}`.")
    plain = [_plain(str(name), given, f"{where}: searched: {name}") for name, given in searched.items()]
    return codec.from_plain(Tuning, {**content, "searched": plain}, where=where)


def _plain(name: str, given: Any, where: str) -> dict[str, Any]:
    """A setting as JSON would have it, its choices as texts."""
    if isinstance(given, (list, tuple)):
        given = {"choices": given}
    if not isinstance(given, Mapping) or "setting" in given:
        raise UserError(f"{where} is {str(given)[:40]!r}", fix="Give a list of choices, or a mapping with low and high.")
    choices = given.get("choices", [])
    if not isinstance(choices, (list, tuple)):
        raise UserError(f"{where}: choices is {str(choices)[:40]!r}", fix="Give a list.")
    return {"setting": name, **given, "choices": [_text(choice) for choice in choices]}


def _text(value: object) -> str:
    """A value as it is written in plans and records."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def check_tuning(tuning: Tuning, factors: Sequence[str] = ()) -> None:
    """Raise a UserError for a search that cannot be, or that tunes one of the `factors` of the study."""
    if find_spec("optuna") is None:
        raise UserError("tuning needs Optuna, which is not installed", fix="Install it: pip install 'convatlas[tune]'.")
    for what, value, most in (("trials", tuning.trials, MOST_TRIALS), ("epochs", tuning.epochs, int(RANGES["epochs"][1]))):
        if not 1 <= value <= most:
            raise UserError(f"tuning has {value} {what}", fix=f"Give 1 to {most}.")
    _check_number("seed", tuning.seed)
    for kind, word, known in (("sampler", tuning.sampler, SAMPLERS), ("pruner", tuning.pruner, PRUNERS)):
        if word not in known:
            raise unknown_name(kind, word, known, where=f"Known: {', '.join(known)}.")
    if not tuning.searched:
        raise UserError("nothing is searched", fix="Name a setting with its range, such as lr.")
    names = [each.setting for each in tuning.searched]
    for each in tuning.searched:
        _check_setting(each.setting, names, factors)
        _check_values(each)
        _check_points(each, tuning)
    _check_grid(tuning)


def _check_setting(name: str, names: Sequence[str], factors: Sequence[str]) -> None:
    if name not in TUNABLE:
        if name in _KINDS:
            what = f"{name} cannot be tuned: all trials have the same"
            raise UserError(what, fix=f"Tune some of: {', '.join(TUNABLE)}.")
        raise unknown_name("setting", name, TUNABLE, where=f"What can be tuned: {', '.join(TUNABLE)}.")
    if names.count(name) > 1:
        raise UserError(f"{name} is searched twice", fix="Name it once.")
    if name in factors:
        raise UserError(f"{name} is a factor of the study, and cannot be tuned too", fix="Leave it out of one of the two.")


def _check_values(each: Searched) -> None:
    """Either choices, each of which the setting may be, or a range that a number may lie in."""
    name = each.setting
    if each.choices:
        if (each.low, each.high, each.log, each.points) != (None, None, False, None):
            raise UserError(f"{name} has choices and a range", fix="Give one of the two.")
        values = [typed(name, choice) for choice in each.choices]
        if len(set(values)) < len(values):
            raise UserError(f"{name} has the same choice twice", fix="Name each once.")
        return
    if kind_of(name) not in (int, float):
        raise UserError(f"{name} is no number, so it has no range", fix="Give a list of choices.")
    if each.low is None or each.high is None:
        raise UserError(f"{name} has neither choices nor both low and high", fix="Give `{low: 1e-4, high: 0.1}`, or a list.")
    for end in (each.low, each.high):
        _check_number(name, end)
        if kind_of(name) is int and end != int(end):
            raise UserError(f"{name} goes from {each.low:g} to {each.high:g}", fix="Give whole numbers.")
    if each.low >= each.high:
        raise UserError(f"{name} goes from {each.low:g} to {each.high:g}", fix="Give the smaller one first.")
    if each.log and each.low <= 0:
        raise UserError(f"{name} begins at {each.low:g}, which no logarithmic scale has", fix="Begin above 0, or leave log out.")


def _check_number(name: str, value: float) -> None:
    if wanted := wanted_of(name, value):
        raise UserError(f"{name} cannot be {value:g}", fix=f"Give {wanted}.")


def _check_points(each: Searched, tuning: Tuning) -> None:
    if tuning.sampler != "grid":
        if each.points is not None:
            raise UserError(f"{each.setting} has points, which only a grid has", fix="Leave them out, or give `sampler: grid`.")
        return
    if each.choices:
        return
    if each.points is None or not 2 <= each.points <= MOST_POINTS:
        fix = f"Give choices, or how many points between low and high: 2 to {MOST_POINTS}."
        raise UserError(f"a grid needs to know which values {each.setting} takes", fix=fix)
    if len(set(grid_values(each))) < each.points:
        raise UserError(f"{each.setting} has fewer than {each.points} whole numbers in its range", fix="Give fewer points.")


def _check_grid(tuning: Tuning) -> None:
    """A grid with fewer trials than points is searched in part; one with more would try some twice."""
    if tuning.sampler != "grid":
        return
    size = math.prod(len(grid_values(each)) for each in tuning.searched)
    if size < tuning.trials:
        raise UserError(f"the grid has {size} points, fewer than the {tuning.trials} trials", fix=f"Give {size} trials at most.")


def grid_values(each: Searched) -> list[Value]:
    """The values that a grid takes for the setting: choices as texts, or numbers from low to high."""
    if each.choices:
        return list(each.choices)
    assert each.low is not None and each.high is not None and each.points is not None
    shares = [i / (each.points - 1) for i in range(each.points)]
    if each.log:
        values = [each.low * (each.high / each.low) ** share for share in shares]
    else:
        values = [each.low + (each.high - each.low) * share for share in shares]
    values[-1] = each.high
    return [round(value) for value in values] if kind_of(each.setting) is int else list(values)


def kind_of(setting: str) -> type:
    """The type of a setting: bool, int, float or str."""
    kind = _KINDS[setting]
    if isinstance(kind, types.UnionType):
        (kind,) = (each for each in typing.get_args(kind) if each is not types.NoneType)
    assert isinstance(kind, type)
    return kind


def typed(setting: str, text: str) -> Value:
    """What `text` means for the setting. Raises UserError for what it cannot be."""
    kind = kind_of(setting)
    if kind is str:
        if text not in NAMES[setting]:
            raise unknown_name(setting.replace("_", " "), text, NAMES[setting], where=f"Known: {', '.join(NAMES[setting])}.")
        return text
    if kind is bool:
        if text not in _WORDS:
            raise UserError(f"{setting} cannot be {text!r}", fix="Give on or off.")
        return _WORDS[text]
    try:
        value = kind(text)
    except ValueError:
        raise UserError(f"{setting} cannot be {text!r}", fix=f"Give {RANGES[setting][2]}.") from None
    _check_number(setting, value)
    return typing.cast(Value, value)


def apply_settings(recipe: Recipe, settings: Mapping[str, str]) -> Recipe:
    """The recipe with the settings, which are written as texts. Raises UserError for what they cannot be."""
    unknown = sorted(set(settings) - set(TUNABLE))
    if unknown:
        raise UserError(f"{unknown[0]} is no setting that is tuned", fix=f"Known: {', '.join(TUNABLE)}.")
    values: dict[str, Any] = {name: typed(name, text) for name, text in settings.items()}
    return replace(recipe, **values)


def apply_tuning(recipe: Recipe, tuned: Tuned, tuning: Tuning) -> Recipe:
    """The recipe as a variant's search has set it. Raises UserError if the search was another than `tuning`."""
    searched = sorted(each.setting for each in tuning.searched)
    if sorted(tuned.settings) != searched or tuned.trials != tuning.trials:
        what = f"{tuned.variant} was tuned by another search than the plan's ({', '.join(searched)}, {tuning.trials} trials)"
        raise UserError(what, fix="Put back the original, or remove its file below tuned/ to search anew.")
    return apply_settings(recipe, tuned.settings)
