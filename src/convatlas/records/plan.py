"""What a study is to make, with everything resolved: `plan.json` in the study's folder."""

from dataclasses import dataclass

from convatlas.records.run import Recipe

FORMAT = 1
"""Version of a study's files; a newer one is refused."""


@dataclass(frozen=True)
class Factor:
    """What is varied: a setting of the recipe (`lr`), of the model (`model.norm`), the `model` itself, or `data_fraction`.

    `levels` are as shown to people and as used in names of variants, in the order of the plan.
    """

    name: str
    levels: tuple[str, ...]


@dataclass(frozen=True)
class Held:
    """What all variants have equal: `params`, `macs`, `steps` or `minutes`, within the share `tolerance` of `target`."""

    what: str
    target: float
    tolerance: float


@dataclass(frozen=True)
class Variant:
    """One cell of the design. `recipe` is complete but for the seed; `levels` says which level of each factor it has.

    `width` is the multiple of all widths that was found so that what is held equal is (None: nothing had to be found). `params`
    and `macs` (for one image) are the network's; `steps` the optimisation steps of a run (None where the budget is in minutes).
    """

    name: str
    levels: dict[str, str]
    recipe: Recipe
    params: int
    macs: int
    image_size: int
    steps: int | None
    width: float | None = None


@dataclass(frozen=True)
class PlannedComparison:
    """Two variants, by name, whose difference (first - second) the study was planned to find."""

    first: str
    second: str


@dataclass(frozen=True)
class Searched:
    """A setting of the recipe that is tuned: from `low` to `high`, on a logarithmic scale or not, or one of `choices`.

    `points` is how many values between `low` and `high` a grid has.
    """

    setting: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[str, ...] = ()
    points: int | None = None


@dataclass(frozen=True)
class Tuning:
    """The search that every variant gets before its replicates: so many `trials` of `epochs` each, on validation alone.

    `sampler` is "tpe", "random" or "grid"; `pruner` "median" or "none". `seed` is that of the search and of its trials' runs.
    """

    trials: int
    searched: tuple[Searched, ...]
    epochs: int
    sampler: str = "tpe"
    pruner: str = "median"
    seed: int = 1_000_000


@dataclass(frozen=True)
class StudyPlan:
    """A whole study: variants times seeds is its runs.

    `equivalence` is the difference in accuracy, a share in [0, 1], below which two variants count as equal (0: not asked).
    `threads` and `processes` are those of each run. `watched`: the test accuracy is kept, sealed, after every epoch, so that the
    report can say what choosing by it would have feigned. `seeds_added` are those of `seeds` that were added after a look at
    results, which makes intervals a little too narrow. `data_description` and sizes are those of the data that the recipes name.
    """

    format: int
    name: str
    question: str
    date: str
    convatlas: str
    factors: tuple[Factor, ...]
    design: str
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    held: tuple[Held, ...]
    comparisons: tuple[PlannedComparison, ...]
    equivalence: float
    tuning: Tuning | None
    threads: int
    processes: int
    watched: bool
    data: str
    data_description: str
    n_train: int
    n_val: int
    n_test: int
    classes: tuple[str, ...]
    source: str
    seeds_added: tuple[int, ...] = ()
    in_chans: int = 3


@dataclass(frozen=True)
class Attempt:
    """A line of `attempts.jsonl` of a claim: how one try at a run ended. `status` is finished, failed, stopped, or renewed
    (new tries were given); `cause` is None unless it failed. Dates are UTC."""

    run: str
    attempt: int
    begun: str
    ended: str
    status: str
    cause: str | None
