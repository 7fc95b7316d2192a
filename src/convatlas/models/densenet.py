"""DenseNet (2016): every layer sees the maps of all layers before it.

Paper: Huang, Liu, van der Maaten & Weinberger, "Densely Connected Convolutional Networks", arXiv:1608.06993.

    dense layer   x_l = H_l([x_0, ..., x_(l-1)])                          section 3, equation (2)
    H_l           norm, ReLU, 1x1 to 4k, norm, ReLU, 3x3 to k             section 3, "Bottleneck layers"
    transition    norm, 1x1 to half the channels, 2x2 average pooling     section 3, "Compression" (theta = 0.5)
    stem          7x7 stride 2 to 2k, norm, ReLU, 3x3 pooling stride 2    table 1
    head          norm, ReLU, global average pooling, linear              table 1
    CIFAR-10      three blocks of 16 layers, k = 12                       section 3, table 2 (densenet_bc_100_12)

Departure, as in the weights people load: a ReLU follows the norm of each transition.
Small images (up to 64 pixels): the stem is one 3x3 convolution of stride 1 to 2k channels (section 3, "Implementation
Details", the CIFAR networks).
The pocket member has most of its layers on small maps, where they cost least.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count

import torch
from torch import Tensor, nn

from convatlas.layers.network import Network, Request, blocks_of, classifier, initialise_he

BOTTLENECK = 4
"""The 1x1 convolution gives 4k maps (section 3, "Bottleneck layers")."""
COMPRESSION = 0.5
"""Each transition keeps half of the maps (section 3, "Compression")."""


class DenseLayer(nn.Module):
    """Adds `growth_rate` maps to its input: (N, in, H, W) -> (N, in + growth_rate, H, W). Section 3, equation (2)."""

    def __init__(self, in_channels: int, growth_rate: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, BOTTLENECK * growth_rate, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(BOTTLENECK * growth_rate)
        self.conv2 = nn.Conv2d(BOTTLENECK * growth_rate, growth_rate, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """The input with the new maps joined to it."""
        new = self.conv1(self.relu(self.norm1(x)))
        new = self.conv2(self.relu(self.norm2(new)))
        return torch.cat([x, new], dim=1)


def _transition(in_channels: int, out_channels: int) -> nn.Sequential:
    """Fewer maps at half the resolution: (N, in, H, W) -> (N, out, H / 2, W / 2)."""
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(in_channels),
            relu=nn.ReLU(inplace=True),
            conv=nn.Conv2d(in_channels, out_channels, 1, bias=False),
            pool=nn.AvgPool2d(2),
        )
    )


@dataclass(frozen=True)
class DenseNetConfig:
    """`growth_rate` is the paper's k, the maps that each layer adds; `depths` each dense block's number of layers.

    A growth rate that is no whole number is dealt out: each layer adds as many maps as bring all together nearest to it.
    """

    growth_rate: float
    depths: tuple[int, ...]


VARIANTS = {
    "densenet121": DenseNetConfig(growth_rate=32, depths=(6, 12, 24, 16)),
    "densenet161": DenseNetConfig(growth_rate=48, depths=(6, 12, 36, 24)),
    "densenet169": DenseNetConfig(growth_rate=32, depths=(6, 12, 32, 32)),
    "densenet201": DenseNetConfig(growth_rate=32, depths=(6, 12, 48, 32)),
    "densenet_bc_100_12": DenseNetConfig(growth_rate=12, depths=(16, 16, 16)),
    "densenet.pocket": DenseNetConfig(growth_rate=16, depths=(2, 3, 6, 6)),
}


def widened(config: DenseNetConfig, factor: float) -> DenseNetConfig:
    """The growth rate `factor` times as large, and at least 1: all other widths follow from it."""
    return replace(config, growth_rate=max(1.0, config.growth_rate * factor))


def _dealt_out(growth_rate: float) -> Iterator[int]:
    """How many maps each layer of the network adds, in order."""
    return (int((i + 1) * growth_rate + 0.5) - int(i * growth_rate + 0.5) for i in count())


class DenseNet(Network):
    """Dense blocks with transitions in between (table 1). A stage is the transition before a block, and the block."""

    def __init__(self, config: DenseNetConfig, request: Request) -> None:
        super().__init__()
        request.no_drop_path("DenseNet")
        channels, growth = int(2 * config.growth_rate + 0.5), _dealt_out(config.growth_rate)
        self.stem = _stem(request.in_chans, channels, small=request.small)
        stages = []
        for i, depth in enumerate(config.depths):
            stage: OrderedDict[str, nn.Module] = OrderedDict()
            if i > 0:
                kept = int(channels * COMPRESSION)
                stage["downsample"] = _transition(channels, kept)
                channels = kept
            for j in range(depth):
                added = next(growth)
                stage[f"layer{j}"] = DenseLayer(channels, added)
                channels += added
            stages.append(nn.Sequential(stage))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Sequential(
            OrderedDict(
                norm=nn.BatchNorm2d(channels),
                relu=nn.ReLU(inplace=True),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                dropout=request.dropout(0.0),
                classifier=classifier(channels, request.num_classes),
            )
        )
        initialise_he(self)

    def units(self) -> Iterable[nn.Module]:
        """The dense layers and transitions."""
        return blocks_of(self.stages)


def _stem(in_chans: int, width: int, *, small: bool) -> nn.Sequential:
    if small:
        return nn.Sequential(nn.Conv2d(in_chans, width, 3, padding=1, bias=False))
    return nn.Sequential(
        nn.Conv2d(in_chans, width, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    )
