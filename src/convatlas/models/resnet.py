"""ResNet (2015): blocks learn what to add to their input, so that depth no longer hurts.

Paper: He, Zhang, Ren & Sun, "Deep Residual Learning for Image Recognition", arXiv:1512.03385.
ResNeXt: Xie, Girshick, Dollar, Tu & He, "Aggregated Residual Transformations for Deep Neural Networks", arXiv:1611.05431.
Wide ResNet: Zagoruyko & Komodakis, "Wide Residual Networks", arXiv:1605.07146.

    block        y = relu(F(x) + shortcut(x))                    section 3.2, equations (1) and (2)
    BasicBlock   F is 3x3, 3x3                                   figure 5, left
    Bottleneck   F is 1x1 (reduce), 3x3, 1x1 (expand by 4)       figure 5, right
    ResNeXt      Bottlenecks whose 3x3 has 32 groups             arXiv:1611.05431, table 1, figure 3(c)
    wide         Bottlenecks whose 3x3 is twice as wide          as in the weights people load
    stem         7x7 stride 2, then 3x3 max pooling stride 2     table 1, conv1 and conv2_x
    stages       four, at 1/4, 1/8, 1/16, 1/32 of the image      table 1
    CIFAR-10     3x3 stem, three stages of 16, 32, 64 channels   section 4.2 (resnet20 to resnet110)
    plain        the CIFAR-10 networks without shortcuts         section 4.2 (resnet20.plain to resnet110.plain)
    head         global average pooling, linear                  table 1

Departures of the bare names, each as in the weights people load:
- Bottlenecks stride on the 3x3, not on the first 1x1 ("ResNet v1.5"), which keeps the 1x1 from skipping three pixels of four.
- Where shapes change, the shortcut is a 1x1 convolution (option B of section 3.3), in ResNet-18 and ResNet-34 too, for which
  table 2 has zero padding (option A).
The `.paper` variants undo them: `resnet18.paper` and `resnet34.paper` pad with zeros, `resnet50.paper`, `resnet101.paper` and
`resnet152.paper` stride on the first 1x1. The CIFAR networks have option A, as published; the paper leaves open which channels
are the zeros: half of them come before and half after, as in the weights people load.
Small images (up to 64 pixels): the stem is one 3x3 convolution of stride 1 without pooling, as in section 4.2 for CIFAR-10.
The pocket member is the paper's CIFAR network with 20 layers (section 4.2, n = 3), with option B shortcuts.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from convatlas.arith.scaling import scaled_width
from convatlas.errors import UserError
from convatlas.layers.conv_norm import conv_norm
from convatlas.layers.network import Network, Request, blocks_of, classifier, initialise_he

Shortcut = Callable[[int, int, int], nn.Module]
"""Makes a shortcut from (in_channels, out_channels, stride), for blocks that change the shape."""


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """A strided 1x1 convolution: (N, in, H, W) -> (N, out, H / stride, W / stride). Option B of section 3.3."""
    return conv_norm(in_channels, out_channels, kernel=1, stride=stride)


class ZeroPadding(nn.Module):
    """Every stride-th pixel, and channels of zeros: (N, in, H, W) -> (N, out, H / stride, W / stride). Section 3.3, option A."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (out_channels - in_channels) // 2
        self.after = out_channels - in_channels - self.before

    def forward(self, x: Tensor) -> Tensor:
        """The thinned map between zeros."""
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))

    def extra_repr(self) -> str:
        """Stride and channels of zeros, for printing."""
        return f"stride={self.stride}, before={self.before}, after={self.after}"


def _shortcut(in_channels: int, out_channels: int, stride: int, changed: Shortcut) -> nn.Module:
    """The identity where shapes allow it (section 3.2, equation (1)), else what `changed` makes."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return changed(in_channels, out_channels, stride)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (N, in, H, W) -> (N, width, H / stride, W / stride). Figure 5, left."""

    def __init__(self, in_channels: int, width: int, *, stride: int, shortcut: Shortcut = projection) -> None:
        super().__init__()
        self.out_channels = width
        self.conv1 = conv_norm(in_channels, width, kernel=3, stride=stride)
        self.conv2 = conv_norm(width, width, kernel=3)
        self.shortcut = _shortcut(in_channels, width, stride, shortcut)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """relu(F(x) + shortcut(x))."""
        residual = self.conv2(self.relu(self.conv1(x)))
        out: Tensor = self.relu(residual + self.shortcut(x))
        return out


class Bottleneck(nn.Module):
    """1x1 to `width`, 3x3 in `groups`, 1x1 to `expansion * width`, and a shortcut.

    (N, in, H, W) -> (N, expansion * width, H / stride, W / stride). Figure 5, right; with groups arXiv:1611.05431, figure 3(c).
    """

    def __init__(self, in_channels: int, width: int, *, stride: int, expansion: int = 4, groups: int = 1) -> None:
        super().__init__()
        self.out_channels = width * expansion
        self.conv1 = conv_norm(in_channels, width, kernel=1)
        self.conv2 = conv_norm(width, width, kernel=3, stride=stride, groups=groups)
        self.conv3 = conv_norm(width, self.out_channels, kernel=1)
        self.shortcut = _shortcut(in_channels, self.out_channels, stride, projection)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """relu(F(x) + shortcut(x))."""
        residual = self.conv3(self.relu(self.conv2(self.relu(self.conv1(x)))))
        out: Tensor = self.relu(residual + self.shortcut(x))
        return out


class PaperBottleneck(nn.Module):
    """A Bottleneck that strides on its first 1x1: (N, in, H, W) -> (N, 4 * width, H / stride, W / stride).

    Section 4.1 and table 1 ("downsampling is performed by conv3_1, conv4_1, and conv5_1").
    """

    def __init__(self, in_channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.out_channels = width * 4
        self.conv1 = conv_norm(in_channels, width, kernel=1, stride=stride)
        self.conv2 = conv_norm(width, width, kernel=3)
        self.conv3 = conv_norm(width, self.out_channels, kernel=1)
        self.shortcut = _shortcut(in_channels, self.out_channels, stride, projection)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """relu(F(x) + shortcut(x))."""
        residual = self.conv3(self.relu(self.conv2(self.relu(self.conv1(x)))))
        out: Tensor = self.relu(residual + self.shortcut(x))
        return out


class PlainBlock(nn.Module):
    """A BasicBlock without its shortcut: (N, in, H, W) -> (N, width, H / stride, W / stride). Section 4.2, "plain" networks."""

    def __init__(self, in_channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.out_channels = width
        self.conv1 = conv_norm(in_channels, width, kernel=3, stride=stride)
        self.conv2 = conv_norm(width, width, kernel=3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """relu(F(x))."""
        out: Tensor = self.relu(self.conv2(self.relu(self.conv1(x))))
        return out


Block = BasicBlock | Bottleneck | PaperBottleneck | PlainBlock
ZERO_PADDED = partial(BasicBlock, shortcut=ZeroPadding)


@dataclass(frozen=True)
class ResNetConfig:
    """`depths` and `widths` give each stage's number of blocks and the channels of its 3x3 convolutions; `stem` its channels.

    `block` makes a block from (in_channels, width, stride=).
    """

    block: Callable[..., Block]
    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem: int = 64


DOUBLED = (128, 256, 512, 1024)
"""Channels of the 3x3 convolutions of ResNeXt 32x4d and of the wide networks. `resnext101_32x8d` doubles them again."""


def _cifar(n: int, block: Callable[..., Block] = ZERO_PADDED) -> ResNetConfig:
    """The CIFAR-10 network of 6n + 2 layers (section 4.2), with option A shortcuts or of another block."""
    return ResNetConfig(block, (n, n, n), (16, 32, 64), stem=16)


VARIANTS = {
    "resnet18": ResNetConfig(BasicBlock, (2, 2, 2, 2)),
    "resnet34": ResNetConfig(BasicBlock, (3, 4, 6, 3)),
    "resnet50": ResNetConfig(Bottleneck, (3, 4, 6, 3)),
    "resnet101": ResNetConfig(Bottleneck, (3, 4, 23, 3)),
    "resnet152": ResNetConfig(Bottleneck, (3, 8, 36, 3)),
    "resnet18.paper": ResNetConfig(ZERO_PADDED, (2, 2, 2, 2)),
    "resnet34.paper": ResNetConfig(ZERO_PADDED, (3, 4, 6, 3)),
    "resnet50.paper": ResNetConfig(PaperBottleneck, (3, 4, 6, 3)),
    "resnet101.paper": ResNetConfig(PaperBottleneck, (3, 4, 23, 3)),
    "resnet152.paper": ResNetConfig(PaperBottleneck, (3, 8, 36, 3)),
    "resnext50_32x4d": ResNetConfig(partial(Bottleneck, expansion=2, groups=32), (3, 4, 6, 3), DOUBLED),
    "resnext101_32x8d": ResNetConfig(partial(Bottleneck, expansion=1, groups=32), (3, 4, 23, 3), (256, 512, 1024, 2048)),
    "wide_resnet50_2": ResNetConfig(partial(Bottleneck, expansion=2), (3, 4, 6, 3), DOUBLED),
    "wide_resnet101_2": ResNetConfig(partial(Bottleneck, expansion=2), (3, 4, 23, 3), DOUBLED),
    "resnet20": _cifar(3),
    "resnet32": _cifar(5),
    "resnet44": _cifar(7),
    "resnet56": _cifar(9),
    "resnet110": _cifar(18),
    "resnet20.plain": _cifar(3, PlainBlock),
    "resnet32.plain": _cifar(5, PlainBlock),
    "resnet44.plain": _cifar(7, PlainBlock),
    "resnet56.plain": _cifar(9, PlainBlock),
    "resnet110.plain": _cifar(18, PlainBlock),
    "resnet.pocket": ResNetConfig(BasicBlock, (3, 3, 3), (16, 32, 64), stem=16),
}


def widened(config: ResNetConfig, factor: float) -> ResNetConfig:
    """All widths `factor` times as large, those of grouped convolutions to a multiple of their groups."""
    groups = config.block.keywords.get("groups", 1) if isinstance(config.block, partial) else 1
    widths = tuple(scaled_width(width, factor, divisor=groups) for width in config.widths)
    return replace(config, widths=widths, stem=scaled_width(config.stem, factor, divisor=1))


def with_shortcuts(config: ResNetConfig, wanted: bool) -> ResNetConfig:
    """The same network with shortcuts or without (section 4.2, "plain" networks). Raises UserError for bottlenecks."""
    if wanted:
        return replace(config, block=ZERO_PADDED) if config.block is PlainBlock else config
    if config.block not in (BasicBlock, ZERO_PADDED, PlainBlock):
        fix = "Take a network of basic blocks, such as resnet.pocket, resnet20 or resnet18."
        raise UserError("bottleneck blocks have no form without shortcut", fix=fix)
    return replace(config, block=PlainBlock)


class ResNet(Network):
    """A residual network (table 1)."""

    def __init__(self, config: ResNetConfig, request: Request) -> None:
        super().__init__()
        request.no_drop_path("ResNet")
        self.stem = _stem(request.in_chans, config.stem, small=request.small)
        channels = config.stem
        stages = []
        for i, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True)):
            blocks: list[Block] = []
            for j in range(depth):
                blocks.append(config.block(channels, width, stride=2 if i > 0 and j == 0 else 1))
                channels = blocks[-1].out_channels
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Sequential(
            OrderedDict(
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                dropout=request.dropout(0.0),
                classifier=classifier(channels, request.num_classes),
            )
        )
        initialise_he(self)

    def units(self) -> Iterable[nn.Module]:
        """The residual blocks."""
        return blocks_of(self.stages)


def _stem(in_chans: int, width: int, *, small: bool) -> nn.Sequential:
    if small:
        return nn.Sequential(conv_norm(in_chans, width, kernel=3), nn.ReLU(inplace=True))
    return nn.Sequential(
        conv_norm(in_chans, width, kernel=7, stride=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    )
