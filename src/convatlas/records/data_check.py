"""What a check of a data set finds before anything is trained on it: duplicates, odd classes, files that cannot be read."""

from dataclasses import dataclass

EXACT, NEAR = "exact", "near"
"""Kinds of duplicates: the same pixels, or the same detail after one picture was moved, scaled or mirrored onto the other."""


@dataclass(frozen=True)
class Place:
    """One image of the data: its split, its index there (from 0), its class, and its file for data that comes as files."""

    split: str
    index: int
    label: str
    file: str | None = None


@dataclass(frozen=True)
class Pair:
    """Two images that are duplicates. `likeness` is 1 for exact ones; `mirrored` says that one is the other's mirror image."""

    kind: str
    first: Place
    second: Place
    likeness: float
    mirrored: bool

    @property
    def contradictory(self) -> bool:
        """Whether they stand under different classes."""
        return self.first.label != self.second.label


@dataclass(frozen=True)
class Example:
    """A pair to be judged by eye: both pictures as PNG data URLs."""

    pair: Pair
    first: str
    second: str


@dataclass(frozen=True)
class Relation:
    """Duplicates of the `total` images of `split` in the split `other`, which may be the same.

    `exact` and `near` count pairs, `contradictory` those of them whose images stand under different classes; `indices` are the
    images of `split` that have at least one, in order.
    """

    split: str
    other: str
    exact: int
    near: int
    contradictory: int
    indices: tuple[int, ...]
    total: int

    @property
    def share(self) -> float:
        """The share of the images of `split` that have a duplicate in `other`."""
        return len(self.indices) / self.total if self.total else 0.0


@dataclass(frozen=True)
class ClassRow:
    """How many images a class has in each split; `remark` says what is odd about it, and is empty if nothing is."""

    name: str
    counts: dict[str, int]
    remark: str


@dataclass(frozen=True)
class Unreadable:
    """A file that could not be read, and why."""

    file: str
    why: str


@dataclass(frozen=True)
class PictureSize:
    """So many files have this size in pixels and this kind of pixels (Pillow's mode: L is grey, RGB colour)."""

    width: int
    height: int
    mode: str
    count: int


@dataclass(frozen=True)
class Finding:
    """Something a person should know or mend: its `kind` in a word or two, and a sentence."""

    kind: str
    text: str


@dataclass(frozen=True)
class DataCheck:
    """All that was found in one data set, or why it cannot be read at all (`refused`, None otherwise).

    `image` is (C, H, W) as read, `splits` has the images in each split; what training holds out for validation counts as train.
    In a group of exact duplicates each image is paired with the first; near ones are looked for among the most alike. `near`
    says how that was done, `threshold` from which likeness on two count as near duplicates. `pairs` are the surest if there are
    very many; `relations` count all. `examples` are some of each relation with their pictures, from the least sure to the surest.
    `blank` are images of one colour. `verdict` is what it all comes to.
    """

    data: str
    description: str
    fingerprint: str
    convatlas: str
    refused: str | None
    image: tuple[int, ...]
    splits: dict[str, int]
    classes: tuple[ClassRow, ...]
    relations: tuple[Relation, ...]
    pairs: tuple[Pair, ...]
    examples: tuple[Example, ...]
    blank: tuple[Place, ...]
    unreadable: tuple[Unreadable, ...]
    sizes: tuple[PictureSize, ...]
    threshold: float | None
    near: str
    findings: tuple[Finding, ...] = ()
    verdict: tuple[str, ...] = ()
    seconds: float = 0.0


def across(check: DataCheck, *, split: str = "test", other: str = "train") -> tuple[int, ...]:
    """The indices of the images of `split` that have an exact or near duplicate in `other`, in order."""
    return next((each.indices for each in check.relations if (each.split, each.other) == (split, other)), ())
