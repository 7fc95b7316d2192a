"""Means over folds with intervals that do not pretend the folds were independent."""

import math
from collections.abc import Sequence

from scipy import stats

from convatlas.arith.proportion import newcombe, wilson
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
    """As `over_folds`, and no narrower than Wilson's score interval over the `n_images` judged (Wilson 1927).

    Few trainings agree by chance as easily as they differ: so few images cannot say more than they would of one network.
    """
    found = over_folds(values, folds=folds, limits=(0.0, 1.0))
    return _no_narrower(found, *wilson(found.mean, n_images), "Wilson score over the images")


def difference_over_folds(first: Sequence[float], second: Sequence[float], *, folds: int, n_images: int) -> Interval:
    """The interval of the mean of `first` - `second`, accuracies of two strategies in trainings on the same folds and seeds.

    As `over_folds`, and no narrower than Newcombe's score interval over the `n_images` that each was judged on (Newcombe 1998).
    """
    gaps = [a - b for a, b in zip(first, second, strict=True)]
    found = over_folds(gaps, folds=folds, limits=(-1.0, 1.0))
    means = (sum(each) / len(each) for each in (first, second))
    return _no_narrower(found, *newcombe(*means, trials=(n_images, n_images)), "Newcombe score over the images")


def _no_narrower(found: Interval, low: float, high: float, method: str) -> Interval:
    """`found`, with the ends of the other where those lie further out."""
    if found.method.endswith("no interval"):
        return Interval(found.mean, low, high, found.n, method)
    if found.low <= low and high <= found.high:
        return found
    return Interval(found.mean, min(found.low, low), max(found.high, high), found.n, f"{found.method}; {method}")
