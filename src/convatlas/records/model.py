"""What is measured of a network: its layers, one by one, and its totals."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerRecord:
    """One layer as one image passed through it. Shapes are as the layer sees them, without the batch axis:
    (C, H, W), (features,), or (H, W, C) where a network permutes (ConvNeXt)."""

    name: str
    operation: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    params: int
    macs: int
    formula: str | None = None


@dataclass(frozen=True)
class TraceRecord:
    """A network's layers in the order in which data flowed, for one image of `input_shape` (C, H, W), with totals.

    `params` counts all trainable parameters of the network; `auxiliary_params` those of parts that only training uses
    (GoogLeNet's auxiliary heads), which are not in `params`.
    """

    input_shape: tuple[int, ...]
    layers: tuple[LayerRecord, ...]
    stage_shapes: tuple[tuple[int, ...], ...]
    params: int
    auxiliary_params: int
    macs: int


@dataclass(frozen=True)
class GoldenRow:
    """The committed numbers of one variant, as `convatlas list` shows them and the tests hold them."""

    family: str
    in_chans: int
    image_size: int
    num_classes: int
    params: int
    auxiliary_params: int
    macs: int
    stage_shapes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Published:
    """A published ImageNet top-1 accuracy in percent, with how it was measured and where it stands."""

    top1: float
    protocol: str
    source: str


@dataclass(frozen=True)
class Paper:
    """A landmark architecture: who published it, what was new, and what accuracy was published for which variant.

    `own_figure` is the paper's, `library_figure` that of the weights people load; `teaching_table` is the figure that
    teaching tables print for it where that is something else, with what it really is. `landmark` and `pocket` are variants.
    """

    family: str
    title: str
    year: int
    innovation: str
    authors: str
    paper: str
    landmark: str
    pocket: str
    own_figure: Published | None
    library_figure: Published | None
    teaching_table: Published | None
