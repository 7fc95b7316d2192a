"""Means with intervals, and what a run's answers say beyond accuracy. Never a winner without an interval."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from convatlas.arith.proportion import wilson
from convatlas.records.study import Interval

LEVEL = 0.95
"""How many of 100 intervals are to cover the truth."""
NO_SPREAD = 1e-9
"""Values that differ by less are equal. Accuracies are counts over at most some millions of images; their differences, taken in
floating point, are off by 1e-16, and a t test would take that for an exceedingly small spread."""


def mean_interval(values: Sequence[float], *, over: str = "seed", within: tuple[float, float] | None = None) -> Interval:
    """Student's 95 % interval of the mean of independent `values`, one for each `over` (a "seed", a "run").

    `within` are the least and the most that a mean can be; the interval ends there at the latest. One value, and several equal
    ones, show no spread: then low and high are the mean itself and `method` ends in "no interval".
    """
    n = len(values)
    mean = sum(values) / n
    if n == 1:
        return Interval(mean, mean, mean, 1, f"one {over}: no interval")
    if not differ(values):
        return Interval(mean, mean, mean, n, f"{n} {over}s without spread: no interval")
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * deviation / math.sqrt(n)
    least, most = within or (-math.inf, math.inf)
    return Interval(mean, max(mean - half, least), min(mean + half, most), n, f"Student's t over {over}s")


def differ(values: Sequence[float]) -> bool:
    """Whether the values have any spread beyond rounding."""
    return max(values) - min(values) > NO_SPREAD


def accuracy_interval(accuracies: Sequence[float], *, n_images: int) -> Interval:
    """The 95 % interval of a mean accuracy: over seeds where there are several, else over the test images.

    Over seeds: Student's t. Over images: Wilson's score interval for one proportion (Wilson 1927), which covers the
    sampling of the test images only and not what another seed would do; its centre is not the accuracy itself. Seeds that
    all reach the same say nothing of their spread, so that their interval is over the images too.
    """
    if not differ(accuracies):
        seeds = "one seed" if len(accuracies) == 1 else f"{len(accuracies)} seeds without spread"
        low, high = wilson(accuracies[0], n_images)
        return Interval(accuracies[0], low, high, n_images, f"Wilson score over the test images of {seeds}")
    return mean_interval(accuracies, within=(0.0, 1.0))


def optimism(best: Sequence[float], last: Sequence[float]) -> Interval:
    """How much the test accuracy of each run's best epoch, chosen by that same test, is above that of its last epoch.

    One number for each run in both; the 95 % interval is over the runs.
    """
    return mean_interval([b - e for b, e in zip(best, last, strict=True)], over="run")


def calibration_error(confidence: Sequence[float], right: Sequence[bool], *, bins: int = 15) -> float:
    """The expected calibration error of a run's answers, in [0, 1] (Guo et al. 2017, "On Calibration of Modern Neural Networks").

    `confidence` in [0, 1] and `right` are one for each image. Equation 3: the gap between mean confidence and accuracy in each of
    `bins` of equal width, weighted by its images. A bin holds its upper end and not its lower; the first holds 0 too (section 2).
    """
    sure, hits = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    assert sure.shape == hits.shape and sure.size, "one confidence and one outcome for each image"
    assert sure.min() >= 0 and sure.max() <= 1, "confidences are in [0, 1]"
    inner_ends = np.arange(1, bins) / bins
    place = np.digitize(sure, inner_ends, right=True)
    gaps = np.bincount(place, weights=sure - hits, minlength=bins)
    return float(np.abs(gaps).sum() / sure.size)


def per_class(labels: Sequence[int], predicted: Sequence[int], *, classes: int) -> tuple[float | None, ...]:
    """The accuracy among the images of each class; None for a class that has none."""
    truth, answer = np.asarray(labels, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    assert truth.shape == answer.shape, "one label and one answer for each image"
    images = np.bincount(truth, minlength=classes)
    hits = np.bincount(truth[truth == answer], minlength=classes)
    return tuple(float(hit / n) if n else None for hit, n in zip(hits, images, strict=True))
