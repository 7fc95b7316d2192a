"""How a pretrained network is brought onto new classes: what a recipe says beyond ordinary training."""

from dataclasses import dataclass

from convatlas.records.weights import Preprocessing


@dataclass(frozen=True)
class Tuning:
    """What decides the outcome of fine-tuning, apart from the rest of the recipe.

    `strategy` is one of `convatlas.transfer.known`. `weights` is what `create_model(pretrained=)` takes (None: random ones, as
    "scratch" has them), and `weights_sha256` tells all tensors with which the network began, so that a run is never gone on with
    from others. `preprocessing` is that of the weights.

    `policy` names the augmentation (`convatlas.data.policies`); `mixup` and `cutmix` are the alphas of their Beta distributions
    (0: not done). `balance` is "none", "weights" (the loss counts each class alike) or "sampling" (each class is drawn as often);
    `focal` the exponent of the focal loss (0: cross-entropy).

    `stages` is how many of the last stages "last-stages" trains; `layer_decay` the factor from one group of layers to the one
    below it; `l2_sp` the pull towards the first weights, as a weight decay; `probe_share` the share of the budget that "lp-ft"
    spends on the classifier alone. `cached`: each image passes the frozen body once, `copies` times where it is augmented.
    `validation` is the share of all pictures that was asked for where they come without any splits (None: 15 %).
    """

    strategy: str
    weights: str | None
    weights_sha256: str | None
    preprocessing: Preprocessing
    policy: str = "light"
    mixup: float = 0.0
    cutmix: float = 0.0
    balance: str = "none"
    focal: float = 0.0
    stages: int = 1
    layer_decay: float = 0.5
    l2_sp: float = 0.1
    probe_share: float = 0.3
    cached: bool = False
    copies: int = 1
    validation: float | None = None


@dataclass(frozen=True)
class FrozenPhase:
    """What was frozen in a stretch of training, and whether it still was what it had been at its end.

    `first_epoch` and `last_epoch` count from 1; an epoch within which one phase ends and the next begins is of both. `frozen` of
    `tensors` parameters and buffers were; `sha256` is over their names and bytes, before and after.
    """

    first_epoch: int
    last_epoch: int
    frozen: int
    tensors: int
    trained_parameters: int
    sha256_before: str
    sha256_after: str

    @property
    def holds(self) -> bool:
        """Whether every frozen tensor is bit for bit what it was."""
        return self.sha256_before == self.sha256_after


@dataclass(frozen=True)
class Receipt:
    """`receipt.json`: that what was to be frozen was frozen."""

    strategy: str
    phases: tuple[FrozenPhase, ...]

    @property
    def holds(self) -> bool:
        """Whether it holds for every phase."""
        return all(phase.holds for phase in self.phases)
