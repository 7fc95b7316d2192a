"""A run under way: what it consists of, how far it has come, and how that is kept in its folder."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from mmap import mmap
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from convatlas.data.batches import training_batches
from convatlas.data.dataset import DataSet
from convatlas.data.mixing import Mixing
from convatlas.errors import UserError, first_line
from convatlas.layers.network import Network
from convatlas.records import codec, storage
from convatlas.records.run import Choices, Recipe, RunSummary, read_metrics
from convatlas.training import checkpoint
from convatlas.training.distributed import World
from convatlas.training.gradients import forget_flows
from convatlas.training.method import Method
from convatlas.training.optim import MovingAverage
from convatlas.training.precision import memory_format
from convatlas.training.prepare import crop_of
from convatlas.training.watch import Watch


@dataclass
class Position:
    """How far a run has come. `batch`, `loss_sum` and `correct` are of the epoch under way; `seconds` of training in all.

    `loss_sum` and `correct` are of this process's images, and the numbers of images of all processes'. `best_loss` is the least
    on validation, of epoch `best_epoch`, `waited` epochs ago; the learning rate was cut `reduced` times since.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    images: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    correct: int = 0
    epoch_images: int = 0
    epoch_seconds: float = 0.0
    best_loss: float | None = None
    best_epoch: int | None = None
    waited: int = 0
    reduced: int = 0


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
    world: World
    method: Method
    best: dict[str, Tensor] | None = None
    state_saved: float = 0.0
    step_told: float = 0.0
    reserve: mmap | None = None  # of address space, for when memory is short

    @property
    def progress(self) -> float:
        """The share of the budget that is spent, in steps or in seconds."""
        if self.recipe.minutes is not None:
            return min(self.position.seconds / (60 * self.recipe.minutes), 1.0)
        assert self.recipe.epochs is not None
        return self.position.step / (self.recipe.epochs * self.method.batches_in_epoch(self.recipe, self.data))

    @property
    def over(self) -> bool:
        """Whether the budget is spent, or the recipe's patience."""
        return self.progress >= 1.0 or 0 < self.recipe.patience <= self.position.waited

    @property
    def judged(self) -> nn.Module:
        """The network whose accuracy counts: the averaged one where the recipe asks for it."""
        return self.average.model if self.average else self.model

    @property
    def networks(self) -> list[nn.Module]:
        """The network, and its average if there is one."""
        return [self.model, self.average.model] if self.average else [self.model]

    def batches(self, *, size: int | None) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of the batches that are left of the epoch, scaled to `size` pixels if that is given."""
        recipe, data = self.recipe, self.data
        return training_batches(
            data.train,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            epoch=self.position.epoch,
            flip=recipe.flip,
            crop=crop_of(recipe, data),
            cutout=recipe.cutout,
            mean=data.mean,
            std=data.std,
            dtype=torch.bfloat16 if self.choices.precision == "bf16" else torch.float32,
            memory_format=memory_format(self.choices),
            device=torch.device(self.choices.device),
            start=self.position.batch,
            flip_rule=recipe.flip_rule,
            crop_fill=recipe.crop_fill,
            size=size,
            rank=self.world.rank,
            ranks=self.world.ranks,
            augment=recipe.augment,
            mixing=Mixing(recipe.mixup, recipe.cutmix, data.num_classes) if recipe.mixup or recipe.cutmix else None,
        )


def save(run: Run) -> None:
    """Write the whole state, so that the run goes on from here to the same result. All processes take part, and wait.

    A state that is no longer finite is never kept: UserError.
    """
    _check_finite(run)
    first, *others = run.world.gathered(_own(run))
    state: dict[str, Any] = {
        "recipe": codec.to_plain(run.recipe),
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "average": run.average.model.state_dict() if run.average else None,
        "position": asdict(run.position),
        "method": run.method.state(),
        "best": run.best,
        "random": first["random"],
        "random_cuda": first["random_cuda"],
        "others": others,
    }
    run.world.agreed(lambda: checkpoint.save_state(run.folder, state))
    run.state_saved = time.monotonic()


def _check_finite(run: Run) -> None:
    """Weights may overflow though the last loss was finite."""
    networks = [(name, tensor) for network in run.networks for name, tensor in network.state_dict().items()]
    moments = [("the optimizer's memory", each) for kept in run.optimizer.state.values() for each in kept.values()]
    for name, tensor in (*networks, *moments):
        if isinstance(tensor, Tensor) and not bool(torch.isfinite(tensor).all()):
            what = f"{name} holds values that are no numbers after step {run.position.step} (epoch {run.position.epoch + 1})"
            raise UserError(what, fix="Give a smaller --lr, or --clip-grad 1. No such state is kept.")


def _own(run: Run) -> dict[str, Any]:
    """What is each process's own: its random numbers, its sums, and the statistics that its BatchNorms have gathered."""
    own: dict[str, Any] = {
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state() if run.choices.device == "cuda" else None,
    }
    if run.world.leads:
        return own
    buffers = [{name: buffer.cpu() for name, buffer in network.named_buffers()} for network in run.networks]
    return {**own, "loss_sum": run.position.loss_sum, "correct": run.position.correct, "buffers": buffers}


def restore(run: Run, state: dict[str, Any]) -> None:
    """Put the run where `state` says. With as many processes as it had then, each goes on from where it was itself.

    Raises UserError if the recipe was changed since, or the state is that of another network.
    """
    _check_recipe(run, state.get("recipe"))
    try:
        _restore(run, state)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        what = f"the state in {run.folder} is not that of {run.recipe.model} under this recipe: {first_line(error)}"
        raise UserError(what, fix="Train anew in another folder.") from error


def _check_recipe(run: Run, then: Any) -> None:
    """The states of earlier versions do not say under which recipe they were made."""
    if then is None:
        return
    before, now = codec.from_plain(Recipe, then, where="the recipe in the saved state"), run.recipe
    pairs = [(field.name, getattr(before, field.name), getattr(now, field.name)) for field in fields(Recipe)]
    changed = [f"{name} {old!r} -> {new!r}" for name, old, new in pairs if old != new]
    if changed:
        what = f"{run.folder / 'recipe.json'} was changed since the state was saved: {', '.join(changed)}"
        raise UserError(what, fix="Put it back, or train anew in another folder.")


def _restore(run: Run, state: dict[str, Any]) -> None:
    run.model.load_state_dict(state["model"])
    _restore_optimizer(run.optimizer, state["optimizer"])
    if run.average is not None:
        run.average.model.load_state_dict(state["average"])
    run.position = Position(**state["position"])
    run.method.restore(state.get("method", {}))
    run.best = state.get("best")
    shares = [state, *state.get("others", [])]  # once, the states of one process had no others
    as_many = len(shares) == run.world.ranks
    if not as_many:
        _share_anew(run, shares[1:])
    elif not run.world.leads:
        _restore_own(run, shares[run.world.rank])
    if as_many or run.world.leads:
        own = shares[run.world.rank]
        torch.set_rng_state(own["random"])
        if own["random_cuda"] is not None and run.choices.device == "cuda":
            torch.cuda.set_rng_state(own["random_cuda"])


def _restore_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """The optimizer's state; what its groups say that states of earlier versions do not have, they go on saying."""
    own = [dict(group) for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, before in zip(optimizer.param_groups, own, strict=True):
        for setting, value in before.items():
            group.setdefault(setting, value)


def _restore_own(run: Run, own: dict[str, Any]) -> None:
    run.position.loss_sum, run.position.correct = own["loss_sum"], own["correct"]
    for network, buffers in zip(run.networks, own["buffers"], strict=True):
        for name, buffer in network.named_buffers():
            buffer.copy_(buffers[name])


def _share_anew(run: Run, others: list[dict[str, Any]]) -> None:
    """With another number of processes, the first one takes over the sums of all that there were."""
    here = run.position
    if run.world.leads:
        here.loss_sum += sum(other["loss_sum"] for other in others)
        here.correct += sum(other["correct"] for other in others)
    else:
        here.loss_sum, here.correct = 0.0, 0


def forget_unsaved_epochs(run: Run) -> None:
    """Drop metrics of epochs after the saved state: they will be trained, and written, again. Those that were lost are named."""
    path = run.folder / "metrics.jsonl"
    kept = [m for m in read_metrics(path) if m.epoch <= run.position.epoch]
    lost = sorted(set(range(1, run.position.epoch + 1)) - {m.epoch for m in kept})
    if lost:
        run.watch.note(
            f"warning: {path} is damaged: it lacks {len(lost)} of {run.position.epoch} epochs, from epoch {lost[0]} on"
        )
    storage.write_text(path, "".join(codec.to_line(m) for m in kept))
    forget_flows(run.folder, after=run.position.epoch if run.position.step else -1)
    if kept:
        last = kept[-1]
        run.summary = replace(
            run.summary,
            epochs_done=last.epoch,
            images_seen=last.images_seen,
            train_seconds=last.seconds,
            images_per_second=last.images_seen / max(last.seconds, 1e-9),
            val_accuracy=last.val_accuracy,
        )
