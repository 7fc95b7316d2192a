"""Following one image through a network: every layer's shapes, parameters and cost, without computing a single value."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from convatlas.arith.cost import conv_macs, linear_macs
from convatlas.arith.shapes import size_formula
from convatlas.errors import UserError
from convatlas.inspection.receptive import Follower, Sight
from convatlas.inspection.settings import settings
from convatlas.records.model import LayerRecord, TraceRecord


@torch.inference_mode(False)  # within which torch would hide what composite operations consist of
def trace(model: nn.Module, input_shape: tuple[int, int, int]) -> TraceRecord:
    """The layers of `model` in the order in which one image of `input_shape` (C, H, W) passes them, in evaluation mode.

    Runs on the meta device, on a copy: nothing is computed and the caller's model is not touched. Parameters and MACs are
    those of modules without children; parameters used outside such modules count in the totals only. MACs are those of
    convolutions and linear layers. Receptive fields are followed through all operations, in modules or not; what comes after
    one without a rule says so. Raises UserError, with the formula, where the image is too small for a layer.
    """
    copy = deepcopy(model).to("meta").eval()
    image = torch.empty(1, *input_shape, device="meta")
    follower = Follower(image)
    layers: list[LayerRecord] = []
    stages: list[tuple[tuple[int, ...], Sight]] = []
    for stage in _submodule(copy, "stages").children():
        stage.register_forward_hook(lambda _, args, output: stages.append((tuple(output.shape[1:]), follower.sight(output))))
    with _hooked(copy, layers, follower), follower, torch.no_grad():
        copy(image)
    auxiliary = _count(_submodule(model, "auxiliary").parameters())
    last = stages[-1][1] if stages else follower.last_map()
    return TraceRecord(
        input_shape=input_shape,
        layers=tuple(layers),
        stage_shapes=tuple(shape for shape, _ in stages),
        params=_count(model.parameters()) - auxiliary,
        auxiliary_params=auxiliary,
        macs=sum(layer.macs for layer in layers),
        receptive_field=last.receptive_field,
        unfollowed=last.unfollowed,
    )


@contextmanager
def _hooked(model: nn.Module, layers: list[LayerRecord], follower: Follower) -> Iterator[None]:
    """Record each leaf's passage into `layers`; while it lasts, a layer that its input is too small for says so."""
    handles = []
    entered: list[tuple[str, nn.Module, tuple[int, ...]]] = []

    def before(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda module, args: entered.append((name, module, tuple(args[0].shape[1:])))

    def after(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        return lambda module, args, output: layers.append(_record(name, module, args[0], output, follower.sight(output)))

    for name, module in model.named_modules():
        if next(module.children(), None) is None:
            handles += [module.register_forward_pre_hook(before(name)), module.register_forward_hook(after(name))]
    try:
        yield
    except (RuntimeError, ValueError):
        if entered and (misfit := _misfit(*entered[-1])) is not None:
            raise misfit from None
        raise
    finally:
        for handle in handles:
            handle.remove()


def _record(name: str, module: nn.Module, x: Tensor, output: Tensor, sight: Sight) -> LayerRecord:
    windowed = len(x.shape) == 4 and _window(module) is not None
    return LayerRecord(
        name=name,
        operation=type(module).__name__,
        settings=settings(module),
        input_shape=tuple(x.shape[1:]),
        output_shape=tuple(output.shape[1:]),
        params=_count(module.parameters()),
        macs=_macs(module, x, output),
        receptive_field=sight.receptive_field,
        jump=sight.jump,
        unfollowed=sight.unfollowed,
        formula=_formula(module, x.shape[-2]) if windowed else None,
    )


def _macs(module: nn.Module, x: Tensor, output: Tensor) -> int:
    """MACs of a leaf for a batch of one. Norms, activations and poolings multiply little and are not counted."""
    if isinstance(module, nn.Conv2d):
        return conv_macs(
            in_channels=module.in_channels,
            out_channels=module.out_channels,
            kernel_area=prod(module.kernel_size),
            groups=module.groups,
            out_pixels=prod(output.shape[-2:]),
        )
    if isinstance(module, nn.Linear):
        rows = prod(x.shape[:-1])
        return linear_macs(in_features=module.in_features, out_features=module.out_features, rows=rows)
    return 0


def _window(module: nn.Module) -> dict[str, int] | None:
    """Kernel, stride, padding and dilation along the height, for modules that slide a window."""
    if not isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
        return None
    stride = module.stride if module.stride is not None else module.kernel_size
    window = {
        "kernel": _first(module.kernel_size),
        "stride": _first(stride),
        "padding": 0 if isinstance(module.padding, str) else _first(module.padding),
    }
    return window if isinstance(module, nn.AvgPool2d) else window | {"dilation": _first(module.dilation)}


def _first(value: Any) -> int:
    return int(value[0]) if isinstance(value, tuple) else int(value)


def _formula(module: nn.Module, size: int) -> str:
    """The output-size formula of a windowed module for an input of height `size`, with the numbers filled in."""
    window = _window(module)
    assert window is not None
    return size_formula(size, **window, ceil_mode=bool(getattr(module, "ceil_mode", False)))


def _misfit(name: str, module: nn.Module, shape: tuple[int, ...]) -> UserError | None:
    """The error for a layer whose window does not fit into its input (C, H, W); None if that is not what went wrong."""
    window = _window(module)
    if window is None or len(shape) != 3:
        return None
    room = min(shape[-2:]) + 2 * window["padding"]
    span = window.get("dilation", 1) * (window["kernel"] - 1) + 1
    if room >= span:
        return None
    return UserError(
        f"the image is too small: at layer {name} ({type(module).__name__}) the map is {shape[1]}x{shape[2]}, and the output "
        f"would have {_formula(module, min(shape[-2:]))} pixels a side",
        fix="Give a larger image.",
    )


def _submodule(model: nn.Module, name: str) -> nn.Module:
    """The direct submodule `name`, which networks of the atlas have and others may not: then an empty one."""
    return dict(model.named_children()).get(name, nn.Identity())


def _count(parameters: Any) -> int:
    return sum(p.numel() for p in parameters)
