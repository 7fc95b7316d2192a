"""Every variant of the atlas by name, and how to build one."""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial

from convatlas.errors import UserError, unknown_name
from convatlas.layers.network import Network, Request
from convatlas.models import alexnet, convnext, densenet, efficientnet, googlenet, lenet, resnet, vgg

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


def _pocket(family: str, build: Callable[[Request], Network]) -> Variant:
    return Variant(family, build, image_size=32, num_classes=10)


MODELS: dict[str, Variant] = {
    "lenet5": Variant("lenet", lenet.LeNet5, image_size=32, num_classes=10, in_chans=1),
    "alexnet": Variant("alexnet", partial(alexnet.AlexNet, alexnet.VARIANTS["alexnet"])),
    "vgg11": Variant("vgg", partial(vgg.VGG, vgg.VARIANTS["vgg11"])),
    "vgg16": Variant("vgg", partial(vgg.VGG, vgg.VARIANTS["vgg16"])),
    "googlenet": Variant("googlenet", partial(googlenet.GoogLeNet, googlenet.VARIANTS["googlenet"])),
    "resnet18": Variant("resnet", partial(resnet.ResNet, resnet.VARIANTS["resnet18"])),
    "resnet50": Variant("resnet", partial(resnet.ResNet, resnet.VARIANTS["resnet50"])),
    "densenet121": Variant("densenet", partial(densenet.DenseNet, densenet.VARIANTS["densenet121"])),
    "efficientnet_b0": Variant("efficientnet", partial(efficientnet.EfficientNet, efficientnet.VARIANTS["efficientnet_b0"])),
    "convnext_tiny": Variant("convnext", partial(convnext.ConvNeXt, convnext.VARIANTS["convnext_tiny"])),
    "lenet.pocket": _pocket("lenet", lenet.LeNet5),
    "alexnet.pocket": _pocket("alexnet", partial(alexnet.AlexNet, alexnet.VARIANTS["alexnet.pocket"])),
    "vgg.pocket": _pocket("vgg", partial(vgg.VGG, vgg.VARIANTS["vgg.pocket"])),
    "googlenet.pocket": _pocket("googlenet", partial(googlenet.GoogLeNet, googlenet.VARIANTS["googlenet.pocket"])),
    "resnet.pocket": _pocket("resnet", partial(resnet.ResNet, resnet.VARIANTS["resnet.pocket"])),
    "densenet.pocket": _pocket("densenet", partial(densenet.DenseNet, densenet.VARIANTS["densenet.pocket"])),
    "efficientnet.pocket": _pocket(
        "efficientnet", partial(efficientnet.EfficientNet, efficientnet.VARIANTS["efficientnet.pocket"])
    ),
    "convnext.pocket": _pocket("convnext", partial(convnext.ConvNeXt, convnext.VARIANTS["convnext.pocket"])),
}


def list_models(pattern: str = "*") -> list[str]:
    """The names that match a shell pattern such as `resnet*`, in the order of the registry (oldest family first)."""
    return [name for name in MODELS if fnmatchcase(name, pattern)]


def find_variant(name: str) -> Variant:
    """The variant called `name`. An unknown one is a UserError with the nearest names."""
    if name not in MODELS:
        raise unknown_name("model", name, MODELS, where="`convatlas list --all` shows them all.")
    return MODELS[name]


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_chans: int = 3,
    image_size: int | None = None,
    drop_rate: float | None = None,
    drop_path_rate: float | None = None,
) -> Network:
    """A freshly initialised network, called as in timm: `create_model("resnet18", num_classes=10)`.

    `num_classes` and `image_size` (pixels a side) None mean what the variant was published for; `num_classes` 0 gives
    features; with `image_size` up to 64 the small-image stem is built. Rates lie in [0, 1). Raises UserError.
    """
    variant = find_variant(name)
    classes = variant.num_classes if num_classes is None else num_classes
    size = variant.image_size if image_size is None else image_size
    _check_range("num_classes", classes, low=0, high=MAX_CLASSES)
    _check_range("in_chans", in_chans, low=1, high=MAX_CHANNELS)
    _check_range("image_size", size, low=1, high=100_000)
    for option, rate in (("drop_rate", drop_rate), ("drop_path_rate", drop_path_rate)):
        if rate is not None and not 0.0 <= rate < 1.0:
            raise UserError(f"{option} is {rate}", fix="Give a number from 0 up to, but not including, 1.")
    return variant.build(Request(classes, in_chans, size, drop_rate, drop_path_rate))


def _check_range(option: str, value: int, *, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UserError(f"{option} is {value!r}", fix=f"Give a whole number from {low} to {high}.")
