"""EfficientNet (2019): depthwise separable blocks with squeeze-and-excitation, grown evenly in depth, width and resolution.

Paper: Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", arXiv:1905.11946, table 1.
MBConv from Sandler et al., "MobileNetV2", arXiv:1801.04381, section 3.3; squeeze-and-excitation from Hu et al.,
arXiv:1709.01507, section 3; SiLU from Ramachandran et al., arXiv:1710.05941.
EfficientNetV2: Tan & Le, "EfficientNetV2: Smaller Models and Faster Training", arXiv:2104.00298, table 4, figure 2.
EfficientNet-Lite0: the authors' code, for processors that are slow at sigmoids and global poolings.

    stem         3x3 stride 2                                                      table 1, stage 1
    MBConv       1x1 expand, depthwise kxk, squeeze-and-excitation, 1x1 project    MobileNetV2, figure 4(d)
    FusedMBConv  kxk expand, 1x1 project                                           arXiv:2104.00298, figure 2
    LiteMBConv   MBConv without squeeze-and-excitation, with ReLU6                 the authors' code
    stages       seven of MBConv                                                   table 1, stages 2 to 8
    B1 to B7     B0's table with scaled depths and widths                          section 4, arith/scaling.py
    head         1x1 to more channels, global average pooling,                     table 1, stage 9
                 dropout, linear

Departures, as in the weights people load: BatchNorm with eps 1e-5 and momentum 0.1 in B0 to B4 (the original has 1e-3 and 0.01,
and so have B5 to B7 and Lite0; V2 has 1e-3 and 0.1); symmetric padding where the stride is 2 (TensorFlow pads more at the right
and below, and so does Lite0 here, whose published weights lose four points without it: docs/LOG.md).
Stochastic depth (section 5.2) rises block by block to 0.2, as in the authors' code. B2 is for 260 pixels as published; the
weights that people load were judged at 288.
Small images (up to 64 pixels): the stem has stride 1.
The pocket member has four stages, so that 32 pixels end on a 4x4 map.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from convatlas.arith.scaling import PUBLISHED, Scale, scaled_depth, scaled_width
from convatlas.layers.conv_norm import conv_norm
from convatlas.layers.drop_path import DropPath, drop_path_rates
from convatlas.layers.network import Network, Request, blocks_of, classifier, initialise_he

ConvNorm = Callable[..., nn.Sequential]
"""`conv_norm` with the variant's BatchNorm settings."""


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


class InvertedResidual(nn.Module):
    """What the blocks share: their layers, and a shortcut where input and output have the same shape. Abstract."""

    def __init__(self, layers: OrderedDict[str, nn.Module], *, has_shortcut: bool, drop_path: float) -> None:
        super().__init__()
        self.residual = nn.Sequential(layers)
        self.has_shortcut = has_shortcut
        self.drop_path = DropPath(drop_path if has_shortcut else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """F(x), plus x where shapes allow it."""
        out: Tensor = self.residual(x)
        return x + self.drop_path(out) if self.has_shortcut else out


@dataclass(frozen=True)
class Row:
    """One row of table 1: `depth` blocks of kernel `kernel` that widen by `expansion` inside and end on `width` channels."""

    block: Callable[..., InvertedResidual]
    expansion: int
    kernel: int
    stride: int
    width: int
    depth: int


class MBConv(InvertedResidual):
    """The inverted bottleneck: (N, in, H, W) -> (N, width, H / stride, W / stride). MobileNetV2, figure 4(d), with a gate."""

    def __init__(self, in_channels: int, row: Row, *, stride: int, drop_path: float, conv: ConvNorm = conv_norm) -> None:
        inner = in_channels * row.expansion
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if row.expansion > 1:
            layers["expand"] = conv(in_channels, inner, kernel=1)
            layers["act1"] = nn.SiLU(inplace=True)
        layers["depthwise"] = conv(inner, inner, kernel=row.kernel, stride=stride, groups=inner)
        layers["act2"] = nn.SiLU(inplace=True)
        # A quarter of the block's input, not of its widened inside (the reference code; the paper leaves it open).
        layers["squeeze_excite"] = SqueezeExcite(inner, max(1, in_channels // 4))
        layers["project"] = conv(inner, row.width, kernel=1)
        super().__init__(layers, has_shortcut=stride == 1 and in_channels == row.width, drop_path=drop_path)


class FusedMBConv(InvertedResidual):
    """MBConv with its first two convolutions in one: (N, in, H, W) -> (N, width, H / stride, W / stride).

    arXiv:2104.00298, figure 2. Without expansion that one convolution is all there is.
    """

    def __init__(self, in_channels: int, row: Row, *, stride: int, drop_path: float, conv: ConvNorm = conv_norm) -> None:
        inner = in_channels * row.expansion if row.expansion > 1 else row.width
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["expand"] = conv(in_channels, inner, kernel=row.kernel, stride=stride)
        layers["act1"] = nn.SiLU(inplace=True)
        if row.expansion > 1:
            layers["project"] = conv(inner, row.width, kernel=1)
        super().__init__(layers, has_shortcut=stride == 1 and in_channels == row.width, drop_path=drop_path)


class LiteMBConv(InvertedResidual):
    """MBConv of EfficientNet-Lite, no gate and ReLU6: (N, in, H, W) -> (N, width, H / stride, W / stride). The authors' code."""

    def __init__(self, in_channels: int, row: Row, *, stride: int, drop_path: float, conv: ConvNorm = conv_norm) -> None:
        inner = in_channels * row.expansion
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if row.expansion > 1:
            layers["expand"] = conv(in_channels, inner, kernel=1)
            layers["act1"] = nn.ReLU6(inplace=True)
        layers["depthwise"] = conv(inner, inner, kernel=row.kernel, stride=stride, groups=inner)
        layers["act2"] = nn.ReLU6(inplace=True)
        layers["project"] = conv(inner, row.width, kernel=1)
        super().__init__(layers, has_shortcut=stride == 1 and in_channels == row.width, drop_path=drop_path)


@dataclass(frozen=True)
class EfficientNetConfig:
    """`stem` and `head` are channels; `stages` the rows of table 1; `act` the activation of stem and head."""

    stem: int
    stages: tuple[Row, ...]
    head: int
    dropout: float
    drop_path: float = 0.2
    act: Callable[..., nn.Module] = nn.SiLU
    conv: ConvNorm = conv_norm


TABLE_1 = (
    Row(MBConv, expansion=1, kernel=3, stride=1, width=16, depth=1),
    Row(MBConv, expansion=6, kernel=3, stride=2, width=24, depth=2),
    Row(MBConv, expansion=6, kernel=5, stride=2, width=40, depth=2),
    Row(MBConv, expansion=6, kernel=3, stride=2, width=80, depth=3),
    Row(MBConv, expansion=6, kernel=5, stride=1, width=112, depth=3),
    Row(MBConv, expansion=6, kernel=5, stride=2, width=192, depth=4),
    Row(MBConv, expansion=6, kernel=3, stride=1, width=320, depth=1),
)
"""EfficientNet-B0."""
ORIGINAL = partial(conv_norm, eps=1e-3, momentum=0.01)
"""The authors' BatchNorm settings."""


def scaled(scale: Scale, *, dropout: float, conv: ConvNorm = conv_norm) -> EfficientNetConfig:
    """B0 made deeper and wider (section 3.3; the rounding rules are those of the authors' code)."""
    rows = (replace(r, width=scaled_width(r.width, scale.width), depth=scaled_depth(r.depth, scale.depth)) for r in TABLE_1)
    return EfficientNetConfig(
        stem=scaled_width(32, scale.width),
        stages=tuple(rows),
        head=scaled_width(1280, scale.width),
        dropout=dropout,
        conv=conv,
    )


V2 = partial(conv_norm, eps=1e-3)


class SamePadding(nn.Module):
    """Zeros around a map, so that a convolution without padding gives ceil(H / stride) pixels: an odd one at the right, below.

    (N, C, H, W) -> (N, C, H + p, W + p') with p from 0 to kernel - 1. TensorFlow's "SAME".
    """

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """The map in its frame."""
        down, across = (max((ceil(n / self.stride) - 1) * self.stride + self.kernel - n, 0) for n in x.shape[-2:])
        return functional.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))

    def extra_repr(self) -> str:
        """Kernel and stride of the convolution that follows, for printing."""
        return f"kernel={self.kernel}, stride={self.stride}"


def lite_conv(in_channels: int, out_channels: int, *, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """`conv_norm` with TensorFlow's padding, which differs where the stride is not 1, and the authors' BatchNorm settings."""
    if stride == 1:
        return ORIGINAL(in_channels, out_channels, kernel=kernel, groups=groups)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["padding"] = SamePadding(kernel, stride)
    layers["conv"] = nn.Conv2d(in_channels, out_channels, kernel, stride, groups=groups, bias=False)
    layers["norm"] = nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.01)
    return nn.Sequential(layers)


VARIANTS = {
    "efficientnet_b0": scaled(PUBLISHED[0], dropout=0.2),
    "efficientnet_b1": scaled(PUBLISHED[1], dropout=0.2),
    "efficientnet_b2": scaled(PUBLISHED[2], dropout=0.3),
    "efficientnet_b3": scaled(PUBLISHED[3], dropout=0.3),
    "efficientnet_b4": scaled(PUBLISHED[4], dropout=0.4),
    "efficientnet_b5": scaled(PUBLISHED[5], dropout=0.4, conv=ORIGINAL),
    "efficientnet_b6": scaled(PUBLISHED[6], dropout=0.5, conv=ORIGINAL),
    "efficientnet_b7": scaled(PUBLISHED[7], dropout=0.5, conv=ORIGINAL),
    "efficientnet_lite0": EfficientNetConfig(
        stem=32,
        stages=tuple(replace(row, block=LiteMBConv) for row in TABLE_1),
        head=1280,
        dropout=0.2,
        act=nn.ReLU6,
        conv=lite_conv,
    ),
    "efficientnet_v2_s": EfficientNetConfig(
        stem=24,
        stages=(
            Row(FusedMBConv, expansion=1, kernel=3, stride=1, width=24, depth=2),
            Row(FusedMBConv, expansion=4, kernel=3, stride=2, width=48, depth=4),
            Row(FusedMBConv, expansion=4, kernel=3, stride=2, width=64, depth=4),
            Row(MBConv, expansion=4, kernel=3, stride=2, width=128, depth=6),
            Row(MBConv, expansion=6, kernel=3, stride=1, width=160, depth=9),
            Row(MBConv, expansion=6, kernel=3, stride=2, width=256, depth=15),
        ),
        head=1280,
        dropout=0.2,
        conv=V2,
    ),
    "efficientnet_v2_m": EfficientNetConfig(
        stem=24,
        stages=(
            Row(FusedMBConv, expansion=1, kernel=3, stride=1, width=24, depth=3),
            Row(FusedMBConv, expansion=4, kernel=3, stride=2, width=48, depth=5),
            Row(FusedMBConv, expansion=4, kernel=3, stride=2, width=80, depth=5),
            Row(MBConv, expansion=4, kernel=3, stride=2, width=160, depth=7),
            Row(MBConv, expansion=6, kernel=3, stride=1, width=176, depth=14),
            Row(MBConv, expansion=6, kernel=3, stride=2, width=304, depth=18),
            Row(MBConv, expansion=6, kernel=3, stride=1, width=512, depth=5),
        ),
        head=1280,
        dropout=0.3,
        conv=V2,
    ),
    "efficientnet_v2_l": EfficientNetConfig(
        stem=32,
        stages=(
            Row(FusedMBConv, expansion=1, kernel=3, stride=1, width=32, depth=4),
            Row(FusedMBConv, expansion=4, kernel=3, stride=2, width=64, depth=7),
            Row(FusedMBConv, expansion=4, kernel=3, stride=2, width=96, depth=7),
            Row(MBConv, expansion=4, kernel=3, stride=2, width=192, depth=10),
            Row(MBConv, expansion=6, kernel=3, stride=1, width=224, depth=19),
            Row(MBConv, expansion=6, kernel=3, stride=2, width=384, depth=25),
            Row(MBConv, expansion=6, kernel=3, stride=1, width=640, depth=7),
        ),
        head=1280,
        dropout=0.4,
        conv=V2,
    ),
    "efficientnet.pocket": EfficientNetConfig(
        stem=16,
        stages=(
            Row(MBConv, expansion=1, kernel=3, stride=2, width=16, depth=1),
            Row(MBConv, expansion=4, kernel=3, stride=1, width=24, depth=2),
            Row(MBConv, expansion=4, kernel=5, stride=2, width=40, depth=3),
            Row(MBConv, expansion=4, kernel=3, stride=2, width=80, depth=3),
        ),
        head=352,
        dropout=0.1,
        drop_path=0.0,
    ),
}


def widened(config: EfficientNetConfig, factor: float) -> EfficientNetConfig:
    """The widths of stem, stages and head `factor` times as large, to a whole number (B1 to B7: to a multiple of 8)."""
    rows = tuple(replace(row, width=scaled_width(row.width, factor, divisor=1)) for row in config.stages)
    stem, head = (scaled_width(width, factor, divisor=1) for width in (config.stem, config.head))
    return replace(config, stem=stem, stages=rows, head=head)


def _without_shortcut(block: Callable[..., InvertedResidual], in_channels: int, row: Row, **options: Any) -> InvertedResidual:
    """A block that never adds its input; without a shortcut nothing is left to pass on if its path were dropped."""
    made = block(in_channels, row, **{**options, "drop_path": 0.0})
    made.has_shortcut = False
    return made


def with_shortcuts(config: EfficientNetConfig, wanted: bool) -> EfficientNetConfig:
    """The same network with shortcuts or without."""
    if wanted:
        return config
    rows = tuple(replace(row, block=partial(_without_shortcut, row.block)) for row in config.stages)
    return replace(config, stages=rows, drop_path=0.0)


class EfficientNet(Network):
    """Stages of blocks (table 1)."""

    def __init__(self, config: EfficientNetConfig, request: Request) -> None:
        super().__init__()
        drop_path = config.drop_path if request.drop_path_rate is None else request.drop_path_rate
        blocks = sum(row.depth for row in config.stages)
        # The reference divides by the number of blocks, so that the last block stays below the stated rate.
        rates = iter(drop_path_rates(drop_path * (blocks - 1) / blocks, blocks))
        stem = config.conv(request.in_chans, config.stem, kernel=3, stride=1 if request.small else 2)
        self.stem = nn.Sequential(stem, config.act(inplace=True))
        channels = config.stem
        stages = []
        for row in config.stages:
            stage = []
            for i in range(row.depth):
                stride = row.stride if i == 0 else 1
                stage.append(row.block(channels, row, stride=stride, drop_path=next(rates), conv=config.conv))
                channels = row.width
            stages.append(nn.Sequential(*stage))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Sequential(
            OrderedDict(
                conv=config.conv(channels, config.head, kernel=1),
                act=config.act(inplace=True),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                dropout=request.dropout(config.dropout),
                classifier=classifier(config.head, request.num_classes),
            )
        )
        initialise_he(self)

    def units(self) -> Iterable[nn.Module]:
        """The blocks."""
        return blocks_of(self.stages)
