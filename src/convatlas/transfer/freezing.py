"""Freezing that is frozen, and the receipt that proves it.

A frozen layer is in evaluation mode too: a BatchNorm whose parameters are merely not trained goes on replacing its statistics,
and computes another function while training than afterwards.
"""

import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from convatlas.errors import UserError


def freeze(model: nn.Module, trained: Iterable[nn.Parameter], still: Iterable[nn.Module]) -> None:
    """Let `trained` parameters of `model` learn and no others; put it into training mode, but the modules in `still` not."""
    learning = set(trained)
    model.train()
    for parameter in model.parameters():
        parameter.requires_grad_(parameter in learning)
        if parameter not in learning:
            parameter.grad = None
    for module in still:
        module.eval()


def frozen_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that do not learn, and the buffers of all layers but of BatchNorms in training mode, by name."""
    moving = {id(each) for m in model.modules() if isinstance(m, _BatchNorm) and m.training for each in m.buffers(recurse=False)}
    parameters = {name: each for name, each in model.named_parameters() if not each.requires_grad}
    return parameters | {name: each for name, each in model.named_buffers() if id(each) not in moving}


def fingerprints(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The SHA-256 of each tensor's shape, kind and bytes, in hexadecimal."""
    return {name: _fingerprint(tensor) for name, tensor in tensors.items()}


def sealed(prints: Mapping[str, str]) -> str:
    """One SHA-256 over all names and fingerprints."""
    digest = hashlib.sha256()
    for name in sorted(prints):
        digest.update(f"{name} {prints[name]}\n".encode())
    return digest.hexdigest()


def check_still(before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Raise a UserError that names the tensors which were to be frozen, and moved."""
    moved = [name for name in before if after.get(name) != before[name]]
    if moved:
        names = ", ".join(moved[:3]) + (f" and {len(moved) - 3} more" if len(moved) > 3 else "")
        what = f"{len(moved)} of {len(before)} frozen tensors are not what they were: {names}"
        raise UserError(what, fix="Something beside the training moves them, such as a hook: take it off, and train anew.")


def _fingerprint(tensor: Tensor) -> str:
    content = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{tuple(content.shape)} {content.dtype}".encode())
    digest.update(content.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
