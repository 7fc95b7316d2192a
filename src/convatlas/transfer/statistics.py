"""Means over folds with intervals that do not pretend the folds were independent."""

import math
from collections.abc import Sequence

from scipy import stats

from convatlas.arith.proportion import wilson
from convatlas.records.study import Interval

LEVEL = 0.95
NO_SPREAD = 1e-9


def over_folds(values: Sequence[float], *, folds: int, limits: tuple[float, float] | None = None) -> Interval:
    """The 95 % interval of the mean of `values`, one for each training, in which every `folds`-th image was judged on.

    Student's t with the variance corrected for training sets that overlap: 1/n + 1/(folds - 1) in place of 1/n (Nadeau & Bengio
    2003, "Inference for the Generalization Error", section 4). One value, and several equal ones, show no spread: then low and
    high are the mean itself, and `method` says so. `limits` are the least and the most that a mean can be.
    """
    n = len(values)
    mean = sum(values) / n
    if n == 1 or max(values) - min(values) <= NO_SPREAD:
        why = "one training" if n == 1 else f"{n} trainings without spread"
        return Interval(mean, mean, mean, n, f"{why}: no interval")
    variance = sum((value - mean) ** 2 for value in values) / (n - 1)
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * math.sqrt(variance * (1 / n + 1 / (folds - 1)))
    least, most = limits or (-math.inf, math.inf)
    return Interval(mean, max(mean - half, least), min(mean + half, most), n, "corrected t over folds and seeds")


def accuracy_over_folds(values: Sequence[float], *, folds: int, n_images: int) -> Interval:
    """As `over_folds`; where there is no spread, Wilson's score interval over the `n_images` judged (Wilson 1927)."""
    found = over_folds(values, folds=folds, limits=(0.0, 1.0))
    if not found.method.endswith("no interval"):
        return found
    low, high = wilson(found.mean, n_images)
    return Interval(found.mean, low, high, n_images, "Wilson score over the images")
