"""AlexNet (2012): deep learning's entry into ImageNet, with ReLU, dropout and GPUs.

Paper: Krizhevsky, Sutskever & Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012,
section 3.5 and figure 2. The bare name is the one-tower form of Krizhevsky, "One weird trick for parallelizing
convolutional neural networks", arXiv:1404.5997, whose weights people load.

    stem     11x11 stride 4, ReLU, overlapping max pooling (section 3.4: 3x3 stride 2)
    stages   5x5 and pooling; three 3x3 and pooling
    head     dropout, 4096, dropout, 4096, classes (section 4.2)

Departures of `alexnet` from the 2012 paper: one tower instead of two on two GPUs; 64, 192, 384, 256, 256 channels; no local
response normalisation; two pixels of padding at the first convolution; He initialisation instead of a normal one with
deviation 0.01 and some biases of 1.
Small images (up to 64 pixels): the stem's convolution is 5x5 with stride 1, and the head looks at the whole last map if it is
smaller than 6x6.
"""

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from convatlas.arith.shapes import conv_output_size
from convatlas.layers.network import Network, Request, classifier, initialise_he

HEAD_GRID = 6


@dataclass(frozen=True)
class AlexNetConfig:
    """`widths` are the channels of the five convolutions, `hidden` the units of the two hidden linear layers."""

    widths: tuple[int, int, int, int, int]
    hidden: int
    dropout: float


VARIANTS = {
    "alexnet": AlexNetConfig((64, 192, 384, 256, 256), hidden=4096, dropout=0.5),
    "alexnet.pocket": AlexNetConfig((24, 56, 96, 64, 64), hidden=128, dropout=0.1),
}


class AlexNet(Network):
    """Five convolutions, three fully connected layers (figure 2)."""

    def __init__(self, config: AlexNetConfig, request: Request) -> None:
        super().__init__()
        request.no_drop_path("AlexNet")
        w1, w2, w3, w4, w5 = config.widths
        first = nn.Conv2d(request.in_chans, w1, 5, padding=2) if request.small else nn.Conv2d(request.in_chans, w1, 11, 4, 2)
        self.stem = nn.Sequential(first, nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2))
        self.stages = nn.Sequential(
            nn.Sequential(nn.Conv2d(w1, w2, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2)),
            nn.Sequential(
                *_conv(w2, w3),
                *_conv(w3, w4),
                *_conv(w4, w5),
                nn.MaxPool2d(3, stride=2),
            ),
        )
        grid = min(HEAD_GRID, _last_map(request))
        self.head = nn.Sequential(
            OrderedDict(
                pool=nn.AdaptiveAvgPool2d(grid),
                flatten=nn.Flatten(),
                dropout1=request.dropout(config.dropout),
                linear1=nn.Linear(w5 * grid * grid, config.hidden),
                relu1=nn.ReLU(inplace=True),
                dropout2=request.dropout(config.dropout),
                linear2=nn.Linear(config.hidden, config.hidden),
                relu2=nn.ReLU(inplace=True),
                classifier=classifier(config.hidden, request.num_classes),
            )
        )
        initialise_he(self)


def _conv(in_channels: int, out_channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.ReLU(inplace=True)


def _last_map(request: Request) -> int:
    """Pixels a side of the last map: three poolings of 3x3 stride 2, after the stem's convolution. At least 1."""
    size = request.image_size
    if not request.small:
        size = conv_output_size(size, kernel=11, stride=4, padding=2)
    for _ in range(3):
        size = conv_output_size(size, kernel=3, stride=2)
    return max(size, 1)
