"""The contract that every network of the atlas keeps: stem, stages, head."""

from dataclasses import dataclass

from torch import Tensor, nn

from convatlas.errors import UserError

SMALL_IMAGE = 64
"""Up to this many pixels a side, every family takes its small-image stem: the strides meant for 224 would leave a 1x1 map."""


@dataclass(frozen=True)
class Request:
    """What a caller may ask of any variant; each family file says what it makes of it.

    `image_size` is the side of the square input in pixels. `num_classes` 0 leaves the last linear layer out, so that the
    network gives features. `drop_rate` and `drop_path_rate` None mean the variant's own.
    """

    num_classes: int
    in_chans: int
    image_size: int
    drop_rate: float | None = None
    drop_path_rate: float | None = None

    @property
    def small(self) -> bool:
        """Whether the images are small enough for the small-image stem."""
        return self.image_size <= SMALL_IMAGE

    def dropout(self, own: float) -> nn.Dropout:
        """The dropout before the classifier: as asked for, or the variant's own rate."""
        return nn.Dropout(own if self.drop_rate is None else self.drop_rate)

    def no_drop_path(self, family: str) -> None:
        """Refuse a drop-path rate for a family that was published without drop path."""
        if self.drop_path_rate is not None:
            raise UserError(f"{family} has no drop path", fix="Leave drop_path_rate out.")


class Network(nn.Module):
    """A network as stem -> stages -> head. Input (N, in_chans, H, W), output logits (N, num_classes), or features for 0 classes.

    In evaluation `forward(x) == head(stages(stem(x)))`, always. What a network computes in training only (GoogLeNet's
    auxiliary logits) is reached through `training_logits` and never changes what `forward` returns.
    """

    stem: nn.Module
    stages: nn.Sequential
    head: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes), or features for 0 classes."""
        logits: Tensor = self.head(self.stages(self.stem(x)))
        return logits

    def training_logits(self, x: Tensor) -> tuple[tuple[float, Tensor], ...]:
        """Pairs of (weight in the loss, logits (N, num_classes)); the first is the network's own answer."""
        return ((1.0, self(x)),)

    def auxiliary_parameters(self) -> list[nn.Parameter]:
        """Parameters that only training uses."""
        return []


def classifier(in_features: int, num_classes: int) -> nn.Module:
    """The last linear layer, (N, in_features) -> (N, num_classes); for 0 classes nothing at all."""
    return nn.Linear(in_features, num_classes) if num_classes else nn.Identity()


def initialise_he(network: nn.Module) -> None:
    """He initialisation of every convolution, variance 1 / fan-in for every linear layer, biases 0, norms 1 and 0.

    Convolutions: fan-out with the gain of ReLU (He et al. 2015, "Delving Deep into Rectifiers", section 2.2). Linear layers
    take gain 1 (LeCun et al. 1998, "Efficient BackProp", section 4.6): the root of 2 was no better in short trainings of
    VGG (docs/LOG.md).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="linear")
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.zeros_(module.bias)
