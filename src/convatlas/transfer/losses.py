"""The loss of fine-tuning: cross-entropy with smoothed or mixed labels, weights of classes, and focus on what is hard."""

import torch.nn.functional as F
from torch import Tensor

SMALLEST = 1e-6
"""What 1 - p is at least in the focal loss: at 0 the slope of a power below 1 is infinite."""


def tuned_loss(
    logits: Tensor, y: Tensor, *, label_smoothing: float = 0.0, class_weights: Tensor | None = None, focal: float = 0.0
) -> Tensor:
    """The mean loss in nats of logits (N, C) against labels int64 (N,), or shares of classes float (N, C).

    Labels are smoothed as by Szegedy et al. 2016, section 7. Each class's term is multiplied by its `class_weights` (C,), and by
    (1 - p)^focal where p is its probability (Lin et al. 2017, "Focal Loss for Dense Object Detection", section 3.2). Without
    weights and focus it is the cross-entropy. Unlike torch's, which divides by the weights of the batch, it is the plain mean:
    how much an image counts does not depend on its neighbours.
    """
    classes = logits.shape[1]
    shares = F.one_hot(y, classes).to(logits.dtype) if y.ndim == 1 else y.to(logits.dtype)
    shares = shares * (1 - label_smoothing) + label_smoothing / classes
    terms = -shares * logits.log_softmax(1)
    if focal:
        terms = terms * (1 - logits.softmax(1)).clamp(min=SMALLEST) ** focal
    if class_weights is not None:
        terms = terms * class_weights
    return terms.sum(1).mean()


def balanced_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Weights float32 (num_classes,) under which every class that is there counts alike, and the mean over the images is 1.

    King & Zeng 2001, "Logistic Regression in Rare Events Data", section 4.2: inverse to how often a class comes.
    """
    counts = labels.bincount(minlength=num_classes).float()
    present = counts > 0
    weights = len(labels) / (present.sum() * counts.clamp(min=1))
    return weights * present
