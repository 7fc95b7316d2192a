"""Which of several things no other one beats in both of two measures."""

from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (cost, value) that are not dominated, in the order given: less cost and more value are better.

    A point is dominated by another that is at least as good in both and better in one. Equal points do not dominate each other:
    they are on the front together or not at all.
    """
    return [i for i, point in enumerate(points) if not any(_dominates(other, point) for other in points)]


def _dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] <= other[0] and one[1] >= other[1]
