"""Which Python files a study may run: those that the user's own plan names, or that were named in the command."""

from collections.abc import Sequence
from pathlib import Path

from convatlas.errors import UserError
from convatlas.models.configuration import factory_of, is_user_file
from convatlas.models.user_files import code_of, trust
from convatlas.records.plan import StudyPlan
from convatlas.study.plan_file import Study


def trust_plan(study: Study) -> None:
    """Let the networks be made that the plan names, which the user gave in this command."""
    levels = study.factors.get("model", ())
    values = list(levels.values()) if hasattr(levels, "values") else list(levels) if isinstance(levels, (list, tuple)) else []
    for value in [study.model, *values]:
        name = value.get("variant") if isinstance(value, dict) else value
        if isinstance(name, str) and is_user_file(name):
            trust(factory_of(name)[0])


def code_files(plan: StudyPlan) -> list[Path]:
    """The Python files that make networks of the plan's."""
    names = [variant.recipe.model for variant in plan.variants]
    return sorted({factory_of(name)[0].resolve() for name in names if is_user_file(name)})


def trust_files(files: Sequence[Path]) -> None:
    """Let the files be run that were named with --code."""
    for path in files:
        trust(path)


def check_files(plan: StudyPlan) -> None:
    """Raise a UserError if a file that makes a network is not the one that the study was begun with."""
    for variant in plan.variants:
        name = variant.recipe.model
        if is_user_file(name) and code_of(name) != variant.recipe.code_sha256:
            what = f"{factory_of(name)[0]} is not the file that the study was begun with (its SHA-256 differs)"
            raise UserError(what, fix="Put it back, or begin another study with it.")
