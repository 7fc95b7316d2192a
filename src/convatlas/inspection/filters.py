"""The first layer's filters as pictures (Krizhevsky et al. 2012, figure 3)."""

import torch
from torch import Tensor, nn

from convatlas.errors import UserError
from convatlas.inspection.rendering import enlarged, png_url, sheet
from convatlas.inspection.running import at_rest
from convatlas.records.look import Filters

MOST = 96
SIDE = 44


@torch.no_grad()
def first_filters(model: nn.Module) -> Filters:
    """The weights of the first two-dimensional convolution, each filter in its own brightness: grey is 0.

    In colour where it looks at three channels; else in grey, the mean over channels. Raises UserError without a convolution.
    """
    found = next(((name, each) for name, each in model.named_modules() if isinstance(each, nn.Conv2d)), None)
    if found is None:
        raise UserError("the network has no convolution", fix="Filters are those of convolutional networks.")
    name, conv = found
    if any(each.is_meta for each in conv.parameters()):
        raise UserError("the network is on the meta device and has no values", fix="Build or load it on a real device.")
    with at_rest(model):  # a weight that is computed, as spectral norm's, may be computed otherwise in training
        weights = conv.weight.detach().float().cpu()
    coloured = weights.shape[1] == 3
    pictures = [enlarged(_picture(each, coloured), SIDE) for each in weights[:MOST]]
    return Filters(
        layer=name,
        filters=len(weights),
        kernel=(weights.shape[2], weights.shape[3]),
        shown=len(pictures),
        coloured=coloured,
        picture=png_url(sheet(pictures, columns=8)),
    )


def _picture(weights: Tensor, coloured: bool) -> Tensor:
    """(C, h, w) as uint8 (3, h, w): its largest size is black or white."""
    values = weights if coloured else weights.mean(0, keepdim=True).expand(3, -1, -1)
    most = values.abs().max().clamp(min=1e-12)
    return (127.5 + 127.5 * values / most).round().clamp(0, 255).to(torch.uint8)
