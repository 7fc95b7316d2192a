"""Compact networks (2026): our own, for 32x32 images; as many right answers as a budget of time or of parameters buys.

No paper: a family of this atlas, drawn from what is known of fast training, for processors as much as for GPUs. Every part
stands here with its reason; what was measured stands in docs/compact.md.

    stem       2x2 patches whitened by fixed filters and their negatives, a learned bias, GELU. The filters are eigenvectors of
               the training images' patches divided by the root of their eigenvalues (Coates & Ng 2012, "Learning Feature
               Representations with K-means", section 2.1; as a first layer: Page 2019, "How to Train Your ResNet", part 8): the
               first stage need not learn to see edges, and its input has as much variance in every direction.
    stage      3x3, 2x2 max pooling, norm, GELU, then further 3x3, norm, GELU. Pooling stands before the norm, so that norm and
               GELU see a quarter of the values; most multiplications fall on small maps, where processors reach their peak. The
               first convolution leaves out the last row and column of odd maps, which pooling would not read.
    shortcut   a stage of three convolutions adds its second's output to its third's (He et al. 2015, section 3.2): it lets
               longer trainings use the depth, and costs no parameter.
    norm       BatchNorm with a learned bias and no scale: GELU follows, and the next filters can scale. Statistics follow
               the batches quickly (momentum 0.4), since trainings are short.
    filters    begin as the identity on as many channels as there are (Zagoruyko & Komodakis 2017, "DiracNets", section 3), the
               rest at random: at first a stage passes on what the stem found.
    head       the maximum over the last map, linear without bias, scaled down by its inputs' number so that first answers are
               cautious.

Members: `compact94` and `compact96` have the widths and depths of the networks in Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds
on a Single GPU", arXiv:2404.00498, sections 3 and 4, which are named after accuracies too; code, and what differs, are ours.
`compact1m` and `compact300k` stay below one million and 300,000 parameters, with the last stage not pooled: where parameters are
scarce they are used at more places instead.
Small images are what the family is made for; the stem is the same for large ones. `compact300k` is as small as a pocket member.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convatlas.arith.scaling import scaled_width
from convatlas.layers.halved_conv import HalvedConv2d
from convatlas.layers.network import Network, Request

PATCH = 2
PIXELS = 5_000_000
"""Of so many, in training images, the filters are learnt."""
EPS = 5e-4
"""Added to the eigenvalues of patches: directions that hardly vary are not blown up."""


class Whitening(nn.Module):
    """Fixed filters that whiten 2x2 patches, and their negatives: (N, C, H, W) -> (N, 8 C, H - 1, W - 1)."""

    weight: Tensor

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.out_channels = 2 * in_channels * PATCH**2
        self.register_buffer("weight", torch.randn(self.out_channels, in_channels, PATCH, PATCH))
        self.bias = nn.Parameter(torch.zeros(self.out_channels))

    @torch.no_grad()
    def learn(self, images: Tensor) -> None:
        """Take the filters from `images`, normalised, (N, C, H, W)."""
        patches = F.unfold(images, PATCH).transpose(1, 2).flatten(0, 1).double()
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (vectors / (values + EPS).sqrt()).T.flip(0).to(self.weight)
        self.weight.copy_(torch.cat([filters, -filters]).view_as(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        """Whitened patches."""
        return F.conv2d(x, self.weight, self.bias)


class ShiftNorm(nn.BatchNorm2d):
    """BatchNorm with a bias and no scale: (N, C, H, W) -> (N, C, H, W)."""

    weight: Tensor  # type: ignore[assignment]

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=0.4)
        # On GPUs PyTorch's backward pass fails where there is a bias and no scale. These ones are no part of the trained state.
        del self.weight
        self.register_buffer("weight", torch.ones(channels), persistent=False)


def _conv(in_channels: int, out_channels: int, *, pooled: bool = False) -> nn.Conv2d:
    """A 3x3 convolution that begins as the identity on its first channels."""
    conv = (HalvedConv2d if pooled else nn.Conv2d)(in_channels, out_channels, 3, padding=1, bias=False)
    begin_as_identity(conv)
    return conv


def begin_as_identity(conv: nn.Conv2d) -> None:
    """The identity on as many channels as there are; the other filters stay as they were drawn."""
    if not conv.weight.is_meta:
        nn.init.dirac_(conv.weight.data[: min(conv.in_channels, conv.out_channels)])


class Stage(nn.Module):
    """`depth` convolutions: (N, in, H, W) -> (N, width, H / 2, W / 2) with pooling after the first, (N, width, H, W) without."""

    def __init__(self, in_channels: int, width: int, *, depth: int, pooled: bool) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv(in_channels, width, pooled=pooled), ShiftNorm(width)
        self.pool = nn.MaxPool2d(2) if pooled else nn.Identity()
        self.conv2, self.norm2 = _conv(width, width), ShiftNorm(width)
        self.deep = depth == 3
        if self.deep:
            self.conv3, self.norm3 = _conv(width, width), ShiftNorm(width)
        self.gelu = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """The stage's map."""
        x = self.gelu(self.norm1(self.pool(self.conv1(x))))
        x = self.gelu(self.norm2(self.conv2(x)))
        out: Tensor = self.gelu(self.norm3(self.conv3(x)) + x) if self.deep else x
        return out


class Scaled(nn.Module):
    """Values divided by their number: (N, F) -> (N, F)."""

    def forward(self, x: Tensor) -> Tensor:
        """x / F."""
        return x / x.shape[1]


@dataclass(frozen=True)
class CompactConfig:
    """`widths` of the stages; `depth` convolutions in each, 2 or 3; `pooled` says which stages halve their map."""

    widths: tuple[int, ...]
    depth: int
    pooled: tuple[bool, ...] = (True, True, True)


TWICE = (True, True, False)
VARIANTS = {
    "compact94": CompactConfig((64, 256, 256), depth=2),
    "compact96": CompactConfig((128, 384, 512), depth=3),
    "compact1m": CompactConfig((64, 128, 128), depth=3, pooled=TWICE),
    "compact300k": CompactConfig((40, 72, 72), depth=3, pooled=TWICE),
}


def widened(config: CompactConfig, factor: float) -> CompactConfig:
    """The widths of the stages `factor` times as large; the stem's follow from the image's channels."""
    return replace(config, widths=tuple(scaled_width(width, factor, divisor=1) for width in config.widths))


class Compact(Network):
    """Whitened patches, three stages, the maximum over the last map."""

    def __init__(self, config: CompactConfig, request: Request) -> None:
        super().__init__()
        request.no_drop_path("Compact")
        whitening = Whitening(request.in_chans)
        self.images = max(PIXELS // request.image_size**2, 1)
        self.stem = nn.Sequential(OrderedDict(whitening=whitening, gelu=nn.GELU()))
        channels = whitening.out_channels
        stages = []
        for width, pooled in zip(config.widths, config.pooled, strict=True):
            stages.append(Stage(channels, width, depth=config.depth, pooled=pooled))
            channels = width
        self.stages = nn.Sequential(*stages)
        self.head = nn.Sequential(
            OrderedDict(
                pool=nn.AdaptiveMaxPool2d(1),
                flatten=nn.Flatten(),
                scale=Scaled(),
                dropout=request.dropout(0.0),
                classifier=nn.Linear(channels, request.num_classes, bias=False) if request.num_classes else nn.Identity(),
            )
        )

    def learn_from(self, sample: Callable[[int], Tensor]) -> None:
        """Take the stem's filters from some training images."""
        whitening = self.stem.get_submodule("whitening")
        assert isinstance(whitening, Whitening)
        whitening.learn(sample(self.images))
