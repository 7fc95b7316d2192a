"""How fast the networks of a study are on this machine, measured in turn so that one that drifts favours none.

In every round each network has its turn, in an order drawn anew: answers to one image, answers to a batch, training steps. The
first calls of each kind in a turn do not count, since the turn before has left the caches to another network. Only differences
within one measurement are comparable (Georges, Buytaert & Eeckhout 2007, "Statistically rigorous Java performance evaluation").
"""

import gc
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from math import ceil
from time import perf_counter_ns

import torch

from convatlas.arith.order import FEWEST, median_interval
from convatlas.errors import UserError
from convatlas.inspection.resting import collector_resting
from convatlas.records.findings import Speed
from convatlas.records.run import Recipe
from convatlas.records.study import Interval
from convatlas.study.contestant import Contestant
from convatlas.study.energy import EnergyMeter
from convatlas.study.peak import PeakOrder, Peaks, measure_peaks

METHOD = "median over rounds, interval by order statistics"
SECONDS_A_TURN = 0.25
"""About how long one turn lasts for each of the quantities: more calls of what is fast."""
FEWEST_CALLS, MOST_CALLS = 20, 200
"""Of one image in a turn: with fewer than 20 there is no 95th percentile."""
MOST_ROUNDS = 1000
WARM_UP = 2
Told = Callable[[str, int, int], None]
"""Is told what is measured, how much of it is done, and of how much."""


def measure(
    variants: Mapping[str, Recipe | str],
    *,
    num_classes: int,
    in_chans: int,
    image_sizes: Mapping[str, int],
    batch_size: int,
    rounds: int = 10,
    threads: int = 1,
    seed: int = 0,
    progress: Told | None = None,
    meter: EnergyMeter | None = None,
) -> dict[str, Speed]:
    """How fast and how hungry each of `variants` is, which are recipes, or names of models.

    Answers are in fp32 and evaluation mode, as networks are judged; training steps as the recipe says, without the preparation of
    images, and without torch.compile. `image_sizes` has the pixels a side for each variant. Afterwards torch's threads and the
    caller's random state are as before. All networks are in memory together. Raises UserError.
    """
    _check(variants, image_sizes, batch_size=batch_size, rounds=rounds, threads=threads)
    recipes = {name: Recipe(each, "", "") if isinstance(each, str) else each for name, each in variants.items()}
    tell = progress or (lambda what, done, total: None)
    peaks: dict[str, Peaks] = {}
    for i, (name, recipe) in enumerate(recipes.items()):
        tell("memory", i, len(recipes))
        peaks[name] = measure_peaks(PeakOrder(recipe, num_classes, in_chans, image_sizes[name], batch_size, threads))
    tell("memory", len(recipes), len(recipes))
    with _left_as_it_was(threads, seed):
        them = {}
        for name, recipe in recipes.items():
            images = torch.randn(batch_size, in_chans, image_sizes[name], image_sizes[name])
            them[name] = Contestant(recipe, images, num_classes=num_classes)
        found = _in_rounds(them, rounds=rounds, seed=seed, meter=meter or EnergyMeter(), tell=tell)
    return {name: _speed(found[name], peaks[name], batch_size=batch_size) for name in recipes}


def _check(variants: Mapping[str, Recipe | str], sizes: Mapping[str, int], *, batch_size: int, rounds: int, threads: int) -> None:
    if not variants:
        raise UserError("there is nothing to measure", fix="Name a variant.")
    for name in variants:
        if sizes.get(name, 0) < 1:
            raise UserError(f"{name} has no image size", fix="Give the pixels a side, 1 or more.")
    for what, value, low, high in (
        ("batch_size", batch_size, 2, 1_000_000), ("rounds", rounds, FEWEST, MOST_ROUNDS), ("threads", threads, 1, 1024)
    ):  # fmt: skip
        if not low <= value <= high:
            raise UserError(f"{what} is {value}", fix=f"Give a whole number from {low} to {high}.")


@contextmanager
def _left_as_it_was(threads: int, seed: int) -> Iterator[None]:
    """With so many threads, random numbers from `seed`, and no garbage collected in between."""
    before = torch.get_num_threads()
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=range(torch.cuda.device_count())))
        gc.collect()
        stack.enter_context(collector_resting())
        stack.callback(torch.set_num_threads, before)
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        yield


@dataclass
class _Times:
    """Seconds, round by round: of one image at the median and at the 95th percentile, of a batch, of a step; joules of a step."""

    one: list[float] = field(default_factory=list)
    one_p95: list[float] = field(default_factory=list)
    batch: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)
    joules: list[float | None] = field(default_factory=list)


@dataclass(frozen=True)
class _Calls:
    """How often each thing is done in a turn."""

    one: int
    batch: int
    step: int


def _in_rounds(them: Mapping[str, Contestant], *, rounds: int, seed: int, meter: EnergyMeter, tell: Told) -> dict[str, _Times]:
    """What each round took."""
    draw = random.Random(seed)
    times = {name: _Times() for name in them}
    calls = {name: _calls(each) for name, each in them.items()}
    for i in range(rounds):
        tell("rounds", i, rounds)
        for name in draw.sample(list(them), len(them)):
            _turn(them[name], calls[name], times[name], meter)
    tell("rounds", rounds, rounds)
    return times


def _calls(each: Contestant) -> _Calls:
    """So many that each quantity takes a turn's time, from the second time that it is done."""
    seconds = {}
    for name, call in (("one", each.answer_one), ("batch", each.answer), ("step", each.step)):
        seconds[name] = _timed(each, call, WARM_UP + 1)[-1]
    often = {name: ceil(SECONDS_A_TURN / max(value, 1e-9)) for name, value in seconds.items()}
    one = min(max(often["one"], FEWEST_CALLS), MOST_CALLS)
    return _Calls(one, min(often["batch"], MOST_CALLS), min(often["step"], MOST_CALLS))


def _turn(each: Contestant, calls: _Calls, times: _Times, meter: EnergyMeter) -> None:
    """One network's turn."""
    one = sorted(_timed(each, each.answer_one, WARM_UP + calls.one)[WARM_UP:])
    times.one.append(_quantile(one, 0.5))
    times.one_p95.append(_quantile(one, 0.95))
    times.batch.append(_mean(_timed(each, each.answer, 1 + calls.batch)[1:]))
    _timed(each, each.step, 1)
    before = meter.read() if each.device == "cpu" else None
    times.step.append(_mean(_timed(each, each.step, calls.step)))
    joules = meter.joules(before, meter.read())
    times.joules.append(None if joules is None else joules / calls.step)


def _timed(each: Contestant, call: Callable[[], None], often: int) -> list[float]:
    """Seconds that each of so many calls takes; the device has done all before the clock is stopped."""
    each.finish()
    taken = []
    for _ in range(often):
        begun = perf_counter_ns()
        call()
        each.finish()
        taken.append((perf_counter_ns() - begun) / 1e9)
    return taken


def _quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which that share lies; between two values in a straight line (Hyndman & Fan 1996, type 7)."""
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _speed(times: _Times, peaks: Peaks, *, batch_size: int) -> Speed:
    joules = [each / batch_size for each in times.joules if each is not None]
    return Speed(
        batch_size=batch_size,
        rounds=len(times.one),
        latency=_interval(times.one),
        latency_p95=_interval(times.one_p95),
        throughput=_interval([batch_size / each for each in times.batch]),
        train_throughput=_interval([batch_size / each for each in times.step]),
        inference_peak_bytes=peaks.inference,
        train_peak_bytes=peaks.training,
        joules=_quantile(sorted(joules), 0.5) if len(joules) == len(times.joules) else None,
    )


def _interval(values: Sequence[float]) -> Interval:
    low, middle, high = median_interval(values)
    return Interval(middle, low, high, len(values), METHOD)
