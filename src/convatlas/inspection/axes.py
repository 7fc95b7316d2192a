"""What the axes of a tensor are made of, so that a flattened map can be told from a vector.

Flattening (N, C, H, W) to (N, C*H*W) puts three factors on one axis; a later view takes them apart again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import prod

from convatlas.errors import UserError

ROWS, COLUMNS = 0, 1


class NotFollowedError(UserError):
    """What units depend on cannot be told from here on."""

    def __init__(self, what: str) -> None:
        super().__init__(what, fix="Receptive fields are not known from there on.")


@dataclass(frozen=True)
class Factor:
    """`size` rows or columns of units (`side` is ROWS or COLUMNS), or that many channels or the like (`side` is None)."""

    size: int
    side: int | None = None


Axis = tuple[Factor, ...]
"""From slowest to fastest. Neighbours without side are one factor, and those of size 1 are left out."""


def length(axis: Iterable[Factor]) -> int:
    """How long the axis is."""
    return prod(factor.size for factor in axis)


def plain_length(axis: Iterable[Factor]) -> int:
    """How long it would be without rows and columns."""
    return prod(factor.size for factor in axis if factor.side is None)


def plain_lengths(axes: Iterable[Axis]) -> tuple[int, ...]:
    """The lengths of several axes without their rows and columns."""
    return tuple(plain_length(axis) for axis in axes)


def sides(axis: Axis) -> list[int]:
    """Which of ROWS and COLUMNS lie on the axis."""
    return [factor.side for factor in axis if factor.side is not None]


def only_side(axis: Axis) -> int | None:
    """ROWS or COLUMNS, if the axis is nothing else."""
    return axis[0].side if len(axis) == 1 else None


def plain(size: int) -> Axis:
    """An axis without rows and columns."""
    return (Factor(size),) if size != 1 else ()


def put(axes: tuple[Axis, ...], i: int, axis: Axis) -> tuple[Axis, ...]:
    """The axes with another one at place `i`."""
    return (*axes[:i], axis, *axes[i + 1 :])


def broadcast_axis(candidates: Sequence[Axis]) -> Axis:
    """The axis that these are broadcast to: the longest, and of equally long ones that with rows or columns."""
    return max(candidates, key=lambda axis: (length(axis), len(sides(axis))))


def dealt_out(axes: Sequence[Axis], shape: Sequence[int]) -> tuple[Axis, ...]:
    """The factors of `axes`, in order, on axes of these lengths. Raises NotFollowedError if rows or columns would be cut."""
    if prod(shape) != prod(length(axis) for axis in axes):
        raise NotFollowedError("a view changes the number of units")
    queue = list(_merged(factor for axis in axes for factor in axis))
    result = []
    for i, size in enumerate(shape):
        taken: list[Factor] = []
        while queue and length(taken) < size:
            taken.append(_next(queue, size, length(taken)))
        while queue and queue[0].size == 1 and _belongs(queue, shape[i:], bool(taken)):
            taken.append(queue.pop(0))
        result.append(tuple(taken))
    return tuple(result)


def _belongs(queue: Sequence[Factor], shape: Sequence[int], taken: bool) -> bool:
    """Whether the only row or column of a map goes to the first axis of `shape`: it gets one of length 1 of its own, the last
    that there is, or else shares the axis before."""
    if len(shape) == 1 or shape[1] != 1:
        return True
    waiting = sum(1 for _ in takewhile(lambda factor: factor.size == 1, queue))
    room = sum(1 for _ in takewhile(lambda size: size == 1, shape))
    return shape[0] == 1 and not taken and waiting >= room


def _next(queue: list[Factor], size: int, taken: int) -> Factor:
    """The next factor for an axis of length `size`, filled up to `taken` so far, or as much of it as there is room for."""
    factor, room = queue.pop(0), size // taken
    if factor.size <= room and size % taken == 0:
        return factor
    if factor.side is not None or size % taken or factor.size % room:
        raise NotFollowedError("a view cuts rows or columns of a map into parts")
    queue.insert(0, Factor(factor.size // room))
    return Factor(room)


def _merged(factors: Iterable[Factor]) -> Iterable[Factor]:
    """Neighbours without side as one factor."""
    size = 1
    for factor in factors:
        if factor.side is None:
            size *= factor.size
            continue
        yield from plain(size)
        yield factor
        size = 1
    yield from plain(size)
