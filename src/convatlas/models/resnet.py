"""ResNet (2015): blocks learn what to add to their input, so that depth no longer hurts.

Paper: He, Zhang, Ren & Sun, "Deep Residual Learning for Image Recognition", arXiv:1512.03385.

    block        y = relu(F(x) + shortcut(x))                    section 3.2, equations (1) and (2)
    BasicBlock   F is 3x3, 3x3                                   figure 5, left
    Bottleneck   F is 1x1 (reduce), 3x3, 1x1 (expand by 4)       figure 5, right
    stem         7x7 stride 2, then 3x3 max pooling stride 2     table 1, conv1 and conv2_x
    stages       four, at 1/4, 1/8, 1/16, 1/32 of the image      table 1
    head         global average pooling, linear                  table 1

Departures of the bare names, each as in the weights people load:
- Bottlenecks stride on the 3x3, not on the first 1x1 ("ResNet v1.5"), which keeps the 1x1 from skipping three pixels of four.
- Where shapes change, the shortcut is a 1x1 convolution (option B of section 3.3), in ResNet-18 too, for which table 2 has
  zero padding (option A).
Small images (up to 64 pixels): the stem is one 3x3 convolution of stride 1 without pooling, as in section 4.2 for CIFAR-10.
The pocket member is the paper's CIFAR network with 20 layers (section 4.2, n = 3), with option B shortcuts.
"""

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn

from convatlas.layers.conv_norm import conv_norm
from convatlas.layers.network import Network, Request, classifier, initialise_he


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (N, in, H, W) -> (N, width, H / stride, W / stride). Figure 5, left."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = conv_norm(in_channels, width, kernel=3, stride=stride)
        self.conv2 = conv_norm(width, width, kernel=3)
        self.shortcut = _shortcut(in_channels, width, stride=stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """relu(F(x) + shortcut(x))."""
        residual = self.conv2(self.relu(self.conv1(x)))
        out: Tensor = self.relu(residual + self.shortcut(x))
        return out


class Bottleneck(nn.Module):
    """1x1 to `width`, 3x3, 1x1 to 4 * width, and a shortcut: (N, in, H, W) -> (N, 4 * width, H / stride, W / stride).

    Figure 5, right.
    """

    expansion = 4

    def __init__(self, in_channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = conv_norm(in_channels, width, kernel=1)
        self.conv2 = conv_norm(width, width, kernel=3, stride=stride)
        self.conv3 = conv_norm(width, out_channels, kernel=1)
        self.shortcut = _shortcut(in_channels, out_channels, stride=stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """relu(F(x) + shortcut(x))."""
        residual = self.conv3(self.relu(self.conv2(self.relu(self.conv1(x)))))
        out: Tensor = self.relu(residual + self.shortcut(x))
        return out


def _shortcut(in_channels: int, out_channels: int, *, stride: int) -> nn.Module:
    """The identity where shapes allow it, else a strided 1x1 convolution (option B of section 3.3)."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return conv_norm(in_channels, out_channels, kernel=1, stride=stride)


@dataclass(frozen=True)
class ResNetConfig:
    """`depths` and `widths` give each stage's number of blocks and the channels of its 3x3 convolutions."""

    block: type[BasicBlock] | type[Bottleneck]
    depths: tuple[int, ...]
    widths: tuple[int, ...]


VARIANTS = {
    "resnet18": ResNetConfig(BasicBlock, (2, 2, 2, 2), (64, 128, 256, 512)),
    "resnet50": ResNetConfig(Bottleneck, (3, 4, 6, 3), (64, 128, 256, 512)),
    "resnet.pocket": ResNetConfig(BasicBlock, (3, 3, 3), (16, 32, 64)),
}


class ResNet(Network):
    """A residual network (table 1)."""

    def __init__(self, config: ResNetConfig, request: Request) -> None:
        super().__init__()
        request.no_drop_path("ResNet")
        self.stem = _stem(request.in_chans, config.widths[0], small=request.small)
        channels = config.widths[0]
        stages = []
        for i, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True)):
            stages.append(_stage(config.block, channels, width, depth=depth, stride=1 if i == 0 else 2))
            channels = width * config.block.expansion
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


def _stem(in_chans: int, width: int, *, small: bool) -> nn.Sequential:
    if small:
        return nn.Sequential(conv_norm(in_chans, width, kernel=3), nn.ReLU(inplace=True))
    return nn.Sequential(
        conv_norm(in_chans, width, kernel=7, stride=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    )


def _stage(block: type[BasicBlock] | type[Bottleneck], in_channels: int, width: int, *, depth: int, stride: int) -> nn.Sequential:
    """`depth` blocks, of which the first changes the resolution by `stride` and the number of channels."""
    first = block(in_channels, width, stride=stride)
    rest = (block(width * block.expansion, width, stride=1) for _ in range(depth - 1))
    return nn.Sequential(first, *rest)
