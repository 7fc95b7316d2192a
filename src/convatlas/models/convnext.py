"""ConvNeXt (2022): a ResNet modernised step by step, until it matches a Swin Transformer.

Paper: Liu, Mao, Wu, Feichtenhofer, Darrell & Xie, "A ConvNet for the 2020s", arXiv:2201.03545.

    stem         4x4 stride 4 ("patchify"), LayerNorm                               section 2.2
    block        depthwise 7x7, LayerNorm, 1x1 to 4C, GELU, 1x1 to C, layer scale   figure 4, sections 2.3 to 2.6
    downsample   LayerNorm, 2x2 stride 2, between stages                            section 2.6
    head         global average pooling, LayerNorm, linear                          section 2.6, code
    layer scale  from 1e-6 (Touvron et al., arXiv:2103.17239, section 2)            table 5

No departures in the bare names. The 1x1 convolutions are linear layers on (N, H, W, C), as in the authors' code.
Small images (up to 64 pixels): patches of 2x2 with stride 2.
The pocket member starts layer scale at 1 and its weights with deviation 1 / sqrt(fan-in): 1e-6 and 0.02 are meant for wide,
deep networks and hundreds of epochs, and within a few epochs leave a small one at its beginning (docs/LOG.md).
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from convatlas.arith.scaling import scaled_width
from convatlas.layers.drop_path import DropPath, drop_path_rates
from convatlas.layers.network import Network, Request, blocks_of, classifier

NORM_EPS = 1e-6
EXPANSION = 4


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of each pixel: (N, C, H, W) -> (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """The normalised map."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """An inverted bottleneck around a large depthwise kernel: (N, C, H, W) -> (N, C, H, W). Figure 4, right."""

    def __init__(self, channels: int, *, layer_scale: float, drop_path: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=NORM_EPS)
        self.expand = nn.Linear(channels, EXPANSION * channels)
        self.act = nn.GELU()
        self.project = nn.Linear(EXPANSION * channels, channels)
        self.layer_scale = nn.Parameter(torch.full((channels,), layer_scale))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """x plus its scaled residual."""
        residual = self.depthwise(x).permute(0, 2, 3, 1)
        residual = self.project(self.act(self.expand(self.norm(residual))))
        residual = (self.layer_scale * residual).permute(0, 3, 1, 2)
        out: Tensor = x + self.drop_path(residual)
        return out


class PlainBlock(nn.Module):
    """A Block without its shortcut: (N, C, H, W) -> (N, C, H, W). Its layers alone: layer scale is a shortcut's counterpart."""

    def __init__(self, channels: int, *, layer_scale: float, drop_path: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=NORM_EPS)
        self.expand = nn.Linear(channels, EXPANSION * channels)
        self.act = nn.GELU()
        self.project = nn.Linear(EXPANSION * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """What a Block adds to x, unscaled."""
        out: Tensor = self.project(self.act(self.expand(self.norm(self.depthwise(x).permute(0, 2, 3, 1)))))
        return out.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class ConvNeXtConfig:
    """`depths` and `widths` give each stage's blocks and channels (sections 2.2 and 2.3).

    `layer_scale` is where layer scale starts; `deviation` that of the initial weights (None: 1 / sqrt(fan-in)).
    `block` makes a block from (channels, layer_scale=, drop_path=).
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    drop_path: float
    layer_scale: float = 1e-6
    deviation: float | None = 0.02
    block: Callable[..., nn.Module] = Block


VARIANTS = {
    "convnext_tiny": ConvNeXtConfig((3, 3, 9, 3), (96, 192, 384, 768), drop_path=0.1),
    "convnext_small": ConvNeXtConfig((3, 3, 27, 3), (96, 192, 384, 768), drop_path=0.4),
    "convnext_base": ConvNeXtConfig((3, 3, 27, 3), (128, 256, 512, 1024), drop_path=0.5),
    "convnext_large": ConvNeXtConfig((3, 3, 27, 3), (192, 384, 768, 1536), drop_path=0.5),
    "convnext.pocket": ConvNeXtConfig((2, 2, 2, 1), (32, 48, 64, 96), drop_path=0.0, layer_scale=1.0, deviation=None),
}


def widened(config: ConvNeXtConfig, factor: float) -> ConvNeXtConfig:
    """All widths `factor` times as large."""
    return replace(config, widths=tuple(scaled_width(width, factor, divisor=1) for width in config.widths))


def with_shortcuts(config: ConvNeXtConfig, wanted: bool) -> ConvNeXtConfig:
    """The same network with shortcuts or without; without one there is no path to drop."""
    return config if wanted else replace(config, block=PlainBlock, drop_path=0.0)


class ConvNeXt(Network):
    """Stages of blocks with separate downsampling layers (section 2.6)."""

    def __init__(self, config: ConvNeXtConfig, request: Request) -> None:
        super().__init__()
        drop_path = config.drop_path if request.drop_path_rate is None else request.drop_path_rate
        rates = iter(drop_path_rates(drop_path, sum(config.depths)))
        patch = 2 if request.small else 4
        channels = config.widths[0]
        self.stem = nn.Sequential(nn.Conv2d(request.in_chans, channels, patch, stride=patch), LayerNorm2d(channels, eps=NORM_EPS))
        stages = []
        for i, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True)):
            stage: OrderedDict[str, nn.Module] = OrderedDict()
            if i > 0:
                stage["downsample"] = _downsample(channels, width)
                channels = width
            for j in range(depth):
                stage[f"block{j}"] = config.block(width, layer_scale=config.layer_scale, drop_path=next(rates))
            stages.append(nn.Sequential(stage))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Sequential(
            OrderedDict(
                pool=nn.AdaptiveAvgPool2d(1),
                norm=LayerNorm2d(channels, eps=NORM_EPS),
                flatten=nn.Flatten(),
                dropout=request.dropout(0.0),
                classifier=classifier(channels, request.num_classes),
            )
        )
        initialise(self, config.deviation)

    def units(self) -> Iterable[nn.Module]:
        """The blocks and downsampling layers."""
        return blocks_of(self.stages)


def _downsample(in_channels: int, out_channels: int) -> nn.Sequential:
    """Half the resolution, more channels: (N, in, H, W) -> (N, out, H / 2, W / 2)."""
    return nn.Sequential(LayerNorm2d(in_channels, eps=NORM_EPS), nn.Conv2d(in_channels, out_channels, 2, stride=2))


def initialise(network: nn.Module, deviation: float | None) -> None:
    """Truncated normal, biases 0 (appendix A.1, "weight init")."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5 if deviation is None else deviation)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
