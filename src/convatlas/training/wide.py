"""Convolutions of several images at once, for training on CPUs.

oneDNN, which computes torch's convolutions on CPUs, works image by image and reads the weights again for each, which costs most
on small maps. Here `group` images lie side by side in one wide image, with columns of zeros between them; what the convolution
gives is the same to rounding. Whether that is faster differs by shape, number format and pass (`conv_trial` measures it), so
that forward, backward to the data and backward to the weights have a group each, and 1 is torch's own algorithm.

Along the columns, with width W, kernel k, stride s and padding p, an image gives W' = floor((W + 2p - k) / s) + 1 outputs, and
output j reads columns j*s - p to j*s - p + k - 1: at most p columns outside the image on either side. Image i begins at column
i*P. Its outputs begin at i*P/s if s divides P, see only its own columns if P >= W + p, since two images then share p columns of
zeros, and do not overlap the next image's if P/s >= W'. P is the least such number. Nothing follows the last image, so that the
wide output ends with the last image's last output; outputs between two images are dropped, with gradient 0. Rows are as ever.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d

from convatlas.arith.shapes import conv_output_size
from convatlas.records.engine import ConvChoice
from convatlas.training.stand_in import StandIn, is_free, standing_in, stands_in

Pair = tuple[int, int]
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]
"""By the input, the weights and the biases; None where none was wanted."""


@dataclass(frozen=True)
class Layout:
    """A convolution's window, and how images lie in a wide one: columns of an image, and between two, before and after."""

    stride: Pair
    padding: Pair
    width: int
    gap: int
    out_width: int
    out_gap: int


def layout(width: int, *, kernel: Pair, stride: Pair, padding: Pair) -> Layout:
    """How images `width` pixels wide are laid for a convolution whose kernel, stride and padding are (rows, columns)."""
    step, margin = stride[1], padding[1]
    out_width = conv_output_size(width, kernel=kernel[1], stride=step, padding=margin)
    outputs = max(-(-(width + margin) // step), out_width)  # from one image's first to the next one's
    return Layout(stride, padding, width, outputs * step - width, out_width, outputs - out_width)


def fold(x: Tensor, group: int, *, gap: int) -> Tensor:
    """(N, C, H, W) -> (N / group, C, H, group * W + (group - 1) * gap), channels last: each `group` images in a row become one.

    Zeros fill the `gap` columns between two images. `group` must divide N; 1 gives `x` itself.
    """
    if group == 1:
        return x
    n, channels, height, width = x.shape
    wide = x.new_empty((n // group, height, group * width + (group - 1) * gap, channels))
    _columns(wide, group, width, gap=gap).copy_(x.permute(0, 2, 3, 1).view(-1, group, height, width, channels))
    if gap:
        _columns(wide[:, :, width:], group - 1, gap, gap=width).zero_()
    return wide.permute(0, 3, 1, 2)


def unfold(wide: Tensor, group: int, *, width: int, gap: int) -> Tensor:
    """What `fold` was given, channels last: (N / group, C, H, group * width + (group - 1) * gap) -> (N, C, H, width)."""
    if group == 1:
        return wide
    last = wide.permute(0, 2, 3, 1).contiguous()
    return _columns(last, group, width, gap=gap).contiguous().flatten(0, 1).permute(0, 3, 1, 2)


def _columns(wide: Tensor, count: int, width: int, *, gap: int) -> Tensor:
    """`count` pieces of `width` columns each, `gap` apart, of (M, H, columns, C), as a view (M, count, H, width, C)."""
    image, row, column, _ = wide.stride()
    m, height, _, channels = wide.shape
    strides = (image, (width + gap) * column, row, column, 1)
    return wide.as_strided((m, count, height, width, channels), strides, wide.storage_offset())


def group_for(images: int, wanted: int) -> int:
    """The largest number up to `wanted` that divides the number of images in the batch; 1 is torch's own algorithm."""
    return next((group for group in range(min(images, wanted), 0, -1) if images % group == 0), 1)


def forward_pass(x: Tensor, weight: Tensor, *, bias: Tensor | None, layout: Layout, group: int) -> Tensor:
    """The convolution of x (N, C, H, W), all in one number format: (N, out_channels, H', W'), channels last in memory if x is."""
    wide = conv2d(fold(x, group, gap=layout.gap), weight, bias, layout.stride, layout.padding)
    return unfold(wide, group, width=layout.out_width, gap=layout.out_gap)


def backward_pass(
    grad: Tensor, x: Tensor, *, weight: Tensor, layout: Layout, group: int, wanted: tuple[bool, bool, bool]
) -> Gradients:
    """Gradients by input, weights and biases, those that are `wanted`, from the one by the output, (N, out_channels, H', W')."""
    to_data, to_weights, _ = wanted
    wide = fold(x, group, gap=layout.gap) if to_weights or group == 1 else _like_folded(x, group, gap=layout.gap)
    by_input, by_weight, by_bias = torch.ops.aten.convolution_backward(
        fold(grad, group, gap=layout.out_gap),
        wide,
        weight,
        [weight.shape[0]],
        layout.stride,
        layout.padding,
        (1, 1),
        False,
        (0, 0),
        1,
        wanted,
    )
    return unfold(by_input, group, width=layout.width, gap=layout.gap) if to_data else None, by_weight, by_bias


def _like_folded(x: Tensor, group: int, *, gap: int) -> Tensor:
    """Memory shaped like the folded x, whatever is in it: the gradient by the input needs the input's shape alone."""
    n, channels, height, width = x.shape
    return x.new_empty((n // group, height, group * width + (group - 1) * gap, channels)).permute(0, 3, 1, 2)


class _WideConv(torch.autograd.Function):
    """A convolution whose passes are computed in groups of images, each pass in its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layout: Layout, choice: ConvChoice) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.layout, ctx.choice = layout, choice
        return forward_pass(x, weight, bias=bias, layout=layout, group=group_for(len(x), choice.forward))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        to_data, to_weights, to_bias = ctx.needs_input_grad[:3]
        first, second = (group_for(len(x), group) for group in (ctx.choice.to_data, ctx.choice.to_weights))
        given: dict[str, Any] = {"weight": weight, "layout": ctx.layout}
        if first == second:  # the gradient is laid out once for both
            return *backward_pass(grad, x, group=first, wanted=(to_data, to_weights, to_bias), **given), None, None
        by_input, by_weight, by_bias = None, None, None
        if to_data:
            by_input, _, _ = backward_pass(grad, x, group=first, wanted=(True, False, False), **given)
        if to_weights or to_bias:
            _, by_weight, by_bias = backward_pass(grad, x, group=second, wanted=(False, to_weights, to_bias), **given)
        return by_input, by_weight, by_bias, None, None


def wide_conv(x: Tensor, weight: Tensor, *, bias: Tensor | None, layout: Layout, choice: ConvChoice) -> Tensor:
    """The convolution of x (N, C, H, W), with the passes of `choice`, and differentiable once.

    Where autocast computes in another format, x, weights and biases are brought to it, and x is kept in it; gradients come back
    in the format of what they belong to.
    """
    dtype = computed_in(x)
    cast = None if bias is None else bias.to(dtype)
    out: Tensor = _WideConv.apply(x.to(dtype), weight.to(dtype), cast, layout, choice)  # type: ignore[no-untyped-call]
    return out


def computed_in(x: Tensor) -> torch.dtype:
    """The number format in which a convolution of x is computed here: autocast's, which leaves double precision alone, or x's."""
    if torch.is_autocast_enabled("cpu") and x.dtype != torch.float64:
        return torch.get_autocast_dtype("cpu")
    return x.dtype


def can_widen(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether `conv` of x is a convolution that may be computed otherwise: a plain one, of a batch on the CPU, channels last.

    Plain is torch's class itself, zeros around, one group, no dilation, and padding in numbers.
    """
    plain = type(conv) is nn.Conv2d and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    dense = conv.groups == 1 and conv.dilation == (1, 1)
    batch = x.device.type == "cpu" and x.dim() == 4 and len(x) > 1 and (x.stride(1) == 1 or x.shape[1] == 1)
    return plain and dense and batch and (x.dtype == conv.weight.dtype or torch.is_autocast_enabled("cpu"))


def conv_shape(x: Tensor, conv: nn.Conv2d, *, dtype: torch.dtype) -> str:
    """What a `ConvChoice` is kept under, such as `512x4x4 -> 512, 3x3 stride 1 padding 1, bfloat16`; for batches of any size."""
    return f"{_sides(x.shape[1:])} -> {_window(conv)}, {str(dtype).removeprefix('torch.')}"


def _window(conv: nn.Conv2d) -> str:
    words = [f"{conv.out_channels}, {_sides(conv.kernel_size)} stride {_short(conv.stride)} padding {_short(conv.padding)}"]
    words += [f"dilation {_short(conv.dilation)}"] if conv.dilation != (1, 1) else []
    words += [f"groups {conv.groups}"] if conv.groups > 1 else []
    return " ".join(words)


def _sides(values: Sequence[int]) -> str:
    return "x".join(str(value) for value in values)


def _short(values: Sequence[int] | str) -> str:
    """One number for both sides where they are alike."""
    if isinstance(values, str):
        return values
    return str(values[0]) if len(set(values)) == 1 else _sides(values)


class _Forward(StandIn):
    def __init__(self, owner: nn.Conv2d, choices: Mapping[str, ConvChoice]) -> None:
        super().__init__(owner)
        self.choices = choices

    def __call__(self, conv: nn.Conv2d, input: Tensor) -> Tensor:
        """The convolution of input (N, C, H, W); torch's own where no gradient is wanted or nothing was chosen."""
        choice = self.choice(conv, input)
        if choice is None:
            return nn.Conv2d.forward(conv, input)
        assert not isinstance(conv.padding, str)
        kernel, stride, padding = ((pair[0], pair[1]) for pair in (conv.kernel_size, conv.stride, conv.padding))
        lay = layout(input.shape[3], kernel=kernel, stride=stride, padding=padding)
        return wide_conv(input, conv.weight, bias=conv.bias, layout=lay, choice=choice)

    def choice(self, conv: nn.Conv2d, x: Tensor) -> ConvChoice | None:
        """What was chosen for this call, if anything."""
        taught = any(each is not None and each.requires_grad for each in (x, conv.weight, conv.bias))
        if conv is not self.owner or not (conv.training and taught and torch.is_grad_enabled() and can_widen(conv, x)):
            return None
        return self.choices.get(conv_shape(x, conv, dtype=computed_in(x)))


@contextmanager
def widened(model: nn.Module, choices: Sequence[ConvChoice]) -> Iterator[None]:
    """While it lasts, convolutions of `model` that are in training mode, and meet a shape among `choices`, are computed so.

    All else is computed as ever, and all of it afterwards. Within another one, the inner choices go before the outer ones. The
    model's class and state are not touched; a convolution whose `forward` somebody has replaced already is left alone.
    """
    wanted = {each.shape: each for each in choices if (each.forward, each.to_data, each.to_weights) != (1, 1, 1)}
    plain = [conv for conv in model.modules() if type(conv) is nn.Conv2d and is_free(conv)]
    instead: dict[nn.Module, StandIn] = {conv: forward for conv in plain if (forward := _forward(conv, wanted)) is not None}
    with standing_in(instead):
        yield


def _forward(conv: nn.Conv2d, wanted: Mapping[str, ConvChoice]) -> _Forward | None:
    """What takes the place of the convolution's `forward`; None where no choice is about such a convolution."""
    own = {shape: choice for shape, choice in wanted.items() if f" -> {_window(conv)}, " in shape}
    if not own or "forward" not in vars(conv):
        return _Forward(conv, own) if own else None
    outer = stands_in(conv)
    return _Forward(conv, {**outer.choices, **own}) if isinstance(outer, _Forward) else None
