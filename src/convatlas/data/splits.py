"""Which images are held out: stratified, and a pure function of their names and a seed."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from convatlas.errors import UserError


def hold_out(keys: Sequence[str], labels: Sequence[int], *, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices kept and indices held out, each ascending: `share` of each class, rounded, and never a whole class.

    A class of two or more gives at least one image if `share` > 0; a class of one gives none. Within a class the images
    whose hashed key is lowest are held out. So the split is the same on any machine and for any order of the files, and
    adding a file moves at most one other across.
    """
    by_class: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        by_class[label].append(index)
    held: set[int] = set()
    for members in by_class.values():
        wanted = 0 if share <= 0 else max(1, round(len(members) * share))
        ranked = sorted(members, key=lambda index: _rank(keys[index], seed))
        held.update(ranked[: min(wanted, len(members) - 1)])
    return [i for i in range(len(labels)) if i not in held], sorted(held)


def fraction_of(labels: Sequence[int], *, share: float, seed: int) -> list[int]:
    """Ascending indices of `share` of each class, rounded, at least one image of each.

    Which ones depends on the seed and their places alone, and a smaller share is part of a larger one: what data more would have
    bought is then not mixed up with which data.
    """
    by_class: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        by_class[label].append(index)
    chosen: list[int] = []
    for members in by_class.values():
        ranked = sorted(members, key=lambda index: _rank(f"fraction {index}", seed))
        chosen += ranked[: max(1, round(len(members) * share))]
    return sorted(chosen)


def folds_of(labels: Sequence[int], *, folds: int, seed: int) -> list[list[int]]:
    """The indices of `folds` parts of about equal size, each ascending, with about as many of each class in each.

    Which ones depends on the seed and their places alone. Raises UserError if a class has fewer images than there are folds.
    """
    by_class: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        by_class[label].append(index)
    least = min(len(members) for members in by_class.values())
    if not 2 <= folds <= least:
        fix = f"Give --folds 2 to {least}." if least > 1 else "Add images of that class, or name one strategy, such as probe."
        raise UserError(f"{folds} folds, and a class of {least} image{'s' if least > 1 else ''}", fix=fix)
    parts: list[list[int]] = [[] for _ in range(folds)]
    first = 0
    for members in by_class.values():
        ranked = sorted(members, key=lambda index: _rank(f"fold {index}", seed))
        for place, index in enumerate(ranked):
            parts[(first + place) % folds].append(index)
        first += len(members)  # where one class ends the next goes on, so that no fold gets all the extra ones
    return [sorted(part) for part in parts]


def _rank(key: str, seed: int) -> bytes:
    """A place in line that looks random but depends on nothing but the key and the seed."""
    return hashlib.blake2b(f"{seed}/{key}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
