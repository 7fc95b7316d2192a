"""Maps of what speaks for a class, (H, W) for one image, computed by captum; and which layer Grad-CAM looks at."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd
from torch.utils.hooks import RemovableHandle

from convatlas.errors import UserError, unknown_name
from convatlas.inspection.misfit import explained, one_image

ENLARGERS = (_AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd)
METHODS = ("grad-cam", "integrated-gradients", "occlusion")
STEPS = 50
"""Points of the Gauss-Legendre rule on the way from the baseline to the image, for integrated gradients."""
WINDOWS = 6
"""Occlusion covers a window of one sixth of each side, and moves it by half of that."""
AT_ONCE = 16
"""Images passed through the network together."""


@dataclass(frozen=True)
class Passed:
    """What one pass tells: the layers that give maps (N, C, H, W) of more than one pixel leading to the logits, by name in order,
    and the names of the parameters of the last layer that has any."""

    maps: tuple[str, ...]
    top: tuple[str, ...]


@dataclass(frozen=True)
class Saliency:
    """A map (H, W) from 0 on, at the resolution of the layer or the image; what speaks against the class is cut off.

    `settings` says in words how it was made, `gap` is the share of the logit's change that is left unexplained.
    """

    values: Tensor
    settings: str
    layer: str | None = None
    gap: float | None = None


def quiet_copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode, with no parameter asking for gradients, and no module overwriting what another gave."""
    copy = deepcopy(model).eval().requires_grad_(False)
    for module in copy.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]
    return copy


def watch(network: nn.Module, image: Tensor) -> Passed:
    """Pass one image (1, C, H, W), and see which layers give maps. Raises UserError if it gives no logits, or does not fit."""
    one_image(network, tuple(image.shape))
    outputs: list[tuple[str, Tensor]] = []
    own: list[tuple[str, ...]] = []

    def watched(name: str, module: nn.Module) -> RemovableHandle:
        parameters = tuple(f"{name}.{each}" for each, _ in module.named_parameters(recurse=False))

        def after(_: nn.Module, args: tuple[object, ...], output: object) -> None:
            if parameters:
                own.append(parameters)
            handed_on = isinstance(module, ENLARGERS) or any(output is each for each in args)
            if _is_map(output) and not handed_on:
                outputs.append((name, output))

        return module.register_forward_hook(after)

    handles = [watched(name, module) for name, module in network.named_modules() if name]
    try:
        logits = network(image.clone().requires_grad_())
    except Exception as error:
        raise explained(error, None) from error
    finally:
        for handle in handles:
            handle.remove()
    check_logits(logits)
    maps = _leading_to(logits, outputs)
    last = tuple(name for name, _ in network.named_parameters())[-1:]
    return Passed(maps, own[-1] if own else last)


def _is_map(output: object) -> TypeGuard[Tensor]:
    return isinstance(output, Tensor) and output.dim() == 4 and output.shape[2] * output.shape[3] > 1 and output.requires_grad


def _leading_to(logits: Tensor, outputs: list[tuple[str, Tensor]]) -> tuple[str, ...]:
    if not outputs or not logits.requires_grad:
        return ()
    gradients = torch.autograd.grad(logits.sum(), [output for _, output in outputs], allow_unused=True)
    return tuple(name for (name, _), gradient in zip(outputs, gradients, strict=True) if gradient is not None)


def check_logits(logits: object) -> None:
    """Raises UserError unless it is a tensor (N, classes) of finite values."""
    if not isinstance(logits, Tensor) or logits.dim() != 2 or not logits.shape[1]:
        raise UserError("the network gives no logits of shape (images, classes)", fix="Attributions are made for classifiers.")
    if not logits.isfinite().all():
        raise UserError("the network's logits are not finite", fix="Give weights and images of finite values.")


def choose_layer(network: nn.Module, passed: Passed, asked: str | None) -> str:
    """The layer for Grad-CAM: the one asked for, or the last that gives a map leading to the logits. Raises UserError.

    Selvaraju et al. 2017, section 3, take the last convolutional layer: what follows has no places any more. Adaptive pooling
    is passed over: where it enlarges a map of one pixel, it gives the same value everywhere.
    """
    if asked is not None and asked not in dict(network.named_modules()):
        known = dict.fromkeys(passed.maps) or [name for name, _ in network.named_modules() if name]
        raise unknown_name("layer", asked, known, where="`convatlas show` lists a network's layers.")
    if not passed.maps:
        raise UserError("no layer gives a map of more than one pixel that leads to the logits", fix="Leave grad-cam out.")
    if asked is not None and asked not in passed.maps:
        raise UserError(
            f"the layer {asked!r} gives no map of more than one pixel that leads to the logits", fix=f"Take {passed.maps[-1]}."
        )
    return passed.maps[-1] if asked is None else asked


def saliency(method: str, network: nn.Module, image: Tensor, *, target: int, layer: str | None) -> Saliency:
    """What speaks for the class `target` in one image (1, C, H, W). `layer` is for Grad-CAM, which takes no other than a name."""
    match method:
        case "grad-cam":
            assert layer is not None
            settings = f"maps of {layer}, weighed by their mean gradients"
            return Saliency(_grad_cam(network, image, target, layer), settings, layer=layer)
        case "integrated-gradients":
            values, gap = _integrated_gradients(network, image, target)
            return Saliency(values, f"{STEPS} steps from an image of zeros (after normalisation)", gap=gap)
        case "occlusion":
            (height, width), (down, right) = _window(image)
            settings = f"window of zeros (after normalisation), {height}x{width} pixels, moved by {down}x{right}"
            return Saliency(_occlusion(network, image, target), settings)
    raise unknown_name("method", method, METHODS, where=f"There is {', '.join(METHODS)}.")


def _grad_cam(network: nn.Module, image: Tensor, target: int, layer: str) -> Tensor:
    """Selvaraju et al. 2017, "Grad-CAM", section 3, equations 1 and 2."""
    cam = _captum().LayerGradCam(network, network.get_submodule(layer))
    values: Tensor = cam.attribute(image.clone().requires_grad_(), target=target, relu_attributions=True)
    return _speaking_for(values[0, 0])


def _integrated_gradients(network: nn.Module, image: Tensor, target: int) -> tuple[Tensor, float]:
    """Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks", section 3, equation 1; summed over channels.

    The gap is what proposition 1, completeness, leaves open by summing instead of integrating, as a share of the logit's change.
    """
    zeros = torch.zeros_like(image)
    values, delta = (
        _captum()
        .IntegratedGradients(network)
        .attribute(
            image,
            zeros,
            target=target,
            n_steps=STEPS,
            internal_batch_size=AT_ONCE,
            return_convergence_delta=True,
        )
    )
    with torch.no_grad():
        change = float((network(image) - network(zeros))[0, target])
    gap = abs(float(delta)) / abs(change) if change else 0.0
    return _speaking_for(values[0].sum(0)), gap


def _occlusion(network: nn.Module, image: Tensor, target: int) -> Tensor:
    """Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.2: how far the logit falls."""
    channels = image.shape[1]
    window, stride = _window(image)
    values: Tensor = (
        _captum()
        .Occlusion(network)
        .attribute(
            image,
            sliding_window_shapes=(channels, *window),
            strides=(channels, *stride),
            baselines=0,
            target=target,
            perturbations_per_eval=AT_ONCE,
        )
    )
    return _speaking_for(values[0].mean(0))


def _speaking_for(values: Tensor) -> Tensor:
    """What is above 0; values that are not finite, as half precision may give them, are nothing."""
    return torch.nan_to_num(values.detach(), nan=0.0, posinf=0.0).clamp(min=0)


def _window(image: Tensor) -> tuple[tuple[int, int], tuple[int, int]]:
    """Height and width of the window, and how far it moves, in pixels."""
    height, width = (max(1, round(side / WINDOWS)) for side in image.shape[2:])
    return (height, width), (max(1, height // 2), max(1, width // 2))


def _captum() -> Any:
    try:
        with quiet():
            import captum.attr
    except ImportError:
        raise UserError("attributions need captum", fix="Install it: pip install 'convatlas[look]'.") from None
    return captum.attr


@contextmanager
def quiet() -> Iterator[None]:
    """While it lasts, no warning reaches the user: captum warns of what is handled here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
