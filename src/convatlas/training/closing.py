"""The end of an epoch: judged on validation, written down, and the decision whether another one is worth it."""

import time
from dataclasses import replace

import torch

from convatlas.records import codec, storage
from convatlas.records.run import EpochMetrics
from convatlas.training.evaluate import score
from convatlas.training.gradients import keep_flow
from convatlas.training.state import Position, Run, save
from convatlas.training.test_epochs import keep_test_epoch
from convatlas.training.watch import Progress

SECONDS_BETWEEN_STATES = 15.0
"""At most this much training is lost to a crash, plus the epoch under way."""
PLATEAU = 3
"""Epochs without a lower loss on validation, after which the schedule "plateau" takes a tenth of the learning rate."""


def told(run: Run, loss_sum: float, correct: float) -> Progress:
    """How far the run is, where the epoch under way has these sums."""
    here, spent = run.position, run.progress
    images = max(here.epoch_images, 1)
    return Progress(
        model=run.recipe.model,
        seed=run.recipe.seed,
        epoch=here.epoch + 1,
        epochs=run.recipe.epochs,
        fraction=spent,
        loss=loss_sum / images,
        accuracy=correct / images,
        images_per_second=here.images / max(here.seconds, 1e-9),
        seconds=here.seconds,
        seconds_left=here.seconds * (1 - spent) / max(spent, 1e-9),
    )


def close_epoch(run: Run) -> None:
    """Judge on validation, keep the metrics, and now and then the state."""
    here, lead = run.position, run.world.leads
    if not run.recipe.sync_batchnorm:
        for network in run.networks:
            run.world.average_statistics(network)
    sums = torch.tensor([here.loss_sum, here.correct], dtype=torch.float64)
    loss_sum, correct = run.world.total(sums).tolist()
    metrics = _metrics(run, loss_sum, correct)
    now = told(run, loss_sum, correct)
    run.summary = replace(
        run.summary,
        epochs_done=here.epoch + 1,
        images_seen=here.images,
        train_seconds=here.seconds,
        images_per_second=here.images / here.seconds,
        val_accuracy=metrics.val_accuracy,
    )
    if lead:
        storage.append_line(run.folder / "metrics.jsonl", codec.to_line(metrics))
    if lead and run.recipe.gradients:
        keep_flow(run.folder, run.model, data=run.data, recipe=run.recipe, epoch=here.epoch + 1)
    if lead and run.recipe.test_each_epoch:
        keep_test_epoch(run)
    run.position = _next(run, metrics.val_loss)
    run.method.end_epoch(run, last=run.over)
    if run.over or run.world.agreed(lambda: time.monotonic() - run.state_saved >= SECONDS_BETWEEN_STATES):
        save(run)
    run.watch.epoch(now, metrics)


def _next(run: Run, val_loss: float | None) -> Position:
    """Where the next epoch begins: with what is remembered of the best one."""
    here = run.position
    fresh = Position(epoch=here.epoch + 1, step=here.step, images=here.images, seconds=here.seconds)
    if val_loss is None:
        return fresh
    better = here.best_loss is None or val_loss < here.best_loss
    waited = 0 if better else here.waited + 1
    if better and run.recipe.patience:
        run.best = {name: tensor.detach().clone() for name, tensor in run.judged.state_dict().items()}
    falls = run.recipe.schedule == "plateau" and waited and waited % PLATEAU == 0
    return replace(
        fresh,
        best_loss=val_loss if better else here.best_loss,
        best_epoch=fresh.epoch if better else here.best_epoch,
        waited=waited,
        reduced=here.reduced + int(falls),
    )


def _metrics(run: Run, loss_sum: float, correct: float) -> EpochMetrics:
    """What the epoch came to, in all processes together."""
    here = run.position
    val_loss, val_accuracy = _judge(run)
    return EpochMetrics(
        epoch=here.epoch + 1,
        step=here.step,
        images_seen=here.images,
        seconds=here.seconds,
        lr=_lr(run),
        train_loss=loss_sum / here.epoch_images,
        train_accuracy=correct / here.epoch_images,
        val_loss=val_loss,
        val_accuracy=val_accuracy,
        images_per_second=here.epoch_images / here.epoch_seconds,
    )


def _lr(run: Run) -> float:
    """The rate of the last step, of which the groups of layers have their multiples."""
    for group in run.optimizer.param_groups:
        if group["lr_factor"]:
            return float(group["lr"] / group["lr_factor"])
    return 0.0


def _judge(run: Run) -> tuple[float | None, float | None]:
    """Loss and accuracy on validation, for which each process answers its share of the images; None where there are none."""
    val, world = run.data.val, run.world
    if not len(val):
        return None, None
    logits = run.method.judge(run)
    shared = 1 < world.ranks <= len(val)
    return score(torch.cat(world.gathered(logits)) if shared else logits, val.labels)
