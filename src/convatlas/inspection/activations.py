"""How busy each layer is: mean, spread, zeros, and channels that never say anything else."""

import torch
from torch import Tensor, nn

from convatlas.inspection.running import check_runs, leaves, listen
from convatlas.records.look import Activity

SILENT = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.Flatten)
"""Layers that give what they are given."""


@torch.no_grad()
def activations(model: nn.Module, images: Tensor) -> tuple[Activity, ...]:
    """One record a layer without layers inside, in the order of the data, over all `images` (N, C, H, W) and pixels.

    A channel counts as dead if it has one value everywhere: a ReLU that never lets anything through gives 0. With few images
    that may be chance. A layer that is passed several times counts with all its passes, and the channels of each.
    The model is left as it was.
    """
    device = check_runs(model, images)
    names = [name for name in leaves(model) if not isinstance(model.get_submodule(name), SILENT)]
    heard: dict[str, list[Tensor]] = {}
    listen(model, names, images.to(device), lambda name, module, out: heard.setdefault(name, []).append(out.float().cpu()))
    return tuple(_activity(name, model.get_submodule(name), parts) for name, parts in heard.items() if parts[0].dim() > 1)


def _activity(name: str, module: nn.Module, parts: list[Tensor]) -> Activity:
    """Of all passes together, each (N, C, ...): a pass may have other channels than the one before."""
    values = torch.cat([part.flatten() for part in parts])
    channels = [part.transpose(0, 1).flatten(1) for part in parts]
    return Activity(
        layer=name,
        operation=type(module).__name__,
        mean=float(values.mean()),
        std=float(values.std(correction=0)),
        low=float(values.min()),
        high=float(values.max()),
        zeros=float((values == 0).float().mean()),
        channels=sum(len(each) for each in channels),
        dead=sum(int((each.amax(dim=1) == each.amin(dim=1)).sum()) for each in channels if each.shape[1] > 1),
    )
