"""What is measured of a network: its layers, one by one, its totals, and what sets two networks apart."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerRecord:
    """One layer as one image passed through it. Shapes are as the layer sees them, without the batch axis:
    (C, H, W), (features,), or (H, W, C) where a network permutes (ConvNeXt).

    `settings` are in words, such as `3x3 stride 2 padding 1`, and empty for layers that have none.
    `receptive_field` is the side of the region of the image, in pixels, that a unit of the output can depend on: the larger
    side, and that of the channel that sees most; None for the whole image. Padding counts, so that it may be larger than the
    image. `jump` is the distance, in pixels of the image, between neighbouring units; None where the output has no rows and
    columns. `unfollowed` says why both are unknown (and None); it is None where they are known.
    """

    name: str
    operation: str
    settings: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    params: int
    macs: int
    receptive_field: int | None
    jump: int | None
    unfollowed: str | None = None
    formula: str | None = None


@dataclass(frozen=True)
class TraceRecord:
    """A network's layers in the order in which data flowed, for one image of `input_shape` (C, H, W), with totals.

    `params` counts all trainable parameters of the network; `auxiliary_params` those of parts that only training uses
    (GoogLeNet's auxiliary heads), which are not in `params`. `receptive_field` and `unfollowed` are as in `LayerRecord`, for
    the map of the last stage, or, in a network without stages, the last (N, C, H, W) that still has rows and columns.
    """

    input_shape: tuple[int, ...]
    layers: tuple[LayerRecord, ...]
    stage_shapes: tuple[tuple[int, ...], ...]
    params: int
    auxiliary_params: int
    macs: int
    receptive_field: int | None
    unfollowed: str | None = None


@dataclass(frozen=True)
class PartTotals:
    """A part of a network, such as a stage: how many layers it has, the shape that it gives, and what its layers come to.

    `receptive_field` is the largest of its layers; None for the whole image, or if `followed` is false.
    """

    layers: int
    output_shape: tuple[int, ...]
    params: int
    macs: int
    receptive_field: int | None
    followed: bool


@dataclass(frozen=True)
class LayerDiff:
    """A layer that is not the same in two networks; None where it has no counterpart."""

    first: LayerRecord | None
    second: LayerRecord | None


@dataclass(frozen=True)
class PartDiff:
    """What sets a part (`stem`, `stage 1`, ..., `head`, or `network` for layers outside of these) of two networks apart.

    `same` layers do the same in both; `resized` of them give another shape, since what they are given has another.
    """

    part: str
    first: PartTotals | None
    second: PartTotals | None
    same: int
    resized: int
    changes: tuple[LayerDiff, ...]


@dataclass(frozen=True)
class ModelDiff:
    """What sets two networks apart: part by part, in the order of the data, and in total."""

    first: TraceRecord
    second: TraceRecord
    parts: tuple[PartDiff, ...]

    @property
    def same_layers(self) -> bool:
        """Whether all layers are the same, in the same order, and give the same shapes."""
        return not any(part.changes or part.resized for part in self.parts)


@dataclass(frozen=True)
class GoldenRow:
    """The committed numbers of one variant, as `convatlas list` shows them and the tests hold them.

    `receptive_field` is that of the last stage's map in pixels; None if its units see the whole image.
    """

    family: str
    in_chans: int
    image_size: int
    num_classes: int
    params: int
    auxiliary_params: int
    macs: int
    receptive_field: int | None
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
