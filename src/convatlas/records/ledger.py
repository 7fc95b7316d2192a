"""What the ledger says of a network: one row for every operation that an image passes, in the order in which data flows."""

from dataclasses import dataclass

IMAGE = -1
"""Stands for the image among the rows that feed a row."""


@dataclass(frozen=True)
class Window:
    """What a convolution or pooling slides over its input: rows and columns of each, in pixels of the map or in steps."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1


@dataclass(frozen=True)
class LedgerRow:
    """One operation as one image passes it: a module of torch, or a function called in some module's `forward`.

    `name` is the module's path, or that of the module whose `forward` calls the function ("" for the network itself);
    `function` tells the two apart. `inputs` are the rows whose outputs it takes, as indices, `IMAGE` for the image itself.
    Shapes are without the batch axis. `formulas` are the output-size formula with the numbers filled in: one if rows and
    columns agree, else two, rows first; none for what slides no window.

    `activation_bytes` is the new memory of its output, for one image (0 for views and what works in place); `kept_bytes` what
    training has to keep for the backward pass because of it, for one image, and not because of a row before; None if unknown.

    `receptive_field` is the side, in pixels, of the region that a unit can depend on through all paths, the larger side, for
    the channel that sees most; `least_field` through the path, and for the channel, that sees least. None is the whole image.
    `start` is the first pixel that unit 0 depends on, along the side of `receptive_field`; before the image it is negative;
    None where the whole image is seen. `jump` is the distance between neighbouring units along that side, in pixels of the
    image; None where the output has no rows and columns. `unfollowed` says why these four are unknown (and None).
    """

    name: str
    operation: str
    function: bool
    settings: str
    window: Window | None
    inputs: tuple[int, ...]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    formulas: tuple[str, ...]
    params: int
    macs: int
    activation_bytes: int
    kept_bytes: int | None
    receptive_field: int | None
    least_field: int | None
    start: int | None
    jump: int | None
    unfollowed: str | None = None


@dataclass(frozen=True)
class Part:
    """A module that holds others, or parameters of its own, and through which the image passed: its path and its class."""

    name: str
    kind: str


@dataclass(frozen=True)
class Hint:
    """Something worth knowing about a row: `kind` says of which sort, `reason` why it matters, in one sentence."""

    row: int
    kind: str
    what: str
    reason: str


@dataclass(frozen=True)
class Memory:
    """Bytes that a network needs. `weights` counts parameters and buffers, `gradients` the parameters that are trained.

    `kept` is what training keeps of one image until the backward pass, and `kept_once` what it keeps of a batch of any size,
    both None if unknown; `peak` is the most that one image takes at a time in the backward pass: what is still kept, and the
    gradients by a layer's output and input. `activations` is what all maps of one image take together.
    """

    weights: int
    gradients: int
    activations: int
    kept: int | None
    kept_once: int | None
    peak: int | None


@dataclass(frozen=True)
class Ledger:
    """A network, operation by operation, for one image of `input_shape` (C, H, W), with totals.

    `params` and `auxiliary_params` are as in `TraceRecord`. `sees_all` is the row from which on every unit of the map that
    leads to the answer sees the whole image; None if there is none. `notes` say which columns could not be told, and why.
    """

    model: str
    input_shape: tuple[int, ...]
    rows: tuple[LedgerRow, ...]
    parts: tuple[Part, ...]
    params: int
    auxiliary_params: int
    macs: int
    memory: Memory
    sees_all: int | None
    hints: tuple[Hint, ...]
    notes: tuple[str, ...]
