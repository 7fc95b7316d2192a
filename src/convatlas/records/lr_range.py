"""A learning-rate range test: the loss while the learning rate grows from step to step."""

from dataclasses import dataclass

from convatlas.records.run import Choices, Environment, Recipe


@dataclass(frozen=True)
class LrStep:
    """One step: its learning rate, the loss of its batch before the update, in nats, and the losses so far, smoothed."""

    lr: float
    loss: float
    smoothed: float


@dataclass(frozen=True)
class LrRange:
    """A whole test. `recipe` says what was trained, and with what, but for its learning rate and schedule.

    The learning rate was to grow from `low` to `high` in `asked` steps; `steps` are those taken, fewer where the loss `exploded`.
    `suggestion` follows from them by `rule`; where that gives none, it is None and `rule` says why. One test is one run.
    """

    recipe: Recipe
    data_description: str
    image_size: int
    n_train: int
    params: int
    low: float
    high: float
    asked: int
    steps: tuple[LrStep, ...]
    exploded: bool
    suggestion: float | None
    rule: str
    command: str
    choices: Choices
    environment: Environment
