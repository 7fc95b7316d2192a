"""Layers computed by other operations that give the same, for training on CPUs.

Two things take torch long on CPUs, most of all in small networks, and need not; the limits below are where that was measured
(docs/LOG.md):

- The gradient of average pooling whose windows do not overlap. Every pixel of a window gets the window's gradient divided by its
  area: here it is divided once and copied. The same numbers.
- A convolution whose kernel is as large as its map, such as LeNet-5's C5 (LeCun et al. 1998, section II.B): one position, so a
  product of two matrices. The same to rounding.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convatlas.training.stand_in import StandIn, is_free, met_in_training, standing_in, stands_in
from convatlas.training.wide import Pair, can_widen

VECTOR = 16
"""Numbers of fp32 that a processor computes at once, at most: torch pools so many channels at once, or wastes what is missing."""
LARGEST_WINDOW = {torch.bfloat16: 8, torch.float32: 3}
"""Pixels a side of pooling, by number format; in fp32 with fewer than `VECTOR` channels."""
LARGEST_KERNEL, FEWEST_CHANNELS = 5, 16
"""Of a convolution: larger ones, or of fewer channels, are slower as a product."""


class _AveragePool(torch.autograd.Function):
    """Average pooling in windows that do not overlap and fill the map, channels last."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, window: Pair) -> Tensor:
        return F.avg_pool2d(x, window)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Pair], output: Tensor) -> None:
        _, ctx.window = inputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return spread(grad, ctx.window), None


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


def _pooled(pool: nn.AvgPool2d, x: Tensor) -> Callable[[], Tensor] | None:
    window = _pair(pool.kernel_size)
    if _pair(pool.stride) != window or _pair(pool.padding) != (0, 0) or pool.divisor_override is not None:
        return None
    if x.device.type != "cpu" or x.dim() != 4 or not x.requires_grad or max(window) > LARGEST_WINDOW.get(x.dtype, 0):
        return None
    laid = x.is_contiguous(memory_format=torch.channels_last) and x.shape[1] > 1
    fills = (x.shape[2] % window[0], x.shape[3] % window[1]) == (0, 0)
    slow = x.dtype == torch.bfloat16 or x.shape[1] < VECTOR
    return (lambda: _AveragePool.apply(x, window)) if laid and fills and slow else None  # type: ignore[no-untyped-call]


def _product(conv: nn.Conv2d, x: Tensor) -> Callable[[], Tensor] | None:
    if not can_widen(conv, x) or conv.padding != (0, 0) or not tuple(x.shape[2:]) == conv.kernel_size != (1, 1):
        return None  # with one pixel, as in squeeze and excitation, whole steps gain nothing
    if max(conv.kernel_size) > LARGEST_KERNEL or not x.shape[1] == conv.in_channels >= FEWEST_CHANNELS:
        return None
    pixels, weight = (each.permute(0, 2, 3, 1).flatten(1) for each in (x, conv.weight))
    return lambda: F.linear(pixels, weight, conv.bias)[:, None, None].permute(0, 3, 1, 2)  # channels last, as torch gives it


def _pair(sides: int | tuple[int, int]) -> Pair:
    return (sides, sides) if isinstance(sides, int) else sides


SUBSTITUTES: dict[type[nn.Module], Callable[[Any, Tensor], Callable[[], Tensor] | None]] = {
    nn.AvgPool2d: _pooled,
    nn.Conv2d: _product,
}
"""For a layer and its input: what gives the same faster, or None where nothing does."""


class _Substitute(StandIn):
    def __init__(self, owner: nn.Module) -> None:
        super().__init__(owner)
        self.before = stands_in(owner)

    def __call__(self, layer: Any, input: Tensor) -> Tensor:
        """What the layer gives for input (N, C, H, W); as before where gradients are off or there is no substitute."""
        if layer is self.owner and layer.training and torch.is_grad_enabled():
            compute = SUBSTITUTES[type(layer)](layer, input)
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
    """How many layers of `model` have a substitute when it is trained on batches like one of `images`, each (N, C, H, W).

    `autocast_dtype` is the format that autocast computes in; None means no autocast. A copy of the model is run, on two images of
    each batch: model and torch's random state are left as they were. A network that cannot be copied, or not run so, has none.
    """
    found: set[int] = set()

    def met(layer: nn.Module, x: Tensor) -> None:
        if SUBSTITUTES[type(layer)](layer, x) is not None:
            found.add(id(layer))

    own = next((each.dtype for each in model.parameters()), images[0].dtype)
    try:
        met_in_training(model, [x[:2].to(own) for x in images], SUBSTITUTES, met, autocast_dtype=autocast_dtype)
    except Exception:  # somebody's network may fail in any way, and is not to be kept from training by this
        return 0
    return len(found)
