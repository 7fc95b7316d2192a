"""BatchNorm over the batch of all processes: what each would compute if it had the images of all.

torch's SyncBatchNorm does so on GPUs only, and as another class of layer. Here the layers stay what they are, and compute so
while `synchronised` lasts, on any device.

With N values of a channel in all processes, mean m, variance v, x' = (x - m) / sqrt(v + eps) and y = w x' + b, the gradient of a
loss by x is w / sqrt(v + eps) * (g - mean(g) - x' mean(g x')), g being that by y and both means over all N (Ioffe & Szegedy 2015,
section 3). One sum over the processes is needed in either pass.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from convatlas.training.distributed import World


@contextmanager
def synchronised(model: nn.Module, world: World) -> Iterator[None]:
    """While it lasts, every BatchNorm of `model` that is in training mode takes its statistics over all processes.

    All processes must then run the model together.
    """
    norms = [each for each in model.modules() if isinstance(each, _BatchNorm)]
    assert all(type(norm).forward is _BatchNorm.forward and "forward" not in vars(norm) for norm in norms)
    try:
        for norm in norms:
            vars(norm)["forward"] = MethodType(_Forward(world), norm)
        yield
    finally:
        for norm in norms:
            vars(norm).pop("forward", None)


class _Forward:
    """Takes the place of one BatchNorm's `forward`."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __call__(self, norm: _BatchNorm, input: Tensor) -> Tensor:
        """(N, C, ...) -> (N, C, ...)."""
        if not norm.training:
            return _BatchNorm.forward(norm, input)
        count, mean, variance = _statistics(input.detach(), self.world)
        _keep(norm, count, mean, variance)
        out: Tensor = _Normalise.apply(input, norm.weight, norm.bias, mean, (variance + norm.eps).rsqrt(), count, self.world)  # type: ignore[no-untyped-call]
        return out


def _statistics(x: Tensor, world: World) -> tuple[Tensor, Tensor, Tensor]:
    """How many values a channel has in all processes, (), their mean and their biased variance, float32 (C,)."""
    variance, mean = torch.var_mean(x.float(), _but_channels(x), correction=0)
    n = x.numel() / x.shape[1]
    # In double precision, or the difference of squares below would lose the digits that a large mean takes up.
    mean, variance = mean.double(), variance.double()
    sums = world.total(torch.cat([n * mean, n * (variance + mean.square()), mean.new_tensor([n])]))
    count = sums[-1]
    mean, squares = (sums[:-1] / count).chunk(2)
    return count, mean.float(), (squares - mean.square()).clamp_(min=0).float()


@torch.no_grad()
def _keep(norm: _BatchNorm, count: Tensor, mean: Tensor, variance: Tensor) -> None:
    """Update the running statistics as torch does: by momentum, or as a plain mean where there is none."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    weight = 1 / norm.num_batches_tracked.item() if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, weight)
    norm.running_var.lerp_(variance * (count / (count - 1)).float(), weight)


def _but_channels(x: Tensor) -> list[int]:
    return [dim for dim in range(x.dim()) if dim != 1]


def _wide(values: Tensor, like: Tensor) -> Tensor:
    """Values (C,) as (1, C, 1, ...)."""
    return values.view(1, -1, *[1] * (like.dim() - 2))


class _Normalise(torch.autograd.Function):
    """y = weight * (x - mean) * scale + bias, mean and scale being those of all processes' x; in float32, y in x's format."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, scale: Tensor, count: Tensor, world: World
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, scale, count)
        ctx.world = world
        y = (x.float() - _wide(mean, x)) * _wide(scale if weight is None else scale * weight, x)
        return (y if bias is None else y + _wide(bias, x)).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, count = ctx.saved_tensors
        normal = (x.float() - _wide(mean, x)) * _wide(scale, x)
        back = grad.float()
        by_bias, by_weight = back.sum(_but_channels(x)), (back * normal).sum(_but_channels(x))
        first, second = (ctx.world.total(torch.cat([by_bias, by_weight])) / count).chunk(2)
        through = back - _wide(first, x) - normal * _wide(second, x)
        by_x = through * _wide(scale if weight is None else scale * weight, x)
        asked = ctx.needs_input_grad
        return (
            by_x.to(x.dtype) if asked[0] else None,
            by_weight if asked[1] else None,
            by_bias if asked[2] else None,
            None,
            None,
            None,
            None,
        )
