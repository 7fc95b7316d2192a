"""Does a map depend on what was learnt? Random weights in place of the learnt ones, and how alike two maps are.

Adebayo et al. 2018, "Sanity Checks for Saliency Maps", section 3: a map that stays the same after the weights were replaced says
nothing about the network; edge detectors and guided backpropagation do so.
"""

from collections.abc import Collection
from copy import deepcopy

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

SIGMA = 1.5
"""Deviation, in pixels, of the window of the structural similarity (Wang et al. 2004, section III.B)."""
STABILISERS = (0.01**2, 0.03**2)
"""The two constants of the structural similarity for values from 0 to 1 (the same paper, equation 13's)."""


def randomised(network: nn.Module, images: Tensor, *, seed: int, only: Collection[str] = ()) -> nn.Module:
    """A copy whose parameters (those named in `only`, or all) are normal numbers with the mean and deviation that they had.

    If all are replaced, running statistics of BatchNorm are measured anew on `images` (N, C, H, W): those of the learnt weights
    would let activations vanish or grow from layer to layer, and the map be that of a broken network.
    """
    copy = deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in copy.named_parameters():
            if not only or name in only:
                mean, deviation = float(parameter.float().mean()), float(parameter.float().std(correction=0))
                parameter.copy_(torch.empty(parameter.shape).normal_(mean, deviation, generator=generator))
        if not only:
            _measure_norms(copy, images)
    return copy


def _measure_norms(network: nn.Module, images: Tensor) -> None:
    """Set running statistics, layer by layer on the way of the images, to those of what comes in."""

    def before(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(module, _BatchNorm)
        if module.running_mean is not None and module.running_var is not None:
            places = [axis for axis in range(args[0].dim()) if axis != 1]
            module.running_mean.copy_(args[0].mean(places))
            module.running_var.copy_(args[0].var(places, correction=0))

    handles = [module.register_forward_pre_hook(before) for module in network.modules() if isinstance(module, _BatchNorm)]
    try:
        network(images)
    finally:
        for handle in handles:
            handle.remove()


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's rank correlation of two maps (H, W), over pixels; 0 if one of them is the same everywhere."""
    one, two = first.flatten().double().cpu().numpy(), second.flatten().double().cpu().numpy()
    if np.ptp(one) == 0 or np.ptp(two) == 0:
        return 0.0
    return float(spearmanr(one, two).statistic)


def structural_similarity(first: Tensor, second: Tensor) -> float:
    """The mean structural similarity of two maps (H, W) whose values are not negative, each divided by its largest.

    Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity", equation 13.
    """
    one, two = (_from_0_to_1(each) for each in (first, second))
    small, large = STABILISERS
    mean1, mean2 = gaussian_filter(one, SIGMA), gaussian_filter(two, SIGMA)
    var1 = gaussian_filter(one * one, SIGMA) - mean1**2
    var2 = gaussian_filter(two * two, SIGMA) - mean2**2
    shared = gaussian_filter(one * two, SIGMA) - mean1 * mean2
    top = (2 * mean1 * mean2 + small) * (2 * shared + large)
    return float(np.mean(top / ((mean1**2 + mean2**2 + small) * (var1 + var2 + large))))


def _from_0_to_1(values: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    array: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = values.double().cpu().numpy()
    return array / array.max() if array.max() > 0 else array
