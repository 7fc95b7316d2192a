"""What of a network learns, from what, and how it is judged: the seam at which another way of training takes over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from convatlas.data.batches import batches_in_epoch
from convatlas.data.dataset import DataSet
from convatlas.layers.network import Network
from convatlas.records.run import ModelConfig, Recipe
from convatlas.training.engine import Answer
from convatlas.training.evaluate import predict_logits
from convatlas.training.gradients import fixed_batch
from convatlas.training.optim import make_optimizer
from convatlas.training.prepare import network_for

if TYPE_CHECKING:
    from convatlas.training.state import Run


class Method:
    """Ordinary training: random weights, all of which learn from shuffled batches by their cross-entropy.

    A subclass holds what it needs to know between steps, and gives and takes it as `state`. It is of one run.
    """

    splits_batches = False
    """Whether a batch that memory cannot hold is computed in parts instead of ending the run."""

    def network(self, recipe: Recipe, data: DataSet) -> Network:
        """The network as it is before the first step, on the CPU."""
        model = network_for(recipe.model, data, size=data.image_size)
        model.learn_from(lambda n: fixed_batch(data, size=n, seed=recipe.seed)[0])
        return model

    def optimizer(self, model: Network, recipe: Recipe) -> Optimizer:
        """What changes the weights."""
        return make_optimizer(model, recipe)

    def batches_in_epoch(self, recipe: Recipe, data: DataSet) -> int:
        """How many batches `batches` yields in a whole epoch."""
        return batches_in_epoch(len(data.train), recipe.batch_size)

    def rate_at(self, run: Run) -> float:
        """The share of the budget whose learning rate the next step has."""
        return run.progress

    def batches(self, run: Run, *, size: int | None) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches that are left of the epoch: what the network is given, and labels (N,) or their shares (N, classes)."""
        return run.batches(size=size)

    def begin_epoch(self, run: Run) -> None:
        """Put the network into the mode in which it learns, at the beginning of an epoch or in its midst after a resume."""
        run.model.train()

    def begin_step(self, run: Run) -> None:
        """What is to be done before each step: what learns may be another part of the network than in the step before."""

    def begin_range_test(self, run: Run) -> None:
        """Put the network into the mode in which learning rates are tried: all of it learns that ever does in the run."""
        run.model.train()

    def answer(self, run: Run, answer: Answer) -> Answer:
        """How a batch is answered in training, where `answer` is how the whole network answers."""
        return answer

    def loss(self, logits: Tensor, y: Tensor, recipe: Recipe) -> Tensor:
        """The mean loss in nats of logits (N, classes) against labels (N,) or their shares (N, classes)."""
        return F.cross_entropy(logits, y, label_smoothing=recipe.label_smoothing)

    def before_update(self, run: Run) -> None:
        """What is done to the weights beside the gradient's step."""

    def judge(self, run: Run) -> Tensor:
        """Logits of the judged network for this process's share of the validation images."""
        val, data, world = run.data.val, run.data, run.world
        images = val.subset(world.share(len(val))) if 1 < world.ranks <= len(val) else val
        average = run.recipe.test_average
        return predict_logits(run.judged, images, mean=data.mean, std=data.std, average=average, size=data.image_size)

    def end_epoch(self, run: Run, *, last: bool) -> None:
        """What is to be proven of an epoch once it is over; `last`: of the run."""

    def finish(self, run: Run, config: ModelConfig) -> ModelConfig:
        """The configuration with what is still to be said of the finished network; what else belongs into the folder."""
        return config

    def state(self) -> dict[str, Any]:
        """What must be known to go on: tensors, numbers and strings."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from such a state."""


def hits(logits: Tensor, y: Tensor) -> Tensor:
    """How many of logits (N, classes) are largest where labels (N,), or their largest shares (N, classes), say."""
    wanted = y if y.ndim == 1 else y.argmax(1)
    return torch.as_tensor((logits.detach().argmax(1) == wanted).sum())
