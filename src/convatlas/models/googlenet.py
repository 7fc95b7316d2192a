"""GoogLeNet (2014): parallel branches of several kernel sizes, made affordable by 1x1 convolutions.

Paper: Szegedy et al., "Going Deeper with Convolutions", arXiv:1409.4842, figure 2(b), figure 3 and table 1. BatchNorm from
Ioffe & Szegedy, "Batch Normalization", arXiv:1502.03167.

    stem        7x7 stride 2, pooling, 1x1, 3x3, pooling                 table 1, first rows
    Inception   1x1 | 1x1, 3x3 | 1x1, "5x5" | 3x3 pooling, 1x1, joined   figure 2(b)
    stages      3a 3b | 4a 4b 4c 4d 4e | 5a 5b, pooled in between        table 1
    head        global average pooling, dropout 0.2 here, linear         table 1 (dropout 0.4 there)
    auxiliary   two further classifiers, at 4a and 4d, in training only  section 5
    norm        local response normalisation in the stem                 figure 3 (googlenet.paper)

Departures of the bare name, each as in the weights people load: BatchNorm instead of local response normalisation; the "5x5"
branch is 3x3 (a slip in the port from which the published weights come); pooling rounds up and is 2x2 before stage 5, not 3x3;
the auxiliary heads average to a 4x4 map, whatever the image size, instead of 5x5 with stride 3; dropout 0.2.
`googlenet.paper` undoes all of them but one: pooling rounds up there too, since only so 224 pixels give table 1's maps of 56,
28, 14 and 7. Its normalisation has AlexNet's constants (the paper names none), its initialisation is He's.
Small images (up to 64 pixels): the first convolution is 3x3 with stride 1 and its pooling is left out; in `googlenet.paper` the
auxiliary heads average to a 4x4 map, as in the bare name.
The pocket member has no auxiliary classifiers: on networks this shallow they only cost.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from functools import partial

import torch
from torch import Tensor, nn

from convatlas.arith.scaling import scaled_width
from convatlas.layers.conv_norm import conv_norm
from convatlas.layers.network import Network, Request, blocks_of, classifier, initialise_he

NORM_EPS = 1e-3
AUXILIARY_WEIGHT = 0.3
"""Section 5: the auxiliary losses were weighted by 0.3."""


@dataclass(frozen=True)
class InceptionWidths:
    """Output channels of each branch, in the order of table 1's columns; `reduce` are the 1x1 convolutions before them."""

    conv1: int
    reduce3: int
    conv3: int
    reduce5: int
    conv5: int
    pool: int

    @property
    def total(self) -> int:
        """Channels of the module's output: all branches joined."""
        return self.conv1 + self.conv3 + self.conv5 + self.pool


def normalised(in_channels: int, out_channels: int, *, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution, BatchNorm and ReLU: (N, in, H, W) -> (N, out, H / stride, W / stride)."""
    return nn.Sequential(conv_norm(in_channels, out_channels, kernel=kernel, stride=stride, eps=NORM_EPS), nn.ReLU(inplace=True))


def plain(in_channels: int, out_channels: int, *, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution and ReLU: (N, in, H, W) -> (N, out, H / stride, W / stride). Section 5, "all the convolutions"."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2), nn.ReLU(inplace=True))


Layer = Callable[..., nn.Sequential]
"""Makes a convolution with what follows it, from (in_channels, out_channels, kernel=, stride=)."""


class Inception(nn.Module):
    """Four branches joined along the channels: (N, in, H, W) -> (N, widths.total, H, W). Figure 2(b).

    `kernel5` is the kernel of the branch that the paper calls 5x5.
    """

    def __init__(self, in_channels: int, widths: InceptionWidths, *, layer: Layer, kernel5: int) -> None:
        super().__init__()
        w = widths
        self.branch1 = layer(in_channels, w.conv1, kernel=1)
        self.branch3 = nn.Sequential(layer(in_channels, w.reduce3, kernel=1), layer(w.reduce3, w.conv3, kernel=3))
        self.branch5 = nn.Sequential(layer(in_channels, w.reduce5, kernel=1), layer(w.reduce5, w.conv5, kernel=kernel5))
        self.branch_pool = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), layer(in_channels, w.pool, kernel=1))

    def forward(self, x: Tensor) -> Tensor:
        """The four branches' maps, joined."""
        return torch.cat([self.branch1(x), self.branch3(x), self.branch5(x), self.branch_pool(x)], dim=1)


class AuxiliaryHead(nn.Module):
    """A classifier half-way up: (N, in, H, W) -> (N, num_classes). Section 5, last list. `pool` gives a map of 4x4."""

    def __init__(self, in_channels: int, num_classes: int, *, layer: Layer, pool: nn.Module) -> None:
        super().__init__()
        self.pool = pool
        self.conv = layer(in_channels, 128, kernel=1)
        self.linear = nn.Linear(128 * 4 * 4, 1024)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.7)
        self.classifier = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Auxiliary logits."""
        x = self.conv(self.pool(x)).flatten(1)
        logits: Tensor = self.classifier(self.dropout(self.relu(self.linear(x))))
        return logits


@dataclass(frozen=True)
class GoogLeNetConfig:
    """`stem` are the channels of its three convolutions; `stages` the Inception modules of 3, 4 and 5 (table 1).

    `layer` makes a convolution with what follows it, `norm` what normalises in the stem, `auxiliary_pool` the pooling of the
    auxiliary heads, if there are any. `kernel5` is the kernel of the 5x5 branch, `pool5` that of the pooling before stage 5.
    """

    stem: tuple[int, int, int]
    stages: tuple[tuple[InceptionWidths, ...], ...]
    auxiliary_pool: Callable[[], nn.Module] | None
    layer: Layer = normalised
    norm: Callable[[], nn.Module] = nn.Identity
    kernel5: int = 3
    pool5: int = 2
    dropout: float = 0.2


TABLE_1 = (
    (InceptionWidths(64, 96, 128, 16, 32, 32), InceptionWidths(128, 128, 192, 32, 96, 64)),
    (
        InceptionWidths(192, 96, 208, 16, 48, 64),
        InceptionWidths(160, 112, 224, 24, 64, 64),
        InceptionWidths(128, 128, 256, 24, 64, 64),
        InceptionWidths(112, 144, 288, 32, 64, 64),
        InceptionWidths(256, 160, 320, 32, 128, 128),
    ),
    (InceptionWidths(256, 160, 320, 32, 128, 128), InceptionWidths(384, 192, 384, 48, 128, 128)),
)
POCKET = (
    (InceptionWidths(16, 24, 32, 8, 8, 8), InceptionWidths(32, 32, 48, 8, 24, 16)),
    (InceptionWidths(48, 24, 56, 8, 16, 16), InceptionWidths(64, 40, 80, 8, 24, 24)),
    (InceptionWidths(64, 40, 80, 8, 32, 32), InceptionWidths(96, 48, 96, 16, 32, 32)),
)
to_4x4 = partial(nn.AdaptiveAvgPool2d, 4)

VARIANTS = {
    "googlenet": GoogLeNetConfig((64, 64, 192), TABLE_1, auxiliary_pool=to_4x4),
    "googlenet.paper": GoogLeNetConfig(
        (64, 64, 192),
        TABLE_1,
        auxiliary_pool=partial(nn.AvgPool2d, 5, 3),
        layer=plain,
        # torch divides alpha by the number of channels summed, AlexNet's formula does not (its section 3.3).
        norm=partial(nn.LocalResponseNorm, 5, alpha=5 * 1e-4, beta=0.75, k=2.0),
        kernel5=5,
        pool5=3,
        dropout=0.4,
    ),
    "googlenet.pocket": GoogLeNetConfig((16, 16, 48), POCKET, auxiliary_pool=None),
}
AUXILIARY_AFTER = (0, 3)
"""Modules of the middle stage whose outputs the auxiliary heads see: 4a and 4d (section 5)."""


def widened(config: GoogLeNetConfig, factor: float) -> GoogLeNetConfig:
    """The widths of the stem and of every branch `factor` times as large; auxiliary heads keep theirs."""
    w1, w2, w3 = (scaled_width(width, factor, divisor=1) for width in config.stem)
    stages = tuple(tuple(_widened_module(widths, factor) for widths in stage) for stage in config.stages)
    return replace(config, stem=(w1, w2, w3), stages=stages)


def _widened_module(widths: InceptionWidths, factor: float) -> InceptionWidths:
    return InceptionWidths(*(scaled_width(getattr(widths, each.name), factor, divisor=1) for each in fields(widths)))


class GoogLeNet(Network):
    """Stages of Inception modules (table 1). Auxiliary logits come from `training_logits` only."""

    def __init__(self, config: GoogLeNetConfig, request: Request) -> None:
        super().__init__()
        request.no_drop_path("GoogLeNet")
        self.stem = _stem(config, request.in_chans, small=request.small)
        three, four, five = config.stages
        c3, c4 = config.stem[-1], three[-1].total
        c5 = four[-1].total
        self.stages = nn.Sequential(
            _stage(config, c3, three, pool=None),
            _stage(config, c4, four, pool=_pool(3)),
            _stage(config, c5, five, pool=_pool(config.pool5)),
        )
        self.head = nn.Sequential(
            OrderedDict(
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                dropout=request.dropout(config.dropout),
                classifier=classifier(five[-1].total, request.num_classes),
            )
        )
        self.auxiliary = nn.ModuleList()
        if config.auxiliary_pool is not None and request.num_classes > 0:
            pool = to_4x4 if request.small else config.auxiliary_pool
            for i in AUXILIARY_AFTER:
                self.auxiliary.append(AuxiliaryHead(four[i].total, request.num_classes, layer=config.layer, pool=pool()))
        initialise_he(self)

    def units(self) -> Iterable[nn.Module]:
        """The Inception modules and the poolings between them."""
        return blocks_of(self.stages)

    def training_logits(self, x: Tensor) -> tuple[tuple[float, Tensor], ...]:
        """The network's logits with weight 1, and in training mode each auxiliary head's with weight 0.3."""
        if not (self.training and self.auxiliary):
            return super().training_logits(x)
        stage3, stage4, stage5 = (stage.children() for stage in self.stages)
        taps = []
        x = self.run(stage3, self.stem(x))
        # The pooling that begins the stage, then its modules one by one.
        for i, module in enumerate(stage4, start=-1):
            x = self.run([module], x)
            if i in AUXILIARY_AFTER:
                taps.append(x)
        logits = self.head(self.run(stage5, x))
        weights = (AUXILIARY_WEIGHT for _ in taps)
        return ((1.0, logits), *((w, head(tap)) for w, head, tap in zip(weights, self.auxiliary, taps, strict=True)))

    def auxiliary_parameters(self) -> list[nn.Parameter]:
        """The parameters of the auxiliary heads."""
        return list(self.auxiliary.parameters())


def _pool(kernel: int) -> nn.MaxPool2d:
    """Max pooling to half the map's side, rounded up."""
    return nn.MaxPool2d(kernel, stride=2, ceil_mode=True)


def _stem(config: GoogLeNetConfig, in_chans: int, *, small: bool) -> nn.Sequential:
    w1, w2, w3 = config.stem
    first = [config.layer(in_chans, w1, kernel=3)] if small else [config.layer(in_chans, w1, kernel=7, stride=2), _pool(3)]
    then = [config.norm(), config.layer(w1, w2, kernel=1), config.layer(w2, w3, kernel=3), config.norm(), _pool(3)]
    return nn.Sequential(*first, *(layer for layer in then if not isinstance(layer, nn.Identity)))


def _stage(
    config: GoogLeNetConfig, in_channels: int, modules: tuple[InceptionWidths, ...], *, pool: nn.Module | None
) -> nn.Sequential:
    """The pooling that precedes a stage, if any, and its Inception modules, called inception0, inception1, ..."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if pool is not None:
        layers["downsample"] = pool
    for i, widths in enumerate(modules):
        layers[f"inception{i}"] = Inception(in_channels, widths, layer=config.layer, kernel5=config.kernel5)
        in_channels = widths.total
    return nn.Sequential(layers)
