"""BatchNorm folded into the convolutions before it. In evaluation it multiplies and shifts each channel, which filters can do.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", section 3.2.
"""

from collections import Counter
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@torch.inference_mode(False)
@torch.no_grad()
def folded(model: nn.Module, example: Tensor) -> nn.Module:
    """A copy of `model` in evaluation mode, with each BatchNorm folded into its convolution wherever that changes no answer.

    One image of `example` (N, C, H, W) shows which BatchNorm follows which convolution: what really ran decides, not names. A
    pair is folded if the convolution's map goes into that BatchNorm and nowhere else, both ran once, and nobody else uses the
    filters. The model itself is not touched.
    """
    copy = deepcopy(model).eval()
    watch = _Watch(copy)
    for conv, norm in watch.pairs(example[:1].clone()):
        _fold(conv, norm)
        _replace(copy, norm, nn.Identity())
    return copy


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Give the convolution the norm's work. In float64, so that nothing but the result is rounded."""
    assert norm.running_mean is not None and norm.running_var is not None
    mean, var = norm.running_mean.double(), norm.running_var.double()
    scale = (var + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.double()
    bias = -mean if conv.bias is None else conv.bias.double() - mean
    bias = bias * scale if norm.bias is None else bias * scale + norm.bias.double()
    dtype = conv.weight.dtype
    conv.weight = nn.Parameter((conv.weight.double() * scale.view(-1, 1, 1, 1)).to(dtype), requires_grad=False)
    conv.bias = nn.Parameter(bias.to(dtype), requires_grad=False)


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for module in model.modules():
        for name, child in module.named_children():
            if child is old:
                setattr(module, name, new)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes who made each map, and which operations take it in, while an image passes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model = model
        self.runs: Counter[nn.Module] = Counter()
        self.makers: dict[int, nn.Conv2d] = {}
        self.users: dict[int, list[nn.Module | None]] = {}
        self.inside: list[nn.Module] = []
        self.alive: list[Tensor] = []
        """So that no storage is given to a second tensor meanwhile."""

    def pairs(self, image: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
        """Convolutions with the norms to fold into them."""
        foldable = [m for m in self.model.modules() if _plain(m)]  # before the hooks of our own
        handles = []
        for module in self.model.modules():
            if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
                handles += [module.register_forward_pre_hook(self._enter), module.register_forward_hook(self._leave)]
        try:
            with self:
                answer = self.model(image)
        finally:
            for handle in handles:
                handle.remove()
        for tensor in _tensors(answer):
            self._used(tensor, None)
        found = [(conv, self._only_user(key)) for key, conv in self.makers.items() if conv in foldable]
        normed = [(conv, norm) for conv, norm in found if isinstance(norm, nn.BatchNorm2d) and norm in foldable]
        return [(conv, norm) for conv, norm in normed if self._alone(conv, norm)]

    def _only_user(self, key: int) -> nn.Module | None:
        users = set(self.users.get(key, []))
        return users.pop() if len(users) == 1 else None

    def _alone(self, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
        """Whether both ran once, and the filters served this convolution only."""
        return self.runs[conv] == self.runs[norm] == 1 and set(self.users[_storage(conv.weight)]) == {conv}

    def _enter(self, module: nn.Module, _: Any) -> None:
        self.inside.append(module)

    def _leave(self, module: nn.Module, _: Any, output: Tensor) -> None:
        self.inside.pop()
        self.runs[module] += 1
        if isinstance(module, nn.Conv2d):
            self.makers[_storage(output)] = module

    def _used(self, tensor: Tensor, user: nn.Module | None) -> None:
        self.users.setdefault(_storage(tensor), []).append(user)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry the operation out, and note what it takes in."""
        for tensor in _tensors((args, kwargs)):
            self._used(tensor, self.inside[-1] if self.inside else None)
        outputs = func(*args, **(kwargs or {}))
        self.alive += _tensors(outputs)
        return outputs


def _plain(module: nn.Module) -> bool:
    """Whether a module does what its class says, and no more: no hooks, no computed weights, statistics of its own."""
    if module._forward_hooks or module._forward_pre_hooks or is_parametrized(module):
        return False
    if isinstance(module, nn.BatchNorm2d):
        return type(module).forward is nn.BatchNorm2d.forward and module.running_mean is not None
    return type(module) is nn.Conv2d


def _storage(tensor: Tensor) -> int:
    """What tells one piece of memory from another; views share it."""
    return int(tensor.untyped_storage()._cdata)


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]
