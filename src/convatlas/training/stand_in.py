"""Putting other functions in the place of layers' `forward`, from outside and for a while; and which layers training meets."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from convatlas.inspection.running import copied
from convatlas.layers.network import Network


class StandIn:
    """Takes the place of one layer's `forward`. Copies of the layer compute as torch does."""

    __name__ = "forward"  # pickle writes a bound method as its object and this name: what is read back is torch's own

    def __init__(self, owner: nn.Module) -> None:
        self.owner = owner

    def __call__(self, layer: Any, input: Tensor) -> Tensor:
        """What the layer gives for `input`."""
        raise NotImplementedError


def stands_in(layer: nn.Module) -> StandIn | None:
    """What has taken the place of the layer's `forward`, if one of ours has."""
    here = vars(layer).get("forward")
    outer = here.__func__ if isinstance(here, MethodType) else None
    return outer if isinstance(outer, StandIn) else None


def is_free(layer: nn.Module) -> bool:
    """Whether nobody else has replaced how the layer computes."""
    return "_conv_forward" not in vars(layer) and ("forward" not in vars(layer) or stands_in(layer) is not None)


@contextmanager
def standing_in(instead: Mapping[nn.Module, StandIn]) -> Iterator[None]:
    """While it lasts, each of these layers computes by its stand-in; afterwards as before, or as somebody wants by then."""
    before = {layer: vars(layer).get("forward") for layer in instead}
    try:
        for layer, stand_in in instead.items():
            vars(layer)["forward"] = MethodType(stand_in, layer)
        yield
    finally:
        for layer, was in before.items():
            if stands_in(layer) is instead[layer]:
                del vars(layer)["forward"]
                if was is not None:
                    vars(layer)["forward"] = was


def met_in_training(
    model: nn.Module,
    images: Sequence[Tensor],
    kinds: Collection[type[nn.Module]],
    met: Callable[[Any, Tensor], None],
    *,
    autocast_dtype: torch.dtype | None,
) -> None:
    """Tell `met` of every layer of just these kinds, and of its input, as training on `images`, each (N, C, H, W), meets them.

    `autocast_dtype` is the format that a CPU's autocast computes in; None means no autocast. A copy of the model is run: model
    and torch's random state are left as they were. Raises UserError for a model that cannot be copied.
    """
    copy = copied(model).train()

    def tell(layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        met(layer, args[0] if args else named["input"])

    for layer in copy.modules():
        if type(layer) in kinds:
            layer.register_forward_pre_hook(tell, with_kwargs=True)
    casting = torch.autocast("cpu", dtype=autocast_dtype or torch.bfloat16, enabled=autocast_dtype is not None)
    with torch.enable_grad(), torch.random.fork_rng(devices=[]), casting:
        for x in images:
            copy.training_logits(x) if isinstance(copy, Network) else copy(x)
