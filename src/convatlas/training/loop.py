"""One recipe in, one run folder out: the training loop.

A run can be stopped after any step and taken up again with the same result to the bit: the order of images and their
augmentation are functions of (seed, epoch, batch), and everything else that matters is in `state.pt`.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from convatlas.arith.schedules import factor_at
from convatlas.data.dataset import DataSet
from convatlas.data.loading import batches_in_epoch, training_batches
from convatlas.errors import StorageError, UserError
from convatlas.layers.network import Network
from convatlas.records import codec, storage
from convatlas.records.run import Choices, EpochMetrics, ModelConfig, Recipe, RunSummary, read_metrics
from convatlas.training import checkpoint
from convatlas.training.evaluate import predict_logits, score
from convatlas.training.gradients import forget_flows, keep_flow
from convatlas.training.optim import MovingAverage, make_optimizer
from convatlas.training.precision import autocast, choose, memory_format
from convatlas.training.prepare import examine, first_summary, network_for
from convatlas.training.watch import Progress, Unwatched, Watch

SECONDS_BETWEEN_STATES = 15.0
"""At most this much training is lost to a crash, plus the epoch under way."""
SECONDS_BETWEEN_STEPS_TOLD = 0.25
CROP_SHARE = 8
"""The shifted crop moves images by up to an eighth of their side: the 4 of 32 pixels that CIFAR-10 recipes use."""


class Stopped(Exception):
    """The watcher asked the run to stop; its state is saved."""


@dataclass
class Position:
    """How far a run has come. `batch`, `loss_sum` and `correct` are of the epoch under way; `seconds` of training in all."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    images: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    correct: int = 0
    epoch_images: int = 0
    epoch_seconds: float = 0.0


@dataclass
class Run:
    """A run under way."""

    recipe: Recipe
    folder: Path
    data: DataSet
    model: Network
    optimizer: Optimizer
    average: MovingAverage | None
    choices: Choices
    watch: Watch
    position: Position
    summary: RunSummary
    state_saved: float = 0.0
    step_told: float = 0.0

    @property
    def progress(self) -> float:
        """The share of the budget that is spent, in steps or in seconds."""
        if self.recipe.minutes is not None:
            return min(self.position.seconds / (60 * self.recipe.minutes), 1.0)
        assert self.recipe.epochs is not None
        steps = self.recipe.epochs * batches_in_epoch(len(self.data.train), self.recipe.batch_size)
        return self.position.step / steps

    @property
    def judged(self) -> torch.nn.Module:
        """The network whose accuracy counts: the averaged one where the recipe asks for it."""
        return self.average.model if self.average else self.model


def train(recipe: Recipe, folder: Path, *, data: DataSet, watch: Watch | None = None) -> RunSummary:
    """Make a new run in the new folder `folder`. Raises UserError, and Stopped when the watcher asked for it."""
    network, facts = examine(recipe, data)
    choices = choose(recipe, network)
    storage.new_folder(folder)
    storage.write_text(folder / "recipe.json", codec.to_text(recipe))
    if data.split is not None:
        storage.write_text(folder / "split.json", codec.to_text(data.split))
    summary = first_summary(recipe, data, facts, choices)
    return _go(recipe, folder, data, summary, watch=watch or Unwatched(), state=None)


def resume(folder: Path, *, data: DataSet, watch: Watch | None = None) -> RunSummary:
    """Go on with the unfinished run in `folder`, on the same data. Raises UserError, and Stopped as `train` does."""
    recipe = codec.read(Recipe, folder / "recipe.json")
    network, facts = examine(recipe, data)
    summary = first_summary(recipe, data, facts, choose(recipe, network))
    watch = watch or Unwatched()
    before = codec.read(RunSummary, folder / "summary.json") if (folder / "summary.json").exists() else summary
    if before.status == "finished":
        raise UserError(f"{folder} is finished already", fix="Use `convatlas eval`, or train in a new folder.")
    for name, then, now in _differences(before, summary):
        watch.note(f"not bit-exact: {name} {then} -> {now}")
    return _go(recipe, folder, data, summary, watch=watch, state=checkpoint.load_state(folder))


def _differences(before: RunSummary, now: RunSummary) -> list[tuple[str, object, object]]:
    """What changed since the run began that changes the last bits of its result."""
    pairs = {
        "threads": (before.choices.threads, now.choices.threads),
        "device": (before.choices.device, now.choices.device),
        "precision": (before.choices.precision, now.choices.precision),
        "memory format": (before.choices.memory_format, now.choices.memory_format),
        "torch": (before.environment.torch, now.environment.torch),
        "processor": (before.environment.processor, now.environment.processor),
    }
    return [(name, then, after) for name, (then, after) in pairs.items() if then != after]


def _go(
    recipe: Recipe, folder: Path, data: DataSet, summary: RunSummary, *, watch: Watch, state: dict[str, Any] | None
) -> RunSummary:
    """Train from the beginning or from `state` to the end of the budget; leave the caller's random state as it was."""
    devices = [torch.cuda.current_device()] if summary.choices.device == "cuda" else []
    with storage.held(folder), torch.random.fork_rng(devices=devices):
        torch.manual_seed(recipe.seed)
        run = _assemble(recipe, folder, data, summary, watch)
        if state is not None:
            _restore(run, state)
        _forget_unsaved_epochs(run)
        with _outcome_kept(run):
            if recipe.gradients and run.position.step == 0:
                keep_flow(folder, run.model, data=data, recipe=recipe, epoch=0)
            while run.progress < 1.0:
                _train_epoch(run)
                _close_epoch(run)
            _finish(run)
    return run.summary


def _assemble(recipe: Recipe, folder: Path, data: DataSet, summary: RunSummary, watch: Watch) -> Run:
    choices = summary.choices
    model = network_for(recipe.model, data, size=data.image_size)
    model = model.to(device=choices.device, memory_format=memory_format(choices))  # type: ignore[call-overload]
    average = MovingAverage(model, recipe.ema) if recipe.ema > 0 else None
    optimizer = make_optimizer(model, recipe)
    return Run(recipe, folder, data, model, optimizer, average, choices, watch, Position(), summary)


def _train_epoch(run: Run) -> None:
    """Train to the end of the epoch or of the budget, whichever comes first."""
    here = run.position
    run.model.train()
    begun, before, epoch_before = time.monotonic(), here.seconds, here.epoch_seconds
    loss_sum = torch.tensor(here.loss_sum, dtype=torch.float64)
    correct = torch.tensor(here.correct)
    for x, y in _batches(run):
        loss, hits = _step(run, x, y)
        loss_sum += loss.cpu() * len(y)
        correct += hits.cpu()
        here.batch, here.step, here.images = here.batch + 1, here.step + 1, here.images + len(y)
        here.epoch_images += len(y)
        elapsed = time.monotonic() - begun
        here.seconds, here.epoch_seconds = before + elapsed, epoch_before + elapsed
        here.loss_sum, here.correct = loss_sum.item(), int(correct.item())
        if not torch.isfinite(loss_sum):
            raise UserError(
                f"the loss became {here.loss_sum:g} at step {here.step} (epoch {here.epoch + 1}) with learning rate {_lr(run):g}",
                fix="Give a smaller --lr, or --clip-grad 1.",
            )
        _tell(run)
        if run.watch.stopping():
            _save(run)
            raise Stopped
        if run.progress >= 1.0:
            return


def _batches(run: Run) -> Iterator[tuple[Tensor, Tensor]]:
    recipe, data = run.recipe, run.data
    return training_batches(
        data.train,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        epoch=run.position.epoch,
        flip=recipe.flip,
        crop=data.image_size // CROP_SHARE if recipe.crop is None else recipe.crop,
        cutout=recipe.cutout,
        mean=data.mean,
        std=data.std,
        dtype=torch.float32,
        memory_format=memory_format(run.choices),
        device=torch.device(run.choices.device),
        start=run.position.batch,
    )


def _step(run: Run, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """One update. Returns the network's own mean loss and how many of the batch it called right."""
    lr = _lr(run)
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    with autocast(run.choices):
        answers = run.model.training_logits(x)
    losses = [w * F.cross_entropy(logits.float(), y, label_smoothing=run.recipe.label_smoothing) for w, logits in answers]
    run.optimizer.zero_grad()
    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
    if run.recipe.clip_grad > 0:
        torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.recipe.clip_grad)
    run.optimizer.step()
    if run.average is not None:
        run.average.update(run.model, run.position.step + 1)
    return losses[0].detach(), (answers[0][1].detach().argmax(1) == y).sum()


def _lr(run: Run) -> float:
    return run.recipe.lr * factor_at(run.recipe.schedule, run.progress, warmup=run.recipe.warmup)


def _tell(run: Run) -> None:
    """Tell the watcher where the run stands, a few times a second."""
    now = time.monotonic()
    if now - run.step_told >= SECONDS_BETWEEN_STEPS_TOLD:
        run.step_told = now
        run.watch.step(_progress(run))


def _progress(run: Run) -> Progress:
    here, spent = run.position, run.progress
    images = max(here.epoch_images, 1)
    return Progress(
        model=run.recipe.model,
        seed=run.recipe.seed,
        epoch=here.epoch + 1,
        epochs=run.recipe.epochs,
        fraction=spent,
        loss=here.loss_sum / images,
        accuracy=here.correct / images,
        images_per_second=here.images / max(here.seconds, 1e-9),
        seconds=here.seconds,
        seconds_left=here.seconds * (1 - spent) / max(spent, 1e-9),
    )


def _close_epoch(run: Run) -> None:
    """Judge on validation, keep the metrics, and now and then the state."""
    here, data = run.position, run.data
    val_loss, val_accuracy = None, None
    if len(data.val):
        logits = predict_logits(run.judged, data.val, mean=data.mean, std=data.std)
        val_loss, val_accuracy = score(logits, data.val.labels)
    metrics = EpochMetrics(
        epoch=here.epoch + 1,
        step=here.step,
        images_seen=here.images,
        seconds=here.seconds,
        lr=run.optimizer.param_groups[0]["lr"],
        train_loss=here.loss_sum / here.epoch_images,
        train_accuracy=here.correct / here.epoch_images,
        val_loss=val_loss,
        val_accuracy=val_accuracy,
        images_per_second=here.epoch_images / here.epoch_seconds,
    )
    told = _progress(run)
    storage.append_line(run.folder / "metrics.jsonl", codec.to_line(metrics))
    run.summary = replace(
        run.summary,
        epochs_done=here.epoch + 1,
        images_seen=here.images,
        train_seconds=here.seconds,
        images_per_second=here.images / here.seconds,
        val_accuracy=val_accuracy,
    )
    if run.recipe.gradients:
        keep_flow(run.folder, run.model, data=data, recipe=run.recipe, epoch=here.epoch + 1)
    run.position = Position(epoch=here.epoch + 1, step=here.step, images=here.images, seconds=here.seconds)
    if time.monotonic() - run.state_saved >= SECONDS_BETWEEN_STATES or run.progress >= 1.0:
        _save(run)
    run.watch.epoch(told, metrics)


def _save(run: Run) -> None:
    """Write the whole state, so that the run goes on from here to the same result."""
    state: dict[str, Any] = {
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "average": run.average.model.state_dict() if run.average else None,
        "position": asdict(run.position),
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state() if run.choices.device == "cuda" else None,
    }
    checkpoint.save_state(run.folder, state)
    run.state_saved = time.monotonic()


def _restore(run: Run, state: dict[str, Any]) -> None:
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    if run.average is not None:
        run.average.model.load_state_dict(state["average"])
    run.position = Position(**state["position"])
    torch.set_rng_state(state["random"])
    if state["random_cuda"] is not None and run.choices.device == "cuda":
        torch.cuda.set_rng_state(state["random_cuda"])


def _forget_unsaved_epochs(run: Run) -> None:
    """Drop metrics of epochs after the saved state: they will be trained, and written, again."""
    path = run.folder / "metrics.jsonl"
    kept = [m for m in read_metrics(path) if m.epoch <= run.position.epoch]
    storage.write_text(path, "".join(codec.to_line(m) for m in kept))
    forget_flows(run.folder, after=run.position.epoch if run.position.step else -1)
    if kept:
        last = kept[-1]
        run.summary = replace(run.summary, epochs_done=last.epoch, images_seen=last.images_seen, val_accuracy=last.val_accuracy)


@contextmanager
def _outcome_kept(run: Run) -> Iterator[None]:
    """Write `summary.json` at the beginning and at the end, whatever the end is."""
    path = run.folder / "summary.json"
    storage.write_text(path, codec.to_text(run.summary))
    try:
        yield
    except (Stopped, KeyboardInterrupt, StorageError):
        run.summary = replace(run.summary, status="interrupted")
        raise
    except UserError as error:
        run.summary = replace(run.summary, status="failed", cause=str(error))
        raise
    except RuntimeError as error:
        failure = _out_of_memory(run, error)
        if failure is None:
            raise
        run.summary = replace(run.summary, status="failed", cause=str(failure))
        raise failure from error
    finally:
        storage.write_text(path, codec.to_text(run.summary))


def _out_of_memory(run: Run, error: RuntimeError) -> UserError | None:
    """The error for a batch that memory could not hold. On CPUs torch raises a plain RuntimeError for it."""
    if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
        return None
    size = run.recipe.batch_size
    return UserError(
        f"out of memory: {run.recipe.model} with batches of {size} images", fix=f"Try --batch-size {max(size // 2, 2)}."
    )


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
    )
    checkpoint.save_model(run.folder, run.judged, config)
    run.summary = replace(run.summary, status="finished")
