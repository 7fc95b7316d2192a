"""Who took what from whom, from one landmark architecture to the next."""

from dataclasses import dataclass

from convatlas.records.model import Published


@dataclass(frozen=True)
class Debt:
    """`what` an architecture took from the family `giver`, and the `source` that says so: a section of its paper."""

    giver: str
    what: str
    source: str


@dataclass(frozen=True)
class Milestone:
    """A landmark architecture on the line of descent. `variant` is the member that the numbers are of.

    `params` and `macs` are measured, the MACs for one image of `image_size` pixels a side. The figures are as in `Paper`.
    """

    family: str
    title: str
    year: int
    innovation: str
    variant: str
    params: int
    macs: int
    image_size: int
    own_figure: Published | None
    library_figure: Published | None
    debts: tuple[Debt, ...]
