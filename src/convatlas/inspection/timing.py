"""Timing calls against each other on this machine.

Calls take turns, so that what the machine does besides, and how warm it is, falls on all of them alike; medians, since a run
can be disturbed and never helped. (Georges, Buytaert & Eeckhout 2007, "Statistically rigorous Java performance evaluation",
say why one number is not enough.)
"""

import gc
import os
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter_ns

import torch

from convatlas.arith.order import FEWEST, median_interval, quartiles
from convatlas.errors import UserError
from convatlas.inspection.resting import collector_resting
from convatlas.records.calc import TimeRatio, Timing, TimingComparison

Call = Callable[[], object]
Listener = Callable[[int, float], None]
"""Is told, after each round, how many are done, and which share of the time is used up, from 0 to 1."""


def compare_times(
    calls: Mapping[str, Call],
    *,
    seconds: float = 1.0,
    least: int = 11,
    most: int = 1000,
    warmup: int = 3,
    finish: Call | None = None,
    progress: Listener | None = None,
) -> TimingComparison:
    """Run each of `calls` once a round, for `seconds` of rounds, but `least` rounds at least and `most` at most.

    The first `warmup` rounds do not count, nor against `seconds`. Every second round has the opposite order. `finish` is called
    within each run, before the clock is stopped: give `torch.cuda.synchronize` for calls that only ask a device to do something.
    The clock is the processor's monotonic one. Python's garbage collector rests meanwhile and is left as it was, as are torch's
    threads, which the record states, with the load before. Ratios are those of runs of one round, against the first call.
    Raises UserError.
    """
    _check(calls, least=least, most=most, warmup=warmup)
    times: dict[str, list[float]] = {name: [] for name in calls}
    load = _load()
    gc.collect()
    with collector_resting():
        for i in range(warmup):
            _round(calls, i, finish)
        begun, done = perf_counter_ns(), 0
        while done < most and (done < least or (perf_counter_ns() - begun) / 1e9 < seconds):
            for name, taken in _round(calls, done, finish).items():
                times[name].append(taken)
            done += 1
            if progress is not None:
                progress(done, _share(done, least, (perf_counter_ns() - begun) / 1e9, seconds))
    base, *others = times
    return TimingComparison(
        timings=tuple(_timing(name, values) for name, values in times.items()),
        ratios=tuple(_ratio(name, base, times[name], times[base]) for name in others),
        warmup=warmup,
        threads=torch.get_num_threads(),
        cores=os.cpu_count() or 1,
        load=load,
        torch=torch.__version__,
    )


def _check(calls: Mapping[str, Call], *, least: int, most: int, warmup: int) -> None:
    if not calls:
        raise UserError("there is nothing to time", fix="Give at least one call.")
    if not FEWEST <= least <= most:
        raise UserError(f"rounds are {least} to {most}", fix=f"Give {FEWEST} or more, and the smaller number first.")
    if warmup < 0:
        raise UserError(f"warmup is {warmup}", fix="Give a number of rounds, 0 or more.")


def _load() -> float | None:
    """The system's average load over the last minute."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def _round(calls: Mapping[str, Call], i: int, finish: Call | None) -> dict[str, float]:
    """Seconds that each call takes, in their order in even rounds and in the opposite one in odd rounds."""
    names = list(calls)[:: 1 if i % 2 == 0 else -1]
    return {name: _timed(calls[name], finish) for name in names}


def _timed(call: Call, finish: Call | None) -> float:
    begun = perf_counter_ns()
    call()
    if finish is not None:
        finish()
    return (perf_counter_ns() - begun) / 1e9


def _share(done: int, least: int, spent: float, seconds: float) -> float:
    """How much of the work is done: both the time and the least number of rounds must be."""
    return min(1.0, done / least, spent / seconds if seconds > 0 else 1.0)


def _timing(name: str, values: Sequence[float]) -> Timing:
    lower, middle, upper = quartiles(values)
    return Timing(name, len(values), lower, middle, upper)


def _ratio(name: str, base: str, values: Sequence[float], bases: Sequence[float]) -> TimeRatio:
    # A clock may be too coarse to see a call that does nothing: a nanosecond is the least that it took.
    low, middle, high = median_interval([value / max(other, 1e-9) for value, other in zip(values, bases, strict=True)])
    return TimeRatio(name, base, middle, low, high)
