"""How much memory a network takes while it answers a batch and while it trains on one: predicted, and measured."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MemoryUse:
    """Bytes at the fullest moment, by what they are for, and their `total`. `when` names that moment: "forward", "backward" or
    "update".

    `weights` counts parameters and buffers, `gradients` those that are there at that moment, `optimizer` what the optimizer
    keeps from step to step, `images` the batch, and `activations` everything else: maps, gradients by maps, what is kept for the
    backward pass, copies in another number format.
    """

    weights: int
    gradients: int
    optimizer: int
    images: int
    activations: int
    total: int
    when: str


@dataclass(frozen=True)
class MemoryMeasured:
    """Bytes that a process had at once above what it had without the network; None where the system does not tell.

    `blocks` says how they were got: "exact" if every large block came from the system and went back to it at once, which is what
    a prediction is to be held against, "kept" if the process kept what it had, as `convatlas train` does: then holes count.
    """

    blocks: str
    inference: int | None
    training: int | None


@dataclass(frozen=True)
class MemoryRecord:
    """What was asked, the two predictions, and what was measured, if anything was.

    `input_shape` is that of one image, (C, H, W). `trains` is "full" or "head", `checkpointing` whether activations are computed
    twice instead of kept.
    """

    model: str
    input_shape: tuple[int, ...]
    num_classes: int
    batch_size: int
    optimizer: str
    precision: str
    checkpointing: bool
    trains: str
    inference: MemoryUse
    training: MemoryUse
    measured: tuple[MemoryMeasured, ...] = ()
