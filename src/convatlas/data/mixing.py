"""Two images of a batch made one, and their labels with them: MixUp and CutMix."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from convatlas.data.augment import sent
from convatlas.errors import UserError

LARGEST_ALPHA = 100.0
"""Beyond it the share is one half, and nothing is drawn any more."""


@dataclass(frozen=True)
class Mixing:
    """How the images of a batch are mixed: the alphas of MixUp and CutMix (0: off), and how many classes there are."""

    mixup: float
    cutmix: float
    num_classes: int

    def done(self, images: Tensor, labels: Tensor, *, generator: Generator) -> tuple[Tensor, Tensor]:
        """The images mixed, and the shares of their classes: see `mixed`."""
        return mixed(images, labels, num_classes=self.num_classes, mixup=self.mixup, cutmix=self.cutmix, generator=generator)


def mixed(
    images: Tensor, labels: Tensor, *, num_classes: int, mixup: float, cutmix: float, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Each of `images` (N, C, H, W) mixed with another, and the shares of the classes, float32 (N, num_classes).

    `mixup` and `cutmix` are the alpha of Beta(alpha, alpha), from which one share is drawn for the batch (0: off). MixUp (Zhang
    et al. 2018, section 2) adds two images up; CutMix (Yun et al. 2019, section 3.1) fills a rectangle, which may reach over the
    border, with the other's pixels, and counts how many there are. With both a fair coin decides for the batch. All is drawn on
    the CPU, where `labels` int64 (N,) may be too; shares are where the images are, and these keep their type and memory format.
    Raises UserError for an alpha or a label that cannot be.
    """
    check_mixing(mixup, cutmix)
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise UserError(f"a label is {int(labels.max())}, of {num_classes} classes", fix="Count the classes from 0.")
    shares = F.one_hot(labels, num_classes).to(torch.float32)
    if not mixup and not cutmix:
        return images, sent(shares, images.device)
    cut = bool(cutmix) and (not mixup or float(torch.rand((), generator=generator)) < 0.5)
    kept = _beta(cutmix if cut else mixup, generator)
    partners = torch.randperm(len(labels), generator=generator)
    others = images[sent(partners, images.device)]
    if cut:
        images, kept = _pasted(images, others, kept, generator)
    else:
        images = torch.lerp(others, images, kept)
    return images, sent(torch.lerp(shares[partners.to(labels.device)], shares, kept), images.device)


def check_mixing(mixup: float, cutmix: float) -> None:
    """Raise UserError for an alpha that cannot be."""
    for name, alpha in (("mixup", mixup), ("cutmix", cutmix)):
        if not (math.isfinite(alpha) and 0 <= alpha <= LARGEST_ALPHA):
            raise UserError(f"{name} is {alpha}", fix=f"Give an alpha above 0, at most {LARGEST_ALPHA:g}, or 0 to do without.")


def _beta(alpha: float, generator: Generator) -> float:
    """A number from Beta(alpha, alpha): the quantile of one that is evenly drawn, so that it takes one whatever alpha is."""
    from scipy.special import betaincinv  # every training imports this module, and few need it

    return float(betaincinv(alpha, alpha, float(torch.rand((), generator=generator, dtype=torch.float64))))


def _pasted(images: Tensor, others: Tensor, kept: float, generator: Generator) -> tuple[Tensor, float]:
    """A rectangle of `others` in a copy of `images`, `1 - kept` of the area before it is cut at the border; and what is left."""
    height, width = images.shape[2:]
    (top, bottom), (left, right) = (_span(extent, math.sqrt(1 - kept), generator) for extent in (height, width))
    pasted = images.clone()
    pasted[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
    return pasted, 1 - (bottom - top) * (right - left) / (height * width)


def _span(extent: int, share: float, generator: Generator) -> tuple[int, int]:
    """A stretch of `share` of `extent` pixels about any of them, as far as it lies within."""
    length, middle = int(extent * share), int(torch.randint(0, extent, (), generator=generator))
    return max(0, middle - length // 2), min(extent, middle + length // 2)
