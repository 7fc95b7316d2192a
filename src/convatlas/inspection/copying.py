"""A copy of a network on the meta device, where tensors have shapes and no values. Nothing is allocated for it."""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from convatlas.errors import UserError, first_line


def on_meta(model: nn.Module) -> nn.Module:
    """A copy of `model` on the meta device, in the mode that it is in; the model itself is not touched. Raises UserError."""
    memo: dict[int, object] = {}
    for parameter in model.parameters():
        if isinstance(parameter, UninitializedParameter):
            raise UserError("the network has lazy layers that have seen no image yet", fix="Pass one image through it first.")
        memo[id(parameter)] = nn.Parameter(_empty(parameter), requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = _empty(buffer)
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor):
                memo.setdefault(id(value), _empty(value))
    try:
        return deepcopy(model, memo)
    except Exception as error:  # locks, open files, generators: anything may refuse
        raise UserError(f"the network cannot be copied: {first_line(error)}", fix="Leave what cannot out.") from error


def _empty(tensor: Tensor) -> Tensor:
    if tensor.is_contiguous():  # torch finds strides on the meta device in Python, which takes long for a thousand tensors
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
    return torch.empty_like(tensor, device="meta", requires_grad=False)
