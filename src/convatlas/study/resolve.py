"""From what an author wrote to a whole plan: every variant with its recipe, checked against data, models and this machine."""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import convatlas
from convatlas.data.dataset import DataSet
from convatlas.errors import UserError, unknown_name
from convatlas.models.configuration import configured, is_user_file, model_name
from convatlas.models.user_files import code_of
from convatlas.records import codec
from convatlas.records.plan import FORMAT, Factor, Held, PlannedComparison, StudyPlan, Tuning, Variant
from convatlas.records.run import Recipe
from convatlas.study.holding import FIRST, Sized, held_equal, held_of, sized, steps_of
from convatlas.study.levels import FIXED, OF_A_PLAN, Cell, Levels, cells_of, check_names, levels_of, name_of, settings_of
from convatlas.study.plan_file import Study, seeds_of, unknown_key
from convatlas.study.tuning import check_tuning, tuning_of
from convatlas.training.engine import choose
from convatlas.training.prepare import check_fits, examine
from convatlas.training.recipe import check_recipe, tied
from convatlas.training.recipes import DEFAULT_EPOCHS, completed, find_recipe

ALL_PAIRS = 6
"""Up to so many variants each is compared with each unless the plan says otherwise; more are compared with the first."""
STUDY_DEFAULTS = {"compile": "off", "convolutions": "stock", "gradients": True}
"""So that a run comes out the same wherever and whenever it is made: nothing is chosen by a trial unless the plan says so."""
Load = Callable[[Recipe], DataSet]
_OPTION = re.compile(r"--([a-z]+(?:-[a-z]+)*)")
_WITHOUT_EFFECT: dict[str, Callable[[Recipe], bool]] = {
    "momentum": lambda recipe: recipe.optimizer in ("adam", "adamw"),
    "flip_rule": lambda recipe: not recipe.flip,
    "crop_fill": lambda recipe: recipe.crop == 0,
}
"""Settings that do nothing for some recipes, and for which."""
_DEFAULTS = Recipe("", "", "")


@dataclass(frozen=True)
class _Cell:
    """A variant on its way: which levels it has, its recipe, and its data."""

    name: str
    levels: Cell
    sized: Sized
    data: DataSet


def resolve(study: Study, *, where: str, load: Load) -> StudyPlan:
    """The whole plan. `load` gives the data of a recipe. Raises UserError, which names `where`, for whatever would fail later."""
    with _in_a_plan(where):
        return _resolved(study, where=where, load=load)


def _resolved(study: Study, *, where: str, load: Load) -> StudyPlan:
    levels = levels_of(study, where=where)
    targets, tolerance = held_of(study.hold, where=where)
    cells = cells_of(levels, study.design)
    names = [name_of(cell, levels, study.design) for cell in cells]
    check_names(names, where=where)
    made = [_cell(study, name, cell, load, where=where) for name, cell in zip(names, cells, strict=True)]
    held = _targets(targets, tolerance, made[0], where=where)
    variants = tuple(_variant(cell, held, may_widen="model.width" not in levels, where=where) for cell in made)
    _check_distinct(variants, where=where)
    data = made[0].data
    return StudyPlan(
        format=FORMAT,
        name=study.name or _name_of(where),
        question=" ".join(study.question.split()),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        convatlas=convatlas.__version__,
        factors=tuple(Factor(name, tuple(level.label for level in each)) for name, each in levels.items()),
        design=study.design,
        variants=variants,
        seeds=seeds_of(study, where),
        held=held,
        comparisons=_comparisons(study, names, where=where),
        equivalence=study.equivalence / 100,
        tuning=_tuning(study, levels, where=where),
        threads=study.threads,
        processes=study.processes,
        watched=study.watch_test,
        data=data.name,
        data_description=data.description,
        n_train=len(data.train),
        n_val=len(data.val),
        n_test=len(data.test),
        classes=data.classes,
        source=where,
        in_chans=data.in_chans,
    )


def _cell(study: Study, name: str, cell: Cell, load: Load, *, where: str) -> _Cell:
    where = f"{where}: {name}"
    recipe = _recipe(study, cell, where=where)
    with _in_a_plan(where):
        check_recipe(recipe)
    data = load(recipe)
    recipe = tied(recipe, data)
    with _in_a_plan(where):
        check_fits(recipe.model, data)
        return _Cell(name, cell, sized(recipe, data), data)


@contextmanager
def _in_a_plan(where: str) -> Iterator[None]:
    """Errors name the plan and the variant, and settings as a plan calls them, not as the command line does."""
    try:
        yield
    except UserError as error:
        if error.what.startswith(where):
            raise
        fix = _OPTION.sub(lambda option: word if (word := option[1].replace("-", "_")) in OF_A_PLAN else option[0], error.fix)
        raise UserError(f"{where}: {error.what}", fix=fix) from None


def _recipe(study: Study, cell: Cell, *, where: str) -> Recipe:
    """The recipe of a cell, complete but for what the data decide."""
    shared = dict(study.recipe)
    base = shared.pop("base", None)
    settings, of_model, model = settings_of(cell, where=where)
    for key in shared:
        if key in FIXED and key not in OF_A_PLAN:
            raise UserError(f"{where}: recipe cannot set {key!r}", fix=_where_instead(key))
        if key not in OF_A_PLAN:
            raise unknown_key(f"{where}: recipe", str(key), [*OF_A_PLAN, "base"])
    given = {**STUDY_DEFAULTS, **shared, **settings}
    if "minutes" in study.hold:
        if {"epochs", "minutes"} & set(given):
            raise UserError(f"{where}: the budget stands in recipe and in hold", fix="Leave it out of recipe.")
        given["minutes"] = study.hold["minutes"]
    chosen = model_name(_model(study, model, base, where), where=where)
    given["model"] = configured(chosen, of_model, where=where) if of_model else chosen
    given["parted"] = shared.get("validation")
    given["test_each_epoch"] = study.watch_test
    given["code_sha256"] = code_of(chosen) if is_user_file(chosen) else None
    plain = codec.to_plain(_beginning(base, given, where=where)) | given
    return codec.from_plain(Recipe, plain, where=f"{where}: recipe")


def _where_instead(key: str) -> str:
    return {"model": "Give `model` beside `recipe`.", "seed": "Give `seeds` beside `recipe`."}.get(key, "Leave it out.")


def _model(study: Study, level: Any, base: Any, where: str) -> Any:
    """The model that the cell begins with."""
    model = level if level is not None else study.model
    if level is not None and study.model is not None:
        raise UserError(f"{where}: the model is given and is a factor", fix="Leave one of the two out.")
    if model is None and isinstance(base, str):
        model = find_recipe(base).model
    if model is None:
        raise UserError(f"{where} names no model", fix="Give `model`, or make it a factor.")
    return model


def _beginning(base: Any, given: Mapping[str, Any], *, where: str) -> Recipe:
    """The recipe whose settings hold where the plan gives none."""
    if base is not None and not isinstance(base, str):
        raise UserError(f"{where}: recipe: base is {str(base)[:40]!r}", fix="Name a recipe of `convatlas recipes`.")
    if base is None:
        data = given.get("data", "shapes")
        optimizer = given.get("optimizer", "adamw")
        begun = completed("", data if isinstance(data, str) else "", optimizer if isinstance(optimizer, str) else "")
    else:
        begun = find_recipe(base)
    if given.get("minutes") is not None:
        return replace(begun, epochs=None, sizes=())
    return replace(begun, epochs=DEFAULT_EPOCHS) if begun.epochs is None else begun


def _targets(targets: Mapping[str, float | str], tolerance: float, first: _Cell, *, where: str) -> tuple[Held, ...]:
    """What is held, each with a number: that of the first variant where the plan says so."""
    own = {"params": first.sized.params, "macs": first.sized.macs, "steps": steps_of(first.sized.recipe, first.data)}
    found = []
    for what, target in targets.items():
        number = own[what] if target == FIRST else target
        if number is None:
            raise UserError(f"{where}: hold: {what} of a run whose budget is in minutes", fix="Give epochs, or hold minutes.")
        found.append(Held(what, float(number), tolerance))
    return tuple(found)


def _variant(cell: _Cell, held: tuple[Held, ...], *, may_widen: bool, where: str) -> Variant:
    """The variant with what is held made equal, if a run of it could begin here and now."""
    made = held_equal(cell.name, cell.sized, cell.data, held=held, may_widen=may_widen)
    with _in_a_plan(f"{where}: {cell.name}"):
        network, _ = examine(made.recipe, cell.data)
        choose(made.recipe, network)
    return Variant(
        name=cell.name,
        levels={name: level.label for name, level in cell.levels.items()},
        recipe=made.recipe,
        params=made.params,
        macs=made.macs,
        image_size=cell.data.image_size,
        steps=steps_of(made.recipe, cell.data),
        width=made.width,
    )


def _check_distinct(variants: tuple[Variant, ...], *, where: str) -> None:
    """Two variants with the same recipe would compare chance with chance."""
    for first, second in itertools.combinations(variants, 2):
        if first.recipe == second.recipe:
            what = f"{where}: {first.name!r} and {second.name!r} are the same recipe"
            raise UserError(what, fix="Take one level out, or see whether the factor reaches this model.")
        if _effective(first.recipe) == _effective(second.recipe):
            idle = next(name for name in _WITHOUT_EFFECT if getattr(first.recipe, name) != getattr(second.recipe, name))
            what = f"{where}: {first.name!r} and {second.name!r} differ in {idle} alone, which does nothing in this recipe"
            raise UserError(what, fix="Take the factor out, or give a recipe that uses it.")


def _effective(recipe: Recipe) -> Recipe:
    """The recipe with what does nothing left at its default."""
    idle = {name: getattr(_DEFAULTS, name) for name, is_idle in _WITHOUT_EFFECT.items() if is_idle(recipe)}
    return replace(recipe, **idle)


def _comparisons(study: Study, names: list[str], *, where: str) -> tuple[PlannedComparison, ...]:
    """The pairs whose difference is asked for."""
    wanted = study.compare
    if wanted is None:
        wanted = "all" if study.design == "full" and len(names) <= ALL_PAIRS else "baseline"
    if wanted == "all":
        return tuple(PlannedComparison(first, second) for first, second in itertools.combinations(names, 2))
    if wanted == "baseline":
        return tuple(PlannedComparison(name, names[0]) for name in names[1:])
    pairs = wanted if isinstance(wanted, (list, tuple)) else ()
    if not pairs or not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
        raise UserError(f"{where}: compare is {str(wanted)[:40]!r}", fix="Give all, baseline, or pairs such as [[a, b]].")
    for name in (str(each) for pair in pairs for each in pair):
        if name not in names:
            raise unknown_name("variant", name, names, where=f"The variants are: {', '.join(names[:10])}.")
    return _planned([(str(first), str(second)) for first, second in pairs], where)


def _planned(pairs: list[tuple[str, str]], where: str) -> tuple[PlannedComparison, ...]:
    seen: set[frozenset[str]] = set()
    for pair in pairs:
        if len(set(pair)) < 2:
            raise UserError(f"{where}: compare has {pair[0]} against itself", fix="Compare two variants.")
        if frozenset(pair) in seen:
            raise UserError(f"{where}: compare has {' and '.join(pair)} twice", fix="Compare two variants, each pair once.")
        seen.add(frozenset(pair))
    return tuple(PlannedComparison(first, second) for first, second in pairs)


def _tuning(study: Study, levels: Levels, *, where: str) -> Tuning | None:
    if study.tune is None:
        return None
    tuning = tuning_of(study.tune, where=f"{where}: tune")
    together = (level.value for level in levels.get("recipe", ()))
    check_tuning(tuning, (*levels, *(key for settings in together for key in settings)))
    return tuning


def _name_of(where: str) -> str:
    """The plan's file without what would not do for a folder."""
    stem = Path(where.partition(".py:")[0]).stem
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-.")[:60] or "study"
