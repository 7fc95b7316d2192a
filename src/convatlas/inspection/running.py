"""Running somebody's network without leaving a trace: mode, hooks and random state are as they were afterwards."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from convatlas.errors import UserError, unknown_name

CHANNELS_LAST = (nn.Linear, nn.LayerNorm)
"""Layers whose four axes are (N, H, W, C), as in ConvNeXt's blocks."""


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """While it lasts, the model is in evaluation mode; then each of its modules is in its own mode again."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def check_runs(model: nn.Module, images: Tensor) -> torch.device:
    """The model's device. Raises UserError for a model without values, and for what is no batch of images (N, C, H, W)."""
    tensors = [*model.parameters(), *model.buffers()]
    if any(each.is_meta for each in tensors):
        raise UserError("the network is on the meta device and has no values", fix="Build or load it on a real device.")
    if images.dim() != 4 or not len(images):
        raise UserError(f"the images have the shape {tuple(images.shape)}", fix="Give at least one, as (N, C, H, W).")
    devices = {each.device for each in tensors}
    if len(devices) > 1:
        raise UserError(f"the network lies on {len(devices)} devices", fix="Move it to one.")
    return devices.pop() if devices else images.device


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The module at a path. An unknown one is a UserError with the nearest paths."""
    layers = dict(model.named_modules())
    if name not in layers or not name:
        raise unknown_name("layer", name, [each for each in layers if each], where="`convatlas show NAME` lists them.")
    found: nn.Module = layers[name]
    return found


def run(model: nn.Module, images: Tensor) -> Any:
    """The model's output. Raises UserError, with torch's own words, where the forward fails."""
    try:
        return model(images)
    except (RuntimeError, TypeError, ValueError) as error:
        said = str(error).strip().split("\n")[0]
        raise UserError(
            f"the network fails on images of {tuple(images.shape)[1:]}: {said}", fix="Give images as it takes them."
        ) from error


def listen(model: nn.Module, names: Sequence[str], images: Tensor, heard: Callable[[str, nn.Module, Tensor], None]) -> Any:
    """Run the model; `heard` is told what each named layer gives, copied, before anything works on it in place."""
    handles = []

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def after(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                heard(name, module, output.clone())

        return after

    for name in names:
        handles.append(find_layer(model, name).register_forward_hook(hook(name)))
    try:
        with at_rest(model):
            return run(model, images)
    finally:
        for handle in handles:
            handle.remove()


def channels_first(module: nn.Module, output: Tensor) -> Tensor:
    """A layer's output as (N, C, ...)."""
    if isinstance(module, CHANNELS_LAST) and type(module).__name__ != "LayerNorm2d" and output.dim() > 2:
        return output.movedim(-1, 1)
    return output


def leaves(model: nn.Module) -> list[str]:
    """Paths of the modules without children, in the order in which they were defined."""
    return [name for name, module in model.named_modules() if name and next(module.children(), None) is None]
