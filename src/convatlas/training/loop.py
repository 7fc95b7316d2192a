"""One recipe in, one run folder out: the training loop.

A run can be stopped after any step and taken up again with the same result to the bit: the order of images and their
augmentation are functions of (seed, epoch, batch), and everything else that matters is in the saved state.
"""

import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from convatlas.arith.schedules import factor_at
from convatlas.data.dataset import DataSet
from convatlas.errors import UserError
from convatlas.records import codec, storage
from convatlas.records.run import Choices, ModelConfig, Recipe, RunSummary, read_metrics
from convatlas.training import checkpoint
from convatlas.training.closing import close_epoch, told
from convatlas.training.diagnosis import first_not_finite
from convatlas.training.distributed import ALONE, World, because, check_shared, shared_choices, uncompiled
from convatlas.training.engine import Answer, applied, choose, expected_seconds, settle
from convatlas.training.gradients import keep_flow
from convatlas.training.meter import Meter
from convatlas.training.method import Method, hits
from convatlas.training.optim import MovingAverage
from convatlas.training.outcome import Stopped, outcome_kept
from convatlas.training.precision import autocast, memory_format
from convatlas.training.prepare import examine, first_summary
from convatlas.training.recorded import Recorded, Step
from convatlas.training.short_memory import within_memory
from convatlas.training.state import Position, Run, forget_unsaved_epochs, restore, save
from convatlas.training.sync_norm import synchronised
from convatlas.training.test_epochs import forget_test_epochs
from convatlas.training.watch import Unwatched, Watch

SECONDS_BETWEEN_STEPS_TOLD = 0.25
IMAGES = 4
"""Dimensions of a batch of images; one of cached features has two."""


def train(
    recipe: Recipe,
    folder: Path,
    *,
    data: DataSet,
    watch: Watch | None = None,
    world: World = ALONE,
    method: Method | None = None,
) -> RunSummary:
    """Make a new run in the new folder `folder`. Raises UserError, and Stopped when the watcher asked for it.

    The processes of `world` all call this with the same recipe and data, and train together. `method` (None: ordinary training)
    is what the recipe's `tuning` asks for.
    """
    summary = prepared(recipe, data, world)
    if world.leads:
        with storage.beginning(folder):
            if data.split is not None:
                storage.write_text(folder / "split.json", codec.to_text(data.split))
            storage.write_text(folder / "recipe.json", codec.to_text(recipe))  # last: with it, a run has begun
    with _alone(folder, world):
        return _go(recipe, folder, data, summary, watch=watch or Unwatched(), world=world, method=method or Method(), state=None)


def resume(
    folder: Path, *, data: DataSet, watch: Watch | None = None, world: World = ALONE, method: Method | None = None
) -> RunSummary:
    """Go on with the unfinished run in `folder`, on the same data. Raises UserError, and Stopped as `train` does."""
    recipe = world.agreed(lambda: codec.read(Recipe, folder / "recipe.json"))
    summary = prepared(recipe, data, world)
    watch = watch or Unwatched()
    with _alone(folder, world):
        before = world.agreed(lambda: _before(folder, summary))
        changed = _differences(before, summary)
        for name, then, now in changed:
            watch.note(f"not bit-exact: {name} {then} -> {now}")
        if not changed:
            summary = replace(summary, choices=before.choices)
        state = world.agreed(lambda: checkpoint.load_state(folder, note=watch.note))
        return _go(recipe, folder, data, summary, watch=watch, world=world, method=method or Method(), state=state)


def _alone(folder: Path, world: World) -> AbstractContextManager[None]:
    """Hold the folder: what is read of it, and what is then done, are of one process, and of those that train with it."""
    return storage.held(folder) if world.leads else nullcontext()


def _before(folder: Path, now: RunSummary) -> RunSummary:
    """How the run stood when it was left (`now`, if it had not begun). One that is not to be gone on with so is a UserError."""
    path = folder / "summary.json"
    before = codec.read(RunSummary, path) if path.exists() else now
    if before.status == "finished":
        raise UserError(f"{folder} is finished already", fix="Use `convatlas eval`, or train in a new folder.")
    images = [f"{each.n_train:,} training and {each.n_val:,} validation images" for each in (before, now)]
    if images[0] != images[1]:
        raise UserError(f"{folder} was begun with {images[0]}, and these are {images[1]}", fix="Go on as it was begun.")
    return before


def prepared(recipe: Recipe, data: DataSet, world: World) -> RunSummary:
    """The summary of a run that could begin now, if recipe, data, machine and processes fit each other. Raises UserError."""
    network, facts = examine(recipe, data)
    choices = choose(recipe, network)
    check_shared(recipe, choices, images=len(data.train), world=world)
    return first_summary(recipe, data, facts, shared_choices(choices, world))


def _differences(before: RunSummary, now: RunSummary) -> list[tuple[str, object, object]]:
    """What changed since the run began that changes the last bits of its result."""
    pairs = {
        "processes": (before.choices.processes, now.choices.processes),
        "threads": (before.choices.threads, now.choices.threads),
        "device": (before.choices.device, now.choices.device),
        "precision": (before.choices.precision, now.choices.precision),
        "memory format": (before.choices.memory_format, now.choices.memory_format),
        "torch": (before.environment.torch, now.environment.torch),
        "processor": (before.environment.processor, now.environment.processor),
    }
    return [(name, then, after) for name, (then, after) in pairs.items() if then != after]


def _go(
    recipe: Recipe,
    folder: Path,
    data: DataSet,
    summary: RunSummary,
    *,
    watch: Watch,
    world: World,
    method: Method,
    state: dict[str, Any] | None,
) -> RunSummary:
    """Train from the beginning or from `state` to the end of the budget; leave the caller's random state as it was."""
    if recipe.tuning is not None and type(method) is Method:
        raise UserError(f"{folder} is fine-tuning, not ordinary training", fix=f"Use `convatlas finetune --resume {folder}`.")
    devices = [torch.cuda.current_device()] if summary.choices.device == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(recipe.seed)
        run = _assemble(recipe, folder, data, summary, watch=watch, world=world, method=method)
        if state is not None:
            restore(run, state)
        if world.leads:
            storage.sweep(folder)
            checkpoint.forget_damaged(folder)
            forget_unsaved_epochs(run)
            forget_test_epochs(folder, after=run.position.epoch)
        with outcome_kept(run), world.heard():
            _settle(run)
        with outcome_kept(run), world.heard(), applied(run.choices, run.model) as answer:
            learn = _learning(run, method.answer(run, _together(run, answer)))
            if recipe.gradients and run.position.step == 0 and world.leads:
                keep_flow(folder, run.model, data=data, recipe=recipe, epoch=0)
            while not run.over or run.position.batch:  # an epoch that was left after its last step is still to be closed
                _train_epoch(run, learn)
                close_epoch(run)
            _finish(run)
    return run.summary


def _assemble(
    recipe: Recipe, folder: Path, data: DataSet, summary: RunSummary, *, watch: Watch, world: World, method: Method
) -> Run:
    choices = summary.choices
    model = method.network(recipe, data)
    model.set_grad_checkpointing(choices.checkpointing)
    world.equalise(model)
    world.seed_apart(recipe.seed)
    model = model.to(device=choices.device, memory_format=memory_format(choices))  # type: ignore[call-overload]
    average = MovingAverage(model, recipe.ema) if recipe.ema > 0 else None
    optimizer = method.optimizer(model, recipe)
    return Run(recipe, folder, data, model, optimizer, average, choices, watch, Position(), summary, world, method)


def _settle(run: Run) -> None:
    """Complete the engine's choices, which the record then has; those that a resumed run began with stand."""
    if not run.choices.settled:
        run.choices = run.world.agreed(lambda: _settled(run))
        run.summary = replace(run.summary, choices=run.choices)
    run.watch.chosen(run.choices)


def _settled(run: Run) -> Choices:
    recipe, first = run.recipe, replace(run, position=replace(run.position, batch=0))  # none may be left of this epoch
    sizes = [*(int(size) for _, size in recipe.sizes), None]
    batches = [next(run.method.batches(first, size=size)) for size in dict.fromkeys(sizes)]
    run.position.seconds = first.position.seconds  # with what features took that were computed for it
    expected = expected_seconds(recipe, macs=run.summary.macs, images=len(run.data.train), device=run.choices.device)
    each = expected / run.world.ranks
    tried = uncompiled(recipe, run.world)
    choices = settle(run.choices, tried, run.model, batches=batches, expected=each, watch=run.watch)
    return choices if tried == recipe else because(choices, "compile", "synchronised BatchNorm cannot be compiled")


def _together(run: Run, answer: Answer) -> Answer:
    """The answers with BatchNorm's statistics of all processes, if the recipe wants that."""
    if run.world.ranks == 1 or not run.recipe.sync_batchnorm:
        return answer

    def synchronised_answer(x: Tensor) -> tuple[tuple[float, Tensor], ...]:
        with synchronised(run.model, run.world):
            return answer(x)

    return synchronised_answer


def _learning(run: Run, answer: Answer) -> Step:
    """What learns from a batch, as chosen: as it stands, or recorded."""
    learn = partial(_learn, run, answer)
    return Recorded(learn, run.optimizer, note=run.watch.note) if run.choices.recorded else learn


def _train_epoch(run: Run, learn: Step) -> None:
    """Train to the end of the epoch or of the budget, whichever comes first; nothing if that is reached."""
    here = run.position
    begun, before, epoch_before = time.monotonic(), here.seconds, here.epoch_seconds
    run.method.begin_epoch(run)
    meter, x = Meter(here.loss_sum, here.correct, device=run.choices.device), None
    for x, y in () if run.progress >= 1.0 else run.method.batches(run, size=_size(run)):
        loss, right = _step(run, learn, x, y)
        meter.add(loss, right, len(y))
        n = len(y) if run.world.ranks == 1 else run.recipe.batch_size
        here.batch, here.step, here.images = here.batch + 1, here.step + 1, here.images + n
        here.epoch_images += n
        now = time.monotonic()
        here.seconds, here.epoch_seconds = before + now - begun, epoch_before + now - begun
        if now - run.step_told >= SECONDS_BETWEEN_STEPS_TOLD:
            run.step_told = now
            _read(run, meter, x)
            run.watch.step(told(run, run.world.ranks * here.loss_sum, run.world.ranks * here.correct))
        if run.world.any(run.watch.stopping()):
            _read(run, meter, x)
            save(run)
            raise Stopped
        if run.progress >= 1.0:
            break
    _read(run, meter, x)
    here.seconds, here.epoch_seconds = (then + time.monotonic() - begun for then in (before, epoch_before))


def _read(run: Run, meter: Meter, x: Tensor | None) -> None:
    """Read the epoch's sums back, which on a GPU waits for it; a loss that is no number ends the run."""
    here = run.position
    here.loss_sum, here.correct = meter.read()
    if not math.isfinite(here.loss_sum):
        _explain_not_finite(run, here.loss_sum, x, at=f"by step {here.step}")


def _explain_not_finite(run: Run, loss: float, x: Tensor | None, *, at: str) -> NoReturn:
    """The error for a loss that is no number, with the layer where that begins for the batch x, unless that is of features."""
    with autocast(run.choices):
        layer = None if x is None or x.ndim != IMAGES else first_not_finite(run.model, x)
    where = f": {layer}" if layer else ""
    value = math.nan if math.isfinite(loss) else loss  # it is another process's that is no number
    what = f"the loss became {value:g} {at} (epoch {run.position.epoch + 1}) with learning rate {_lr(run):g}{where}"
    kept = " The last good state is kept." if checkpoint.has_state(run.folder) else ""
    raise UserError(what, fix=f"Give a smaller --lr, or --clip-grad 1.{kept}")


def _size(run: Run) -> int | None:
    """To how many pixels images are scaled in this epoch; None: they have their own size."""
    share = run.position.epoch / run.recipe.epochs if run.recipe.epochs else 0.0
    return next((int(size) for upto, size in run.recipe.sizes if share < upto), None)


def _step(run: Run, learn: Step, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """One update, at its learning rate. Returns what `learn` does."""
    run.method.begin_step(run)
    lr = _lr(run)
    for group in run.optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
    loss, right = learn(x, y)
    if run.average is not None:
        run.average.update(run.position.step + 1)
    return loss, right


def _learn(run: Run, answer: Answer, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Forward, backward, and the optimizer's step: the network's own mean loss, and how many of the batch it called right.

    Nothing waits for a GPU here. On a processor the loss is at hand, so that one that is no number stops the run before it can
    reach the weights, and the layer can be named; on a GPU it is found when the sums are next read.
    """
    run.optimizer.zero_grad()
    part = partial(_gradients, run, answer)
    loss, right = within_memory(run, part, x, y) if run.method.splits_batches else part(x, y, 1.0)
    run.world.average_gradients(run.model.parameters())
    if run.recipe.clip_grad > 0:
        torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.recipe.clip_grad)
    run.method.before_update(run)
    run.optimizer.step()
    return loss, right


def _gradients(run: Run, answer: Answer, x: Tensor, y: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Add the gradients of what is a `share` of a batch; the network's own mean loss for it, and its hits."""
    with autocast(run.choices):
        answers = answer(x)
    losses = [w * run.method.loss(logits.float(), y, run.recipe) for w, logits in answers]
    loss = torch.stack(losses).sum()
    if run.choices.device == "cpu" and run.world.any(not math.isfinite(loss.detach())):
        _explain_not_finite(run, loss.item(), x, at=f"at step {run.position.step + 1}")
    (loss if share == 1.0 else loss * share).backward()  # type: ignore[no-untyped-call]
    return losses[0].detach(), hits(answers[0][1], y)


def _lr(run: Run) -> float:
    fallen = 0.1**run.position.reduced
    return run.recipe.lr * factor_at(run.recipe.schedule, run.method.rate_at(run), warmup=run.recipe.warmup) * fallen


def _finish(run: Run) -> None:
    """Keep the weights with all that is needed to use them, and say that the run is finished."""
    config = ModelConfig(
        model=run.recipe.model,
        num_classes=run.summary.num_classes,
        in_chans=run.summary.in_chans,
        image_size=run.summary.image_size,
        mean=run.data.mean,
        std=run.data.std,
        classes=run.data.classes,
        convatlas=run.summary.environment.convatlas,
        recipe=run.recipe.shared,
    )
    if run.best is not None:
        run.judged.load_state_dict(run.best)
        best = next((m for m in read_metrics(run.folder / "metrics.jsonl") if m.epoch == run.position.best_epoch), None)
        accuracy = run.summary.val_accuracy if best is None else best.val_accuracy
        run.summary = replace(run.summary, best_epoch=run.position.best_epoch, val_accuracy=accuracy)
    config = replace(run.method.finish(run, config), val_accuracy=run.summary.val_accuracy)
    run.world.agreed(lambda: checkpoint.save_model(run.folder, run.judged, config))
    run.summary = replace(run.summary, status="finished")
