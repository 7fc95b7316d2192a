"""Running somebody's network without leaving a trace: mode, hooks and random state are as they were afterwards."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.utils.weak import WeakIdKeyDictionary

from convatlas.errors import UserError, first_line, unknown_name


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """While it lasts, the model is in evaluation mode; then modes, buffers and the random state are as they were.

    A forward may draw random numbers in evaluation mode too: `functional.dropout` does so unless it is told not to.
    """
    modes = {module: module.training for module in model.modules()}
    cards = sorted({each.device.index or 0 for each in model.parameters() if each.device.type == "cuda"})
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    model.eval()
    try:
        with torch.random.fork_rng(devices=cards):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)


def check_runs(model: nn.Module, images: Tensor) -> torch.device:
    """The model's device. Raises UserError for a model without values, and for what is no batch of images (N, C, H, W)."""
    tensors = [*model.parameters(), *model.buffers()]
    if any(isinstance(each, UninitializedParameter) for each in tensors):
        raise UserError("the network has lazy layers that have seen no image yet", fix="Pass one image through it first.")
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
    """The model's output, of images in the precision of its weights. Raises UserError, with torch's own words, where it fails."""
    kinds = (each.dtype for each in model.parameters() if each.is_floating_point())
    try:
        return model(images.to(next(kinds, images.dtype)))
    except UserError:
        raise
    except Exception as error:  # somebody's forward may raise anything
        raise UserError(
            f"the network fails on images of {tuple(images.shape)[1:]}: {first_line(error)}", fix="Give images as it takes them."
        ) from error


def listen(model: nn.Module, names: Sequence[str], images: Tensor, heard: Callable[[str, nn.Module, Tensor], None]) -> Any:
    """Run the model; `heard` is told what each named layer gives, as (N, C, ...), copied before anything works on it in place."""
    layouts = Layouts()
    wanted = {name: find_layer(model, name) for name in names}
    passed = wanted | {name: model.get_submodule(name) for name in leaves(model)}
    handles = []

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def after(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                last = layouts.channels_last(module, args, output)
                if name in wanted:
                    heard(name, module, (output.movedim(-1, 1) if last else output).clone())

        return after

    try:
        for name, module in passed.items():
            handles.append(module.register_forward_hook(hook(name)))
        with at_rest(model):
            return run(model, images)
    finally:
        for handle in handles:
            handle.remove()


class Layouts:
    """Which outputs are (N, H, W, C), as within ConvNeXt's blocks: those of linear layers and of LayerNorm over one axis, and
    of what is without weights and keeps their shape, such as an activation.
    """

    def __init__(self) -> None:
        self._last: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def channels_last(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> bool:
        """Whether this output's channels are its last axis, told in the order in which the layers are passed."""
        over_one = type(module) is nn.LayerNorm and len(module.normalized_shape) == 1
        same = any(isinstance(each, Tensor) and each in self._last and each.shape == output.shape for each in args)
        last = output in self._last or isinstance(module, nn.Linear) or over_one or (same and _weightless(module))
        if last and output.dim() > 2:
            self._last[output] = True
            return True
        return False


def _weightless(module: nn.Module) -> bool:
    return next(module.parameters(), None) is None and next(module.children(), None) is None


def leaves(model: nn.Module) -> list[str]:
    """Paths of the modules without children, in the order in which they were defined. Those that only make another's weights
    (`parametrizations`) are no layers.
    """
    found = (name for name, module in model.named_modules() if name and next(module.children(), None) is None)
    return [name for name in found if "parametrizations" not in name.split(".")]


def copied(model: nn.Module) -> nn.Module:
    """A copy of the model. Raises UserError for one that cannot be copied."""
    try:
        return deepcopy(model)
    except Exception as error:  # torch refuses tensors that were computed, others what they like
        raise UserError(f"the network cannot be copied: {first_line(error)}", fix="Build it anew.") from error
