"""Several views of one image, over which a network's answers are averaged when it is judged (test-time averaging)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Ask = Callable[[Tensor], Tensor]


def _alone(ask: Ask, x: Tensor) -> Tensor:
    return ask(x)


def _mirrored(ask: Ask, x: Tensor) -> Tensor:
    """The mean of the answers for x and for its mirror image (Krizhevsky et al. 2012, section 4.1, has ten crops of which)."""
    return (ask(x) + ask(x.flip(3))) / 2


def _shifted(ask: Ask, x: Tensor) -> Tensor:
    """Half the mirrored answer, and a quarter each for x moved by one pixel up and left, and down and right.

    Over the border comes the image's reflection. As in Jordan's airbench (2024).
    """
    height, width = x.shape[2:]
    padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
    first, last = (padded[:, :, i : i + height, i : i + width] for i in (0, 2))
    return _mirrored(ask, x) / 2 + _mirrored(ask, first) / 4 + _mirrored(ask, last) / 4


def _everywhere(ask: Ask, x: Tensor) -> Tensor:
    """The mean of the mirrored answers for x at nine places: moved by up to one pixel each way, reflected over the border."""
    height, width = x.shape[2:]
    padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
    views = [padded[:, :, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return torch.stack([_mirrored(ask, view) for view in views]).mean(0)


TEST_AVERAGES: dict[str, Callable[[Ask, Tensor], Tensor]] = {
    "none": _alone,
    "mirror": _mirrored,
    "mirror+shift": _shifted,
    "mirror+3x3": _everywhere,
}
"""By the name that a recipe gives them."""
