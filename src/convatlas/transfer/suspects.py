"""Labels that may be wrong, found by what a network that was not trained on them says: confident learning.

Northcutt, Jiang & Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels", section 3.
"""

import torch
from torch import Tensor


def label_suspects(probabilities: Tensor, labels: Tensor) -> tuple[tuple[int, int], ...]:
    """(index, suggested class) of each image whose label is doubtful, the largest margin first.

    `probabilities` (N, C) are out of sample: of a network that was not trained on these images; `labels` int64 (N,). A class's
    threshold is the mean probability that images labelled so have for it; an image is counted for the likeliest of the classes
    whose threshold it reaches (section 3.1, equations 1 and 2: the confident joint), and is a suspect if that is not its label
    (section 3.2, method 2: off the joint's diagonal). The margin is by how much the suggested class is likelier than the label;
    images for which it is not are left out. A class without an image has no threshold and is never suggested.
    """
    own = probabilities.gather(1, labels[:, None])[:, 0]
    reached = probabilities >= _thresholds(own, labels, classes=probabilities.shape[1])
    counted, suggested = probabilities.masked_fill(~reached, -1.0).max(1)
    margin = counted - own
    doubtful = ((suggested != labels) & (margin > 0)).nonzero().flatten()
    ordered = doubtful[margin[doubtful].argsort(descending=True, stable=True)]
    return tuple((i, int(suggested[i])) for i in ordered.tolist())


def _thresholds(own: Tensor, labels: Tensor, *, classes: int) -> Tensor:
    """Each class's mean probability among images labelled so, (C,); infinite for a class that has none."""
    sums = torch.zeros(classes, dtype=own.dtype).index_add_(0, labels, own)
    counts = labels.bincount(minlength=classes)
    return torch.where(counts > 0, sums / counts, torch.inf)
