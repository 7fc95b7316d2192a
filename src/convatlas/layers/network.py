"""The contract that every network of the atlas keeps: stem, stages, head."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from convatlas.errors import UserError
from convatlas.records.loading import LoadReport

SMALL_IMAGE = 64
"""Up to this many pixels a side, every family takes its small-image stem: the strides meant for 224 would leave a 1x1 map."""


@dataclass(frozen=True)
class Request:
    """What a caller may ask of any variant; each family file says what it makes of it.

    `image_size` is the side of the square input in pixels. `num_classes` 0 leaves the last linear layer out, so that the
    network gives features. `drop_rate` and `drop_path_rate` None mean the variant's own.
    """

    num_classes: int
    in_chans: int
    image_size: int
    drop_rate: float | None = None
    drop_path_rate: float | None = None

    @property
    def small(self) -> bool:
        """Whether the images are small enough for the small-image stem."""
        return self.image_size <= SMALL_IMAGE

    def dropout(self, own: float) -> nn.Dropout:
        """The dropout before the classifier: as asked for, or the variant's own rate."""
        return nn.Dropout(own if self.drop_rate is None else self.drop_rate)

    def no_drop_path(self, family: str) -> None:
        """Refuse a drop-path rate for a family that was published without drop path."""
        if self.drop_path_rate is not None:
            raise UserError(f"{family} has no drop path", fix="Leave drop_path_rate out.")


class Network(nn.Module):
    """A network as stem -> stages -> head. Input (N, in_chans, H, W), output logits (N, num_classes), or features for 0 classes.

    In evaluation `forward(x) == head(stages(stem(x)))`, always. What a network computes in training only (GoogLeNet's
    auxiliary logits) is reached through `training_logits` and never changes what `forward` returns.
    """

    stem: nn.Module
    stages: nn.Sequential
    head: nn.Module
    recomputes = False
    loaded: LoadReport | None = None
    """Where the weights were loaded from and what was changed to fit; None for random ones."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes), or features for 0 classes."""
        logits: Tensor = self.head(self.through_stages(self.stem(x)))
        return logits

    def through_stages(self, x: Tensor) -> Tensor:
        """The last stage's map from the stem's."""
        out: Tensor = self.run(self.units(), x) if self.recomputes else self.stages(x)
        return out

    def units(self) -> Iterable[nn.Module]:
        """The modules that the stages apply one after the other; with recomputation each is computed again as a whole."""
        return self.stages

    def run(self, units: Iterable[nn.Module], x: Tensor) -> Tensor:
        """x through `units`, one after the other, with recomputation if that is switched on and gradients are wanted."""
        for unit in units:
            x = _recomputed(unit, x) if self.recomputes and torch.is_grad_enabled() else unit(x)
        return x

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Save memory in training: keep only what enters each unit, and compute its inside again for the gradients.

        Logits, gradients and BatchNorm's statistics stay as they were (Chen et al. 2016, "Training Deep Nets with Sublinear
        Memory Cost", section 4.1); a step takes about one forward pass longer. Called as in timm.
        """
        self.recomputes = enable

    def training_logits(self, x: Tensor) -> tuple[tuple[float, Tensor], ...]:
        """Pairs of (weight in the loss, logits (N, num_classes)); the first is the network's own answer."""
        return ((1.0, self(x)),)

    def learn_from(self, sample: Callable[[int], Tensor]) -> None:
        """Take from training images what is not trained but computed; for most networks there is nothing to take.

        `sample(n)` gives up to n images as the network will see them, (n, C, H, W). Training calls this once, before the first
        step.
        """

    def auxiliary_parameters(self) -> list[nn.Parameter]:
        """Parameters that only training uses."""
        return []


def blocks_of(stages: nn.Sequential) -> Iterable[nn.Module]:
    """The children of all stages in order, for families whose stages are sequences of blocks."""
    return (block for stage in stages.children() for block in stage.children())


def _recomputed(unit: nn.Module, x: Tensor) -> Tensor:
    """`unit` of x, whose inside is computed a second time when gradients ask for it."""
    out: Tensor = checkpoint(unit, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _StatisticsKept(unit)))
    return out


class _StatisticsKept:
    """While it is entered, BatchNorm in training mode leaves its running statistics alone: the first pass has counted the batch.

    By momentum 0: without statistics at all it would save fewer tensors than the first pass did, which torch refuses. It can be
    entered again and again, once for each backward pass through the same graph.
    """

    def __init__(self, unit: nn.Module) -> None:
        self.norms = [m for m in unit.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
        self.before: list[tuple[float | None, Tensor | None]] = []

    def __enter__(self) -> None:
        """Put momenta aside."""
        counts = (norm.num_batches_tracked for norm in self.norms)
        self.before = [(norm.momentum, None if n is None else n.clone()) for norm, n in zip(self.norms, counts, strict=True)]
        for norm in self.norms:
            norm.momentum = 0.0

    def __exit__(self, *_: object) -> None:
        """Put momenta and counters back."""
        for norm, (momentum, count) in zip(self.norms, self.before, strict=True):
            norm.momentum = momentum
            if count is not None and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.copy_(count)


def classifier(in_features: int, num_classes: int) -> nn.Module:
    """The last linear layer, (N, in_features) -> (N, num_classes); for 0 classes nothing at all."""
    return nn.Linear(in_features, num_classes) if num_classes else nn.Identity()


def initialise_he(network: nn.Module) -> None:
    """He initialisation of every convolution, variance 1 / fan-in for every linear layer, biases 0, norms 1 and 0.

    Convolutions: fan-out with the gain of ReLU (He et al. 2015, "Delving Deep into Rectifiers", section 2.2). Linear layers
    take gain 1 (LeCun et al. 1998, "Efficient BackProp", section 4.6): the root of 2 was no better in short trainings of
    VGG (docs/LOG.md). On the meta device, where there are shapes and no values, nothing is done.
    """
    if next(network.parameters()).is_meta:
        return  # torch would import for seconds in order to draw nothing
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="linear")
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.zeros_(module.bias)
