"""Operations on the meta device without a detour: for the usual ones it is known what comes out.

Torch works many of these out in Python, at length, and imports its compiler for most of a second to do so.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

POINTWISE = frozenset({"add", "sub", "mul", "div", "relu", "silu", "sigmoid", "tanh", "gelu", "hardtanh", "hardswish", "neg"})


def short_way() -> TorchDispatchMode:
    """While it is entered, operations on the meta device take the short way."""
    return _ShapesOnly()  # type: ignore[no-untyped-call]


class _ShapesOnly(TorchDispatchMode):  # type: ignore[no-untyped-call]
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch asks whether to keep its compiler out of this class. That would import the compiler: more than a second."""
        return False

    def __torch_dispatch__(self, func: OpOverload[Any, Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry an operation out."""
        return carried_out(func, args, kwargs or {})


def carried_out(func: OpOverload[Any, Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What an operation gives, the short way where that is sure to give the same shape and type."""
    name: str = func.overloadpacket.__name__
    first = args[0][0] if args and isinstance(args[0], (list, tuple)) and args[0] else args[0] if args else None
    if kwargs or not isinstance(first, Tensor) or not first.is_meta:
        return func(*args, **kwargs)
    if name in _KNOWN:
        return _KNOWN[name](*args)
    if name.removesuffix("_") in POINTWISE and _plain(args):
        return args[0] if name.endswith("_") else _pointwise(args)
    return func(*args)


def _plain(args: Sequence[Any]) -> bool:
    """Whether all tensors are on meta, and of one floating type, and there are no complex numbers."""
    tensors = [each for each in args if isinstance(each, Tensor)]
    usual = all(each.is_meta and each.dtype == tensors[0].dtype for each in tensors)
    return usual and tensors[0].is_floating_point() and not any(isinstance(each, complex) for each in args)


def _pointwise(args: Sequence[Any]) -> Tensor:
    """As the tensor that has the result's shape already, so that it lies in memory as that does."""
    tensors = [each for each in args if isinstance(each, Tensor)]
    shapes = {each.shape for each in tensors}
    shape: torch.Size = shapes.pop() if len(shapes) == 1 else torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
    like = next((each for each in tensors if each.shape == shape), None)
    return tensors[0].new_empty(shape) if like is None else _like(like)


def _like(x: Tensor) -> Tensor:
    """A tensor of the same shape, type and strides. Torch finds strides on the meta device in Python, which takes long."""
    if x.is_contiguous():
        return torch.empty(x.shape, dtype=x.dtype, device=x.device)
    return torch.empty_like(x, requires_grad=False)


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> Any:
    """Over rows of maps that lie one after the other, if all fits together; torch has the other cases, and the errors."""
    stride, padding, dilation, transposed, _, groups = settings
    rank = x.dim() - 2
    usual = not transposed and rank == weight.dim() - 2 == len(stride) == len(padding) == len(dilation) and x.is_contiguous()
    if not usual or not weight.is_contiguous() or x.dtype != weight.dtype or x.shape[1] != weight.shape[1] * groups:
        return torch.ops.aten.convolution.default(x, weight, bias, *settings)
    sides = [
        (side + 2 * pad - gap * (kernel - 1) - 1) // step + 1
        for side, kernel, step, pad, gap in zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    ]
    if min(sides, default=0) < 1 or weight.shape[0] % groups:
        return torch.ops.aten.convolution.default(x, weight, bias, *settings)
    return torch.empty([x.shape[0], weight.shape[0], *sides], dtype=x.dtype, device=x.device)


def _batch_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Any, var: Any, training: bool, *_: Any) -> Any:
    """The map, and the batch's statistics, which training keeps: (N, C, ...) and C twice."""
    channels = x.shape[1] if training else 0
    return (_like(x), _statistic(x, [channels]), _statistic(x, [channels]))


def _layer_norm(x: Tensor, normalized_shape: Sequence[int], *_: Any) -> Any:
    """The map, and the statistics of each vector: (..., *normalized_shape) and (..., 1, ...) twice."""
    last = len(normalized_shape)
    shape = [*x.shape[: x.dim() - last], *[1] * last]
    normalized = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    return (normalized, _statistic(x, shape), _statistic(x, shape))


def _statistic(x: Tensor, shape: Sequence[int]) -> Tensor:
    """In single precision where the map has less."""
    dtype = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    return torch.empty(list(shape), dtype=dtype, device=x.device)


def _mean(x: Tensor, dims: Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """Over some axes (none named: all), which are gone or of length 1 afterwards."""
    gone = {dim % x.dim() for dim in dims or range(x.dim())}
    shape = [1 if i in gone else size for i, size in enumerate(x.shape) if keepdim or i not in gone]
    return torch.empty(shape, dtype=x.dtype, device=x.device)


def _addmm(bias: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """(N, in) by (in, out), and a bias for each output. Raises RuntimeError, as torch does, if they do not fit."""
    if left.shape[1] != right.shape[0]:
        sizes = f"{left.shape[0]}x{left.shape[1]} and {right.shape[0]}x{right.shape[1]}"
        raise RuntimeError(f"mat1 and mat2 shapes cannot be multiplied ({sizes})")
    return torch.empty(left.shape[0], right.shape[1], dtype=left.dtype, device=left.device)


def _cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one rank and type one after the other along an axis."""
    first = tensors[0]
    usual = all(each.is_meta and each.dim() == first.dim() and each.dtype == first.dtype for each in tensors)
    if not usual or any(_but(each, dim) != _but(first, dim) for each in tensors):
        return torch.cat(list(tensors), dim)
    size = sum(each.shape[dim] for each in tensors)
    return first.new_empty([size if i == dim % first.dim() else length for i, length in enumerate(first.shape)])


def _but(tensor: Tensor, dim: int) -> list[int]:
    """The shape without one axis."""
    return [size for i, size in enumerate(tensor.shape) if i != dim % tensor.dim()]


_KNOWN: dict[str, Callable[..., Any]] = {
    "convolution": _convolution,
    "native_batch_norm": _batch_norm,
    "native_layer_norm": _layer_norm,
    "mean": _mean,
    "addmm": _addmm,
    "cat": _cat,
}
