"""Whether a classifier is right as often as it is sure, and the one number that mends most of it: a temperature.

Guo et al. 2017, "On Calibration of Modern Neural Networks": networks of today are surer than they are right. Dividing all logits
by one temperature, fitted on images that were not trained on, changes no answer and brings probabilities near to what comes out.
"""

import math

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from convatlas.errors import UserError
from convatlas.records.errors_look import Bin, Calibration

BINS = 15
"""Guo et al., table 1."""
LOWEST, HIGHEST = 0.05, 20.0
"""Between these a temperature is sought: beyond them probabilities are hardly told from 0, 1 or chance."""
STRENGTH = 4.0
"""How strongly a temperature of 1 is believed in beforehand: as by so many draws of a gamma distribution. From 2 to 8 it hardly
matters on photographs (docs/LOG.md)."""
DRAWS = 1000
"""Of outcomes, from which is told what calibration error chance alone would give."""
_CLOSE = 1e-8
Floats = NDArray[np.float64]


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature T by which logits are to be divided, so that probabilities come near to what happens.

    `logits` (N, C), `labels` int64 (N,) of images that were not trained on. T is between 0.05 and 20. Guo et al., section 4.2,
    take the least cross-entropy of softmax(logits / T). Departure: to its sum over the images is added 4 (1/T - 1 + log T), as if
    one had known before that T is 1 give or take half of it. Of hundreds of images that hardly matters; of few, of which perhaps
    none is called wrong, the least cross-entropy alone makes everything certain (docs/LOG.md). Raises UserError.
    """
    check_answers(logits, labels)
    scores, truth = logits.detach().double().cpu(), labels.cpu()

    def loss(log_temperature: float) -> float:
        inverse = math.exp(-log_temperature)
        surprise = float(F.cross_entropy(scores * inverse, truth, reduction="sum"))
        return (surprise + STRENGTH * (inverse - 1 + log_temperature)) / len(truth)

    from scipy.optimize import minimize_scalar  # a third of a second, also where nothing is fitted

    # Convex in 1 / T, so that there is one valley.
    ends = (math.log(LOWEST), math.log(HIGHEST))
    return math.exp(minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": _CLOSE}).x)


def calibration(logits: Tensor, labels: Tensor, *, temperature: float) -> Calibration:
    """How well softmax(logits / temperature) fits the labels; `logits` (N, C), `labels` int64 (N,). Raises UserError.

    The error is Guo et al.'s equation 3, over 15 bins of equal width, of the likeliest class's probability.
    """
    check_answers(logits, labels)
    if not (math.isfinite(temperature) and temperature > 0):
        raise UserError(f"the temperature is {temperature}", fix="Give one above 0, such as fit_temperature finds.")
    scaled = logits.detach().double().cpu() / temperature
    truth = labels.cpu()
    probabilities = scaled.softmax(1)
    sure, said = probabilities.max(1)
    bins = reliability(sure, said == truth)
    return Calibration(
        temperature=temperature,
        nll=float(F.cross_entropy(scaled, truth)),
        brier=brier_score(probabilities, truth),
        error=calibration_error(bins),
        by_chance=_by_chance(sure.numpy()),
        bins=bins,
    )


def reliability(sure: Tensor, right: Tensor) -> tuple[Bin, ...]:
    """The answers in 15 bins of equal width, of which the empty ones are left out (Guo et al., section 2).

    `sure` (N,) are probabilities in [0, 1], `right` bool (N,). A bin holds its upper end and not its lower, the first 0 too.
    """
    values, hits = sure.double().numpy(), right.double().numpy()
    place = _places(values)
    found = []
    for i in range(BINS):
        here = place == i
        if here.any():
            n, mean, share = int(here.sum()), float(values[here].mean()), float(hits[here].mean())
            found.append(Bin(i / BINS, (i + 1) / BINS, n, mean, share))
    return tuple(found)


def calibration_error(bins: tuple[Bin, ...]) -> float:
    """The expected calibration error in [0, 1]: the bins' gaps between probability and share of right answers, each weighted
    with its answers (Guo et al., equation 3)."""
    total = sum(each.n for each in bins)
    return sum(each.n * abs(each.probability - each.right) for each in bins) / total


def brier_score(probabilities: Tensor, labels: Tensor) -> float:
    """The mean over images of the squared errors of all classes' probabilities, from 0 to 2.

    `probabilities` (N, C), `labels` int64 (N,). Brier 1950, "Verification of Forecasts Expressed in Terms of Probability",
    equation 2.
    """
    truth = F.one_hot(labels, probabilities.shape[1]).to(probabilities)
    return float(((probabilities - truth) ** 2).sum(1).mean())


def check_answers(logits: Tensor, labels: Tensor) -> None:
    """Raises UserError unless there are finite logits (N, C) of at least one image and two classes, and a label for each."""
    if logits.dim() != 2 or not len(logits) or logits.shape[1] < 2:
        raise UserError(
            f"the logits have shape {tuple(logits.shape)}", fix="Give those of one image or more, of two classes or more."
        )
    if not bool(logits.isfinite().all()):
        raise UserError("the network's logits are not finite", fix="Give weights and images of finite values.")
    if labels.shape != logits.shape[:1] or not bool(((labels >= 0) & (labels < logits.shape[1])).all()):
        raise UserError(
            f"the labels do not fit logits of {tuple(logits.shape)}",
            fix=f"Give one from 0 to {logits.shape[1] - 1} for each image.",
        )


def _places(sure: Floats) -> NDArray[np.intp]:
    """The bin of each probability, counted from 0."""
    return np.digitize(sure, np.arange(1, BINS) / BINS, right=True)


def _by_chance(sure: Floats) -> float:
    """The mean calibration error of outcomes drawn with exactly the probabilities `sure` (N,), always the same draws.

    Bröcker & Smith 2007, "Increasing the Reliability of Reliability Diagrams": consistency resampling.
    """
    generator, place = np.random.default_rng(0), _places(sure)
    total = 0.0
    for _ in range(DRAWS):
        gaps = sure - (generator.random(len(sure)) < sure)
        total += float(np.abs(np.bincount(place, weights=gaps, minlength=BINS)).sum())
    return total / (DRAWS * len(sure))
