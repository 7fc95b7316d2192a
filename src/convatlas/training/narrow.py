"""Convolutions of few channels, for training on CPUs that compute sixteen numbers at once (AVX-512).

Convolutions compute as many output channels at once as fit, so that those of six leave ten places of sixteen unused. Here two
pixels that lie side by side are taken for one of twice as many channels, which is what they are in memory where channels are
last: a map (C, H, W) is one of (2C, H, W / 2). A kernel of k columns, k odd, sees k + 1 of them, one of which has weight zero for
the left and the other for the right pixel. That is (k + 1) / k times the work, at up to twice the speed. The same to rounding.

The gradient by the input is a convolution too, of the gradient by the output with mirrored kernels, whose output channels are
the input's: it is computed so where these are few.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from convatlas.training.wide import Pair, computed_in

FEW = 8
"""Channels of which two pixels' worth are computed at once."""


def pairs(x: Tensor) -> Tensor:
    """(N, C, H, W) as (N, 2C, H, W / 2), the same memory where channels are last: the left pixel's channels first."""
    n, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).reshape(n, height, width // 2, 2 * channels).permute(0, 3, 1, 2)


def pixels(paired: Tensor) -> Tensor:
    """What `pairs` was given: (N, 2C, H, W / 2) -> (N, C, H, W)."""
    n, channels, height, width = paired.shape
    return paired.permute(0, 2, 3, 1).reshape(n, height, 2 * width, channels // 2).permute(0, 3, 1, 2)


def paired_weight(weight: Tensor) -> Tensor:
    """(out, C, rows, k) -> (2 * out, 2C, rows, (k + 1) / 2): what gives two neighbouring outputs from pairs of pixels."""
    out, channels, rows, columns = weight.shape
    laid = weight.permute(0, 2, 3, 1)
    two = torch.cat((F.pad(laid, (0, 0, 0, 1)), F.pad(laid, (0, 0, 1, 0))))  # of the left output and of the right one
    return two.reshape(2 * out, rows, (columns + 1) // 2, 2 * channels).permute(0, 3, 1, 2)


def unpaired_weight(paired: Tensor) -> Tensor:
    """The gradient by the weights (out, C, rows, k), from that by what `paired_weight` made of them."""
    out, channels, rows, columns = paired.shape
    two = paired.permute(0, 2, 3, 1).reshape(2, out // 2, rows, 2 * columns, channels // 2)
    return torch.add(two[0, :, :, :-1], two[1, :, :, 1:]).permute(0, 3, 1, 2)


def no_view(laid: Tensor) -> Tensor:
    """`laid`, a view of what nobody else has, as a tensor of its own with the same memory, in a function of autograd's.

    A function of one's own gives no view, or nobody could change it in place; were the view made after it, torch would copy the
    gradient of what was changed.
    """
    return laid.data


def convolved(x: Tensor, weight: Tensor, *, bias: Tensor | None, padding: Pair) -> Tensor:
    """The convolution of x (N, C, H, W), channels last and W even, by weights (out, C, rows, k), k odd, as `pairs` of pixels."""
    beside = F.pad(x, (padding[1], padding[1])) if padding[1] else x
    twice = None if bias is None else torch.cat((bias, bias))
    return F.conv2d(pairs(beside), paired_weight(weight), twice, padding=(padding[0], 0))


def by_input(grad: Tensor, weight: Tensor, *, padding: Pair) -> Tensor:
    """The gradient by the input, (N, C, H, W), from that by the output, (N, out, H', W')."""
    rows, columns = weight.shape[2:]
    mirrored = weight.flip(2, 3).transpose(0, 1)
    return pixels(convolved(grad, mirrored, bias=None, padding=(rows - 1 - padding[0], columns - 1 - padding[1])))


def by_weight(grad: Tensor, x: Tensor, *, weight: Tensor, padding: Pair) -> tuple[Tensor, Tensor]:
    """The gradients by the weights and by the biases, from that by what `convolved` gives."""
    beside = F.pad(x, (padding[1], padding[1])) if padding[1] else x
    of_pairs, of_biases = _by_weight(grad, pairs(beside), weight=paired_weight(weight), padding=(padding[0], 0))
    return unpaired_weight(of_pairs), of_biases.view(2, -1).sum(0)


def _by_weight(grad: Tensor, x: Tensor, *, weight: Tensor, padding: Pair) -> tuple[Tensor, Tensor]:
    """As torch computes them."""
    wanted = (False, True, True)
    _, weights, biases = torch.ops.aten.convolution_backward(
        grad, x, weight, [len(weight)], (1, 1), padding, (1, 1), False, (0, 0), 1, wanted
    )
    return weights, biases


class _NarrowConv(torch.autograd.Function):
    """A convolution that is computed in pairs of pixels in those passes whose output has few channels, in others by torch."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Pair) -> Tensor:
        if len(weight) > FEW:
            return F.conv2d(x, weight, bias, padding=padding)
        return no_view(pixels(convolved(x, weight, bias=bias, padding=padding)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, Pair], output: Tensor) -> None:
        x, weight, _, ctx.padding = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Made of operations that are differentiable themselves, as torch's convolution is twice."""
        x, weight = ctx.saved_tensors
        to_data, to_weights, to_biases, _ = ctx.needs_input_grad
        data, weights, biases = None, None, None
        with torch.autocast("cpu", enabled=False):  # in the numbers of forward, as torch's own gradients are
            if to_data:
                data = by_input(grad, weight, padding=ctx.padding)
            if (to_weights or to_biases) and len(weight) <= FEW:
                weights, biases = by_weight(pairs(grad), x, weight=weight, padding=ctx.padding)
            elif to_weights or to_biases:
                weights, biases = _by_weight(grad, x, weight=weight, padding=ctx.padding)
        return data, weights, biases if to_biases else None, None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], x: Tensor, weight: Tensor, bias: Tensor | None, padding: Pair
    ) -> tuple[Tensor, int]:
        """By torch: what several networks compute at once has their channels together, which are not few."""
        return torch.vmap(F.conv2d, (*in_dims[:3], None, None))(x, weight, bias, 1, padding), 0


def narrow_conv(x: Tensor, weight: Tensor, *, bias: Tensor | None, padding: Pair) -> Tensor:
    """The convolution of x (N, C, H, W), channels last and W even, by weights (out, C, rows, k), k odd: (N, out, H', W').

    Where autocast computes in another format, x, weights and biases are brought to it. Padding must be less than the kernel.
    """
    dtype = computed_in(x)
    cast = None if bias is None else bias.to(dtype)
    out: Tensor = _NarrowConv.apply(x.to(dtype), weight.to(dtype), cast, padding)  # type: ignore[no-untyped-call]
    return out
