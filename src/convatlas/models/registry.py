"""Every variant of the atlas by name, and how to build one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import TypeVar

from convatlas.arith.scaling import PUBLISHED
from convatlas.errors import UserError
from convatlas.layers.network import Network, Request
from convatlas.models import alexnet, compact, convnext, densenet, efficientnet, googlenet, lenet, resnet, user_files, vgg
from convatlas.models.configuration import is_user_file, model_name, parsed
from convatlas.models.configured import build_configured
from convatlas.models.pretrained import Choice, load_pretrained

MAX_CLASSES = 1_000_000
MAX_CHANNELS = 1_024


@dataclass(frozen=True)
class Variant:
    """One name of the atlas: its family, how to build it, and the input and classes it was published for."""

    family: str
    build: Callable[[Request], Network]
    image_size: int = 224
    num_classes: int = 1000
    in_chans: int = 3


CIFAR = (32, 10)
IMAGENET = (224, 1000)
PUBLISHED_FOR: dict[str, tuple[int, int]] = {
    **{f"resnet{depth}{tag}": CIFAR for depth in (20, 32, 44, 56, 110) for tag in ("", ".plain")},
    "densenet_bc_100_12": CIFAR,
    **dict.fromkeys(compact.VARIANTS, CIFAR),
    **{f"efficientnet_b{phi}": (scale.resolution, 1000) for phi, scale in PUBLISHED.items()},
    "efficientnet_v2_s": (384, 1000),
    "efficientnet_v2_m": (480, 1000),
    "efficientnet_v2_l": (480, 1000),
}
"""Pixels a side and classes of variants that were not published for ImageNet at 224 pixels; pocket members are for CIFAR-10."""


Config = TypeVar("Config")


def _family(family: str, network: Callable[[Config, Request], Network], variants: Mapping[str, Config]) -> dict[str, Variant]:
    """The variants of a family file by name."""
    found = {}
    for name, config in variants.items():
        image_size, num_classes = PUBLISHED_FOR.get(name, CIFAR if name.endswith(".pocket") else IMAGENET)
        found[name] = Variant(family, partial(network, config), image_size, num_classes)
    return found


MODELS: dict[str, Variant] = {
    "lenet5": Variant("lenet", lenet.LeNet5, image_size=32, num_classes=10, in_chans=1),
    "lenet5.paper": Variant("lenet", lenet.LeNet5Paper, image_size=32, num_classes=10, in_chans=1),
    "lenet.pocket": Variant("lenet", lenet.LeNet5, image_size=32, num_classes=10),
    **_family("alexnet", alexnet.AlexNet, alexnet.VARIANTS),
    **_family("vgg", vgg.VGG, vgg.VARIANTS),
    **_family("googlenet", googlenet.GoogLeNet, googlenet.VARIANTS),
    **_family("resnet", resnet.ResNet, resnet.VARIANTS),
    **_family("densenet", densenet.DenseNet, densenet.VARIANTS),
    **_family("efficientnet", efficientnet.EfficientNet, efficientnet.VARIANTS),
    **_family("convnext", convnext.ConvNeXt, convnext.VARIANTS),
    **_family("compact", compact.Compact, compact.VARIANTS),
}
"""Oldest family first; in a family as its file has them."""


def list_models(pattern: str = "*") -> list[str]:
    """The names that match a shell pattern such as `resnet*`, in the order of the registry (oldest family first)."""
    return [name for name in MODELS if fnmatchcase(name, pattern)]


def find_variant(name: str) -> Variant:
    """The network that `name` means, in any form of `configuration`. An unknown one is a UserError with the nearest names.

    A configured variant is for the images and classes of the variant itself. A factory in a Python file, which is run, is for
    those that it has as defaults.
    """
    if isinstance(name, str) and name in MODELS:
        return MODELS[name]
    canonical = model_name(name)
    base, settings = parsed(canonical)
    if is_user_file(base):
        usual = user_files.DEFAULTS | user_files.takes(base)
        build = partial(user_files.build_own, canonical)
        return Variant(user_files.FAMILY, build, usual["image_size"], usual["num_classes"], usual["in_chans"])
    return replace(MODELS[base], build=partial(build_configured, base, settings, canonical))


def create_model(
    name: str,
    *,
    pretrained: Choice = False,
    num_classes: int | None = None,
    in_chans: int | None = None,
    image_size: int | None = None,
    drop_rate: float | None = None,
    drop_path_rate: float | None = None,
) -> Network:
    """A network, called as in timm: `create_model("resnet18", num_classes=10)`. `name` has any of the forms of `configuration`.

    `num_classes` and `image_size` (pixels a side) None mean what the variant was published for, `in_chans` None means 3;
    `num_classes` 0 gives features; with `image_size` up to 64 the small-image stem is built. Rates lie in [0, 1).
    `pretrained` loads weights instead of random ones: True (the default ones), "torchvision", "timm" or another source,
    "source:tag", "hf-hub:owner/name", or the path of a file. Loading is strict: only the number of classes or of channels may
    differ, and only if it is given here; `network.loaded` reports it, with the preprocessing that the weights want.
    Raises UserError.
    """
    variant = find_variant(name)
    if pretrained is not False and name not in MODELS:
        raise UserError(f"{name} is no variant, and weights are published for variants", fix="Leave pretrained out.")
    classes = variant.num_classes if num_classes is None else num_classes
    channels = 3 if in_chans is None else in_chans
    size = variant.image_size if image_size is None else image_size
    _check_range("num_classes", classes, low=0, high=MAX_CLASSES)
    _check_range("in_chans", channels, low=1, high=MAX_CHANNELS)
    _check_range("image_size", size, low=1, high=100_000)
    for option, rate in (("drop_rate", drop_rate), ("drop_path_rate", drop_path_rate)):
        if rate is not None and not (isinstance(rate, (int, float)) and 0.0 <= rate < 1.0):
            raise UserError(f"{option} is {rate!r}", fix="Give a number from 0 up to, but not including, 1.")
    network = variant.build(Request(classes, channels, size, drop_rate, drop_path_rate))
    if pretrained is not False:
        network.loaded = load_pretrained(
            network, name, pretrained, classes_chosen=num_classes is not None, channels_chosen=in_chans is not None
        )
    return network


def _check_range(option: str, value: int, *, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UserError(f"{option} is {value!r}", fix=f"Give a whole number from {low} to {high}.")
