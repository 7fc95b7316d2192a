"""AlexNet (2012): deep learning's entry into ImageNet, with ReLU, dropout and GPUs.

Paper: Krizhevsky, Sutskever & Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012,
section 3.5 and figure 2. The bare name is the one-tower form of Krizhevsky, "One weird trick for parallelizing
convolutional neural networks", arXiv:1404.5997, whose weights people load.

    stem     11x11 stride 4, ReLU, overlapping max pooling (section 3.4: 3x3 stride 2)
    stages   5x5 and pooling; three 3x3 and pooling
    head     dropout, 4096, dropout, 4096, classes (section 4.2)
    input    pixels less their mean, not divided by anything     section 2 (alexnet.paper)
    towers   convolutions two, four and five in two groups       section 3.5 (alexnet.paper)
    norm     local response normalisation before poolings 1, 2   section 3.3 (alexnet.paper)

Departures of `alexnet` from the 2012 paper: one tower instead of two on two GPUs; 64, 192, 384, 256, 256 channels; no local
response normalisation; two pixels of padding at the first convolution; dropout before the hidden linear layers instead of
after them; He initialisation instead of a normal one with deviation 0.01 and some biases of 1 (section 5).
`alexnet.paper` undoes all of them: 96, 256, 384, 384, 256 channels, 60,965,224 parameters. Where the paper leaves room, it
follows the authors' source code (github.com/computerhistory/AlexNet-Source-Code; layers-145.cfg, whose log has the errors
that table 2 gives for one network):
- With a stride of 4 and no padding, 224 pixels do not give figure 2's 55x55. The code rounds up: the last windows reach three
  pixels over the right and the lower edge, where zeros are put here.
- Each tower normalises over its own maps.
The paper's network sees raw pixels less their mean, and its initial deviation of 0.01 and its alpha count on their size. Here
images come divided by their deviation, so the stem multiplies by 58, which is 255 times the mean of 0.229, 0.224 and 0.225, the
deviations of ImageNet's colours. Without that training hardly begins (docs/LOG.md).
Where paper and code contradict each other, it follows the paper: alpha is 1e-4 times the sum (the code divides by the five maps
summed, as torch does, which therefore gets five times the alpha); every normalisation comes after ReLU (the code's first
before it) and is the only one (the code's second has a spatial one after it); the deviation is 0.01 in every layer (0.03 in
the code's last three convolutions).
Small images (up to 64 pixels): the stem's convolution is 5x5 with stride 1, and the head looks at the whole last map if it is
smaller than 6x6.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import local_response_norm

from convatlas.arith.scaling import scaled_width
from convatlas.arith.shapes import conv_output_size
from convatlas.layers.network import Network, Request, classifier, initialise_he

HEAD_GRID = 6
FIRST_BIASES = (0, 1, 0, 1, 1, 1, 1, 0)
"""Of the five convolutions and three linear layers of the paper (section 5)."""


PIXEL_DEVIATION = 58.0
"""Of raw pixels, 0 to 255, over ImageNet."""


class RawPixels(nn.Module):
    """Normalised images made as large as raw pixels: (N, C, H, W) -> the same. Section 2."""

    def forward(self, x: Tensor) -> Tensor:
        """x times the deviation of pixels."""
        return PIXEL_DEVIATION * x


class ResponseNorm(nn.Module):
    """Local response normalisation within each of `towers` equal groups of maps: (N, C, H, W) -> the same. Section 3.3.

    b_i = a_i / (k + alpha * sum of a_j ** 2 over the n nearest maps j, i among them) ** beta.
    """

    k, n, alpha, beta = 2.0, 5, 1e-4, 0.75

    def __init__(self, towers: int) -> None:
        super().__init__()
        self.towers = towers

    def forward(self, a: Tensor) -> Tensor:
        """The normalised maps. torch takes the mean over n maps, not their sum."""
        norm = partial(local_response_norm, size=self.n, alpha=self.n * self.alpha, beta=self.beta, k=self.k)
        return torch.cat([norm(tower) for tower in a.chunk(self.towers, dim=1)], dim=1)


def initialise_as_published(network: nn.Module) -> None:
    """Weights normal with deviation 0.01; biases 1 where ReLU should have positive inputs at first, else 0 (section 5)."""
    layers = (module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Linear)))
    for layer, bias in zip(layers, FIRST_BIASES, strict=False):  # without classes the last linear layer is missing
        assert layer.bias is not None
        if layer.weight.is_meta:
            return  # no values to draw, and torch would import for seconds in order to draw none
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.constant_(layer.bias, bias)


@dataclass(frozen=True)
class AlexNetConfig:
    """`widths` are the channels of the five convolutions, `hidden` the units of the two hidden linear layers.

    `entry` makes what stands before the first convolution, `norm` what stands before the first two poolings. `border` are the
    pixels of zeros before and after each row and column of large images, `towers` the groups of the second, fourth and fifth
    convolution, `hidden_layer` is a hidden layer's order.
    """

    widths: tuple[int, int, int, int, int]
    hidden: int
    dropout: float
    entry: Callable[[], tuple[nn.Module, ...]] = tuple
    border: tuple[int, int] = (2, 2)
    towers: int = 1
    norm: Callable[[], tuple[nn.Module, ...]] = tuple
    hidden_layer: tuple[str, str, str] = ("dropout", "linear", "relu")
    initialise: Callable[[nn.Module], None] = initialise_he


VARIANTS = {
    "alexnet": AlexNetConfig((64, 192, 384, 256, 256), hidden=4096, dropout=0.5),
    "alexnet.paper": AlexNetConfig(
        (96, 256, 384, 384, 256),
        hidden=4096,
        dropout=0.5,
        entry=lambda: (RawPixels(),),
        border=(0, 3),
        towers=2,
        norm=lambda: (ResponseNorm(2),),
        hidden_layer=("linear", "relu", "dropout"),
        initialise=initialise_as_published,
    ),
    "alexnet.pocket": AlexNetConfig((24, 56, 96, 64, 64), hidden=128, dropout=0.1),
}


def widened(config: AlexNetConfig, factor: float) -> AlexNetConfig:
    """All widths, those of the hidden linear layers among them, `factor` times as large; maps can be dealt out to the towers."""
    w1, w2, w3, w4, w5 = (scaled_width(width, factor, divisor=config.towers) for width in config.widths)
    return replace(config, widths=(w1, w2, w3, w4, w5), hidden=scaled_width(config.hidden, factor, divisor=1))


class AlexNet(Network):
    """Five convolutions, three fully connected layers (figure 2)."""

    def __init__(self, config: AlexNetConfig, request: Request) -> None:
        super().__init__()
        request.no_drop_path("AlexNet")
        w1, w2, w3, w4, w5 = config.widths
        self.stem = nn.Sequential(
            *config.entry(),
            *_first(config, request),
            nn.ReLU(inplace=True),
            *config.norm(),
            nn.MaxPool2d(3, stride=2),
        )
        self.stages = nn.Sequential(
            nn.Sequential(
                *_conv(w1, w2, kernel=5, groups=config.towers),
                *config.norm(),
                nn.MaxPool2d(3, stride=2),
            ),
            nn.Sequential(
                *_conv(w2, w3, kernel=3, groups=1),
                *_conv(w3, w4, kernel=3, groups=config.towers),
                *_conv(w4, w5, kernel=3, groups=config.towers),
                nn.MaxPool2d(3, stride=2),
            ),
        )
        self.head = _head(config, request)
        config.initialise(self)


def _first(config: AlexNetConfig, request: Request) -> tuple[nn.Module, ...]:
    """The first convolution, with its padding."""
    width, (before, after) = config.widths[0], config.border
    if request.small:
        return (nn.Conv2d(request.in_chans, width, 5, padding=2),)
    if before == after:
        return (nn.Conv2d(request.in_chans, width, 11, 4, before),)
    return nn.ZeroPad2d((before, after, before, after)), nn.Conv2d(request.in_chans, width, 11, 4)


def _conv(in_channels: int, out_channels: int, *, kernel: int, groups: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, groups=groups), nn.ReLU(inplace=True)


def _head(config: AlexNetConfig, request: Request) -> nn.Sequential:
    """Two hidden linear layers with dropout, and the classifier: (N, C, H, W) -> (N, num_classes)."""
    grid = min(HEAD_GRID, _last_map(config, request))
    head: OrderedDict[str, nn.Module] = OrderedDict(pool=nn.AdaptiveAvgPool2d(grid), flatten=nn.Flatten())
    for i, inputs in ((1, config.widths[-1] * grid * grid), (2, config.hidden)):
        parts = {
            "dropout": request.dropout(config.dropout),
            "linear": nn.Linear(inputs, config.hidden),
            "relu": nn.ReLU(inplace=True),
        }
        head.update((f"{part}{i}", parts[part]) for part in config.hidden_layer)
    head["classifier"] = classifier(config.hidden, request.num_classes)
    return nn.Sequential(head)


def _last_map(config: AlexNetConfig, request: Request) -> int:
    """Pixels a side of the last map: three poolings of 3x3 stride 2, after the stem's convolution. At least 1."""
    size = request.image_size
    if not request.small:
        size = conv_output_size(size + sum(config.border), kernel=11, stride=4)
    for _ in range(3):
        size = conv_output_size(size, kernel=3, stride=2)
    return max(size, 1)
