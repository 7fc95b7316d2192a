"""Layers computed by other operations that give the same, for training on CPUs.

Some things take torch long on CPUs, most of all in small networks, and need not; the limits below are where that was measured
(docs/LOG.md):

- Average pooling whose windows do not overlap. Every pixel of a window gets the window's gradient divided by its area: here it
  is divided once and copied. Of few channels, whole rows are added, not pixels. The same numbers.
- A convolution whose kernel is as large as its map, such as LeNet-5's C5 (LeCun et al. 1998, section II.B): one position, so a
  product of two matrices. The same to rounding.
- Convolutions of few channels: see `narrow`. The same to rounding.
- The hyperbolic tangent of whole maps, which oneDNN computes faster. The same to rounding.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, reduce
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from convatlas.training import narrow
from convatlas.training.stand_in import StandIn, is_free, met_in_training, standing_in, stands_in
from convatlas.training.wide import Pair, can_widen, computed_in

FORMATS = (torch.bfloat16, torch.float32)
VECTOR = 16
"""Numbers of fp32 that a processor computes at once, at most: torch pools so many channels at once, or wastes what is missing."""
LARGEST_WINDOW = {torch.bfloat16: 8, torch.float32: 3}
"""Pixels a side of pooling, by number format; in fp32 with fewer than `VECTOR` channels."""
SUMMED_WINDOW, SUMMED_WIDTH = 4, 16
"""Of pooling forward of few channels: the most pixels of a window, and in fp32 the fewest columns of the map."""
LARGEST_KERNEL, FEWEST_CHANNELS = 5, 16
"""Of a convolution: larger ones, or of fewer channels, are slower as a product."""
NARROW_KERNELS, NARROW_WIDTHS = (5, 7), range(12, 129, 2)
"""Of a convolution of few channels: sides of its kernel, columns of its map."""
TO_DATA_INPUTS, TO_DATA_OUTPUTS, TO_DATA_WIDTH, TO_DATA_PADDING = range(3, narrow.FEW + 1), 16, 32, 1
"""And where it has few input channels only: these, and most output channels, columns and padding."""
POOL_NUMBERS, TANH_NUMBERS, NARROW_MACS = {torch.bfloat16: 2**16, torch.float32: 2**17}, 2**17, 2**24
"""Of a batch and for each thread, from which on it is worth what more operations take to begin: numbers of a map, MACs."""


class _AveragePool(torch.autograd.Function):
    """Average pooling in windows that do not overlap and fill the map, channels last."""

    @staticmethod
    def forward(x: Tensor, window: Pair, by_rows: bool) -> Tensor:
        return narrow.no_view(averages(x, window).permute(0, 3, 1, 2)) if by_rows else F.avg_pool2d(x, window)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Pair, bool], output: Tensor) -> None:
        _, ctx.window, _ = inputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return spread(grad, ctx.window), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, None, None], x: Tensor, window: Pair, by_rows: bool) -> tuple[Tensor, int]:
        return torch.vmap(F.avg_pool2d, (in_dims[0], None))(x, window), 0


def average_pool(x: Tensor, window: Pair) -> Tensor:
    """Of x (N, C, rows * H, columns * W), channels last, in windows (rows, columns): (N, C, H, W), channels last."""
    few = x.shape[1] <= narrow.FEW and 1 < window[0] * window[1] <= SUMMED_WINDOW
    by_rows = few and (x.dtype == torch.bfloat16 or x.shape[3] >= SUMMED_WIDTH)
    out: Tensor = _AveragePool.apply(x, window, by_rows)  # type: ignore[no-untyped-call]
    return out


def averages(x: Tensor, window: Pair) -> Tensor:
    """Of windows that fill the map, (N, C, rows * H, columns * W), channels last -> (N, H, W, C)."""
    rows, columns = window
    n, channels, height, width = x.shape
    bands = x.permute(0, 2, 3, 1).float().reshape(n, height // rows, rows, width * channels)
    if x.dtype == torch.bfloat16:  # in fp32 these add up exactly in any order but for extremes, and whole rows do so fastest
        bands = reduce(torch.add, bands.unbind(2)).unsqueeze(2)
    windows = bands.view(n, height // rows, bands.shape[2], width // columns, columns, channels)
    total = reduce(torch.add, (column for row in windows.unbind(2) for column in row.unbind(3)))
    return total.div_(rows * columns).to(x.dtype)


def spread(grad: Tensor, window: Pair) -> Tensor:
    """The gradient by what was pooled, (N, C, rows * H, columns * W), channels last, from that by the averages (N, C, H, W).

    Made of operations that are differentiable themselves, as torch's pooling is twice.
    """
    rows, columns = window
    n, channels, height, width = grad.shape
    shares = (grad / (rows * columns)).permute(0, 2, 3, 1)
    row = torch.cat((shares,) * columns, 3).view(n, height, 1, width * columns * channels)
    image = row.expand(n, height, rows, width * columns * channels).contiguous()
    return image.view(n, height * rows, width * columns, channels).permute(0, 3, 1, 2)


def _pooled(pool: nn.AvgPool2d, x: Tensor, images: int) -> Callable[[], Tensor] | None:
    window = _pair(pool.kernel_size)
    if _pair(pool.stride) != window or _pair(pool.padding) != (0, 0) or pool.divisor_override is not None:
        return None
    if x.device.type != "cpu" or not x.requires_grad or max(window) > LARGEST_WINDOW.get(x.dtype, 0):
        return None
    laid = x.is_contiguous(memory_format=torch.channels_last) and x.shape[1] > 1
    fills = (x.shape[2] % window[0], x.shape[3] % window[1]) == (0, 0)
    slow = x.dtype == torch.bfloat16 or x.shape[1] < VECTOR
    enough = _numbers(x, images) >= POOL_NUMBERS[x.dtype] * torch.get_num_threads()
    return (lambda: average_pool(x, window)) if laid and fills and slow and enough else None


def _numbers(x: Tensor, images: int) -> int:
    """In so many images like those of x."""
    return images * prod(x.shape[1:])


def _convolved(conv: nn.Conv2d, x: Tensor, images: int) -> Callable[[], Tensor] | None:
    if not can_widen(conv, x) or x.shape[1] != conv.in_channels:
        return None
    return _product(conv, x) or _narrow(conv, x, images)


def _product(conv: nn.Conv2d, x: Tensor) -> Callable[[], Tensor] | None:
    if conv.padding != (0, 0) or not tuple(x.shape[2:]) == conv.kernel_size != (1, 1):
        return None  # with one pixel, as in squeeze and excitation, whole steps gain nothing
    if max(conv.kernel_size) > LARGEST_KERNEL or conv.in_channels < FEWEST_CHANNELS:
        return None
    pixels, weight = (each.permute(0, 2, 3, 1).flatten(1) for each in (x, conv.weight))
    return lambda: _OnePixel.apply(F.linear(pixels, weight, conv.bias))  # type: ignore[no-untyped-call]


class _OnePixel(torch.autograd.Function):
    """What a product gave, (N, C), as maps of one pixel, (N, C, 1, 1), channels last as torch gives them."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return narrow.no_view(x[:, None, None].permute(0, 3, 1, 2))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.flatten(1)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], x: Tensor) -> tuple[Tensor, int]:
        return x.movedim(in_dims[0], 0)[..., None, None], 0


def _narrow(conv: nn.Conv2d, x: Tensor, images: int) -> Callable[[], Tensor] | None:
    padding = _pair(conv.padding)  # type: ignore[arg-type]
    measured = set(conv.kernel_size) <= set(NARROW_KERNELS) and x.shape[3] in NARROW_WIDTHS and computed_in(x) in FORMATS
    inside = padding[0] < conv.kernel_size[0] and padding[1] < conv.kernel_size[1]
    few = conv.in_channels <= narrow.FEW and (conv.out_channels <= narrow.FEW or _gains_to_data(conv, x))
    enough = _numbers(x[:, :1], images) * conv.weight.numel() >= NARROW_MACS * torch.get_num_threads()
    if not (measured and inside and few and enough and conv.stride == (1, 1) and _vectors_are_long()):
        return None
    return lambda: narrow.narrow_conv(x, conv.weight, bias=conv.bias, padding=padding)


def _gains_to_data(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether the gradient by the input gains so much that the other two passes, which are torch's, may go with it."""
    little_padding = max(_pair(conv.padding)) <= TO_DATA_PADDING  # type: ignore[arg-type]
    sides = conv.in_channels in TO_DATA_INPUTS and conv.out_channels <= TO_DATA_OUTPUTS and x.shape[3] <= TO_DATA_WIDTH
    return x.requires_grad and little_padding and sides


def _vectors_are_long() -> bool:
    """Whether this processor computes sixteen numbers of fp32 at once: with eight, few channels leave too little unused."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512"


class _Tanh(torch.autograd.Function):
    """The hyperbolic tangent by oneDNN, channels last."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return narrow.no_view(x.permute(0, 2, 3, 1).to_mkldnn().tanh_().to_dense().permute(0, 3, 1, 2))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        by_input: Tensor = torch.ops.aten.tanh_backward(grad, out)
        return by_input

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None], x: Tensor) -> tuple[Tensor, int | None]:
        return torch.tanh(x), in_dims[0]


def _tanh(layer: nn.Tanh, x: Tensor, images: int) -> Callable[[], Tensor] | None:
    if not x.requires_grad or x.device.type != "cpu" or not _has_tanh(x.dtype):
        return None
    laid = x.is_contiguous(memory_format=torch.channels_last)
    if not laid or _numbers(x, images) < TANH_NUMBERS * torch.get_num_threads():
        return None
    return lambda: _Tanh.apply(x)  # type: ignore[no-untyped-call]


@cache
def _has_tanh(dtype: torch.dtype) -> bool:
    """Whether oneDNN is there, and computes the hyperbolic tangent of these numbers on this processor."""
    try:
        return dtype in FORMATS and bool(torch.zeros(1, dtype=dtype).to_mkldnn().tanh_().to_dense() == 0)
    except RuntimeError:
        return False


def _pair(sides: int | tuple[int, int]) -> Pair:
    return (sides, sides) if isinstance(sides, int) else sides


SUBSTITUTES: dict[type[nn.Module], Callable[[Any, Tensor, int], Callable[[], Tensor] | None]] = {
    nn.AvgPool2d: _pooled,
    nn.Conv2d: _convolved,
    nn.Tanh: _tanh,
}
"""For a layer, its maps (N, C, H, W) and how many images it will have: what gives the same faster, or None where nothing does."""


class _Substitute(StandIn):
    def __init__(self, owner: nn.Module) -> None:
        super().__init__(owner)
        self.before = stands_in(owner)

    def __call__(self, layer: Any, input: Tensor) -> Tensor:
        """What the layer gives for input (N, C, H, W); as before where gradients are off or there is no substitute."""
        # What others made of tensors is theirs to compute. Who looks on, as checkpoints that keep results do, sees torch's own:
        # that a substitute's output is changed in place would not be marked where it was computed.
        plain = type(input) is Tensor and not torch.compiler.is_compiling() and not is_in_torch_dispatch_mode()
        if layer is self.owner and layer.training and torch.is_grad_enabled() and plain and input.dim() == 4:
            compute = SUBSTITUTES[type(layer)](layer, input, len(input))
            if compute is not None:
                return compute()
        out: Tensor = type(layer).forward(layer, input) if self.before is None else self.before(layer, input)
        return out


@contextmanager
def substituted(model: nn.Module) -> Iterator[None]:
    """While it lasts, layers of `model` in training mode are computed by substitutes where there are any.

    The model's class and state are not touched; a layer whose `forward` somebody has replaced already is left alone.
    """
    layers = [layer for layer in model.modules() if type(layer) in SUBSTITUTES and is_free(layer)]
    with standing_in({layer: _Substitute(layer) for layer in layers}):
        yield


def count_substitutes(model: nn.Module, images: Sequence[Tensor], *, autocast_dtype: torch.dtype | None) -> int:
    """How many layers of `model` have a substitute when it is trained on batches like `images`, (N, C, H, W) with the same N.

    `autocast_dtype` is the format that autocast computes in; None means no autocast. A copy of the model is run, on two images of
    each batch: model and torch's random state are left as they were. A network that cannot be copied, or not run so, has none.
    """
    found: set[int] = set()
    own = next((each.dtype for each in model.parameters()), images[0].dtype)
    some = [x[:2].to(own) for x in images]
    times = len(images[0]) / max(len(some[0]), 1)

    def met(layer: nn.Module, x: Tensor) -> None:
        if x.dim() == 4 and SUBSTITUTES[type(layer)](layer, x, round(times * len(x))) is not None:
            found.add(id(layer))

    try:
        met_in_training(model, some, SUBSTITUTES, met, autocast_dtype=autocast_dtype)
    except Exception:  # somebody's network may fail in any way, and is not to be kept from training by this
        return 0
    return len(found)
