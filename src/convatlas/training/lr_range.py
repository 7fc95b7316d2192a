"""The learning-rate range test: one short run in which the learning rate grows from step to step until the loss explodes.

Smith 2017, "Cyclical Learning Rates for Training Neural Networks" (WACV), section 3.3, with the conventions that fastai made
common (Howard & Gugger 2020, "fastai: A Layered API for Deep Learning"): the learning rate grows by the same factor at each step,
the loss is smoothed, and the test ends once it is four times the least. What follows from it is a hint and no result: it is one
run of one seed, and short training at a learning rate that grows is not long training at one that falls.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import torch
from torch import Tensor

from convatlas.data.dataset import DataSet
from convatlas.errors import UserError
from convatlas.records.lr_range import LrRange, LrStep
from convatlas.records.run import Choices, Recipe, RunSummary
from convatlas.training.distributed import ALONE
from convatlas.training.engine import Answer, applied, choose, expected_seconds, settle
from convatlas.training.method import Method
from convatlas.training.precision import autocast, memory_format
from convatlas.training.prepare import examine, first_summary
from convatlas.training.recipe import RANGES
from convatlas.training.state import Position, Run
from convatlas.training.watch import Unwatched, Watch

FEWEST_STEPS, MOST_STEPS = 10, 100_000
EXPLODED = 4.0
"""The test ends when the smoothed loss is so many times the least one: fastai's number."""
MEMORY = 0.05
"""The share of the sweep over which losses are smoothed.

fastai's smoothing remembers 50 steps whatever their number, half of a sweep of 100, and so finds the least loss late.
"""
EARLY = 5
"""An explosion within so many steps leaves nothing to see."""
FALL = 0.03
"""By which share the smoothed loss must fall for a suggestion: the first losses scatter by about one hundredth."""
BACK = 3.0
RULE = "a third of the learning rate at which the smoothed loss is least"
"""Where the loss is least, it is about to rise. fastai's rule "minimum" goes back to a tenth; a recipe's learning rate is the
peak that warm-up leads to, for which a third did better (docs/LOG.md)."""
Steps = Callable[[int, int], None]
"""Is told how many steps are done, of how many."""


def lr_range(
    recipe: Recipe,
    *,
    data: DataSet,
    low: float = 1e-5,
    high: float = 1.0,
    steps: int = 100,
    watch: Watch | None = None,
    progress: Steps | None = None,
    command: str = "",
    method: Method | None = None,
) -> LrRange:
    """Train a new network of `recipe` for `steps` steps on `data` with learning rates from `low` to `high`; keep nothing of it.

    Batches, augmentation, optimizer and number format are the recipe's; its schedule, moving average, and changing image sizes
    are left out. `method` is what the recipe's `tuning` asks for (None: ordinary training). The same recipe gives the same test
    on the same machine. The caller's random state stays as it was. Raises UserError, also for a loss that explodes at once.
    """
    check_range(low, high, steps)
    network, facts = examine(recipe, data)
    summary = first_summary(recipe, data, facts, choose(recipe, network))
    devices = [torch.cuda.current_device()] if summary.choices.device == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(recipe.seed)
        run = _assembled(recipe, data, summary, watch or Unwatched(), steps, method or Method())
        with applied(run.choices, run.model) as answer:
            answer = run.method.answer(run, answer)
            rates = [low * (high / low) ** (i / (steps - 1)) for i in range(steps)]
            found, exploded = _swept(run, answer, rates, progress)
    suggestion, rule = suggested(found, exploded=exploded)
    return LrRange(
        recipe=recipe,
        data_description=data.description,
        image_size=data.image_size,
        n_train=len(data.train),
        params=summary.params,
        low=low,
        high=high,
        asked=steps,
        steps=found,
        exploded=exploded,
        suggestion=suggestion,
        rule=rule,
        command=command,
        choices=run.choices,
        environment=summary.environment,
    )


def check_range(low: float, high: float, steps: int) -> None:
    """Raise a UserError for a sweep that cannot be made."""
    least, largest, _ = RANGES["lr"]
    for name, value in (("lowest", low), ("highest", high)):
        if not (math.isfinite(value) and least <= value <= largest):
            raise UserError(f"the {name} learning rate is {value}", fix=f"Give a number from {least:g} to {largest:g}.")
    if low >= high:
        raise UserError(f"learning rates from {low:g} to {high:g} do not grow", fix="Give the smaller one first.")
    if not FEWEST_STEPS <= steps <= MOST_STEPS:
        raise UserError(f"steps are {steps}", fix=f"Give a whole number from {FEWEST_STEPS} to {MOST_STEPS}.")


def _assembled(recipe: Recipe, data: DataSet, summary: RunSummary, watch: Watch, steps: int, method: Method) -> Run:
    """The network, where it computes, with its optimizer, as at the first step of a run. Nothing is ever written."""
    choices = summary.choices
    model = method.network(recipe, data)
    model = model.to(device=choices.device, memory_format=memory_format(choices))  # type: ignore[call-overload]
    optimizer = method.optimizer(model, recipe)
    run = Run(recipe, Path(), data, model, optimizer, None, choices, watch, Position(), summary, ALONE, method)
    method.begin_range_test(run)
    run.choices = _settled(run, steps)
    return run


def _settled(run: Run, steps: int) -> Choices:
    """The engine's choices for a run of so many steps."""
    images = steps * run.recipe.batch_size
    whole = replace(run.recipe, epochs=1, minutes=None, sizes=())
    expected = expected_seconds(whole, macs=run.summary.macs, images=images, device=run.choices.device)
    batches = [next(run.method.batches(run, size=None))]
    return settle(run.choices, whole, run.model, batches=batches, expected=expected, watch=run.watch)


def _swept(run: Run, answer: Answer, rates: list[float], progress: Steps | None) -> tuple[tuple[LrStep, ...], bool]:
    """The steps, up to the explosion if there is one, and whether there is."""
    keep = 1 - 1 / max(1.0, MEMORY * len(rates))
    found: list[LrStep] = []
    mean = 0.0
    for i, (rate, (x, y)) in enumerate(zip(rates, _batches(run), strict=False), start=1):
        loss = _step(run, answer, x, y, rate=rate)
        if not math.isfinite(loss):
            _refuse_early(i, rates)
            return tuple(found), True
        mean = keep * mean + (1 - keep) * loss
        smoothed = mean / (1 - keep**i)  # without the zero that the mean began with
        found.append(LrStep(rate, loss, smoothed))
        if progress is not None:
            progress(i, len(rates))
        if smoothed > EXPLODED * min(step.smoothed for step in found):
            _refuse_early(i, rates)
            return tuple(found), True
    return tuple(found), False


def _refuse_early(step: int, rates: list[float]) -> None:
    if step > EARLY:
        return
    if step == 1:
        raise UserError("the loss is no number before the first update", fix="Look at the network: `convatlas look` shows it.")
    what = f"the loss exploded at step {step}, with learning rate {rates[step - 2]:.2g} in the step before"
    raise UserError(what, fix=f"Begin lower: --from {rates[0] / 1000:.0e}.")


def _batches(run: Run) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of one epoch after the other."""
    for epoch in count():
        run.position.epoch = epoch
        yield from run.method.batches(run, size=None)


def _step(run: Run, answer: Answer, x: Tensor, y: Tensor, *, rate: float) -> float:
    """One update at learning rate `rate`, unless the loss is no number. Returns the network's own mean loss, before it."""
    for group in run.optimizer.param_groups:
        group["lr"] = rate * group["lr_factor"]
    with autocast(run.choices):
        answers = answer(x)
    losses = [w * run.method.loss(logits.float(), y, run.recipe) for w, logits in answers]
    loss = losses[0].item()
    if not math.isfinite(loss):
        return loss
    run.optimizer.zero_grad()
    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
    if run.recipe.clip_grad > 0:
        torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.recipe.clip_grad)
    run.method.before_update(run)
    run.optimizer.step()
    return loss


def suggested(steps: Iterable[LrStep], *, exploded: bool) -> tuple[float | None, str]:
    """The learning rate that `RULE` gives, and the rule; or None, and why it gives none."""
    taken = list(steps)
    least = min(range(len(taken)), key=lambda i: taken[i].smoothed)
    if taken[least].smoothed > (1 - FALL) * next(islice(taken, 1)).smoothed:
        return None, f"none: the smoothed loss never fell by {FALL:.0%}"
    if least == len(taken) - 1 and not exploded:
        return None, "none: the loss still fell at the highest learning rate; go on with a larger --to"
    return taken[least].lr / BACK, RULE
