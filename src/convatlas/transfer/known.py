"""The strategies of fine-tuning by name, what each trains, and who proposed it. No torch here."""

from dataclasses import dataclass

from convatlas.errors import UserError


@dataclass(frozen=True)
class Known:
    """A strategy: what it trains, its source, and the learning rate (AdamW) that it begins with where none is given.

    `classifier_lr` is how many times that of the rest the classifier's is.
    """

    what: str
    source: str
    lr: float
    classifier_lr: float = 1.0
    pretrained: bool = True


STRATEGIES: dict[str, Known] = {
    "probe": Known(
        "the classifier alone, on frozen features (linear probe)",
        "Kornblith, Shlens & Le 2019, section 4.1",
        lr=3e-3,
    ),
    "full": Known(
        "everything, at one learning rate",
        "Girshick et al. 2014, section 2.3; Yosinski et al. 2014",
        lr=0.0005,
        classifier_lr=5.0,
    ),
    "last-stages": Known(
        "the last stages and the classifier; what lies below is frozen",
        "Yosinski et al. 2014, section 4.1 (the layers above the cut fine-tuned)",
        lr=0.0003,
        classifier_lr=10.0,
    ),
    "gradual": Known(
        "more and more, from the top down, all of it from half of the budget on (gradual unfreezing)",
        "Howard & Ruder 2018, section 3.3",
        lr=0.0003,
        classifier_lr=10.0,
    ),
    "layer-decay": Known(
        "everything, each group of layers at a part of the rate of the one above it (discriminative learning rates)",
        "Howard & Ruder 2018, section 3.2; Clark et al. 2020, section 3.1",
        lr=0.001,
        classifier_lr=3.0,
    ),
    "lp-ft": Known(
        "the classifier first, then everything",
        "Kumar et al. 2022, section 4",
        lr=0.0003,
        classifier_lr=10.0,
    ),
    "bn-bias": Known(
        "normalisation and biases only, and the classifier",
        "Frankle, Schwab & Morcos 2021, section 3; Ben Zaken et al. 2022 (biases)",
        lr=0.003,
        classifier_lr=3.0,
    ),
    "l2-sp": Known(
        "everything, pulled back towards the pretrained weights",
        "Li, Grandvalet & Davoine 2018, section 3 (L2-SP)",
        lr=0.0005,
        classifier_lr=5.0,
    ),
    "scratch": Known(
        "everything, from random weights: the baseline",
        "He, Girshick & Dollar 2019",
        lr=1e-3,
        pretrained=False,
    ),
}
"""By name. Learning rates were chosen on one small set of photographs: begin there, and let the tournament judge."""

AUTO = "auto"
"""The tournament of all strategies."""
BALANCES = ("none", "weights", "sampling")
CACHED_EPOCHS = 30
"""Of a probe on cached features, where its epochs are not given: once the features are there they cost next to nothing."""
RATED, UNRATED = ("adamw", "adam"), ("sgd",)
"""The optimizers for which the learning rates above are, and those that need others."""


def check_optimizer(optimizer: str, *, rated: bool) -> None:
    """Raise a UserError for an optimizer that fine-tuning does not do, or that needs a learning rate and has none (`rated`)."""
    if optimizer == "muon":
        what = "muon sets the norms of filters anew, for which pretrained networks are not made"
        raise UserError(what, fix=f"Fine-tune with --optimizer {RATED[0]}, or with sgd and an --lr of its own.")
    if optimizer in UNRATED and not rated:
        what = f"the learning rates of the strategies are for {RATED[0]}, and not for {optimizer}"
        raise UserError(what, fix="Give --lr, or name one --strategy and give --find-lr.")
