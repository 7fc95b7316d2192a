"""What an operation of torch costs, and which window it slides, told from its arguments and not from the module around it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor

from convatlas.arith.cost import conv_macs, linear_macs
from convatlas.arith.shapes import size_formula, transposed_size_formula
from convatlas.records.ledger import Window

CONVOLUTIONS = ("convolution", "_convolution")
POOLINGS = ("max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool1d", "avg_pool2d", "avg_pool3d")
Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Slide:
    """A window that slides over a map, and the output-size formula along each axis, with the numbers filled in."""

    window: Window
    formulas: tuple[str, ...]


def macs_of(operation: str, arguments: Arguments, outputs: Sequence[Tensor]) -> int:
    """Multiply-accumulates of an operation, by its name in ATen: those of convolutions and matrix products, 0 for others."""
    rule = _MACS.get(operation)
    return 0 if rule is None or not outputs else int(rule(arguments, outputs[0]))


def slide_of(operation: str, arguments: Arguments) -> Slide | None:
    """The window that a convolution or pooling slides; None for other operations."""
    if operation in CONVOLUTIONS:
        return _convolution(arguments)
    return _pooling(arguments) if operation in POOLINGS else None


def _convolution_macs(arguments: Arguments, output: Tensor) -> int:
    """Of a transposed one, each value of the input, and not of the output, meets the whole kernel."""
    weight, images = arguments["weight"], output.shape[0]
    if arguments["transposed"]:
        pixels = prod(arguments["input"].shape[2:])
        return int(images * pixels * prod(weight.shape))
    return int(images) * conv_macs(
        in_channels=int(weight.shape[1]) * int(arguments["groups"]),
        out_channels=int(weight.shape[0]),
        kernel_area=prod(weight.shape[2:]),
        groups=int(arguments["groups"]),
        out_pixels=prod(output.shape[2:]),
    )


def _product_macs(second: str) -> Callable[[Arguments, Tensor], int]:
    """A matrix product: each value of the output is a sum over as many products as the second factor has rows."""

    def rule(arguments: Arguments, output: Tensor) -> int:
        inner, columns = arguments[second].shape[-2], output.shape[-1]
        return linear_macs(in_features=int(inner), out_features=int(columns), rows=prod(output.shape[:-1]))

    return rule


def _attention_macs(arguments: Arguments, output: Tensor) -> int:
    """Queries (N, heads, L, E) by keys (N, heads, S, E), and their weights by values (N, heads, S, V)."""
    query, key, value = (arguments[name].shape for name in ("query", "key", "value"))
    return int(prod(query[:-1]) * key[-2] * (query[-1] + value[-1]))


_MACS: dict[str, Callable[[Arguments, Tensor], int]] = {
    **dict.fromkeys(CONVOLUTIONS, _convolution_macs),
    **dict.fromkeys(("mm", "addmm", "bmm"), _product_macs("mat2")),
    "baddbmm": _product_macs("batch2"),
    "_scaled_dot_product_flash_attention_for_cpu": _attention_macs,
    "_scaled_dot_product_flash_attention": _attention_macs,
    "_scaled_dot_product_efficient_attention": _attention_macs,
}
"""By the operation's name in ATen. Norms, activations and poolings multiply little and are not counted."""


def _convolution(arguments: Arguments) -> Slide:
    kernel = tuple(int(size) for size in arguments["weight"].shape[2:])
    sizes = arguments["input"].shape[2:]
    stride, padding, dilation = (_each(arguments[name], len(kernel)) for name in ("stride", "padding", "dilation"))
    window = Window(kernel, stride, padding, dilation, int(arguments["groups"]))
    if not arguments["transposed"]:
        return Slide(window, _formulas(window, sizes))
    more = _each(arguments["output_padding"], len(kernel))
    return Slide(
        window,
        _once(
            transposed_size_formula(
                int(size), kernel=kernel[k], stride=stride[k], padding=padding[k], dilation=dilation[k], output_padding=more[k]
            )
            for k, size in enumerate(sizes)
        ),
    )


def _pooling(arguments: Arguments) -> Slide:
    axes = len(arguments["kernel_size"]) if not isinstance(arguments["kernel_size"], int) else 2
    kernel = _each(arguments["kernel_size"], axes)
    stride = _each(arguments["stride"] or kernel, axes)
    window = Window(kernel, stride, _each(arguments["padding"], axes), _each(arguments.get("dilation", 1), axes))
    sizes = arguments["self"].shape[-axes:]
    return Slide(window, _formulas(window, sizes, ceil_mode=bool(arguments["ceil_mode"])))


def _formulas(window: Window, sizes: Sequence[int], *, ceil_mode: bool = False) -> tuple[str, ...]:
    return _once(
        size_formula(
            int(size),
            kernel=window.kernel[k],
            stride=window.stride[k],
            padding=window.padding[k],
            dilation=window.dilation[k],
            ceil_mode=ceil_mode,
        )
        for k, size in enumerate(sizes)
    )


def _once(formulas: Any) -> tuple[str, ...]:
    """One formula if they are all the same."""
    found = tuple(formulas)
    return found[:1] if len(set(found)) == 1 else found


def _each(value: Any, axes: int) -> tuple[int, ...]:
    """One number for each axis, from one for all, or one for each."""
    if isinstance(value, int):
        return (value,) * axes
    return tuple(int(each) for each in value) if len(value) > 1 else (int(value[0]),) * axes
