"""Optimizers, and the moving average of the weights."""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from convatlas.records.run import Recipe


def _sgd(groups: list[dict[str, object]], recipe: Recipe) -> Optimizer:
    """Nesterov's momentum (Sutskever et al. 2013, section 3)."""
    return SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=True)


def _adamw(groups: list[dict[str, object]], recipe: Recipe) -> Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2)."""
    return AdamW(groups, lr=recipe.lr, fused=True)


OPTIMIZERS: dict[str, Callable[[list[dict[str, object]], Recipe], Optimizer]] = {"adamw": _adamw, "sgd": _sgd}


def make_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer:
    """The recipe's optimizer over all parameters; biases, norms and layer scales are not decayed.

    Decaying those has no regularising effect (Jia et al. 2018, arXiv:1807.11205, section 3.1).
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, object]] = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return OPTIMIZERS[recipe.optimizer](groups, recipe)


class MovingAverage:
    """An exponential moving average of a model's weights and statistics; `model` is the averaged copy, in evaluation mode.

    The decay rises from 0.1 to the recipe's, so that the first, random weights are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after `step` steps (from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for averaged, current in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if averaged.is_floating_point():
                averaged.lerp_(current, 1 - decay)
            else:
                averaged.copy_(current)
