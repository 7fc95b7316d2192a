"""`convatlas recipes`: the named recipes, where they come from and what they reached."""

from statistics import fmean
from typing import Annotated

import typer
from rich.table import Table

from convatlas.cli import options as o
from convatlas.cli.console import clock, tell, tell_json, tell_table
from convatlas.records import codec
from convatlas.training.recipes import MACHINES, RECIPES, Reached, find_recipe


def recipes(
    name: Annotated[str | None, typer.Argument(help="One recipe, with every setting.")] = None, as_json: o.Json = False
) -> None:
    """List the named recipes, or show one with all its settings."""
    if as_json:
        shown = RECIPES if name is None else {name: RECIPES[find_recipe(name).name or ""]}
        tell_json({each: codec.to_plain(recipe) for each, recipe in shown.items()})
    elif name is None:
        tell_table(_table())
        tell("next: convatlas train --recipe fast94, or convatlas recipes fast94 for its settings")
    else:
        _tell(name)


def _table() -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("recipe", "budget", "reached", "purpose"):
        table.add_column(heading, no_wrap=heading != "purpose")
    for name, named in RECIPES.items():
        best = _reached(named.reached[0]) if named.reached else "not measured"
        table.add_row(name, f"{named.recipe.epochs} epochs", best, named.purpose)
    return table


def _reached(outcome: Reached) -> str:
    return f"{fmean(outcome.accuracies):.2%} in {clock(outcome.seconds)}, {outcome.machine}"


def _tell(name: str) -> None:
    recipe = find_recipe(name)
    named = RECIPES[name]
    tell(f"{name}: {named.purpose}")
    tell(f"from: {named.provenance}")
    for outcome in named.reached:
        each = ", ".join(f"{accuracy:.2%}" for accuracy in outcome.accuracies)
        details = "; ".join(part for part in (outcome.settings, MACHINES[outcome.machine], outcome.date) if part)
        n = len(outcome.accuracies)
        tell(f"reached: {_reached(outcome)}, of training on {outcome.data}, n = {n}, seed by seed {each}; {details}")
    for setting, value in codec.to_plain(recipe).items():
        if setting not in ("name", "data_fingerprint") and value is not None:
            tell(f"  {setting:<16} {value}")
