"""Learning-rate schedules worked out over a budget."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """One schedule: its shape after the warm-up, where it is from, and its factor of the learning rate at each point.

    `rates` are the learning rates themselves, where their peak is known.
    """

    name: str
    shape: str
    source: str
    factors: tuple[float, ...]
    rates: tuple[float, ...] | None = None


@dataclass(frozen=True)
class ScheduleTable:
    """Schedules over the same budget. `progress` are the shares of it, in [0, 1], that the factors hold at.

    With `epochs` these are the beginning and the end of each epoch, else hundredths of the budget. `warmup` is the share of the
    budget that warms up, in [0, 1); `lr` is the peak learning rate.
    """

    warmup: float
    epochs: int | None
    lr: float | None
    progress: tuple[float, ...]
    schedules: tuple[Schedule, ...]
