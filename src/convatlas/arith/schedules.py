"""Learning-rate schedules as pure functions of progress: 0 at the first step, 1 at the end of the budget.

Progress may be counted in steps or in seconds, so that a schedule ends when its budget does, whichever the budget is.
Each returns the factor by which the recipe's learning rate is multiplied.
"""

import math
from collections.abc import Callable


def cosine(progress: float, *, warmup: float) -> float:
    """Linear warm-up over the first `warmup` share of the budget, then half a cosine down to 0.

    Source: Loshchilov & Hutter 2017, "SGDR", section 3 (without restarts); warm-up: Goyal et al. 2017, section 2.2.
    """
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (min(progress, 1.0) - warmup) / (1 - warmup)))


def one_cycle(progress: float, *, warmup: float) -> float:
    """Linear up from a tenth over the first `warmup` share, then linear down to a thousandth.

    Source: Smith & Topin 2018, "Super-Convergence", section 3 (learning rate only; the momentum stays as it is).
    """
    if progress < warmup:
        return 0.1 + 0.9 * progress / warmup
    rest = (min(progress, 1.0) - warmup) / (1 - warmup)
    return 1.0 + rest * (0.001 - 1.0)


def constant(progress: float, *, warmup: float) -> float:
    """Linear warm-up over the first `warmup` share of the budget, then constant."""
    return progress / warmup if progress < warmup else 1.0


SCHEDULES: dict[str, Callable[..., float]] = {"cosine": cosine, "one-cycle": one_cycle, "constant": constant}


def factor_at(name: str, progress: float, *, warmup: float) -> float:
    """The factor of the schedule called `name` at `progress`; `warmup` is a share of the budget in [0, 1)."""
    return SCHEDULES[name](progress, warmup=warmup)
