"""What layers make of images: feature maps (Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks")."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convatlas.errors import UserError
from convatlas.inspection.rendering import coloured, enlarged, png_url, sheet
from convatlas.inspection.running import check_runs, leaves, listen
from convatlas.records.look import Maps

MOST = 24
"""Maps on a sheet."""
SIDE = 64
"""Pixels that each map on a sheet has at least."""
CHOSEN = 6
"""Layers that are looked at in a network without stages."""


@dataclass(frozen=True, eq=False)
class LayerMaps:
    """The maps (N, C, H, W) of a layer, on the CPU."""

    layer: str
    maps: Tensor


@torch.no_grad()
def feature_maps(model: nn.Module, images: Tensor, *, layers: Sequence[str] = ()) -> list[LayerMaps]:
    """What `layers` (paths) make of `images` (N, C, H, W), in evaluation mode. The model is left as it was.

    Without `layers` those of the stages, or in a network without stages the last map of each size. A layer that is passed
    several times shows its last pass. Raises UserError for an unknown layer, for one that gives no maps (N, C, H, W), and for
    one that no image passes.
    """
    device = check_runs(model, images)
    names = list(layers) or default_layers(model, images)
    found: dict[str, Tensor] = {}

    def heard(name: str, module: nn.Module, output: Tensor) -> None:
        found[name] = output.float().cpu()

    listen(model, names, images.to(device), heard)
    for name in names:
        if name not in found:
            raise UserError(f"no image passes the layer {name}, or it gives no tensor", fix="Name one that the forward calls.")
        if found[name].dim() != 4:
            raise UserError(f"the layer {name} gives no maps but {tuple(found[name].shape)[1:]}", fix="Name an earlier layer.")
    return [LayerMaps(name, found[name]) for name in names]


@torch.no_grad()
def default_layers(model: nn.Module, images: Tensor) -> list[str]:
    """The stages, or in a network without them the last layer of each map size, at most six."""
    stages = dict(model.named_children()).get("stages", nn.Identity())
    if named := [f"stages.{name}" for name, _ in stages.named_children()]:
        return named
    device = check_runs(model, images)
    sizes: dict[str, tuple[int, ...] | None] = {}

    def heard(name: str, module: nn.Module, output: Tensor) -> None:
        sizes.pop(name, None)  # a layer that is passed again stands where it was passed last
        sizes[name] = tuple(output.shape[2:]) if output.dim() == 4 and max(output.shape[2:]) > 1 else None

    listen(model, leaves(model), images[:1].to(device), heard)
    last = {size: name for name, size in sizes.items() if size is not None}
    if not last:
        raise UserError("no layer gives maps with rows and columns", fix="Feature maps are those of convolutional networks.")
    return list(last.values())[-CHOSEN:]


def maps_record(found: LayerMaps, image: int, *, most: int = MOST) -> Maps:
    """The maps of one image as a record: the `most` channels that vary most over the map, in the order of their numbers."""
    maps = found.maps[image]
    order = maps.flatten(1).std(dim=1, correction=0).argsort(descending=True)[:most]
    shown = sorted(order.tolist())
    low, high = float(maps[shown].min()), float(maps[shown].max())
    pictures = [enlarged(coloured(maps[channel], low=low, high=high), SIDE) for channel in shown]
    return Maps(
        layer=found.layer,
        channels=len(maps),
        side=(maps.shape[1], maps.shape[2]),
        shown=tuple(shown),
        low=low,
        high=high,
        picture=png_url(sheet(pictures, columns=6)),
    )
