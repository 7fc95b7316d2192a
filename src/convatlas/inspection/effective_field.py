"""How much of its receptive field a unit really uses (Luo et al. 2016, "Understanding the Effective Receptive Field")."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from convatlas.errors import UserError
from convatlas.inspection.feature_maps import default_layers
from convatlas.inspection.ledger import ledger
from convatlas.inspection.rendering import coloured, enlarged, png_url
from convatlas.inspection.running import check_runs, listen
from convatlas.records.look import EffectiveField

COUNTS = 1 - 0.9545
"""A pixel counts if it has this share of the strongest one's gradient (section 4.1)."""
SIDE = 224


@torch.inference_mode(False)
def effective_fields(model: nn.Module, images: Tensor, *, layers: Sequence[str] = ()) -> tuple[EffectiveField, ...]:
    """For each layer, the stages unless named: the mean size of the gradient of its middle unit by each pixel.

    The unit's channels are added up, the gradient's size over the colours too, and averaged over `images` (N, C, H, W). The
    model, its gradients and mode are left as they were.
    """
    device = check_runs(model, images)
    names = list(layers) or default_layers(model, images)
    theoretical = _theoretical(model, images, names)
    pixels = images.detach().clone().to(device).requires_grad_(True)
    heard: dict[str, Tensor] = {}
    with torch.enable_grad():
        listen(model, names, pixels, lambda name, module, output: heard.update({name: output}))
        found = []
        for name in names:
            gradient = _gradient(name, heard.get(name), pixels)
            found.append(_record(name, gradient, theoretical[name], len(images)))
    return tuple(found)


def _gradient(name: str, output: Tensor | None, pixels: Tensor) -> Tensor:
    """The mean size of the gradient of the middle unit: (H, W)."""
    if output is None or output.dim() != 4:
        raise UserError(f"the layer {name} gives no maps with rows and columns", fix="Name an earlier layer.")
    middle = output[:, :, output.shape[2] // 2, output.shape[3] // 2].sum()
    if not middle.requires_grad:
        raise UserError(f"no gradient comes back from the layer {name}", fix="Name one before the forward cuts it off.")
    (gradient,) = torch.autograd.grad(middle, pixels, retain_graph=True)
    return gradient.abs().sum(1).mean(0).detach().float().cpu()


def _theoretical(model: nn.Module, images: Tensor, names: Sequence[str]) -> dict[str, tuple[int | None, bool]]:
    """The receptive field after each layer, None for the whole image, and whether it is known."""
    try:
        rows = ledger(model, tuple(images.shape[1:])).rows
    except UserError:
        return dict.fromkeys(names, (None, False))
    inside = {name: [row for row in rows if row.name == name or row.name.startswith(f"{name}.")] for name in names}
    return {name: (found[-1].receptive_field, True) if found else (None, False) for name, found in inside.items()}


def _record(name: str, gradient: Tensor, theory: tuple[int | None, bool], images: int) -> EffectiveField:
    counted = int((gradient >= COUNTS * gradient.max()).sum()) if gradient.max() > 0 else 0
    return EffectiveField(
        layer=name,
        width=counted**0.5,
        theoretical=theory[0],
        known=theory[1],
        size=(gradient.shape[0], gradient.shape[1]),
        images=images,
        picture=png_url(enlarged(coloured(gradient.sqrt()), SIDE)),
    )
