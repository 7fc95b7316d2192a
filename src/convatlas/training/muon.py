"""Muon: momentum whose update is made orthogonal, for the filters of convolutions.

Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks" (kellerjordan.github.io/posts/muon), with
the coefficients given there; three iterations suffice for convolutions, as in Jordan's airbench.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

ITERATIONS = 3
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
OTHER_MOMENTUM = 0.85
"""Of the biases, norms and the classifier, which take Nesterov's momentum instead."""


def orthogonal(update: Tensor) -> Tensor:
    """Nearly the orthogonal matrix nearest to `update` (rows, columns): its singular values come to lie about 1.

    By Newton and Schulz's iteration with a polynomial of fifth degree, in bf16, which is exact enough.
    """
    a, b, c = COEFFICIENTS
    x = update.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if tall else x).to(update.dtype)


def _descend(parameter: Tensor, update: Tensor, lr: float | Tensor) -> None:
    """Move by the update times the learning rate, which is a tensor where the step is being recorded."""
    if isinstance(lr, Tensor):
        parameter.addcmul_(update, lr, value=-1.0)
    else:
        parameter.add_(update, alpha=-lr)


class Muon(Optimizer):
    """Filters (out, in, k, k) by orthogonal momentum, kept at norm sqrt(out); everything else by Nesterov's momentum.

    Groups have `filters`, whether theirs are filters, and `weight_decay`, which acts on the others only: a filter before
    BatchNorm has no scale that could be decayed, so its norm is fixed instead (Jordan's airbench, 2024).
    """

    def __init__(self, groups: list[dict[str, Any]], *, lr: float, momentum: float) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": 0.0, "filters": False})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            move = self._move_filter if group["filters"] else self._move
            for parameter in group["params"]:
                if parameter.grad is not None:
                    move(parameter, parameter.grad, group)

    def _nesterov(self, parameter: Tensor, gradient: Tensor, momentum: float) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["velocity"] = torch.zeros_like(parameter)
        velocity: Tensor = state["velocity"]
        velocity.mul_(momentum).add_(gradient)
        return gradient.add(velocity, alpha=momentum)

    def _move_filter(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        update = self._nesterov(parameter, gradient, group["momentum"])
        parameter.mul_(len(parameter) ** 0.5 / parameter.norm())
        flat = update.reshape(len(update), -1)
        _descend(parameter, orthogonal(flat).view(update.shape), group["lr"])

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        if group["weight_decay"]:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        _descend(parameter, self._nesterov(parameter, gradient, OTHER_MOMENTUM), group["lr"])
