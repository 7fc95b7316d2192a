"""What the calculators come to."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Durations of one action, in seconds: how many rounds, the median and the quartiles, torch's threads, and each one."""

    n: int
    median: float
    low: float
    high: float
    threads: int
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class WindowSum:
    """A window along rows and columns. `formulas` have the numbers filled in; `unread` are rows and columns at the far end that
    no window reaches, `skipped` those between windows. `same_padding` keeps the size at stride 1, None if none does.
    """

    output: tuple[int, int]
    formulas: tuple[str, ...]
    unread: tuple[int, int]
    skipped: tuple[int, int]
    same_padding: tuple[int | None, int | None]
    params: int | None
    macs: int | None


@dataclass(frozen=True)
class Separable:
    """A full convolution beside a depthwise one and the 1x1 that mixes its channels, without biases, for a square map.

    `ratio` is that of the MACs; `by_formula` 1 / C_out + 1 / K^2. `measured` is that of the times, with quartiles, over `n`
    rounds in turns; None if it was not measured.
    """

    full_params: int
    separable_params: int
    full_macs: int
    separable_macs: int
    ratio: float
    by_formula: float
    measured: tuple[float, ...] | None
    full_seconds: float | None
    separable_seconds: float | None
    n: int
    threads: int


@dataclass(frozen=True)
class StackLayer:
    """A window of a stack and what a unit after it sees: `receptive_field`, `jump` and `start` in pixels of the image."""

    word: str
    kernel: int
    stride: int
    receptive_field: int
    jump: int
    start: int
    size: int | None


@dataclass(frozen=True)
class Stack:
    """Several windows one after the other beside the one that sees as much, at `channels` in and out, without biases."""

    layers: tuple[StackLayer, ...]
    channels: int
    params: int
    single_kernel: int
    single_params: int
