"""What every operation of torch makes of the units that go into it. An operation that has no rule here is never guessed at."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from convatlas.inspection.axes import NotFollowedError, length, plain
from convatlas.inspection.units import (
    NOWHERE,
    Units,
    alike,
    broadcast,
    collapsed,
    concatenated,
    cut,
    in_bins,
    joined,
    mixed,
    padded,
    permuted,
    picked,
    reshaped,
    squeezed,
    unsqueezed,
    windowed,
)


@dataclass(frozen=True)
class Call:
    """One operation: its arguments by name, the shapes of the tensors that came out, and what is known of those that went in.

    `known` gives None for tensors that depend on no pixel, such as parameters.
    """

    arguments: Mapping[str, Any]
    shapes: tuple[tuple[int, ...], ...]
    known: Callable[[Tensor], Units | None]
    image: tuple[int, int]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def units(self, name: str = "self") -> Units:
        """The units of the argument called so."""
        return self.of(self.arguments[name])

    def of(self, tensor: Tensor) -> Units:
        """The units of a tensor, which may depend on nothing."""
        return self.known(tensor) or alike(tensor.shape, NOWHERE, self.image)

    def axis(self, name: str = "dim") -> int:
        """The axis that an argument names, counted from the front."""
        rank: int = self.arguments["self"].dim()
        return int(self.arguments[name]) % rank


Rule = Callable[[Call], Units | list[Units]]


def pointwise(call: Call) -> Units:
    """Each unit depends on the units in its place."""
    tensors = [each for each in call.arguments.values() if isinstance(each, Tensor)]
    return _fit(joined([units for tensor in tensors if (units := call.known(tensor)) is not None]), call.shapes[0])


def _fit(units: Units, shape: Sequence[int]) -> Units:
    """Repeated to a shape, as broadcasting does."""
    axes = ((),) * (len(shape) - len(units.axes)) + units.axes
    return broadcast(units, [axis if length(axis) == size else plain(size) for axis, size in zip(axes, shape, strict=True)])


def _constant(call: Call) -> Units:
    return alike(call.shapes[0], NOWHERE, call.image)


# Windows


def _convolution(call: Call) -> Units:
    weight, units = call["weight"], call.units("input")
    if call["transposed"]:
        raise NotFollowedError("a transposed convolution makes a larger map")
    if call.known(weight) is not None:
        raise NotFollowedError("a convolution has weights that depend on the image")
    for k in range(weight.dim() - 2):
        window = {name: _each(call[name], k) for name in ("stride", "padding", "dilation")}
        units = windowed(units, 2 + k, kernel=weight.shape[2 + k], size=call.shapes[0][2 + k], **window)
    return mixed(units, 1, weight.shape[0], groups=call["groups"])


def _pooling(call: Call) -> Units:
    units, kernel = call.units(), call["kernel_size"]
    stride, dilation = call["stride"] or kernel, call.arguments.get("dilation", 1)
    first = len(units.axes) - len(kernel)
    for k in range(len(kernel)):
        window = {"kernel": kernel[k], "stride": _each(stride, k), "padding": _each(call["padding"], k)}
        units = windowed(units, first + k, dilation=_each(dilation, k), size=call.shapes[0][first + k], **window)
    return units


def _adaptive_pooling(call: Call) -> Units:
    units, sizes = call.units(), call["output_size"]
    for k, size in enumerate(sizes):
        units = in_bins(units, len(units.axes) - len(sizes) + k, size)
    return units


def _each(value: Any, k: int) -> int:
    """One number for all axes, or one for each."""
    if isinstance(value, int):
        return value
    return int(value[k] if len(value) > 1 else value[0])


def _padding(call: Call) -> Units:
    """Zeros, or what mirrors and repeats the rim, which changes what units at the rim depend on, but not those within."""
    units, pad = call.units(), call.arguments.get("pad") or call["padding"]
    for k in range(len(pad) // 2):
        units = padded(units, len(units.axes) - 1 - k, before=pad[2 * k], after=pad[2 * k + 1])
    return units


# Sums over axes


def _product(first: str, second: str) -> Rule:
    """A matrix product with one factor that depends on the image."""

    def rule(call: Call) -> Units:
        left, right = call.known(call[first]), call.known(call[second])
        if left is not None and right is not None:
            raise NotFollowedError("maps are multiplied as matrices (attention)")
        if left is not None:
            return mixed(left, len(left.axes) - 1, call.shapes[0][-1])
        assert right is not None
        return mixed(right, len(right.axes) - 2, call.shapes[0][-2])

    return rule


def _reduction(call: Call) -> Units:
    units = call.units()
    dims = call.arguments.get("dim")
    dims = [dims] if isinstance(dims, int) else dims or range(len(units.axes))
    axes = [dim % len(units.axes) for dim in dims]
    return collapsed(units, axes) if call.arguments.get("keepdim") else squeezed(units, axes)


def _softmax(call: Call) -> Units:
    return joined([call.units(), collapsed(call.units(), [call.axis()])])


def _layer_norm(call: Call) -> Units:
    units, last = call.units("input"), len(call["normalized_shape"])
    return joined([units, collapsed(units, range(len(units.axes) - last, len(units.axes)))])


def _batch_norm(call: Call) -> Units:
    units = call.units("input")
    if not call.arguments.get("training", False):
        return units
    return joined([units, collapsed(units, [i for i in range(len(units.axes)) if i != 1])])


def _group_norm(call: Call) -> Units:
    units, groups = call.units("input"), call["group"]
    rest = range(2, len(units.axes))
    return joined([units, collapsed(mixed(units, 1, units.shape[1], groups=groups), rest)])


# Other shapes


def _view(call: Call) -> Units:
    return reshaped(call.units(), call.shapes[0])


def _permute(call: Call) -> Units:
    units = call.units()
    return permuted(units, [dim % len(units.axes) for dim in call["dims"]])


def _transpose(call: Call) -> Units:
    order = list(range(len(call.units().axes)))
    a, b = (call.axis("dim0"), call.axis("dim1")) if "dim0" in call.arguments else (0, len(order) - 1)
    order[a], order[b] = order[b], order[a]
    return permuted(call.units(), order)


def _unsqueeze(call: Call) -> Units:
    return unsqueezed(call.units(), call["dim"] % (len(call.units().axes) + 1))


def _squeeze(call: Call) -> Units:
    units, dims = call.units(), call.arguments.get("dim")
    dims = [dims] if isinstance(dims, int) else range(len(units.axes)) if dims is None else dims
    axes = {dim % len(units.axes) for dim in dims}
    return squeezed(units, [i for i in axes if units.shape[i] == 1])


def _repeat(call: Call) -> Units:
    return _fit(call.units(), call.shapes[0])


def _copy(call: Call) -> Units:
    return _fit(call.units("src"), call.shapes[0])


# Parts


def _slice(call: Call) -> Units:
    axis, size = call.axis(), call["self"].shape[call.axis()]
    start = call["start"] or 0
    start = max(start + size, 0) if start < 0 else min(start, size)
    return cut(call.units(), axis, start=start, step=call["step"], size=call.shapes[0][axis])


def _select(call: Call) -> Units:
    axis = call.axis()
    place = call["index"] % call["self"].shape[axis]
    return squeezed(cut(call.units(), axis, start=place, step=1, size=1), [axis])


def _split(call: Call) -> list[Units]:
    axis, start, parts = call.axis(), 0, []
    for shape in call.shapes:
        parts.append(cut(call.units(), axis, start=start, step=1, size=shape[axis]))
        start += shape[axis]
    return parts


def _unbind(call: Call) -> list[Units]:
    axis, units = call.axis(), call.units()
    return [squeezed(cut(units, axis, start=i, step=1, size=1), [axis]) for i in range(len(call.shapes))]


def _index(call: Call) -> Units:
    """x[:, places] and the like, with places on one axis."""
    given = [(i, index) for i, index in enumerate(call["indices"]) if index is not None]
    if len(given) != 1:
        raise NotFollowedError("units are picked by places on several axes at once")
    return _picked(call.units(), *given[0])


def _index_select(call: Call) -> Units:
    return _picked(call.units(), call.axis(), call["index"])


def _picked(units: Units, axis: int, places: Tensor) -> Units:
    if places.dim() != 1 or places.dtype not in (torch.int64, torch.int32):
        raise NotFollowedError("units are picked by a mask or a table of places")
    if not places.is_meta:
        return picked(units, axis, places % units.shape[axis])
    if len(units.regions) > 1:
        raise NotFollowedError("channels that see different regions are picked by places that are not known here")
    return picked(units, axis, places.new_zeros(len(places), device="cpu"))


def _cat(call: Call) -> Units:
    tensors = call["tensors"]
    return concatenated([call.of(tensor) for tensor in tensors], call["dim"] % tensors[0].dim())


def _stack(call: Call) -> Units:
    axis = call["dim"] % (call["tensors"][0].dim() + 1)
    return concatenated([unsqueezed(call.of(tensor), axis) for tensor in call["tensors"]], axis)


def _flip(call: Call) -> Units:
    units = call.units()
    for dim in call["dims"]:
        size = units.shape[dim % len(units.axes)]
        units = picked(units, dim % len(units.axes), torch.arange(size - 1, -1, -1, device="cpu"))
    return units


def _gated(call: Call) -> Units:
    """The first half of the channels times a function of the second (GLU)."""
    axis, half = call.axis(), call.shapes[0][call.axis()]
    return joined([cut(call.units(), axis, start=start, step=1, size=half) for start in (0, half)])


def _channel_shuffle(call: Call) -> Units:
    units, groups = call.units(), call["groups"]
    return picked(units, 1, torch.arange(units.shape[1], device="cpu").view(groups, -1).t().flatten())


RULES: dict[str, Rule] = {
    **dict.fromkeys(("convolution", "_convolution"), _convolution),
    **dict.fromkeys(("max_pool2d_with_indices", "avg_pool2d", "avg_pool1d", "avg_pool3d", "max_pool3d_with_indices"), _pooling),
    **dict.fromkeys(("_adaptive_avg_pool2d", "adaptive_max_pool2d", "adaptive_avg_pool1d"), _adaptive_pooling),
    **dict.fromkeys(("constant_pad_nd", "reflection_pad2d", "replication_pad2d"), _padding),
    **dict.fromkeys(("reflection_pad1d", "replication_pad1d"), _padding),
    "mm": _product("self", "mat2"),
    "bmm": _product("self", "mat2"),
    "addmm": _product("mat1", "mat2"),
    "baddbmm": _product("batch1", "batch2"),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "max", "min", "prod", "std", "var", "var_mean", "logsumexp"), _reduction),
    **dict.fromkeys(("linalg_vector_norm", "norm", "any", "all", "argmax", "argmin"), _reduction),
    **dict.fromkeys(("_softmax", "_log_softmax", "_safe_softmax"), _softmax),
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training"), _batch_norm),
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias", "unflatten", "flatten"), _view),
    "permute": _permute,
    **dict.fromkeys(("transpose", "t"), _transpose),
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    **dict.fromkeys(("expand", "repeat"), _repeat),
    "slice": _slice,
    "select": _select,
    **dict.fromkeys(("split", "split_with_sizes"), _split),
    "unbind": _unbind,
    "index": _index,
    "index_select": _index_select,
    "cat": _cat,
    "stack": _stack,
    "flip": _flip,
    "glu": _gated,
    "channel_shuffle": _channel_shuffle,
    "copy": _copy,
    **dict.fromkeys(("_to_copy", "alias", "detach", "lift_fresh", "clone", "native_dropout"), pointwise),
    **dict.fromkeys(("hardswish", "mish", "log_sigmoid_forward", "_prelu_kernel", "rrelu_with_noise"), pointwise),
    **dict.fromkeys(("empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like"), _constant),
    **dict.fromkeys(("new_empty", "new_zeros", "new_ones", "new_full", "fill", "zero"), _constant),
}
"""By the operation's name in ATen, without the underscore of those that work in place. Others are pointwise if torch says so."""
