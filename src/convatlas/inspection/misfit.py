"""What is wrong, in one line, when a network does not take the image that it is given."""

import inspect
from collections.abc import Sequence
from typing import Any

from torch import nn

from convatlas.arith.shapes import effective_kernel, size_formula
from convatlas.errors import UserError, first_line
from convatlas.inspection.passage import Step

LARGEST = 100_000
"""Pixels a side, and channels."""


def one_image(module: nn.Module, input_shape: Sequence[int]) -> tuple[int, int, int]:
    """(C, H, W) of `input_shape`, which may begin with a number of images. Raises UserError for what is no image's shape.

    So does a network whose `forward` takes more than one argument, or none.
    """
    _takes_one(module)
    shape = tuple(input_shape) if isinstance(input_shape, Sequence) and not isinstance(input_shape, str) else ()
    right = len(shape) in (3, 4) and all(
        isinstance(size, int) and not isinstance(size, bool) and 0 < size <= LARGEST for size in shape
    )
    if not right:
        raise UserError(
            f"the input shape is {input_shape!r}",
            fix="Give (channels, height, width) in whole numbers, such as (3, 224, 224); a number of images may stand before.",
        )
    channels, height, width = shape[-3:]
    return channels, height, width


def _takes_one(module: nn.Module) -> None:
    try:
        signature = inspect.signature(module.forward)
    except ValueError:  # that of a traced module is not known
        return
    wanted = [
        name
        for name, each in signature.parameters.items()
        if each.default is each.empty and each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    if len(wanted) > 1:
        raise UserError(
            f"the forward of {type(module).__name__} takes {len(wanted)} inputs ({', '.join(wanted)}), and there is one image",
            fix="Wrap it in a module whose forward takes the image and makes the others.",
        )


def explained(error: Exception, step: Step | None) -> UserError:
    """The error of a network that fails in `step`, as one that says where and why."""
    if isinstance(error, UserError):
        return error
    if step is None:
        return _failed("", error)
    if step.module is not None and step.fed:
        shape = tuple(step.fed[0].shape[1:])
        known = misfit(step.name, step.module, shape) or _channels(step.name, step.module, shape)
        if known is not None:
            return known
    return _failed(f" at {step.name or 'its own forward'} ({step.operation})", error)


def _failed(where: str, error: Exception) -> UserError:
    return UserError(f"the network fails{where}: {first_line(error)}", fix="Give an image as it takes it, or mend its forward.")


def _channels(name: str, module: nn.Module, shape: tuple[int, ...]) -> UserError | None:
    if not isinstance(module, nn.Conv2d) or len(shape) != 3 or shape[0] == module.in_channels:
        return None
    return UserError(
        f"layer {name} takes {module.in_channels} channels, and is given {shape[0]}", fix="Give an image with as many channels."
    )


def misfit(name: str, module: nn.Module, shape: tuple[int, ...]) -> UserError | None:
    """The error for a layer whose window does not fit into its input (C, H, W); None if that is not what went wrong."""
    if not isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)) or isinstance(module.padding, str) or len(shape) != 3:
        return None
    stride = module.stride if module.stride is not None else module.kernel_size
    values = (module.kernel_size, stride, module.padding, getattr(module, "dilation", 1))
    for axis, size in enumerate(shape[1:]):
        kernel, step, padding, dilation = (_along(value, axis) for value in values)
        if size + 2 * padding < effective_kernel(kernel, dilation):
            formula = size_formula(size, kernel=kernel, stride=step, padding=padding, dilation=dilation)
            return UserError(
                f"the image is too small: at layer {name} ({type(module).__name__}) the map is {shape[1]}x{shape[2]}, and the "
                f"output would have {formula} pixels a side",
                fix="Give a larger image.",
            )
    return None


def _along(value: Any, axis: int) -> int:
    return int(value[axis]) if isinstance(value, tuple) else int(value)
