"""EfficientNet (2019): depthwise separable blocks with squeeze-and-excitation, grown evenly in depth, width and resolution.

Paper: Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", arXiv:1905.11946, table 1.
MBConv from Sandler et al., "MobileNetV2", arXiv:1801.04381, section 3.3; squeeze-and-excitation from Hu et al.,
arXiv:1709.01507, section 3; SiLU from Ramachandran et al., arXiv:1710.05941.

    stem     3x3 stride 2                                                      table 1, stage 1
    MBConv   1x1 expand, depthwise kxk, squeeze-and-excitation, 1x1 project    MobileNetV2, figure 4(d)
    stages   seven of MBConv                                                   table 1, stages 2 to 8
    head     1x1 to more channels, global average pooling,         table 1, stage 9
             dropout, linear

Departures, as in the weights people load: BatchNorm with eps 1e-5 and momentum 0.1 (the original has 1e-3 and 0.01); symmetric
padding (TensorFlow pads more at the right and bottom). Stochastic depth (section 5.2) rises block by block to 0.2, as in the
authors' code.
Small images (up to 64 pixels): the stem has stride 1.
The pocket member has four stages, so that 32 pixels end on a 4x4 map.
"""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convatlas.layers.conv_norm import conv_norm
from convatlas.layers.drop_path import DropPath, drop_path_rates
from convatlas.layers.network import Network, Request, classifier, initialise_he


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate that sees the whole map: (N, C, H, W) -> (N, C, H, W). arXiv:1709.01507, section 3."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """x times its gates."""
        gates = self.expand(self.act(self.reduce(x.mean((2, 3), keepdim=True))))
        return x * torch.sigmoid(gates)


@dataclass(frozen=True)
class MBConvStage:
    """One row of table 1: `depth` blocks of kernel `kernel` that widen by `expansion` inside and end on `width` channels."""

    expansion: int
    kernel: int
    stride: int
    width: int
    depth: int


class MBConv(nn.Module):
    """The inverted bottleneck: (N, in, H, W) -> (N, width, H / stride, W / stride). MobileNetV2, figure 4(d), with a gate.

    The shortcut exists where input and output have the same shape.
    """

    def __init__(self, in_channels: int, row: MBConvStage, *, stride: int, drop_path: float) -> None:
        super().__init__()
        inner = in_channels * row.expansion
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if row.expansion > 1:
            layers["expand"] = conv_norm(in_channels, inner, kernel=1)
            layers["act1"] = nn.SiLU(inplace=True)
        layers["depthwise"] = conv_norm(inner, inner, kernel=row.kernel, stride=stride, groups=inner)
        layers["act2"] = nn.SiLU(inplace=True)
        # A quarter of the block's input, not of its widened inside (the reference code; the paper leaves it open).
        layers["squeeze_excite"] = SqueezeExcite(inner, max(1, in_channels // 4))
        layers["project"] = conv_norm(inner, row.width, kernel=1)
        self.residual = nn.Sequential(layers)
        self.has_shortcut = stride == 1 and in_channels == row.width
        self.drop_path = DropPath(drop_path if self.has_shortcut else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """F(x), plus x where shapes allow it."""
        out: Tensor = self.residual(x)
        return x + self.drop_path(out) if self.has_shortcut else out


@dataclass(frozen=True)
class EfficientNetConfig:
    """`stem` and `head` are channels; `stages` the rows of table 1."""

    stem: int
    stages: tuple[MBConvStage, ...]
    head: int
    dropout: float
    drop_path: float


VARIANTS = {
    "efficientnet_b0": EfficientNetConfig(
        stem=32,
        stages=(
            MBConvStage(expansion=1, kernel=3, stride=1, width=16, depth=1),
            MBConvStage(expansion=6, kernel=3, stride=2, width=24, depth=2),
            MBConvStage(expansion=6, kernel=5, stride=2, width=40, depth=2),
            MBConvStage(expansion=6, kernel=3, stride=2, width=80, depth=3),
            MBConvStage(expansion=6, kernel=5, stride=1, width=112, depth=3),
            MBConvStage(expansion=6, kernel=5, stride=2, width=192, depth=4),
            MBConvStage(expansion=6, kernel=3, stride=1, width=320, depth=1),
        ),
        head=1280,
        dropout=0.2,
        drop_path=0.2,
    ),
    "efficientnet.pocket": EfficientNetConfig(
        stem=16,
        stages=(
            MBConvStage(expansion=1, kernel=3, stride=2, width=16, depth=1),
            MBConvStage(expansion=4, kernel=3, stride=1, width=24, depth=2),
            MBConvStage(expansion=4, kernel=5, stride=2, width=40, depth=3),
            MBConvStage(expansion=4, kernel=3, stride=2, width=80, depth=3),
        ),
        head=352,
        dropout=0.1,
        drop_path=0.0,
    ),
}


class EfficientNet(Network):
    """Stages of MBConv (table 1)."""

    def __init__(self, config: EfficientNetConfig, request: Request) -> None:
        super().__init__()
        drop_path = config.drop_path if request.drop_path_rate is None else request.drop_path_rate
        blocks = sum(row.depth for row in config.stages)
        # The reference divides by the number of blocks, so that the last block stays below the stated rate.
        rates = iter(drop_path_rates(drop_path * (blocks - 1) / blocks, blocks))
        stem = conv_norm(request.in_chans, config.stem, kernel=3, stride=1 if request.small else 2)
        self.stem = nn.Sequential(stem, nn.SiLU(inplace=True))
        channels = config.stem
        stages = []
        for row in config.stages:
            stage = []
            for i in range(row.depth):
                stage.append(MBConv(channels, row, stride=row.stride if i == 0 else 1, drop_path=next(rates)))
                channels = row.width
            stages.append(nn.Sequential(*stage))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Sequential(
            OrderedDict(
                conv=conv_norm(channels, config.head, kernel=1),
                act=nn.SiLU(inplace=True),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                dropout=request.dropout(config.dropout),
                classifier=classifier(config.head, request.num_classes),
            )
        )
        initialise_he(self)
