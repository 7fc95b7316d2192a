"""A tournament of fine-tuning strategies: what was to be run, what each trial came to, and who won."""

from dataclasses import dataclass

from convatlas.records.run import Recipe
from convatlas.records.study import Interval

PLAN, RESULT = "plan.json", "tournament.json"
"""The files of a tournament's folder: what it began with, and what it came to."""
BASELINE = "scratch"
"""The strategy that is in every round: random weights."""
TRIALS, WINNER = "trials", "winner"
"""Its folders: a run for each trial, and the winner's run on all images but the test images."""


@dataclass(frozen=True)
class TournamentPlan:
    """What a tournament begins with. `place` is the folder, list or name of the data; `recipes` one for each strategy.

    Exactly one of `epochs`, of a finalist's training, and `minutes`, of the whole tournament, is set. `folds` is over how many
    parts the images are cross-validated; `finals` how many trainings each finalist has, each with another seed and fold.
    Without `halving` there is one round, of all strategies.
    """

    place: str
    recipes: tuple[Recipe, ...]
    epochs: int | None
    minutes: float | None
    folds: int
    finals: int
    seed: int
    validation: float
    skip_unreadable: bool
    halving: bool = True


@dataclass(frozen=True)
class Trial:
    """One training: of which strategy, in which round (from 1), judged on which fold (from 0), with which seed.

    `accuracy` in [0, 1] and `loss` in nats are on the fold's `n` images; None if it failed, and then `cause` says why. `seconds`
    are those of training, `trained` how many parameters learnt at its end.
    """

    strategy: str
    rung: int
    fold: int
    seed: int
    folder: str
    epochs: int
    seconds: float
    n: int
    trained: int
    accuracy: float | None
    loss: float | None
    cause: str | None = None


@dataclass(frozen=True)
class Standing:
    """How a strategy did: the last round that it reached, and its mean accuracy there over `trials` trainings.

    `difference` is the winner's accuracy minus its own over the same folds and seeds (None: the winner itself, or fewer than two
    trainings in common). `seconds` are those of one training in that round, `total_seconds` of all of its trainings.
    `winner_seconds` are those of one of the winner's trainings in that round, of the same folds and seeds (None: not known).
    """

    strategy: str
    rung: int
    trials: int
    accuracy: Interval
    loss: float
    difference: Interval | None
    seconds: float
    total_seconds: float
    trained: int
    winner_seconds: float | None = None


@dataclass(frozen=True)
class Tournament:
    """What a tournament came to: best first. `advice` is in sentences; `test` is the winner's accuracy on the test images."""

    model: str
    weights: str | None
    data: str
    classes: tuple[str, ...]
    image_size: int
    n_images: int
    n_test: int
    folds: int
    rungs: tuple[tuple[str, ...], ...]
    standings: tuple[Standing, ...]
    trials: tuple[Trial, ...]
    winner: str
    advice: tuple[str, ...]
    test: Interval | None
    test_looks: int
    seconds: float
