"""Where a network's numbers ceased to be numbers."""

import torch
from torch import Tensor, nn

from convatlas.layers.network import Network


def first_not_finite(model: Network, x: Tensor) -> str | None:
    """The first layer, in the order in which they run, that has weights or gives maps that are not finite; None if none does.

    x is a batch (N, C, H, W) such as the loss was not finite for. The network is asked in its present mode, without gradients;
    hooks are taken off again, and its buffers (BatchNorm's statistics) put back.
    """
    found: list[str] = []
    names = {module: name for name, module in model.named_modules()}

    def listen(module: nn.Module, _: object, output: object) -> None:
        if found:
            return
        if not all(bool(torch.isfinite(p).all()) for p in module.parameters(recurse=False)):
            found.append(f"{names[module]} ({type(module).__name__}) has weights that are not finite")
        elif isinstance(output, Tensor) and not bool(torch.isfinite(output).all()):
            found.append(f"{names[module]} ({type(module).__name__}) gives values that are not finite")

    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    hooks = [m.register_forward_hook(listen) for m in model.modules() if not list(m.children())]
    try:
        with torch.no_grad():
            model.training_logits(x)
    finally:
        for hook in hooks:
            hook.remove()
        for name, buffer in model.named_buffers():
            buffer.copy_(before[name])
    return found[0] if found else None
