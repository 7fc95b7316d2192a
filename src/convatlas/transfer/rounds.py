"""The plan of a tournament: its rounds, and what each training has of the budget. No training here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from convatlas.errors import UserError
from convatlas.records.run import Recipe
from convatlas.records.tournament import BASELINE, TournamentPlan

FINALISTS = 2
LEAST_SECONDS = 1.0
"""With less no training of the first round comes to anything."""
OVERHEAD = 0.75
"""The share of the minutes that is planned for training; judging, loading and the refit's test take the rest."""


@dataclass(frozen=True)
class Rung:
    """A round: of how many strategies, on how many folds and seeds, with which share of a finalist's budget."""

    strategies: int
    trials: int
    share: float


def rungs_of(strategies: int, finals: int) -> tuple[Rung, ...]:
    """The rounds for so many strategies beside the baseline, which is in all of them."""
    sizes = [strategies]
    while sizes[-1] > FINALISTS:
        sizes.append(max(FINALISTS, math.ceil(sizes[-1] / 2)) if sizes[-1] > 2 * FINALISTS else FINALISTS)
    last = len(sizes) - 1
    return tuple(Rung(size, finals if i == last else min(i + 1, finals), 0.5 ** (last - i)) for i, size in enumerate(sizes))


def rounds_of(plan: TournamentPlan) -> tuple[Rung, ...]:
    """The rounds of a tournament: without halving a single one, in which all strategies are finalists."""
    competing = sum(strategy_of(recipe) != BASELINE for recipe in plan.recipes)
    return rungs_of(competing, plan.finals) if plan.halving else (Rung(competing, plan.finals, 1.0),)


def trials_of(rungs: Sequence[Rung], plan: TournamentPlan) -> int:
    """How many trainings the rounds have, the last one of the winner not among them."""
    extra = sum(strategy_of(recipe) == BASELINE for recipe in plan.recipes)
    return sum((rung.strategies + extra) * rung.trials for rung in rungs)


def check_minutes(plan: TournamentPlan) -> None:
    """Raise a UserError for minutes that leave a training of the first round no time."""
    rungs = rounds_of(plan)
    least = 60 * finalist_minutes(plan) * rungs[0].share
    if least < LEAST_SECONDS:
        assert plan.minutes is not None
        what = f"{plan.minutes:g} minutes leave {least:.2g} s for a training of the first round"
        wanted = math.ceil(100 * plan.minutes * LEAST_SECONDS / least) / 100
        raise UserError(what, fix=f"Give --minutes {wanted:g} or more, fewer --strategies, or --epochs.")


def finalist_minutes(plan: TournamentPlan, *, rung: int = 1, seconds: float = 0.0) -> float:
    """What one finalist's training has, of the minutes of the whole tournament, when round `rung` (from 1) begins.

    `seconds` is what all trainings before it took. Probes on cached features are planned with none, so that what they took is
    taken from what is left to come, down to the least with which a tournament begins.
    """
    assert plan.minutes is not None
    paid = [recipe for recipe in plan.recipes if not (recipe.tuning is not None and recipe.tuning.cached)]
    extra = 1 if any(strategy_of(recipe) == BASELINE for recipe in paid) else 0
    rungs = rounds_of(plan)
    shares = [(min(each.strategies, len(paid) - extra) + extra) * each.trials * each.share for each in rungs]
    shares.append(1.0)  # the winner's last training has as much as a finalist's
    planned = OVERHEAD * plan.minutes / sum(shares)
    left = (OVERHEAD * plan.minutes - seconds / 60) / sum(shares[rung - 1 :])
    return min(planned, max(left, LEAST_SECONDS / 60 / rungs[0].share))


def strategy_of(recipe: Recipe) -> str:
    """The strategy of a recipe that fine-tunes."""
    assert recipe.tuning is not None
    return recipe.tuning.strategy
