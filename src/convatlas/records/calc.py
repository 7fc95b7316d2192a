"""What the calculators work out, and what is timed beside it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """How long one of several calls took, in seconds: `n` runs, their median and quartiles."""

    name: str
    n: int
    lower: float
    median: float
    upper: float


@dataclass(frozen=True)
class TimeRatio:
    """The time of `name` as a share of that of `base`, round by round: the median, and its 95 % interval from `low` to `high`."""

    name: str
    base: str
    median: float
    low: float
    high: float


@dataclass(frozen=True)
class TimingComparison:
    """Calls that took turns: each ran once a round, in an order that was turned round every time, after `warmup` rounds.

    `ratios` compare each call but the first with the first. `threads` are torch's within an operation. `load` is how many
    programs ran or waited on average in the minute before, of `cores` that could; None where the system does not tell.
    """

    timings: tuple[Timing, ...]
    ratios: tuple[TimeRatio, ...]
    warmup: int
    threads: int
    cores: int
    load: float | None
    torch: str

    @property
    def busy(self) -> bool:
        """Whether other programs may have taken cores away: half of them or more were in use before."""
        return self.load is not None and 2 * self.load >= self.cores


@dataclass(frozen=True)
class AxisCalc:
    """A window along one axis of a map: what is given, the output-size formula filled in, and which pixels are read.

    Output i reads `i * stride - padding + k * dilation` for k from 0 to `kernel - 1`; pixel 0 is the first of the map.
    `unread_start`, `unread_between` and `unread_end` are pixels that no output reads; `padding_only` outputs that read no
    pixel. `same_padding` gives ceil(size / stride) outputs; None if no padding does (on both sides alike), or none is allowed.
    """

    size: int
    kernel: int
    stride: int
    padding: int
    dilation: int
    output: int
    formula: str
    unread_start: int
    unread_between: int
    unread_end: int
    padding_only: int
    same_padding: int | None

    @property
    def unread(self) -> int:
        """Pixels that no output reads."""
        return self.unread_start + self.unread_between + self.unread_end


@dataclass(frozen=True)
class LayerCost:
    """What a convolution of so many channels costs on one image; `biases` is 0 or one for each output channel."""

    in_channels: int
    out_channels: int
    groups: int
    weights: int
    biases: int
    macs: int


@dataclass(frozen=True)
class WindowCalc:
    """A convolution or a pooling (`kind`) on one map. `cost` is None where channels were not given, and for poolings."""

    kind: str
    rows: AxisCalc
    columns: AxisCalc
    ceil_mode: bool
    cost: LayerCost | None


@dataclass(frozen=True)
class ConvCost:
    """A convolution without biases on one image; `macs_per_value` is MACs for each number that it must at least move."""

    name: str
    weights: int
    macs: int
    macs_per_value: float


@dataclass(frozen=True)
class DepthwiseCalc:
    """A standard convolution against a depthwise and a pointwise (1x1) one, on maps that keep their size.

    `ratio` is 1 / out_channels + 1 / kernel area: the pair's share of the weights and of the MACs. `forward` and `training`
    (forward and backward) are measured for `batch_size` images, None if they were not.
    """

    kernel: tuple[int, int]
    in_channels: int
    out_channels: int
    size: tuple[int, int]
    standard: ConvCost
    depthwise: ConvCost
    pointwise: ConvCost
    ratio: float
    batch_size: int
    forward: TimingComparison | None
    training: TimingComparison | None


@dataclass(frozen=True)
class StackLayer:
    """One layer of a stack, padded so that a stride of 1 keeps the size. `receptive_field` and `jump` are after it."""

    kernel: int
    stride: int
    receptive_field: int
    jump: int
    output: int
    weights: int
    macs: int


@dataclass(frozen=True)
class StackCalc:
    """Convolutions one after the other, against the one (`single`) that sees as far and strides as far.

    All have `channels` in and out and no biases; the map before them is `size` pixels a side. Each is followed by one
    non-linearity.
    """

    channels: int
    size: int
    layers: tuple[StackLayer, ...]
    single: StackLayer

    @property
    def weights(self) -> int:
        """Weights of the stack."""
        return sum(layer.weights for layer in self.layers)

    @property
    def macs(self) -> int:
        """MACs of the stack on one image."""
        return sum(layer.macs for layer in self.layers)


@dataclass(frozen=True)
class FieldLayer:
    """How far one layer sees. `output` is the map's (H, W), None if no image size was given.

    `receptive_field` (the larger side), `least_field`, `jump` and `start` are as in `LedgerRow`: None is the whole image for
    the first two, and where the whole image is seen, for the last.
    """

    name: str
    what: str
    output: tuple[int, int] | None
    receptive_field: int | None
    least_field: int | None
    jump: int | None
    start: int | None
    unfollowed: str | None = None


@dataclass(frozen=True)
class FieldCalc:
    """Receptive fields layer by layer, of layers that were listed or of a network (`model`)."""

    model: str | None
    image_size: int | None
    layers: tuple[FieldLayer, ...]
