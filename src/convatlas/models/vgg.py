"""VGG (2014): nothing but 3x3 convolutions, stacked deep.

Paper: Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", arXiv:1409.1556, table 1.

    stem     none: the first 3x3 convolutions are already the first stage (nn.Identity)
    stages   five of 1 to 4 3x3 convolutions with ReLU, each ended by 2x2 max pooling (table 1, columns A, B, D, E)
    head     4096, dropout, 4096, dropout, classes (table 1; section 3.1)
    _bn      BatchNorm after each convolution (Ioffe & Szegedy, arXiv:1502.03167); not in the paper, which came before it

Departures: He initialisation (section 3.1 begins from a trained smaller network, since plain random weights did not train);
other image sizes than 224 are averaged to the 7x7 map that the head expects, as in the weights people load.
Small images (up to 64 pixels): the first stage does not pool, so that 32 pixels end on a 2x2 map instead of 1x1, and the head
looks at the whole last map if it is smaller than 7x7.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from convatlas.arith.scaling import scaled_width
from convatlas.layers.network import Network, Request, classifier, initialise_he

HEAD_GRID = 7


def plain(in_channels: int, out_channels: int) -> list[nn.Module]:
    """A 3x3 convolution and ReLU: (N, in, H, W) -> (N, out, H, W). Section 2.1."""
    return [nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.ReLU(inplace=True)]


def normalised(in_channels: int, out_channels: int) -> list[nn.Module]:
    """A 3x3 convolution, BatchNorm and ReLU. The bias that BatchNorm makes useless is kept, as in the weights people load."""
    return [nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]


@dataclass(frozen=True)
class VGGConfig:
    """`depths` and `widths` give each stage's convolutions and their channels, `hidden` the units of the hidden linear layers.

    `layer` makes one convolution with what follows it, from (in_channels, out_channels).
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    layer: Callable[[int, int], list[nn.Module]] = plain
    hidden: int = 4096
    dropout: float = 0.5


VARIANTS = {
    "vgg11": VGGConfig((1, 1, 2, 2, 2)),
    "vgg13": VGGConfig((2, 2, 2, 2, 2)),
    "vgg16": VGGConfig((2, 2, 3, 3, 3)),
    "vgg19": VGGConfig((2, 2, 4, 4, 4)),
    "vgg11_bn": VGGConfig((1, 1, 2, 2, 2), layer=normalised),
    "vgg13_bn": VGGConfig((2, 2, 2, 2, 2), layer=normalised),
    "vgg16_bn": VGGConfig((2, 2, 3, 3, 3), layer=normalised),
    "vgg19_bn": VGGConfig((2, 2, 4, 4, 4), layer=normalised),
    "vgg.pocket": VGGConfig((1, 1, 2, 2, 2), (16, 32, 56, 72, 72), hidden=112, dropout=0.1),
}


def widened(config: VGGConfig, factor: float) -> VGGConfig:
    """All widths, those of the hidden linear layers among them, `factor` times as large."""
    widths = tuple(scaled_width(width, factor, divisor=1) for width in config.widths)
    return replace(config, widths=widths, hidden=scaled_width(config.hidden, factor, divisor=1))


class VGG(Network):
    """Stages of 3x3 convolutions, three fully connected layers (table 1)."""

    def __init__(self, config: VGGConfig, request: Request) -> None:
        super().__init__()
        request.no_drop_path("VGG")
        self.stem = nn.Identity()
        channels, size = request.in_chans, request.image_size
        stages = []
        for i, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True)):
            pools = not (request.small and i == 0)
            stages.append(_stage(config.layer, channels, width, depth=depth, pools=pools))
            channels, size = width, size // 2 if pools else size
        self.stages = nn.Sequential(*stages)
        grid = min(HEAD_GRID, max(size, 1))
        self.head = nn.Sequential(
            OrderedDict(
                pool=nn.AdaptiveAvgPool2d(grid),
                flatten=nn.Flatten(),
                linear1=nn.Linear(channels * grid * grid, config.hidden),
                relu1=nn.ReLU(inplace=True),
                dropout1=request.dropout(config.dropout),
                linear2=nn.Linear(config.hidden, config.hidden),
                relu2=nn.ReLU(inplace=True),
                dropout2=request.dropout(config.dropout),
                classifier=classifier(config.hidden, request.num_classes),
            )
        )
        initialise_he(self)


def _stage(
    layer: Callable[[int, int], list[nn.Module]], in_channels: int, width: int, *, depth: int, pools: bool
) -> nn.Sequential:
    """`depth` convolutions, then, if the stage pools, 2x2 max pooling: the map's side is halved."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += layer(width if i else in_channels, width)
    return nn.Sequential(*layers, *([nn.MaxPool2d(2)] if pools else []))
