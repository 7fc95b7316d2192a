"""The intervals of a share of independent trials, and of the difference of two."""

import math
from statistics import NormalDist


def wilson(share: float, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a share of n independent trials (Wilson 1927)."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(centre - half, 0.0), min(centre + half, 1.0)


def newcombe(first: float, second: float, *, trials: tuple[int, int], level: float = 0.95) -> tuple[float, float]:
    """The interval of `first` - `second`, shares of so many independent `trials` each (Newcombe 1998, method 10)."""
    (low1, high1), (low2, high2) = (wilson(each, n, level=level) for each, n in zip((first, second), trials, strict=True))
    gap = first - second
    return gap - math.hypot(first - low1, high2 - second), gap + math.hypot(high1 - first, second - low2)
