"""Optimizers, and the moving average of the weights."""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from convatlas.records.run import Recipe
from convatlas.training.muon import Muon


def _sgd(groups: list[dict[str, object]], recipe: Recipe) -> Optimizer:
    """Nesterov's momentum (Sutskever et al. 2013, section 3)."""
    return SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=True)


def _adam(groups: list[dict[str, object]], recipe: Recipe) -> Optimizer:
    """Adam (Kingma & Ba 2015, algorithm 1), one parameter after the other, as courses have it."""
    return Adam(groups, lr=recipe.lr, foreach=False)


def _adamw(groups: list[dict[str, object]], recipe: Recipe) -> Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2)."""
    return AdamW(groups, lr=recipe.lr, fused=True)


def _muon(groups: list[dict[str, object]], recipe: Recipe) -> Optimizer:
    """Orthogonal momentum for the filters of convolutions, Nesterov's for everything else (see `Muon`)."""
    return Muon(groups, lr=recipe.lr, momentum=recipe.momentum)


OPTIMIZERS: dict[str, Callable[[list[dict[str, object]], Recipe], Optimizer]] = {
    "adam": _adam,
    "adamw": _adamw,
    "muon": _muon,
    "sgd": _sgd,
}


def make_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer:
    """The recipe's optimizer over all parameters; biases, norms and layer scales are not decayed.

    Decaying those has no regularising effect (Jia et al. 2018, arXiv:1807.11205, section 3.1). Each group says in `lr_factor`
    which multiple of the recipe's learning rate it takes, and in `filters` whether Muon is to take it for filters.
    """
    parts: dict[str, list[nn.Parameter]] = {"filters": [], "matrices": [], "classifier": [], "vectors": []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parts[_part(name, parameter, recipe)].append(parameter)
    factors = {"classifier": recipe.classifier_lr, "vectors": recipe.bias_lr}
    groups: list[dict[str, object]] = [
        {
            "params": parameters,
            "weight_decay": 0.0 if part == "vectors" else recipe.weight_decay,
            "lr_factor": factors.get(part, 1.0),
            "filters": part == "filters",
        }
        for part, parameters in parts.items()
        if parameters
    ]
    return OPTIMIZERS[recipe.optimizer](groups, recipe)


def _part(name: str, parameter: nn.Parameter, recipe: Recipe) -> str:
    """Which group a parameter belongs to: filters are set apart for Muon only, the classifier where it has its own rate."""
    if parameter.ndim <= 1:
        return "vectors"
    if recipe.optimizer == "muon" and parameter.ndim == 4 and parameter.shape[1] > 1:
        return "filters"
    return "classifier" if recipe.classifier_lr != 1.0 and name.startswith("head.classifier.") else "matrices"


class MovingAverage:
    """An exponential moving average of a model's weights and statistics; `model` is the averaged copy, in evaluation mode.

    The decay rises from 0.1 to the recipe's, so that the first, random weights are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        self.moving = [pair for pair in pairs if pair[0].is_floating_point()]
        self.counting = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` steps (from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for averaged, current in self.moving:
            averaged.lerp_(current, 1 - decay)
        for averaged, current in self.counting:
            averaged.copy_(current)
