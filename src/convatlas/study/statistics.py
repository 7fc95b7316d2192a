"""Means with intervals. Never a winner without one."""

import math
from collections.abc import Sequence

from scipy import stats

from convatlas.records.study import Interval

LEVEL = 0.95


def accuracy_interval(accuracies: Sequence[float], *, n_images: int) -> Interval:
    """The 95 % interval of a mean accuracy: over seeds where there are several, else over the test images.

    Over seeds: Student's t. Over images: Wilson's score interval for one proportion (Wilson 1927), which covers the
    sampling of the test images only and not what another seed would do; its centre is not the accuracy itself.
    """
    n = len(accuracies)
    mean = sum(accuracies) / n
    if n == 1:
        low, high = wilson(mean, n_images)
        return Interval(mean, low, high, n_images, "Wilson score over the test images of one seed")
    deviation = math.sqrt(sum((a - mean) ** 2 for a in accuracies) / (n - 1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * deviation / math.sqrt(n)
    return Interval(mean, max(mean - half, 0.0), min(mean + half, 1.0), n, "Student's t over seeds")


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's score interval for a share of n independent trials."""
    z = float(stats.norm.ppf((1 + LEVEL) / 2))
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(centre - half, 0.0), min(centre + half, 1.0)
