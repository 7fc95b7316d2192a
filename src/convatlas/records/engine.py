"""What the training engine chose for a machine: algorithms of convolutions, and why anything else was taken."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ConvChoice:
    """How the convolutions of one shape are computed.

    `shape` names input, kernel, stride, padding, groups and number format. For each pass (forward, backward to the data,
    backward to the weights) a number says how many images of the batch are laid side by side in one wide image; 1 is torch's
    own algorithm. `gain` is the time of torch's own algorithm in all three passes, divided by that of the choice.
    """

    shape: str
    forward: int = 1
    to_data: int = 1
    to_weights: int = 1
    gain: float = 1.0


@dataclass(frozen=True)
class Reason:
    """One choice of the engine: what about, what was chosen, and why, in a few words."""

    about: str
    chosen: str
    why: str
