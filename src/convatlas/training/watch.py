"""Who is told how training goes, and may ask it to stop. The faces implement this; training prints nothing itself."""

from dataclasses import dataclass
from typing import Protocol

from convatlas.records.run import Choices, EpochMetrics


@dataclass(frozen=True)
class Progress:
    """Where a run stands. `epoch` counts from 1; `fraction` of the budget in [0, 1]; loss in nats, accuracy in [0, 1],
    both means over the epoch so far; `seconds` of training, and how many are left at this pace."""

    model: str
    seed: int
    epoch: int
    epochs: int | None
    fraction: float
    loss: float
    accuracy: float
    images_per_second: float
    seconds: float
    seconds_left: float


class Watch(Protocol):
    """A listener of a run."""

    def step(self, progress: Progress) -> None:
        """Called a few times a second while training."""

    def epoch(self, progress: Progress, metrics: EpochMetrics) -> None:
        """Called after each epoch, once its metrics are on disk."""

    def note(self, text: str) -> None:
        """Something that the user should know, in one sentence."""

    def trying(self, what: str, done: int, total: int) -> None:
        """The engine tries what is fastest here: so many things are done, of so many."""

    def computing(self, what: str, done: int, total: int) -> None:
        """Something is computed at once, before the first step or after the last: so much is done, of so much."""

    def chosen(self, choices: Choices) -> None:
        """What the engine chose for the run that now begins."""

    def stopping(self) -> bool:
        """Whether the run should save and stop after this step."""
        ...


class Unwatched:
    """Hears everything and says nothing."""

    def step(self, progress: Progress) -> None:
        """Nothing."""

    def epoch(self, progress: Progress, metrics: EpochMetrics) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def trying(self, what: str, done: int, total: int) -> None:
        """Nothing."""

    def computing(self, what: str, done: int, total: int) -> None:
        """Nothing."""

    def chosen(self, choices: Choices) -> None:
        """Nothing."""

    def stopping(self) -> bool:
        """Never."""
        return False
