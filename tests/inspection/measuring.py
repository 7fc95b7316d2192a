"""What units really depend on: the pixels with a gradient, for positive weights that let none cancel."""

from copy import deepcopy

import torch
from torch import nn


def let_gradients_through(module):
    """A copy in double precision whose weights are positive, and which averages where the original takes the largest."""
    copy = deepcopy(module).double().eval().requires_grad_(False)
    for parent in list(copy.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.MaxPool2d):
                setattr(parent, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode))
    generator = torch.Generator().manual_seed(0)
    for parameter in copy.parameters():
        with torch.no_grad():
            parameter.uniform_(0.5, 1.0, generator=generator)
            if parameter.dim() > 1:
                parameter.div_(parameter[0].numel())
    return copy


def gradient_hull(module, shape, unit):
    """Rows and columns, each (first, last + 1), of the pixels that output[unit] depends on; None where there are none.

    `unit` is an index (0, channel, row, column) into the output; a channel of None takes all channels together.
    """
    image = torch.rand(1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    output = let_gradients_through(module)(image)
    picked = output[unit] if unit[1] is not None else output[(0, slice(None), *unit[2:])].sum()
    if not picked.requires_grad:
        return None
    (gradient,) = torch.autograd.grad(picked, image)
    touched = gradient[0].ne(0).any(dim=0)
    if not touched.any():
        return None
    return tuple(_hull(touched.any(dim=1 - side)) for side in (0, 1))


def _hull(touched):
    (places,) = touched.nonzero(as_tuple=True)
    return int(places[0]), int(places[-1]) + 1
