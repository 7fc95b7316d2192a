"""How long things take, one beside the other: warmed up, in turns, so that a machine that drifts favours none."""

import time
from collections.abc import Callable, Mapping
from statistics import quantiles

import torch

from convatlas.records.calc import Timing

Action = Callable[[], object]


def timed(
    actions: Mapping[str, Action], *, seconds: float = 1.0, least: int = 7, tick: Callable[[float], None] | None = None
) -> dict[str, Timing]:
    """Each action's durations over rounds in which all are called in turn, as many as fit `seconds`, but at least `least`.

    One round before goes uncounted. Times are of the monotonic clock; work on a GPU is waited for. `tick` is told the share of
    the time that has gone, after each round.
    """
    for action in actions.values():
        _once(action)
    durations: dict[str, list[float]] = {name: [] for name in actions}
    began, rounds = time.monotonic(), 0
    while rounds < least or time.monotonic() - began < seconds:
        for name, action in actions.items():
            durations[name].append(_once(action))
        rounds += 1
        if tick is not None:
            tick(min(1.0, max((time.monotonic() - began) / seconds, rounds / least)))
    return {name: _timing(values) for name, values in durations.items()}


def ratio(first: Timing, second: Timing) -> tuple[float, float, float]:
    """How many times as long the first takes, round by round: the median, and the quartiles around it."""
    shares = [a / b for a, b in zip(first.seconds, second.seconds, strict=True)]
    low, middle, high = quantiles(shares, n=4)
    return middle, low, high


def _once(action: Action) -> float:
    began = time.perf_counter()
    action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _timing(values: list[float]) -> Timing:
    low, middle, high = quantiles(values, n=4)
    return Timing(len(values), middle, low, high, torch.get_num_threads(), tuple(values))
