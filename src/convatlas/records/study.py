"""What many runs together say."""

from dataclasses import dataclass

from convatlas.records.run import Environment, Recipe


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval. `method` says how the interval was made, `n` over how many of what."""

    mean: float
    low: float
    high: float
    n: int
    method: str


@dataclass(frozen=True)
class ComparisonRow:
    """One model of a comparison over its finished seeds. Accuracy in [0, 1] on the test split; seconds and images a run.

    `runs` are the run folders, relative to the comparison's. A row with no finished run has `accuracy` None and a `cause`.
    """

    model: str
    family: str
    title: str
    year: int | None
    params: int
    macs: int
    image_size: int
    seeds: tuple[int, ...]
    accuracy: Interval | None
    accuracies: tuple[float, ...]
    train_seconds: float
    images_seen: int
    images_per_second: float
    runs: tuple[str, ...]
    cause: str | None = None


@dataclass(frozen=True)
class Comparison:
    """`results.json` of `convatlas compare`. `recipe` is what all runs share (its model and seed are the first run's).

    `command` is what to type for the same comparison again; `complete` is False while runs are missing.
    """

    name: str
    date: str
    command: str
    complete: bool
    budget: str
    data: str
    data_description: str
    n_train: int
    n_val: int
    n_test: int
    classes: tuple[str, ...]
    models: tuple[str, ...]
    seeds: tuple[int, ...]
    recipe: Recipe
    rows: tuple[ComparisonRow, ...]
    environment: Environment
