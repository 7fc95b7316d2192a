"""What can be configured of each family: its variants' configurations, and how those are widened, made plain and initialised."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from torch import nn

from convatlas.layers.network import Network, Request, initialise_he
from convatlas.models import alexnet, compact, convnext, densenet, efficientnet, googlenet, lenet, resnet, vgg


@dataclass(frozen=True)
class Family:
    """How a family is configured.

    `network` makes a network from a configuration of `variants` and a request. `member` is what the family's name alone means:
    its member for small images. `widened` multiplies all widths (None: the family has one size), `with_shortcuts` adds or takes
    away shortcuts (None: it has none), `initialise` draws the weights of one convolution as the family does. Each of `agreeing`
    has one entry for each stage.
    """

    network: Callable[[Any, Request], Network]
    variants: Mapping[str, Any]
    member: str
    widened: Callable[[Any, float], Any] | None
    with_shortcuts: Callable[[Any, bool], Any] | None = None
    initialise: Callable[[nn.Conv2d, Any], None] = lambda conv, _: initialise_he(conv)
    agreeing: tuple[str, ...] = ()


FAMILIES: dict[str, Family] = {
    "lenet": Family(
        lambda network, request: network(request),
        {"lenet5": lenet.LeNet5, "lenet5.paper": lenet.LeNet5Paper, "lenet.pocket": lenet.LeNet5},
        "lenet.pocket",
        None,
        initialise=lambda conv, _: lenet.initialise(conv),
    ),
    "alexnet": Family(alexnet.AlexNet, alexnet.VARIANTS, "alexnet.pocket", alexnet.widened),
    "vgg": Family(vgg.VGG, vgg.VARIANTS, "vgg.pocket", vgg.widened, agreeing=("depths", "widths")),
    "googlenet": Family(googlenet.GoogLeNet, googlenet.VARIANTS, "googlenet.pocket", googlenet.widened),
    "resnet": Family(
        resnet.ResNet, resnet.VARIANTS, "resnet.pocket", resnet.widened, resnet.with_shortcuts, agreeing=("depths", "widths")
    ),
    "densenet": Family(densenet.DenseNet, densenet.VARIANTS, "densenet.pocket", densenet.widened),
    "efficientnet": Family(
        efficientnet.EfficientNet,
        efficientnet.VARIANTS,
        "efficientnet.pocket",
        efficientnet.widened,
        efficientnet.with_shortcuts,
    ),
    "convnext": Family(
        convnext.ConvNeXt,
        convnext.VARIANTS,
        "convnext.pocket",
        convnext.widened,
        convnext.with_shortcuts,
        lambda conv, config: convnext.initialise(conv, config.deviation),
        ("depths", "widths"),
    ),
    "compact": Family(
        compact.Compact,
        compact.VARIANTS,
        "compact300k",
        compact.widened,
        initialise=lambda conv, _: compact.begin_as_identity(conv),
        agreeing=("widths", "pooled"),
    ),
}
"""Oldest family first."""
FAMILY_OF: dict[str, str] = {name: family for family, each in FAMILIES.items() for name in each.variants}
"""The family of each variant by name."""


def structure_of(family: str) -> dict[str, Any]:
    """The type of each part of a family's configuration that a person can write as numbers.

    Rates of dropout and drop path are no structure: every network is asked for them in the same way.
    """
    config = next(iter(FAMILIES[family].variants.values()))
    if isinstance(config, type):
        return {}
    hints = get_type_hints(type(config))
    written = {field.name: hints[field.name] for field in fields(config) if field.name not in ("dropout", "drop_path")}
    return {name: hint for name, hint in written.items() if hint in _NUMBERS}


_NUMBERS = (
    int,
    float,
    float | None,
    tuple[int, ...],
    tuple[bool, ...],
    tuple[int, int],
    tuple[int, int, int],
    tuple[int, int, int, int, int],
)
