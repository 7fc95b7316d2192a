"""Learning-rate schedules as pure functions of progress: 0 at the first step, 1 at the end of the budget.

Progress may be counted in steps or in seconds, so that a schedule ends when its budget does, whichever the budget is.
Each returns the factor, 0 or more, by which the recipe's learning rate is multiplied; past the budget it stays where it ended.

Each warms up linearly over the first `warmup` share of the budget, a number in [0, 1). Smooth ones decay over what is left after
that. Where a rate drops, it does so at shares of the whole budget ("After the warmup, we go back to the original learning rate
schedule": Goyal et al. 2017, section 2.2); a drop that falls into the warm-up is taken at its end.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

THIRDS = (1 / 3, 2 / 3)
HALF_AND_THREE_QUARTERS = (1 / 2, 3 / 4)
EXPONENTIAL_END = 0.01
POWER = 0.9
RESTARTS = (0.0, 1 / 7, 3 / 7, 1.0)
"""Where the cosines with restarts begin and the last one ends: three cycles, each twice as long as the one before."""


def constant(progress: float, *, warmup: float) -> float:
    """Linear warm-up over the first `warmup` share of the budget, then constant.

    Source: Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 2.2 (the warm-up, from 0 here).
    """
    return progress / warmup if progress < warmup else 1.0


def step(progress: float, *, warmup: float) -> float:
    """Linear warm-up over the first `warmup` share of the budget, then 1, a tenth from 1/3 of it on, a hundredth from 2/3.

    Source: Huang et al. 2017, "Densely Connected Convolutional Networks", section 4.2 (ImageNet: epochs 30 and 60 of 90).
    """
    return progress / warmup if progress < warmup else _tenths(progress, THIRDS)


def multi_step(progress: float, *, warmup: float) -> float:
    """Linear warm-up over the first `warmup` share of the budget, then 1, a tenth from 1/2 of it on, a hundredth from 3/4.

    Source: He et al. 2016, "Deep Residual Learning", section 4.2 (CIFAR-10: 32k and 48k of 64k iterations).
    """
    return progress / warmup if progress < warmup else _tenths(progress, HALF_AND_THREE_QUARTERS)


def exponential(progress: float, *, warmup: float) -> float:
    """Linear warm-up over the first `warmup` share of the budget, then the same share less at every step, down to 0.01.

    Source: Tan & Le 2019, "EfficientNet", section 5.2: 0.97 every 2.4 epochs, which comes to 0.012 over the 350 epochs of their
    code. It falls at every step here, and not every 2.4 epochs.
    """
    return progress / warmup if progress < warmup else EXPONENTIAL_END ** _rest(progress, warmup)


def polynomial(progress: float, *, warmup: float) -> float:
    """Linear warm-up over the first `warmup` share of the budget, then down to 0 as the power 0.9 of the share that is left.

    Source: Chen et al. 2017, "Rethinking Atrous Convolution" (DeepLabv3), section 4.1 ("poly").
    """
    return progress / warmup if progress < warmup else float((1 - _rest(progress, warmup)) ** POWER)


def cosine(progress: float, *, warmup: float) -> float:
    """Linear warm-up over the first `warmup` share of the budget, then half a cosine down to 0.

    Source: Loshchilov & Hutter 2017, "SGDR", section 3 (without restarts); warm-up: Goyal et al. 2017, section 2.2.
    """
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (min(progress, 1.0) - warmup) / (1 - warmup)))


def cosine_restarts(progress: float, *, warmup: float) -> float:
    """Linear warm-up over the first `warmup` share of the budget, then three half cosines from 1 down to 0.

    Each is twice as long as the one before, so that they end at 1/7, 3/7 and the whole of what the warm-up left.
    Source: Loshchilov & Hutter 2017, "SGDR", section 3 (T_mult = 2; there without a warm-up).
    """
    if progress < warmup:
        return progress / warmup
    rest = _rest(progress, warmup)
    start, end = next(((a, b) for a, b in pairwise(RESTARTS) if rest < b), RESTARTS[-2:])
    return 0.5 * (1 + math.cos(math.pi * (rest - start) / (end - start)))


def one_cycle(progress: float, *, warmup: float) -> float:
    """Linear up from a tenth over the first `warmup` share, then linear down to a thousandth.

    Source: Smith & Topin 2018, "Super-Convergence", section 3 (learning rate only; the momentum stays as it is).
    """
    if progress < warmup:
        return 0.1 + 0.9 * progress / warmup
    rest = (min(progress, 1.0) - warmup) / (1 - warmup)
    return 1.0 + rest * (0.001 - 1.0)


def plateau(progress: float, *, warmup: float) -> float:
    """Linear warm-up over the first `warmup` share of the budget, then constant as far as the budget decides.

    What reduces the rate is the training loop: it multiplies by a tenth each time that validation did not improve for `patience`
    epochs, which nobody knows beforehand.
    Source: He et al. 2016, "Deep Residual Learning", section 3.4; by hand: Krizhevsky et al. 2012 (AlexNet), section 5.
    """
    return constant(progress, warmup=warmup)


SCHEDULES: dict[str, Callable[..., float]] = {
    "constant": constant,
    "step": step,
    "multi-step": multi_step,
    "exponential": exponential,
    "polynomial": polynomial,
    "cosine": cosine,
    "cosine-restarts": cosine_restarts,
    "one-cycle": one_cycle,
    "plateau": plateau,
}


@dataclass(frozen=True)
class About:
    """A schedule in a line: its shape after the warm-up, and where it is from (paper and section)."""

    shape: str
    source: str


ABOUT: dict[str, About] = {
    "constant": About("stays at 1", "warm-up, as of all: Goyal et al. 2017, section 2.2"),
    "step": About("a tenth from 1/3 of the budget on, a hundredth from 2/3", "Huang et al. 2017 (DenseNet), section 4.2"),
    "multi-step": About("a tenth from 1/2 of the budget on, a hundredth from 3/4", "He et al. 2016 (ResNet), section 4.2"),
    "exponential": About("the same share less at every step, down to 0.01", "Tan & Le 2019 (EfficientNet), section 5.2"),
    "polynomial": About("the share that is left, to the power 0.9, down to 0", "Chen et al. 2017 (DeepLabv3), section 4.1"),
    "cosine": About("half a cosine, down to 0", "Loshchilov & Hutter 2017 (SGDR), section 3"),
    "cosine-restarts": About(
        "three half cosines, each twice as long as the one before", "Loshchilov & Hutter 2017 (SGDR), section 3"
    ),
    "one-cycle": About("from 0.1 up to 1, then straight down to 0.001", "Smith & Topin 2018 (Super-Convergence), section 3"),
    "plateau": About("stays at 1; a tenth each time validation no longer improves", "He et al. 2016 (ResNet), section 3.4"),
}
"""What lists and pages say of each; the functions' own docstrings say it in full."""


def factor_at(name: str, progress: float, *, warmup: float) -> float:
    """The factor of the schedule called `name` at `progress`; `warmup` is a share of the budget in [0, 1)."""
    return SCHEDULES[name](progress, warmup=warmup)


def _rest(progress: float, warmup: float) -> float:
    """How much of what the warm-up left is spent, in [0, 1]."""
    return (min(progress, 1.0) - warmup) / (1 - warmup)


def _tenths(progress: float, drops: tuple[float, ...]) -> float:
    """A tenth for each of the `drops`, shares of the whole budget, that are reached."""
    return float(10.0 ** -sum(progress >= drop for drop in drops))
