"""Stochastic depth (Huang et al. 2016, "Deep Networks with Stochastic Depth", section 3), shared by EfficientNet and ConvNeXt."""

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """In training, zero the whole residual branch of each image with probability `rate`, and scale the others by 1 / (1 - rate).

    Input and output (N, C, H, W). In evaluation the identity.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """The branch with some images' part dropped."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        kept = torch.empty(x.shape[0], 1, 1, 1, dtype=x.dtype, device=x.device).bernoulli_(keep)
        return x * kept.div_(keep)

    def extra_repr(self) -> str:
        """The rate, for printing."""
        return f"rate={self.rate:g}"


def drop_path_rates(last: float, blocks: int) -> list[float]:
    """Rates that rise linearly from 0 at the first block to `last` at the last one (the paper's linear decay rule)."""
    return [last * i / max(blocks - 1, 1) for i in range(blocks)]
