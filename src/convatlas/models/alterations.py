"""Changing any network from outside: its norms, activations, kernels and dropout. Modules are replaced, no block knows of it.

    norm         `batch` BatchNorm; `layer` one mean and variance for each image, over channels and pixels, which is GroupNorm of
                 one group (Wu & He 2018, arXiv:1803.08494, section 3.1); `group` GroupNorm; `instance` one for each image and
                 channel (Ulyanov et al. 2016, arXiv:1607.08022, section 2); `none`. What is of the kind already stays as it is:
                 a LayerNorm over the channels of each pixel (ConvNeXt) is a `layer`.
    act          every activation that is a module, those within squeeze-and-excitation too. Sigmoids are gates and stay, unless
                 the network has no other activations.
    kernel_size  every square kernel above 1 whose map keeps its size, or halves it, by padding. Padding follows, so that
                 all maps keep their sizes.
    dropout      the rate of every dropout that the network has.

Without norms, convolutions that had no bias get one: the norms had it for them. So do, if vectors were normalised, linear layers.
What works in place no longer does if norms or activations are gone: it would change a map that its block still needs (DenseNet).
Functions called within `forward` are not seen. An alteration that finds nothing to change is refused.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from convatlas.errors import UserError
from convatlas.layers.halved_conv import HalvedConv2d

NORMS = ("batch", "layer", "group", "instance", "none")
MOST_GROUPS, LEAST_IN_GROUP = 32, 4
"""GroupNorm's groups: at most 32 (Wu & He 2018, section 3.2), each of 4 channels or more, for networks narrower than theirs."""
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "sigmoid": nn.Sigmoid,
    "none": nn.Identity,
}
IN_PLACE = (nn.ReLU, nn.LeakyReLU, nn.SiLU, nn.ELU)
"""Those that can work in place: they do if the one that they replace did."""
_ACTS = (nn.ReLU, nn.Hardtanh, nn.Tanh, nn.GELU, nn.SiLU, nn.LeakyReLU, nn.ELU, nn.PReLU, nn.RReLU, nn.SELU, nn.CELU, nn.Mish)
_MORE_ACTS = (nn.Hardswish, nn.Softplus, nn.Softsign, nn.LogSigmoid)
_GATES = (nn.Sigmoid, nn.Hardsigmoid)
_NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm, _InstanceNorm)
_VECTORS = (nn.BatchNorm1d, nn.InstanceNorm1d)
Initialise = Callable[[nn.Conv2d, nn.Conv2d], None]
"""Draws the weights of a convolution (first) that takes the place of another (second)."""


def alter(network: nn.Module, settings: Mapping[str, Any], *, name: str, initialise: Initialise) -> None:
    """Change the modules below `network` as the settings say; other settings than those above are left to others.

    `name` is the network's in messages. Works on the meta device. Raises UserError.
    """
    if "kernel_size" in settings:
        _alter_kernels(network, settings["kernel_size"], name, initialise)
    if "norm" in settings:
        _alter_norms(network, settings["norm"], name)
    if "act" in settings:
        _alter_activations(network, settings["act"], name)
    if "none" in (settings.get("norm"), settings.get("act")):
        for module in network.modules():
            if vars(module).get("inplace") is True:
                vars(module)["inplace"] = False


def alter_dropout(network: nn.Module, rate: float, *, name: str) -> None:
    """Give every dropout this rate. Raises UserError where there is none."""
    dropouts = [module for module in network.modules() if isinstance(module, _DropoutNd)]
    if not dropouts:
        raise _nothing("dropout", f"{name} has no dropout layers")
    for module in dropouts:
        module.p = rate


def _nothing(key: str, why: str) -> UserError:
    fix = f"Leave {key} out. Only layers that are modules are seen, not functions called in forward."
    return UserError(f"{key} would change nothing: {why}", fix=fix)


def _replace(network: nn.Module, change: Callable[[nn.Module, str], nn.Module]) -> None:
    """Put what `change` gives for a module and its path in the place of each module; a shared one has one successor."""
    made: dict[nn.Module, nn.Module] = {}
    for path, parent in list(network.named_modules()):
        for key, child in list(parent._modules.items()):
            if child is not None:
                if child not in made:
                    made[child] = change(child, f"{path}.{key}".lstrip("."))
                if made[child] is not child:
                    setattr(parent, key, made[child])


# Kernels


def _alter_kernels(network: nn.Module, size: int, name: str, initialise: Initialise) -> None:
    if not any(_keeps_size(module) for module in network.modules()):
        raise _nothing("kernel_size", f"{name} has no square kernels above 1 with as much padding as keeps the map's size")

    def change(module: nn.Module, _: str) -> nn.Module:
        if not isinstance(module, nn.Conv2d) or not _keeps_size(module) or module.kernel_size[0] == size:
            return module
        return _resized(module, size, initialise)

    _replace(network, change)


def _keeps_size(module: nn.Module) -> bool:
    """Whether it is a plain convolution of a square kernel above 1 that gives ceil(size / stride) pixels, by padding."""
    if not isinstance(module, nn.Conv2d) or type(module) not in (nn.Conv2d, HalvedConv2d):
        return False
    if module.dilation != (1, 1) or module.stride not in ((1, 1), (2, 2)):
        return False
    kernel = module.kernel_size[0]
    square = module.kernel_size == (kernel, kernel) and kernel > 1 and kernel % 2 == 1
    return square and module.padding in ("same", (kernel // 2, kernel // 2))


def _resized(old: nn.Conv2d, size: int, initialise: Initialise) -> nn.Conv2d:
    new = type(old)(
        old.in_channels,
        old.out_channels,
        size,
        old.stride[0],
        size // 2,
        groups=old.groups,
        bias=old.bias is not None,
        padding_mode=old.padding_mode,
        device=old.weight.device,
        dtype=old.weight.dtype,
    )
    if not new.weight.is_meta:
        initialise(new, old)
    return new.train(old.training)


def as_before(new: nn.Conv2d, old: nn.Conv2d) -> None:
    """Normal weights whose sums have the variance that those of the old ones had, and the old bias.

    For networks of which it is not known how they were initialised: He's, Glorot's and torch's own deviations are all in inverse
    proportion to the kernel's side.
    """
    with torch.no_grad():
        deviation = old.weight.std(correction=0) * old.kernel_size[0] / new.kernel_size[0]
        new.weight.normal_().mul_(deviation)
        if new.bias is not None and old.bias is not None:
            new.bias.copy_(old.bias)


# Norms


class ChannelsLast(nn.Module):
    """A norm of maps, for what has its channels last: (N, ..., C) -> (N, ..., C)."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """The normalised x, which the norm sees as (N, C, positions, 1)."""
        first = x.movedim(-1, 1)
        out: Tensor = self.norm(first.reshape(*first.shape[:2], -1, 1)).reshape(first.shape)
        return out.movedim(1, -1)


def _alter_norms(network: nn.Module, wanted: str, name: str) -> None:
    norms = [module for module in network.modules() if isinstance(module, _NORMS)]
    if not norms:
        raise _nothing("norm", f"{name} has no BatchNorm, LayerNorm, GroupNorm or InstanceNorm")
    _replace(network, lambda module, path: _renormed(module, wanted, f"{name}: {path}"))
    if wanted == "none":
        of_vectors = any(isinstance(module, _VECTORS) for module in norms)
        for module in network.modules():
            if isinstance(module, _ConvNd) or (of_vectors and isinstance(module, nn.Linear)):
                _give_bias(module)


def _give_bias(module: "_ConvNd | nn.Linear") -> None:
    if module.bias is None:
        outputs = module.out_features if isinstance(module, nn.Linear) else module.out_channels
        module.register_parameter("bias", nn.Parameter(module.weight.new_zeros(outputs)))


def _renormed(module: nn.Module, wanted: str, where: str) -> nn.Module:
    """What stands in the place of a module; itself if it is no norm, or of the kind already."""
    if not isinstance(module, _NORMS) or _kind(module) == wanted:
        return module
    if wanted == "none":
        return nn.Identity()
    if wanted == "instance" and not isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
        what = f"{where} ({type(module).__name__}) may see vectors, of which instance normalisation would leave nothing"
        raise UserError(what, fix="Give norm another value.")
    new = _norm(wanted, _channels(module, where), vectors=isinstance(module, _VECTORS), eps=module.eps)
    new = new.to(next((each.device for each in module.parameters()), None)).train(module.training)
    last = isinstance(module, nn.LayerNorm) and type(module).forward is nn.LayerNorm.forward
    return ChannelsLast(new) if last and len(module.normalized_shape) == 1 else new  # type: ignore[arg-type]


def _kind(module: nn.Module) -> str:
    match module:
        case _BatchNorm():
            return "batch"
        case _InstanceNorm():
            return "instance"
        case nn.GroupNorm():
            return "layer" if module.num_groups == 1 else "group"
    return "layer"


def _channels(module: nn.Module, where: str) -> int:
    """How many channels a norm sees. A LayerNorm of (C, H, W) sees C, one with a forward of its own is over those of maps."""
    match module:
        case nn.LayerNorm():
            if len(module.normalized_shape) not in (1, 3):
                raise UserError(f"{where} is a LayerNorm over {module.normalized_shape}", fix="Leave norm out.")
            return int(module.normalized_shape[0])
        case nn.GroupNorm():
            return module.num_channels
        case _BatchNorm() | _InstanceNorm():
            return module.num_features
    raise AssertionError(where)


def _norm(wanted: str, channels: int, *, vectors: bool, eps: float) -> nn.Module:
    """A new norm with scale and bias, of maps or of vectors."""
    match wanted:
        case "batch":
            return (nn.BatchNorm1d if vectors else nn.BatchNorm2d)(channels, eps=eps)
        case "layer":
            return nn.GroupNorm(1, channels, eps=eps)
        case "group":
            return nn.GroupNorm(groups_for(channels), channels, eps=eps)
        case "instance":
            return nn.InstanceNorm2d(channels, eps=eps, affine=True)
    raise AssertionError(wanted)


def groups_for(channels: int) -> int:
    """Into how many groups GroupNorm divides the channels: as many as divide them, up to 32, of 4 channels or more."""
    most = max(1, min(MOST_GROUPS, channels // LEAST_IN_GROUP))
    return next(groups for groups in range(most, 0, -1) if channels % groups == 0)


# Activations


def _alter_activations(network: nn.Module, wanted: str, name: str) -> None:
    kinds: tuple[type[nn.Module], ...] = (*_ACTS, *_MORE_ACTS)
    if not any(isinstance(module, kinds) for module in network.modules()):
        kinds = _GATES
    if not any(isinstance(module, kinds) for module in network.modules()):
        raise _nothing("act", f"{name} has no activation layers")
    new = ACTIVATIONS[wanted]

    def change(module: nn.Module, _: str) -> nn.Module:
        if not isinstance(module, kinds) or type(module) is new:
            return module
        in_place = new in IN_PLACE and vars(module).get("inplace") is True
        return (new(inplace=True) if in_place else new()).train(module.training)

    _replace(network, change)
