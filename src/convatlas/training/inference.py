"""The fastest way to run a network that only has to answer, chosen by trial, with its error stated.

The rule, for `images_ahead` images of which a batch is computed at once:
- A trial of the ways that are set up at once runs each about eight times. It is made on a 64th of the images, one batch at most,
  so that it never costs more than a part of the job; with fewer than 64 images, or if the whole job takes eager fp32 less than
  `SHORT_JOB` seconds, there is no trial and the network is run as it is.
- A way that takes long to set up (compiling, converting) is tried only if it would pay even if it were no more than
  `EXPECTED_GAIN` times as fast as the best of the quick ones: (1 - 1 / EXPECTED_GAIN) x the job's time >= its set-up's.
- Whatever differs from eager fp32 by more than its tolerance on the example is rejected, however fast it is.
Of the slow ways only those are tried whose number format was the faster of the quick ones.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from time import perf_counter

import torch
from torch import Tensor, nn

from convatlas.errors import UserError, first_line
from convatlas.inspection.timing import compare_times
from convatlas.records.inference import InferenceChoice, WayTrial
from convatlas.training.inference_ways import WAYS, YARDSTICK, Ask, Way, as_it_is

SHARE = 64
"""A trial computes on one image of so many."""
SHORT_JOB = 3.0
"""Seconds in eager fp32 below which nothing is tried."""
EXPECTED_GAIN = 1.3
"""How many times as fast as the best quick way a slow one is expected to be."""
TOLERANCES = {"fp32": 1e-3, "bf16": 0.05}
"""The largest admitted error of a logit, as a share of the spread of all logits. Rounding to bf16 costs up to 0.4 % a layer."""
Listener = Callable[[str], None]


def _unheard(_: object) -> None:
    return None


@dataclass(frozen=True)
class Engine:
    """How a network is to be run: one of `ENGINES`, who is told what is tried, and who is told what was chosen."""

    name: str = "eager"
    trying: Listener = _unheard
    chosen: Callable[[InferenceChoice], None] = _unheard


class Prepared(nn.Module):
    """A network made ready to answer: images (N, C, H, W), any N, to logits (N, num_classes). `record` says how, and why so.

    It answers in evaluation mode, without gradients, `record.batch_size` images at a time.
    """

    def __init__(self, network: nn.Module, ask: Ask, record: InferenceChoice) -> None:
        super().__init__()
        self.network = network
        self.ask = ask
        self.record = record
        self.eval()

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Tensor:
        """The logits, batch by batch."""
        return torch.cat([self._answers(part) for part in torch.split(x, self.record.batch_size)])

    def _answers(self, x: Tensor) -> Tensor:
        """Those of one batch; an incomplete one is filled up where only whole ones are taken."""
        lacking = self.record.batch_size - len(x)
        if not lacking or not WAYS[self.record.way].static:
            return self.ask(x)
        return self.ask(torch.cat([x, x.new_zeros(lacking, *x.shape[1:])]))[: len(x)]


@dataclass
class _Trial:
    """What is known while ways are tried: the calls that may be taken, and what was found of each way."""

    network: nn.Module
    example: Tensor
    wanted: Tensor
    tolerance: float | None
    trying: Listener
    calls: dict[str, Ask] = field(default_factory=dict)
    found: dict[str, WayTrial] = field(default_factory=dict)
    timed: int = 0

    def leave(self, name: str, note: str) -> None:
        """Do not take the way, for the reason given."""
        self.found[name] = replace(self.found.get(name, WayTrial(name)), note=note)
        self.calls.pop(name, None)

    def build(self, name: str) -> None:
        """Set a way up and compare its answers; whatever goes wrong is a reason not to take it."""
        way = WAYS[name]
        lack = way.lacking()
        if lack is not None:
            self.leave(name, lack[0])
            return
        if way.setup_seconds:
            self.trying(f"setting up {name}, about {way.setup_seconds:.0f} s")
        begun = perf_counter()
        try:
            ask = way.build(self.network, self.example)
            error, agreement = compared(ask(self.example), self.wanted)
        except Exception as failure:  # compilers and converters fail with whatever they meet
            self.leave(name, f"it failed: {first_line(failure)}")
            return
        self.calls[name] = ask
        self.found[name] = WayTrial(name, setup_seconds=perf_counter() - begun, error=error, agreement=agreement)
        limit = TOLERANCES[way.precision] if self.tolerance is None else self.tolerance
        if not error <= limit:
            self.leave(name, f"its logits differ from fp32's by {error:.2g} of their spread, more than {limit:g}")

    def time(self, images: Tensor, seconds: float) -> None:
        """Time all calls on `images` in turns; the first is eager fp32."""
        calls = {name: _call(ask, images) for name, ask in self.calls.items()}
        self.timed = len(images)
        compared_times = compare_times(calls, seconds=seconds, least=6, warmup=1)
        ratios = {ratio.name: ratio for ratio in compared_times.ratios}
        for timing in compared_times.timings:
            found = replace(self.found[timing.name], seconds=timing.median)
            if timing.name in ratios:
                ratio = ratios[timing.name]
                found = replace(found, speed_up=1 / ratio.median, low=1 / ratio.high, high=1 / ratio.low)
            self.found[timing.name] = found

    def fastest(self) -> str:
        """The one with the highest speed-up of those that may be taken and were timed; eager fp32 has 1."""
        return max(self.calls, key=lambda name: 1.0 if name == YARDSTICK else self.found[name].speed_up or 0.0)


def prepare(
    model: nn.Module,
    example: Tensor,
    *,
    ways: Sequence[str] | None = None,
    images_ahead: int | None = None,
    seconds: float = 3.0,
    tolerance: float | None = None,
    progress: Listener = _unheard,
) -> Prepared:
    """The fastest of `ways` (None: all of `WAYS`) to run `model`, on the CPU, for batches like `example` (N, C, H, W).

    `images_ahead` is how many images are to be computed, which decides what is worth trying (see above; None: everything is).
    A single way is taken without timing it. `seconds` is the least time that timing takes, `tolerance` the largest admitted
    error (see `WayTrial`; None: as in `TOLERANCES`). `progress` is told what is being tried. The model is not
    touched; it must take any number of images. Raises UserError for a single way that cannot be had.
    """
    network = deepcopy(model).eval()
    ask = as_it_is(network, example)
    begun = perf_counter()
    trial = _Trial(network, example, ask(example), tolerance, progress, {YARDSTICK: ask})
    trial.found[YARDSTICK] = WayTrial(YARDSTICK, setup_seconds=perf_counter() - begun, error=0.0, agreement=1.0)
    names = tuple(WAYS) if ways is None else tuple(ways)
    if len(names) == 1:
        return _pinned(trial, names[0], images_ahead)
    return _best(trial, names, seconds, images_ahead)


def _best(trial: _Trial, names: Sequence[str], seconds: float, images_ahead: int | None) -> Prepared:
    """The fastest by as much of a trial as the work ahead is worth."""
    example, ask = trial.example, trial.calls[YARDSTICK]
    timed = len(example) if images_ahead is None else min(len(example), images_ahead // SHARE)
    if not timed:
        return _done(trial, YARDSTICK, f"fewer than {SHARE} images are not worth a trial", images_ahead)
    if images_ahead is not None and (job := _seconds(ask, example) * images_ahead / len(example)) < SHORT_JOB:
        return _done(trial, YARDSTICK, f"all takes {job:.1f} s, too little for a trial", images_ahead)
    if images_ahead is None:
        _try_all(trial, names, seconds)
    else:
        _try_quick(trial, names, example[:timed], seconds)
        _try_slow(trial, names, seconds, images_ahead)
    return _done(trial, trial.fastest(), "the fastest by trial", images_ahead)


def _pinned(trial: _Trial, name: str, images_ahead: int | None) -> Prepared:
    lack = WAYS[name].lacking()
    if lack is not None:
        raise UserError(lack[0], fix=lack[1])
    if name != YARDSTICK:
        trial.build(name)
    if name not in trial.calls:
        raise UserError(f"{name} cannot be taken: {trial.found[name].note}", fix="Choose --engine auto.")
    return _done(trial, name, "as asked", images_ahead)


def _try_all(trial: _Trial, names: Sequence[str], seconds: float) -> None:
    for name in names:
        if name != YARDSTICK:
            trial.build(name)
    trial.time(trial.example, seconds)


def _try_quick(trial: _Trial, names: Sequence[str], images: Tensor, seconds: float) -> None:
    for name in names:
        if name != YARDSTICK and not WAYS[name].setup_seconds:
            trial.build(name)
    trial.time(images, seconds)


def _try_slow(trial: _Trial, names: Sequence[str], seconds: float, images_ahead: int) -> None:
    """Set up those slow ways that are expected to pay, and time them beside the quick ones, on whole batches."""
    best = trial.fastest()
    per_image = (trial.found[best].seconds or 0.0) / trial.timed
    for name in names:
        if WAYS[name].setup_seconds:
            note = _not_worth(WAYS[name], WAYS[best], per_image * images_ahead)
            trial.build(name) if note is None else trial.leave(name, note)
    if any(WAYS[name].setup_seconds for name in trial.calls):
        trial.time(trial.example, seconds)


def _not_worth(way: Way, best: Way, ahead: float) -> str | None:
    """Why a slow way is not tried for a job of `ahead` seconds in the best quick way; None if it is."""
    if way.precision != best.precision:
        return f"{best.precision} was the faster number format"
    if pays(way, ahead):
        return None
    return f"setting up takes about {way.setup_seconds:.0f} s, and the whole job {ahead:.0f} s without"


def pays(way: Way, seconds_ahead: float) -> bool:
    """Whether a way's set-up is expected to be won back in a job that takes `seconds_ahead` in the best quick way."""
    return seconds_ahead * (1 - 1 / EXPECTED_GAIN) >= way.setup_seconds


def compared(logits: Tensor, wanted: Tensor) -> tuple[float, float]:
    """The largest difference as a share of the standard deviation of `wanted` (N, num_classes); the share of equal answers."""
    difference = (logits - wanted).abs().max().item()
    spread = wanted.std(correction=0).item()
    agreement = (logits.argmax(1) == wanted.argmax(1)).float().mean().item()
    return (difference / spread if spread else (0.0 if difference == 0 else float("inf"))), agreement


def _seconds(ask: Ask, images: Tensor) -> float:
    begun = perf_counter()
    ask(images)
    return perf_counter() - begun


def _call(ask: Ask, images: Tensor) -> Callable[[], object]:
    return lambda: ask(images)


def _done(trial: _Trial, way: str, reason: str, images_ahead: int | None) -> Prepared:
    record = InferenceChoice(
        way=way,
        reason=reason,
        batch_size=len(trial.example),
        images_ahead=images_ahead,
        timed=trial.timed,
        checked=len(trial.example) if trial.timed or way != YARDSTICK else 0,
        threads=torch.get_num_threads(),
        trials=tuple(trial.found.values()),
    )
    return Prepared(trial.network, trial.calls[way], record)
